/* The update of a mask by a measured one, and its smoothing along the edges of the picture: edge_seg/kalman_reference.py
 * says what is computed. Smoothed are only tiles in which the two masks disagree.
 *
 * One row of tiles after the other goes through all of it: what the background says of the measured mask (_plate.h), the
 * filter, and the smoothing of the row before.
 */
#include "_fusion.h"
#include "_plate.h"

#define REACH 4              /* of the window */
#define CALM (3.0f / 64)     /* masks that differ by less, over 3x3, are not smoothed */
#define NOTHING 1e-6f
#define KEPT (4 * TILE)      /* rows of the weighed mask that are kept */

/* 13 elements, scattered over 9x9: the model errs in blobs, not in single elements. */
#define EACH (16.0f / 256)
#define SCATTER(TAP) \
    TAP(-4, -1, EACH) TAP(-3, -3, EACH) TAP(-3, 3, EACH) TAP(-2, 1, EACH) TAP(-1, -2, EACH) TAP(-1, 4, EACH) \
    TAP(0, 0, EACH) \
    TAP(1, -4, EACH) TAP(1, 2, EACH) TAP(2, -1, EACH) TAP(3, -3, EACH) TAP(3, 3, EACH) TAP(4, 1, EACH)

MEAN_OF_ALIKE(mean_around, SCATTER, PLANES)

typedef struct { int first, last; } Range;

typedef struct {
    Plane luma, probability, variance, measured, measured_variance, out_probability;
    Plane chroma_u, chroma_v;
    Scales scales;
    float noise, noise_floor, repeat;
    float chroma;
    Background *background;  /* or NULL */
    Seen seen;               /* by the background */
    int rows, cols, tile_rows, tile_cols;
    /* scratch */
    Range *near;             /* of each row of tiles: those in which an element is measured to be other than it was carried */
    unsigned char *busy;     /* of a row of tiles: whether the masks disagree there */
    float *most;             /* of each column of a row of tiles */
    float *apart;            /* how far the masks differ in a row, with a rim of 1 */
    float *sums[KEPT];       /* the same of three neighbours each, of the newest rows */
    float *weighed;          /* the newest rows of the measured mask after the background was asked; NULL if it was not */
    float *share;            /* how far they disagree: TILE rows */
    float *window;           /* what windows see (_fusion.h), from the element (0, 0) on, with a rim of REACH */
    Py_ssize_t stride, plane;
    int filled, compared;    /* rows before these are in `window`, and in `sums` */
} Update;

static inline float *measured_at(const Update *u, int y)
{
    return u->weighed ? u->weighed + y % KEPT * u->stride : floats_at(&u->measured, y);
}

/* The variance of a mask of the model. */
INLINED float uncertainty_of(float p, float noise, float noise_floor) { return noise * (noise_floor + 4.0f * (p * (1.0f - p))); }

WIDE static void row_uncertainty(const float *restrict p, int cols, float noise, float noise_floor, float *restrict out)
{
    for (int x = 0; x < cols; x++)
        out[x] = uncertainty_of(p[x], noise, noise_floor);
}

/* Without what is next to nothing: on its way to zero it would become a number that processors are slow with. */
INLINED float fused_of(float p, float gain, float innovation)
{
    float fused = p + gain * innovation;
    return fused > NOTHING ? fused : 0;
}

/* One step of the filter. Without a variance of its own (r = NULL) the measured mask has that of its probabilities. */
WIDE static void row_fuse(const Update *u, int y, float *restrict most)
{
    const float *restrict p = floats_at(&u->probability, y), *restrict z = measured_at(u, y);
    const float *restrict r = u->measured_variance.data ? floats_at(&u->measured_variance, y) : NULL;
    const float noise = u->noise, noise_floor = u->noise_floor;
    float *restrict out = floats_at(&u->out_probability, y), *restrict q = floats_at(&u->variance, y);
    if (r)
        for (int x = 0; x < u->cols; x++) {
            float gain = q[x] / (q[x] + r[x]), innovation = z[x] - p[x], apart = fabsf(innovation);
            out[x] = fused_of(p[x], gain, innovation);
            q[x] -= gain * q[x];
            most[x] = apart > most[x] ? apart : most[x];
        }
    else
        for (int x = 0; x < u->cols; x++) {
            float gain = q[x] / (q[x] + uncertainty_of(z[x], noise, noise_floor)), innovation = z[x] - p[x], apart = fabsf(innovation);
            out[x] = fused_of(p[x], gain, innovation);
            q[x] -= gain * q[x];
            most[x] = apart > most[x] ? apart : most[x];
        }
}

