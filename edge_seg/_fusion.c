/* Carrying a mask along block flow, and its Kalman update: edge_seg/fusion_reference.py says what is computed.
 *
 * Nearly all of a mask is surely person or surely background and moves nowhere. So the grid is cut into tiles;
 * where a tile's sources are all alike it is copied, and the costly part (bilinear samples, windows of alike
 * luma) runs over spans of the other tiles only, in small row buffers.
 */
#include "_buffers.h"
#include <math.h>
#include <stdlib.h>

#define TILE 8
#define CELL 4               /* side of the cells whose extremes of the mask are kept */
#define RADIUS 2
#define WINDOW (2 * RADIUS + 1)
#define SURE (1.0f / 32)      /* masks that differ by less are alike */
#define SELF 1e-3f            /* what an element counts for itself at least */
#define UNSEEN 0.05f         /* variance for each squared pixel that a source lies outside the picture */
#define FAR 4096.0f           /* no vector is longer: keeps coordinates within int */
#define SIDE_MAX 8192
#define SPAN_TILES 16
#define BUFFER (SPAN_TILES * TILE + 2 * RADIUS)
#define BUFFER_ROWS (TILE + 2 * RADIUS)

/* On x86-64 the loader picks between SSE2 and AVX2; NEON is what every aarch64 has. Needs glibc's ifunc. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__GLIBC__)
#define WIDE __attribute__((target_clones("avx2", "default")))
#else
#define WIDE
#endif

static inline int clamp(int v, int lo, int hi) { return v < lo ? lo : v > hi ? hi : v; }
static inline float limit(float v, float lo, float hi) { v = v > lo ? v : lo; return v < hi ? v : hi; } /* NaN: lo */
static inline int least(int a, int b) { return a < b ? a : b; }

static inline const unsigned char *bytes_at(const Plane *p, int y) { return p->data + y * p->stride; }
static inline float *floats_at(const Plane *p, int y) { return (float *)(void *)(p->data + y * p->stride); }

typedef struct { float rows[BUFFER_ROWS][BUFFER]; } Buffer;
typedef struct { Buffer y, u, v; } Colours;   /* u and v are not touched where there is no chroma */

/* How a difference of colour counts: alike = max(0, 1 - luma dy^2 - chroma (du^2 + dv^2))^2. */
typedef struct { float luma, chroma; } Scales;

/* For `n` elements of a row: the mean over the window around each of the values whose colour is like its own.
 * The window is a diamond: its 13 elements give what the 25 of the square gave. */
WIDE static void mean_of_alike(const Colours *restrict own, const Colours *restrict window, const Buffer *restrict values,
                          int row, int n, Scales scales, float *restrict out)
{
    static const float side_weights[WINDOW] = {2.0f / 16, 4.0f / 16, 4.0f / 16, 4.0f / 16, 2.0f / 16};
    float total[BUFFER], weights[BUFFER];
    const float *restrict centre = values->rows[row + RADIUS] + RADIUS, *restrict y = own->y.rows[row + RADIUS] + RADIUS,
                *restrict u = own->u.rows[row + RADIUS] + RADIUS, *restrict v = own->v.rows[row + RADIUS] + RADIUS;
    for (int x = 0; x < n; x++) {
        total[x] = SELF * centre[x];
        weights[x] = SELF;
    }
    for (int j = 0; j < WINDOW; j++) {
        const float *restrict wy = window->y.rows[row + j], *restrict p = values->rows[row + j];
        const float *restrict wu = window->u.rows[row + j], *restrict wv = window->v.rows[row + j];
        const float side = side_weights[j];
#define COUNT(i) \
            a = a > 0.0f ? a : 0.0f; \
            a = a * a * (side * side_weights[i]); \
            t += a * p[x + i]; \
            w += a;
#define TAP(i) { \
            float d = y[x] - wy[x + i]; \
            float a = 1.0f - d * d * scales.luma; \
            COUNT(i) }
#define COLOUR_TAP(i) { \
            float d = y[x] - wy[x + i], e = u[x] - wu[x + i], f = v[x] - wv[x + i]; \
            float a = 1.0f - d * d * scales.luma - (e * e + f * f) * scales.chroma; \
            COUNT(i) }
        const int reach = j == 0 || j == 4 ? 0 : j == 2 ? 2 : 1;
