/* Carrying a mask along block flow, and its Kalman update: edge_seg/fusion_reference.py says what is computed.
 *
 * Nearly all of a mask is surely person or surely background and moves nowhere. So the grid is cut into tiles;
 * where a tile's sources are all alike it is copied, and the costly part (bilinear samples, windows of alike
 * colour) is for the other tiles and what their windows reach only. Samples are fetched in patches that have one
 * vector each: one place and one fraction for all of their elements.
 */
#include "_buffers.h"
#include <math.h>
#include <stdlib.h>

#define TILE 4
#define PATCH 4              /* side of the parts of large blocks that are fetched at once */
#define CELL 4               /* side of the cells whose extremes of the mask are kept */
#define RADIUS 2             /* of the window when a mask is carried */
#define REACH 4              /* of the window when it is smoothed */
#define STRIP 8               /* elements that are computed at once: no loop ends with single ones */
#define SURE (1.0f / 16)      /* masks that differ by less are alike */
#define CALM (1.0f / 32)      /* masks that differ by less, over 3x3, are not smoothed */
#define SELF 1e-3f            /* what an element counts for itself at least */
/* How the background is learned, and what differing from it says: fusion_reference.py. */
#define PLATE_REACH 2
#define PLATE_EMPTY 0.25f
#define PLATE_SAME 200.0f
#define PLATE_SEEN 30
#define PLATE_KNOWN 10
#define PLATE_LOSS 2
#define PLATE_EDGE 0.32f
#define PLATE_NOISE 200.0f
#define PLATE_DOUBT 3
#define PLATE_MEMORY 0.9
#define PLATE_MOST 50.0f
#define PLATE_LEAST 0.07f
#define PRIOR 500
#define LEVEL (1.0f / 256)
enum { OCCUPIED, OTHER, SAME };   /* what was seen of an element's background: nothing, another colour, the same */

#define UNSEEN 0.05f         /* variance for each squared pixel that a source lies outside the picture */
#define FAR 4096.0f           /* no vector is longer: keeps coordinates within int */
#define SIDE_MAX 8192
#define SPAN_TILES 32
#define BUFFER (SPAN_TILES * TILE + STRIP)

static inline int clamp(int v, int lo, int hi) { return v < lo ? lo : v > hi ? hi : v; }
static inline float limit(float v, float lo, float hi) { v = v > lo ? v : lo; return v < hi ? v : hi; } /* NaN: lo */
static inline int floor_of(float v) { int i = (int)v; return i - ((float)i > v); }
static inline int least(int a, int b) { return a < b ? a : b; }

static inline const unsigned char *bytes_at(const Plane *p, int y) { return p->data + y * p->stride; }
static inline float *floats_at(const Plane *p, int y) { return (float *)(void *)(p->data + y * p->stride); }

/* How a difference of colour counts: alike = max(0, 1 - luma dy^2 - chroma (du^2 + dv^2))^2. */
typedef struct { float luma, chroma; } Scales;

/* Rows around one row of elements, and how far it is from one of them to the next. */
typedef struct { const float *y, *u, *v, *values; Py_ssize_t stride; } Window;

/* For `n` elements, rounded up to whole strips: the mean over the window around each of the values whose colour is
 * like its own. All rows must have STRIP elements more than are wanted; what they hold does not matter. */
#define MEAN_OF_ALIKE(name, WINDOW) \
WIDE static void name(const float *restrict y, const float *restrict u, const float *restrict v, Window window, int n, \
                      Scales scales, float *restrict out) \
{ \
    const Py_ssize_t s = window.stride, count = (n + STRIP - 1) / STRIP * STRIP; \
    const float *restrict wy = window.y, *restrict wu = window.u, *restrict wv = window.v, *restrict p = window.values; \
    const float luma = scales.luma, chroma = scales.chroma; \
    if (chroma > 0) \
        for (Py_ssize_t x = 0; x < count; x++) { \
            float t = SELF * p[x], w = SELF; \
            WINDOW(COLOUR_TAP) \
            out[x] = t / w; \
        } \
    else \
        for (Py_ssize_t x = 0; x < count; x++) { \
            float t = SELF * p[x], w = SELF; \
            WINDOW(TAP) \
            out[x] = t / w; \
        } \
}
#define TAP(dy, dx, share) { \
        const Py_ssize_t k = (dy) * s + (dx); \
        float d = y[x] - wy[x + k]; \
        float a = 1.0f - d * d * luma; \
        a = a > 0.0f ? a : 0.0f; \
        a = a * a * (share); \
        t += a * p[x + k]; \
        w += a; }
#define COLOUR_TAP(dy, dx, share) { \
        const Py_ssize_t k = (dy) * s + (dx); \
        float d = y[x] - wy[x + k], e = u[x] - wu[x + k], f = v[x] - wv[x + k]; \
        float a = 1.0f - d * d * luma - (e * e + f * f) * chroma; \
        a = a > 0.0f ? a : 0.0f; \
        a = a * a * (share); \
        t += a * p[x + k]; \
        w += a; }

/* The diamond around a carried element: its 13 elements give what the 25 of the square gave. */
#define NEAR (16.0f / 256)
#define TIP (8.0f / 256)
#define DIAMOND(TAP) \
    TAP(-2, 0, TIP) \
    TAP(-1, -1, NEAR) TAP(-1, 0, NEAR) TAP(-1, 1, NEAR) \
    TAP(0, -2, TIP) TAP(0, -1, NEAR) TAP(0, 0, NEAR) TAP(0, 1, NEAR) TAP(0, 2, TIP) \
    TAP(1, -1, NEAR) TAP(1, 0, NEAR) TAP(1, 1, NEAR) \
    TAP(2, 0, TIP)

/* As many elements, scattered over 9x9: sees twice as far: the model errs in
 * blobs, not in single elements. */
#define SCATTER(TAP) \
    TAP(-4, -1, NEAR) TAP(-3, -3, NEAR) TAP(-3, 3, NEAR) TAP(-2, 1, NEAR) TAP(-1, -2, NEAR) TAP(-1, 4, NEAR) \
    TAP(0, 0, NEAR) \
    TAP(1, -4, NEAR) TAP(1, 2, NEAR) TAP(2, -1, NEAR) TAP(3, -3, NEAR) TAP(3, 3, NEAR) TAP(4, 1, NEAR)

MEAN_OF_ALIKE(mean_near, DIAMOND)
MEAN_OF_ALIKE(mean_around, SCATTER)

