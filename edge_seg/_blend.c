/* The composite: out = background + alpha * (person - background), in one pass over I420.
 *
 * alpha = clip(offset + gain . (colour - 128) / 255, 0, 1), with offset and gain interpolated bilinearly from the
 * coarse grid (edge_seg/matte.py), all in 16-bit fixed point. Most of a picture is wholly person or wholly
 * background and is copied. Only what is neither is computed, two blocks of 16x2 pixels of luma and 8x1 of chroma at
 * a time: all of their loops have one length, so that no loop ends in single pixels and no branch is guessed wrong.
 * There the person's colour is the frame's, drawn towards the colour that the person has nearby as far as the pixel
 * is transparent: the old background goes out of it.
 *
 * edge_seg/composite.py holds the same arithmetic in NumPy; the tests hold both to be equal, bit for bit.
 */
#include "_band.h"

#define FEW 4    /* grid rows that lie around a pair of rows, mostly; the fewer, the more of them stay in the cache */
#define LINE 64  /* bytes of a line of the cache */
#define AHEAD 2  /* pairs of rows that pictures are asked for before they are blended */
#define STRIP 16 /* pairs of rows that are copied at once: they stay in the second-level cache */

static void copy_span(const Work *w, const Span *span, int pair, int count, const Plane from[3], const Plane out[3])
{
    int start = span->start * BLOCK, stop = span->stop * BLOCK < w->width ? span->stop * BLOCK : w->width;
    if (out[0].data == from[0].data)
        return;
    for (int r = 0; r < count; r++)
        memcpy(ROW(&out[0], 2 * pair + r) + start, ROW(&from[0], 2 * pair + r) + start, (size_t)(stop - start));
    for (int k = 1; k < 3; k++)
        memcpy(ROW(&out[k], pair) + start / 2, ROW(&from[k], pair) + start / 2, (size_t)((stop + 1) / 2 - start / 2));
}

/* A grid row among the cached ones. */
static int load_row(Work *w, int slot, int row)
{
    if (w->node_row[slot] != row) {
        w->node_row[slot] = row;
        memset(w->is_wide[slot], 0, (size_t)w->blocks);
    }
    return slot;
}

/* Has everything ready that the grid says about the rows of a pair. `place` is that of the pair before. */
static void prepare(Work *w, const Grid *grid, int pair, int count, Place *place)
{
    int changed = 0;
    for (int r = 0; r < 3; r++) {
        const Axis *axis = r == 2 ? &w->layout->half_down : &w->layout->down;
        const int y = r == 2 ? pair : 2 * pair + (r < count ? r : 0);
        changed |= place->cell[r] != axis->cell[y];
        place->cell[r] = axis->cell[y];
        place->fraction[r] = axis->fraction[y];
    }
    if (!changed)
        return;
    const int top = place->cell[0], bottom = place->cell[1] + (place->cell[1] + 1 < grid->rows);
    if (top != w->span_top || bottom != w->span_bottom)
        find_spans(w, top, bottom);
    unsigned slots = 0;
    for (int r = 0; r < 3; r++)
        for (int k = 0; k < 2; k++) {
            const int row = place->cell[r] + (k && place->cell[r] + 1 < grid->rows);
            /* Where rows lie so far apart that two would share a slot, none is kept for the next pair. */
            place->slots[r][k] = load_row(w, bottom - top < FEW ? row % FEW : 2 * r + k, row);
            slots |= 1u << place->slots[r][k];
        }
    widen(w, grid, slots);
}

/* Whether all of a plane is one code, and says so by having one row only. */
static int is_plain(const Plane *plane)
{
    return plane->stride == 0 && memcmp(plane->data, plane->data + 1, (size_t)plane->cols - 1) == 0;
}

/* Rows first to last of a plane; as one piece, if they lie so in both. `plain`: whether that is what it is. */
static void copy_rows(const Plane *from, int plain, const Plane *out, int first, int last)
{
    const size_t bytes = (size_t)(last - first) * (size_t)out->cols;
    if (out->stride == out->cols && plain) {
        memset(ROW(out, first), from->data[0], bytes);
        return;
    }
    if (out->stride == out->cols && from->stride == from->cols) {
        memcpy(ROW(out, first), ROW(from, first), bytes);
        return;
    }
    for (int y = first; y < last; y++)
        memcpy(ROW(out, y), ROW(from, y), (size_t)from->cols);
}

