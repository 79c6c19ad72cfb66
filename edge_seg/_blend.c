/* The composite: out = background + alpha * (frame - background), in one pass over I420.
 *
 * alpha(x) = clip(gain(x) * luma(x) / 255 + offset(x), 0, 1) with gain and offset interpolated bilinearly from
 * the coarse grid (He and Sun, "Fast Guided Filter", arXiv:1505.00996), all in 16-bit fixed point so that eight
 * pixels fit an SSE2 or NEON register. Most of a picture is wholly person or wholly background: grid cells whose
 * corners prove it are copied, and alpha is only computed in the band between.
 *
 * edge_seg/composite.py holds the same arithmetic in NumPy; the tests hold both to be equal, bit for bit.
 */
#include "_buffers.h"

#define ALPHA_ONE 1027 /* alpha 1.0; a bit more than 1024, so that it still saturates after rounding down */
#define GAIN_ONE 2062  /* gain 1.0: (gain * (luma << 7)) >> 16 == ALPHA_ONE * luma / 255 */
#define LIMIT 16383    /* of both, so that the difference of two fits 16 bits */
#define LANES 8
#define MAX_SIDE 16384

#if defined(__clang__)
#define NO_LOOP_DEPENDENCE _Pragma("clang loop vectorize(assume_safety)")
#elif defined(__GNUC__)
#define NO_LOOP_DEPENDENCE _Pragma("GCC ivdep")
#else
#define NO_LOOP_DEPENDENCE
#endif

enum { BAND, BACK, FRONT };

typedef struct {
    int start, stop;           /* luma columns: start is even, stop is even or the width */
    int first_cell, last_cell; /* the grid cells that they lie in, inclusive */
    int kind;
} Span;

typedef struct {
    int rows, cols, width, height;
    int *cell_x;            /* [cols + 1]: the first luma column of each grid cell */
    int16_t *weight_x;      /* [width + LANES]: position inside the cell, Q15 */
    int16_t *nodes[2];      /* cached grid rows: gain, then offset, each cols + 1 (the last one repeated) */
    int node_row[2];
    int16_t *edge;          /* gain, then offset, at the grid's columns and one luma row: 2 * (cols + 1) */
    int16_t *gain, *offset; /* [width + LANES] at the luma columns of one row */
    int16_t *alpha[2];      /* [width + LANES] of a row pair, 0 to 256 */
    uint8_t *kind;          /* [cols]: what the grid rows around the row pair allow, per grid column */
    Span *spans;            /* [cols] */
    int span_count, span_top, span_bottom;
} Work;

/* Where a luma position falls between the grid's nodes, pixel centres aligned: index, and weight in Q15. */
static void locate(int position, int size, int nodes, int *index, int *weight)
{
    int64_t numerator = (int64_t)(2 * position + 1) * nodes - size; /* in units of 1 / (2 * size) */
    int64_t unit = 2 * (int64_t)size, cell = numerator / unit;
    *index = numerator <= 0 ? 0 : cell >= nodes - 1 ? nodes - 1 : (int)cell;
    *weight = numerator <= 0 || cell >= nodes - 1 ? 0 : (int)(((numerator - cell * unit) << 15) / unit);
}

/* NaN becomes 0: an alpha that cannot be computed shows the background. */
static inline int16_t fixed(float value, float one)
{
    float scaled = value * one;
    scaled = scaled == scaled ? scaled : 0;
    scaled = scaled < -LIMIT ? -LIMIT : scaled > LIMIT ? LIMIT : scaled;
    return (int16_t)(int)(scaled + (scaled < 0 ? -0.5f : 0.5f));
}

static const int16_t *grid_row(Work *w, const Plane *gain, const Plane *offset, int row)
{
    int16_t *nodes = w->nodes[row & 1];
    if (w->node_row[row & 1] != row) {
        const float *g = (const float *)(gain->data + row * gain->stride);
        const float *o = (const float *)(offset->data + row * offset->stride);
        int n = w->cols;
        for (int i = 0; i < n; i++)
            nodes[i] = fixed(g[i], GAIN_ONE);
        for (int i = 0; i < n; i++)
            nodes[n + 1 + i] = fixed(o[i], ALPHA_ONE);
        nodes[n] = nodes[n - 1];
        nodes[2 * n + 1] = nodes[2 * n];
        w->node_row[row & 1] = row;
    }
    return nodes;
}

/* What one grid row allows: BACK or FRONT where alpha is 0 or 256 whatever the luma. All rounding is downwards,
 * by less than 4 in total, hence the asymmetric bounds. */
