/* Hierarchical block matching on 8-bit luma: where each block of the current picture stood in the previous one.
 *
 * All of the search is integer arithmetic, so that the NumPy reference (edge_seg/flow_reference.py) gives equal
 * vectors. Blocks do not read each other's results within a pass, for the same reason.
 */
#include "_flow_picture.h"
#include <math.h>
#include <stdlib.h>

#define WINDOW 8              /* side of a block that is matched, at every level, and of its window */
#define PAIRS (WINDOW / 2)
#define AREA (WINDOW * WINDOW)
#define STILL (2 * AREA)      /* a sum of differences (two code values a pixel) below which nothing better is looked for */
#define LANES 16
#define COLS_MAX (SIDE_MAX / WINDOW)
#define Q 16                  /* vectors are in 1/16 pixel after the sub-pixel step */
#define SEARCH_MAX 16

typedef struct { int16_t x, y; } Vector;

/* Vectors of 8-pixel blocks of one level, in whole pixels. */
typedef struct {
    int rows, cols;
    Vector *vectors;
} Stage;

/* What was found for blocks of the finest level, `side` pixels wide. */
typedef struct {
    int side, rows, cols;
    Vector *vectors;      /* 1/16 pixel */
    float *residual;      /* mean absolute difference */
    float *texture;       /* the smaller eigenvalue of the mean structure tensor */
} Found;

typedef struct {
    int block, levels, search, penalty;
    int rows, cols;                  /* of the block grid that is asked for */
    const Vector *hint;              /* the flow of the frame before, in 1/16 pixel, or NULL */
    const unsigned char *active;     /* where precision is wanted, or NULL for everywhere */
} Settings;

static inline int clamp(int v, int lo, int hi) { return v < lo ? lo : v > hi ? hi : v; }
static inline int blocks(int pixels, int side) { return (pixels + side - 1) / side; }

/* --- matching whole pixels ------------------------------------------------------------------------------------- */

INLINED int sad(const unsigned char *restrict a, const unsigned char *restrict b, Py_ssize_t stride)
{
    int sum = 0;
    for (int r = 0; r < PAIRS; r++) {
        for (int i = 0; i < 2 * WINDOW; i++)
            sum += abs((int)a[i] - (int)b[i]);
        a += 2 * stride, b += 2 * stride;
    }
    return sum;
}

/* A cost and which candidate has it, so that the smaller of two is one instruction, and the first of equal ones wins.
 * Costs are below 2^18 (AREA * 255 and 32 times the largest penalty), candidates fewer than 2^11. */
#define WHICH 11
INLINED int32_t key_of(int cost, int which) { return (int32_t)cost << WHICH | which; }
INLINED int32_t least(int32_t a, int32_t b) { return a < b ? a : b; }
INLINED int cost_of(int32_t key) { return key >> WHICH; }
INLINED int which_of(int32_t key) { return key & ((1 << WHICH) - 1); }

/* The vectors that keep the window at (x, y), and a rim of 2, inside the border. */
typedef struct { int x_lo, x_hi, y_lo, y_hi; } Range;

INLINED Range range_of(const Level *l, int x, int y)
{
    return (Range){-BORDER + 2 - x, l->width + BORDER - WINDOW - 2 - x, -BORDER + 2 - y, l->height + BORDER - WINDOW - 2 - y};
}

INLINED Vector limited(int x, int y, Range range)
{
    return (Vector){(int16_t)clamp(x, range.x_lo, range.x_hi), (int16_t)clamp(y, range.y_lo, range.y_hi)};
}

/* A block of the current picture, where it stands in the previous one, and the best vector so far. */
typedef struct {
    const unsigned char *patch, *here;
    Py_ssize_t stride;
    Range range;
    Vector best;
    int cost;
} Search;

/* Begins with standing still. */
INLINED Search search_at(const Level *previous, const Level *current, int bx, int by)
{
    Search s = {window_at(current, bx * WINDOW, by * WINDOW), window_at(previous, bx * WINDOW, by * WINDOW), previous->stride,
                range_of(previous, bx * WINDOW, by * WINDOW), {0, 0}, 0};
    s.cost = sad(s.patch, s.here, s.stride);
    return s;
}

INLINED int cost_at(const Search *s, Vector v) { return sad(s->patch, s->here + v.y * s->stride + 2 * v.x, s->stride); }

