/* The matte's local colour models: for each grid node in the band, the linear function of the colour that best
 * explains the mask in the window around it. edge_seg/matte.py explains the method and holds the reference in
 * NumPy and OpenCV; both differ by rounding only.
 *
 * Fits are made on the half grid: every other node of every other row of the mask's grid. What the band needs is
 * computed in tiles: 8 nodes of one row, which begin wherever the row has the next needed node, so that an edge
 * mostly takes one tile. Tiles have one length, so that every loop vectorises; what they compute beyond the needed
 * nodes is never looked at. Rows are padded, so that no tile and no window of one ends in mid-air.
 */
#include "_bits.h"
#include <math.h>

enum { WEIGHT, MASK, IY, IU, IV, YY, YU, YV, UU, UV, VV, MY, MU, MV, MOMENTS };
enum { GAIN_Y, GAIN_U, GAIN_V, INTERCEPT, FITS, SHARE = FITS, FIELDS };
#define TILE 8             /* nodes of the half grid */
#define SPAN (2 * TILE)    /* nodes of the full grid over a tile */
#define MAX_RADIUS TILE    /* on the half grid */
#define LEFT MAX_RADIUS    /* padding of a row of the half grid: a window's half, */
#define RIGHT (3 * TILE)   /* and a tile with its window */
#define AROUND (TILE + 2 * MAX_RADIUS)
#define MAX_SIDE 4096
#define ALPHA_ONE 1027 /* edge_seg/types.py says why */
#define GAIN_ONE 1031
#define FIXED_LIMIT 16383

/* The first of two bytes that were loaded as one element: compilers take every other byte one by one. */
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define FIRST_OF(pair) ((pair) >> 8)
#else
#define FIRST_OF(pair) ((pair) & 255)
#endif

typedef struct {
    int rows, cols;           /* of the full grid */
    int half_rows, half_cols; /* of the half grid */
    int radius, smoothing;    /* on the half grid */
    int passes; /* that are left, with the one at work */
    float epsilon, chroma_scale, weight_floor, low, high, sharpness, level, steepest, negligible;
    float scale; /* from a mask between the levels to one from 0 to 1 */
    /* Constants, but as variables: compilers make three instructions of a minimum with a constant. */
    float zero, one, limit, light, dark;
} Task;

typedef struct {
    int16_t *gain[3], *offset; /* rows x cols, contiguous, in units of 1 / GAIN_ONE and 1 / ALPHA_ONE */
    uint8_t *colour[3];        /* rows x cols, contiguous */
} Result;

/* Pointers to rows of the half grid are to node 0, behind the padding; `stride` is from one row to the next. */
typedef struct {
    int stride, wide;   /* wide: of the full grid */
    float *alpha;       /* rows x wide: at the nodes, for the next pass; only if there is one */
    uint8_t *amount;    /* rows x wide: of the person at the nodes: more than next to nothing is SOME of it, less than next
                           to everything NOT_ALL; 0 beside the grid */
    float *sampled;     /* half_rows x stride: the mask at the nodes */
    float *uncertainty; /* half_rows x stride: mean of 4 p (1 - p) of four nodes, 0 beyond the grid */
    float *share;       /* half_rows x stride: how far the fit replaces the mask, 0 to 1, where it does */
    float *sums;        /* (2 radius + 2) x MOMENTS x stride: of the newest rows, the sums over a window's width; row
                           by row modulo their number, and zeros */
    float *fits;        /* (2 smoothing + 2) x FITS x stride: the newest rows of fits, likewise */
    float *fields;      /* 2 x FIELDS x stride: what comes of two rows, times the share; see `smooth` */
    float *inside;      /* stride: 1 in the grid, 0 beyond */
    float *window_part; /* stride: 1 / how many columns of the window are in the grid */
    float *smooth_part; /* stride: the same for averaging */
    int words;          /* from one row of bits to the next, of nodes: */
    uint64_t *some;     /* half_rows x words: there is some of the person in the node, or its three neighbours, */
    uint64_t *not_all;  /* half_rows x words: and not all is */
    uint64_t *soft;     /* half_rows x words: both */
    uint64_t *fitted;   /* half_rows x words: the fit has a share */
    uint64_t *wanted;   /* half_rows x words: someone uses what is computed for the node */
    uint64_t *near[4];  /* words: of a row, for the moment */
    int most;           /* tiles in a row */
    int *needed;        /* half_rows x most: first nodes of the tiles over what is wanted */
    int *needed_count;  /* [half_rows] */
    int *tiles;         /* [most]: of a row, for the moment */
} Work;

#define ROW(plane, row) ((plane)->data + (Py_ssize_t)(row) * (plane)->stride)

/* Where gain k, or the offset, lies. */
static inline int16_t *result_at(const Task *t, const Result *r, int k, int row, int col)
{
    return (k < FITS - 1 ? r->gain[k] : r->offset) + (Py_ssize_t)row * t->cols + col;
}

/* Of a whole tile wherever it is one: its length is known then, and no call is made. */
INLINED void copy_wide(void *to, const void *from, int count, size_t size)
{
    if (count >= SPAN)
        copy_lanes(to, from, SPAN * size);
    else
        memcpy(to, from, (size_t)count * size);
}

/* Sums in registers. */
#if defined(__GNUC__)
typedef float Lanes __attribute__((vector_size(4 * TILE)));
INLINED void lanes_add(Lanes *total, const float *from)
{
    Lanes more;
    memcpy(&more, from, sizeof more);
    *total += more;
}
#else
typedef struct { float lane[TILE]; } Lanes;
INLINED void lanes_add(Lanes *total, const float *from)
{
    for (int i = 0; i < TILE; i++)
        total->lane[i] += from[i];
}
#endif

INLINED float least(float a, float b) { return a < b ? a : b; }
INLINED float most(float a, float b) { return a > b ? a : b; }

INLINED float clamp(float value, float limit) { return most(least(value, limit), -limit); }

/* To fixed point, rounded to the nearest. NaN becomes 0. */
INLINED int16_t fixed(float value, float one)
{
    float scaled = value * one;
    scaled = scaled == scaled ? scaled : 0;
    scaled = scaled < -FIXED_LIMIT ? -FIXED_LIMIT : scaled;
    scaled = scaled > FIXED_LIMIT ? FIXED_LIMIT : scaled;
    return (int16_t)(int)(scaled + copysignf(0.5f, scaled));
}