static void bound_row(const int16_t *nodes, int cols, uint8_t *kind, int merge)
{
    for (int i = 0; i < cols; i++) {
        int dark = nodes[cols + 1 + i], bright = dark + ((nodes[i] * (255 << 7)) >> 16);
        int low = dark < bright ? dark : bright, high = dark < bright ? bright : dark;
        uint8_t k = high <= 2 ? BACK : low >= ALPHA_ONE ? FRONT : BAND;
        kind[i] = !merge || kind[i] == k ? k : BAND;
    }
}

static void find_spans(Work *w)
{
    Span *spans = w->spans;
    int n = 0;
    for (int i = 0; i < w->cols; i++) {
        if (w->cell_x[i] == w->cell_x[i + 1])
            continue;
        int right = i + 1 < w->cols ? i + 1 : i;
        int kind = w->kind[i] == w->kind[right] ? w->kind[i] : BAND;
        if (n > 0 && spans[n - 1].kind == kind) {
            spans[n - 1].stop = w->cell_x[i + 1];
            spans[n - 1].last_cell = i;
        } else {
            spans[n++] = (Span){w->cell_x[i], w->cell_x[i + 1], i, i, kind};
        }
    }
    /* A chroma sample lies over two luma columns: the band takes the whole of it. */
    for (int k = 1; k < n; k++) {
        Span *left = &spans[k - 1], *right = &spans[k];
        if (right->start % 2 == 0)
            continue;
        if (left->kind == BAND) {
            left->stop++;
            left->last_cell = right->first_cell;
            right->start++;
        } else {
            left->stop--;
            right->start--;
            right->first_cell = left->last_cell;
            right->kind = BAND; /* it was, unless the grid is finer than the picture */
        }
    }
    w->span_count = n;
}

static void expand(const Work *w, const int16_t *edge, int16_t *restrict out, const Span *span)
{
    const int16_t *restrict weight = w->weight_x;
    for (int i = span->first_cell; i <= span->last_cell; i++) {
        const int16_t base = edge[i], step = (int16_t)(edge[i + 1] - edge[i]);
        /* Whole registers: what is written past the cell is overwritten by the next one. */
        for (int x = w->cell_x[i]; x < w->cell_x[i + 1]; x += LANES) {
            int16_t value[LANES];
            for (int lane = 0; lane < LANES; lane++)
                value[lane] = (int16_t)(base + ((step * weight[x + lane]) >> 15));
            memcpy(out + x, value, sizeof value);
        }
    }
}

static void blend(const int16_t *alpha, const uint8_t *front, const uint8_t *back, uint8_t *out, int count)
{
    NO_LOOP_DEPENDENCE
    for (int x = 0; x < count; x++) {
        uint16_t moved = (uint16_t)((uint16_t)alpha[x] * (uint16_t)(front[x] - back[x]));
        out[x] = (uint8_t)((uint16_t)((uint16_t)(back[x] << 8) + moved + 128) >> 8);
    }
}

static void fit(const int16_t *restrict gain, const int16_t *restrict offset, const uint8_t *restrict luma,
                int16_t *restrict alpha, int count)
{
    for (int x = 0; x < count; x++) {
        int16_t value = (int16_t)(offset[x] + (int16_t)((gain[x] * (int16_t)(luma[x] << 7)) >> 16));
        value = (int16_t)((value + 1) >> 2);
        alpha[x] = value < 0 ? 0 : value > 256 ? 256 : value;
    }
}

static void blend_luma(const Work *w, int16_t *alpha, const uint8_t *front, const uint8_t *back, uint8_t *out,
                       const Span *span)
{
    int n = span->stop - span->start;
    const int16_t *gain = w->gain + span->start, *offset = w->offset + span->start;
    alpha += span->start;
    front += span->start;
    fit(gain, offset, front, alpha, n);
    blend(alpha, front, back + span->start, out + span->start, n);
}

static void copy_span(const Span *span, const uint8_t *front, const uint8_t *back, uint8_t *out, int shift)
{
    const uint8_t *source = span->kind == FRONT ? front : back;
    int start = span->start >> shift, stop = (span->stop + shift) >> shift;
    if (out != source && stop > start)
        memcpy(out + start, source + start, (size_t)(stop - start));
}

#define ROW(plane, y) ((plane)->data + (Py_ssize_t)(y) * (plane)->stride)