INLINED void search_try(Search *s, Vector v, int penalty)
{
    int cost = cost_at(s, v) + penalty;
    if (cost < s->cost)
        s->cost = cost, s->best = v;
}

/* The eight neighbours of the best vector, row by row. */
INLINED void search_around(Search *s, int penalty)
{
    Vector v = s->best;
    if (v.x <= s->range.x_lo || v.x >= s->range.x_hi || v.y <= s->range.y_lo || v.y >= s->range.y_hi)
        return;
    const unsigned char *at = s->here + v.y * s->stride + 2 * v.x, *over = at - s->stride, *under = at + s->stride;
    int32_t best = key_of(s->cost, 0);
    best = least(best, key_of(sad(s->patch, over - 2, s->stride) + penalty, 1));
    best = least(best, key_of(sad(s->patch, over, s->stride) + penalty, 2));
    best = least(best, key_of(sad(s->patch, over + 2, s->stride) + penalty, 3));
    best = least(best, key_of(sad(s->patch, at - 2, s->stride) + penalty, 4));
    best = least(best, key_of(sad(s->patch, at + 2, s->stride) + penalty, 6));
    best = least(best, key_of(sad(s->patch, under - 2, s->stride) + penalty, 7));
    best = least(best, key_of(sad(s->patch, under, s->stride) + penalty, 8));
    best = least(best, key_of(sad(s->patch, under + 2, s->stride) + penalty, 9));
    if (which_of(best)) {
        s->best.x = (int16_t)(v.x + (which_of(best) - 1) % 3 - 1);
        s->best.y = (int16_t)(v.y + (which_of(best) - 1) / 3 - 1);
        s->cost = cost_of(best);
    }
}

/* All vectors within `search` pixels along each axis, the farther the dearer. */
INLINED void search_all(Search *s, int search, int penalty)
{
    const int span = 2 * search + 1;
    const int x_lo = clamp(-search, s->range.x_lo, 0), x_hi = clamp(search, 0, s->range.x_hi);
    const int y_lo = clamp(-search, s->range.y_lo, 0), y_hi = clamp(search, 0, s->range.y_hi);
    int32_t best = key_of(s->cost, 0);
    for (int y = y_lo; y <= y_hi; y++) {
        const unsigned char *row = s->here + y * s->stride;
        int far = penalty * abs(y), which = 1 + (y + search) * span + search;
        for (int x = x_lo; x <= x_hi; x++)
            best = least(best, key_of(sad(s->patch, row + 2 * x, s->stride) + far + penalty * abs(x), which + x));
    }
    if (which_of(best)) {
        s->best.x = (int16_t)((which_of(best) - 1) % span - search);
        s->best.y = (int16_t)((which_of(best) - 1) / span - search);
    }
}

/* The two of `count` blocks of twice the size whose centres enclose the centre of block b along one axis. */
INLINED void parents(int b, int count, int *near, int *far)
{
    *near = clamp(b >> 1, 0, count - 1);
    *far = clamp((b >> 1) + (b & 1 ? 1 : -1), 0, count - 1);
}

/* The hint at the centre of a block of a level, in whole pixels of that level. */
INLINED Vector hint_at(const Settings *settings, int level, int bx, int by)
{
    int shift = settings->block == 2 ? 2 : settings->block == 4 ? 3 : 4;   /* 2 * block */
    int x = clamp((2 * bx + 1) * WINDOW << level >> shift, 0, settings->cols - 1);
    int y = clamp((2 * by + 1) * WINDOW << level >> shift, 0, settings->rows - 1);
    Vector v = settings->hint[y * settings->cols + x];
    int half = 8 << level;
    return (Vector){(int16_t)((v.x + half) >> (4 + level)), (int16_t)((v.y + half) >> (4 + level))};
}

/* Whether precision is wanted anywhere in a block of the finest level. */
static inline int is_active(const Settings *settings, int bx, int by)
{
    if (!settings->active)
        return 1;
    int n = WINDOW / settings->block;
    for (int y = by * n; y < (by + 1) * n && y < settings->rows; y++)
        for (int x = bx * n; x < (bx + 1) * n && x < settings->cols; x++)
            if (settings->active[y * settings->cols + x])
                return 1;
    return 0;
}

#define MUCH_BETTER 2   /* times as good a match as standing still: the hint is right, and need not be searched for */

