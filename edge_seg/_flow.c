/* Hierarchical block matching on 8-bit luma: where each block of the current picture stood in the previous one.
 *
 * All of the search is integer arithmetic, so that the NumPy reference (edge_seg/flow_reference.py) gives equal
 * vectors. Blocks do not read each other's results within a pass, for the same reason.
 *
 * The trick that makes it fast on SSE2 and NEON alike: 16 vector lanes, but windows only 8 pixels wide. So rows y
 * and y + 1 of a picture are stored interleaved, for every y; 16 consecutive bytes are then an 8x2 patch at any
 * (x, y), an 8x8 window is four of them, and the compiler's own sum-of-absolute-differences pattern applies.
 */
#include "_buffers.h"
#include <math.h>
#include <stdlib.h>

#define WINDOW 8
#define PAIRS (WINDOW / 2)
#define AREA (WINDOW * WINDOW)
#define BORDER 18     /* replicated pixels around each level: how far out of the picture a window may lie */
#define MAX_LEVELS 4
#define SIDE_MIN 16   /* a level smaller than this carries no information for 8x8 windows */
#define STILL AREA    /* a sum of differences (one code value a pixel) below which nothing better is looked for */
#define LANES 16
#define COLS_MAX 512  /* blocks in a row of a stage: 2048 pixels, 4 a block */
#define Q 16          /* vectors are in 1/16 pixel after the sub-pixel step */

typedef struct {
    int width, height;
    Py_ssize_t stride;       /* bytes from one pair row to the next */
    unsigned char *pixels;   /* (height + 2 BORDER) rows of width + 2 BORDER */
    unsigned char *pairs;    /* (height + 2 BORDER - 1) rows of 2 (width + 2 BORDER) */
} Level;

typedef struct { int16_t x, y; } Vector;

typedef struct {
    int level, step;    /* side of a block, in pixels of its level */
    int rows, cols;
    Vector *vectors;    /* whole pixels of its level */
} Stage;

typedef struct {
    int block, levels, search, penalty;
    int rows, cols;                  /* of the block grid that is asked for */
    const Vector *hint;              /* the flow of the frame before, in 1/16 pixel, or NULL */
    const unsigned char *active;     /* where precision is wanted, or NULL for everywhere */
} Settings;

static inline int clamp(int v, int lo, int hi) { return v < lo ? lo : v > hi ? hi : v; }

/* --- pyramid ------------------------------------------------------------------------------------------------ */

static inline Py_ssize_t row_bytes(const Level *l) { return l->width + 2 * BORDER; }

static void level_replicate(Level *l)
{
    Py_ssize_t n = row_bytes(l);
    for (int y = 0; y < l->height; y++) {
        unsigned char *row = l->pixels + (y + BORDER) * n;
        memset(row, row[BORDER], BORDER);
        memset(row + BORDER + l->width, row[BORDER + l->width - 1], BORDER);
    }
    for (int y = 0; y < BORDER; y++) {
        memcpy(l->pixels + y * n, l->pixels + BORDER * n, n);
        memcpy(l->pixels + (BORDER + l->height + y) * n, l->pixels + (BORDER + l->height - 1) * n, n);
    }
    for (int y = 0; y < l->height + 2 * BORDER - 1; y++) {
        const unsigned char *restrict a = l->pixels + y * n, *restrict b = a + n;
        unsigned char *restrict pair = l->pairs + y * l->stride;
        for (Py_ssize_t x = 0; x < n; x++) {
            pair[2 * x] = a[x];
            pair[2 * x + 1] = b[x];
        }
    }
}

WIDE static void level_halve(const Level *from, Level *to)
{
    Py_ssize_t nf = row_bytes(from), nt = row_bytes(to);
    for (int y = 0; y < to->height; y++) {
        const unsigned char *restrict a = from->pixels + (2 * y + BORDER) * nf + BORDER, *restrict b = a + nf;
        unsigned char *restrict out = to->pixels + (y + BORDER) * nt + BORDER;
        for (int x = 0; x < to->width; x++) { /* two neighbours at once, in either order */
            uint16_t p, q;
            memcpy(&p, a + 2 * x, sizeof p);
            memcpy(&q, b + 2 * x, sizeof q);
            out[x] = (unsigned char)((uint16_t)((p & 255) + (p >> 8) + (q & 255) + (q >> 8) + 2) >> 2);
        }
    }
}