/* The same for what is known to be a number, or even to be from 0 to 1. */
INLINED int16_t fixed_number(float scaled, float limit)
{
    scaled = most(least(scaled, limit), -limit);
    float nearest = scaled + 12582912.0f; /* 3 * 2^22: there floats are whole numbers, and the low bits count them */
    int32_t bits;
    memcpy(&bits, &nearest, sizeof bits);
    return (int16_t)bits;
}

INLINED int16_t fixed_alpha(float value) { return (int16_t)(int)(value * ALPHA_ONE + 0.5f); }

enum { SOME = 1, NOT_ALL = 2 }; /* of the person */

#define ALL_NODES 255 /* of a tile, as bits */

/* --- what there is to do --------------------------------------------------------------------------------------- */

/* The mask's ends are drawn out to 0 and 1, so that what the model is sure of is sure. NaN becomes 0. */
INLINED float drawn_out(const Task *t, float p) { return least(most((p - t->level) * t->scale, t->zero), t->one); }

/* Two rows, SPAN columns, drawn out. Returns whether there is SOME of the person, and whether that is NOT_ALL. */
INLINED int draw(const Task *t, const float *above, const float *below, float *restrict a, float *restrict b)
{
    const float zero = t->zero, one = t->one;
    int32_t flags[TILE];
    EACH_LANE(i, TILE) {
        float p = drawn_out(t, above[i]), q = drawn_out(t, above[TILE + i]);
        float v = drawn_out(t, below[i]), z = drawn_out(t, below[TILE + i]);
        a[i] = p, a[TILE + i] = q, b[i] = v, b[TILE + i] = z;
        float high = most(most(p, q), most(v, z)), low = least(least(p, q), least(v, z));
        flags[i] = (high > zero ? SOME : 0) | (low < one ? NOT_ALL : 0);
    }
    return bits_of(flags);
}

/* How much of the person there is in SPAN nodes, for `settle`. */
INLINED void judge(const Task *t, const float *alpha, uint8_t *amount)
{
    const float none = t->negligible, all = 1 - t->negligible;
    int32_t flags[SPAN];
    uint16_t codes[SPAN];
    EACH_LANE(i, SPAN)
        flags[i] = (alpha[i] < none ? 0 : SOME) | (alpha[i] > all ? 0 : NOT_ALL);
    EACH_LANE(i, SPAN)
        codes[i] = (uint16_t)flags[i];
    codes_store(codes, amount);
}

/* Two rows over TILE nodes of the half grid: how unsure the mask is, and what it is at the nodes. Returns of which there
 * is SOME of the person, and above those, of which that is NOT_ALL. */
INLINED int examine(const float *restrict above, const float *restrict below, float *restrict uncertainty,
                    float *restrict sampled)
{
    int32_t flags[TILE];
    EACH_LANE(i, TILE) {
        float a = above[2 * i], b = above[2 * i + 1], c = below[2 * i], d = below[2 * i + 1];
        uncertainty[i] = (a - a * a) + (b - b * b) + (c - c * c) + (d - d * d);
        sampled[i] = a;
        float high = most(most(a, b), most(c, d)), low = least(least(a, b), least(c, d));
        flags[i] = (high > 0 ? bit_of[i] : 0) | (low < 1 ? bit_of[i] << TILE : 0);
    }
    return bits_of(flags);
}

/* What `survey` reads and fills, one row of the half grid. */
typedef struct {
    const float *mask[2];
    float *alpha[2]; /* NULL in the last pass */
    uint8_t *amount[2];
    int16_t *offset[2];
    float *uncertainty, *sampled;
} Surveyed;

/* What `survey` does with SPAN columns from `x` on. Returns what `examine` does. */
INLINED int survey_tile(const Task *t, const Surveyed *s, int x)
{
    float drawn[2][SPAN];
    float *uncertainty = s->uncertainty + x / 2, *sampled = s->sampled + x / 2;
    const int found = draw(t, s->mask[0] + x, s->mask[1] + x, drawn[0], drawn[1]);
    for (int k = 0; k < 2; k++)
        if (s->alpha[k])
            copy_lanes(s->alpha[k] + x, drawn[k], sizeof drawn[k]);
    if (found == (SOME | NOT_ALL)) {
        for (int k = 0; k < 2; k++) {
            int16_t *offset = s->offset[k] + x;
            EACH_LANE(i, SPAN)
                offset[i] = fixed_alpha(drawn[k][i]);
            judge(t, drawn[k], s->amount[k] + x);
        }
        return examine(drawn[0], drawn[1], uncertainty, sampled);
    }
    const int16_t alpha = found == SOME ? ALPHA_ONE : 0;
    const float sample = found == SOME ? 1 : 0;
    for (int k = 0; k < 2; k++) {
        int16_t *offset = s->offset[k] + x;
        EACH_LANE(i, SPAN)
            offset[i] = alpha;
        memset(s->amount[k] + x, found, SPAN);
    }
    EACH_LANE(i, TILE)
        sampled[i] = sample;
    EACH_LANE(i, TILE)
        uncertainty[i] = 0;
    return found == SOME ? ALL_NODES : ALL_NODES << TILE;
}

/* The same where the grid ends within the columns: its last node stands for what is beyond. */
WIDE static int survey_rim(const Task *t, const Surveyed *s, int x, int count)
{
    float mask[2][SPAN];
    int16_t offset[2][SPAN];
    Surveyed rim = {.uncertainty = s->uncertainty + x / 2, .sampled = s->sampled + x / 2};
    for (int k = 0; k < 2; k++) {
        for (int i = 0; i < SPAN; i++)
            mask[k][i] = s->mask[k][x + (i < count ? i : count - 1)];
        rim.mask[k] = mask[k];
        rim.offset[k] = offset[k];
        rim.alpha[k] = s->alpha[k] ? s->alpha[k] + x : NULL;
        rim.amount[k] = s->amount[k] + x;
    }
    const int found = survey_tile(t, &rim, 0);
    for (int k = 0; k < 2; k++)
        memcpy(s->offset[k] + x, offset[k], (size_t)count * sizeof(int16_t));
    return found & ((1 << (count + 1) / 2) - 1) * (1 | 1 << TILE);
}

