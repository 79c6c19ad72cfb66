/* The small picture in one pass: halvings by 2x2 means and one bilinear step, row by row, so that every line is used
 * while it is in the nearest cache.
 *
 * The arithmetic is OpenCV's of cv2.resize (INTER_AREA by two; INTER_LINEAR on bytes, 11 bits of weight), which
 * edge_seg/pyramid.py uses where this was not built: the tests hold both to be within one code value, on x86-64 they are
 * equal. (OpenCV 4.11 for arm64 is wrong where one side is stretched and the other is not; the formula is what counts.)
 */
#include "_buffers.h"
#include <math.h>

#define LANES 8          /* pixels that are made at once in the bilinear step */
#define WEIGHT_ONE 2048
#define MAX_HALVINGS 6
#define MAX_SIDE 16384
#define PADDING 32       /* bytes behind a line that may be read, but do not matter */

/* Eight pixels come from between two of 16 bytes from `start` on, and two of those from start + 1 on: near +
 * fraction * step / 65536 with fraction in [-1/2, 1/2), counted from the nearer one. Each place stands there twice, for both
 * bytes of a 16-bit element. */
typedef struct {
    int16_t fraction[LANES];
    uint8_t at[2 * LANES], near[2 * LANES]; /* `near` counts from `start`, too */
    int start;
} Taps;

typedef struct {
    int cols, rows, halvings; /* of the source, and how often it is halved */
    int mid_cols, mid_rows, out_cols, out_rows;
    int shuffles;             /* whether bytes of a register can be looked up at once */
    uint8_t *lines[MAX_HALVINGS + 1][2]; /* after so many halvings: the newest pair */
    int16_t *wide[2];         /* two lines at the columns of the output, times 128 */
    int wide_row[2];
    Taps *taps;
} Work;

WIDE static void halve(const uint8_t *restrict above, const uint8_t *restrict below, uint8_t *restrict out, int count)
{
    for (int x = 0; x < count; x++) { /* two neighbours at once, in either order */
        uint16_t a, b;
        memcpy(&a, above + 2 * x, sizeof a);
        memcpy(&b, below + 2 * x, sizeof b);
        out[x] = (uint8_t)((uint16_t)((a & 255) + (a >> 8) + (b & 255) + (b >> 8) + 2) >> 2);
    }
}

#define SOURCE_ROW(plane, y) ((plane)->data + (Py_ssize_t)(y) * (plane)->stride)

/* A line after `level` halvings, in `into`; of none, in the source. */
static const uint8_t *line(const Work *w, const Plane *source, int level, int row, uint8_t *into)
{
    if (level == 0)
        return SOURCE_ROW(source, row);
    const uint8_t *above = line(w, source, level - 1, 2 * row, w->lines[level - 1][0]);
    const uint8_t *below = line(w, source, level - 1, 2 * row + 1, w->lines[level - 1][1]);
    halve(above, below, into, w->cols >> level);
    return into;
}

/* Where sample i of `count` lies among `size`: between the one that is returned, which may be -1, and the next. */
static int place(int i, int count, int size, int16_t weights[2])
{
    const double scale = 1.0 / ((double)count / size);
    float at = (float)((i + 0.5) * scale - 0.5);
    int first = (int)floorf(at);
    float part = at - (float)first;
    weights[0] = (int16_t)rintf((1.0f - part) * WEIGHT_ONE);
    weights[1] = (int16_t)rintf(part * WEIGHT_ONE);
    return first;
}