static size_t level_bytes(int width, int height)
{
    size_t n = (size_t)(width + 2 * BORDER) * (size_t)(height + 2 * BORDER);
    return 3 * n + 64;
}

static void pyramid_build(Level *levels, int count, const Plane *picture, unsigned char *memory)
{
    int width = (int)picture->cols, height = (int)picture->rows;
    for (int i = 0; i < count; i++) {
        Level *l = &levels[i];
        l->width = width, l->height = height;
        l->stride = 2 * row_bytes(l);
        l->pixels = memory;
        l->pairs = memory + row_bytes(l) * (height + 2 * BORDER);
        memory += level_bytes(width, height);
        if (i == 0)
            for (int y = 0; y < height; y++)
                memcpy(l->pixels + (y + BORDER) * row_bytes(l) + BORDER, picture->data + y * picture->stride, width);
        else
            level_halve(&levels[i - 1], l);
        level_replicate(l);
        width = (width + 1) / 2, height = (height + 1) / 2;
    }
}

/* --- matching ----------------------------------------------------------------------------------------------- */

static inline const unsigned char *window_at(const Level *l, int x, int y)
{
    return l->pairs + (y + BORDER) * l->stride + 2 * (x + BORDER);
}

static inline int sad(const unsigned char *restrict a, const unsigned char *restrict b, Py_ssize_t stride)
{
    int sum = 0;
    for (int r = 0; r < PAIRS; r++) {
        for (int i = 0; i < 2 * WINDOW; i++)
            sum += abs((int)a[i] - (int)b[i]);
        a += 2 * stride, b += 2 * stride;
    }
    return sum;
}

typedef struct {
    const Level *previous;
    const unsigned char *patch;   /* the window in the current picture */
    int x, y;                     /* its top-left pixel */
    int x_lo, x_hi, y_lo, y_hi;   /* vectors that keep it (and a rim of 2) inside the border */
    Vector best;
    int32_t cost;
} Search;

static inline void search_begin(Search *s, const Level *previous, const Level *current, int x, int y)
{
    s->previous = previous;
    s->patch = window_at(current, x, y);
    s->x = x, s->y = y;
    s->x_lo = -BORDER + 2 - x, s->x_hi = current->width + BORDER - WINDOW - 2 - x;
    s->y_lo = -BORDER + 2 - y, s->y_hi = current->height + BORDER - WINDOW - 2 - y;
    s->best.x = s->best.y = 0;
    s->cost = INT32_MAX;
}

static inline void search_try(Search *s, int dx, int dy, int extra)
{
    dx = clamp(dx, s->x_lo, s->x_hi), dy = clamp(dy, s->y_lo, s->y_hi);
    if (dx == s->best.x && dy == s->best.y && s->cost != INT32_MAX)
        return;
    int cost = sad(s->patch, window_at(s->previous, s->x + dx, s->y + dy), s->previous->stride) + extra;
    if (cost < s->cost) {
        s->cost = cost;
        s->best.x = (int16_t)dx, s->best.y = (int16_t)dy;
    }
}

static void match_top(Stage *stage, const Level *previous, const Level *current, const Settings *settings)
{
    int margin = (WINDOW - stage->step) / 2, r = settings->search;
    for (int by = 0; by < stage->rows; by++)
        for (int bx = 0; bx < stage->cols; bx++) {
            Search s;
            search_begin(&s, previous, current, bx * stage->step - margin, by * stage->step - margin);
            search_try(&s, 0, 0, 0);
            for (int dy = s.cost <= STILL ? r + 1 : -r; dy <= r; dy++)
                for (int dx = -r; dx <= r; dx++)
                    search_try(&s, dx, dy, settings->penalty * (abs(dx) + abs(dy)));
            stage->vectors[by * stage->cols + bx] = s.best;
        }
}

/* The two 4-pixel blocks of a grid whose centres enclose the centre of block b along one axis. `step` is the side of
 * b and `scale` the width of a pixel of that grid, both in pixels of b's level. */