typedef struct {
    Plane previous, current, vectors, residual, probability, variance, out_probability, out_variance;
    Plane previous_u, previous_v, current_u, current_v;   /* the lumas again where there is no chroma */
    int block;
    Scales scales;
    float exact, drift, misfit;
    /* The grid in patches of one vector each: blocks, or parts of blocks of PATCH pixels. */
    int patch, patch_rows, patch_cols, tile_rows, tile_cols;
    /* scratch */
    int *block_of, *patch_of;   /* in which block and patch a row or column is: dividing is slow */
    float *flow;            /* the vectors, finite and bounded */
    float *low, *high;      /* extremes of each cell of the mask */
    float *least, *most;    /* extremes of what each patch can fetch */
    float *across;          /* the same for a row of tiles, two rows of patches */
    unsigned char *busy;    /* whether each tile can fetch what differs */
    unsigned char *needed;  /* whether such a tile reads from a patch */
    /* What patches fetch, as the elements (0, 0) of pictures with a rim of RADIUS. */
    float *y, *u, *v, *moved, *grown, *difference;
    Py_ssize_t stride;
} Carry;

WIDE static void cell_extremes(const Plane *mask, int cell_rows, int cell_cols, float *low, float *high)
{
    int rows = (int)mask->rows, cols = (int)mask->cols, whole = cols / CELL;
    for (int cy = 0; cy < cell_rows; cy++) {
        float *restrict a = low + (Py_ssize_t)cy * cell_cols, *restrict b = high + (Py_ssize_t)cy * cell_cols;
        int y1 = least((cy + 1) * CELL, rows);
        for (int cx = 0; cx < cell_cols; cx++)
            a[cx] = b[cx] = floats_at(mask, cy * CELL)[cx * CELL];
        for (int y = cy * CELL; y < y1; y++) {
            const float *restrict row = floats_at(mask, y);
            for (int cx = 0; cx < whole; cx++) {
                float p = row[CELL * cx], q = row[CELL * cx + 1], r = row[CELL * cx + 2], t = row[CELL * cx + 3];
                float pq0 = p < q ? p : q, pq1 = p < q ? q : p, rt0 = r < t ? r : t, rt1 = r < t ? t : r;
                float least4 = pq0 < rt0 ? pq0 : rt0, most4 = pq1 > rt1 ? pq1 : rt1;
                a[cx] = least4 < a[cx] ? least4 : a[cx];
                b[cx] = most4 > b[cx] ? most4 : b[cx];
            }
            for (int x = whole * CELL; x < cols; x++) {
                a[whole] = row[x] < a[whole] ? row[x] : a[whole];
                b[whole] = row[x] > b[whole] ? row[x] : b[whole];
            }
        }
    }
}

static inline const float *vector_at(const Carry *c, int y, int x)
{
    return c->flow + c->block_of[y] * c->vectors.cols + 2 * c->block_of[x];
}

/* The extremes of the cells that each patch can fetch from. */
static void patch_extremes(const Carry *c)
{
    int rows = (int)c->current.rows, cols = (int)c->current.cols, cell_cols = (cols + CELL - 1) / CELL;
    for (int py = 0; py < c->patch_rows; py++)
        for (int px = 0; px < c->patch_cols; px++) {
            int y0 = py * c->patch, x0 = px * c->patch, y1 = least(y0 + c->patch, rows), x1 = least(x0 + c->patch, cols);
            const float *v = vector_at(c, y0, x0);
            int dx = floor_of(v[0]), dy = floor_of(v[1]);
            int cy0 = clamp(y0 + dy, 0, rows - 1) / CELL, cy1 = clamp(y1 + dy, 0, rows - 1) / CELL;
            int cx0 = clamp(x0 + dx, 0, cols - 1) / CELL, cx1 = clamp(x1 + dx, 0, cols - 1) / CELL;
            float low = c->low[cy0 * cell_cols + cx0], high = c->high[cy0 * cell_cols + cx0];
            for (int y = cy0; y <= cy1; y++)
                for (int x = cx0; x <= cx1; x++) {
                    float a = c->low[y * cell_cols + x], b = c->high[y * cell_cols + x];
                    low = a < low ? a : low;
                    high = b > high ? b : high;
                }
            c->least[py * c->patch_cols + px] = low;
            c->most[py * c->patch_cols + px] = high;
        }
}

/* The patches that windows of tile number `tile` reach into. */
static inline void patches_near(const int *patch_of, int tile, int side, int *first, int *last)
{
    int from = tile * TILE - RADIUS, to = (tile + 1) * TILE - 1 + RADIUS;
    *first = patch_of[from > 0 ? from : 0];
    *last = patch_of[least(to, side - 1)];
}

/* Marks the tiles whose windows can reach what differs, and the patches they reach. */
static void tiles_mark(const Carry *c)
{
    int rows = (int)c->current.rows, cols = (int)c->current.cols;
    float *restrict low = c->across, *restrict high = c->across + c->patch_cols;
    memset(c->needed, 0, (size_t)c->patch_rows * (size_t)c->patch_cols);
    for (int ty = 0; ty < c->tile_rows; ty++) {
        int top, bottom;
        patches_near(c->patch_of, ty, rows, &top, &bottom);
        memcpy(low, c->least + (Py_ssize_t)top * c->patch_cols, sizeof(float) * (size_t)c->patch_cols);
        memcpy(high, c->most + (Py_ssize_t)top * c->patch_cols, sizeof(float) * (size_t)c->patch_cols);
        for (int py = top + 1; py <= bottom; py++) {
            const float *restrict a = c->least + (Py_ssize_t)py * c->patch_cols, *restrict b = c->most + (Py_ssize_t)py * c->patch_cols;
            for (int px = 0; px < c->patch_cols; px++) {
                low[px] = a[px] < low[px] ? a[px] : low[px];
                high[px] = b[px] > high[px] ? b[px] : high[px];
            }
        }
        for (int tx = 0; tx < c->tile_cols; tx++) {
            int left, right;
            patches_near(c->patch_of, tx, cols, &left, &right);
            float a = low[left], b = high[left];
            for (int px = left + 1; px <= right; px++) {
                a = low[px] < a ? low[px] : a;
                b = high[px] > b ? high[px] : b;
            }
            c->busy[ty * c->tile_cols + tx] = b - a > SURE;
            if (b - a > SURE)
                for (int py = top; py <= bottom; py++)
                    memset(c->needed + (Py_ssize_t)py * c->patch_cols + left, 1, (size_t)(right - left + 1));
        }
    }
}