/* One row of the half grid: how unsure the mask is, and where there is what; and what alpha is if nothing is fitted. */
WIDE static void survey(const Task *t, const Work *w, const Plane *mask, const Result *r, int row)
{
    Surveyed s = {.uncertainty = w->uncertainty + (Py_ssize_t)row * w->stride,
                  .sampled = w->sampled + (Py_ssize_t)row * w->stride};
    const float *next[2];
    for (int k = 0; k < 2; k++) {
        const int line = 2 * row + k < t->rows ? 2 * row + k : 2 * row;
        s.mask[k] = (const float *)ROW(mask, line);
        next[k] = line + 2 < t->rows ? (const float *)ROW(mask, line + 2) : s.mask[k];
        s.alpha[k] = t->passes > 1 ? w->alpha + (Py_ssize_t)line * w->wide : NULL;
        s.amount[k] = w->amount + (Py_ssize_t)line * w->wide;
        s.offset[k] = result_at(t, r, INTERCEPT, line, 0);
    }
    for (int word = 0; word < w->words - 2; word++) {
        const int first = word * WORD, count = t->half_cols - first < WORD ? t->half_cols - first : WORD;
        uint64_t some = 0, not_all = 0;
        for (int node = 0; node < count; node += TILE) {
            const int x = 2 * (first + node), left = t->cols - x;
            PREFETCH(next[0] + x);
            PREFETCH(next[1] + x);
            const uint64_t found = (uint64_t)(left >= SPAN ? survey_tile(t, &s, x) : survey_rim(t, &s, x, left));
            some |= (found & ALL_NODES) << node;
            not_all |= (found >> TILE) << node;
        }
        w->some[row * w->words + word] = some;
        w->not_all[row * w->words + word] = not_all;
        w->soft[row * w->words + word] = some & not_all;
    }
    for (int k = 0; k < 2; k++) { /* the padding */
        float *padded = k ? s.sampled : s.uncertainty;
        memset(padded - LEFT, 0, sizeof(float) * LEFT);
        memset(padded + t->half_cols, 0, sizeof(float) * RIGHT);
        s.amount[k][-1] = s.amount[k][t->cols] = 0;
    }
}

/* How far the fit replaces the mask: from the mean uncertainty in the window. */
INLINED void share_row(const Task *t, const Work *w, int row, const int radius, const int width)
{
    const int top = row - radius < 0 ? 0 : row - radius;
    const int bottom = row + radius >= t->half_rows ? t->half_rows - 1 : row + radius;
    const float zero = t->zero, one = t->one;
    const float slope = 1 / (t->high - t->low), threshold = t->low * slope;
    const float per_row = slope / (float)(bottom - top + 1);
    float *share = w->share + (Py_ssize_t)row * w->stride;
    uint64_t *fitted = w->fitted + row * w->words, *soft = w->near[1];
    bits_near(w->soft + top * w->words, bottom - top + 1, w->words, radius, w->near[0], soft);
    const int count = bits_runs(soft, t->half_cols, TILE, w->tiles);
    for (int i = 0; i < w->words - 2; i++)
        fitted[i] = 0;
    float columns[2][AROUND];
    for (int tile = 0; tile <= count; tile++) {
        for (int i = 0; tile < count && i < width; i += TILE) {
            Lanes down = {0};
            for (int y = top; y <= bottom; y++)
                lanes_add(&down, w->uncertainty + (Py_ssize_t)y * w->stride + w->tiles[tile] - radius + i);
            copy_lanes(columns[tile % 2] + i, &down, sizeof down);
        }
        if (tile == 0)
            continue;
        const int x = w->tiles[tile - 1]; /* what was written last is still on its way to the cache */
        float total[TILE];
        Lanes across = {0};
        for (int d = 0; d <= 2 * radius; d++)
            lanes_add(&across, columns[1 - tile % 2] + d);
        copy_lanes(total, &across, sizeof total);
        int32_t over[TILE], found = 0;
        EACH_LANE(i, TILE) {
            float value = most(total[i] * w->window_part[x + i] * per_row - threshold, zero);
            total[i] = least(value, one);
            over[i] = value > 0 ? bit_of[i] : 0;
        }
        copy_lanes(share + x, total, sizeof total);
        EACH_LANE(i, TILE)
            found |= over[i];
        bits_set(fitted, x, (uint64_t)found);
    }
}

/* What is blended, or fitted, or beside such a node, is wanted; and so are the fits that are averaged there. */
WIDE static void want(const Task *t, const Work *w, const Plane *colours, int row)
{
    const int reach = t->smoothing > 1 ? t->smoothing : 1;
    const int top = row - reach < 0 ? 0 : row - reach;
    const int bottom = row + reach >= t->half_rows ? t->half_rows - 1 : row + reach;
    const uint64_t *const rows[3] = {w->some, w->not_all, w->fitted};
    uint64_t *wanted = w->wanted + row * w->words;
    for (int k = 0; k < 3; k++)
        bits_near(rows[k] + top * w->words, bottom - top + 1, w->words, reach, w->near[0], w->near[1 + k]);
    for (int i = 0; i < w->words - 2; i++)
        wanted[i] = (w->near[1][i] & w->near[2][i]) | w->near[3][i];
    int *needed = w->needed + (Py_ssize_t)row * w->most, count = bits_runs(wanted, t->half_cols, TILE, needed);
    w->needed_count[row] = count;
    for (int k = 0; k < 3; k++)
        for (int line = 2 * row; line < 2 * row + 2 && line < t->rows; line++) {
            const uint8_t *codes = ROW(&colours[k], line);
            for (int tile = 0; tile < count; tile++)
                PREFETCH(codes + 2 * needed[tile]);
        }
}