static inline void parents(int b, int step, int scale, int count, int *near, int *far)
{
    int centre2 = (2 * b + 1) * step, size2 = 8 * scale;   /* doubled, to stay whole */
    int n = centre2 / size2;
    int f = centre2 % size2 < 4 * scale ? n - 1 : n + 1;
    *near = clamp(n, 0, count - 1);
    *far = clamp(f, 0, count - 1);
}

/* The block of the asked grid at the centre of a block of a stage. */
static inline int asked_index(const Settings *settings, const Stage *stage, int bx, int by)
{
    int shift = settings->block == 2 ? 2 : settings->block == 4 ? 3 : 4;   /* 2 * block */
    int x = ((2 * bx + 1) * stage->step << stage->level) >> shift;
    int y = ((2 * by + 1) * stage->step << stage->level) >> shift;
    return clamp(y, 0, settings->rows - 1) * settings->cols + clamp(x, 0, settings->cols - 1);
}

static void match_refine(Stage *stage, const Stage *coarse, const Level *previous, const Level *current,
                         const Settings *settings)
{
    int margin = (WINDOW - stage->step) / 2, penalty = settings->penalty;
    int shift = 4 + stage->level, half = 1 << (shift - 1);
    for (int by = 0; by < stage->rows; by++)
        for (int bx = 0; bx < stage->cols; bx++) {
            Search s;
            search_begin(&s, previous, current, bx * stage->step - margin, by * stage->step - margin);
            search_try(&s, 0, 0, 0);
            if (s.cost > STILL) {
                int ys[2], xs[2], asked = asked_index(settings, stage, bx, by);
                parents(by, stage->step, 2, coarse->rows, &ys[0], &ys[1]);
                parents(bx, stage->step, 2, coarse->cols, &xs[0], &xs[1]);
                for (int i = 0; i < 4; i++) {
                    Vector p = coarse->vectors[ys[i >> 1] * coarse->cols + xs[i & 1]];
                    search_try(&s, 2 * p.x, 2 * p.y, penalty);
                }
                if (settings->hint) {
                    Vector h = settings->hint[asked];
                    search_try(&s, (h.x + half) >> shift, (h.y + half) >> shift, penalty);
                }
                Vector c = s.best;
                if (s.cost > STILL && (stage->level > 0 || !settings->active || settings->active[asked]))
                    for (int dy = -1; dy <= 1; dy++)
                        for (int dx = -1; dx <= 1; dx++)
                            if (dx || dy)
                                search_try(&s, c.x + dx, c.y + dy, 2 * penalty);
            }
            stage->vectors[by * stage->cols + bx] = s.best;
        }
}

/* --- sub-pixel step, residual, division -------------------------------------------------------------------------- */

static inline int64_t floor_div(int64_t a, int64_t b) /* b > 0 */
{
    return a >= 0 ? a / b : -((-a + b - 1) / b);
}

typedef struct {
    Vector vector;   /* 1/16 pixel */
    float residual, texture, confidence;
} Found;

/* The structure tensor of a window and its product with the temporal difference, in doubled gradients. */
typedef struct { int32_t xx, xy, yy, xt, yt; } Moments;

INLINED Moments moments(const unsigned char *restrict p, const unsigned char *restrict c, Py_ssize_t stride)
{
    int16_t gx[AREA], gy[AREA], gt[AREA];
    for (int r = 0; r < PAIRS; r++) {
        int16_t left[LANES], right[LANES], over[LANES], under[LANES], here[LANES], now[LANES];
        codes_load(p - 2, left), codes_load(p + 2, right);
        codes_load(p - stride, over), codes_load(p + stride, under);
        codes_load(p, here), codes_load(c, now);
        for (int i = 0; i < LANES; i++) {
            gx[LANES * r + i] = (int16_t)(right[i] - left[i]);
            gy[LANES * r + i] = (int16_t)(under[i] - over[i]);
            gt[LANES * r + i] = (int16_t)(here[i] - now[i]);
        }
        p += 2 * stride, c += 2 * stride;
    }
    Moments m = {0, 0, 0, 0, 0};
    for (int i = 0; i < AREA; i++) {
        m.xx += gx[i] * gx[i];
        m.xy += gx[i] * gy[i];
        m.yy += gy[i] * gy[i];
        m.xt += gx[i] * gt[i];
        m.yt += gy[i] * gt[i];
    }
    return m;
}