WIDE static void match_top(Stage *stage, int level, const Level *previous, const Level *current, const Settings *settings)
{
    for (int by = 0; by < stage->rows; by++)
        for (int bx = 0; bx < stage->cols; bx++) {
            Search s = search_at(previous, current, bx, by);
            int still = s.cost, known = still <= STILL;
            if (!known && settings->hint) {
                Vector h = hint_at(settings, level, bx, by);
                search_try(&s, limited(h.x, h.y, s.range), settings->penalty);
                if (s.cost < still) {
                    search_around(&s, 2 * settings->penalty);
                    known = MUCH_BETTER * s.cost <= still;
                }
            }
            if (!known)
                search_all(&s, settings->search, settings->penalty);
            stage->vectors[by * stage->cols + bx] = s.best;
        }
}

WIDE static void match_refine(Stage *stage, int level, const Stage *coarse, const Level *previous, const Level *current,
                              const Settings *settings)
{
    for (int by = 0; by < stage->rows; by++) {
        int ys[2], xs[2];
        parents(by, coarse->rows, &ys[0], &ys[1]);
        const Vector *rows[2] = {coarse->vectors + ys[0] * coarse->cols, coarse->vectors + ys[1] * coarse->cols};
        for (int bx = 0; bx < stage->cols; bx++) {
            Search s = search_at(previous, current, bx, by);
            if (s.cost > STILL) {
                parents(bx, coarse->cols, &xs[0], &xs[1]);
                for (int i = 0; i < 4; i++) {
                    Vector p = rows[i >> 1][xs[i & 1]];
                    search_try(&s, limited(2 * p.x, 2 * p.y, s.range), settings->penalty);
                }
                if (settings->hint) {
                    Vector h = hint_at(settings, level, bx, by);
                    search_try(&s, limited(h.x, h.y, s.range), settings->penalty);
                }
                if (s.cost > STILL && (level > 0 || is_active(settings, bx, by)))
                    search_around(&s, 2 * settings->penalty);
            }
            stage->vectors[by * stage->cols + bx] = s.best;
        }
    }
}

/* --- sub-pixel step and residual -------------------------------------------------------------------------------- */

INLINED int whole(int steps) { return (steps - (steps & (Q - 1))) / Q; }
INLINED int part(int steps) { return steps & (Q - 1); }
INLINED Range sixteenths(Range r) { return (Range){Q * r.x_lo, Q * r.x_hi, Q * r.y_lo, Q * r.y_hi}; }

/* Eight pixels of a row, and of the row below: a pair's bytes, as the halves of numbers. */
typedef uint16_t Row __attribute__((vector_size(16)));

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
INLINED Row first(Row both) { return both >> 8; }
INLINED Row second(Row both) { return both & 255; }
#else
INLINED Row first(Row both) { return both & 255; }
INLINED Row second(Row both) { return both >> 8; }
#endif

INLINED Row pair_load(const unsigned char *pair)
{
    Row both;
    memcpy(&both, pair, sizeof both);
    return both;
}

/* Doubled gradients in x and y and the difference in time, at the pixels of a window. */
typedef struct { int16_t x[AREA], y[AREA], t[AREA]; } Gradients;

INLINED void gradients(const unsigned char *restrict p, const unsigned char *restrict c, Py_ssize_t stride, Gradients *out)
{
    for (int r = 0; r < WINDOW; r += 2) {
        Row here = pair_load(p), left = pair_load(p - 2), right = pair_load(p + 2), now = pair_load(c);
        Row over = pair_load(p - stride), under = pair_load(p + stride);
        Row x[2] = {first(right) - first(left), second(right) - second(left)};
        Row y[2] = {second(here) - first(over), second(under) - first(here)};
        Row t[2] = {first(here) - first(now), second(here) - second(now)};
        memcpy(out->x + WINDOW * r, x, sizeof x);
        memcpy(out->y + WINDOW * r, y, sizeof y);
        memcpy(out->t + WINDOW * r, t, sizeof t);
        p += 2 * stride, c += 2 * stride;
    }
}

/* The structure tensor of a window and its product with the temporal difference. */
typedef struct { int32_t xx, xy, yy, xt, yt; } Moments;

INLINED Moments moments(const Gradients *g)
{
    Moments m = {0, 0, 0, 0, 0};
    for (int i = 0; i < AREA; i++) {
        m.xx += g->x[i] * g->x[i];
        m.xy += g->x[i] * g->y[i];
        m.yy += g->y[i] * g->y[i];
        m.xt += g->x[i] * g->t[i];
        m.yt += g->y[i] * g->t[i];
    }
    return m;
}