static void composite(Work *w, const Plane front[3], const Plane back[3], const Plane out[3], const Plane *gain,
                      const Plane *offset)
{
    int n = w->cols + 1;
    for (int pair = 0; 2 * pair < w->height; pair++) {
        int count = 2 * pair + 1 < w->height ? 2 : 1;
        int cell[2], weight[2];
        for (int r = 0; r < count; r++)
            locate(2 * pair + r, w->height, w->rows, &cell[r], &weight[r]);
        int bottom = cell[count - 1] + (cell[count - 1] + 1 < w->rows);
        if (cell[0] != w->span_top || bottom != w->span_bottom) {
            for (int row = cell[0]; row <= bottom; row++)
                bound_row(grid_row(w, gain, offset, row), w->cols, w->kind, row > cell[0]);
            find_spans(w);
            w->span_top = cell[0];
            w->span_bottom = bottom;
        }
        for (int r = 0; r < count; r++) {
            int y = 2 * pair + r;
            const uint8_t *f = ROW(&front[0], y), *b = ROW(&back[0], y);
            uint8_t *o = ROW(&out[0], y);
            int ready = 0;
            for (int s = 0; s < w->span_count; s++) {
                const Span *span = &w->spans[s];
                if (span->kind != BAND) {
                    copy_span(span, f, b, o, 0);
                    continue;
                }
                if (!ready) {
                    const int16_t *top = grid_row(w, gain, offset, cell[r]);
                    const int16_t *low = grid_row(w, gain, offset, cell[r] + (cell[r] + 1 < w->rows));
                    for (int i = 0; i < 2 * n; i++)
                        w->edge[i] = (int16_t)(top[i] + (((low[i] - top[i]) * weight[r]) >> 15));
                    ready = 1;
                }
                expand(w, w->edge, w->gain, span);
                expand(w, w->edge + n, w->offset, span);
                blend_luma(w, w->alpha[r], f, b, o, span);
            }
        }
        const int16_t *first = w->alpha[0], *second = w->alpha[count - 1];
        for (int s = 0; s < w->span_count; s++) {
            const Span *span = &w->spans[s];
            if (span->kind != BAND) {
                copy_span(span, ROW(&front[1], pair), ROW(&back[1], pair), ROW(&out[1], pair), 1);
                copy_span(span, ROW(&front[2], pair), ROW(&back[2], pair), ROW(&out[2], pair), 1);
                continue;
            }
            int start = span->start / 2, stop = (span->stop + 1) / 2;
            if (span->stop % 2)
                w->alpha[0][span->stop] = w->alpha[0][span->stop - 1], w->alpha[1][span->stop] = w->alpha[1][span->stop - 1];
            int16_t *chroma = w->gain; /* done with in this row pair */
            for (int c = 0; c < stop - start; c++) {
                int x = 2 * (start + c);
                chroma[c] = (int16_t)((first[x] + first[x + 1] + second[x] + second[x + 1] + 2) >> 2);
            }
            for (int p = 1; p < 3; p++)
                blend(chroma, ROW(&front[p], pair) + start, ROW(&back[p], pair) + start, ROW(&out[p], pair) + start,
                      stop - start);
        }
    }
}

static void *carve(char **free_memory, size_t bytes)
{
    char *start = *free_memory;
    *free_memory += (bytes + 15) & ~(size_t)15;
    return start;
}