/* The moments of `width` nodes from `first` on. Colours are centred, so that variances do not drown in rounding. */
INLINED void learn_tile(const Task *t, const Work *w, const Plane *colours, int row, int first, const int width,
                        float (*restrict term)[AROUND])
{
    const float floor = t->weight_floor, luma_scale = 1 / 255.0f, chroma_scale = t->chroma_scale / 255.0f;
    const int left = 2 * first, right = left + 2 * width;
    uint16_t y[AROUND], u[AROUND], v[AROUND], *const pairs[3] = {y, u, v};
    for (int k = 0; k < 3; k++) {
        const uint8_t *from = ROW(&colours[k], 2 * row);
        if (left >= 0 && right <= t->cols) {
            copy_lanes(pairs[k], from + left, 2 * (size_t)width);
        } else {
            const int start = left > 0 ? left : 0, stop = right < t->cols ? right : t->cols;
            memset(pairs[k], 0, 2 * (size_t)width);
            memcpy((uint8_t *)pairs[k] + (start - left), from + start, (size_t)(stop - start));
        }
    }
    const float *restrict p = w->sampled + (Py_ssize_t)row * w->stride + first, *restrict inside = w->inside + first;
    EACH_LANE(i, width) {
        float m = p[i], weight = (fabsf(2 * m - 1) + floor) * inside[i];
        float a = (float)(FIRST_OF(y[i]) - 128) * luma_scale, b = (float)(FIRST_OF(u[i]) - 128) * chroma_scale;
        float c = (float)(FIRST_OF(v[i]) - 128) * chroma_scale;
        float wa = weight * a, wb = weight * b, wc = weight * c;
        term[WEIGHT][i] = weight;
        term[MASK][i] = weight * m;
        term[IY][i] = wa;
        term[IU][i] = wb;
        term[IV][i] = wc;
        term[YY][i] = wa * a;
        term[YU][i] = wa * b;
        term[YV][i] = wa * c;
        term[UU][i] = wb * b;
        term[UV][i] = wb * c;
        term[VV][i] = wc * c;
        term[MY][i] = wa * m;
        term[MU][i] = wb * m;
        term[MV][i] = wc * m;
    }
}

/* The moments of one row, summed over the width of a window. */
INLINED void learn_row(const Task *t, const Work *w, const Plane *colours, int row, const int radius, const int width)
{
    const int top = row - radius < 0 ? 0 : row - radius;
    const int bottom = row + radius >= t->half_rows ? t->half_rows - 1 : row + radius;
    float *sums = w->sums + (Py_ssize_t)(row % (2 * radius + 1)) * MOMENTS * w->stride;
    bits_near(w->wanted + top * w->words, bottom - top + 1, w->words, 0, w->near[0], w->near[1]);
    const int count = bits_runs(w->near[1], t->half_cols, TILE, w->tiles);
    const Py_ssize_t stride = w->stride;
    float terms[2][MOMENTS][AROUND];
    for (int tile = 0; tile <= count; tile++) {
        float(*term)[AROUND] = terms[tile % 2];
        if (tile < count)
            learn_tile(t, w, colours, row, w->tiles[tile] - radius, width, term);
        if (tile == 0)
            continue;
        term = terms[1 - tile % 2]; /* what was written last is still on its way to the cache */
        float *to = sums + w->tiles[tile - 1];
        for (int k = 0; k < MOMENTS; k++, to += stride) {
            Lanes total = {0};
            for (int d = 0; d <= 2 * radius; d++)
                lanes_add(&total, term[k] + d);
            copy_lanes(to, &total, sizeof total);
        }
    }
}

/* --- the fits -------------------------------------------------------------------------------------------------- */

typedef float Moments[MOMENTS][TILE];

/* Solves (covariance + epsilon) gain = covariance with the mask, by Cramer's rule, for a tile of nodes. */
INLINED void solve(const Task *t, const Moments sum, float *fits, int stride)
{
    float fit[FITS][TILE];
    const float epsilon = t->epsilon, steepest = t->steepest;
    /* The smallest that a determinant can be is epsilon cubed; rounding may say less. */
    const float smallest = epsilon * epsilon * epsilon;
    EACH_LANE(i, TILE) {
        float scale = 1 / most(sum[WEIGHT][i], 1e-6f);
        float m = sum[MASK][i] * scale, a = sum[IY][i] * scale, b = sum[IU][i] * scale, c = sum[IV][i] * scale;
        float yy = sum[YY][i] * scale - a * a + epsilon, yu = sum[YU][i] * scale - a * b;
        float yv = sum[YV][i] * scale - a * c, uu = sum[UU][i] * scale - b * b + epsilon;
        float uv = sum[UV][i] * scale - b * c, vv = sum[VV][i] * scale - c * c + epsilon;
        float my = sum[MY][i] * scale - m * a, mu = sum[MU][i] * scale - m * b, mv = sum[MV][i] * scale - m * c;
        float c00 = uu * vv - uv * uv, c01 = uv * yv - yu * vv, c02 = yu * uv - uu * yv;
        float c11 = yy * vv - yv * yv, c12 = yu * yv - yy * uv, c22 = yy * uu - yu * yu;
        float inverse = 1 / most(yy * c00 + yu * c01 + yv * c02, smallest);
        float gy = clamp((c00 * my + c01 * mu + c02 * mv) * inverse, steepest);
        float gu = clamp((c01 * my + c11 * mu + c12 * mv) * inverse, steepest);
        float gv = clamp((c02 * my + c12 * mu + c22 * mv) * inverse, steepest);
        fit[GAIN_Y][i] = gy;
        fit[GAIN_U][i] = gu;
        fit[GAIN_V][i] = gv;
        fit[INTERCEPT][i] = m - gy * a - gu * b - gv * c;
    }
    for (int k = 0; k < FITS; k++)
        copy_lanes(fits + k * stride, fit[k], sizeof fit[k]);
}

/* What the person's colour is where the picture shows half person, half room: blur fusion's F + (F - B) / 2, with
 * F and B the mean colours of person and room in the window (edge_seg/matte.py cites it). For four nodes alike. */
INLINED void foreground(const Task *t, const Moments sum, const Result *r, int row, int x)
{
    const int start = 2 * x, count = t->cols - start;
    const float light = t->light, dark = t->dark;
    float person_part[TILE], room_part[TILE];
    EACH_LANE(i, TILE) {
        /* A little of everything in both means: they stay defined where there is no person, or no room. */
        float little = sum[WEIGHT][i] * 0.02f + 1e-6f;
        person_part[i] = 1 / (sum[MASK][i] + little);
        room_part[i] = 1 / (sum[WEIGHT][i] - sum[MASK][i] + little);
    }
    for (int k = 0; k < 3; k++) {
        const float scale = k ? 255 / t->chroma_scale : 255;
        int32_t value[TILE];
        uint16_t code[TILE];
        EACH_LANE(i, TILE) {
            float all = sum[IY + k][i], person = sum[MY + k][i];
            float front = (person + 0.02f * all) * person_part[i], back = (1.02f * all - person) * room_part[i];
            float colour = (front + 0.5f * (front - back)) * scale + 128.5f;
            value[i] = (int)most(least(colour, light), dark) * 0x0101;
        }
        EACH_LANE(i, TILE) /* by itself, for compilers choose registers by the smallest elements of a loop */
            code[i] = (uint16_t)value[i];
        uint8_t *colour = r->colour[k] + (Py_ssize_t)2 * row * t->cols + start;
        copy_wide(colour, code, count, 1);
        if (2 * row + 1 < t->rows)
            copy_wide(colour + t->cols, code, count, 1);
    }
}

