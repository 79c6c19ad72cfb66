/* Carrying a mask along block flow: edge_seg/carry_reference.py says what is computed.
 *
 * Nearly all of a mask is surely person or surely background. So the grid is cut into tiles; the costly part (what
 * colours the sources have, windows of alike colour) is for tiles whose windows hold a mask that differs, and that
 * do not show what they showed before. All is copied by rows first, and fetched where it moved.
 *
 * One row of tiles after the other goes through all of it: the mask is fetched (_carry_warp.h), and one row of tiles later
 * each: which tiles are worth it (_carry_tiles.h), what windows see (_carry_window.h), the result.
 */
#include "_carry_tiles.h"
#include "_carry_warp.h"
#include "_carry_window.h"

/* The diamond around an element: its 13 elements give what the 25 of the square gave. */
#define NEAR 1.0f
#define TIP 0.5f
#define DIAMOND(TAP) \
    TAP(-2, 0, TIP) \
    TAP(-1, -1, NEAR) TAP(-1, 0, NEAR) TAP(-1, 1, NEAR) \
    TAP(0, -2, TIP) TAP(0, -1, NEAR) TAP(0, 0, NEAR) TAP(0, 1, NEAR) TAP(0, 2, TIP) \
    TAP(1, -1, NEAR) TAP(1, 0, NEAR) TAP(1, 1, NEAR) \
    TAP(2, 0, TIP)

MEAN_OF_ALIKE(mean_near, DIAMOND, RADIUS)

/* Strips of a row; of each the first `lanes` are of busy tiles, the others keep what they have. */
WIDE static void row_blend(const float *const rows[3], Py_ssize_t plane, const int *restrict starts, const int *restrict lanes, int count,
                           int cols, const float *restrict alike, float exact, float drift, float misfit, float *p, float *q)
{
    static const float ninth = 1.0f / 9;
    const float *up = rows[0] + DIFFERENCE * plane, *here = rows[1] + DIFFERENCE * plane, *down = rows[2] + DIFFERENCE * plane;
    const float *m = rows[1] + VALUES * plane;
    exact *= exact;
    for (int n = 0; n < count; n++) {
        const int x = starts[n], busy = lanes[n];
        float mask[STRIP], variance[STRIP];
        strip_copy(mask, p + x, cols - x);
        strip_copy(variance, q + x, cols - x);
        EACH_LANE(i, STRIP) {
            const int k = x + i;
            float d = here[k] * here[k], share = d / (d + exact);
            float r = ((up[k - 1] + up[k] + up[k + 1]) + (here[k - 1] + here[k] + here[k + 1]) + (down[k - 1] + down[k] + down[k + 1])) * ninth;
            float carried = m[k] + share * (alike[n * STRIP + i] - m[k]), grown = variance[i] + (drift + misfit * r * r);
            mask[i] = i < busy ? carried : mask[i];
            variance[i] = i < busy ? grown : variance[i];
        }
        strip_copy(p + x, mask, cols - x);
        strip_copy(q + x, variance, cols - x);
    }
}

/* The colours of spans of a row of the picture. */
WIDE static void row_unpack(const Carry *c, int y, int count)
{
    const Plane *const planes[VALUES] = {&c->current, &c->current_u, &c->current_v};
    for (int i = 0; i < (c->scales.chroma > 0 ? VALUES : 1); i++)
        spans_unpack(bytes_at(planes[i], y), c->spans, count, c->cols, c->own[i]);
}

/* The busy tiles of a row of tiles. */
static void tile_row_carry(const Carry *c, int ty)
{
    const uint64_t *busy = c->busy + ty * c->words;
    const int y0 = ty * TILE, spans = runs_find(c, busy, SPAN, c->spans), strips = runs_find(c, busy, STRIP, c->starts);
    if (strips == 0)
        return;
    for (int n = 0; n < strips; n++)
        c->lanes[n] = bits_from(busy, c->starts[n] / TILE) & 2 ? STRIP : TILE;
    const float *rows[TILE + 2 * RADIUS];
    for (int j = 0; j < TILE + 2 * RADIUS; j++)
        rows[j] = window_at(c, y0 - RADIUS + j);
    for (int y = y0; y < least(y0 + TILE, c->rows); y++) {
        const float *const *reached = rows + y - y0;
        row_unpack(c, y, spans);
        mean_near(c->own[LUMA], c->own[CHROMA_U], c->own[CHROMA_V], reached, c->starts, strips, c->plane, c->scales, c->alike);
        row_blend(reached + 1, c->plane, c->starts, c->lanes, strips, c->cols, c->alike, c->exact, c->drift, c->misfit,
                  floats_at(&c->out_probability, y), floats_at(&c->out_variance, y));
    }
}

static void tile_row_finish(const Carry *c, int ty)
{
    variances_fetch(c, ty);
    tile_row_carry(c, ty);
}

/* Each step needs what the one before it finds a row of tiles further down. */
static void rows_run(const Carry *c)
{
    void (*const steps[])(const Carry *, int) = {tile_row_fetch, tile_row_mark, tile_row_unpack, tile_row_finish};
    const int count = sizeof steps / sizeof steps[0];
    for (int ty = 0; ty < c->tile_rows + count - 1; ty++)
        for (int i = 0; i < count; i++)
            if (ty - i >= 0 && ty - i < c->tile_rows)
                steps[i](c, ty - i);
}

