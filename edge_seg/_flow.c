/* Hierarchical block matching on 8-bit luma: where each block of the current picture stood in the previous one.
 *
 * All of the search is integer arithmetic, so that the NumPy reference (edge_seg/flow_reference.py) gives equal
 * vectors. Blocks do not read each other's results within a pass, for the same reason.
 *
 * A picture is prepared once (_flow_picture.h), matched to the pixel (_flow_search.h), then to a sixteenth of one
 * (_flow_subpixel.h), and where neighbours differ its blocks are divided (_flow_divide.h).
 */
#include "_flow_divide.h"
#include "_flow_picture.h"
#include "_flow_search.h"
#include "_flow_subpixel.h"
#include <stdlib.h>

#define SEARCH_MAX 16

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
