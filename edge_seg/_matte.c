/* The matte's local colour models: for each grid node in the band, the linear function of the colour that best
 * explains the mask in the window around it. edge_seg/matte.py explains the method and holds the reference in
 * NumPy and OpenCV; both differ by rounding only.
 *
 * Fits are made on the half grid: every other node of every other row of the mask's grid. It is handled in blocks of
 * 8 nodes of one row, and blocks without a node of the band in reach are skipped. What belongs to a block lies
 * together, field by field, so that every loop has a fixed length and vectorises.
 */
#include "_buffers.h"
#include <math.h>

enum { WEIGHT, MASK, IY, IU, IV, YY, YU, YV, UU, UV, VV, MY, MU, MV, MOMENTS };
enum { GAIN_Y, GAIN_U, GAIN_V, INTERCEPT, FITS, SHARE = FITS, FIELDS };
#define BLOCK 8
#define SPAN (2 * BLOCK) /* nodes of the full grid over a block */
#define MAX_RADIUS BLOCK /* on the half grid */
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
    int passes;
    float epsilon, chroma_scale, weight_floor, low, high, sharpness, level, steepest, negligible;
} Task;

typedef struct {
    int16_t *gain[3], *offset; /* rows x cols, contiguous, in units of 1 / GAIN_ONE and 1 / ALPHA_ONE */
    uint8_t *colour[3];        /* rows x cols, contiguous */
} Result;

typedef float Moments[MOMENTS][BLOCK];

/* Rows of the half grid are padded: MAX_RADIUS + blocks * BLOCK + MAX_RADIUS, `stride` in all. */
typedef struct {
    int blocks, stride, wide; /* wide: stride of the mask, blocks * SPAN */
    float *mask;        /* 2 half_rows x wide: the mask, its ends drawn out to 0 and 1; the last row or column twice */
    float *uncertainty; /* half_rows x stride: mean of 4 p (1 - p) of four nodes, 0 beyond the grid */
    float *share;       /* half_rows x stride: how far the fit replaces the mask, 0 to 1 */
    Moments *moments;   /* (2 radius + 2) x blocks: of the newest rows, row by row modulo their number, and zeros */
    float *sums;        /* MOMENTS x stride: those rows' sums */
    float *fits;        /* (2 smoothing + 1) x FITS x stride: the newest rows of fits, likewise */
    float *fields;      /* 2 x FIELDS x stride: what comes of two rows, times the share; see `smooth` */
    float *inside;      /* stride: 1 in the grid, 0 beyond */
    float *window_part; /* stride: 1 / how many columns of the window are in the grid */
    float *smooth_part; /* stride: the same for averaging */
    uint8_t *kind;      /* half_rows x stride: what each node and its three neighbours are, 0 beyond the grid */
    uint8_t *needed;    /* half_rows x blocks: whether anyone uses what is computed for the block */
    uint8_t *learnt;    /* half_rows x blocks: whether it is in the window of such a block */
    uint8_t *fitted;    /* half_rows x blocks: whether the fit replaces the mask anywhere in the block */
} Work;

#define ROW(plane, row) ((plane)->data + (Py_ssize_t)(row) * (plane)->stride)

/* memcpy in registers of 32 bytes: what compilers make of memcpy are halves of them, for which the next load of a
 * whole one has to wait until they are in the cache. */
INLINED void copy_lanes(void *to, const void *from, size_t bytes)
{
#if defined(__GNUC__)
    typedef uint8_t Lanes __attribute__((vector_size(32)));
    for (; bytes >= sizeof(Lanes); bytes -= sizeof(Lanes)) {
        Lanes lanes;
        memcpy(&lanes, from, sizeof lanes);
        memcpy(to, &lanes, sizeof lanes);
        to = (char *)to + sizeof lanes, from = (const char *)from + sizeof lanes;
    }
#endif
    memcpy(to, from, bytes);
}

/* Of a whole block wherever it is one: its length is known then, and no call is made. */
INLINED void copy_wide(void *to, const void *from, int count, size_t size)
{
    if (count == SPAN)
        copy_lanes(to, from, SPAN * size);
    else
        memcpy(to, from, (size_t)count * size);
}