#define FLAT (AREA * 2 * 2)   /* regularises the normal equations: noise of about 1 code value */
#define STEP_MAX (Q * 3 / 4)

/* floor(q), limited to +-STEP_MAX; below 2^31 they all are. */
INLINED void steps_of(const double *restrict quotients, int count, int32_t *restrict out)
{
    for (int i = 0; i < count; i++) {
        int32_t truncated = (int32_t)quotients[i];
        out[i] = clamp(truncated - (truncated > quotients[i]), -STEP_MAX, STEP_MAX);
    }
}

/* The smaller eigenvalue of the mean structure tensor, in squared code values per pixel. */
static inline float texture_of(float a, float b, float c)
{
    float smaller = 0.5f * (a + c - sqrtf((a - c) * (a - c) + 4.0f * b * b));
    return smaller > 0.0f ? smaller / (4.0f * WINDOW * WINDOW) : 0.0f;
}

INLINED Row apart(Row a, Row b)
{
    typedef int16_t Signed __attribute__((vector_size(16)));
    Signed difference = (Signed)(a - b), sign = difference >> 15;
    return (Row)((difference ^ sign) - sign);
}

/* The sum of what is together below 2^16. */
INLINED int sum_of(Row row)
{
    uint64_t four[2];
    memcpy(four, &row, sizeof four);
    return (int)((four[0] + four[1]) * 0x0001000100010001u >> 48);
}

/* Sum of absolute differences over `pairs` pairs of rows at fx, fy sixteenths of a pixel right of and below p,
 * bilinear. Columns outside `mask` do not count. */
INLINED int sad_between(const unsigned char *restrict c, const unsigned char *restrict p, Py_ssize_t stride, int fx, int fy,
                        int pairs, Row mask)
{
    const uint16_t left = (uint16_t)(Q - fx), right = (uint16_t)fx, over = (uint16_t)(Q - fy), under = (uint16_t)fy;
    Row total = {0}, a = pair_load(p), b = pair_load(p + 2), upper = first(a) * left + first(b) * right;
    for (int r = 0; r < pairs; r++) {
        Row middle = second(a) * left + second(b) * right, lower, now = pair_load(c);
        p += r + 1 < pairs ? 2 * stride : stride;
        a = pair_load(p), b = pair_load(p + 2);
        if (r + 1 < pairs)
            lower = first(a) * left + first(b) * right;
        else
            lower = second(a) * left + second(b) * right;
        total += apart((upper * over + middle * under + 128) >> 8, first(now));
        total += apart((middle * over + lower * under + 128) >> 8, second(now));
        upper = lower;
        c += 2 * stride;
    }
    return sum_of(total & mask);
}

static const Row middle8 = {65535, 65535, 65535, 65535, 65535, 65535, 65535, 65535};
static const Row middle6 = {0, 65535, 65535, 65535, 65535, 65535, 65535, 0};
static const Row middle4 = {0, 0, 65535, 65535, 65535, 65535, 0, 0};

/* Where a vector in 1/16 pixel takes a block, in whole pixels. */
INLINED const unsigned char *landing(const Level *previous, int bx, int by, Vector v)
{
    return window_at(previous, bx * WINDOW + whole(v.x), by * WINDOW + whole(v.y));
}

#define BATCH 16   /* windows: what is written in halves of registers is not read in whole ones at once, which waits */

