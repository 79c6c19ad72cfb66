/* The update of a mask by a measured one, and its smoothing along the edges of the picture: edge_seg/kalman_reference.py
 * says what is computed. Smoothed is only where the two masks disagree: rows of bits (_bits.h) say where that is.
 *
 * One row of tiles after the other goes through all of it: what the background says of the measured mask (_plate.h), the
 * filter, and one row of tiles later each: where the masks disagree, what windows see, the smoothing.
 */
#include "_bits.h"
#include "_fusion.h"
#include "_plate.h"

#define REACH 4              /* of the window */
#define CALM (3.0f / 64)     /* masks that differ by less, over 3x3, are not smoothed */
#define NOTHING 1e-6f
/* Rows that are kept: */
#define GAP_ROWS (5 * TILE)     /* from one above those that are smoothed to those that are filtered */
#define WINDOW_ROWS (3 * TILE)  /* those that are smoothed, and what their windows reach */

/* 13 elements, scattered over 9x9: the model errs in blobs, not in single elements. */
#define SCATTER(TAP) \
    TAP(-4, -1, 1) TAP(-3, -3, 1) TAP(-3, 3, 1) TAP(-2, 1, 1) TAP(-1, -2, 1) TAP(-1, 4, 1) \
    TAP(0, 0, 1) \
    TAP(1, -4, 1) TAP(1, 2, 1) TAP(2, -1, 1) TAP(3, -3, 1) TAP(3, 3, 1) TAP(4, 1, 1)

MEAN_OF_ALIKE(mean_around, SCATTER, REACH)

typedef struct {
    Plane luma, probability, variance, measured, measured_variance, out_probability;
    Plane chroma_u, chroma_v;
    Scales scales;
    float noise, noise_floor, repeat;
    float chroma;
    Background *background;  /* or NULL */
    Seen seen;               /* by the background */
    int rows, cols, tile_rows;
    int words;               /* from one row of bits to the next */
    /* scratch; rows that are kept lie modulo their number */
    uint64_t *near;          /* of each row of tiles: the columns in which an element is measured to be other than it was carried */
    uint64_t *busy;          /* of each row: where the masks disagree */
    uint64_t *column, *found;   /* for the moment: a row each */
    int *starts;             /* of strips or spans of a row */
    float *weighed;          /* TILE rows: the measured mask after the background was asked; NULL if it was not */
    float *gap;              /* GAP_ROWS: how far the masks differ, with a rim of 1 */
    float *window;           /* WINDOW_ROWS: what windows see (_fusion.h), with a rim of REACH */
    float *alike;            /* of strips of a row */
    Py_ssize_t stride, plane;
} Update;

static inline float *measured_at(const Update *u, int y)
{
    return u->weighed ? u->weighed + y % TILE * u->stride : floats_at(&u->measured, y);
}

static inline float *gap_at(const Update *u, int y) { return u->gap + clamp(y, 0, u->rows - 1) % GAP_ROWS * u->stride; }
static inline float *window_at(const Update *u, int y) { return u->window + clamp(y, 0, u->rows - 1) % WINDOW_ROWS * PLANES * u->plane; }

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

INLINED void row_step(const float *restrict p, const float *restrict z, const float *restrict r, int cols, float noise, float noise_floor,
                      float *restrict q, float *restrict out, float *restrict gap)
{
    for (int x = 0; x < cols; x++) {
        float gain = q[x] / (q[x] + (r ? r[x] : uncertainty_of(z[x], noise, noise_floor))), innovation = z[x] - p[x];
        out[x] = fused_of(p[x], gain, innovation);
        q[x] -= gain * q[x];
        gap[x] = fabsf(innovation);
    }
}

/* One step of the filter. Without a variance of its own (r = NULL) the measured mask has that of its probabilities. */
WIDE static void row_fuse(const float *p, const float *z, const float *r, int cols, float noise, float noise_floor, float *q, float *out,
                          float *gap)
{
    if (r)
        row_step(p, z, r, cols, noise, noise_floor, q, out, gap);
    else
        row_step(p, z, NULL, cols, noise, noise_floor, q, out, gap);
    row_rim(gap, cols, 1);
}

INLINED float greatest(float a, float b) { return a > b ? a : b; }