#define FLAT (WINDOW * WINDOW * 4 * 4)   /* regularises the normal equations: noise of about 2 code values */
#define STEP_MAX (Q * 3 / 4)

/* floor(n / d + 1/2), limited to +-STEP_MAX, of whole numbers. Doubles are exact here: d is below 2^48, n / d to be
 * limited where n is not below 2^53, and a quotient that is not whole is further from a whole one than it is rounded. */
static inline int step_of(double n, double d)
{
    double q = (2 * n + d) / (2 * d);
    q = q < STEP_MAX ? q : STEP_MAX;
    q = q > -STEP_MAX ? q : -STEP_MAX;
    int whole = (int)q;
    return whole - (whole > q);
}

/* The smaller eigenvalue of the mean structure tensor, in squared code values per pixel. */
static inline float texture_of(float a, float b, float c)
{
    float smaller = 0.5f * (a + c - sqrtf((a - c) * (a - c) + 4.0f * b * b));
    return smaller > 0.0f ? smaller / (4.0f * WINDOW * WINDOW) : 0.0f;
}

/* One Gauss-Newton step of Lucas and Kanade from a whole-pixel vector, in 1/16 pixel. */
WIDE static void subpixel(const Stage *stage, const Level *previous, const Level *current, Found *out)
{
    int margin = (WINDOW - stage->step) / 2;
    for (int by = 0; by < stage->rows; by++) {
        Found *row = out + by * stage->cols;
        const Vector *vectors = stage->vectors + by * stage->cols;
        int32_t xx[COLS_MAX], xy[COLS_MAX], yy[COLS_MAX], xt[COLS_MAX], yt[COLS_MAX], sx[COLS_MAX], sy[COLS_MAX];
        float texture[COLS_MAX];
        for (int bx = 0; bx < stage->cols; bx++) {
            int x = bx * stage->step - margin, y = by * stage->step - margin;
            Vector v = vectors[bx];
            Moments m = moments(window_at(previous, x + v.x, y + v.y), window_at(current, x, y), previous->stride);
            xx[bx] = m.xx, xy[bx] = m.xy, yy[bx] = m.yy, xt[bx] = m.xt, yt[bx] = m.yt;
        }
        for (int bx = 0; bx < stage->cols; bx++) {
            double a = xx[bx] + FLAT, b = xy[bx], c = yy[bx] + FLAT;
            double det = a * c - b * b; /* positive: FLAT makes the matrix positive definite */
            sx[bx] = step_of(2 * Q * (b * yt[bx] - c * xt[bx]), det);
            sy[bx] = step_of(2 * Q * (b * xt[bx] - a * yt[bx]), det);
        }
        for (int bx = 0; bx < stage->cols; bx++)
            texture[bx] = texture_of((float)xx[bx], (float)xy[bx], (float)yy[bx]);
        for (int bx = 0; bx < stage->cols; bx++) {
            row[bx].vector.x = (int16_t)(vectors[bx].x * Q + sx[bx]);
            row[bx].vector.y = (int16_t)(vectors[bx].y * Q + sy[bx]);
            row[bx].texture = texture[bx];
        }
    }
}

/* Sum of absolute differences over an 8 x 2n window at a vector in 1/16 pixel, bilinear. Pixels outside `mask`
 * do not count. */