#define ROW(taps) for (int x = 0; x < n; x++) { float t = total[x], w = weights[x]; taps total[x] = t; weights[x] = w; }
        if (scales.chroma > 0) {
            if (reach == 0) ROW(COLOUR_TAP(2))
            else if (reach == 1) ROW(COLOUR_TAP(1) COLOUR_TAP(2) COLOUR_TAP(3))
            else ROW(COLOUR_TAP(0) COLOUR_TAP(1) COLOUR_TAP(2) COLOUR_TAP(3) COLOUR_TAP(4))
        } else {
            if (reach == 0) ROW(TAP(2))
            else if (reach == 1) ROW(TAP(1) TAP(2) TAP(3))
            else ROW(TAP(0) TAP(1) TAP(2) TAP(3) TAP(4))
        }
#undef ROW
#undef COUNT
#undef TAP
#undef COLOUR_TAP
    }
    for (int x = 0; x < n; x++)
        out[x] = total[x] / weights[x];
}

typedef struct { const float *top, *bottom; float weight; } RowPair;

/* The rows of vectors around pixel row y, and the share of the lower one. */
static RowPair vector_rows(const float *vectors, int block_rows, int block_cols, int block, int y)
{
    float v = limit(((float)y + 0.5f) / (float)block - 0.5f, 0, (float)(block_rows - 1));
    int i = least((int)v, block_rows - 1);
    return (RowPair){vectors + (Py_ssize_t)i * block_cols * 2,
                     vectors + (Py_ssize_t)least(i + 1, block_rows - 1) * block_cols * 2, v - (float)i};
}

typedef struct { int left, right; float weight; } ColumnPair;