WIDE static void tile_row_fuse(const Update *u, int ty)
{
    memset(u->most, 0, sizeof(float) * (size_t)u->stride);
    for (int y = ty * TILE; y < least((ty + 1) * TILE, u->rows); y++)
        row_fuse(u, y, u->most);
    tiles_above(u->most, 0, u->cols, CALM, u->busy);
    Range near = {0, u->tile_cols - 1};
    while (near.first < u->tile_cols && !u->busy[near.first])
        near.first++;
    while (near.last >= 0 && !u->busy[near.last])
        near.last--;
    u->near[ty] = near;
}

/* The columns [x0, x1) of a row of tiles in which a mean over 3x3 can be above CALM: where any element is, there or beside. */
static void columns_near(const Update *u, int ty, int *x0, int *x1)
{
    int first = u->tile_cols, last = -1;
    for (int y = ty > 0 ? ty - 1 : 0; y <= least(ty + 1, u->tile_rows - 1); y++) {
        first = least(first, u->near[y].first);
        last = u->near[y].last > last ? u->near[y].last : last;
    }
    *x0 = first > 0 ? (first - 1) * TILE : 0;
    *x1 = last < 0 ? 0 : least((last + 2) * TILE, u->cols);
}

/* How far the masks differ in a row: the sums of three neighbours. */
INLINED void row_compare(const float *restrict z, const float *restrict p, int cols, float *restrict apart, float *restrict sums)
{
    for (int x = 0; x < cols; x++)
        apart[x] = fabsf(z[x] - p[x]);
    row_rim(apart, cols, 1);
    for (int x = 0; x < cols; x++)
        sums[x] = apart[x - 1] + apart[x] + apart[x + 1];
}

INLINED const float *sums_at(const Update *u, int y) { return u->sums[clamp(y, 0, u->rows - 1) % KEPT]; }

INLINED void row_share(const float *restrict up, const float *restrict here, const float *restrict down, int x0, int x1, float *restrict share,
                       float *restrict most)
{
    static const float ninth = 1.0f / 9;
    for (int x = x0; x < x1; x++) {
        float d = (up[x] + here[x] + down[x]) * ninth - CALM;
        d = d > 0 ? d : 0;
        share[x] = d;
        most[x] = d > most[x] ? d : most[x];
    }
}

/* How far the masks disagree in the columns [x0, x1) of a row of tiles; marks the tiles in which they do. */
WIDE static void shares_fill(Update *u, int ty, int x0, int x1)
{
    const int y0 = ty * TILE, y1 = least(y0 + TILE, u->rows), first = y0 > 0 ? y0 - 1 : 0;
    for (int y = u->compared > first ? u->compared : first; y < least(y1 + 1, u->rows); y++)
        row_compare(measured_at(u, y), floats_at(&u->probability, y), u->cols, u->apart, u->sums[y % KEPT]);
    u->compared = least(y1 + 1, u->rows);
    memset(u->most, 0, sizeof(float) * (size_t)u->stride);
    for (int y = y0; y < y1; y++)
        row_share(sums_at(u, y - 1), sums_at(u, y), sums_at(u, y + 1), x0, x1, u->share + (y - y0) * u->stride, u->most);
    memset(u->busy, 0, (size_t)u->tile_cols);
    tiles_above(u->most, x0, x1, 0, u->busy);
}

WIDE static void row_unpack(const unsigned char *restrict row, int cols, float *restrict out)
{
    row_of_bytes(row, cols, out);
    row_rim(out, cols, REACH);
}

/* The rows that windows of a row of tiles reach. None of them is smoothed yet, but those that were filled before. */
static void rows_unpack(Update *u, int ty)
{
    const int from = ty * TILE - REACH, to = least((ty + 1) * TILE, u->rows) + REACH;
    const size_t bytes = sizeof(float) * (size_t)u->cols;
    for (int y = from > u->filled ? from : u->filled; y < to; y++) {
        const int source = clamp(y, 0, u->rows - 1);
        float *row = u->window + y * PLANES * u->plane;
        if (y >= u->rows) { /* by now the last one may be smoothed */
            memcpy(row - REACH, row - (y - source) * PLANES * u->plane - REACH, sizeof(float) * (size_t)(PLANES * u->plane));
            continue;
        }
        row_unpack(bytes_at(&u->luma, source), u->cols, row + LUMA * u->plane);
        if (u->scales.chroma > 0) {
            row_unpack(bytes_at(&u->chroma_u, source), u->cols, row + CHROMA_U * u->plane);
            row_unpack(bytes_at(&u->chroma_v, source), u->cols, row + CHROMA_V * u->plane);
        }
        memcpy(row + VALUES * u->plane, floats_at(&u->out_probability, source), bytes);
        row_rim(row + VALUES * u->plane, u->cols, REACH);
    }
    u->filled = to;
}