/* The fits of one row, from the sums over the window. */
INLINED void fit_row(const Task *t, const Work *w, int row, const Result *r, const int radius)
{
    const int kept = 2 * radius + 1, stride = w->stride;
    float *fits = w->fits + row % (2 * t->smoothing + 1) * FITS * stride;
    const float *rows[2 * MAX_RADIUS + 1];
    for (int y = 0; y < kept; y++) {
        int at = row - radius + y;
        rows[y] = w->sums + (Py_ssize_t)(at < 0 || at >= t->half_rows ? kept : at % kept) * MOMENTS * stride;
    }
    for (int tile = 0; tile < w->needed_count[row]; tile++) {
        const int x = w->needed[row * w->most + tile];
        Moments sum;
        Py_ssize_t at = x;
        for (int k = 0; k < MOMENTS; k++, at += stride) {
            Lanes total = {0};
            for (int y = 0; y < kept; y++)
                lanes_add(&total, rows[y] + at);
            copy_lanes(sum[k], &total, sizeof total);
        }
        solve(t, sum, fits + x, stride);
        for (int i = t->half_cols - x; i < TILE; i++) /* averaging counts what is in the grid only */
            for (int k = 0; k < FITS; k++)
                fits[k * stride + x + i] = 0;
        foreground(t, sum, r, row, x);
    }
}

/* Averages the fits of neighbours, sharpens the result about one half, and weighs it with the share:
 * alpha = gain . colour + intercept + (1 - share) * mask. */
INLINED void smooth_row(const Task *t, const Work *w, int row, const int reach)
{
    const int kept = 2 * reach + 1, stride = w->stride;
    const int top = row - reach < 0 ? 0 : row - reach;
    const int bottom = row + reach >= t->half_rows ? t->half_rows - 1 : row + reach;
    const float per_row = 1 / (float)(bottom - top + 1), sharpness = t->sharpness;
    const float *rows[2 * MAX_RADIUS + 1];
    for (int y = 0; y < kept; y++) {
        const int at = row - reach + y;
        rows[y] = w->fits + (at < top || at > bottom ? kept : at % kept) * FITS * stride;
    }
    float *fields = w->fields + row % 2 * FIELDS * stride;
    const float *share = w->share + (Py_ssize_t)row * stride;
    const uint64_t *fitted = w->fitted + row * w->words;
    for (int tile = 0; row >= 2 && tile < w->needed_count[row - 2]; tile++) /* that row was here before */
        for (int k = 0; k < FIELDS; k++)
            memset(fields + k * stride + w->needed[(row - 2) * w->most + tile], 0, sizeof(float) * TILE);
    for (int tile = 0; tile < w->needed_count[row]; tile++) {
        const int x = w->needed[row * w->most + tile];
        const int32_t here = (int32_t)(bits_from(fitted, x) & ALL_NODES);
        if (here == 0)
            continue;
        float part[TILE], steep[TILE];
        EACH_LANE(i, TILE) {
            part[i] = (here & bit_of[i]) ? share[x + i] : 0;
            steep[i] = w->smooth_part[x + i] * per_row * part[i] * sharpness;
        }
        for (int k = 0; k < FITS; k++) {
            Lanes all = {0};
            float total[TILE];
            for (int y = 0; y < kept; y++)
                for (int d = -reach; d <= reach; d++)
                    lanes_add(&all, rows[y] + k * stride + x + d);
            copy_lanes(total, &all, sizeof total);
            const float scale = k == GAIN_U || k == GAIN_V ? t->chroma_scale : 1;
            const float middle = k == INTERCEPT ? 0.5f - 0.5f * sharpness : 0;
            EACH_LANE(i, TILE)
                total[i] = total[i] * steep[i] * scale + middle * part[i];
            copy_lanes(fields + k * stride + x, total, sizeof total);
        }
        copy_lanes(fields + SHARE * stride + x, part, sizeof part);
    }
    for (int k = 0; k < FIELDS; k++) /* the last node stands for what is beyond it */
        fields[k * stride + t->half_cols] = fields[k * stride + t->half_cols - 1];
}

/* What `expand` fills of one row of the full grid, from some column on. */
typedef struct {
    int16_t *fit[FITS];
    uint8_t *amount;
    float *alpha; /* NULL in the last pass */
} Expanded;

/* One row of the full grid, SPAN columns: gains and offset in fixed point, and what alpha is there. */
INLINED void apply(const Task *t, float (*restrict field)[SPAN], const uint8_t *const code[3], const float *mask,
                   const Expanded *to)
{
    const float zero = t->zero, one = t->one, limit = t->limit;
    int16_t y[SPAN], u[SPAN], v[SPAN]; /* bytes in the loop would halve its registers */
    float alpha[SPAN];
    codes_load(code[0], y);
    codes_load(code[1], u);
    codes_load(code[2], v);
    EACH_LANE(i, SPAN) {
        float fit = field[GAIN_Y][i] * (float)(y[i] - 128) + field[GAIN_U][i] * (float)(u[i] - 128) +
                    field[GAIN_V][i] * (float)(v[i] - 128);
        float offset = field[INTERCEPT][i] + (1 - field[SHARE][i]) * drawn_out(t, mask[i]);
        field[INTERCEPT][i] = offset;
        alpha[i] = most(least(offset + fit * (1 / 255.0f), one), zero);
    }
    for (int k = 0; k < FITS; k++) {
        const float unit = k < 3 ? GAIN_ONE : ALPHA_ONE;
        int16_t *restrict out = to->fit[k];
        EACH_LANE(i, SPAN)
            out[i] = fixed_number(field[k][i] * unit, limit);
    }
    judge(t, alpha, to->amount);
    if (to->alpha)
        copy_lanes(to->alpha, alpha, sizeof alpha);
}