/* One Gauss-Newton step of Lucas and Kanade from the whole-pixel vectors, in 1/16 pixel, and how well it fits then. */
WIDE static void subpixel(const Stage *stage, const Level *previous, const Level *current, Found *found)
{
    const Py_ssize_t stride = previous->stride;
    Gradients batch[BATCH];
    for (int by = 0; by < stage->rows; by++) {
        const Vector *vectors = stage->vectors + by * stage->cols;
        Vector *out = found->vectors + by * stage->cols;
        float *residual = found->residual + by * stage->cols, *texture = found->texture + by * stage->cols;
        int32_t xx[COLS_MAX], xy[COLS_MAX], yy[COLS_MAX], xt[COLS_MAX], yt[COLS_MAX], sx[COLS_MAX], sy[COLS_MAX];
        double qx[COLS_MAX], qy[COLS_MAX];
        for (int start = 0; start < stage->cols; start += BATCH) {
            int end = start + BATCH < stage->cols ? start + BATCH : stage->cols;
            for (int bx = start; bx < end; bx++) {
                int x = bx * WINDOW, y = by * WINDOW;
                Vector v = vectors[bx];
                gradients(window_at(previous, x + v.x, y + v.y), window_at(current, x, y), stride, &batch[bx - start]);
            }
            for (int bx = start; bx < end; bx++) {
                Moments m = moments(&batch[bx - start]);
                xx[bx] = m.xx, xy[bx] = m.xy, yy[bx] = m.yy, xt[bx] = m.xt, yt[bx] = m.yt;
            }
        }
        for (int bx = 0; bx < stage->cols; bx++) {
            double a = xx[bx] + FLAT, b = xy[bx], c = yy[bx] + FLAT;
            double det = a * c - b * b; /* positive: FLAT makes the matrix positive definite */
            qx[bx] = (4 * Q * (b * yt[bx] - c * xt[bx]) + det) / (2 * det);
            qy[bx] = (4 * Q * (b * xt[bx] - a * yt[bx]) + det) / (2 * det);
        }
        steps_of(qx, stage->cols, sx);
        steps_of(qy, stage->cols, sy);
        for (int bx = 0; bx < stage->cols; bx++)
            texture[bx] = texture_of((float)xx[bx], (float)xy[bx], (float)yy[bx]);
        int sums[COLS_MAX], between[COLS_MAX], count = 0;
        for (int bx = 0; bx < stage->cols; bx++) {
            Range range = sixteenths(range_of(previous, bx * WINDOW, by * WINDOW));
            Vector v = limited(vectors[bx].x * Q + sx[bx], vectors[bx].y * Q + sy[bx], range);
            sums[bx] = sad(window_at(current, bx * WINDOW, by * WINDOW), landing(previous, bx, by, v), stride);
            between[count] = bx;
            count += (part(v.x) | part(v.y)) != 0;
            out[bx] = v;
        }
        for (int i = 0; i < count; i++) { /* by themselves: no processor foresees which they are */
            const int bx = between[i];
            const Vector v = out[bx];
            sums[bx] = sad_between(window_at(current, bx * WINDOW, by * WINDOW), landing(previous, bx, by, v), stride,
                                   part(v.x), part(v.y), PAIRS, middle8);
        }
        for (int bx = 0; bx < stage->cols; bx++)
            residual[bx] = (float)sums[bx] / AREA;
    }
}

/* --- smaller blocks ----------------------------------------------------------------------------------------------- */

#define APART (Q / 2)   /* vectors that differ by no more than this need no choice between them */
#define ALIKE (Q / 4)   /* of vectors that differ by no more than this one is enough to choose from */

INLINED int within(int difference, int limit) { return difference <= limit && difference >= -limit; }

/* Of the four vectors around a block of half the size, the one under which the pixels around it match best: 6x6 for a
 * block of 4, 4x4 for one of 2. Windows so small would not do for a search, but choose well between few good vectors. */
INLINED void choose(const Found *from, const Found *to, int side, int bx, int by, const Level *previous, const Level *current)
{
    const Py_ssize_t stride = previous->stride;
    const int pairs = side == 4 ? 3 : 2, rim = (WINDOW - 2 * pairs) / 2;
    const int x = side * bx + side / 2 - WINDOW / 2, y = side * by + side / 2 - WINDOW / 2;
    const Row columns = side == 4 ? middle6 : middle4;
    const unsigned char *patch = window_at(current, x, y + rim), *here = window_at(previous, x, y + rim);
    const Range range = sixteenths(range_of(previous, x, y));
    const Vector nowhere = {INT16_MAX, INT16_MAX};
    Vector tried[4] = {nowhere, nowhere, nowhere, nowhere};
    int ys[2], xs[2], index = by * to->cols + bx;
    int32_t best = key_of(1 << 18, 0);
    parents(by, from->rows, &ys[0], &ys[1]);
    parents(bx, from->cols, &xs[0], &xs[1]);
    for (int i = 0; i < 4; i++) {
        const Vector *near = &from->vectors[ys[i >> 1] * from->cols + xs[i & 1]], v = limited(near->x, near->y, range);
        int known = 0;
        for (int k = 0; k < 3; k++) /* whatever `i` is, for compilers to have no loop here */
            known |= within(tried[k].x - v.x, ALIKE) & within(tried[k].y - v.y, ALIKE);
        if (known)
            continue;
        tried[i] = v;
        const unsigned char *at = here + whole(v.y) * stride + 2 * whole(v.x);
        best = least(best, key_of(sad_between(patch, at, stride, part(v.x), part(v.y), pairs, columns), i));
    }
    const int which = which_of(best);
    to->vectors[index] = tried[which];
    to->residual[index] = (float)cost_of(best) / (float)(4 * pairs * pairs);
    to->texture[index] = from->texture[ys[which >> 1] * from->cols + xs[which & 1]];
}