/* What a patch of PATCH x PATCH fetches from a place inside the picture. */
#define FETCH(name, type) \
static inline void name(const type *restrict p, Py_ssize_t stride, float fx, float fy, float *restrict out, Py_ssize_t out_stride) \
{ \
    float above[PATCH]; \
    for (int i = 0; i < PATCH; i++) \
        above[i] = (float)p[i] + fx * ((float)p[i + 1] - (float)p[i]); \
    for (int j = 0; j < PATCH; j++) { \
        float below[PATCH]; \
        p += stride; \
        for (int i = 0; i < PATCH; i++) { \
            below[i] = (float)p[i] + fx * ((float)p[i + 1] - (float)p[i]); \
            out[i] = above[i] + fy * (below[i] - above[i]); \
            above[i] = below[i]; \
        } \
        out += out_stride; \
    } \
}
FETCH(fetch_bytes, unsigned char)
FETCH(fetch_floats, float)

typedef struct { int left, top, right, down; float x_weight, y_weight; } Place;

static inline float mixed(Place at, float a, float b, float d, float e)
{
    float t = a + at.x_weight * (b - a), u = d + at.x_weight * (e - d);
    return t + at.y_weight * (u - t);
}

static inline float byte_at(const Plane *plane, Place at)
{
    const unsigned char *p = bytes_at(plane, at.top), *q = bytes_at(plane, at.down);
    return mixed(at, (float)p[at.left], (float)p[at.right], (float)q[at.left], (float)q[at.right]);
}

static inline float float_at(const Plane *plane, Place at)
{
    const float *p = floats_at(plane, at.top), *q = floats_at(plane, at.down);
    return mixed(at, p[at.left], p[at.right], q[at.left], q[at.right]);
}

/* A patch of any size, from any place. */
static void patch_fetch_slowly(const Carry *c, int y0, int x0, int y1, int x1, const float *v)
{
    int rows = (int)c->current.rows, cols = (int)c->current.cols;
    for (int y = y0; y < y1; y++)
        for (int x = x0; x < x1; x++) {
            float from_x = (float)x + v[0], from_y = (float)y + v[1];
            float sx = limit(from_x, 0, (float)(cols - 1)), sy = limit(from_y, 0, (float)(rows - 1));
            float outside = fabsf(from_x - sx) + fabsf(from_y - sy);
            Place at = {.left = (int)sx, .top = (int)sy};
            at.right = least(at.left + 1, cols - 1);
            at.down = least(at.top + 1, rows - 1);
            at.x_weight = sx - (float)at.left;
            at.y_weight = sy - (float)at.top;
            Py_ssize_t k = y * c->stride + x;
            c->y[k] = byte_at(&c->previous, at);
            if (c->scales.chroma > 0) {
                c->u[k] = byte_at(&c->previous_u, at);
                c->v[k] = byte_at(&c->previous_v, at);
            }
            c->moved[k] = float_at(&c->probability, at);
            c->grown[k] = float_at(&c->variance, at) + UNSEEN * outside * outside;
        }
}

WIDE static void patches_fetch(const Carry *c)
{
    int rows = (int)c->current.rows, cols = (int)c->current.cols;
    for (int py = 0; py < c->patch_rows; py++)
        for (int px = 0; px < c->patch_cols; px++) {
            if (!c->needed[py * c->patch_cols + px])
                continue;
            int y0 = py * c->patch, x0 = px * c->patch, y1 = least(y0 + c->patch, rows), x1 = least(x0 + c->patch, cols);
            const float *v = vector_at(c, y0, x0);
            int floor_x = floor_of(v[0]), floor_y = floor_of(v[1]), left = x0 + floor_x, top = y0 + floor_y;
            Py_ssize_t k = y0 * c->stride + x0;
            if (c->patch == PATCH && y1 - y0 == PATCH && x1 - x0 == PATCH && left >= 0 && top >= 0 && left + PATCH < cols &&
                top + PATCH < rows) {
                float fx = v[0] - (float)floor_x, fy = v[1] - (float)floor_y;
                fetch_bytes(bytes_at(&c->previous, top) + left, c->previous.stride, fx, fy, c->y + k, c->stride);
                if (c->scales.chroma > 0) {
                    fetch_bytes(bytes_at(&c->previous_u, top) + left, c->previous_u.stride, fx, fy, c->u + k, c->stride);
                    fetch_bytes(bytes_at(&c->previous_v, top) + left, c->previous_v.stride, fx, fy, c->v + k, c->stride);
                }
                fetch_floats(floats_at(&c->probability, top) + left, c->probability.stride / (Py_ssize_t)sizeof(float), fx, fy, c->moved + k, c->stride);
                fetch_floats(floats_at(&c->variance, top) + left, c->variance.stride / (Py_ssize_t)sizeof(float), fx, fy, c->grown + k, c->stride);
                for (int j = 0; j < PATCH; j++) {
                    const unsigned char *restrict own = bytes_at(&c->current, y0 + j) + x0;
                    const float *restrict from = c->y + k + j * c->stride;
                    float *restrict difference = c->difference + k + j * c->stride;
                    for (int i = 0; i < PATCH; i++)
                        difference[i] = fabsf((float)own[i] - from[i]);
                }
            } else {
                patch_fetch_slowly(c, y0, x0, y1, x1, v);
                for (int y = y0; y < y1; y++)
                    for (int x = x0; x < x1; x++)
                        c->difference[y * c->stride + x] = fabsf((float)bytes_at(&c->current, y)[x] - c->y[y * c->stride + x]);
            }
        }
}

/* Repeats the outermost elements into a rim of that many. */
static void rim_fill(float *field, int rows, int cols, Py_ssize_t stride, int rim)
{
    for (int y = 0; y < rows; y++)
        for (int i = 1; i <= rim; i++) {
            field[y * stride - i] = field[y * stride];
            field[y * stride + cols - 1 + i] = field[y * stride + cols - 1];
        }
    for (int i = 1; i <= rim; i++) {
        memcpy(field - i * stride - rim, field - rim, sizeof(float) * (size_t)(cols + 2 * rim));
        memcpy(field + (rows - 1 + i) * stride - rim, field + (rows - 1) * stride - rim, sizeof(float) * (size_t)(cols + 2 * rim));
    }
}