/* Which of the two pictures most of the last pair of rows was. */
static int larger_part(const Work *w)
{
    int blocks[3] = {0, 0, 0};
    for (int s = 0; s < w->span_count; s++)
        blocks[w->spans[s].kind] += w->spans[s].stop - w->spans[s].start;
    return blocks[FRONT] > blocks[BACK] ? FRONT : BACK;
}

/* The band lies about the same place two rows on. What is not copied there is not on its way to the cache yet. */
INLINED void ask_for(const Plane planes[3], const Span *span, int pair)
{
    for (int x = span->start * BLOCK; x < span->stop * BLOCK + LINE - 1; x += LINE) {
        PREFETCH(ROW(&planes[0], 2 * pair) + x);
        PREFETCH(ROW(&planes[0], 2 * pair + 1) + x);
        PREFETCH(ROW(&planes[1], pair) + x / 2);
        PREFETCH(ROW(&planes[2], pair) + x / 2);
    }
}

static void composite(Work *w, const Plane front[3], const Plane back[3], const Plane out[3], const Grid *grid)
{
    Place place = {.cell = {-1, -1, -1}};
    Lines lines;
    find_kinds(w, grid);
    const int apart = out[0].data != front[0].data && out[0].data != back[0].data;
    int copied = BAND; /* what all of the strip was filled with before */
    int plain[FRONT + 1][3];
    for (int k = 0; k < 3; k++) {
        plain[FRONT][k] = is_plain(&front[k]);
        plain[BACK][k] = is_plain(&back[k]);
    }
    for (int pair = 0; 2 * pair < w->height; pair++) {
        const int count = 2 * pair + 1 < w->height ? 2 : 1;
        if (apart && pair % STRIP == 0) {
            /* One large copy, and the smaller part over it, is faster than many copies of pieces of rows: processors
             * need not read what they overwrite as a whole. */
            const int end = 2 * (pair + STRIP) < w->height ? pair + STRIP : (w->height + 1) / 2;
            copied = larger_part(w);
            const Plane *from = copied == FRONT ? front : back;
            copy_rows(&from[0], plain[copied][0], &out[0], 2 * pair, 2 * end < w->height ? 2 * end : w->height);
            for (int k = 1; k < 3; k++)
                copy_rows(&from[k], plain[copied][k], &out[k], pair, end);
        }
        prepare(w, grid, pair, count, &place);
        lines_init(&lines, w, &place, pair, count, front, back, out);
        for (int s = 0; s < w->span_count; s++) {
            const Span *span = &w->spans[s];
            if (span->kind == BAND) {
                if (2 * (pair + AHEAD) + 1 < w->height)
                    ask_for(copied == FRONT ? back : front, span, pair + AHEAD);
                blend_band(&lines, span, w->width, grid->gain != NULL, grid->colour != NULL);
            } else if (span->kind != copied)
                copy_span(w, span, pair, count, span->kind == FRONT ? front : back, out);
        }
    }
}

/* --- the call -------------------------------------------------------------------------------------------------- */