/* One allocation for all of `work`, of the order of a few rows. Returns it, or NULL. */
static void *work_create(Work *w, int width, int height, int cols, int rows)
{
    size_t columns = (size_t)width + LANES, n = (size_t)cols + 1;
    size_t bytes = sizeof(int) * n + sizeof(Span) * n + n + sizeof(int16_t) * (6 * n + 5 * columns) + 16 * 16;
    char *memory = PyMem_Calloc(1, bytes), *cursor = memory;
    if (memory == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    *w = (Work){.rows = rows, .cols = cols, .width = width, .height = height, .node_row = {-1, -1}, .span_top = -1};
    w->spans = carve(&cursor, sizeof(Span) * n);
    w->cell_x = carve(&cursor, sizeof(int) * n);
    w->weight_x = carve(&cursor, sizeof(int16_t) * columns);
    w->nodes[0] = carve(&cursor, sizeof(int16_t) * 2 * n);
    w->nodes[1] = carve(&cursor, sizeof(int16_t) * 2 * n);
    w->edge = carve(&cursor, sizeof(int16_t) * 2 * n);
    w->gain = carve(&cursor, sizeof(int16_t) * columns);
    w->offset = carve(&cursor, sizeof(int16_t) * columns);
    w->alpha[0] = carve(&cursor, sizeof(int16_t) * columns);
    w->alpha[1] = carve(&cursor, sizeof(int16_t) * columns);
    w->kind = carve(&cursor, n);
    int next = 0;
    for (int x = 0; x < width; x++) {
        int cell, weight;
        locate(x, width, cols, &cell, &weight);
        w->weight_x[x] = (int16_t)weight;
        while (next <= cell)
            w->cell_x[next++] = x;
    }
    while (next <= cols)
        w->cell_x[next++] = width;
    return memory;
}

/* The output may be one of the inputs as a whole; overlapping it in part would read what was already written. */
static int overlaps_badly(const Plane *in, const Plane *out)
{
    if (in->data == out->data && in->stride == out->stride)
        return 0;
    const unsigned char *in_low = in->data, *in_high = in->data, *out_low = out->data, *out_high = out->data;
    Py_ssize_t in_span = (in->rows - 1) * in->stride, out_span = (out->rows - 1) * out->stride;
    *(in_span < 0 ? &in_low : &in_high) += in_span;
    *(out_span < 0 ? &out_low : &out_high) += out_span;
    return in_low < out_high + out->cols && out_low < in_high + in->cols;
}

static PyObject *blend_composite(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *arrays[11];
    static const char *const names[11] = {"front y", "front u", "front v", "back y", "back u", "back v",
                                          "out y",   "out u",   "out v",   "gain",   "offset"};
    if (!PyArg_ParseTuple(args, "(OOO)(OOO)(OOO)OO", &arrays[0], &arrays[1], &arrays[2], &arrays[3], &arrays[4],
                          &arrays[5], &arrays[6], &arrays[7], &arrays[8], &arrays[9], &arrays[10]))
        return NULL;
    Plane planes[11];
    int held = 0;
    PyObject *result = NULL;
    void *memory = NULL;
    for (; held < 11; held++)
        if (plane_get(&planes[held], arrays[held], held < 9 ? 'B' : 'f', held >= 6 && held < 9, names[held]) < 0)
            goto done;
    Py_ssize_t height = planes[0].rows, width = planes[0].cols, rows = planes[9].rows, cols = planes[9].cols;
    if (width < 1 || height < 1 || width > MAX_SIDE || height > MAX_SIDE || rows < 1 || cols < 1 ||
        rows > MAX_SIDE || cols > MAX_SIDE) {
        PyErr_Format(PyExc_ValueError, "picture and grid need sides of 1 to %d", MAX_SIDE);
        goto done;
    }
    for (int i = 0; i < 11; i++) {
        Py_ssize_t want_rows = i >= 9 ? rows : i % 3 ? (height + 1) / 2 : height;
        Py_ssize_t want_cols = i >= 9 ? cols : i % 3 ? (width + 1) / 2 : width;
        if (planes[i].rows != want_rows || planes[i].cols != want_cols) {
            PyErr_Format(PyExc_ValueError, "%s: expected %zdx%zd (rows x columns), got %zdx%zd", names[i], want_rows,
                         want_cols, planes[i].rows, planes[i].cols);
            goto done;
        }
    }
    for (int i = 0; i < 9; i++)
        for (int o = 6; o < 9; o++)
            if (i != o && ((i < 6 && i % 3 == o - 6) ? overlaps_badly(&planes[i], &planes[o])
                                                     : overlaps_badly(&planes[i], &planes[o]) ||
                                                           planes[i].data == planes[o].data)) {
                PyErr_Format(PyExc_ValueError, "%s overlaps %s", names[i], names[o]);
                goto done;
            }
    Work work;
    memory = work_create(&work, (int)width, (int)height, (int)cols, (int)rows);
    if (memory == NULL)
        goto done;
    Py_BEGIN_ALLOW_THREADS
    composite(&work, planes, planes + 3, planes + 6, &planes[9], &planes[10]);
    Py_END_ALLOW_THREADS
    result = Py_NewRef(Py_None);
done:
    PyMem_Free(memory);
    while (held-- > 0)
        plane_release(&planes[held]);
    return result;
}

static PyMethodDef methods[] = {
    {"composite", blend_composite, METH_VARARGS,
     "composite((y, u, v), (y, u, v), (y, u, v), gain, offset): front over back into out, see edge_seg/composite.py"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_blend", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__blend(void) { return PyModule_Create(&module); }