static void taps_init(const Work *w)
{
    for (int block = 0; block * LANES < w->out_cols; block++) {
        Taps *taps = &w->taps[block];
        for (int i = 0; i < LANES; i++) {
            int x = block * LANES + i < w->out_cols ? block * LANES + i : w->out_cols - 1;
            int16_t weights[2];
            int first = place(x, w->out_cols, w->mid_cols, weights);
            if (first < 0 || first >= w->mid_cols - 1)
                first = first < 0 ? 0 : w->mid_cols - 1, weights[1] = 0;
            if (i == 0)
                taps->start = first;
            const int second = weights[1] >= WEIGHT_ONE / 2;
            taps->at[2 * i] = taps->at[2 * i + 1] = (uint8_t)(first - taps->start);
            taps->near[2 * i] = taps->near[2 * i + 1] = (uint8_t)(first - taps->start + second);
            taps->fraction[i] = (int16_t)((weights[1] - second * WEIGHT_ONE) * (65536 / WEIGHT_ONE));
        }
    }
}

INLINED void look_up(const uint8_t *line, const uint8_t at[2 * LANES], int shuffles, int16_t out[LANES])
{
#if defined(__GNUC__) && !defined(__clang__)
    typedef uint8_t Bytes __attribute__((vector_size(2 * LANES)));
    if (shuffles) {
        Bytes table, index;
        memcpy(&table, line, sizeof table);
        memcpy(&index, at, sizeof index);
        table = __builtin_shuffle(table, index);
        memcpy(out, &table, sizeof table);
        for (int i = 0; i < LANES; i++)
            out[i] &= 255;
        return;
    }
#endif
    (void)shuffles;
    for (int i = 0; i < LANES; i++)
        out[i] = line[at[2 * i]];
}

INLINED void stretch_line(const Work *w, const uint8_t *line, int16_t *out, const int shuffles)
{
    for (int block = 0; block * LANES < w->out_cols; block++) {
        const Taps *taps = &w->taps[block];
        int16_t left[LANES], right[LANES], near[LANES];
        look_up(line + taps->start, taps->at, shuffles, left);
        look_up(line + taps->start + 1, taps->at, shuffles, right);
        look_up(line + taps->start, taps->near, shuffles, near);
        int16_t value[LANES];
        for (int i = 0; i < LANES; i++)
            value[i] = (int16_t)((near[i] << 7) + (((int16_t)((right[i] - left[i]) * 128) * taps->fraction[i]) >> 16));
        memcpy(out + block * LANES, value, sizeof value);
    }
}

WIDE static void stretch(const Work *w, const uint8_t *line, int16_t *out)
{
    if (w->shuffles)
        stretch_line(w, line, out, 1);
    else
        stretch_line(w, line, out, 0);
}

WIDE static void mix(const int16_t *restrict above, const int16_t *restrict below, int16_t a, int16_t b, uint8_t *restrict out, int count)
{
    for (int x = 0; x < count; x++)
        out[x] = (uint8_t)((int16_t)((int16_t)((above[x] * a) >> 16) + (int16_t)((below[x] * b) >> 16) + 2) >> 2);
}

/* The line at the output's columns, in one of the two places that are kept. */
static const int16_t *wide_line(Work *w, const Plane *source, int row, int other)
{
    for (int k = 0; k < 2; k++)
        if (w->wide_row[k] == row)
            return w->wide[k];
    int k = w->wide_row[0] == other ? 1 : 0;
    uint8_t *into = w->lines[w->halvings][0];
    const uint8_t *from = line(w, source, w->halvings, row, into);
    if (from != into) /* it may be read past its end */
        from = memcpy(into, from, (size_t)w->mid_cols);
    stretch(w, from, w->wide[k]);
    w->wide_row[k] = row;
    return w->wide[k];
}

static void shrink(Work *w, const Plane *source, const Plane *out)
{
    if (w->mid_cols == w->out_cols && w->mid_rows == w->out_rows) {
        for (int y = 0; y < w->out_rows; y++) {
            uint8_t *to = SOURCE_ROW(out, y);
            const uint8_t *from = line(w, source, w->halvings, y, to);
            if (from != to)
                memcpy(to, from, (size_t)w->out_cols);
        }
        return;
    }
    for (int y = 0; y < w->out_rows; y++) {
        int16_t weights[2];
        int first = place(y, w->out_rows, w->mid_rows, weights), second = first + 1 < w->mid_rows ? first + 1 : w->mid_rows - 1;
        first = first < 0 ? 0 : first < w->mid_rows ? first : w->mid_rows - 1;
        const int16_t *above = wide_line(w, source, first, second), *below = wide_line(w, source, second, first);
        mix(above, below, weights[0], weights[1], SOURCE_ROW(out, y), w->out_cols);
    }
}