static void tile_copy(const Carry *c, int ty, int tx)
{
    int rows = (int)c->current.rows, cols = (int)c->current.cols;
    int y0 = ty * TILE, x0 = tx * TILE, y1 = least(y0 + TILE, rows), x1 = least(x0 + TILE, cols);
    int mid_y = least(y0 + TILE / 2, rows - 1), mid_x = least(x0 + TILE / 2, cols - 1);
    const float *v = vector_at(c, mid_y, mid_x);
    int dx = floor_of(v[0] + 0.5f), dy = floor_of(v[1] + 0.5f);
    float r = floats_at(&c->residual, c->block_of[mid_y])[c->block_of[mid_x]], growth = c->drift + c->misfit * r * r;
    if (x1 - x0 == TILE && x0 + dx >= 0 && x1 + dx <= cols && y0 + dy >= 0 && y1 + dy <= rows) {
        for (int y = y0; y < y1; y++) {
            float four[TILE];
            memcpy(floats_at(&c->out_probability, y) + x0, floats_at(&c->probability, y + dy) + x0 + dx, sizeof(four));
            memcpy(four, floats_at(&c->variance, y + dy) + x0 + dx, sizeof(four));
            for (int i = 0; i < TILE; i++)
                four[i] += growth;
            memcpy(floats_at(&c->out_variance, y) + x0, four, sizeof(four));
        }
        return;
    }
    for (int y = y0; y < y1; y++) {
        int sy = clamp(y + dy, 0, rows - 1);
        const float *p = floats_at(&c->probability, sy), *q = floats_at(&c->variance, sy);
        float *op = floats_at(&c->out_probability, y), *oq = floats_at(&c->out_variance, y);
        for (int x = x0; x < x1; x++) {
            int sx = clamp(x + dx, 0, cols - 1);
            float outside = (float)(abs(x + dx - sx) + abs(y + dy - sy));
            op[x] = p[sx];
            oq[x] = q[sx] + growth + UNSEEN * outside * outside;
        }
    }
}

static inline void row_of_bytes(const unsigned char *restrict row, int n, float *restrict out)
{
    for (int i = 0; i < n; i++)
        out[i] = (float)row[i];
}

/* The span of tiles [tx0, tx1) of tile row ty. */
WIDE static void span_carry(const Carry *c, int ty, int tx0, int tx1)
{
    int rows = (int)c->current.rows, cols = (int)c->current.cols;
    int x0 = tx0 * TILE, y1 = least((ty + 1) * TILE, rows), width = least(tx1 * TILE, cols) - x0;
    static const float ninth = 1.0f / 9;
    const float exact = c->exact * c->exact, drift = c->drift, misfit = c->misfit;
    float own_y[BUFFER], own_u[BUFFER], own_v[BUFFER], alike[BUFFER];
    for (int y = ty * TILE; y < y1; y++) {
        const Py_ssize_t k = y * c->stride + x0;
        row_of_bytes(bytes_at(&c->current, y) + x0, width, own_y);
        if (c->scales.chroma > 0) {
            row_of_bytes(bytes_at(&c->current_u, y) + x0, width, own_u);
            row_of_bytes(bytes_at(&c->current_v, y) + x0, width, own_v);
        }
        mean_near(own_y, own_u, own_v, (Window){c->y + k, c->u + k, c->v + k, c->moved + k, c->stride}, width, c->scales, alike);
        float *restrict p = floats_at(&c->out_probability, y) + x0, *restrict q = floats_at(&c->out_variance, y) + x0;
        const float *restrict here = c->difference + k, *restrict up = here - c->stride, *restrict down = here + c->stride;
        const float *restrict m = c->moved + k, *restrict grown = c->grown + k;
        for (int x = 0; x < width; x++) {
            float d = here[x] * here[x], share = d / (d + exact);
            float r = ((up[x - 1] + up[x] + up[x + 1]) + (here[x - 1] + here[x] + here[x + 1]) + (down[x - 1] + down[x] + down[x + 1])) * ninth;
            p[x] = m[x] + share * (alike[x] - m[x]);
            q[x] = grown[x] + drift + misfit * r * r;
        }
    }
}

#define FIELDS 6

static int carry_run(Carry *c)
{
    int rows = (int)c->current.rows, cols = (int)c->current.cols;
    size_t block_rows = (size_t)c->vectors.rows, block_cols = (size_t)c->vectors.cols / 2;
    int cell_rows = (rows + CELL - 1) / CELL, cell_cols = (cols + CELL - 1) / CELL;
    c->patch = c->block % PATCH ? c->block : PATCH;
    c->patch_rows = (rows - 1) / c->patch + 1;
    c->patch_cols = (cols - 1) / c->patch + 1;
    c->tile_rows = (rows + TILE - 1) / TILE;
    c->tile_cols = (cols + TILE - 1) / TILE;
    c->stride = cols + 2 * RADIUS + STRIP;
    size_t cells = (size_t)cell_rows * (size_t)cell_cols, patches = (size_t)c->patch_rows * (size_t)c->patch_cols;
    size_t field = (size_t)(rows + 2 * RADIUS) * (size_t)c->stride;
    float *floats = malloc(sizeof(float) * (2 * block_rows * block_cols + 2 * cells + 2 * patches + 2 * (size_t)c->patch_cols + FIELDS * field));
    unsigned char *marks = malloc(patches + (size_t)c->tile_rows * (size_t)c->tile_cols);
    int longer = rows > cols ? rows : cols;
    c->block_of = malloc(sizeof(int) * 2 * (size_t)longer);
    int done = floats && marks && c->block_of;
    if (done) {
        c->patch_of = c->block_of + longer;
        for (int i = 0; i < longer; i++) {
            c->block_of[i] = i / c->block;
            c->patch_of[i] = i / c->patch;
        }
        c->flow = floats;
        c->low = c->flow + 2 * block_rows * block_cols;
        c->high = c->low + cells;
        c->least = c->high + cells;
        c->most = c->least + patches;
        c->across = c->most + patches;
        float *first = c->across + 2 * c->patch_cols + RADIUS * c->stride + RADIUS;
        float **fields[FIELDS] = {&c->y, &c->u, &c->v, &c->moved, &c->grown, &c->difference};
        for (size_t i = 0; i < FIELDS; i++)
            *fields[i] = first + i * field;
        c->needed = marks;
        c->busy = marks + patches;
        for (size_t y = 0; y < block_rows; y++)
            for (size_t x = 0; x < 2 * block_cols; x++)
                c->flow[y * 2 * block_cols + x] = limit(floats_at(&c->vectors, (int)y)[x], -FAR, FAR);
        cell_extremes(&c->probability, cell_rows, cell_cols, c->low, c->high);
        patch_extremes(c);
        tiles_mark(c);
        patches_fetch(c);
        for (size_t i = 0; i < FIELDS; i++)
            if (c->scales.chroma > 0 || (i != 1 && i != 2))
                rim_fill(*fields[i], rows, cols, c->stride, RADIUS);
        for (int ty = 0; ty < c->tile_rows; ty++)
            for (int tx = 0; tx < c->tile_cols;) {
                const unsigned char *row = c->busy + (Py_ssize_t)ty * c->tile_cols;
                int end = tx;
                while (end < c->tile_cols && end - tx < SPAN_TILES && row[end])
                    end++;
                if (end > tx)
                    span_carry(c, ty, tx, end);
                else
                    tile_copy(c, ty, end++);
                tx = end;
            }
    }
    free(c->block_of);
    free(floats);
    free(marks);
    return done ? 0 : -1;
}