INLINED int16_t far_apart(int16_t a, int16_t b)
{
    const int16_t difference = (int16_t)abs((int16_t)(a - b));
    return difference > APART ? -1 : 0;
}

/* Where the vectors of two block rows differ by more than APART from those of `near`, each compared with the neighbours
 * on the left (1) and on the right (2). Rows hold x and y interleaved, with one block of replicated border. */
INLINED void differences(const int16_t *restrict near, const int16_t *restrict far, int cols, int16_t *restrict out)
{
    for (int i = 0; i < 2 * cols; i++) {
        const int16_t across = far_apart(near[i], far[i]);
        const int16_t left = across | far_apart(near[i], near[i - 2]) | far_apart(near[i], far[i - 2]);
        const int16_t right = across | far_apart(near[i], near[i + 2]) | far_apart(near[i], far[i + 2]);
        out[i] = (int16_t)((left & 1) | (right & 2));
    }
}

static void row_load(const Found *from, int row, int16_t *out)
{
    const Vector *v = from->vectors + row * from->cols;
    memcpy(out + 2, v, (size_t)from->cols * sizeof(Vector));
    memcpy(out, v, sizeof(Vector));
    memcpy(out + 2 + 2 * from->cols, v + from->cols - 1, sizeof(Vector));
}

/* Each item of 4 bytes two times, until there are `count`. */
INLINED void twice(const void *restrict items, int count, void *restrict out)
{
    for (int i = 0; i < count / 2; i++) {
        uint32_t item;
        memcpy(&item, (const unsigned char *)items + 4 * i, sizeof item);
        memcpy((unsigned char *)out + 8 * i, &item, sizeof item);
        memcpy((unsigned char *)out + 8 * i + 4, &item, sizeof item);
    }
    if (count & 1)
        memcpy((unsigned char *)out + 4 * (count - 1), (const unsigned char *)items + 4 * (count / 2), 4);
}

/* From blocks to blocks of half the side, which is `side`. */
INLINED void divide_into(const Found *from, const Found *to, int side, const Level *previous, const Level *current,
                         const unsigned char *active)
{
    int16_t rows[2][2 * (SIDE_MAX / 4 + 2)], differ[2 * (SIDE_MAX / 4)];
    for (int by = 0; by < to->rows; by++) {
        int y0, y1, start = by * to->cols;
        parents(by, from->rows, &y0, &y1);
        twice(from->vectors + y0 * from->cols, to->cols, to->vectors + start);
        twice(from->residual + y0 * from->cols, to->cols, to->residual + start);
        twice(from->texture + y0 * from->cols, to->cols, to->texture + start);
        row_load(from, y0, rows[0]);
        row_load(from, y1, rows[1]);
        differences(rows[0] + 2, rows[1] + 2, from->cols, differ);
        for (int parent = 0; parent < from->cols; parent++) {
            const int sides = differ[2 * parent] | differ[2 * parent + 1];
            for (int k = 0; sides && k < 2; k++) {
                const int bx = 2 * parent + k;
                if (sides >> k & 1 && bx < to->cols && (!active || active[start + bx]))
                    choose(from, to, side, bx, by, previous, current);
            }
        }
    }
}

/* Both have loops of their own, unrolled. */
WIDE static void divide(const Found *from, const Found *to, const Level *previous, const Level *current, const unsigned char *active)
{
    if (to->side == 4)
        divide_into(from, to, 4, previous, current, active);
    else
        divide_into(from, to, 2, previous, current, active);
}

/* --- the result --------------------------------------------------------------------------------------------------- */

/* Additions of doubles stay in their order, so compilers need several sums to do several at once. */
WIDE static double mean_of(const float *values, int count)
{
    double sums[8] = {0}, sum = 0;
    int i = 0;
    for (; i + 8 <= count; i += 8)
        for (int k = 0; k < 8; k++)
            sums[k] += values[i + k];
    for (; i < count; i++)
        sum += values[i];
    for (int k = 0; k < 8; k++)
        sum += sums[k];
    return sum / count;
}

