/* The small picture in one pass: halvings by 2x2 means and one bilinear step, row by row, so that every line is used
 * while it is in the nearest cache.
 *
 * The arithmetic is OpenCV's of cv2.resize (INTER_AREA by two; INTER_LINEAR on bytes, 11 bits of weight), which
 * edge_seg/pyramid.py uses where this was not built: the tests hold both to be within one code value, on x86-64 they are
 * equal. (OpenCV 4.11 for arm64 is wrong where one side is stretched and the other is not; the formula is what counts.)
 */
#include "_buffers.h"
#include <math.h>

#define LANES 8          /* pixels whose neighbours are looked up at once in the bilinear step */
#define WINDOW 16        /* bytes that these are among */
#define WEIGHT_ONE 2048
#define MAX_HALVINGS 6
#define MAX_SIDE 16384
#define MAX_OUT 4096     /* so that floats place pixels exactly enough to stay in their window */
#define MAX_PLANES 4

/* Where the two neighbours of LANES pixels are, from the start of a window: the nearer first. */
typedef struct {
    uint8_t at[LANES][2];
    Py_ssize_t start;
} Taps;

typedef struct {
    int above, below; /* lines of the halved picture */
    int16_t weights[2];
} RowTaps;

typedef struct {
    int cols, halvings;       /* of the source, and how often it is halved */
    int mid_cols, mid_rows, out_cols, out_rows;
    int shuffles;             /* whether bytes of a register can be looked up at once */
    uint8_t *lines[MAX_HALVINGS + 1][4]; /* after so many halvings: the newest */
    uint16_t *pairs;          /* the neighbours of each column of the output: near + 256 * far */
    int16_t *wide[2];         /* two lines at the columns of the output, times 128 */
    int wide_row[2];
    Taps *taps;               /* from here on for mid_cols x mid_rows, which the planes of a picture mostly share */
    int16_t *fractions;       /* each pixel is near + fraction * (near - far) / 65536, from -1/2 to 0 */
    RowTaps *row_taps;
} Work;

/* How often a plane has to be halved to come within a factor of two; -1 where a side is odd on the way, or the two sides
 * do not go together, or are too long: that is for cv2.resize. */
static int halvings_to(Py_ssize_t cols, Py_ssize_t rows, Py_ssize_t out_cols, Py_ssize_t out_rows)
{
    if (cols < 1 || rows < 1 || cols > MAX_SIDE || rows > MAX_SIDE || out_cols > MAX_OUT || out_rows > MAX_OUT)
        return -1;
    int count = 0;
    for (; cols >= 2 * out_cols || rows >= 2 * out_rows; count++, cols /= 2, rows /= 2)
        if (cols < 2 * out_cols || rows < 2 * out_rows || cols % 2 || rows % 2 || count == MAX_HALVINGS)
            return -1;
    return count;
}

#if defined(__GNUC__)
#define BLOCK 32 /* pixels that are made at once */
#define AHEAD 4  /* lines; so far before they are needed they are fetched, for no processor foresees which come next */

typedef uint16_t Lanes __attribute__((vector_size(32))); /* said so that compilers see whole registers */
typedef uint32_t Quads __attribute__((vector_size(32)));

/* The 2x2 means of 32 columns of two lines. */
INLINED void means(const uint8_t *above, const uint8_t *below, Lanes *out)
{
    Lanes a, b;
    memcpy(&a, above, sizeof a);
    memcpy(&b, below, sizeof b);
    *out = ((a & 255) + (a >> 8) + (b & 255) + (b >> 8) + 2) >> 2; /* two neighbours are one element, in either order */
}

/* Eight means of four of those, in the lower bytes. */
INLINED void means_of_means(const uint8_t *const rows[4], Py_ssize_t column, uint32_t out[8])
{
    Lanes above, below;
    means(rows[0] + column, rows[1] + column, &above);
    means(rows[2] + column, rows[3] + column, &below);
    above += below;
    Quads sums;
    memcpy(&sums, &above, sizeof sums);
    sums = (sums + (sums >> 16) + 2) >> 2;
    memcpy(out, &sums, sizeof sums);
}