INLINED float clamp(float value, float limit)
{
    value = value < limit ? value : limit;
    return value > -limit ? value : -limit;
}

/* To fixed point, rounded to the nearest. NaN becomes 0. */
INLINED int16_t fixed(float value, float one)
{
    float scaled = value * one;
    scaled = scaled == scaled ? scaled : 0;
    scaled = scaled < -FIXED_LIMIT ? -FIXED_LIMIT : scaled;
    scaled = scaled > FIXED_LIMIT ? FIXED_LIMIT : scaled;
    return (int16_t)(int)(scaled + copysignf(0.5f, scaled));
}

/* The same for what is known to be from 0 to 1. */
INLINED int16_t fixed_alpha(float value) { return (int16_t)(int)(value * ALPHA_ONE + 0.5f); }

INLINED float drawn_out(float p, float level, float scale)
{
    float value = (p - level) * scale;
    value = value > 0 ? value : 0; /* NaN becomes 0 */
    return value < 1 ? value : 1;
}

/* Draws the mask's ends out to 0 and 1, so that what the model is sure of is sure. */
WIDE static void stretch(const Task *t, const Work *w, const Plane *mask)
{
    const float level = t->level, scale = 1 / (1 - 2 * t->level);
    for (int row = 0; row < 2 * t->half_rows; row++) {
        const float *restrict p = (const float *)ROW(mask, row < t->rows ? row : t->rows - 1);
        float *restrict to = w->mask + (Py_ssize_t)row * w->wide;
        for (int x = 0; x < t->cols; x++)
            to[x] = drawn_out(p[x], level, scale);
        if (t->cols % 2)
            to[t->cols] = to[t->cols - 1];
    }
}

enum { SOME = 1, NOT_ALL = 2, FITTED = 4 }; /* of the person; together, nothing is sure */

INLINED float least(float a, float b) { return a < b ? a : b; }
INLINED float most(float a, float b) { return a > b ? a : b; }

/* One row of the half grid: how unsure the mask is, and of what kind. */
WIDE static void survey(const Task *t, const Work *w, int row)
{
    const float *restrict above = w->mask + (Py_ssize_t)row * 2 * w->wide, *restrict below = above + w->wide;
    float *restrict uncertainty = w->uncertainty + (Py_ssize_t)row * w->stride + MAX_RADIUS;
    uint8_t *restrict kind = w->kind + (Py_ssize_t)row * w->stride + MAX_RADIUS;
    for (int x = 0; x < w->blocks * BLOCK; x++) {
        float a = above[2 * x], b = above[2 * x + 1], c = below[2 * x], d = below[2 * x + 1];
        uncertainty[x] = (a - a * a) + (b - b * b) + (c - c * c) + (d - d * d);
    }
    for (int block = 0; block < w->blocks; block++) {
        int flags[BLOCK];
        for (int i = 0; i < BLOCK; i++) {
            int x = 2 * (block * BLOCK + i);
            float high = most(most(above[x], above[x + 1]), most(below[x], below[x + 1]));
            float low = least(least(above[x], above[x + 1]), least(below[x], below[x + 1]));
            flags[i] = (high > 0 ? SOME : 0) | (low < 1 ? NOT_ALL : 0);
        }
        for (int i = 0; i < BLOCK; i++)
            kind[block * BLOCK + i] = (uint8_t)flags[i];
    }
    for (int x = t->half_cols; x < w->blocks * BLOCK; x++)
        kind[x] = 0;
}

