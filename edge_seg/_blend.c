/* The composite: out = background + alpha * (person - background), in one pass over I420.
 *
 * alpha = clip(offset + gain . (colour - 128) / 255, 0, 1), with offset and gain interpolated bilinearly from the
 * coarse grid (edge_seg/matte.py), all in 16-bit fixed point so that eight pixels fit an SSE2 or NEON register.
 * Most of a picture is wholly person or wholly background: the cells of the grid that are so are copied, and alpha
 * is only computed in the band between. There the person's colour is the frame's, drawn towards the colour that
 * the person has nearby as far as the pixel is transparent: the old background goes out of it.
 *
 * edge_seg/composite.py holds the same arithmetic in NumPy; the tests hold both to be equal, bit for bit.
 */
#include "_buffers.h"
#include <math.h>

#define ALPHA_ONE 1027 /* alpha 1.0; a bit more than 1024, so that it still saturates after rounding down */
#define GAIN_ONE 1031  /* gain 1.0: (GAIN_ONE * (d << 8)) >> 16 == ALPHA_ONE * d / 255 */
#define LIMIT 16383    /* of both, so that the difference of two fits 16 bits */
#define COLOUR_ONE 16  /* colours, while they are interpolated */
#define LANES 8
#define ALIGN 16       /* columns of luma that are blended at a time */
#define SLOTS 8        /* at least the 6 grid rows that a pair of luma rows and their chroma row lie between */
#define MAX_SIDE 16384

#if defined(__clang__)
#define NO_LOOP_DEPENDENCE _Pragma("clang loop vectorize(assume_safety)")
#elif defined(__GNUC__)
#define NO_LOOP_DEPENDENCE _Pragma("GCC ivdep")
#else
#define NO_LOOP_DEPENDENCE
#endif

enum { OFFSET, GAIN_Y, GAIN_U, GAIN_V, COLOUR_Y, COLOUR_U, COLOUR_V, FIELDS };
enum { BAND, BACK, FRONT }; /* BACK & FRONT is BAND: what is not one or the other as a whole */

typedef struct {
    int rows, cols;
    const float *offset, *gain; /* gain, 3 planes, may be NULL */
    const uint8_t *colour;      /* 3 planes, may be NULL; then there is no gain either */
} Grid;

typedef struct {
    int start, stop;           /* luma columns: start is even, stop is even or the width */
    int fit_start, fit_stop;   /* of the band: where alpha is not known beforehand; `left` before it, `right` after */
    int first_cell, last_cell; /* the grid cells that those lie in, inclusive */
    int kind;
    int16_t left, right;
} Span;

/* A position between two nodes, as it is wanted by a multiplication that keeps the upper 16 bits: base + fraction *
 * step / 65536 with fraction in [-1/2, 1/2), counted from the nearer node. */
typedef struct {
    int16_t fraction;
    int16_t second; /* -1 where the nearer node is the second one, else 0 */
} Fraction;

static inline int16_t between(int16_t base, int16_t step, int16_t fraction, int16_t second)
{
    return (int16_t)(base + (int16_t)(step & second) + (int16_t)((step * fraction) >> 16));
}

/* Where the columns (or rows) of a plane lie between the nodes of the grid. */
typedef struct {
    int *cell_start; /* [nodes + 1]: the first column of each cell */
    int16_t *weight; /* [columns + 2 * ALIGN]: position inside the cell, see Fraction */
    int16_t *second; /* the same */
} Axis;

typedef struct {
    int width, height;
    Axis luma, half;       /* of the columns of luma, and of chroma */
    int16_t *nodes[SLOTS]; /* cached grid rows: FIELDS x (cols + 1), the last node repeated; filled in as `wide` is */
    uint8_t *kinds[SLOTS]; /* of those rows: BACK or FRONT where alpha is 0 or 256 whatever the colour, else BAND */
    int node_row[SLOTS];
    int used[SLOTS], uses; /* when each slot was last asked for */
    int16_t *wide[SLOTS];  /* of those rows: FIELDS x (width + 2 * ALIGN), at the picture's columns */
    uint8_t *is_wide[SLOTS]; /* of those rows, per cell: whether `wide` is filled in */
    int wide_stride;
    int16_t *chroma[2];    /* [width + 2 * ALIGN] of the frame, at luma columns */
    uint8_t *luma_row;     /* [width + 2 * ALIGN] of the frame, a span of it */
    int16_t *alpha[2];     /* [width + 2 * ALIGN] of a row pair, 0 to 256 */
    uint8_t *kind;         /* [cols]: what the grid rows around the row pair agree on */
    Span *spans;           /* [cols] */
    int span_count, span_top, span_bottom;
} Work;