/* From block to block; the last one overlaps where `count` is not a multiple of it. */
INLINED Py_ssize_t next_block(Py_ssize_t x, Py_ssize_t count)
{
    x += BLOCK;
    return x < count && x > count - BLOCK ? count - BLOCK : x;
}
#endif

WIDE static void halve(const uint8_t *const from[2], uint8_t *restrict out, Py_ssize_t count)
{
    const uint8_t *const above = from[0], *const below = from[1];
    Py_ssize_t x = 0;
#if defined(__GNUC__)
    const Py_ssize_t ahead = AHEAD * (below - above);
    for (; x <= count - BLOCK; x = next_block(x, count)) {
        uint16_t values[BLOCK];
        for (int i = 0; i < BLOCK; i += 16) {
            Lanes lanes;
            means(above + 2 * (x + i), below + 2 * (x + i), &lanes);
            memcpy(values + i, &lanes, sizeof lanes);
        }
        __builtin_prefetch(above + 2 * x + ahead);
        __builtin_prefetch(below + 2 * x + ahead);
        for (int i = 0; i < BLOCK; i++)
            out[x + i] = (uint8_t)values[i];
    }
#endif
    for (; x < count; x++)
        out[x] = (uint8_t)((above[2 * x] + above[2 * x + 1] + below[2 * x] + below[2 * x + 1] + 2) >> 2);
}

/* Two halvings, rounded as two: what lies between stays in registers. */
WIDE static void quarter(const uint8_t *const from[4], uint8_t *restrict out, Py_ssize_t count)
{
    const uint8_t *const rows[4] = {from[0], from[1], from[2], from[3]};
    Py_ssize_t x = 0;
#if defined(__GNUC__)
    const Py_ssize_t ahead = AHEAD * (rows[1] - rows[0]);
    for (; x <= count - BLOCK; x = next_block(x, count)) {
        uint32_t values[BLOCK];
        for (int i = 0; i < BLOCK; i += 8)
            means_of_means(rows, 4 * (x + i), values + i);
        for (int row = 0; row < 4; row++) {
            __builtin_prefetch(rows[row] + 4 * x + ahead);
            __builtin_prefetch(rows[row] + 4 * x + 64 + ahead);
        }
        for (int i = 0; i < BLOCK; i++)
            out[x + i] = (uint8_t)values[i];
    }
#endif
    for (; x < count; x++) {
        int sum = 2;
        for (int k = 0; k < 4; k++) {
            const uint8_t *above = rows[k & 2] + 4 * x + 2 * (k & 1), *below = rows[(k & 2) + 1] + 4 * x + 2 * (k & 1);
            sum += (above[0] + above[1] + below[0] + below[1] + 2) >> 2;
        }
        out[x] = (uint8_t)(sum >> 2);
    }
}

#define ROW(plane, y) ((plane)->data + (Py_ssize_t)(y) * (plane)->stride)

/* A line after `level` halvings, in `into`; of none, in the source. */
static const uint8_t *line(const Work *w, const Plane *source, int level, int row, uint8_t *into)
{
    if (level == 0)
        return ROW(source, row);
    const int step = level == 1 ? 1 : 2, count = 1 << step; /* halvings at once, and the lines they take */
    const uint8_t *from[4];
    for (int k = 0; k < count; k++)
        from[k] = line(w, source, level - step, row * count + k, w->lines[level - step][k]);
    if (step == 1)
        halve(from, into, w->cols >> level);
    else
        quarter(from, into, w->cols >> level);
    return into;
}

/* How many samples come to one of the result. */
static double scale_of(int from, int to) { return 1.0 / ((double)to / from); }

/* Where sample i of the result lies: between the one that is returned, which may be -1, and the next. */
INLINED int place(int i, double scale, int16_t weights[2])
{
    const float at = (float)((i + 0.5) * scale - 0.5);
    int first = (int)at;
    first -= (float)first > at;
    const float part = at - (float)first;
    weights[0] = (int16_t)lrintf((1.0f - part) * WEIGHT_ONE);
    weights[1] = (int16_t)lrintf(part * WEIGHT_ONE);
    return first;
}