static inline int sad_bilinear(const unsigned char *restrict c, const unsigned char *restrict p, Py_ssize_t stride,
                               int fx, int fy, int pairs, const unsigned char *restrict mask)
{
    unsigned short w00 = (unsigned short)((Q - fx) * (Q - fy)), w01 = (unsigned short)(fx * (Q - fy));
    unsigned short w10 = (unsigned short)((Q - fx) * fy), w11 = (unsigned short)(fx * fy);
    unsigned char value[AREA], patch[AREA];
    for (int r = 0; r < pairs; r++) {
        for (int i = 0; i < 2 * WINDOW; i++) {
            unsigned short v = (unsigned short)(w00 * p[i] + w01 * p[i + 2] + w10 * p[i + stride] + w11 * p[i + stride + 2] + 128);
            value[2 * WINDOW * r + i] = (unsigned char)(v >> 8) & mask[i];
            patch[2 * WINDOW * r + i] = c[i] & mask[i];
        }
        p += 2 * stride, c += 2 * stride;
    }
    int sum = 0;
    for (int i = 0; i < 2 * WINDOW * pairs; i++)
        sum += abs((int)value[i] - (int)patch[i]);
    return sum;
}

static inline int sad_at(const Search *s, int qx, int qy, int top, int pairs, const unsigned char *mask)
{
    int dx = (int)floor_div(qx, Q), dy = (int)floor_div(qy, Q);
    Py_ssize_t stride = s->previous->stride;
    return sad_bilinear(s->patch + top * stride, window_at(s->previous, s->x + dx, s->y + dy + top), stride, qx - Q * dx,
                        qy - Q * dy, pairs, mask);
}

/* The same for a whole window. */
INLINED int sad_whole(const unsigned char *restrict c, const unsigned char *restrict p, Py_ssize_t stride, int fx, int fy)
{
    const uint16_t w00 = (uint16_t)((Q - fx) * (Q - fy)), w01 = (uint16_t)(fx * (Q - fy));
    const uint16_t w10 = (uint16_t)((Q - fx) * fy), w11 = (uint16_t)(fx * fy);
    uint16_t total[LANES] = {0};
    for (int r = 0; r < PAIRS; r++) {
        uint16_t a[LANES], b[LANES], d[LANES], e[LANES], now[LANES];
        codes_load(p, a), codes_load(p + 2, b);
        codes_load(p + stride, d), codes_load(p + stride + 2, e);
        codes_load(c, now);
        for (int i = 0; i < LANES; i++) {
            uint16_t value = (uint16_t)((uint16_t)(w00 * a[i] + w01 * b[i] + w10 * d[i] + w11 * e[i] + 128) >> 8);
            int16_t difference = (int16_t)(value - now[i]);
            total[i] = (uint16_t)(total[i] + (difference < 0 ? -difference : difference));
        }
        p += 2 * stride, c += 2 * stride;
    }
    int sum = 0;
    for (int i = 0; i < LANES; i++)
        sum += total[i];
    return sum;
}

static const unsigned char middle[2 * WINDOW] = {0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0};

#define RESIDUAL_SCALE 8.0f   /* code values at which a match is half believed */
#define TEXTURE_SCALE 4.0f    /* squared code values a pixel: gradients of 2 in the weaker direction */

static inline float confidence_at(float moved, float texture, float residual)
{
    float trust = texture / (texture + TEXTURE_SCALE), miss = residual / RESIDUAL_SCALE;
    return (1.0f - (1.0f - trust) * (moved < 1.0f ? moved : 1.0f)) / (1.0f + miss * miss);
}

static inline float moved_by(Vector v)
{
    int x = abs(v.x), y = abs(v.y);
    return (float)(x > y ? x : y) / Q;
}

WIDE static void measure(const Stage *stage, const Level *previous, const Level *current, Found *found)
{
    int margin = (WINDOW - stage->step) / 2;
    for (int by = 0; by < stage->rows; by++) {
        Found *row = found + by * stage->cols;
        float moved[COLS_MAX], texture[COLS_MAX], residual[COLS_MAX];
        for (int bx = 0; bx < stage->cols; bx++) {
            Found *f = &row[bx];
            Search s;
            search_begin(&s, previous, current, bx * stage->step - margin, by * stage->step - margin);
            int x = clamp(f->vector.x, Q * s.x_lo, Q * s.x_hi), y = clamp(f->vector.y, Q * s.y_lo, Q * s.y_hi);
            int fx = x & (Q - 1), fy = y & (Q - 1), dx = (x - fx) / Q, dy = (y - fy) / Q;
            const unsigned char *at = window_at(previous, s.x + dx, s.y + dy);
            int sum = (fx | fy) ? sad_whole(s.patch, at, previous->stride, fx, fy) : sad(s.patch, at, previous->stride);
            f->vector.x = (int16_t)x, f->vector.y = (int16_t)y;
            residual[bx] = (float)sum / AREA;
            texture[bx] = f->texture;
            moved[bx] = moved_by(f->vector);
        }
        for (int bx = 0; bx < stage->cols; bx++)
            texture[bx] = confidence_at(moved[bx], texture[bx], residual[bx]);
        for (int bx = 0; bx < stage->cols; bx++)
            row[bx].residual = residual[bx], row[bx].confidence = texture[bx];
    }
}