/* How far the fit replaces the mask: from the mean uncertainty in the window. */
INLINED void share_row(const Task *t, const Work *w, int row, const int radius)
{
    int top = row - radius < 0 ? 0 : row - radius;
    int bottom = row + radius >= t->half_rows ? t->half_rows - 1 : row + radius;
    const float slope = 1 / (t->high - t->low), threshold = t->low * slope;
    const float per_row = slope / (float)(bottom - top + 1);
    float *share = w->share + (Py_ssize_t)row * w->stride + MAX_RADIUS;
    uint8_t *kind = w->kind + (Py_ssize_t)row * w->stride + MAX_RADIUS;
    for (int block = 0; block < w->blocks; block++) {
        float column[BLOCK + 2 * MAX_RADIUS] = {0}, total[BLOCK] = {0}, any = 0;
        for (int y = top; y <= bottom; y++) {
            const float *values = w->uncertainty + (Py_ssize_t)y * w->stride + MAX_RADIUS + block * BLOCK - radius;
            for (int i = 0; i < BLOCK + 2 * radius; i++)
                column[i] += values[i];
        }
        for (int d = 0; d <= 2 * radius; d++)
            for (int i = 0; i < BLOCK; i++)
                total[i] += column[i + d];
        const float *part = w->window_part + MAX_RADIUS + block * BLOCK;
        for (int i = 0; i < BLOCK; i++) {
            float value = total[i] * part[i] * per_row - threshold;
            value = value > 0 ? value : 0;
            total[i] = value < 1 ? value : 1;
        }
        for (int i = 0; i < BLOCK; i++)
            any += total[i];
        copy_lanes(share + block * BLOCK, total, sizeof total);
        w->fitted[row * w->blocks + block] = any > 0;
        for (int i = 0; any > 0 && i < BLOCK; i++)
            kind[block * BLOCK + i] |= total[i] > 0 ? FITTED : 0;
    }
}