/* --- the calls ---------------------------------------------------------------------------------------------------- */

static int check_sides(int width, int height)
{
    if (width >= 1 && height >= 1 && width <= SIDE_MAX && height <= SIDE_MAX)
        return 0;
    PyErr_Format(PyExc_ValueError, "luma grid: 1 to %d pixels a side, got %dx%d", SIDE_MAX, width, height);
    return -1;
}

static int check_shape(const Plane *p, Py_ssize_t rows, Py_ssize_t cols, const char *name)
{
    if (p->rows != rows || p->cols != cols) {
        PyErr_Format(PyExc_ValueError, "%s: expected %zd rows of %zd items, got %zd of %zd", name, rows, cols, p->rows, p->cols);
        return -1;
    }
    if (p->stride != cols * p->buffer.itemsize && rows > 1) {
        PyErr_Format(PyExc_ValueError, "%s: must be contiguous", name);
        return -1;
    }
    return 0;
}

static Py_ssize_t bytes_of(int width, int height)
{
    Level levels[LEVELS_MAX];
    Py_ssize_t bytes = 0;
    for (int i = levels_of(width, height, NULL, levels); i-- > 0;)
        bytes += (Py_ssize_t)level_bytes(&levels[i]);
    return bytes;
}

static PyObject *prepare(PyObject *self, PyObject *array)
{
    (void)self;
    Plane picture;
    if (plane_get(&picture, array, 'B', 0, "picture") < 0)
        return NULL;
    PyObject *memory = NULL, *result = NULL;
    int width = (int)picture.cols, height = (int)picture.rows;
    if (check_sides(width, height) == 0)
        memory = PyBytes_FromStringAndSize(NULL, bytes_of(width, height));
    if (memory != NULL) {
        Level levels[LEVELS_MAX];
        int count = levels_of(width, height, (unsigned char *)PyBytes_AsString(memory), levels);
        for (int i = 0; i < count; i++)
            level_fill(&levels[i], &picture, i ? &levels[i - 1] : NULL);
        result = Py_BuildValue("Nd", memory, level_mean(&levels[count - 1]));
    }
    plane_release(&picture);
    return result;
}

enum { PREVIOUS, CURRENT, HINT, ACTIVE, STEPS, RESIDUAL, TEXTURE, ARRAYS };
static const char *const names[ARRAYS] = {"previous", "current", "hint", "active", "steps", "residual", "texture"};
static const char formats[ARRAYS] = {'B', 'B', 'h', 'B', 'h', 'f', 'f'};

static int check(const Plane *planes, const PyObject *const *objects, int width, int height, Settings *settings)
{
    if (check_sides(width, height) < 0)
        return -1;
    int block = settings->block;
    if ((block != 2 && block != 4 && block != 8) || settings->levels < 1 || settings->levels > LEVELS_MAX ||
        settings->search < 0 || settings->search > SEARCH_MAX || settings->penalty < 0 || settings->penalty > 4096) {
        PyErr_SetString(PyExc_ValueError, "flow settings out of range");
        return -1;
    }
    settings->rows = blocks(height, block), settings->cols = blocks(width, block);
    for (int i = 0; i < ARRAYS; i++) {
        int pair = i == HINT || i == STEPS;
        Py_ssize_t rows = i <= CURRENT ? 1 : settings->rows;
        Py_ssize_t cols = i <= CURRENT ? bytes_of(width, height) : pair ? 2 * settings->cols : settings->cols;
        if (objects[i] != Py_None && check_shape(&planes[i], rows, cols, names[i]) < 0)
            return -1;
    }
    return 0;
}

/* A repeated frame: nothing moved, everything matches. */
static void stand_still(const Settings *settings, Plane *planes)
{
    size_t count = (size_t)settings->rows * settings->cols;
    memset(planes[STEPS].data, 0, 2 * count * sizeof(int16_t));
    memset(planes[RESIDUAL].data, 0, count * sizeof(float));
    memset(planes[TEXTURE].data, 0, count * sizeof(float));
}