/* Where a position, in half pixels, falls between the grid's nodes, centres aligned. */
static Fraction locate(int position, int size, int nodes, int *index)
{
    int64_t numerator = (int64_t)position * nodes - size; /* in units of 1 / (2 * size) */
    int64_t unit = 2 * (int64_t)size, cell = numerator / unit;
    *index = numerator <= 0 ? 0 : cell >= nodes - 1 ? nodes - 1 : (int)cell;
    int weight = numerator <= 0 || cell >= nodes - 1 ? 0 : (int)(((numerator - cell * unit) << 16) / unit);
    return (Fraction){(int16_t)(weight < 32768 ? weight : weight - 65536), weight < 32768 ? 0 : -1};
}

/* NaN becomes 0: an alpha that cannot be computed shows the background. */
static inline int16_t fixed(float value, float one)
{
    float scaled = value * one;
    scaled = scaled == scaled ? scaled : 0;
    scaled = scaled < -LIMIT ? -LIMIT : scaled;
    scaled = scaled > LIMIT ? LIMIT : scaled;
    return (int16_t)(int)(scaled + copysignf(0.5f, scaled));
}

/* Nodes first to last, and one more that repeats the last of the row. Whole registers, if the row is as long: some
 * are done twice. */
static void convert(const float *values, float one, int16_t *out, int first, int last, int count)
{
    for (int i = first; i <= last; i += LANES) {
        int at = i + LANES <= count ? i : count - LANES;
        if (at < 0) {
            for (int k = i; k < count; k++)
                out[k] = fixed(values[k], one);
            break;
        }
        int whole[LANES];
        for (int lane = 0; lane < LANES; lane++)
            whole[lane] = fixed(values[at + lane], one);
        for (int lane = 0; lane < LANES; lane++)
            out[at + lane] = (int16_t)whole[lane];
    }
    out[count] = out[count - 1];
}

/* How many bytes from `at` on, at most `count`, equal the first. */
static int run_length(const uint8_t *at, int count)
{
    uint64_t pattern = at[0] * UINT64_C(0x0101010101010101), word;
    int n = 0;
    for (; n + 8 <= count; n += 8) {
        memcpy(&word, at + n, 8);
        if (word != pattern)
            break;
    }
    while (n < count && at[n] == at[0])
        n++;
    return n;
}

static int load_row(Work *w, const Grid *grid, int row)
{
    int slot = 0, n = grid->cols;
    for (int k = 0; k < SLOTS; k++) {
        if (w->node_row[k] == row) {
            w->used[k] = ++w->uses;
            return k;
        }
        slot = w->used[k] < w->used[slot] ? k : slot;
    }
    w->node_row[slot] = row;
    w->used[slot] = ++w->uses;
    memset(w->is_wide[slot], 0, (size_t)n);
    uint8_t *restrict kinds = w->kinds[slot];
    Py_ssize_t at = (Py_ssize_t)row * n, plane = (Py_ssize_t)grid->rows * n;
    const float *restrict offset = grid->offset + at;
    /* What `fixed` makes of them is at most 2, which is no alpha, or at least ALPHA_ONE; NaN is none. */
    for (int i = 0; i < n; i++)
        kinds[i] = (uint8_t)(!(offset[i] * ALPHA_ONE >= 2.5f) * BACK | (offset[i] * ALPHA_ONE >= ALPHA_ONE - 0.5f) * FRONT);
    if (grid->gain) {
        const float *restrict gy = grid->gain + at, *restrict gu = gy + plane, *restrict gv = gu + plane;
        for (int i = 0; i < n; i++)
            kinds[i] &= (gy[i] != 0) | (gu[i] != 0) | (gv[i] != 0) ? BAND : 255;
    }
    return slot;
}