static int same_shape(const Plane *a, const Plane *b, const char *name)
{
    if (a->rows == b->rows && a->cols == b->cols)
        return 0;
    PyErr_Format(PyExc_ValueError, "%s: expected shape (%zd, %zd), got (%zd, %zd)", name, a->rows, a->cols, b->rows, b->cols);
    return -1;
}

static int grid_fits(const Plane *grid)
{
    if (grid->rows >= 1 && grid->cols >= 1 && grid->rows <= SIDE_MAX && grid->cols <= SIDE_MAX)
        return 0;
    PyErr_Format(PyExc_ValueError, "a grid of 1 to %d pixels a side is needed, got %zd x %zd", SIDE_MAX, grid->rows, grid->cols);
    return -1;
}

typedef struct { PyObject *array; Plane *plane; char format; int writable; const char *name; } Argument;

static int arguments_get(Argument *arguments, int count)
{
    for (int i = 0; i < count; i++)
        if (plane_get(arguments[i].plane, arguments[i].array, arguments[i].format, arguments[i].writable, arguments[i].name) < 0) {
            while (i-- > 0)
                plane_release(arguments[i].plane);
            return -1;
        }
    return 0;
}

static void arguments_release(Argument *arguments, int count)
{
    for (int i = 0; i < count; i++)
        plane_release(arguments[i].plane);
}

static int scales_get(Scales *scales, float like, float chroma)
{
    if (like > 0 && chroma >= 0) {
        scales->luma = 1 / (like * like);
        scales->chroma = chroma * scales->luma;
        return 0;
    }
    PyErr_SetString(PyExc_ValueError, "like: expected more than 0, chroma: expected at least 0");
    return -1;
}

static PyObject *fusion_carry(PyObject *module, PyObject *args)
{
    (void)module;
    Carry c;
    Argument a[] = {
        {NULL, &c.previous, 'B', 0, "previous"}, {NULL, &c.current, 'B', 0, "current"},
        {NULL, &c.vectors, 'f', 0, "vectors"}, {NULL, &c.residual, 'f', 0, "residual"},
        {NULL, &c.probability, 'f', 0, "probability"}, {NULL, &c.variance, 'f', 0, "variance"},
        {NULL, &c.out_probability, 'f', 1, "out_probability"}, {NULL, &c.out_variance, 'f', 1, "out_variance"},
        {NULL, &c.previous_u, 'B', 0, "previous_u"}, {NULL, &c.previous_v, 'B', 0, "previous_v"},
        {NULL, &c.current_u, 'B', 0, "current_u"}, {NULL, &c.current_v, 'B', 0, "current_v"},
    };
    float like, chroma;
    if (!PyArg_ParseTuple(args, "(OOO)(OOO)OOiOOOOfffff", &a[0].array, &a[8].array, &a[9].array, &a[1].array, &a[10].array,
                          &a[11].array, &a[2].array, &a[3].array, &c.block, &a[4].array, &a[5].array, &a[6].array, &a[7].array,
                          &like, &chroma, &c.exact, &c.drift, &c.misfit))
        return NULL;
    if (arguments_get(a, 12) < 0)
        return NULL;
    PyObject *result = NULL;
    const Plane *grid = &c.current;
    if (grid_fits(grid) < 0 || same_shape(grid, &c.previous, "previous") < 0 || same_shape(grid, &c.probability, "probability") < 0 ||
        same_shape(grid, &c.variance, "variance") < 0 || same_shape(grid, &c.out_probability, "out_probability") < 0 ||
        same_shape(grid, &c.out_variance, "out_variance") < 0 || same_shape(grid, &c.previous_u, "previous_u") < 0 ||
        same_shape(grid, &c.previous_v, "previous_v") < 0 || same_shape(grid, &c.current_u, "current_u") < 0 ||
        same_shape(grid, &c.current_v, "current_v") < 0)
        goto end;
    if (c.block < 1 || c.vectors.rows != (grid->rows + c.block - 1) / c.block ||
        c.vectors.cols != 2 * ((grid->cols + c.block - 1) / c.block) || c.residual.rows != c.vectors.rows ||
        c.residual.cols * 2 != c.vectors.cols) {
        PyErr_Format(PyExc_ValueError, "vectors and residual: not one for each block of %d pixels", c.block);
        goto end;
    }
    if (scales_get(&c.scales, like, chroma) < 0)
        goto end;
    int failed;
    Py_BEGIN_ALLOW_THREADS
    failed = carry_run(&c);
    Py_END_ALLOW_THREADS
    if (failed < 0) {
        PyErr_NoMemory();
        goto end;
    }
    result = Py_NewRef(Py_None);
end:
    arguments_release(a, 12);
    return result;
}

typedef struct {
    Plane luma, probability, variance, measured, measured_variance, out_probability, out_variance;
    Plane chroma_u, chroma_v;   /* luma again where there is no chroma */
    Scales scales;
    float repeat;
    /* scratch */
    unsigned char *busy;    /* whether the masks disagree in each tile */
    /* As the elements (0, 0) of pictures with a rim of REACH: what was fused, how far the masks differ there and around
     * there, the colours. */
    float *fused, *apart, *share, *y, *u, *v;
    Py_ssize_t stride;
} Update;

WIDE static void rows_fuse(const Update *u)
{
    int rows = (int)u->luma.rows, cols = (int)u->luma.cols;
    for (int y = 0; y < rows; y++) {
        const float *restrict p = floats_at(&u->probability, y), *restrict q = floats_at(&u->variance, y);
        const float *restrict z = floats_at(&u->measured, y), *restrict r = floats_at(&u->measured_variance, y);
        float *restrict fused = u->fused + y * u->stride, *restrict apart = u->apart + y * u->stride;
        float *restrict op = floats_at(&u->out_probability, y), *restrict oq = floats_at(&u->out_variance, y);
        for (int x = 0; x < cols; x++) {
            float gain = q[x] / (q[x] + r[x]), innovation = z[x] - p[x];
            op[x] = fused[x] = p[x] + gain * innovation;
            oq[x] = q[x] - gain * q[x];
            apart[x] = fabsf(innovation);
        }
    }
}