/* The columns of four rows in which an element is above CALM, as bits. Four strips at once: adding up lanes is slow. */
WIDE static void near_mark(const float *restrict a, const float *restrict b, const float *restrict c, const float *restrict d, int cols,
                           uint64_t *restrict near)
{
#define ABOVE(i) (greatest(greatest(a[i], b[i]), greatest(c[i], d[i])) > CALM)
    for (int x = 0; x < cols; x += 4 * STRIP) {
        int32_t flags[STRIP];
        EACH_LANE(i, STRIP) {
            flags[i] = ABOVE(x + i) ? bit_of[i] : 0;
            flags[i] |= ABOVE(x + STRIP + i) ? bit_of[i] << STRIP : 0;
            flags[i] |= ABOVE(x + 2 * STRIP + i) ? bit_of[i] << 2 * STRIP : 0;
            flags[i] |= ABOVE(x + 3 * STRIP + i) ? (int32_t)((uint32_t)bit_of[i] << 3 * STRIP) : 0;
        }
        bits_set(near, x, (uint32_t)bits_of(flags) & bits_below(cols - x));
    }
#undef ABOVE
}

static void tile_row_fuse(const Update *u, int ty)
{
    const int y0 = ty * TILE, y1 = least(y0 + TILE, u->rows);
    if (u->background) {
        float *const weighed[TILE] = {measured_at(u, y0), measured_at(u, y0 + 1), measured_at(u, y0 + 2), measured_at(u, y0 + 3)};
        background_weigh(u->background, &u->seen, y0, weighed);
    }
    for (int y = y0; y < y1; y++)
        row_fuse(floats_at(&u->probability, y), measured_at(u, y), u->measured_variance.data ? floats_at(&u->measured_variance, y) : NULL,
                 u->cols, u->noise, u->noise_floor, floats_at(&u->variance, y), floats_at(&u->out_probability, y), gap_at(u, y));
    near_mark(gap_at(u, y0), gap_at(u, y0 + 1), gap_at(u, y0 + 2), gap_at(u, y0 + 3), u->cols, u->near + ty * u->words);
}

/* How far the masks disagree: the mean of 3x3, but for what is calm. */
INLINED float disagreement_of(const float *up, const float *here, const float *down, Py_ssize_t x)
{
    static const float ninth = 1.0f / 9;
    return ((up[x - 1] + up[x] + up[x + 1]) + (here[x - 1] + here[x] + here[x + 1]) + (down[x - 1] + down[x] + down[x + 1])) * ninth - CALM;
}

/* Marks where they do, looking at strips of a row. */
WIDE static void row_compare(const float *restrict up, const float *restrict here, const float *restrict down, const int *restrict starts,
                             int count, int cols, uint64_t *restrict busy)
{
    for (int n = 0; n < count; n++) {
        const int x = starts[n];
        int32_t flags[STRIP];
        EACH_LANE(i, STRIP)
            flags[i] = disagreement_of(up, here, down, x + i) > 0 ? bit_of[i] : 0;
        bits_set(busy, x, (uint64_t)bits_of(flags) & bits_below(cols - x));
    }
}

/* The mean of 3x3 is above CALM only where one of the nine is. */
static void tile_row_compare(const Update *u, int ty)
{
    const int top = ty > 0 ? ty - 1 : 0, bottom = least(ty + 1, u->tile_rows - 1);
    bits_near(u->near + top * u->words, bottom - top + 1, u->words, 1, u->column, u->found);
    const int count = bits_runs(u->found, u->cols, STRIP, u->starts);
    for (int y = ty * TILE; y < least((ty + 1) * TILE, u->rows); y++)
        row_compare(gap_at(u, y - 1), gap_at(u, y), gap_at(u, y + 1), u->starts, count, u->cols, u->busy + y * u->words);
}

/* What windows see of spans of a row. */
WIDE static void row_unpack(const Update *u, int y, const int *restrict starts, int count)
{
    const int cols = u->cols, at_rim = starts[0] == 0 || starts[count - 1] + SPAN >= cols;
    float *row = window_at(u, y);
    spans_unpack(bytes_at(&u->luma, y), starts, count, cols, row + LUMA * u->plane);
    if (u->scales.chroma > 0) {
        spans_unpack(bytes_at(&u->chroma_u, y), starts, count, cols, row + CHROMA_U * u->plane);
        spans_unpack(bytes_at(&u->chroma_v, y), starts, count, cols, row + CHROMA_V * u->plane);
    }
    spans_copy(floats_at(&u->out_probability, y), starts, count, cols, row + VALUES * u->plane);
    for (int i = 0; at_rim && i < PLANES; i++)
        row_rim(row + i * u->plane, cols, REACH);
}

/* The same of a row of tiles, of which nothing is smoothed yet. */
static void tile_row_unpack(const Update *u, int ty)
{
    const int first = (ty > 0 ? ty - 1 : 0) * TILE, last = least((ty + 2) * TILE, u->rows) - 1;
    bits_near(u->busy + first * u->words, last - first + 1, u->words, REACH, u->column, u->found);
    const int count = bits_runs(u->found, u->cols, SPAN, u->starts);
    for (int y = ty * TILE; count > 0 && y < least((ty + 1) * TILE, u->rows); y++)
        row_unpack(u, y, u->starts, count);
}