INLINED int at_most(int value, int limit) { return value < limit ? value : limit; }
INLINED int at_least(int value, int limit) { return value > limit ? value : limit; }

INLINED int blocks(const Work *w) { return (w->out_cols + LANES - 1) / LANES; }

static void taps_init(Work *w)
{
    const int last_col = w->mid_cols - 1, last_row = w->mid_rows - 1;
    const double scale_x = scale_of(w->mid_cols, w->out_cols), scale_y = scale_of(w->mid_rows, w->out_rows);
    for (int i = 0; i < blocks(w) * LANES; i++) { /* the last block is filled up */
        Taps *taps = &w->taps[i / LANES];
        int16_t weights[2];
        int first = place(at_most(i, w->out_cols - 1), scale_x, weights);
        if (first < 0 || first >= last_col)
            first = first < 0 ? 0 : last_col, weights[1] = 0;
        if (i % LANES == 0)
            taps->start = at_least(at_most(first, w->mid_cols - WINDOW), 0);
        const int second = at_most(first + 1, last_col), is_second = weights[1] >= WEIGHT_ONE / 2;
        taps->at[i % LANES][0] = (uint8_t)((is_second ? second : first) - taps->start);
        taps->at[i % LANES][1] = (uint8_t)((is_second ? first : second) - taps->start);
        w->fractions[i] = (int16_t)((is_second ? weights[1] - WEIGHT_ONE : -weights[1]) * (65536 / WEIGHT_ONE));
    }
    for (int y = 0; y < w->out_rows; y++) {
        RowTaps *taps = &w->row_taps[y];
        const int first = place(y, scale_y, taps->weights);
        taps->above = at_least(at_most(first, last_row), 0);
        taps->below = at_most(first + 1, last_row);
    }
}

INLINED void look_up(const uint8_t *window, const Taps *taps, int shuffles, uint16_t out[LANES])
{
#if defined(__GNUC__) && !defined(__clang__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    typedef uint8_t Bytes __attribute__((vector_size(WINDOW)));
    if (shuffles) {
        Bytes table, index;
        memcpy(&table, window, sizeof table);
        memcpy(&index, taps->at, sizeof index);
        table = __builtin_shuffle(table, index);
        memcpy(out, &table, sizeof table);
        return;
    }
#endif
    (void)shuffles;
    for (int i = 0; i < LANES; i++)
        out[i] = (uint16_t)(window[taps->at[i][0]] | window[taps->at[i][1]] << 8);
}