#define APART (Q / 2)   /* vectors that differ by no more than this need no choice between them */

/* Of the four vectors around a block of half the size, the one under which the 4x4 pixels around it match best.
 * Windows so small would not do for a search, but choose well between few good vectors. */
static Found choose(const Stage *stage, const Found *found, const Level *previous, const Level *current, int bx, int by)
{
    int ys[2], xs[2], least = INT32_MAX;
    parents(by, 2, 1, stage->rows, &ys[0], &ys[1]);
    parents(bx, 2, 1, stage->cols, &xs[0], &xs[1]);
    Found best = found[ys[0] * stage->cols + xs[0]];
    Search s;
    search_begin(&s, previous, current, 2 * bx - 3, 2 * by - 3);
    for (int i = 0; i < 4; i++) {
        const Found *near = &found[ys[i >> 1] * stage->cols + xs[i & 1]];
        int x = clamp(near->vector.x, Q * s.x_lo, Q * s.x_hi), y = clamp(near->vector.y, Q * s.y_lo, Q * s.y_hi);
        if (least != INT32_MAX && x == best.vector.x && y == best.vector.y)
            continue;
        int sum = sad_at(&s, x, y, 2, 2, middle);
        if (sum < least) {
            least = sum;
            best.vector.x = (int16_t)x, best.vector.y = (int16_t)y;
            best.residual = (float)sum / 16.0f;
            best.texture = near->texture;
        }
    }
    best.confidence = confidence_at(moved_by(best.vector), best.texture, best.residual);
    return best;
}

/* Where the vectors of two block rows differ by more than APART from those of `near`, each compared with the
 * neighbours at `side` (-1 or 1). Rows hold x and y interleaved, with one block of replicated border. */
static void differences(const int16_t *restrict near, const int16_t *restrict far, int cols, int side,
                        int16_t *restrict out)
{
    const int16_t *restrict beside = near + 2 * side, *restrict across = far + 2 * side;
    for (int i = 0; i < 2 * cols; i++) {
        int a = abs(near[i] - beside[i]), b = abs(near[i] - far[i]), c = abs(near[i] - across[i]);
        out[i] = (int16_t)((a > APART) | (b > APART) | (c > APART));
    }
}

static void row_load(const Stage *stage, const Found *found, int row, int16_t *out)
{
    for (int x = -1; x <= stage->cols; x++) {
        Vector v = found[row * stage->cols + clamp(x, 0, stage->cols - 1)].vector;
        out[2 * x + 2] = v.x, out[2 * x + 3] = v.y;
    }
}

static void finish(const Stage *stage, const Level *previous, const Level *current, const Found *found,
                   const Settings *settings, int16_t *scratch, Plane *vectors, Plane *residual, Plane *confidence)
{
    int divided = settings->block < stage->step, padded = 2 * (stage->cols + 2);
    int16_t *near = scratch, *far = near + padded, *differ[2] = {far + padded, far + 2 * padded};
    for (int by = 0; by < settings->rows; by++) {
        float *v = (float *)(vectors->data + by * vectors->stride);
        float *r = (float *)(residual->data + by * residual->stride);
        float *k = (float *)(confidence->data + by * confidence->stride);
        const Found *row = found + (divided ? by >> 1 : by) * stage->cols;
        const unsigned char *active = settings->active ? settings->active + by * settings->cols : NULL;
        if (divided) {
            int y0, y1;
            parents(by, 2, 1, stage->rows, &y0, &y1);
            row_load(stage, found, y0, near);
            row_load(stage, found, y1, far);
            differences(near + 2, far + 2, stage->cols, -1, differ[0]);
            differences(near + 2, far + 2, stage->cols, 1, differ[1]);
        }
        for (int bx = 0; bx < settings->cols; bx++) {
            const Found *f = &row[divided ? bx >> 1 : bx];
            Found chosen;
            if (divided && (differ[bx & 1][bx & ~1] | differ[bx & 1][bx | 1]) && (!active || active[bx])) {
                chosen = choose(stage, found, previous, current, bx, by);
                f = &chosen;
            }
            v[2 * bx] = (float)f->vector.x / Q, v[2 * bx + 1] = (float)f->vector.y / Q;
            r[bx] = f->residual;
            k[bx] = f->confidence;
        }
    }
}