typedef struct {
    Plane previous, current, vectors, residual, probability, variance, out_probability, out_variance;
    Plane previous_u, previous_v, current_u, current_v;   /* the lumas again where there is no chroma */
    int block;
    Scales scales;
    float exact, drift, misfit;
    /* scratch */
    float *flow;            /* the vectors, finite and bounded */
    float *lerped;          /* the vectors of one pixel row */
    ColumnPair *columns;    /* for each pixel column, its columns of vectors */
    float *low, *high;      /* extremes of each cell of the mask */
    unsigned char *busy;    /* one row of tiles */
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

/* Whether the mask differs anywhere in the cells that the windows of this tile can reach. */
static int tile_differs(const Carry *c, int ty, int tx, int cell_cols, int block_rows, int block_cols)
{
    int rows = (int)c->current.rows, cols = (int)c->current.cols;
    int y0 = ty * TILE, x0 = tx * TILE, y1 = least(y0 + TILE, rows) - 1, x1 = least(x0 + TILE, cols) - 1;
    int by0 = clamp((y0 - RADIUS) / c->block - 1, 0, block_rows - 1), by1 = clamp((y1 + RADIUS) / c->block + 1, 0, block_rows - 1);
    int bx0 = clamp((x0 - RADIUS) / c->block - 1, 0, block_cols - 1), bx1 = clamp((x1 + RADIUS) / c->block + 1, 0, block_cols - 1);
    float dx0 = FAR, dx1 = -FAR, dy0 = FAR, dy1 = -FAR;
    for (int y = by0; y <= by1; y++)
        for (int x = bx0; x <= bx1; x++) {
            const float *v = c->flow + 2 * ((Py_ssize_t)y * block_cols + x);
            dx0 = v[0] < dx0 ? v[0] : dx0;
            dx1 = v[0] > dx1 ? v[0] : dx1;
            dy0 = v[1] < dy0 ? v[1] : dy0;
            dy1 = v[1] > dy1 ? v[1] : dy1;
        }
    int sy0 = clamp((int)floorf((float)(y0 - RADIUS) + dy0), 0, rows - 1) / CELL, sy1 = clamp((int)floorf((float)(y1 + RADIUS) + dy1) + 1, 0, rows - 1) / CELL;
    int sx0 = clamp((int)floorf((float)(x0 - RADIUS) + dx0), 0, cols - 1) / CELL, sx1 = clamp((int)floorf((float)(x1 + RADIUS) + dx1) + 1, 0, cols - 1) / CELL;
    float low = c->low[sy0 * cell_cols + sx0], high = c->high[sy0 * cell_cols + sx0];
    for (int y = sy0; y <= sy1; y++)
        for (int x = sx0; x <= sx1; x++) {
            float a = c->low[y * cell_cols + x], b = c->high[y * cell_cols + x];
            low = a < low ? a : low;
            high = b > high ? b : high;
        }
    return high - low > SURE;
}

static void tile_copy(const Carry *c, int ty, int tx, int block_rows, int block_cols)
{
    int rows = (int)c->current.rows, cols = (int)c->current.cols;
    int y0 = ty * TILE, x0 = tx * TILE, y1 = least(y0 + TILE, rows), x1 = least(x0 + TILE, cols);
    int by = least((y0 + TILE / 2) / c->block, block_rows - 1), bx = least((x0 + TILE / 2) / c->block, block_cols - 1);
    const float *v = c->flow + 2 * ((Py_ssize_t)by * block_cols + bx);
    int dx = (int)floorf(v[0] + 0.5f), dy = (int)floorf(v[1] + 0.5f);
    float r = floats_at(&c->residual, by)[bx], growth = c->drift + c->misfit * r * r;
    int inside = x0 + dx >= 0 && x1 + dx <= cols;
    for (int y = y0; y < y1; y++) {
        int sy = clamp(y + dy, 0, rows - 1);
        const float *p = floats_at(&c->probability, sy), *q = floats_at(&c->variance, sy);
        float *op = floats_at(&c->out_probability, y), *oq = floats_at(&c->out_variance, y);
        for (int x = x0; x < x1; x++) {
            int sx = inside ? x + dx : clamp(x + dx, 0, cols - 1);
            float outside = (float)(abs(x + dx - sx) + abs(y + dy - sy));
            op[x] = p[sx];
            oq[x] = q[sx] + growth + UNSEEN * outside * outside;
        }
    }
}

/* Where the elements of one row are sampled: between (left, top) and (left + 1, top + 1). */
typedef struct { int left[BUFFER], top[BUFFER]; float x_weight[BUFFER], y_weight[BUFFER]; } Places;

WIDE static void sample_bytes(const Plane *plane, const Places *at, int n, float *restrict out)
{
    /* Scalar loads first, arithmetic after: SSE2 and NEON have no gather, but can do the rest four at a time. */
    unsigned char upper[BUFFER * 2], lower[BUFFER * 2];
    Py_ssize_t right = plane->cols > 1, down = plane->rows > 1 ? plane->stride : 0;
    for (int i = 0; i < n; i++) {
        const unsigned char *p = plane->data + at->top[i] * plane->stride + at->left[i];
        upper[2 * i] = p[0];
        upper[2 * i + 1] = p[right];
        lower[2 * i] = p[down];
        lower[2 * i + 1] = p[down + right];
    }
    for (int i = 0; i < n; i++) {
        float a = (float)upper[2 * i], b = (float)upper[2 * i + 1], d = (float)lower[2 * i], e = (float)lower[2 * i + 1];
        float t = a + at->x_weight[i] * (b - a), u = d + at->x_weight[i] * (e - d);
        out[i] = t + at->y_weight[i] * (u - t);
    }
}

/* From the place number `first` on. */
WIDE static void sample_floats(const Plane *plane, const Places *at, int first, int n, float *restrict out)
{
    Py_ssize_t right = plane->cols > 1, down = plane->rows > 1;
    for (int i = 0; i < n; i++) {
        int k = first + i;
        const float *p = floats_at(plane, at->top[k]) + at->left[k], *q = floats_at(plane, at->top[k] + (int)down) + at->left[k];
        float t = p[0] + at->x_weight[k] * (p[right] - p[0]), u = q[0] + at->x_weight[k] * (q[right] - q[0]);
        out[i] = t + at->y_weight[k] * (u - t);
    }
}

/* Elements x, x + 1, ... of row y; the rim is repeated outside. */
WIDE static void row_of_bytes(const Plane *plane, int y, int x, int n, float *restrict out)
{
    const unsigned char *restrict row = bytes_at(plane, y);
    int cols = (int)plane->cols, from = clamp(-x, 0, n), to = clamp(cols - x, from, n);
    for (int i = 0; i < from; i++)
        out[i] = (float)row[0];
    for (int i = from; i < to; i++)
        out[i] = (float)row[x + i];
    for (int i = to; i < n; i++)
        out[i] = (float)row[cols - 1];
}

/* The span of tiles [tx0, tx1) of tile row ty. */
WIDE static void span_carry(const Carry *c, int ty, int tx0, int tx1, int block_rows, int block_cols)
{
    int rows = (int)c->current.rows, cols = (int)c->current.cols;
    int y0 = ty * TILE, x0 = tx0 * TILE, height = least(TILE, rows - y0), width = least(tx1 * TILE, cols) - x0;
    static const float ninth = 1.0f / 9;
    Colours own, source;
    Buffer moved, difference;
    int coloured = c->scales.chroma > 0;
    float grown[TILE][BUFFER], alike[BUFFER];
    int first = c->columns[clamp(x0 - RADIUS, 0, cols - 1)].left, last = c->columns[clamp(x0 + width + RADIUS - 1, 0, cols - 1)].right;
    int count = width + 2 * RADIUS;
    for (int j = 0; j < height + 2 * RADIUS; j++) {
        int y = clamp(y0 + j - RADIUS, 0, rows - 1);
        RowPair pair = vector_rows(c->flow, block_rows, block_cols, c->block, y);
        float *restrict between = c->lerped;
        for (int k = 2 * first; k < 2 * last + 2; k++)
            between[k] = pair.top[k] + pair.weight * (pair.bottom[k] - pair.top[k]);
        Places at;
        float outside[BUFFER];
        for (int i = 0; i < count; i++) {
            int x = clamp(x0 + i - RADIUS, 0, cols - 1);
            const ColumnPair k = c->columns[x];
            const float *a = between + 2 * k.left, *b = between + 2 * k.right;
            float from_x = (float)x + (a[0] + k.weight * (b[0] - a[0])), from_y = (float)y + (a[1] + k.weight * (b[1] - a[1]));
            float sx = limit(from_x, 0, (float)(cols - 1)), sy = limit(from_y, 0, (float)(rows - 1));
            outside[i] = fabsf(from_x - sx) + fabsf(from_y - sy);
            at.left[i] = least((int)sx, cols > 1 ? cols - 2 : 0);
            at.top[i] = least((int)sy, rows > 1 ? rows - 2 : 0);
            at.x_weight[i] = sx - (float)at.left[i];
            at.y_weight[i] = sy - (float)at.top[i];
        }
        sample_bytes(&c->previous, &at, count, source.y.rows[j]);
        row_of_bytes(&c->current, y, x0 - RADIUS, count, own.y.rows[j]);
        if (coloured) {
            sample_bytes(&c->previous_u, &at, count, source.u.rows[j]);
            sample_bytes(&c->previous_v, &at, count, source.v.rows[j]);
            row_of_bytes(&c->current_u, y, x0 - RADIUS, count, own.u.rows[j]);
            row_of_bytes(&c->current_v, y, x0 - RADIUS, count, own.v.rows[j]);
        }
        sample_floats(&c->probability, &at, 0, count, moved.rows[j]);
        for (int i = 0; i < count; i++)
            difference.rows[j][i] = fabsf(own.y.rows[j][i] - source.y.rows[j][i]);
        if (j >= RADIUS && j < height + RADIUS) {
            float *restrict grow = grown[j - RADIUS];
            sample_floats(&c->variance, &at, RADIUS, width, grow);
            for (int i = 0; i < width; i++)
                grow[i] += UNSEEN * outside[i + RADIUS] * outside[i + RADIUS];
        }
    }
    for (int j = 0; j < height; j++) {
        float *restrict p = floats_at(&c->out_probability, y0 + j) + x0, *restrict q = floats_at(&c->out_variance, y0 + j) + x0;
        const float *restrict here = difference.rows[j + RADIUS] + RADIUS, *restrict up = difference.rows[j + RADIUS - 1] + RADIUS,
                    *restrict down = difference.rows[j + RADIUS + 1] + RADIUS, *restrict m = moved.rows[j + RADIUS] + RADIUS;
        mean_of_alike(&own, &source, &moved, j, width, c->scales, alike);
        for (int x = 0; x < width; x++) {
            float d = here[x] * here[x], share = d / (d + c->exact * c->exact);
            float r = ((up[x - 1] + up[x] + up[x + 1]) + (here[x - 1] + here[x] + here[x + 1]) + (down[x - 1] + down[x] + down[x + 1])) * ninth;
            p[x] = m[x] + share * (alike[x] - m[x]);
            q[x] = grown[j][x] + c->drift + c->misfit * r * r;
        }
    }
}

static int carry_run(Carry *c)
{
    int rows = (int)c->current.rows, cols = (int)c->current.cols;
    int block_rows = (int)c->vectors.rows, block_cols = (int)c->vectors.cols / 2;
    int tile_rows = (rows + TILE - 1) / TILE, tile_cols = (cols + TILE - 1) / TILE;
    int cell_rows = (rows + CELL - 1) / CELL, cell_cols = (cols + CELL - 1) / CELL;
    Py_ssize_t cells = (Py_ssize_t)cell_rows * cell_cols, blocks = (Py_ssize_t)block_rows * block_cols;
    c->flow = malloc(sizeof(float) * 2 * (size_t)blocks);
    c->lerped = malloc(sizeof(float) * 2 * (size_t)block_cols);
    c->columns = malloc(sizeof(ColumnPair) * (size_t)cols);
    c->low = malloc(sizeof(float) * 2 * (size_t)cells);
    c->busy = malloc((size_t)tile_cols + 1);
    int done = c->flow && c->lerped && c->columns && c->low && c->busy;
    if (done) {
        c->high = c->low + cells;
        for (int y = 0; y < block_rows; y++)
            for (int x = 0; x < 2 * block_cols; x++)
                c->flow[(Py_ssize_t)y * 2 * block_cols + x] = limit(floats_at(&c->vectors, y)[x], -FAR, FAR);
        for (int x = 0; x < cols; x++) {
            float u = limit(((float)x + 0.5f) / (float)c->block - 0.5f, 0, (float)(block_cols - 1));
            int left = least((int)u, block_cols - 1);
            c->columns[x] = (ColumnPair){left, least(left + 1, block_cols - 1), u - (float)left};
        }
        cell_extremes(&c->probability, cell_rows, cell_cols, c->low, c->high);
        for (int ty = 0; ty < tile_rows; ty++) {
            for (int tx = 0; tx < tile_cols; tx++) {
                c->busy[tx] = (unsigned char)tile_differs(c, ty, tx, cell_cols, block_rows, block_cols);
                if (!c->busy[tx])
                    tile_copy(c, ty, tx, block_rows, block_cols);
            }
            for (int tx = 0; tx < tile_cols;) {
                int end = tx;
                while (end < tile_cols && end - tx < SPAN_TILES && c->busy[end])
                    end++;
                if (end > tx)
                    span_carry(c, ty, tx, end, block_rows, block_cols);
                tx = end > tx ? end : tx + 1;
            }
        }
    }
    free(c->flow);
    free(c->lerped);
    free(c->columns);
    free(c->low);
    free(c->busy);
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
} Update;

/* The filter step of one row of tiles; marks the tiles where the masks disagree. */
WIDE static void tiles_fuse(const Update *u, int ty, unsigned char *busy)
{
    int rows = (int)u->luma.rows, cols = (int)u->luma.cols, y1 = least((ty + 1) * TILE, rows);
    for (int y = ty * TILE; y < y1; y++) {
        const float *restrict p = floats_at(&u->probability, y), *restrict q = floats_at(&u->variance, y);
        const float *restrict z = floats_at(&u->measured, y), *restrict r = floats_at(&u->measured_variance, y);
        float *restrict op = floats_at(&u->out_probability, y), *restrict oq = floats_at(&u->out_variance, y);
        for (int x = 0; x < cols; x++) {
            float gain = q[x] / (q[x] + r[x]);
            op[x] = p[x] + gain * (z[x] - p[x]);
            oq[x] = q[x] - gain * q[x];
        }
    }
    for (int tx = 0; tx * TILE < cols; tx++) {
        int x1 = least((tx + 1) * TILE, cols);
        float most = 0;
        for (int y = ty * TILE; y < y1; y++) {
            const float *restrict p = floats_at(&u->probability, y), *restrict z = floats_at(&u->measured, y);
            for (int x = tx * TILE; x < x1; x++) {
                float d = fabsf(z[x] - p[x]);
                most = d > most ? d : most;
            }
        }
        busy[tx] = most > SURE;
    }
}

WIDE static void span_smooth(const Update *u, int ty, int tx0, int tx1, Plane *fused)
{
    int rows = (int)u->luma.rows, cols = (int)u->luma.cols;
    int y0 = ty * TILE, x0 = tx0 * TILE, height = least(TILE, rows - y0), width = least(tx1 * TILE, cols) - x0;
    static const float ninth = 1.0f / 9;
    Colours own;
    Buffer values, innovation;
    int coloured = u->scales.chroma > 0;
    float alike[BUFFER];
    int count = width + 2 * RADIUS;
    for (int j = 0; j < height + 2 * RADIUS; j++) {
        int y = clamp(y0 + j - RADIUS, 0, rows - 1);
        const float *v = floats_at(fused, y), *p = floats_at(&u->probability, y), *z = floats_at(&u->measured, y);
        row_of_bytes(&u->luma, y, x0 - RADIUS, count, own.y.rows[j]);
        if (coloured) {
            row_of_bytes(&u->chroma_u, y, x0 - RADIUS, count, own.u.rows[j]);
            row_of_bytes(&u->chroma_v, y, x0 - RADIUS, count, own.v.rows[j]);
        }
        for (int i = 0; i < count; i++) {
            int x = clamp(x0 + i - RADIUS, 0, cols - 1);
            values.rows[j][i] = v[x];
            innovation.rows[j][i] = fabsf(z[x] - p[x]);
        }
    }
    for (int j = 0; j < height; j++) {
        float *restrict out = floats_at(&u->out_probability, y0 + j) + x0;
        const float *restrict here = innovation.rows[j + RADIUS] + RADIUS, *restrict up = innovation.rows[j + RADIUS - 1] + RADIUS,
                    *restrict down = innovation.rows[j + RADIUS + 1] + RADIUS, *restrict v = values.rows[j + RADIUS] + RADIUS;
        mean_of_alike(&own, &own, &values, j, width, u->scales, alike);
        for (int x = 0; x < width; x++) {
            float d = ((up[x - 1] + up[x] + up[x + 1]) + (here[x - 1] + here[x] + here[x + 1]) + (down[x - 1] + down[x] + down[x + 1])) * ninth;
            out[x] = limit(v[x] + d / (d + u->repeat) * (alike[x] - v[x]), 0, 1);
        }
    }
}

static int update_run(Update *u)
{
    int rows = (int)u->luma.rows, cols = (int)u->luma.cols;
    int tile_rows = (rows + TILE - 1) / TILE, tile_cols = (cols + TILE - 1) / TILE;
    unsigned char *busy = malloc((size_t)tile_rows * (size_t)tile_cols);
    float *values = malloc(sizeof(float) * (size_t)rows * (size_t)cols);
    int done = busy && values;
    if (done) {
        /* Windows reach into neighbours: they must see what was fused, not what is smoothed already. */
        Plane fused = {.data = (unsigned char *)values, .rows = rows, .cols = cols, .stride = (Py_ssize_t)sizeof(float) * cols};
        for (int ty = 0; ty < tile_rows; ty++)
            tiles_fuse(u, ty, busy + (Py_ssize_t)ty * tile_cols);
        for (int y = 0; y < rows; y++)
            memcpy(floats_at(&fused, y), floats_at(&u->out_probability, y), sizeof(float) * (size_t)cols);
        for (int ty = 0; ty < tile_rows; ty++)
            for (int tx = 0; tx < tile_cols;) {
                const unsigned char *row = busy + (Py_ssize_t)ty * tile_cols;
                int end = tx;
                while (end < tile_cols && end - tx < SPAN_TILES && row[end])
                    end++;
                if (end > tx)
                    span_smooth(u, ty, tx, end, &fused);
                tx = end > tx ? end : tx + 1;
            }
    }
    free(busy);
    free(values);
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
