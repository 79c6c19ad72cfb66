/* The matte's local colour models: for each grid node in the band, the linear function of the colour that best
 * explains the mask in the window around it. edge_seg/matte.py explains the method and holds the reference in
 * NumPy and OpenCV; both differ by rounding only.
 *
 * Fits are made on the half grid: every other node of every other row of the mask's grid. What the band needs is
 * computed in tiles: 8 nodes of one row, which begin wherever the row has the next needed node, so that an edge
 * mostly takes one tile. Tiles have one length, so that every loop vectorises; what they compute beyond the needed
 * nodes is never looked at. Rows are padded, so that no tile and no window of one ends in mid-air.
 *
 * A pass finds what there is to do (_matte_survey.h); then one row of the half grid after the other is learnt
 * (_matte_moments.h), fitted (_matte_fit.h), and averaged and spread over the full grid (_matte_fields.h). What they share
 * is in _matte_work.h and _matte_lanes.h.
 */
#include "_matte_fields.h"
#include "_matte_fit.h"
#include "_matte_moments.h"
#include "_matte_survey.h"

static void one_pass(const Task *t, const Work *w, const Plane *mask, const Plane *colours, const Result *r)
{
    memset(w->fields - LEFT, 0, sizeof(float) * 2 * FIELDS * (size_t)w->stride);
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