/* From two rows of nodes to two of the full grid, odd rows and columns between two nodes. */
INLINED void spread(const float *upper, const float *lower, Py_ssize_t stride, float (*restrict even)[SPAN],
                    float (*restrict odd)[SPAN])
{
    for (int k = 0; k < FIELDS; k++, upper += stride, lower += stride)
        EACH_LANE(i, TILE) {
            float across = upper[i] + upper[i + 1];
            even[k][2 * i] = upper[i];
            even[k][2 * i + 1] = 0.5f * across;
            odd[k][2 * i] = 0.5f * (upper[i] + lower[i]);
            odd[k][2 * i + 1] = 0.25f * (across + lower[i] + lower[i + 1]);
        }
}

/* The same as `apply` where the grid ends within the columns. */
WIDE static void apply_rim(const Task *t, float (*restrict field)[SPAN], const uint8_t *const code[3], const float *mask,
                           const Expanded *to, int count)
{
    uint8_t rim[3][SPAN] = {{0}}, amount[SPAN];
    float rim_mask[SPAN] = {0};
    int16_t fit[FITS][SPAN];
    for (int k = 0; k < 3; k++)
        memcpy(rim[k], code[k], (size_t)count);
    memcpy(rim_mask, mask, (size_t)count * sizeof(float));
    const uint8_t *const full[3] = {rim[0], rim[1], rim[2]};
    const Expanded full_to = {.fit = {fit[0], fit[1], fit[2], fit[3]}, .amount = amount, .alpha = to->alpha};
    apply(t, field, full, rim_mask, &full_to);
    for (int k = 0; k < FITS; k++)
        memcpy(to->fit[k], fit[k], (size_t)count * sizeof(int16_t));
    memcpy(to->amount, amount, (size_t)count);
}

/* From one row of the half grid to two of the full one. */
WIDE static void expand(const Task *t, const Work *w, const Plane *mask, const Plane *colours, const Result *r, int row)
{
    const int below = row + 1 < t->half_rows ? row + 1 : row, stride = w->stride;
    const int lines[2] = {2 * row, 2 * row + 1}, line_count = 2 * row + 1 < t->rows ? 2 : 1;
    const float *upper = w->fields + row % 2 * FIELDS * stride, *lower = w->fields + below % 2 * FIELDS * stride;
    const uint64_t *fitted = w->fitted + row * w->words, *under = w->fitted + below * w->words;
    for (int tile = 0; tile < w->needed_count[row]; tile++) {
        const int x = w->needed[row * w->most + tile], start = 2 * x;
        if (!((bits_from(fitted, x) | bits_from(under, x)) & (ALL_NODES << 1 | 1)))
            continue;
        float field[2][FIELDS][SPAN];
        spread(upper + x, lower + x, stride, field[0], field[1]);
        for (int fine = 0; fine < line_count; fine++) {
            const Py_ssize_t at = (Py_ssize_t)lines[fine] * t->cols + start;
            const Py_ssize_t padded_at = (Py_ssize_t)lines[fine] * w->wide + start;
            const uint8_t *const code[3] = {ROW(&colours[0], lines[fine]) + start, ROW(&colours[1], lines[fine]) + start,
                                            ROW(&colours[2], lines[fine]) + start};
            const float *from = (const float *)ROW(mask, lines[fine]) + start;
            const Expanded to = {.fit = {r->gain[0] + at, r->gain[1] + at, r->gain[2] + at, r->offset + at},
                                 .amount = w->amount + padded_at,
                                 .alpha = t->passes > 1 ? w->alpha + padded_at : NULL};
            if (start + SPAN <= t->cols)
                apply(t, field[fine], code, from, &to);
            else
                apply_rim(t, field[fine], code, from, &to, t->cols - start);
        }
    }
}

/* The default radii have loops of their own, unrolled. */
WIDE static void share(const Task *t, const Work *w, int row)
{
    if (t->radius == 2)
        share_row(t, w, row, 2, 2 * TILE);
    else
        share_row(t, w, row, t->radius, AROUND);
}

WIDE static void learn(const Task *t, const Work *w, const Plane *colours, int row)
{
    if (t->radius == 2)
        learn_row(t, w, colours, row, 2, 2 * TILE);
    else
        learn_row(t, w, colours, row, t->radius, AROUND);
}

WIDE static void fit(const Task *t, const Work *w, int row, const Result *r)
{
    if (t->radius == 2)
        fit_row(t, w, row, r, 2);
    else
        fit_row(t, w, row, r, t->radius);
}

WIDE static void smooth(const Task *t, const Work *w, int row)
{
    if (t->smoothing == 1)
        smooth_row(t, w, row, 1);
    else
        smooth_row(t, w, row, t->smoothing);
}

static void one_pass(const Task *t, const Work *w, const Plane *mask, const Plane *colours, const Result *r)
{
    memset(w->fields - LEFT, 0, sizeof(float) * 2 * FIELDS * (size_t)w->stride);
    for (int k = 0; k < 3; k++)
        memset(r->gain[k], 0, sizeof(int16_t) * (size_t)t->rows * (size_t)t->cols);
    for (int row = 0; row < t->half_rows; row++)
        survey(t, w, mask, r, row);
    for (int row = 0; row < t->half_rows; row++)
        share(t, w, row);
    for (int row = 0; row < t->half_rows; row++)
        want(t, w, colours, row);
    for (int row = 0; row < t->radius && row < t->half_rows; row++)
        learn(t, w, colours, row);
    /* Each stage has what it needs from the round before: what is still on its way to the cache would be waited for. */
    for (int round = 0; round < t->half_rows + t->smoothing + 4; round++) {
        const int learnt = round + t->radius, fitted = round - 1;
        const int averaged = fitted - t->smoothing - 1, filled = averaged - 2;
        if (filled >= 0)
            expand(t, w, mask, colours, r, filled);
        if (averaged >= 0 && averaged < t->half_rows)
            smooth(t, w, averaged);
        if (fitted >= 0 && fitted < t->half_rows)
            fit(t, w, fitted, r);
        if (learnt < t->half_rows)
            learn(t, w, colours, learnt);
    }
}