/* How far the masks differ around each element, beyond what does not count; marks the tiles where that is anything. */
WIDE static void tiles_mark_apart(const Update *u, int ty, float *restrict most, unsigned char *restrict busy)
{
    int rows = (int)u->luma.rows, cols = (int)u->luma.cols, y1 = least((ty + 1) * TILE, rows);
    static const float ninth = 1.0f / 9;
    for (int x = 0; x < cols; x++)
        most[x] = 0;
    for (int y = ty * TILE; y < y1; y++) {
        const float *restrict here = u->apart + y * u->stride, *restrict up = here - u->stride, *restrict down = here + u->stride;
        float *restrict share = u->share + y * u->stride;
        for (int x = 0; x < cols; x++) {
            float d = ((up[x - 1] + up[x] + up[x + 1]) + (here[x - 1] + here[x] + here[x + 1]) + (down[x - 1] + down[x] + down[x + 1])) * ninth - CALM;
            d = d > 0 ? d : 0;
            share[x] = d;
            most[x] = d > most[x] ? d : most[x];
        }
    }
    for (int tx = 0; tx * TILE < cols; tx++) {
        int x1 = least((tx + 1) * TILE, cols);
        float m = 0;
        for (int x = tx * TILE; x < x1; x++)
            m = most[x] > m ? most[x] : m;
        busy[tx] = m > 0;
    }
}

/* One row of bytes as numbers, the outermost repeated into the rim. */
static void row_unpack(const unsigned char *restrict row, int cols, float *restrict out)
{
    row_of_bytes(row, cols, out);
    for (int i = 1; i <= REACH; i++) {
        out[-i] = out[0];
        out[cols - 1 + i] = out[cols - 1];
    }
}

/* The colours of the rows that windows of busy tiles reach. */
WIDE static void colours_unpack(const Update *u, int tile_rows, int tile_cols)
{
    int rows = (int)u->luma.rows, cols = (int)u->luma.cols, done = -REACH;
    for (int ty = 0; ty < tile_rows; ty++) {
        if (!memchr(u->busy + (Py_ssize_t)ty * tile_cols, 1, (size_t)tile_cols))
            continue;
        int from = ty * TILE - REACH, to = least((ty + 1) * TILE, rows) + REACH;
        for (int y = from > done ? from : done; y < to; y++) {
            int source = clamp(y, 0, rows - 1);
            row_unpack(bytes_at(&u->luma, source), cols, u->y + y * u->stride);
            if (u->scales.chroma > 0) {
                row_unpack(bytes_at(&u->chroma_u, source), cols, u->u + y * u->stride);
                row_unpack(bytes_at(&u->chroma_v, source), cols, u->v + y * u->stride);
            }
        }
        done = to;
    }
}

/* The span of tiles [tx0, tx1) of tile row ty. */
WIDE static void span_smooth(const Update *u, int ty, int tx0, int tx1)
{
    int rows = (int)u->luma.rows, cols = (int)u->luma.cols;
    int x0 = tx0 * TILE, y1 = least((ty + 1) * TILE, rows), width = least(tx1 * TILE, cols) - x0;
    float alike[BUFFER];
    for (int y = ty * TILE; y < y1; y++) {
        const Py_ssize_t k = y * u->stride + x0;
        float *restrict out = floats_at(&u->out_probability, y) + x0;
        const float *restrict fused = u->fused + k, *restrict share = u->share + k;
        mean_around(u->y + k, u->u + k, u->v + k, (Window){u->y + k, u->u + k, u->v + k, fused, u->stride}, width, u->scales, alike);
        for (int x = 0; x < width; x++)
            out[x] = limit(fused[x] + share[x] / (share[x] + u->repeat) * (alike[x] - fused[x]), 0, 1);
    }
}

#define UPDATE_FIELDS 6

static int update_run(Update *u)
{
    int rows = (int)u->luma.rows, cols = (int)u->luma.cols;
    int tile_rows = (rows + TILE - 1) / TILE, tile_cols = (cols + TILE - 1) / TILE;
    u->stride = cols + 2 * REACH + STRIP;
    size_t field = (size_t)(rows + 2 * REACH) * (size_t)u->stride;
    float *floats = malloc(sizeof(float) * (UPDATE_FIELDS * field + STRIP + (size_t)cols));
    u->busy = malloc((size_t)tile_rows * (size_t)tile_cols);
    int done = u->busy && floats;
    if (done) {
        float *first = floats + REACH * u->stride + REACH, *most = floats + UPDATE_FIELDS * field + STRIP;
        float **fields[UPDATE_FIELDS] = {&u->fused, &u->apart, &u->share, &u->y, &u->u, &u->v};
        for (size_t i = 0; i < UPDATE_FIELDS; i++)
            *fields[i] = first + i * field;
        rows_fuse(u);
        rim_fill(u->fused, rows, cols, u->stride, REACH);
        rim_fill(u->apart, rows, cols, u->stride, 1);
        for (int ty = 0; ty < tile_rows; ty++)
            tiles_mark_apart(u, ty, most, u->busy + (Py_ssize_t)ty * tile_cols);
        colours_unpack(u, tile_rows, tile_cols);
        for (int ty = 0; ty < tile_rows; ty++)
            for (int tx = 0; tx < tile_cols;) {
                const unsigned char *row = u->busy + (Py_ssize_t)ty * tile_cols;
                int end = tx;
                while (end < tile_cols && end - tx < SPAN_TILES && row[end])
                    end++;
                if (end > tx)
                    span_smooth(u, ty, tx, end);
                tx = end > tx ? end : tx + 1;
            }
    }
    free(u->busy);
    free(floats);
    return done ? 0 : -1;
}

static PyObject *fusion_update(PyObject *module, PyObject *args)
{
    (void)module;
    Update u;
    Argument a[] = {
        {NULL, &u.luma, 'B', 0, "luma"}, {NULL, &u.probability, 'f', 0, "probability"},
        {NULL, &u.variance, 'f', 0, "variance"}, {NULL, &u.measured, 'f', 0, "measured"},
        {NULL, &u.measured_variance, 'f', 0, "measured_variance"}, {NULL, &u.out_probability, 'f', 1, "out_probability"},
        {NULL, &u.out_variance, 'f', 1, "out_variance"}, {NULL, &u.chroma_u, 'B', 0, "u"}, {NULL, &u.chroma_v, 'B', 0, "v"},
    };
    float like, chroma;
    if (!PyArg_ParseTuple(args, "(OOO)OOOOOOfff", &a[0].array, &a[7].array, &a[8].array, &a[1].array, &a[2].array, &a[3].array,
                          &a[4].array, &a[5].array, &a[6].array, &like, &chroma, &u.repeat))
        return NULL;
    if (arguments_get(a, 9) < 0)
        return NULL;
    PyObject *result = NULL;
    if (grid_fits(&u.luma) < 0 || same_shape(&u.luma, &u.probability, "probability") < 0 ||
        same_shape(&u.luma, &u.variance, "variance") < 0 || same_shape(&u.luma, &u.measured, "measured") < 0 ||
        same_shape(&u.luma, &u.measured_variance, "measured_variance") < 0 ||
        same_shape(&u.luma, &u.out_probability, "out_probability") < 0 || same_shape(&u.luma, &u.out_variance, "out_variance") < 0 ||
        same_shape(&u.luma, &u.chroma_u, "u") < 0 || same_shape(&u.luma, &u.chroma_v, "v") < 0)
        goto end;
    if (scales_get(&u.scales, like, chroma) < 0)
        goto end;
    int failed;
    Py_BEGIN_ALLOW_THREADS
    failed = update_run(&u);
    Py_END_ALLOW_THREADS
    if (failed < 0) {
        PyErr_NoMemory();
        goto end;
    }
    result = Py_NewRef(Py_None);
end:
    arguments_release(a, 9);
    return result;
}