/* One allocation for all of `work`, of the order of a few rows. Returns it, or NULL. */
static void *work_create(Work *w, const Layout *layout)
{
    const size_t blocks = (size_t)layout->blocks, cols = (size_t)layout->cols, nodes = (size_t)layout->rows * cols;
    const size_t kinds = nodes + cols + 2 * 8 + sizeof(Span) * blocks;
    const size_t bytes = kinds + SLOTS * (sizeof(Wide) + 1) * (blocks + 1) + 32 * (2 * SLOTS + 6);
    char *memory = PyMem_Malloc(bytes), *cursor;
    if (memory == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    cursor = (char *)(((uintptr_t)memory + 31) & ~(uintptr_t)31);
    *w = (Work){.layout = layout, .width = layout->width, .height = layout->height, .blocks = layout->blocks,
                .span_top = -1};
#if defined(__x86_64__) && defined(__GNUC__)
    w->shuffles = __builtin_cpu_supports("avx2") != 0; /* what WIDE looks at */
#else
    w->shuffles = 1;
#endif
    for (int k = 0; k < SLOTS; k++) {
        w->wide[k] = (Wide *)carve(&cursor, sizeof(Wide) * (blocks + 1)) + 1; /* no one needs what lies before */
        w->is_wide[k] = carve(&cursor, blocks);
        w->node_row[k] = -1;
    }
    w->node_kind = carve(&cursor, nodes + 8);
    w->kind = carve(&cursor, cols + 8);
    w->spans = carve(&cursor, sizeof(Span) * blocks);
    return memory;
}

/* The output may be one of the inputs as a whole; overlapping it in part would read what was already written. */
static int overlaps(const Plane *a, const Plane *b)
{
    const unsigned char *low[2] = {a->data, b->data}, *high[2] = {a->data, b->data};
    Py_ssize_t span[2] = {(a->rows - 1) * a->stride, (b->rows - 1) * b->stride};
    for (int i = 0; i < 2; i++)
        *(span[i] < 0 ? &low[i] : &high[i]) += span[i];
    return low[0] < high[1] + b->cols && low[1] < high[0] + a->cols;
}

enum { OUT = 6, OFFSET_ARG = 9, GAIN_ARG, COLOUR_ARG, ARRAYS };
static const char *const names[ARRAYS] = {"front y", "front u", "front v", "back y", "back u", "back v",
                                          "out y",   "out u",   "out v",   "offset", "gain",   "foreground"};

/* Whether the arrays fit each other; sets a Python error if not. */
static int check(const Plane planes[ARRAYS], const int given[ARRAYS])
{
    Py_ssize_t height = planes[0].rows, width = planes[0].cols;
    Py_ssize_t rows = planes[OFFSET_ARG].rows, cols = planes[OFFSET_ARG].cols;
    if (width < 1 || height < 1 || width > MAX_SIDE || height > MAX_SIDE || rows < 1 || cols < 1 ||
        rows > MAX_SIDE || cols > MAX_SIDE) {
        PyErr_Format(PyExc_ValueError, "picture and grid need sides of 1 to %d", MAX_SIDE);
        return 0;
    }
    for (int i = 0; i < ARRAYS; i++) {
        if (!given[i])
            continue;
        Py_ssize_t want_rows = i > OFFSET_ARG ? 3 : i == OFFSET_ARG ? rows : i % 3 ? (height + 1) / 2 : height;
        Py_ssize_t want_cols = i > OFFSET_ARG ? rows * cols : i == OFFSET_ARG ? cols : i % 3 ? (width + 1) / 2 : width;
        Py_ssize_t item = i == OFFSET_ARG || i == GAIN_ARG ? (Py_ssize_t)sizeof(int16_t) : 1;
        if (planes[i].rows != want_rows || planes[i].cols != want_cols) {
            PyErr_Format(PyExc_ValueError, "%s: expected %zdx%zd (rows x columns), got %zdx%zd", names[i], want_rows,
                         want_cols, planes[i].rows, planes[i].cols);
            return 0;
        }
        if (i >= OFFSET_ARG && planes[i].stride != want_cols * item && want_rows > 1) {
            PyErr_Format(PyExc_ValueError, "%s: must be contiguous", names[i]);
            return 0;
        }
    }
    for (int i = 0; i < ARRAYS; i++)
        for (int o = OUT; given[i] && o < OFFSET_ARG; o++) {
            int same_place = i < OUT && i % 3 == o - OUT && planes[i].data == planes[o].data &&
                             planes[i].stride == planes[o].stride;
            if (i != o && !same_place && i < OFFSET_ARG && overlaps(&planes[i], &planes[o])) {
                PyErr_Format(PyExc_ValueError, "%s overlaps %s", names[i], names[o]);
                return 0;
            }
        }
    return 1;
}

#define LAYOUT "edge_seg._blend.layout" /* the capsule's name */

static void layout_free(PyObject *capsule) { PyMem_Free(PyCapsule_GetPointer(capsule, LAYOUT)); }

static PyObject *blend_layout(PyObject *self, PyObject *args)
{
    (void)self;
    int sides[4];
    if (!PyArg_ParseTuple(args, "iiii", &sides[0], &sides[1], &sides[2], &sides[3]))
        return NULL;
    for (int i = 0; i < 4; i++)
        if (sides[i] < 1 || sides[i] > MAX_SIDE)
            return PyErr_Format(PyExc_ValueError, "picture and grid need sides of 1 to %d", MAX_SIDE);
    Layout *layout = layout_create(sides[1], sides[0], sides[2], sides[3]);
    if (layout == NULL)
        return NULL;
    PyObject *capsule = PyCapsule_New(layout, LAYOUT, layout_free);
    if (capsule == NULL)
        PyMem_Free(layout);
    return capsule;
}

/* That of the capsule, if it is for this picture and this grid; else NULL with a Python error set. */
static const Layout *layout_get(PyObject *capsule, const Plane planes[ARRAYS])
{
    const Layout *layout = PyCapsule_GetPointer(capsule, LAYOUT);
    const Plane *picture = &planes[0], *grid = &planes[OFFSET_ARG];
    if (layout != NULL && (layout->height != picture->rows || layout->width != picture->cols ||
                           layout->rows != grid->rows || layout->cols != grid->cols)) {
        PyErr_Format(PyExc_ValueError, "layout: expected %zdx%zd and %zdx%zd (rows x columns), got %dx%d and %dx%d",
                     picture->rows, picture->cols, grid->rows, grid->cols, layout->height, layout->width, layout->rows,
                     layout->cols);
        return NULL;
    }
    return layout;
}

static PyObject *blend_composite(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *a[ARRAYS], *capsule;
    if (!PyArg_ParseTuple(args, "(OOO)(OOO)(OOO)OOOO", &a[0], &a[1], &a[2], &a[3], &a[4], &a[5], &a[6], &a[7], &a[8],
                          &a[9], &a[10], &a[11], &capsule))
        return NULL;
    Plane planes[ARRAYS];
    int given[ARRAYS] = {0}, held = 0;
    PyObject *result = NULL;
    void *memory = NULL;
    for (; held < ARRAYS; held++) {
        if (held > OFFSET_ARG && a[held] == Py_None)
            continue;
        char format = held == OFFSET_ARG || held == GAIN_ARG ? 'h' : 'B';
        if (plane_get(&planes[held], a[held], format, held >= OUT && held < OFFSET_ARG, names[held]) < 0)
            goto done;
        given[held] = 1;
    }
    if (!check(planes, given))
        goto done;
    const Layout *layout = layout_get(capsule, planes);
    if (layout == NULL)
        goto done;
    Grid grid = {.rows = (int)planes[OFFSET_ARG].rows,
                 .cols = (int)planes[OFFSET_ARG].cols,
                 .offset = (const int16_t *)planes[OFFSET_ARG].data,
                 .gain = given[GAIN_ARG] ? (const int16_t *)planes[GAIN_ARG].data : NULL,
                 .colour = given[COLOUR_ARG] ? planes[COLOUR_ARG].data : NULL};
    Work work;
    memory = work_create(&work, layout);
    if (memory == NULL)
        goto done;
    Py_BEGIN_ALLOW_THREADS
    composite(&work, planes, planes + 3, planes + OUT, &grid);
    Py_END_ALLOW_THREADS
    result = Py_NewRef(Py_None);
done:
    PyMem_Free(memory);
    while (held-- > 0)
        if (given[held])
            plane_release(&planes[held]);
    return result;
}

static PyMethodDef methods[] = {
    {"layout", blend_layout, METH_VARARGS, "layout(height, width, rows, cols): of a picture and a grid, for `composite`"},
    {"composite", blend_composite, METH_VARARGS,
     "composite((y, u, v), (y, u, v), (y, u, v), offset, gain, foreground, layout): see edge_seg/composite.py"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_blend", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__blend(void) { return module_create(&module); }