/* Nodes around which the fit says next to nothing, or next to everything, everywhere: they say just that, and need
 * not be blended. One row of the half grid. */
WIDE static void settle(const Task *t, const Work *w, const Result *r, int row)
{
    const uint8_t *lines[4];
    for (int k = 0; k < 4; k++) {
        int line = 2 * row - 1 + k;
        line = line < 0 ? 0 : line < t->rows ? line : t->rows - 1;
        lines[k] = w->amount + (Py_ssize_t)line * w->wide;
    }
    for (int tile = 0; tile < w->needed_count[row]; tile++) {
        const int start = 2 * w->needed[row * w->most + tile], count = t->cols - start;
        uint8_t across[4][SPAN];
        for (int k = 0; k < 4; k++) {
            const uint8_t *restrict at = lines[k] + start;
            EACH_LANE(i, SPAN)
                across[k][i] = at[i - 1] | at[i] | at[i + 1];
        }
        for (int fine = 0; fine < 2 && 2 * row + fine < t->rows; fine++) {
            uint8_t around[SPAN];
            uint16_t amount[SPAN];
            int16_t unsure[SPAN], sure[SPAN], kept[SPAN] = {0};
            EACH_LANE(i, SPAN)
                around[i] = across[fine][i] | across[fine + 1][i] | across[fine + 2][i];
            codes_load(around, amount);
            EACH_LANE(i, SPAN) {
                unsure[i] = amount[i] == (SOME | NOT_ALL) ? -1 : 0;
                sure[i] = amount[i] == SOME ? ALPHA_ONE : 0;
            }
            for (int k = 0; k < FITS; k++) {
                int16_t *plane = result_at(t, r, k, 2 * row + fine, start);
                int16_t *at = count < SPAN ? memcpy(kept, plane, (size_t)count * sizeof(int16_t)) : plane;
                EACH_LANE(i, SPAN)
                    at[i] = (int16_t)((at[i] & unsure[i]) | (k < 3 ? 0 : sure[i]));
                if (count < SPAN)
                    memcpy(plane, kept, (size_t)count * sizeof(int16_t));
            }
        }
    }
}

static void refine(Task *t, const Work *w, const Plane *mask, const Plane *colours, const Result *r)
{
    const Plane alpha = {.data = (unsigned char *)w->alpha,
                         .rows = t->rows,
                         .cols = t->cols,
                         .stride = (Py_ssize_t)sizeof(float) * w->wide};
    for (t->scale = 1 / (1 - 2 * t->level); t->passes > 0; t->passes--) {
        one_pass(t, w, mask, colours, r);
        mask = &alpha;
        t->level = 0, t->scale = 1; /* it is drawn out */
    }
    for (int row = 0; row < t->half_rows; row++)
        settle(t, w, r, row);
}

/* Not cut off at 0 and 1: what lies beyond makes the edge between two nodes a little steeper. */
WIDE static void draw_out(const Plane *mask, const Plane *offset, float level)
{
    const float scale = (float)(1 / (1 - 2 * (double)level)), none = (float)(level / (1 - 2 * (double)level));
    for (Py_ssize_t row = 0; row < mask->rows; row++) {
        const float *restrict p = (const float *)ROW(mask, row);
        int16_t *restrict to = (int16_t *)ROW(offset, row);
        for (Py_ssize_t x = 0; x < mask->cols; x++)
            to[x] = fixed(p[x] * scale - none, ALPHA_ONE);
    }
}

static void *carve(char **free_memory, size_t bytes)
{
    char *start = *free_memory;
    *free_memory += (bytes + 31) & ~(size_t)31;
    return start;
}