static int carry_run(Carry *c)
{
    const int longer = c->rows > c->cols ? c->rows : c->cols;
    c->tile_rows = (c->rows + TILE - 1) / TILE;
    c->tile_cols = (c->cols + TILE - 1) / TILE;
    c->words = bits_words(c->tile_cols);
    c->plane = plane_of(c->cols, RADIUS);
    const size_t tiles = (size_t)c->tile_rows * (size_t)c->tile_cols, line = (size_t)c->cols + 2 * SLACK;
    const size_t window = WINDOW_ROWS * PER_ROW * (size_t)c->plane, words = (size_t)c->words, rows_of_bits = 2 * (size_t)c->tile_rows + 2;
    float *floats = malloc(sizeof(float) * (window + (4 + VALUES) * line));
    unsigned char *bytes = malloc(2 * tiles + (size_t)c->tile_cols * TILE);
    int16_t *vectors = malloc(sizeof(int16_t) * 2 * ((size_t)c->tile_cols + 1));
    uint64_t *bits = calloc(rows_of_bits * words, sizeof(uint64_t));
    int *indices = malloc(sizeof(int) * ((size_t)longer + 4 * (size_t)c->tile_cols));
    const int done = floats && bytes && vectors && bits && indices;
    if (done) {
        c->motion.block_of = indices;
        for (int i = 0; i < longer; i++)
            c->motion.block_of[i] = i / c->motion.block;
        c->starts = indices + longer;
        c->spans = c->starts + c->tile_cols;
        c->lanes = c->spans + c->tile_cols;
        c->middle = c->lanes + c->tile_cols;
        for (int tx = 0; tx < c->tile_cols; tx++)
            c->middle[tx] = c->motion.block_of[least(tx * TILE + TILE / 2, c->cols - 1)];
        c->window = floats + RADIUS;
        c->least = floats + window;
        c->most = c->least + line;
        c->growth = c->most + line;
        c->alike = c->growth + line;
        for (int i = 0; i < VALUES; i++)
            c->own[i] = c->alike + (i + 1) * line;
        c->kind = bytes;
        c->pair = bytes + tiles;
        c->changed = bytes + 2 * tiles;
        c->across = vectors;
        c->down = vectors + c->tile_cols + 1;
        c->still = bits + 1;
        c->busy = c->still + c->tile_rows * c->words;
        c->column = c->busy + c->tile_rows * c->words;
        c->found = c->column + c->words;
        rows_run(c);
    }
    free(indices);
    free(bits);
    free(vectors);
    free(bytes);
    free(floats);
    return done ? 0 : -1;
}

static PyObject *fusion_carry(PyObject *module, PyObject *args)
{
    (void)module;
    Carry c;
    enum { CURRENT, ON_GRID = 10, STEPS = ON_GRID, RESIDUAL, ARRAYS };
    Argument a[ARRAYS] = {
        {NULL, &c.current, 'B', READ, "current"}, {NULL, &c.current_u, 'B', READ, "current_u"},
        {NULL, &c.current_v, 'B', READ, "current_v"}, {NULL, &c.previous, 'B', READ, "previous"},
        {NULL, &c.previous_u, 'B', READ, "previous_u"}, {NULL, &c.previous_v, 'B', READ, "previous_v"},
        {NULL, &c.probability, 'f', READ, "probability"}, {NULL, &c.variance, 'f', READ, "variance"},
        {NULL, &c.out_probability, 'f', WRITE, "out_probability"}, {NULL, &c.out_variance, 'f', WRITE, "out_variance"},
        {NULL, &c.motion.steps, 'h', READ, "steps"}, {NULL, &c.residual, 'f', READ, "residual"},
    };
    float like, chroma;
    if (!PyArg_ParseTuple(args, "(OOO)(OOO)OOiOOOOfffff", &a[3].array, &a[4].array, &a[5].array, &a[0].array, &a[1].array,
                          &a[2].array, &a[STEPS].array, &a[RESIDUAL].array, &c.motion.block, &a[6].array, &a[7].array, &a[8].array,
                          &a[9].array, &like, &chroma, &c.exact, &c.drift, &c.misfit))
        return NULL;
    if (arguments_get(a, ARRAYS) < 0)
        return NULL;
    PyObject *result = NULL;
    const Plane *grid = &c.current;
    if (one_grid(a, ON_GRID) < 0)
        goto end;
    if (c.motion.block < 1 || c.motion.steps.rows != (grid->rows + c.motion.block - 1) / c.motion.block ||
        c.motion.steps.cols != 2 * ((grid->cols + c.motion.block - 1) / c.motion.block) || c.residual.rows != c.motion.steps.rows ||
        c.residual.cols * 2 != c.motion.steps.cols) {
        PyErr_Format(PyExc_ValueError, "steps and residual: not one for each block of %d pixels", c.motion.block);
        goto end;
    }
    if (scales_get(&c.scales, like, chroma) < 0)
        goto end;
    c.rows = c.motion.rows = (int)grid->rows;
    c.cols = c.motion.cols = (int)grid->cols;
    int failed;
    Py_BEGIN_ALLOW_THREADS
    failed = carry_run(&c);
    Py_END_ALLOW_THREADS
    if (failed < 0)
        PyErr_NoMemory();
    else
        result = Py_NewRef(Py_None);
end:
    arguments_release(a, ARRAYS);
    return result;
}

static PyMethodDef methods[] = {
    {"carry", fusion_carry, METH_VARARGS,
     "carry((y, u, v) previous, (y, u, v) current, steps, residual, block_px, probability, variance, "
     "out_probability, out_variance, like, chroma, exact, drift, misfit)"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_carry", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__carry(void) { return module_create(&module); }