/* Where the masks do not disagree a strip keeps what it has: there not all that windows see is known. */
WIDE static void row_blend(const float *up, const float *here, const float *down, const int *starts, int count, int cols, float repeat, float zero,
                       const float *restrict alike, float *out)
{
    for (int n = 0; n < count; n++) {
        const int x = starts[n];
        float smoothed[STRIP];
        strip_copy(smoothed, out + x, cols - x);
        EACH_LANE(i, STRIP) {
            float fused = smoothed[i], share = disagreement_of(up, here, down, x + i);
            float nearer = fused + share / (share + repeat) * (alike[n * STRIP + i] - fused);
            nearer = nearer > zero ? nearer : zero;
            nearer = nearer < 1 ? nearer : 1;
            smoothed[i] = share > 0 ? nearer : fused;
        }
        strip_copy(out + x, smoothed, cols - x);
    }
}

/* `rows` are those that windows reach, `gaps` those of 3x3. */
static void row_smooth(const Update *u, const float *const rows[2 * REACH + 1], const float *const gaps[3], int y)
{
    const int count = bits_runs(u->busy + y * u->words, u->cols, STRIP, u->starts);
    if (count == 0)
        return;
    const float *own = rows[REACH];
    mean_around(own + LUMA * u->plane, own + CHROMA_U * u->plane, own + CHROMA_V * u->plane, rows, u->starts, count, u->plane, u->scales,
                u->alike);
    row_blend(gaps[0], gaps[1], gaps[2], u->starts, count, u->cols, u->repeat, u->scales.zero, u->alike, floats_at(&u->out_probability, y));
}

static void tile_row_smooth(const Update *u, int ty)
{
    const int y0 = ty * TILE;
    const float *rows[TILE + 2 * REACH], *gaps[TILE + 2];
    for (int j = 0; j < TILE + 2 * REACH; j++)
        rows[j] = window_at(u, y0 - REACH + j);
    for (int j = 0; j < TILE + 2; j++)
        gaps[j] = gap_at(u, y0 - 1 + j);
    for (int y = y0; y < least(y0 + TILE, u->rows); y++)
        row_smooth(u, rows + y - y0, gaps + y - y0, y);
}

/* Each step needs what the one before it finds a row of tiles further down. */
static void rows_run(const Update *u)
{
    void (*const steps[])(const Update *, int) = {tile_row_fuse, tile_row_compare, tile_row_unpack, tile_row_smooth};
    const int count = sizeof steps / sizeof steps[0];
    for (int ty = 0; ty < u->tile_rows + count - 1; ty++)
        for (int i = 0; i < count; i++)
            if (ty - i >= 0 && ty - i < u->tile_rows)
                steps[i](u, ty - i);
}

static int update_run(Update *u)
{
    u->tile_rows = (u->rows + TILE - 1) / TILE;
    u->words = bits_words(u->cols);
    u->stride = u->cols + 2 + 4 * STRIP;
    u->plane = plane_of(u->cols, REACH);
    u->seen = (Seen){&u->luma, &u->chroma_u, &u->chroma_v, &u->probability, &u->measured, &u->measured_variance, u->chroma, u->rows, u->cols};
    const size_t stride = (size_t)u->stride, window = WINDOW_ROWS * PLANES * (size_t)u->plane;
    const size_t words = (size_t)u->words, rows_of_bits = (size_t)u->tile_rows + (size_t)u->rows + 2;
    float *floats = malloc(sizeof(float) * (window + (GAP_ROWS + TILE + 1) * stride));
    uint64_t *bits = calloc(rows_of_bits * words, sizeof(uint64_t));
    u->starts = malloc(sizeof(int) * (size_t)(u->cols / STRIP + 1));
    int done = floats && bits && u->starts;
    if (u->background && background_begin(u->background, &u->seen, u->noise) < 0)
        done = 0;
    if (done) {
        u->window = floats + REACH;
        u->gap = floats + window + 1;
        u->weighed = u->background ? floats + window + GAP_ROWS * stride : NULL;
        u->alike = floats + window + (GAP_ROWS + TILE) * stride;
        u->near = bits + 1;
        u->busy = u->near + u->tile_rows * u->words;
        u->column = u->busy + u->rows * u->words;
        u->found = u->column + u->words;
        rows_run(u);
    }
    if (u->background)
        background_end(u->background, &u->seen, done);
    free(u->starts);
    free(bits);
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