typedef struct {
    Plane luma, chroma_u, chroma_v, plate_luma, plate_u, plate_v, seen;
    Plane probability, measured, variance;
    float chroma, noise;
    double *sums;           /* of what differs and of all, weighted: background, then person */
    float *apart, *around;  /* squared differences, as the element (0, 0) of a picture with a rim; their greatest */
    Py_ssize_t stride;
} Evidence;

WIDE static void row_differences(const Evidence *e, int y, float *restrict out)
{
    int cols = (int)e->luma.cols;
    const unsigned char *restrict a = bytes_at(&e->luma, y), *restrict b = bytes_at(&e->plate_luma, y);
    const unsigned char *restrict au = bytes_at(&e->chroma_u, y), *restrict bu = bytes_at(&e->plate_u, y);
    const unsigned char *restrict av = bytes_at(&e->chroma_v, y), *restrict bv = bytes_at(&e->plate_v, y);
    const float chroma = e->chroma;
    for (int x = 0; x < cols; x++) {
        int d = a[x] - b[x], f = au[x] - bu[x], g = av[x] - bv[x];
        out[x] = (float)(d * d) + chroma * (float)(f * f + g * g);
    }
}

/* The greatest of 5x5 elements, for one row. */
WIDE static void row_greatest(const float *restrict apart, Py_ssize_t s, int cols, float *restrict across, float *restrict out)
{
    for (int x = -PLATE_REACH; x < cols + PLATE_REACH; x++) {
        float m = apart[x - 2 * s];
        m = apart[x - s] > m ? apart[x - s] : m;
        m = apart[x] > m ? apart[x] : m;
        m = apart[x + s] > m ? apart[x + s] : m;
        across[x] = apart[x + 2 * s] > m ? apart[x + 2 * s] : m;
    }
    for (int x = 0; x < cols; x++) {
        float m = across[x - 2];
        m = across[x - 1] > m ? across[x - 1] : m;
        m = across[x] > m ? across[x] : m;
        m = across[x + 1] > m ? across[x + 1] : m;
        out[x] = across[x + 2] > m ? across[x + 2] : m;
    }
}

typedef struct { float background, person; } Rates;   /* how often each differs from the plate */

/* How far each element differs, 0 to 1, in place of the greatest difference around it. */
WIDE static void row_compare(const float *restrict apart, float *restrict differs, int cols)
{
    for (int x = 0; x < cols; x++) {
        float half = PLATE_EDGE * differs[x];
        half = half > PLATE_NOISE ? half : PLATE_NOISE;
        differs[x] = apart[x] / (apart[x] + half);
    }
}

/* Adds to the sums of each column: one sum of all would not be vectorized. */
WIDE static void row_count(const float *restrict differs, const unsigned char *restrict seen, const float *restrict p, int cols,
                           float *restrict b1, float *restrict b0, float *restrict f1, float *restrict f0)
{
    for (int x = 0; x < cols; x++) {
        float known = (float)seen[x] * (1.0f / PLATE_KNOWN);
        known = known < 1 ? known : 1;
        float empty = known * (1 - p[x]), full = known * p[x];
        b1[x] += empty * differs[x];
        b0[x] += empty;
        f1[x] += full * differs[x];
        f0[x] += full;
    }
}

/* Before `row_weigh`, which changes what the model says. */
WIDE static void row_judge(const float *restrict apart, const float *restrict z, int cols, unsigned char *restrict state)
{
    for (int x = 0; x < cols; x++) {
        int vacant = z[x] < PLATE_EMPTY, same = apart[x] < PLATE_SAME;
        state[x] = (unsigned char)(vacant + (vacant & same));   /* OCCUPIED, OTHER, SAME */
    }
}

WIDE static void row_weigh(const float *restrict differs, const unsigned char *restrict seen, Rates rates, float noise, int cols,
                           float *restrict z, float *restrict r)
{
    const float b = rates.background, f = rates.person, trust = limit(1 - PLATE_DOUBT * b, 0, 1);
    for (int x = 0; x < cols; x++) {
        float known = (float)seen[x] * (1.0f / PLATE_KNOWN);
        known = known < 1 ? known : 1;
        float d = differs[x], fits = 1 - d;
        float odds = (f * d + (1 - f) * fits) / (b * d + (1 - b) * fits);
        float cube = odds * odds * odds, ratio = cube * cube;
        ratio = limit(ratio, PLATE_LEAST, PLATE_MOST);
        float doubt = limit((z[x] - PLATE_EMPTY) * (1 / PLATE_EMPTY), 0, 1);
        float up = ratio > 1 ? ratio : 1, down = ratio < 1 ? ratio : 1;
        float gain = ((up - 1) + (down - 1) * doubt) * known * trust;
        float from = z[x] > LEVEL ? z[x] : LEVEL;
        float to = z[x] + from * (1 - from) * gain / (1 + from * gain);
        r[x] += 4 * noise * (to * (1 - to) - z[x] * (1 - z[x]));
        z[x] = to;
    }
}

static inline unsigned char towards(unsigned char from, unsigned char to)
{
    return (unsigned char)(from + (to > from) - (to < from));
}

WIDE static void row_learn(const Evidence *e, int y, const unsigned char *restrict state)
{
    int cols = (int)e->luma.cols;
    const Plane *from[3] = {&e->luma, &e->chroma_u, &e->chroma_v}, *to[3] = {&e->plate_luma, &e->plate_u, &e->plate_v};
    unsigned char *restrict seen = e->seen.data + y * e->seen.stride;
    for (int i = 0; i < 3; i++) {
        const unsigned char *restrict a = bytes_at(from[i], y);
        unsigned char *restrict b = to[i]->data + y * to[i]->stride;
        for (int x = 0; x < cols; x++) {
            unsigned char nearer = towards(b[x], a[x]), anew = seen[x] <= PLATE_LOSS ? a[x] : b[x];
            b[x] = state[x] == SAME ? nearer : state[x] == OTHER ? anew : b[x];
        }
    }
    for (int x = 0; x < cols; x++) {
        unsigned char more = (unsigned char)(seen[x] + (seen[x] < PLATE_SEEN)), less = (unsigned char)(seen[x] > PLATE_LOSS ? seen[x] - PLATE_LOSS : 0);
        seen[x] = state[x] == SAME ? more : state[x] == OTHER ? less : seen[x];
    }
}