/* The span of tiles [tx0, tx1) of tile row ty. */
WIDE static void span_smooth(const Update *u, int ty, int tx0, int tx1)
{
    const int x0 = tx0 * TILE, y0 = ty * TILE, y1 = least(y0 + TILE, u->rows), width = least(tx1 * TILE, u->cols) - x0;
    float alike[BUFFER];
    for (int y = y0; y < y1; y++) {
        const float *here = u->window + y * PLANES * u->plane + x0;
        const float *restrict fused = here + VALUES * u->plane, *restrict share = u->share + (y - y0) * u->stride + x0;
        float *restrict out = floats_at(&u->out_probability, y) + x0;
        mean_around(here, here + CHROMA_U * u->plane, here + CHROMA_V * u->plane, here, u->plane, width, u->scales, alike);
        for (int x = 0; x < width; x++)
            out[x] = limit(fused[x] + share[x] / (share[x] + u->repeat) * (alike[x] - fused[x]), 0, 1);
    }
}

static void tile_row_smooth(Update *u, int ty)
{
    int x0, x1;
    columns_near(u, ty, &x0, &x1);
    if (x1 <= x0)
        return;
    shares_fill(u, ty, x0, x1);
    if (!memchr(u->busy, 1, (size_t)u->tile_cols))
        return;
    rows_unpack(u, ty);
    for (int tx = 0; tx < u->tile_cols; tx++) {
        int end = tx;
        while (end < u->tile_cols && end - tx < SPAN_TILES && u->busy[end])
            end++;
        if (end > tx) {
            span_smooth(u, ty, tx, end);
            tx = end - 1;
        }
    }
}

static void rows_run(Update *u)
{
    for (int ty = 0; ty < u->tile_rows; ty++) {
        if (u->background) {
            float *const weighed[TILE] = {measured_at(u, ty * TILE), measured_at(u, ty * TILE + 1), measured_at(u, ty * TILE + 2),
                                          measured_at(u, ty * TILE + 3)};
            background_weigh(u->background, &u->seen, ty * TILE, weighed);
        }
        tile_row_fuse(u, ty);
        if (ty > 0)
            tile_row_smooth(u, ty - 1);
    }
    tile_row_smooth(u, u->tile_rows - 1);
}

static int update_run(Update *u)
{
    u->tile_rows = (u->rows + TILE - 1) / TILE;
    u->tile_cols = (u->cols + TILE - 1) / TILE;
    u->stride = u->cols + 2 * REACH + STRIP;
    u->plane = plane_of(u->cols, REACH);
    u->seen = (Seen){&u->luma, &u->chroma_u, &u->chroma_v, &u->probability, &u->measured, &u->measured_variance, u->chroma, u->rows, u->cols};
    const size_t stride = (size_t)u->stride, windows = (size_t)(u->rows + 2 * REACH) * PLANES * (size_t)u->plane + STRIP;
    float *floats = malloc(sizeof(float) * (windows + (2 * KEPT + TILE + 2) * stride));
    u->near = malloc(sizeof(Range) * (size_t)u->tile_rows);
    u->busy = malloc((size_t)u->tile_cols);
    int done = u->near && u->busy && floats;
    if (u->background && background_begin(u->background, &u->seen, u->noise) < 0)
        done = 0;
    if (done) {
        float *rest = floats + windows;
        u->window = floats + REACH * PLANES * u->plane + REACH;
        for (int i = 0; i < KEPT; i++)
            u->sums[i] = rest + i * u->stride;
        u->share = rest + KEPT * u->stride;
        u->most = rest + (KEPT + TILE) * u->stride;
        u->apart = rest + (KEPT + TILE + 1) * u->stride + 1;
        u->weighed = u->background ? rest + (KEPT + TILE + 2) * u->stride : NULL;
        u->filled = -REACH;
        u->compared = 0;
        rows_run(u);
    }
    if (u->background)
        background_end(u->background, &u->seen, done);
    free(u->busy);
    free(u->near);
    free(floats);
    return done ? 0 : -1;
}