static void *work_create(Work *w)
{
    size_t bytes = 0, blocks = ((size_t)w->out_cols + LANES - 1) / LANES;
    for (int level = 0; level <= w->halvings; level++)
        bytes += 2 * ((size_t)(w->cols >> level) + PADDING);
    bytes += 2 * sizeof(int16_t) * LANES * blocks + sizeof(Taps) * blocks;
    char *memory = PyMem_Calloc(1, bytes + 64);
    if (memory == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    w->taps = (Taps *)(void *)memory;
    w->wide[0] = (int16_t *)(void *)(w->taps + blocks);
    w->wide[1] = w->wide[0] + LANES * blocks;
    uint8_t *cursor = (uint8_t *)(w->wide[1] + LANES * blocks);
    for (int level = 0; level <= w->halvings; level++)
        for (int k = 0; k < 2; k++) {
            w->lines[level][k] = cursor;
            cursor += (w->cols >> level) + PADDING;
        }
    w->wide_row[0] = w->wide_row[1] = -1;
#if defined(__x86_64__) && defined(__GNUC__)
    w->shuffles = __builtin_cpu_supports("avx2") != 0; /* what WIDE looks at */
#else
    w->shuffles = 1;
#endif
    taps_init(w);
    return memory;
}

static PyObject *pyramid_shrink(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *from, *to, *result = NULL;
    Plane source, out;
    Work w = {0};
    if (!PyArg_ParseTuple(args, "OOi", &from, &to, &w.halvings) || plane_get(&source, from, 'B', 0, "plane") < 0)
        return NULL;
    if (plane_get(&out, to, 'B', 1, "out") < 0)
        goto source_done;
    if (source.rows < 1 || source.cols < 1 || out.rows < 1 || out.cols < 1 || source.rows > MAX_SIDE || source.cols > MAX_SIDE ||
        w.halvings < 0 || w.halvings > MAX_HALVINGS) {
        PyErr_Format(PyExc_ValueError, "planes need sides of 1 to %d, and 0 to %d halvings", MAX_SIDE, MAX_HALVINGS);
        goto done;
    }
    w.cols = (int)source.cols, w.rows = (int)source.rows, w.out_cols = (int)out.cols, w.out_rows = (int)out.rows;
    w.mid_cols = w.cols >> w.halvings, w.mid_rows = w.rows >> w.halvings;
    if (w.mid_cols << w.halvings != w.cols || w.mid_rows << w.halvings != w.rows || w.mid_cols >= 2 * w.out_cols ||
        w.mid_rows >= 2 * w.out_rows || w.mid_cols < 1 || w.mid_rows < 1) {
        PyErr_Format(PyExc_ValueError, "%dx%d cannot be halved %d times and come within a factor of two of %dx%d", w.cols, w.rows,
                     w.halvings, w.out_cols, w.out_rows);
        goto done;
    }
    void *memory = work_create(&w);
    if (memory == NULL)
        goto done;
    Py_BEGIN_ALLOW_THREADS
    shrink(&w, &source, &out);
    Py_END_ALLOW_THREADS
    PyMem_Free(memory);
    result = Py_NewRef(Py_None);
done:
    plane_release(&out);
source_done:
    plane_release(&source);
    return result;
}

static PyMethodDef methods[] = {
    {"shrink", pyramid_shrink, METH_VARARGS, "shrink(plane, out, halvings): see edge_seg/pyramid.py"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_pyramid", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__pyramid(void) { return PyModule_Create(&module); }