static int match(Plane *planes, int width, int height, const Settings *settings, double *mean_residual)
{
    Level previous[LEVELS_MAX], current[LEVELS_MAX];
    int count = levels_of(width, height, planes[PREVIOUS].data, previous);
    levels_of(width, height, planes[CURRENT].data, current);
    if (memcmp(previous[0].pairs, current[0].pairs, level_bytes(&current[0])) == 0) {
        stand_still(settings, planes);
        *mean_residual = 0;
        return 0;
    }
    if (count > settings->levels)
        count = settings->levels;

    size_t per_block = 2 * sizeof(Vector) + 2 * sizeof(float), total = 0;
    for (int i = 0; i < count; i++)
        total += (size_t)blocks(current[i].width, WINDOW) * blocks(current[i].height, WINDOW);
    for (int side = settings->block; side < WINDOW; side *= 2)
        total += (size_t)blocks(width, side) * blocks(height, side);
    unsigned char *memory = malloc(total * per_block), *next = memory;
    if (!memory)
        return -1;
#define TAKE(type, n) ((type *)(next += (n) * sizeof(type)) - (n))
    Stage coarse = {0, 0, NULL};
    for (int i = count - 1; i >= 0; i--) {
        Stage stage = {blocks(current[i].height, WINDOW), blocks(current[i].width, WINDOW), NULL};
        stage.vectors = TAKE(Vector, (size_t)stage.rows * stage.cols);
        if (i == count - 1)
            match_top(&stage, i, &previous[i], &current[i], settings);
        else
            match_refine(&stage, i, &coarse, &previous[i], &current[i], settings);
        coarse = stage;
    }
    Found found = {WINDOW, coarse.rows, coarse.cols, NULL, NULL, NULL};
    for (int side = WINDOW;; side /= 2) {
        Found smaller = {side, blocks(height, side), blocks(width, side), NULL, NULL, NULL};
        size_t n = (size_t)smaller.rows * smaller.cols;
        int asked = side == settings->block;
        smaller.vectors = asked ? (Vector *)planes[STEPS].data : TAKE(Vector, n);
        smaller.residual = asked ? (float *)planes[RESIDUAL].data : TAKE(float, n);
        smaller.texture = asked ? (float *)planes[TEXTURE].data : TAKE(float, n);
        if (side == WINDOW)
            subpixel(&coarse, &previous[0], &current[0], &smaller);
        else
            divide(&found, &smaller, &previous[0], &current[0], asked ? settings->active : NULL);
        found = smaller;
        if (asked)
            break;
    }
    free(memory);
    *mean_residual = mean_of(found.residual, found.rows * found.cols);
    return 0;
}

static PyObject *estimate(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *o[ARRAYS];
    Settings settings;
    int height, width;
    if (!PyArg_ParseTuple(args, "OOiiOOOOOiiii", &o[PREVIOUS], &o[CURRENT], &height, &width, &o[HINT], &o[ACTIVE], &o[STEPS],
                          &o[RESIDUAL], &o[TEXTURE], &settings.block, &settings.levels, &settings.search, &settings.penalty))
        return NULL;
    Plane planes[ARRAYS];
    PyObject *result = NULL;
    int held = 0, failed = 0;
    double mean_residual = 0;
    for (; held < ARRAYS; held++) {
        int optional = held == HINT || held == ACTIVE;
        if (!(optional && o[held] == Py_None) && plane_get(&planes[held], o[held], formats[held], held >= STEPS, names[held]) < 0)
            goto done;
    }
    if (check(planes, (const PyObject *const *)o, width, height, &settings) < 0)
        goto done;
    settings.hint = o[HINT] == Py_None ? NULL : (const Vector *)planes[HINT].data;
    settings.active = o[ACTIVE] == Py_None ? NULL : planes[ACTIVE].data;
    Py_BEGIN_ALLOW_THREADS
    failed = match(planes, width, height, &settings, &mean_residual);
    Py_END_ALLOW_THREADS
    if (failed)
        PyErr_NoMemory();
    else
        result = PyFloat_FromDouble(mean_residual);
done:
    for (int i = 0; i < held; i++)
        if (o[i] != Py_None)
            plane_release(&planes[i]);
    return result;
}

static PyMethodDef methods[] = {
    {"prepare", prepare, METH_O, "prepare(picture) -> (memory, mean)\n\nThe picture's levels; see edge_seg.flow.prepare."},
    {"estimate", estimate, METH_VARARGS,
     "estimate(previous, current, height, width, hint, active, steps, residual, texture, block_px, levels, search_px, "
     "penalty) -> mean residual\n\n"
     "Fills steps, residual and texture of the backward block flow; see edge_seg.flow.estimate."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_flow", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__flow(void) { return module_create(&module); }