/* --- the call --------------------------------------------------------------------------------------------------- */

static int check_shape(const Plane *p, Py_ssize_t rows, Py_ssize_t cols, const char *name)
{
    if (p->rows == rows && p->cols == cols)
        return 0;
    PyErr_Format(PyExc_ValueError, "%s: expected %zd rows of %zd items, got %zd of %zd", name, rows, cols, p->rows, p->cols);
    return -1;
}

enum { PREVIOUS, CURRENT, HINT, ACTIVE, VECTORS, RESIDUAL, CONFIDENCE, ARRAYS };
static const char *const names[ARRAYS] = {"previous", "current", "hint", "active", "vectors", "residual", "confidence"};
static const char formats[ARRAYS] = {'B', 'B', 'h', 'B', 'f', 'f', 'f'};

static int check(const Plane *planes, const PyObject *const *objects, Settings *settings)
{
    Py_ssize_t height = planes[PREVIOUS].rows, width = planes[PREVIOUS].cols;
    if (width < 1 || height < 1 || width > 2048 || height > 2048) {
        PyErr_Format(PyExc_ValueError, "luma grid: 1 to 2048 pixels a side, got %zdx%zd", width, height);
        return -1;
    }
    int block = settings->block;
    if ((block != 2 && block != 4 && block != 8) || settings->levels < 1 || settings->levels > MAX_LEVELS ||
        settings->search < 0 || settings->search > 16 || settings->penalty < 0 || settings->penalty > 4096) {
        PyErr_SetString(PyExc_ValueError, "flow settings out of range");
        return -1;
    }
    settings->rows = (int)((height + block - 1) / block), settings->cols = (int)((width + block - 1) / block);
    for (int i = CURRENT; i < ARRAYS; i++) {
        Py_ssize_t rows = i == CURRENT ? height : settings->rows;
        Py_ssize_t cols = i == CURRENT ? width : i == HINT || i == VECTORS ? 2 * settings->cols : settings->cols;
        if (objects[i] == Py_None)
            continue;
        if (check_shape(&planes[i], rows, cols, names[i]) < 0)
            return -1;
        if ((i == HINT && planes[i].stride != 2 * cols) || (i == ACTIVE && planes[i].stride != cols)) {
            PyErr_Format(PyExc_ValueError, "%s: must be contiguous", names[i]);
            return -1;
        }
    }
    return 0;
}

static int same(const Plane *a, const Plane *b)
{
    for (Py_ssize_t y = 0; y < a->rows; y++)
        if (memcmp(a->data + y * a->stride, b->data + y * b->stride, a->cols) != 0)
            return 0;
    return 1;
}

/* A repeated frame: nothing moved, everything matches. */
static void stand_still(Plane *planes)
{
    for (Py_ssize_t y = 0; y < planes[VECTORS].rows; y++) {
        memset(planes[VECTORS].data + y * planes[VECTORS].stride, 0, planes[VECTORS].cols * sizeof(float));
        memset(planes[RESIDUAL].data + y * planes[RESIDUAL].stride, 0, planes[RESIDUAL].cols * sizeof(float));
        float *confidence = (float *)(planes[CONFIDENCE].data + y * planes[CONFIDENCE].stride);
        for (Py_ssize_t x = 0; x < planes[CONFIDENCE].cols; x++)
            confidence[x] = 1.0f;
    }
}