static void find_spans(Work *w, const Grid *grid)
{
    const int *cell_start = w->luma.cell_start;
    uint8_t *restrict kind = w->kind;
    Span *spans = w->spans;
    int n = 0;
    const int last_cell = grid->cols - 1;
    for (int i = 0; i < last_cell; i++) /* from nodes to the cells between them */
        kind[i] &= kind[i + 1];
    for (int i = 0, next; i < grid->cols; i = next) {
        next = i + run_length(kind + i, grid->cols - i);
        int first = i, last = next - 1; /* without cells that no pixel lies in, where the grid is the finer one */
        while (first < next && cell_start[first] == cell_start[first + 1])
            first++;
        while (last > first && cell_start[last] == cell_start[last + 1])
            last--;
        if (first == next)
            continue;
        if (n > 0 && spans[n - 1].kind == kind[i]) {
            spans[n - 1].stop = cell_start[next];
            spans[n - 1].last_cell = last;
        } else {
            spans[n++] = (Span){.start = cell_start[first], .stop = cell_start[next], .first_cell = first,
                                .last_cell = last, .kind = kind[i]};
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
    /* The band takes as much of what is beside it as makes whole registers. */
    for (int k = 0; k < n; k++) {
        Span *span = &spans[k];
        span->fit_start = span->start;
        span->fit_stop = span->stop;
        if (span->kind != BAND)
            continue;
        if (k > 0 && spans[k - 1].kind != BAND) {
            Span *left = &spans[k - 1];
            int start = span->start & -ALIGN;
            span->start = left->stop = start > left->start ? start : left->start;
            span->left = left->kind == FRONT ? 256 : 0;
        }
        if (k + 1 < n && spans[k + 1].kind != BAND) {
            Span *right = &spans[k + 1];
            int stop = (span->stop + ALIGN - 1) & -ALIGN;
            span->stop = right->start = stop < right->stop ? stop : right->stop;
            span->right = right->kind == FRONT ? 256 : 0;
        }
    }
    w->span_count = n;
}

/* In half pixels of the luma: a luma sample, and a chroma sample, which lies between two luma samples if it can. */
static int luma_centre(int i, int size) { (void)size; return 2 * i + 1; }
static int chroma_centre(int i, int size) { return 4 * i + 2 < 2 * size ? 4 * i + 2 : 2 * size - 1; }

static void axis_init(Axis *axis, int count, int size, int nodes, int (*centre)(int, int))
{
    int next = 0;
    for (int x = 0; x < count; x++) {
        int cell;
        Fraction at = locate(centre(x, size), size, nodes, &cell);
        axis->weight[x] = at.fraction;
        axis->second[x] = at.second;
        while (next <= cell)
            axis->cell_start[next++] = x;
    }
    while (next <= nodes)
        axis->cell_start[next++] = count;
}

/* Some fields of a grid row at the picture's columns, for cells first to last. */
static inline void expand(const Axis *axis, const int16_t *nodes, int per_field, int16_t *out, int stride,
                          const int fields, int first, int last)
{
    const int16_t *weight = axis->weight, *second = axis->second;
    const int *cell_start = axis->cell_start;
    for (int cell = first; cell <= last; cell++) {
        /* Whole registers: what is written past the cell is overwritten by the next one. */
        for (int x = cell_start[cell]; x < cell_start[cell + 1]; x += LANES) {
            int16_t part[LANES], far[LANES];
            memcpy(part, weight + x, sizeof part);
            memcpy(far, second + x, sizeof far);
            for (int k = 0; k < fields; k++) {
                const int16_t base = nodes[k * per_field + cell];
                const int16_t step = (int16_t)(nodes[k * per_field + cell + 1] - base);
                int16_t value[LANES];
                for (int lane = 0; lane < LANES; lane++)
                    value[lane] = between(base, step, part[lane], far[lane]);
                memcpy(out + k * stride + x, value, sizeof value);
            }
        }
    }
}

/* Fills in all fields of a cached grid row for the cells of a span, where that was not done for another row. */
static void widen_row(const Work *w, const Grid *grid, int slot, const Span *span)
{
    uint8_t *done = w->is_wide[slot];
    int first = span->first_cell, last = span->last_cell, n = grid->cols;
    while (first <= last && done[first])
        first++;
    if (first > last)
        return;
    /* What is written past the last cell spoils cells that were done: they are done again, and so on. */
    const int *cell_start = w->luma.cell_start;
    for (int i = last + 1; i < n && cell_start[i] < cell_start[last + 1] + 2 * LANES; i++)
        if (done[i])
            last = i;
    memset(done + first, 1, (size_t)(last - first + 1));
    const int last_node = last + 1 < n ? last + 1 : last, per_field = n + 1, stride = w->wide_stride;
    const Py_ssize_t at = (Py_ssize_t)w->node_row[slot] * n, plane = (Py_ssize_t)grid->rows * n;
    int16_t *nodes = w->nodes[slot], *wide = w->wide[slot];
    convert(grid->offset + at, ALPHA_ONE, nodes, first, last_node, n);
    for (int k = 0; grid->gain && k < 3; k++)
        convert(grid->gain + k * plane + at, GAIN_ONE, nodes + (GAIN_Y + k) * per_field, first, last_node, n);
    for (int k = 0; grid->colour && k < 3; k++) {
        int16_t *restrict field = nodes + (COLOUR_Y + k) * per_field;
        const uint8_t *restrict colour = grid->colour + k * plane + at;
        for (int i = first; i <= last_node; i++)
            field[i] = (int16_t)(colour[i] * COLOUR_ONE);
        field[n] = field[n - 1];
    }
    if (grid->gain && grid->colour) { /* the usual case: its loop is unrolled */
        expand(&w->luma, nodes, per_field, wide, stride, COLOUR_Y + 1, first, last);
    } else {
        expand(&w->luma, nodes, per_field, wide, stride, grid->gain ? GAIN_V + 1 : OFFSET + 1, first, last);
        if (grid->colour)
            expand(&w->luma, nodes + COLOUR_Y * per_field, per_field, wide + COLOUR_Y * stride, stride, 1, first, last);
    }
    if (grid->colour)
        expand(&w->half, nodes + COLOUR_U * per_field, per_field, wide + COLOUR_U * stride, stride, 2, first, last);
}

/* A field between two grid rows: base + fraction * step / 65536, with the nearer row as the base. */
typedef struct {
    const int16_t *base, *first, *second;
} Between;

static inline Between rows_between(const Work *w, int field, const int slots[2], Fraction at, int start)
{
    const int16_t *first = w->wide[slots[0]] + field * w->wide_stride + start;
    const int16_t *second = w->wide[slots[1]] + field * w->wide_stride + start;
    return (Between){at.second ? second : first, first, second};
}

#define BETWEEN(base, first, second) \
    ((int16_t)((base)[x] + (int16_t)(((int16_t)((second)[x] - (first)[x]) * fraction) >> 16)))

/* gain * (code - 128) / 255, with `centred` from `centre`. */
static inline int16_t term(int16_t gain, int16_t centred) { return (int16_t)((gain * centred) >> 16); }
static inline int16_t centre(uint8_t code) { return (int16_t)((uint16_t)(code - 128) << 8); }

/* Alpha of a luma span, from 0 to 256, from the offset and, where there are any, the gains. Spans are short: all is
 * done in whole registers, and all arrays must have LANES items to spare. */
static void fit(const Between *o, const Between *gains, int16_t fraction, const int16_t *restrict u,
                const int16_t *restrict v, const uint8_t *restrict luma, int16_t *restrict alpha, int count)
{
    const int16_t *restrict ob = o->base, *restrict of = o->first, *restrict os = o->second;
    count = (count + LANES - 1) & -LANES;
    if (gains == NULL) {
        for (int x = 0; x < count; x++) {
            int16_t value = (int16_t)((int16_t)(BETWEEN(ob, of, os) + 1) >> 2);
            value = value < 0 ? 0 : value;
            alpha[x] = value > 256 ? 256 : value;
        }
        return;
    }
    const int16_t *restrict yb = gains[0].base, *restrict yf = gains[0].first, *restrict ys = gains[0].second;
    const int16_t *restrict ub = gains[1].base, *restrict uf = gains[1].first, *restrict us = gains[1].second;
    const int16_t *restrict vb = gains[2].base, *restrict vf = gains[2].first, *restrict vs = gains[2].second;
    for (int x = 0; x < count; x++) {
        int16_t value = (int16_t)(BETWEEN(ob, of, os) + term(BETWEEN(yb, yf, ys), centre(luma[x])) +
                                  term(BETWEEN(ub, uf, us), u[x]) + term(BETWEEN(vb, vf, vs), v[x]));
        value = (int16_t)((int16_t)(value + 1) >> 2);
        value = value < 0 ? 0 : value;
        alpha[x] = value > 256 ? 256 : value;
    }
}

/* A chroma plane at the columns of the luma, ready for `term`. */
static void widen(const uint8_t *restrict chroma, int16_t *restrict out, int count)
{
    for (int x = 0; x < count; x++) {
        int16_t centred = centre(chroma[x]);
        out[2 * x] = centred;
        out[2 * x + 1] = centred;
    }
}

/* (above * alpha + below * (256 - alpha) + 128) / 256 fits 16 bits without a sign. */
#define MIX(alpha, above, below) \
    ((uint8_t)((uint16_t)((uint16_t)((below) << 8) + (uint16_t)((uint16_t)(alpha) * (uint16_t)((above) - (below))) + 128) >> 8))

static void blend(const int16_t *alpha, const Between *colour, int16_t fraction, const uint8_t *front,
                  const uint8_t *back, uint8_t *out, int count)
{
    if (colour == NULL) {
        NO_LOOP_DEPENDENCE
        for (int x = 0; x < count; x++)
            out[x] = MIX(alpha[x], front[x], back[x]);
        return;
    }
    const int16_t *cb = colour->base, *cf = colour->first, *cs = colour->second;
    NO_LOOP_DEPENDENCE
    for (int x = 0; x < count; x++) {
        uint8_t near = (uint8_t)((uint16_t)(BETWEEN(cb, cf, cs) + COLOUR_ONE / 2) / COLOUR_ONE);
        uint8_t person = MIX(alpha[x], front[x], near);
        out[x] = MIX(alpha[x], person, back[x]);
    }
}

static void halve(const int16_t *restrict first, const int16_t *restrict second, int16_t *restrict out, int count)
{
    for (int c = 0; c < count; c++)
        out[c] = (int16_t)((first[2 * c] + first[2 * c + 1] + second[2 * c] + second[2 * c + 1] + 2) >> 2);
}

static void copy_span(const Span *span, const uint8_t *front, const uint8_t *back, uint8_t *out, int shift)
{
    const uint8_t *source = span->kind == FRONT ? front : back;
    int start = span->start >> shift, stop = (span->stop + shift) >> shift;
    if (out != source && stop > start)
        memcpy(out + start, source + start, (size_t)(stop - start));
}

#define ROW(plane, y) ((plane)->data + (Py_ssize_t)(y) * (plane)->stride)

static void luma_row(Work *w, const Grid *grid, const Span *span, const int slots[2], Fraction at, const uint8_t *front,
                     const uint8_t *back, uint8_t *out, int16_t *alpha)
{
    const int start = span->fit_start, count = span->fit_stop - start;
    const uint8_t *luma = front + start;
    Between field[COLOUR_Y + 1];
    for (int k = 0; k <= COLOUR_Y; k++)
        field[k] = rows_between(w, k, slots, at, start);
    if (start + count + LANES > w->width) /* it may be read past its end */
        luma = memcpy(w->luma_row, luma, (size_t)count);
    for (int i = 0; i < ALIGN; i++)
        alpha[span->start + i] = span->left;
    fit(&field[OFFSET], grid->gain ? &field[GAIN_Y] : NULL, at.fraction, w->chroma[0] + start, w->chroma[1] + start,
        luma, alpha + start, count);
    for (int i = 0; i < ALIGN; i++)
        alpha[span->fit_stop + i] = span->right;
    field[COLOUR_Y] = rows_between(w, COLOUR_Y, slots, at, span->start);
    blend(alpha + span->start, grid->colour ? &field[COLOUR_Y] : NULL, at.fraction, front + span->start,
          back + span->start, out + span->start, span->stop - span->start);
}

/* Where the rows of a pair lie between the grid's rows: both of luma, and chroma's. */
typedef struct {
    int cell[3], slots[3][2];
    Fraction at[3];
} Place;

/* Has everything ready that the grid says about the rows of a pair. `place` is that of the pair before. */
static void prepare(Work *w, const Grid *grid, int pair, int count, Place *place)
{
    int changed = 0;
    for (int r = 0; r < 3; r++) {
        int centre = r == 2 ? chroma_centre(pair, w->height) : luma_centre(2 * pair + (r < count ? r : 0), w->height);
        int before = place->cell[r];
        place->at[r] = locate(centre, w->height, grid->rows, &place->cell[r]);
        changed |= place->cell[r] != before;
    }
    if (!changed)
        return;
    const int n = grid->cols, top = place->cell[0], bottom = place->cell[1] + (place->cell[1] + 1 < grid->rows);
    if (top != w->span_top || bottom != w->span_bottom) {
        for (int row = top; row <= bottom; row++) {
            const uint8_t *restrict kinds = w->kinds[load_row(w, grid, row)];
            uint8_t *restrict kind = w->kind;
            if (row == top)
                memcpy(kind, kinds, (size_t)n);
            for (int i = 0; i < n; i++)
                kind[i] &= kinds[i];
        }
        find_spans(w, grid);
        w->span_top = top;
        w->span_bottom = bottom;
    }
    unsigned ready = 0;
    for (int r = 0; r < 3; r++)
        for (int k = 0; k < 2; k++) {
            int row = place->cell[r], slot = load_row(w, grid, row + (k && row + 1 < grid->rows));
            place->slots[r][k] = slot;
            for (int s = 0; !(ready >> slot & 1) && s < w->span_count; s++)
                if (w->spans[s].kind == BAND)
                    widen_row(w, grid, slot, &w->spans[s]);
            ready |= 1u << slot;
        }
}

static void composite(Work *w, const Plane front[3], const Plane back[3], const Plane out[3], const Grid *grid)
{
    Place place = {.cell = {-1, -1, -1}};
    const Fraction *at = place.at;
    for (int pair = 0; 2 * pair < w->height; pair++) {
        const int count = 2 * pair + 1 < w->height ? 2 : 1;
        prepare(w, grid, pair, count, &place);
        const uint8_t *fu = ROW(&front[1], pair), *fv = ROW(&front[2], pair);
        for (int s = 0; s < w->span_count; s++) {
            const Span *span = &w->spans[s];
            int start = span->start / 2, stop = (span->stop + 1) / 2, width = stop - start, low = count - 1;
            if (span->start >= span->stop)
                continue;
            if (span->kind != BAND) {
                for (int r = 0; r < count; r++)
                    copy_span(span, ROW(&front[0], 2 * pair + r), ROW(&back[0], 2 * pair + r), ROW(&out[0], 2 * pair + r), 0);
                for (int p = 1; p < 3; p++)
                    copy_span(span, ROW(&front[p], pair), ROW(&back[p], pair), ROW(&out[p], pair), 1);
                continue;
            }
            if (grid->gain) {
                widen(fu + start, w->chroma[0] + 2 * start, width);
                widen(fv + start, w->chroma[1] + 2 * start, width);
            }
            for (int r = 0; r < count; r++)
                luma_row(w, grid, span, place.slots[r], at[r], ROW(&front[0], 2 * pair + r), ROW(&back[0], 2 * pair + r),
                         ROW(&out[0], 2 * pair + r), w->alpha[r]);
            if (span->stop % 2)
                for (int r = 0; r < count; r++)
                    w->alpha[r][span->stop] = w->alpha[r][span->stop - 1];
            halve(w->alpha[0] + span->start, w->alpha[low] + span->start, w->chroma[0], width);
            for (int p = 1; p < 3; p++) {
                Between colour = rows_between(w, COLOUR_Y + p, place.slots[2], at[2], start);
                blend(w->chroma[0], grid->colour ? &colour : NULL, at[2].fraction, ROW(&front[p], pair) + start,
                      ROW(&back[p], pair) + start, ROW(&out[p], pair) + start, width);
            }
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
static void *work_create(Work *w, int width, int height, const Grid *grid)
{
    size_t columns = (size_t)width + 2 * ALIGN, n = (size_t)grid->cols + 1, fields = n * FIELDS;
    size_t bytes = 2 * sizeof(int) * n + sizeof(Span) * n + (2 * SLOTS + 1) * n +
                   sizeof(int16_t) * (SLOTS * fields + (SLOTS * FIELDS + 9) * columns) + 16 * (4 * SLOTS + 16);
    char *memory = PyMem_Calloc(1, bytes), *cursor = memory;
    if (memory == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    *w = (Work){.width = width, .height = height, .span_top = -1, .wide_stride = (int)columns};
    w->spans = carve(&cursor, sizeof(Span) * n);
    for (int k = 0; k < 2; k++) {
        Axis *axis = k ? &w->half : &w->luma;
        axis->cell_start = carve(&cursor, sizeof(int) * n);
        axis->weight = carve(&cursor, sizeof(int16_t) * columns);
        axis->second = carve(&cursor, sizeof(int16_t) * columns);
    }
    for (int k = 0; k < SLOTS; k++) {
        w->nodes[k] = carve(&cursor, sizeof(int16_t) * fields);
        w->kinds[k] = carve(&cursor, n);
        w->is_wide[k] = carve(&cursor, n);
        w->wide[k] = carve(&cursor, sizeof(int16_t) * FIELDS * columns);
        w->node_row[k] = -1;
    }
    w->chroma[0] = carve(&cursor, sizeof(int16_t) * columns);
    w->chroma[1] = carve(&cursor, sizeof(int16_t) * columns);
    w->luma_row = carve(&cursor, columns);
    w->alpha[0] = carve(&cursor, sizeof(int16_t) * columns);
    w->alpha[1] = carve(&cursor, sizeof(int16_t) * columns);
    w->kind = carve(&cursor, n);
    axis_init(&w->luma, width, width, grid->cols, luma_centre);
    axis_init(&w->half, (width + 1) / 2, width, grid->cols, chroma_centre);
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
        Py_ssize_t item = i == OFFSET_ARG || i == GAIN_ARG ? (Py_ssize_t)sizeof(float) : 1;
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

static PyObject *blend_composite(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *a[ARRAYS];
    if (!PyArg_ParseTuple(args, "(OOO)(OOO)(OOO)OOO", &a[0], &a[1], &a[2], &a[3], &a[4], &a[5], &a[6], &a[7], &a[8],
                          &a[9], &a[10], &a[11]))
        return NULL;
    Plane planes[ARRAYS];
    int given[ARRAYS] = {0}, held = 0;
    PyObject *result = NULL;
    void *memory = NULL;
    for (; held < ARRAYS; held++) {
        if (held > OFFSET_ARG && a[held] == Py_None)
            continue;
        char format = held == OFFSET_ARG || held == GAIN_ARG ? 'f' : 'B';
        if (plane_get(&planes[held], a[held], format, held >= OUT && held < OFFSET_ARG, names[held]) < 0)
            goto done;
        given[held] = 1;
    }
    if (!check(planes, given))
        goto done;
    Grid grid = {.rows = (int)planes[OFFSET_ARG].rows,
                 .cols = (int)planes[OFFSET_ARG].cols,
                 .offset = (const float *)planes[OFFSET_ARG].data,
                 .gain = given[GAIN_ARG] ? (const float *)planes[GAIN_ARG].data : NULL,
                 .colour = given[COLOUR_ARG] ? planes[COLOUR_ARG].data : NULL};
    Work work;
    memory = work_create(&work, (int)planes[0].cols, (int)planes[0].rows, &grid);
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
    {"composite", blend_composite, METH_VARARGS,
     "composite((y, u, v), (y, u, v), (y, u, v), offset, gain, foreground): see edge_seg/composite.py"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_blend", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__blend(void) { return PyModule_Create(&module); }