static void *work_create(Work *w, const Task *t)
{
    w->stride = (LEFT + t->half_cols + RIGHT + TILE - 1) / TILE * TILE;
    w->wide = 2 * w->stride;
    w->most = (t->half_cols + TILE - 1) / TILE;
    w->words = bits_words(t->half_cols);
    const size_t rows = (size_t)t->half_rows, stride = (size_t)w->stride, most = (size_t)w->most;
    const size_t words = (size_t)w->words;
    const size_t kept = 2 * (size_t)t->radius + 2, averaged = 2 * (size_t)t->smoothing + 2;
    const size_t nodes = (size_t)t->rows * (size_t)w->wide, alpha = t->passes > 1 ? nodes : 0;
    const size_t floats = alpha + stride * (3 * rows + kept * MOMENTS + averaged * FITS + 2 * FIELDS + 3);
    char *memory = PyMem_Malloc(sizeof(float) * floats + sizeof(int) * (rows * most + rows + most) +
                                sizeof(uint64_t) * words * (5 * rows + 4) + nodes + 32 * 24), *cursor = memory;
    if (memory == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    cursor = (char *)(((uintptr_t)memory + 31) & ~(uintptr_t)31);
    w->alpha = (float *)carve(&cursor, sizeof(float) * alpha) + 2 * LEFT;
    w->amount = (uint8_t *)carve(&cursor, nodes) + 2 * LEFT;
    w->sampled = (float *)carve(&cursor, sizeof(float) * rows * stride) + LEFT;
    w->uncertainty = (float *)carve(&cursor, sizeof(float) * rows * stride) + LEFT;
    w->share = (float *)carve(&cursor, sizeof(float) * rows * stride) + LEFT;
    w->fields = (float *)carve(&cursor, sizeof(float) * 2 * FIELDS * stride) + LEFT;
    w->needed = carve(&cursor, sizeof(int) * rows * most);
    w->needed_count = carve(&cursor, sizeof(int) * rows);
    w->tiles = carve(&cursor, sizeof(int) * most);
    char *zeros = cursor; /* of what is read beyond the grid, or before it is written */
    w->some = (uint64_t *)carve(&cursor, sizeof(uint64_t) * rows * words) + 1;
    w->not_all = (uint64_t *)carve(&cursor, sizeof(uint64_t) * rows * words) + 1;
    w->soft = (uint64_t *)carve(&cursor, sizeof(uint64_t) * rows * words) + 1;
    w->fitted = (uint64_t *)carve(&cursor, sizeof(uint64_t) * rows * words) + 1;
    w->wanted = (uint64_t *)carve(&cursor, sizeof(uint64_t) * rows * words) + 1;
    for (int k = 0; k < 4; k++)
        w->near[k] = (uint64_t *)carve(&cursor, sizeof(uint64_t) * words) + 1;
    w->sums = (float *)carve(&cursor, sizeof(float) * kept * MOMENTS * stride) + LEFT;
    w->fits = (float *)carve(&cursor, sizeof(float) * averaged * FITS * stride) + LEFT;
    w->inside = (float *)carve(&cursor, sizeof(float) * stride) + LEFT;
    w->window_part = (float *)carve(&cursor, sizeof(float) * stride) + LEFT;
    w->smooth_part = (float *)carve(&cursor, sizeof(float) * stride) + LEFT;
    memset(zeros, 0, (size_t)(cursor - zeros));
    const int reach[2] = {t->radius, t->smoothing}, last = t->half_cols - 1;
    for (int x = 0; x <= last; x++) {
        w->inside[x] = 1;
        for (int k = 0; k < 2; k++) {
            int left = x < reach[k] ? 0 : x - reach[k], right = x + reach[k] < last ? x + reach[k] : last;
            (k ? w->smooth_part : w->window_part)[x] = 1 / (float)(right - left + 1);
        }
    }
    return memory;
}

static PyObject *matte_refine(PyObject *self, PyObject *args)
{
    (void)self;
    enum { MASK_ARG, Y_ARG, U_ARG, V_ARG, GAIN_ARG, OFFSET_ARG, COLOUR_ARG, ARRAYS };
    static const char *const names[ARRAYS] = {"mask", "y", "u", "v", "gain", "offset", "colour"};
    static const char formats[ARRAYS] = {'f', 'B', 'B', 'B', 'h', 'h', 'B'};
    PyObject *arrays[ARRAYS];
    Task t = {.zero = 0, .one = 1, .limit = FIXED_LIMIT, .light = 240, .dark = 16};
    if (!PyArg_ParseTuple(args, "OOOOOOOiiifffffffff", &arrays[0], &arrays[1], &arrays[2], &arrays[3], &arrays[4],
                          &arrays[5], &arrays[6], &t.radius, &t.smoothing, &t.passes, &t.epsilon, &t.chroma_scale,
                          &t.weight_floor, &t.low, &t.high, &t.sharpness, &t.level, &t.steepest,
                          &t.negligible))
        return NULL;
    Plane planes[ARRAYS];
    int held = 0;
    PyObject *result = NULL;
    void *memory = NULL;
    for (; held < ARRAYS; held++)
        if (plane_get(&planes[held], arrays[held], formats[held], held >= GAIN_ARG, names[held]) < 0)
            goto done;
    Py_ssize_t rows = planes[0].rows, cols = planes[0].cols;
    if (rows < 1 || cols < 1 || rows > MAX_SIDE || cols > MAX_SIDE || t.radius < 1 || t.radius > 2 * MAX_RADIUS ||
        t.smoothing < 0 || t.smoothing > 2 * MAX_RADIUS || t.passes < 1 || t.passes > 4 || !(t.epsilon > 0) ||
        !(t.low < t.high) || !(t.weight_floor > 0) || !(t.chroma_scale > 0) || !(t.steepest > 0) ||
        !(t.negligible < 0.5f) || !(t.level >= 0 && t.level < 0.5f)) {
        PyErr_SetString(PyExc_ValueError, "a parameter or a size is out of its range");
        goto done;
    }
    for (int i = 1; i < ARRAYS; i++) {
        int stacked = i == GAIN_ARG || i == COLOUR_ARG;
        Py_ssize_t want_rows = stacked ? 3 : rows, want_cols = stacked ? rows * cols : cols;
        Py_ssize_t item = formats[i] == 'h' ? (Py_ssize_t)sizeof(int16_t) : 1;
        if (planes[i].rows != want_rows || planes[i].cols != want_cols) {
            PyErr_Format(PyExc_ValueError, "%s: expected %s%zdx%zd", names[i], stacked ? "3x" : "", rows, cols);
            goto done;
        }
        if (i >= GAIN_ARG && planes[i].stride != want_cols * item) {
            PyErr_Format(PyExc_ValueError, "%s: must be contiguous", names[i]);
            goto done;
        }
    }
    t.rows = (int)rows;
    t.cols = (int)cols;
    t.half_rows = (t.rows + 1) / 2;
    t.half_cols = (t.cols + 1) / 2;
    t.radius = (t.radius + 1) / 2;
    t.smoothing = (t.smoothing + 1) / 2;
    Result r = {.offset = (int16_t *)planes[OFFSET_ARG].data};
    for (int k = 0; k < 3; k++) {
        r.gain[k] = (int16_t *)planes[GAIN_ARG].data + k * rows * cols;
        r.colour[k] = planes[COLOUR_ARG].data + k * rows * cols;
    }
    Work work;
    memory = work_create(&work, &t);
    if (memory == NULL)
        goto done;
    Py_BEGIN_ALLOW_THREADS
    refine(&t, &work, &planes[MASK_ARG], &planes[Y_ARG], &r);
    Py_END_ALLOW_THREADS
    result = Py_NewRef(Py_None);
done:
    PyMem_Free(memory);
    while (held-- > 0)
        plane_release(&planes[held]);
    return result;
}

static PyObject *matte_draw_out(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *mask, *offset, *result = NULL;
    Plane from, to;
    float level;
    if (!PyArg_ParseTuple(args, "OOf", &mask, &offset, &level) || plane_get(&from, mask, 'f', 0, "mask") < 0)
        return NULL;
    if (plane_get(&to, offset, 'h', 1, "offset") < 0)
        goto done;
    if (from.rows != to.rows || from.cols != to.cols || !(level >= 0 && level < 0.5f)) {
        PyErr_SetString(PyExc_ValueError, "mask and offset differ in size, or the level is out of its range");
    } else {
        draw_out(&from, &to, level);
        result = Py_NewRef(Py_None);
    }
    plane_release(&to);
done:
    plane_release(&from);
    return result;
}

static PyMethodDef methods[] = {
    {"draw_out", matte_draw_out, METH_VARARGS,
     "draw_out(mask, offset, level): a mask as an alpha, see edge_seg/matte.py"},
    {"refine", matte_refine, METH_VARARGS, "Local colour models of a mask, see edge_seg/matte.py"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_matte", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__matte(void) { return module_create(&module); }