static int match(Plane *planes, const Settings *settings)
{
    Level previous[MAX_LEVELS], current[MAX_LEVELS];
    Stage stages[MAX_LEVELS];   /* one for each level, finest first */
    int width = (int)planes[PREVIOUS].cols, height = (int)planes[PREVIOUS].rows, count = 0;
    size_t bytes = 0, blocks = 0, finest_blocks = 0;
    while (count < settings->levels && (count == 0 || (width >= SIDE_MIN && height >= SIDE_MIN))) {
        Stage *s = &stages[count];
        s->level = count, s->step = count == 0 && settings->block == 8 ? 8 : 4;
        s->rows = (height + s->step - 1) / s->step, s->cols = (width + s->step - 1) / s->step;
        blocks += (size_t)s->rows * s->cols;
        bytes += level_bytes(width, height);
        width = (width + 1) / 2, height = (height + 1) / 2, count++;
    }
    finest_blocks = (size_t)stages[0].rows * stages[0].cols;
    size_t scratch = 4 * 2 * (size_t)(stages[0].cols + 2);
    Found *found = malloc(finest_blocks * sizeof(Found) + blocks * sizeof(Vector) + scratch * sizeof(int16_t) + 2 * bytes);
    if (!found)
        return -1;
    Vector *v = (Vector *)(found + finest_blocks);
    int16_t *rows = (int16_t *)(v + blocks);
    unsigned char *pixels = (unsigned char *)(rows + scratch);
    for (int i = 0; i < count; i++) {
        stages[i].vectors = v;
        v += (size_t)stages[i].rows * stages[i].cols;
    }
    pyramid_build(previous, count, &planes[PREVIOUS], pixels);
    pyramid_build(current, count, &planes[CURRENT], pixels + bytes);
    match_top(&stages[count - 1], &previous[count - 1], &current[count - 1], settings);
    for (int i = count - 2; i >= 0; i--)
        match_refine(&stages[i], &stages[i + 1], &previous[i], &current[i], settings);
    subpixel(&stages[0], &previous[0], &current[0], found);
    measure(&stages[0], &previous[0], &current[0], found);
    finish(&stages[0], &previous[0], &current[0], found, settings, rows, &planes[VECTORS], &planes[RESIDUAL],
           &planes[CONFIDENCE]);
    free(found);
    return 0;
}

static PyObject *estimate(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *o[ARRAYS];
    Settings settings;
    if (!PyArg_ParseTuple(args, "OOOOOOOiiii", &o[0], &o[1], &o[2], &o[3], &o[4], &o[5], &o[6], &settings.block,
                          &settings.levels, &settings.search, &settings.penalty))
        return NULL;
    Plane planes[ARRAYS];
    PyObject *result = NULL;
    int held = 0, failed = 0;
    for (; held < ARRAYS; held++) {
        int optional = held == HINT || held == ACTIVE;
        if (!(optional && o[held] == Py_None) && plane_get(&planes[held], o[held], formats[held], held >= VECTORS, names[held]) < 0)
            goto done;
    }
    if (check(planes, (const PyObject *const *)o, &settings) < 0)
        goto done;
    settings.hint = o[HINT] == Py_None ? NULL : (const Vector *)planes[HINT].data;
    settings.active = o[ACTIVE] == Py_None ? NULL : planes[ACTIVE].data;
    Py_BEGIN_ALLOW_THREADS
    if (same(&planes[PREVIOUS], &planes[CURRENT]))
        stand_still(planes);
    else
        failed = match(planes, &settings);
    Py_END_ALLOW_THREADS
    if (failed) {
        PyErr_NoMemory();
    } else {
        result = Py_None;
        Py_INCREF(result);
    }
done:
    for (int i = 0; i < held; i++)
        if (o[i] != Py_None)
            plane_release(&planes[i]);
    return result;
}

static PyMethodDef methods[] = {
    {"estimate", estimate, METH_VARARGS,
     "estimate(previous, current, hint, active, vectors, residual, confidence, block_px, levels, search_px, penalty)\n\n"
     "Fills vectors, residual and confidence of the backward block flow; see edge_seg.flow.estimate."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_flow", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__flow(void) { return module_create(&module); }