INLINED void stretch_line(const Work *w, const uint8_t *line, int16_t *restrict out, const int shuffles)
{
    const Taps *taps = w->taps;
    uint16_t *restrict pairs = w->pairs;
    const int16_t *restrict fractions = w->fractions;
    const int cols = w->out_cols, count = blocks(w);
    for (int block = 0; block < count; block++)
        look_up(line + taps[block].start, &taps[block], shuffles, pairs + block * LANES);
    for (int x = 0; x < cols; x++) {
        const int16_t near = (int16_t)((pairs[x] & 255) << 7), far = (int16_t)((pairs[x] >> 8) << 7);
        out[x] = (int16_t)(near + (((int16_t)(near - far) * fractions[x]) >> 16));
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
    if (from != into && w->mid_cols < WINDOW) /* a whole window is read */
        from = memcpy(into, from, (size_t)w->mid_cols);
    stretch(w, from, w->wide[k]);
    w->wide_row[k] = row;
    return w->wide[k];
}

static void shrink(Work *w, const Plane *source, int halvings, uint8_t *out)
{
    const int mid_cols = (int)source->cols >> halvings, mid_rows = (int)source->rows >> halvings;
    w->cols = (int)source->cols, w->halvings = halvings;
    if (mid_cols == w->out_cols && mid_rows == w->out_rows) {
        for (int y = 0; y < w->out_rows; y++, out += w->out_cols) {
            const uint8_t *from = line(w, source, w->halvings, y, out);
            if (from != out)
                memcpy(out, from, (size_t)w->out_cols);
        }
        return;
    }
    if (mid_cols != w->mid_cols || mid_rows != w->mid_rows) {
        w->mid_cols = mid_cols, w->mid_rows = mid_rows;
        taps_init(w);
    }
    w->wide_row[0] = w->wide_row[1] = -1;
    for (int y = 0; y < w->out_rows; y++, out += w->out_cols) {
        const RowTaps *taps = &w->row_taps[y];
        const int16_t *above = wide_line(w, source, taps->above, taps->below);
        const int16_t *below = wide_line(w, source, taps->below, taps->above);
        mix(above, below, taps->weights[0], taps->weights[1], out, w->out_cols);
    }
}

static void *work_create(Work *w, int cols)
{
    const size_t count = (size_t)blocks(w), columns = count * LANES, rows = (size_t)w->out_rows;
    size_t bytes = count * sizeof(Taps) + rows * sizeof(RowTaps) + columns * 4 * sizeof(int16_t);
    for (int level = 0; level <= MAX_HALVINGS; level++)
        bytes += 4 * ((size_t)(cols >> level) + WINDOW);
    char *memory = PyMem_Calloc(1, bytes);
    if (memory == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    w->taps = (Taps *)(void *)memory;
    w->row_taps = (RowTaps *)(void *)(w->taps + count);
    w->wide[0] = (int16_t *)(void *)(w->row_taps + rows);
    w->wide[1] = w->wide[0] + columns;
    w->fractions = w->wide[1] + columns;
    w->pairs = (uint16_t *)(void *)(w->fractions + columns);
    uint8_t *cursor = (uint8_t *)(w->pairs + columns);
    for (int level = 0; level <= MAX_HALVINGS; level++)
        for (int k = 0; k < 4; k++) {
            w->lines[level][k] = cursor;
            cursor += (cols >> level) + WINDOW;
        }
#if defined(__x86_64__) && defined(__GNUC__)
    w->shuffles = __builtin_cpu_supports("avx2") != 0; /* what WIDE looks at */
#else
    w->shuffles = 1;
#endif
    return memory;
}

/* shrink(planes, out): the planes into out[0], out[1], ... Returns a number whose bit i says that plane i is for cv2.resize. */
static PyObject *pyramid_shrink(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *from, *to, *result = NULL;
    Plane sources[MAX_PLANES], out;
    Work w = {0};
    int halvings[MAX_PLANES], left = 0, cols = 0, count = 0;
    if (!PyArg_ParseTuple(args, "O!O", &PyTuple_Type, &from, &to) || plane_get(&out, to, 'B', 1, "out") < 0)
        return NULL;
    const int planes = (int)PyTuple_Size(from);
    const Py_ssize_t *shape = out.buffer.shape;
    if (planes < 1 || planes > MAX_PLANES || out.buffer.ndim != 3 || shape[0] != planes || shape[1] < 1 || shape[2] < 1 ||
        out.stride != out.cols) {
        PyErr_Format(PyExc_ValueError, "needs 1 to %d planes, and as many contiguous ones of one size for the result", MAX_PLANES);
        goto done;
    }
    for (; count < planes; count++) {
        if (plane_get(&sources[count], PyTuple_GetItem(from, count), 'B', 0, "plane") < 0)
            goto done;
        halvings[count] = halvings_to(sources[count].cols, sources[count].rows, shape[2], shape[1]);
        if (halvings[count] < 0)
            left |= 1 << count;
        else
            cols = at_least(cols, (int)sources[count].cols);
    }
    if (cols > 0) {
        w.out_rows = (int)shape[1], w.out_cols = (int)shape[2];
        void *memory = work_create(&w, cols);
        if (memory == NULL)
            goto done;
        Py_BEGIN_ALLOW_THREADS
        for (int i = 0; i < planes; i++)
            if (halvings[i] >= 0)
                shrink(&w, &sources[i], halvings[i], out.data + i * out.stride);
        Py_END_ALLOW_THREADS
        PyMem_Free(memory);
    }
    result = PyLong_FromLong(left);
done:
    while (count > 0)
        plane_release(&sources[--count]);
    plane_release(&out);
    return result;
}

static PyMethodDef methods[] = {
    {"shrink", pyramid_shrink, METH_VARARGS, "shrink(planes, out): see edge_seg/pyramid.py"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_pyramid", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__pyramid(void) { return module_create(&module); }