static PyObject *kalman_update(PyObject *module, PyObject *args)
{
    (void)module;
    Update u;
    Background b;
    enum { MASKS = 8, ON_GRID = 12, SUMS = ON_GRID, ARRAYS };
    Argument a[ARRAYS] = {
        {NULL, &u.luma, 'B', READ, "luma"}, {NULL, &u.chroma_u, 'B', READ, "u"}, {NULL, &u.chroma_v, 'B', READ, "v"},
        {NULL, &u.probability, 'f', READ, "probability"}, {NULL, &u.variance, 'f', WRITE, "variance"},
        {NULL, &u.measured, 'f', READ, "measured"}, {NULL, &u.measured_variance, 'f', MAYBE, "measured_variance"},
        {NULL, &u.out_probability, 'f', WRITE, "out_probability"}, {NULL, &b.luma, 'B', WRITE, "plate luma"},
        {NULL, &b.u, 'B', WRITE, "plate u"}, {NULL, &b.v, 'B', WRITE, "plate v"}, {NULL, &b.seen, 'B', WRITE, "seen"},
        {NULL, &b.sums, 'd', WRITE, "sums"},
    };
    PyObject *plate;
    float like;
    if (!PyArg_ParseTuple(args, "(OOO)OOOOOfffffO", &a[0].array, &a[1].array, &a[2].array, &a[3].array, &a[4].array, &a[5].array,
                          &a[6].array, &a[7].array, &u.noise, &u.noise_floor, &like, &u.chroma, &u.repeat, &plate))
        return NULL;
    if (plate != Py_None && (!PyTuple_Check(plate) || !PyArg_ParseTuple(plate, "(OOO)OO;plate: expected ((y, u, v), seen, sums)", &a[8].array, &a[9].array, &a[10].array,
                                               &a[11].array, &a[12].array))) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_TypeError, "plate: expected ((y, u, v), seen, sums), or None");
        return NULL;
    }
    const int count = plate == Py_None ? MASKS : ARRAYS;
    if (arguments_get(a, count) < 0)
        return NULL;
    PyObject *result = NULL;
    if (one_grid(a, count < ON_GRID ? count : ON_GRID) < 0 || scales_get(&u.scales, like, u.chroma) < 0)
        goto end;
    if (count == ARRAYS && (b.sums.rows != 1 || b.sums.cols != 4)) {
        PyErr_SetString(PyExc_ValueError, "sums: expected shape (4,)");
        goto end;
    }
    u.background = count == ARRAYS ? &b : NULL;
    u.rows = (int)u.luma.rows;
    u.cols = (int)u.luma.cols;
    int failed;
    Py_BEGIN_ALLOW_THREADS
    failed = update_run(&u);
    Py_END_ALLOW_THREADS
    if (failed < 0)
        PyErr_NoMemory();
    else
        result = Py_NewRef(Py_None);
end:
    arguments_release(a, count);
    return result;
}

static PyObject *kalman_uncertainty(PyObject *module, PyObject *args)
{
    (void)module;
    Plane measured, variance;
    Argument a[] = {{NULL, &measured, 'f', READ, "measured"}, {NULL, &variance, 'f', WRITE, "variance"}};
    float noise, noise_floor;
    if (!PyArg_ParseTuple(args, "OOff", &a[0].array, &a[1].array, &noise, &noise_floor) || arguments_get(a, 2) < 0)
        return NULL;
    PyObject *result = NULL;
    if (one_grid(a, 2) == 0) {
        Py_BEGIN_ALLOW_THREADS
        for (int y = 0; y < (int)measured.rows; y++)
            row_uncertainty(floats_at(&measured, y), (int)measured.cols, noise, noise_floor, floats_at(&variance, y));
        Py_END_ALLOW_THREADS
        result = Py_NewRef(Py_None);
    }
    arguments_release(a, 2);
    return result;
}

static PyMethodDef methods[] = {
    {"uncertainty", kalman_uncertainty, METH_VARARGS, "uncertainty(measured, variance, noise, noise_floor)"},
    {"update", kalman_update, METH_VARARGS,
     "update((y, u, v), probability, variance, measured, measured_variance or None, out_probability, noise, "
     "noise_floor, like, chroma, repeat, ((y, u, v) plate, seen, sums) or None)"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_kalman", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__kalman(void) { return module_create(&module); }