static int evidence_run(Evidence *e)
{
    int rows = (int)e->luma.rows, cols = (int)e->luma.cols;
    e->stride = cols + 2 * PLATE_REACH + STRIP;
    size_t field = (size_t)(rows + 2 * PLATE_REACH) * (size_t)e->stride;
    float *floats = malloc(sizeof(float) * (field + 2 * (size_t)e->stride + 4 * (size_t)cols));
    unsigned char *state = malloc((size_t)cols);
    if (!floats || !state) {
        free(floats);
        free(state);
        return -1;
    }
    float *apart = floats + PLATE_REACH * e->stride + PLATE_REACH, *across = floats + field + PLATE_REACH, *around = across + e->stride;
    float *counts = floats + field + 2 * e->stride;
    memset(counts, 0, sizeof(float) * 4 * (size_t)cols);
    Rates rates = {(float)((e->sums[0] + PRIOR) / (e->sums[1] + 2 * PRIOR)), (float)((e->sums[2] + PRIOR) / (e->sums[3] + 2 * PRIOR))};
    rates.person = rates.person > rates.background ? rates.person : rates.background;
    for (int i = 0; i < 4; i++)
        e->sums[i] *= PLATE_MEMORY;
    for (int y = 0; y < rows; y++)
        row_differences(e, y, apart + y * e->stride);
    rim_fill(apart, rows, cols, e->stride, PLATE_REACH);
    for (int y = 0; y < rows; y++) {
        const float *row = apart + y * e->stride;
        row_greatest(row, e->stride, cols, across, around);
        row_compare(row, around, cols);
        row_count(around, bytes_at(&e->seen, y), floats_at(&e->probability, y), cols, counts, counts + cols, counts + 2 * cols, counts + 3 * cols);
        row_judge(row, floats_at(&e->measured, y), cols, state);
        row_weigh(around, bytes_at(&e->seen, y), rates, e->noise, cols, floats_at(&e->measured, y), floats_at(&e->variance, y));
        row_learn(e, y, state);
    }
    for (int i = 0; i < 4; i++)
        for (int x = 0; x < cols; x++)
            e->sums[i] += (double)counts[i * cols + x];
    free(floats);
    free(state);
    return 0;
}

static PyObject *fusion_evidence(PyObject *module, PyObject *args)
{
    (void)module;
    Evidence e;
    Plane sums;
    Argument a[] = {
        {NULL, &e.luma, 'B', 0, "luma"}, {NULL, &e.chroma_u, 'B', 0, "u"}, {NULL, &e.chroma_v, 'B', 0, "v"},
        {NULL, &e.plate_luma, 'B', 1, "plate luma"}, {NULL, &e.plate_u, 'B', 1, "plate u"}, {NULL, &e.plate_v, 'B', 1, "plate v"},
        {NULL, &e.seen, 'B', 1, "seen"}, {NULL, &e.probability, 'f', 0, "probability"}, {NULL, &e.measured, 'f', 1, "measured"},
        {NULL, &e.variance, 'f', 1, "variance"}, {NULL, &sums, 'd', 1, "sums"},
    };
    if (!PyArg_ParseTuple(args, "(OOO)(OOO)OOOOOff", &a[0].array, &a[1].array, &a[2].array, &a[3].array, &a[4].array, &a[5].array,
                          &a[6].array, &a[7].array, &a[8].array, &a[9].array, &a[10].array, &e.chroma, &e.noise))
        return NULL;
    if (arguments_get(a, 11) < 0)
        return NULL;
    PyObject *result = NULL;
    if (grid_fits(&e.luma) < 0)
        goto end;
    for (int i = 1; i < 10; i++)
        if (same_shape(&e.luma, a[i].plane, a[i].name) < 0)
            goto end;
    if (sums.rows != 1 || sums.cols != 4) {
        PyErr_SetString(PyExc_ValueError, "sums: expected shape (4,)");
        goto end;
    }
    e.sums = (double *)(void *)sums.data;
    int failed;
    Py_BEGIN_ALLOW_THREADS
    failed = evidence_run(&e);
    Py_END_ALLOW_THREADS
    if (failed < 0) {
        PyErr_NoMemory();
        goto end;
    }
    result = Py_NewRef(Py_None);
end:
    arguments_release(a, 11);
    return result;
}

static PyObject *fusion_uncertainty(PyObject *module, PyObject *args)
{
    (void)module;
    Plane measured, variance;
    Argument a[] = {{NULL, &measured, 'f', 0, "measured"}, {NULL, &variance, 'f', 1, "variance"}};
    float noise, noise_floor;
    if (!PyArg_ParseTuple(args, "OOff", &a[0].array, &a[1].array, &noise, &noise_floor) || arguments_get(a, 2) < 0)
        return NULL;
    PyObject *result = NULL;
    if (same_shape(&measured, &variance, "variance") == 0) {
        Py_BEGIN_ALLOW_THREADS
        for (Py_ssize_t y = 0; y < measured.rows; y++) {
            const float *restrict p = floats_at(&measured, (int)y);
            float *restrict v = floats_at(&variance, (int)y);
            for (Py_ssize_t x = 0; x < measured.cols; x++)
                v[x] = noise * (noise_floor + 4.0f * (p[x] * (1.0f - p[x])));
        }
        Py_END_ALLOW_THREADS
        result = Py_NewRef(Py_None);
    }
    arguments_release(a, 2);
    return result;
}

static PyMethodDef methods[] = {
    {"uncertainty", fusion_uncertainty, METH_VARARGS, "uncertainty(measured, variance, noise, noise_floor)"},
    {"evidence", fusion_evidence, METH_VARARGS,
     "evidence((y, u, v), (y, u, v) plate, seen, probability, measured, variance, sums, chroma, noise)"},
    {"carry", fusion_carry, METH_VARARGS,
     "carry((y, u, v) previous, (y, u, v) current, vectors, residual, block_px, probability, variance, "
     "out_probability, out_variance, like, chroma, exact, drift, misfit)"},
    {"update", fusion_update, METH_VARARGS,
     "update((y, u, v), probability, variance, measured, measured_variance, out_probability, out_variance, like, chroma, "
     "repeat)"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_fusion", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__fusion(void) { return PyModule_Create(&module); }