static inline uint64_t eight(const uint8_t *at)
{
    uint64_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

/* What is blended, or fitted, or beside such a node, is wanted; and so are the fits that are averaged there, and
 * what those are learnt from. */
WIDE static void mark(const Task *t, const Work *w)
{
    const int reach = t->smoothing + 1 < BLOCK ? t->smoothing + 1 : BLOCK;
    const size_t flags = (size_t)t->half_rows * (size_t)w->blocks;
    memset(w->needed, 0, flags);
    memset(w->learnt, 0, flags);
    for (int row = 0; row < t->half_rows; row++) {
        const uint8_t *kind = w->kind + (Py_ssize_t)row * w->stride + MAX_RADIUS;
        const uint8_t *below = row + 1 < t->half_rows ? kind + w->stride : kind;
        int top = row - reach < 0 ? 0 : row - reach;
        int bottom = row + 1 + reach < t->half_rows ? row + 1 + reach : t->half_rows - 1;
        for (int block = 0; block < w->blocks; block++) {
            const uint8_t *at = kind + block * BLOCK, *under = below + block * BLOCK;
            uint64_t any = eight(at) | eight(at - reach) | eight(at + reach);
            any |= eight(under) | eight(under - reach) | eight(under + reach);
            any |= any >> 32;
            any |= any >> 16;
            any = (any | any >> 8) & 255;
            if (any == SOME || any == NOT_ALL) /* all person, or all room */
                continue;
            for (int y = top; y <= bottom; y++)
                w->needed[y * w->blocks + block] = 1;
        }
    }
    for (int row = 0; row < t->half_rows; row++) {
        int top = row - t->radius < 0 ? 0 : row - t->radius;
        int bottom = row + t->radius < t->half_rows ? row + t->radius : t->half_rows - 1;
        for (int block = 0; block < w->blocks; block++) {
            if (!w->needed[row * w->blocks + block])
                continue;
            int first = block > 0 ? block - 1 : 0, last = block + 1 < w->blocks ? block + 1 : block;
            for (int y = top; y <= bottom; y++)
                for (int b = first; b <= last; b++)
                    w->learnt[y * w->blocks + b] = 1;
        }
    }
}

/* The moments of one row. Colours are centred, so that variances do not drown in rounding. */
WIDE static void learn_row(const Task *t, const Work *w, const Plane *colours, int row)
{
    const float floor = t->weight_floor, chroma = t->chroma_scale / 255.0f;
    const float *mask = w->mask + (Py_ssize_t)row * 2 * w->wide;
    Moments *moments = w->moments + row % (2 * t->radius + 1) * w->blocks;
    for (int block = 0; block < w->blocks; block++) {
        if (!w->learnt[row * w->blocks + block])
            continue;
        int start = block * SPAN, count = t->cols - start < SPAN ? t->cols - start : SPAN;
        float guide[3][BLOCK];
        for (int k = 0; k < 3; k++) {
            const uint8_t *from = ROW(&colours[k], 2 * row) + start;
            uint16_t pairs[BLOCK] = {0};
            copy_wide(pairs, from, count, 1);
            const float scale = k ? chroma : 1 / 255.0f;
            for (int i = 0; i < BLOCK; i++)
                guide[k][i] = (float)(FIRST_OF(pairs[i]) - 128) * scale;
        }
        const float *restrict p = mask + start, *restrict inside = w->inside + MAX_RADIUS + block * BLOCK;
        float(*restrict term)[BLOCK] = moments[block];
        for (int i = 0; i < BLOCK; i++) {
            float m = p[2 * i], weight = (fabsf(2 * m - 1) + floor) * inside[i];
            float a = guide[0][i], b = guide[1][i], c = guide[2][i];
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
}

/* Solves (covariance + epsilon) gain = covariance with the mask, by Cramer's rule, for a block of nodes. */
INLINED void solve(const Task *t, const Moments sum, float *fits, int stride)
{
    float fit[FITS][BLOCK];
    const float epsilon = t->epsilon, steepest = t->steepest;
    /* The smallest that a determinant can be is epsilon cubed; rounding may say less. */
    const float smallest = epsilon * epsilon * epsilon;
    for (int i = 0; i < BLOCK; i++) {
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
INLINED void foreground(const Task *t, const Moments sum, const Result *r, int row, int block)
{
    int start = block * SPAN, count = t->cols - start < SPAN ? t->cols - start : SPAN;
    float person_part[BLOCK], room_part[BLOCK];
    for (int i = 0; i < BLOCK; i++) {
        /* A little of everything in both means: they stay defined where there is no person, or no room. */
        float little = sum[WEIGHT][i] * 0.02f + 1e-6f;
        person_part[i] = 1 / (sum[MASK][i] + little);
        room_part[i] = 1 / (sum[WEIGHT][i] - sum[MASK][i] + little);
    }
    for (int k = 0; k < 3; k++) {
        const float scale = k ? 255 / t->chroma_scale : 255;
        int value[BLOCK];
        uint8_t code[SPAN];
        for (int i = 0; i < BLOCK; i++) {
            float all = sum[IY + k][i], person = sum[MY + k][i];
            float front = (person + 0.02f * all) * person_part[i], back = (1.02f * all - person) * room_part[i];
            float colour = (front + 0.5f * (front - back)) * scale + 128.5f;
            value[i] = (int)most(least(colour, 240), 16);
        }
        for (int i = 0; i < BLOCK; i++)
            code[2 * i] = code[2 * i + 1] = (uint8_t)value[i];
        uint8_t *colour = r->colour[k] + (Py_ssize_t)2 * row * t->cols + start;
        copy_wide(colour, code, count, 1);
        if (2 * row + 1 < t->rows)
            copy_wide(colour + t->cols, code, count, 1);
    }
}

/* The fits of one row, from the sums over the window. */
INLINED void fit_row(const Task *t, const Work *w, int row, const Result *r, const int radius)
{
    const int kept = 2 * radius + 1;
    const uint8_t *needed = w->needed + (Py_ssize_t)row * w->blocks;
    float *fits = w->fits + row % (2 * t->smoothing + 1) * FITS * w->stride;
    const Moments *rows[2 * MAX_RADIUS + 1];
    for (int y = 0; y < kept; y++) {
        int at = row - radius + y;
        rows[y] = w->moments + (at < 0 || at >= t->half_rows ? kept : at % kept) * w->blocks;
    }
    memset(fits, 0, sizeof(float) * FITS * (size_t)w->stride);
    for (int block = 0; block < w->blocks; block++) {
        if (!(needed[block] || (block > 0 && needed[block - 1]) || (block + 1 < w->blocks && needed[block + 1])))
            continue;
        for (int k = 0; k < MOMENTS; k++) {
            float total[BLOCK] = {0};
            for (int y = 0; y < kept; y++)
                for (int i = 0; i < BLOCK; i++)
                    total[i] += rows[y][block][k][i];
            copy_lanes(w->sums + k * w->stride + MAX_RADIUS + block * BLOCK, total, sizeof total);
        }
    }
    for (int block = 0; block < w->blocks; block++) {
        if (!needed[block])
            continue;
        Moments sum;
        for (int k = 0; k < MOMENTS; k++) {
            const float *column = w->sums + k * w->stride + MAX_RADIUS + block * BLOCK;
            float total[BLOCK] = {0};
            for (int d = -radius; d <= radius; d++)
                for (int i = 0; i < BLOCK; i++)
                    total[i] += column[i + d];
            copy_lanes(sum[k], total, sizeof total);
        }
        solve(t, sum, fits + MAX_RADIUS + block * BLOCK, w->stride);
        foreground(t, sum, r, row, block);
    }
    for (int k = 0; k < FITS; k++) /* averaging counts what is in the grid only */
        for (int x = MAX_RADIUS + t->half_cols; x < MAX_RADIUS + w->blocks * BLOCK; x++)
            fits[k * w->stride + x] = 0;
}

/* Averages the fits of neighbours, sharpens the result about one half, and weighs it with the share:
 * alpha = gain . colour + intercept + (1 - share) * mask. */
INLINED void smooth_row(const Task *t, const Work *w, int row, const int reach)
{
    const int kept = 2 * reach + 1;
    int top = row - reach < 0 ? 0 : row - reach, bottom = row + reach >= t->half_rows ? t->half_rows - 1 : row + reach;
    const float per_row = 1 / (float)(bottom - top + 1), sharpness = t->sharpness;
    float *fields = w->fields + row % 2 * FIELDS * w->stride + MAX_RADIUS;
    const float *share = w->share + (Py_ssize_t)row * w->stride + MAX_RADIUS;
    for (int block = 0; block < w->blocks; block++) {
        float *to = fields + block * BLOCK;
        if (!w->fitted[row * w->blocks + block]) {
            for (int k = 0; k < FIELDS; k++)
                memset(to + k * w->stride, 0, sizeof(float) * BLOCK);
            continue;
        }
        float part[BLOCK], steep[BLOCK];
        for (int i = 0; i < BLOCK; i++) {
            part[i] = share[block * BLOCK + i];
            steep[i] = w->smooth_part[MAX_RADIUS + block * BLOCK + i] * per_row * part[i] * sharpness;
        }
        for (int k = 0; k < FITS; k++) {
            float column[BLOCK + 2 * MAX_RADIUS] = {0}, total[BLOCK] = {0};
            for (int y = top; y <= bottom; y++) {
                const float *fits = w->fits + (y % kept * FITS + k) * w->stride + MAX_RADIUS + block * BLOCK - reach;
                for (int i = 0; i < BLOCK + 2 * reach; i++)
                    column[i] += fits[i];
            }
            for (int d = 0; d <= 2 * reach; d++)
                for (int i = 0; i < BLOCK; i++)
                    total[i] += column[i + d];
            const float scale = k == GAIN_U || k == GAIN_V ? t->chroma_scale : 1;
            const float middle = k == INTERCEPT ? 0.5f - 0.5f * sharpness : 0;
            for (int i = 0; i < BLOCK; i++)
                total[i] = total[i] * steep[i] * scale + middle * part[i];
            copy_lanes(to + k * w->stride, total, sizeof total);
        }
        copy_lanes(to + SHARE * w->stride, part, sizeof part);
    }
    for (int k = 0; k < FIELDS; k++) /* the last node stands for what is beyond it */
        fields[k * w->stride + t->half_cols] = fields[k * w->stride + t->half_cols - 1];
}

/* From the half grid to one row of the full one, odd rows and columns between two nodes; and what alpha is at the
 * nodes then, into the mask. */
WIDE static void expand_row(const Task *t, const Work *w, const Plane *colours, const Result *r, int row)
{
    const int upper = row / 2, lower = row % 2 && upper + 1 < t->half_rows ? upper + 1 : upper;
    const float *from[2] = {w->fields + upper % 2 * FIELDS * w->stride + MAX_RADIUS,
                            w->fields + lower % 2 * FIELDS * w->stride + MAX_RADIUS};
    for (int block = 0; block < w->blocks; block++) {
        const uint8_t *near[2] = {w->fitted + upper * w->blocks, w->fitted + lower * w->blocks};
        int next = block + 1 < w->blocks ? block + 1 : block;
        if (!(near[0][block] | near[1][block] | near[0][next] | near[1][next]))
            continue;
        int start = block * SPAN, count = t->cols - start < SPAN ? t->cols - start : SPAN;
        Py_ssize_t at = (Py_ssize_t)row * t->cols + start;
        float field[FIELDS][SPAN], alpha[SPAN];
        for (int k = 0; k < FIELDS; k++) {
            const float *a = from[0] + k * w->stride + block * BLOCK, *b = from[1] + k * w->stride + block * BLOCK;
            float here[BLOCK], beside[BLOCK];
            for (int i = 0; i < BLOCK; i++) {
                here[i] = 0.5f * (a[i] + b[i]);
                beside[i] = 0.25f * (a[i] + b[i] + a[i + 1] + b[i + 1]);
            }
            for (int i = 0; i < BLOCK; i++) {
                field[k][2 * i] = here[i];
                field[k][2 * i + 1] = beside[i];
            }
        }
        uint8_t code[3][SPAN] = {{0}};
        for (int k = 0; k < 3; k++)
            copy_wide(code[k], ROW(&colours[k], row) + start, count, 1);
        float *mask = w->mask + (Py_ssize_t)row * w->wide + start;
        copy_lanes(alpha, mask, sizeof alpha);
        for (int i = 0; i < SPAN; i++) {
            float offset = field[INTERCEPT][i] + (1 - field[SHARE][i]) * alpha[i];
            float fit = field[GAIN_Y][i] * (float)(code[0][i] - 128) + field[GAIN_U][i] * (float)(code[1][i] - 128) +
                        field[GAIN_V][i] * (float)(code[2][i] - 128);
            field[INTERCEPT][i] = offset;
            alpha[i] = most(least(offset + fit * (1 / 255.0f), 1), 0);
        }
        copy_lanes(mask, alpha, sizeof alpha);
        for (int k = 0; k < FITS; k++) {
            const float one = k < 3 ? GAIN_ONE : ALPHA_ONE;
            int16_t value[SPAN];
            for (int i = 0; i < SPAN; i++)
                value[i] = fixed(field[k][i], one);
            copy_wide((k < 3 ? r->gain[k] : r->offset) + at, value, count, sizeof(int16_t));
        }
    }
}

/* The default radii have loops of their own, unrolled. */
WIDE static void share(const Task *t, const Work *w, int row)
{
    if (t->radius == 2)
        share_row(t, w, row, 2);
    else
        share_row(t, w, row, t->radius);
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

static void one_pass(const Task *t, const Work *w, const Plane *colours, const Result *r)
{
    for (int k = 0; k < 3; k++)
        memset(r->gain[k], 0, sizeof(int16_t) * (size_t)t->rows * (size_t)t->cols);
    for (int row = 0; row < t->rows; row++) {
        const float *restrict mask = w->mask + (Py_ssize_t)row * w->wide;
        int16_t *restrict offset = r->offset + (Py_ssize_t)row * t->cols;
        for (int x = 0; x < t->cols; x++)
            offset[x] = fixed_alpha(mask[x]);
    }
    for (int row = 0; row < t->half_rows; row++)
        survey(t, w, row);
    for (int row = 0; row < t->half_rows; row++)
        share(t, w, row);
    mark(t, w);
    for (int row = 0; row < t->radius && row < t->half_rows; row++)
        learn_row(t, w, colours, row);
    /* A row of fits, the row that can be averaged then, and the rows of the full grid that can be filled in then.
     * The mask is overwritten behind what is still learnt from. */
    for (int row = 0; row <= t->half_rows + t->smoothing; row++) {
        int averaged = row - t->smoothing, filled = averaged - 1;
        if (row + t->radius < t->half_rows)
            learn_row(t, w, colours, row + t->radius);
        if (row < t->half_rows)
            fit(t, w, row, r);
        if (averaged >= 0 && averaged < t->half_rows)
            smooth(t, w, averaged);
        for (int fine = 2 * filled; filled >= 0 && fine <= 2 * filled + 1; fine++)
            if (fine < t->rows)
                expand_row(t, w, colours, r, fine);
    }
}

/* Nodes around which the fit says next to nothing, or next to everything, everywhere: they say just that, and need
 * not be blended. */
WIDE static void settle(const Task *t, const Work *w, const Result *r)
{
    const float none = t->negligible, all = 1 - t->negligible;
    for (int row = 0; row < t->rows; row++) {
        const float *here = w->mask + (Py_ssize_t)row * w->wide;
        const float *above = row > 0 ? here - w->wide : here, *below = row + 1 < t->rows ? here + w->wide : here;
        for (int block = 0; block < w->blocks; block++) {
            if (!w->needed[row / 2 * w->blocks + block])
                continue;
            int start = block * SPAN, count = t->cols - start < SPAN ? t->cols - start : SPAN;
            const float *lines[3] = {above + start, here + start, below + start};
            float rim[3][SPAN + 2];
            int32_t nothing[SPAN], everything[SPAN], settled = 0;
            if (start == 0 || start + SPAN >= t->cols) /* the outermost nodes stand for what is beyond them */
                for (int k = 0; k < 3; k++) {
                    for (int i = -1; i <= SPAN; i++) {
                        int x = start + i < 0 ? 0 : start + i < t->cols ? start + i : t->cols - 1;
                        rim[k][i + 1] = lines[k][x - start];
                    }
                    lines[k] = rim[k] + 1;
                }
            const float *restrict a = lines[0], *restrict b = lines[1], *restrict c = lines[2];
            for (int i = 0; i < SPAN; i++) {
                float low = least(least(a[i - 1], a[i]), a[i + 1]), high = most(most(a[i - 1], a[i]), a[i + 1]);
                low = least(least(least(b[i - 1], b[i]), b[i + 1]), low), high = most(most(most(b[i - 1], b[i]), b[i + 1]), high);
                low = least(least(least(c[i - 1], c[i]), c[i + 1]), low), high = most(most(most(c[i - 1], c[i]), c[i + 1]), high);
                nothing[i] = high < none ? -1 : 0;
                everything[i] = low > all ? -1 : 0;
            }
            for (int i = 0; i < SPAN; i++)
                settled |= nothing[i] | everything[i];
            if (!settled)
                continue;
            Py_ssize_t at = (Py_ssize_t)row * t->cols + start;
            int16_t kept[SPAN] = {0}, sure[SPAN], unsure[SPAN];
            for (int i = 0; i < SPAN; i++) {
                sure[i] = (int16_t)(everything[i] & ALPHA_ONE);
                unsure[i] = (int16_t)~(nothing[i] | everything[i]);
            }
            for (int k = 0; k < FITS; k++) {
                int16_t *plane = (k < 3 ? r->gain[k] : r->offset) + at;
                copy_wide(kept, plane, count, sizeof(int16_t));
                for (int i = 0; i < SPAN; i++)
                    kept[i] = (int16_t)((kept[i] & unsure[i]) | (k < 3 ? 0 : sure[i]));
                copy_wide(plane, kept, count, sizeof(int16_t));
            }
        }
    }
}

static void refine(const Task *t, const Work *w, const Plane *mask, const Plane *colours, const Result *r)
{
    stretch(t, w, mask);
    for (int pass = 0; pass < t->passes; pass++) {
        if (pass > 0 && t->rows % 2)
            memcpy(w->mask + (Py_ssize_t)t->rows * w->wide, w->mask + (Py_ssize_t)(t->rows - 1) * w->wide,
                   sizeof(float) * (size_t)w->wide);
        for (int row = 0; pass > 0 && t->cols % 2 && row < 2 * t->half_rows; row++)
            w->mask[(Py_ssize_t)row * w->wide + t->cols] = w->mask[(Py_ssize_t)row * w->wide + t->cols - 1];
        one_pass(t, w, colours, r);
    }
    settle(t, w, r);
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
    *free_memory += (bytes + 15) & ~(size_t)15;
    return start;
}

static void *work_create(Work *w, const Task *t)
{
    w->blocks = (t->half_cols + BLOCK - 1) / BLOCK;
    w->stride = w->blocks * BLOCK + 2 * MAX_RADIUS;
    w->wide = w->blocks * SPAN;
    const size_t rows = (size_t)t->half_rows, stride = (size_t)w->stride, blocks = (size_t)w->blocks;
    const size_t kept = 2 * (size_t)t->radius + 2, averaged = 2 * (size_t)t->smoothing + 1;
    const size_t floats = 2 * rows * (size_t)w->wide + 2 * rows * stride +
                          stride * (MOMENTS + averaged * FITS + 2 * FIELDS + 3);
    char *memory = PyMem_Malloc(sizeof(float) * floats + sizeof(Moments) * kept * blocks + rows * (stride + 3 * blocks) +
                                       16 * 16), *cursor = memory;
    if (memory == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    w->mask = carve(&cursor, sizeof(float) * 2 * rows * (size_t)w->wide);
    w->share = carve(&cursor, sizeof(float) * rows * stride);
    char *zeros = cursor; /* of what is read beyond the grid, or before it is written */
    w->uncertainty = carve(&cursor, sizeof(float) * rows * stride);
    w->moments = carve(&cursor, sizeof(Moments) * kept * blocks);
    w->sums = carve(&cursor, sizeof(float) * MOMENTS * stride);
    w->fits = carve(&cursor, sizeof(float) * averaged * FITS * stride);
    w->fields = carve(&cursor, sizeof(float) * 2 * FIELDS * stride);
    w->inside = carve(&cursor, sizeof(float) * stride);
    w->window_part = carve(&cursor, sizeof(float) * stride);
    w->smooth_part = carve(&cursor, sizeof(float) * stride);
    w->kind = carve(&cursor, rows * stride);
    w->needed = carve(&cursor, rows * blocks);
    w->learnt = carve(&cursor, rows * blocks);
    w->fitted = carve(&cursor, rows * blocks);
    memset(zeros, 0, (size_t)(cursor - zeros));
    for (size_t row = 0; t->cols < w->wide && row < 2 * rows; row++)
        memset(w->mask + row * (size_t)w->wide + t->cols, 0, sizeof(float) * (size_t)(w->wide - t->cols));
    const int reach[2] = {t->radius, t->smoothing}, last = t->half_cols - 1;
    for (int x = 0; x <= last; x++) {
        w->inside[MAX_RADIUS + x] = 1;
        for (int k = 0; k < 2; k++) {
            int left = x < reach[k] ? 0 : x - reach[k], right = x + reach[k] < last ? x + reach[k] : last;
            (k ? w->smooth_part : w->window_part)[MAX_RADIUS + x] = 1 / (float)(right - left + 1);
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
    Task t;
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
        !(t.low < t.high) || !(t.weight_floor > 0) || !(t.chroma_scale > 0) || !(t.steepest > 0) || !(t.negligible < 0.5f) || !(t.level >= 0 && t.level < 0.5f)) {
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
    {"draw_out", matte_draw_out, METH_VARARGS, "draw_out(mask, offset, level): a mask as an alpha, see edge_seg/matte.py"},
    {"refine", matte_refine, METH_VARARGS, "Local colour models of a mask, see edge_seg/matte.py"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_matte", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__matte(void) { return module_create(&module); }
