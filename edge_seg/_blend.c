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
#include "_layout.h"

#define ALPHA_ONE 1027 /* alpha 1.0; a bit more than 1024, so that it still saturates after rounding down */
#define NOTHING 2      /* an offset up to here is alpha 0; with gains, what is less */
#define COLOUR_ONE 16  /* colours, while they are interpolated */
#define SLOTS 6        /* for the grid rows that a pair of luma rows and their chroma row lie between: */
#define FEW 4          /* mostly so many next to each other; the fewer, the more of them stay in the cache */
#define LINE 64        /* bytes of a line of the cache */
#define AHEAD 2        /* pairs of rows that pictures are asked for before they are blended */
#define STRIP 16       /* pairs of rows that are copied at once: they stay in the second-level cache */

/* At luma's columns, even ones and behind them odd ones; but three colours at chroma's. The gains of chroma, too, are at
 * luma's: offset and gains cancel out only if all are taken at the same place, and stripes would show if not. */
enum { OFFSET, GAIN_Y = 2, GAIN_U = 4, GAIN_V = 6, COLOUR = 8, FIELDS = 11 };
enum { BAND, BACK, FRONT }; /* BACK & FRONT is BAND: what is not one or the other as a whole */

typedef struct {
    int rows, cols;
    const int16_t *offset, *gain; /* gain, 3 planes, may be NULL */
    const uint8_t *colour;        /* 3 planes, may be NULL */
} Grid;

/* A row of the grid at the picture's columns of two blocks: this one and the next, whose half is that one's first. */
typedef int16_t Wide[FIELDS][2 * HALF];

typedef struct { int start, stop, kind; } Span; /* blocks */

typedef struct {
    const Layout *layout;
    int width, height, blocks; /* its */
    int shuffles;            /* whether bytes of a register can be looked up at once */
    uint8_t *kinds;          /* [rows][kind_stride]: what each grid row says about each block */
    int kind_stride;
    uint8_t *node_kind;      /* [rows][cols] */
    uint8_t *kind;           /* [kind_stride]: what the grid rows around the row pair agree on */
    Span *spans;             /* [blocks] */
    int node_row[SLOTS];     /* cached grid rows */
    Wide *wide[SLOTS];       /* of those rows */
    uint8_t *is_wide[SLOTS]; /* of those rows, per block: whether `wide` is filled in */
    int span_count, span_top, span_bottom;
} Work;

#define ROW(plane, y) ((plane)->data + (Py_ssize_t)(y) * (plane)->stride)

/* --- what the grid says about the blocks ---------------------------------------------------------------------------- */

/* The first of the bytes behind `from` that differs from the one before it; `count` if none does. */
INLINED int next_change(const uint8_t *bytes, int from, int count)
{
    for (int i = from + 1; i < count; i += 8) {
        uint64_t change = eight(bytes + i) ^ eight(bytes + i - 1);
        if (change != 0)
            return i + first_of(change) < count ? i + first_of(change) : count;
    }
    return count;
}

/* Of all nodes: BACK or FRONT where alpha is 0 or 256 whatever the colour, else BAND. */
INLINED void kinds_of_nodes(const Grid *grid, uint8_t *restrict kinds)
{
    const Py_ssize_t n = (Py_ssize_t)grid->rows * grid->cols;
    const int16_t *restrict offset = grid->offset, *restrict y = grid->gain;
    if (y == NULL) {
        for (Py_ssize_t i = 0; i < n; i++)
            kinds[i] = (uint8_t)((offset[i] <= NOTHING ? BACK : 0) | (offset[i] >= ALPHA_ONE ? FRONT : 0));
        return;
    }
    const int16_t *restrict u = y + n, *restrict v = u + n;
    for (Py_ssize_t i = 0; i < n; i++) {
        int16_t kind = (int16_t)((offset[i] < NOTHING ? BACK : 0) | (offset[i] >= ALPHA_ONE ? FRONT : 0));
        kinds[i] = (uint8_t)((int16_t)(y[i] | u[i] | v[i]) == 0 ? kind : 0);
    }
}

/* What each grid row says about the blocks. */
WIDE static void find_kinds(const Work *w, const Grid *grid)
{
    const int n = grid->cols, *cell_start = w->layout->cell_start;
    kinds_of_nodes(grid, w->node_kind);
    for (int row = 0; row < grid->rows; row++) {
        const uint8_t *restrict nodes = w->node_kind + (Py_ssize_t)row * n;
        uint8_t *restrict kinds = w->kinds + (Py_ssize_t)row * w->kind_stride;
        memset(kinds, BACK | FRONT, (size_t)w->kind_stride);
        /* A run of nodes of one kind, from the cell that it begins in the midst of to the cell that it ends in. */
        for (int i = 0, next; i < n; i = next) {
            next = next_change(nodes, i, n);
            const int start = cell_start[i > 0 ? i - 1 : 0], last = cell_start[next] - 1;
            if (last < start) /* no pixel lies there: the grid is the finer one */
                continue;
            for (int block = start / BLOCK; block <= last / BLOCK; block++)
                kinds[block] &= nodes[i];
        }
    }
}

/* What the grid rows top to bottom agree on, as runs of blocks. */
WIDE static void find_spans(Work *w, int top, int bottom)
{
    uint8_t *restrict kind = w->kind;
    const int stride = w->kind_stride;
    memcpy(kind, w->kinds + (Py_ssize_t)top * stride, (size_t)stride);
    for (int row = top + 1; row <= bottom; row++) {
        const uint8_t *restrict more = w->kinds + (Py_ssize_t)row * stride;
        for (int i = 0; i < stride; i++)
            kind[i] &= more[i];
    }
    w->span_count = 0;
    for (int i = 0, next; i < w->blocks; i = next) {
        next = next_change(kind, i, w->blocks);
        w->spans[w->span_count++] = (Span){.start = i, .stop = next, .kind = kind[i]};
    }
    w->span_top = top;
    w->span_bottom = bottom;
}

/* --- from the grid to the picture's columns ----------------------------------------------------------------------- */

/* Eight elements of eight: by a table look-up of bytes where the machine has one. */
INLINED void pick_lanes(const int16_t nodes[NODES], const uint8_t bytes[2 * HALF], int shuffles, int16_t out[HALF])
{
#if defined(__GNUC__) && !defined(__clang__)
    typedef uint8_t Bytes __attribute__((vector_size(16)));
    if (shuffles) {
        Bytes table, index;
        memcpy(&table, nodes, sizeof table);
        memcpy(&index, bytes, sizeof index);
        table = __builtin_shuffle(table, index);
        memcpy(out, &table, sizeof table);
        return;
    }
#endif
    (void)shuffles;
    for (int i = 0; i < HALF; i++)
        out[i] = nodes[bytes[2 * i] / 2];
}

/* From each node to the next. What the last says no one asks for: nothing lies behind it. */
INLINED void steps_of(const int16_t nodes[NODES], int16_t steps[NODES])
{
#if defined(__GNUC__) && !defined(__clang__)
    typedef int16_t Nodes __attribute__((vector_size(2 * NODES)));
    Nodes here;
    memcpy(&here, nodes, sizeof here);
    here = __builtin_shuffle(here, (Nodes){1, 2, 3, 4, 5, 6, 7, 0}) - here;
    memcpy(steps, &here, sizeof here);
#else
    for (int i = 0; i < NODES; i++)
        steps[i] = (int16_t)(nodes[(i + 1) % NODES] - nodes[i]);
#endif
}

/* Between two nodes, or rows of them: from the nearer one on. */
INLINED int16_t on_the_way(int16_t nearer, int16_t step, int16_t fraction)
{
    return (int16_t)(nearer + (int16_t)((step * fraction) >> 16));
}

INLINED int16_t between(int16_t first, int16_t second, const int far, int16_t fraction)
{
    return on_the_way(far ? second : first, (int16_t)(second - first), fraction);
}

/* A field of a block: into its own place, and behind the field of the block before. */
INLINED void store_twice(int16_t *out, const int16_t values[HALF])
{
    memcpy(out, values, HALF * sizeof(int16_t));
    memcpy(out - FIELDS * 2 * HALF + HALF, values, HALF * sizeof(int16_t));
}

/* What becomes of an offset. Half of what alpha is divided by in the end is added: it rounds. With gains it is halved,
 * so that no sum of terms leaves 16 bits. */
enum { AS_IT_IS, WHOLE, HALVED };

INLINED int16_t prepared(int16_t value, int how)
{
    return (int16_t)(how == AS_IT_IS ? value : (how == HALVED ? value >> 1 : value) + 1);
}

INLINED void interpolate(const Pick *pick, const int16_t nodes[NODES], const int16_t steps[NODES], int shuffles, int how,
                         int16_t *restrict out)
{
    int16_t nearer[HALF], step[HALF], value[HALF];
    pick_lanes(nodes, pick->nearer, shuffles, nearer);
    pick_lanes(steps, pick->first, shuffles, step);
    EACH_LANE(i, HALF)
        value[i] = prepared(on_the_way(nearer[i], step[i], pick->fraction[i]), how);
    store_twice(out, value);
}

/* Half of what is divided by in the end is added: it rounds. */
INLINED int16_t colour_node(uint8_t code) { return (int16_t)(code * COLOUR_ONE + COLOUR_ONE / 2); }

INLINED void colours_load(const uint8_t *from, int16_t nodes[NODES])
{
    uint8_t code[NODES];
    memcpy(code, from, sizeof code);
    for (int i = 0; i < NODES; i++)
        nodes[i] = colour_node(code[i]);
}

INLINED void widen_luma(const Column *column, const int16_t *from, int shuffles, int how, Wide *wide, int k)
{
    int16_t nodes[NODES], steps[NODES];
    memcpy(nodes, from, sizeof nodes);
    steps_of(nodes, steps);
    interpolate(&column->luma[0], nodes, steps, shuffles, how, (*wide)[k]);
    interpolate(&column->luma[1], nodes, steps, shuffles, how, (*wide)[k + 1]);
}

INLINED void widen_colour(const Column *column, const uint8_t *from, int shuffles, Wide *wide, int k)
{
    int16_t nodes[NODES], steps[NODES];
    colours_load(from, nodes);
    steps_of(nodes, steps);
    interpolate(&column->chroma, nodes, steps, shuffles, AS_IT_IS, (*wide)[k]);
}

INLINED void widen_narrow(const Work *w, const Grid *grid, int row, int block, Wide *wide, const int shuffles,
                          const int fitted)
{
    const Column *column = &w->layout->columns[block];
    const Py_ssize_t plane = (Py_ssize_t)grid->rows * grid->cols;
    const Py_ssize_t at = (Py_ssize_t)row * grid->cols + column->first_node;
    widen_luma(column, grid->offset + at, shuffles, fitted ? HALVED : WHOLE, wide, OFFSET);
    if (fitted) { /* written out, so that the columns' places stay in registers */
        widen_luma(column, grid->gain + at, shuffles, AS_IT_IS, wide, GAIN_Y);
        widen_luma(column, grid->gain + plane + at, shuffles, AS_IT_IS, wide, GAIN_U);
        widen_luma(column, grid->gain + 2 * plane + at, shuffles, AS_IT_IS, wide, GAIN_V);
    }
    if (grid->colour) {
        widen_colour(column, grid->colour + at, shuffles, wide, COLOUR);
        widen_colour(column, grid->colour + plane + at, shuffles, wide, COLOUR + 1);
        widen_colour(column, grid->colour + 2 * plane + at, shuffles, wide, COLOUR + 2);
    }
}

INLINED int16_t between_nodes(const Axis *axis, int x, int16_t first, int16_t second)
{
    return between(first, second, axis->fraction[x] < 0, axis->fraction[x]);
}

/* The same, sample by sample: for grids that are nearly as fine as the picture, or finer. */
static void widen_slowly(const Work *w, const Grid *grid, int row, int block, Wide *wide)
{
    const Py_ssize_t plane = (Py_ssize_t)grid->rows * grid->cols, at = (Py_ssize_t)row * grid->cols;
    const int last = grid->cols - 1, half_width = (w->width + 1) / 2, how = grid->gain ? HALVED : WHOLE;
    int16_t lanes[FIELDS][HALF] = {{0}};
    for (int i = 0; i < BLOCK; i++) {
        int x = block * BLOCK + i < w->width ? block * BLOCK + i : w->width - 1;
        int a = w->layout->across.cell[x], b = a < last ? a + 1 : a;
        int16_t(*to)[HALF] = lanes + i % 2;
        to[OFFSET][i / 2] = prepared(between_nodes(&w->layout->across, x, grid->offset[at + a], grid->offset[at + b]), how);
        for (int k = 0; grid->gain && k < 3; k++) {
            const int16_t *nodes = grid->gain + k * plane + at;
            to[GAIN_Y + 2 * k][i / 2] = between_nodes(&w->layout->across, x, nodes[a], nodes[b]);
        }
    }
    for (int i = 0; grid->colour && i < HALF; i++) {
        int x = block * HALF + i < half_width ? block * HALF + i : half_width - 1;
        int a = w->layout->half_across.cell[x], b = a < last ? a + 1 : a;
        for (int k = 0; k < 3; k++) {
            const uint8_t *nodes = grid->colour + k * plane + at;
            lanes[COLOUR + k][i] = between_nodes(&w->layout->half_across, x, colour_node(nodes[a]), colour_node(nodes[b]));
        }
    }
    for (int k = 0; k < FIELDS; k++)
        store_twice((*wide)[k], lanes[k]);
}

/* Fills in a cached grid row for the blocks of a span, where that was not done for another row of pixels. */
INLINED void widen_span(const Work *w, const Grid *grid, int slot, const Span *span)
{
    uint8_t *done = w->is_wide[slot];
    const int row = w->node_row[slot];
    const int stop = span->stop + (span->stop - span->start) % 2; /* two are blended at a time */
    for (int block = span->start; block < stop && block < w->blocks; block++) {
        if (done[block])
            continue;
        done[block] = 1;
        Wide *wide = &w->wide[slot][block];
        if (!w->layout->narrow)
            widen_slowly(w, grid, row, block, wide);
        else if (w->shuffles && grid->gain)
            widen_narrow(w, grid, row, block, wide, 1, 1);
        else
            widen_narrow(w, grid, row, block, wide, w->shuffles, grid->gain != NULL);
    }
}

/* Several of them, as bits of `slots`, for all of the band. */
WIDE static void widen(const Work *w, const Grid *grid, unsigned slots)
{
    for (int slot = 0; slot < SLOTS; slot++)
        for (int s = 0; slots >> slot & 1 && s < w->span_count; s++)
            if (w->spans[s].kind == BAND)
                widen_span(w, grid, slot, &w->spans[s]);
}

/* --- blending -------------------------------------------------------------------------------------------------- */

/* Where the rows of a pair lie between the grid's rows: both of luma, and chroma's. */
typedef struct {
    int cell[3], slots[3][2];
    int16_t fraction[3];
} Place;

/* How many of a pair's two rows of luma are nearer to the grid row below them than to that above: none, the lower one
 * or both. But APART if not the same two grid rows are around both. */
enum { APART = -1, NONE, LOWER, BOTH };

/* gain * (code - 128) / 255 / 2, with `centred` from `centre`: halves, so that no sum of them leaves 16 bits. */
INLINED int16_t term(int16_t gain, int16_t centred) { return (int16_t)((gain * centred) >> 16); }
INLINED int16_t centre(uint16_t code) { return (int16_t)((int16_t)((uint16_t)(code << 8) ^ 0x8000) >> 1); }

/* above * alpha + below * (256 - alpha) + 128 fits 16 bits without a sign; its high byte is the mixture. */
INLINED uint16_t mix(uint16_t alpha, uint16_t above, uint16_t below)
{
    return (uint16_t)((uint16_t)((uint16_t)(below << 8) + 128) + (uint16_t)(alpha * (uint16_t)(above - below)));
}

/* Of two pixels in one element: the even one or the odd one; and back, from a mixture. */
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define IN_HIGH_BYTE(odd) (!(odd))
#else
#define IN_HIGH_BYTE(odd) (odd)
#endif
INLINED uint16_t code_of(uint16_t two, int odd) { return (uint16_t)(IN_HIGH_BYTE(odd) ? two >> 8 : two & 255); }
INLINED uint16_t in_place(uint16_t mixture, int odd)
{
    return (uint16_t)(IN_HIGH_BYTE(odd) ? mixture & 0xff00 : mixture >> 8);
}

/* What a grid row says about alpha, but for luma: the two rows of a pair have their chroma in common. */
INLINED int16_t combined(const Wide *wide, int odd, int x, int16_t u, int16_t v)
{
    return (int16_t)((*wide)[OFFSET + odd][x] + term((*wide)[GAIN_U + odd][x], u) + term((*wide)[GAIN_V + odd][x], v));
}

/* The grid rows around both rows of luma and that of chroma, and which of the two is the nearer one. */
typedef struct {
    const Wide *first[3], *second[3], *nearer[3];
    int16_t fraction[3];
} Rows;

INLINED uint16_t colour_at(const Rows *rows, int block, int k, int x)
{
    const int16_t step = (int16_t)(rows->second[2][block][COLOUR + k][x] - rows->first[2][block][COLOUR + k][x]);
    return (uint16_t)((uint16_t)on_the_way(rows->nearer[2][block][COLOUR + k][x], step, rows->fraction[2]) / COLOUR_ONE);
}

/* The planes of two blocks, or of a copy of them. */
typedef struct { uint8_t *y[2], *u, *v; } Block;

/* Alpha, 0 to 256, in row r of a pair. */
INLINED uint16_t alpha_at(const Rows *rows, const int r, const int nearer, int block, int odd, int x, int16_t u, int16_t v,
                          uint16_t two, const int fitted)
{
    const int around = nearer == APART ? r : 0, is_below = nearer + r >= BOTH;
    const Wide *first = &rows->first[around][block], *second = &rows->second[around][block];
    const Wide *near = nearer == APART ? &rows->nearer[r][block] : is_below ? second : first;
    const int16_t fraction = rows->fraction[r];
    int16_t value;
    if (fitted) {
        const int16_t step = (int16_t)((*second)[GAIN_Y + odd][x] - (*first)[GAIN_Y + odd][x]);
        const int16_t gain = on_the_way((*near)[GAIN_Y + odd][x], step, fraction);
        const int16_t above = combined(first, odd, x, u, v), below = combined(second, odd, x, u, v);
        value = on_the_way(combined(near, odd, x, u, v), (int16_t)(below - above), fraction);
        value = (int16_t)((int16_t)(value + term(gain, centre(code_of(two, odd)))) >> 1);
    } else {
        const int16_t step = (int16_t)((*second)[OFFSET + odd][x] - (*first)[OFFSET + odd][x]);
        value = (int16_t)(on_the_way((*near)[OFFSET + odd][x], step, fraction) >> 2);
    }
    value = value < 0 ? 0 : value;
    return (uint16_t)(value > 256 ? 256 : value);
}

/* A mixture whose person is first drawn towards the colour nearby. */
INLINED uint16_t mix_all(uint16_t alpha, uint16_t code, uint16_t near, uint16_t behind, const int coloured)
{
    return mix(alpha, coloured ? mix(alpha, code, near) >> 8 : code, behind);
}

INLINED uint16_t two_mixed(uint16_t even_alpha, uint16_t odd_alpha, uint16_t front, uint16_t back, uint16_t near,
                           const int coloured)
{
    uint16_t even = mix_all(even_alpha, code_of(front, 0), near, code_of(back, 0), coloured);
    uint16_t odd = mix_all(odd_alpha, code_of(front, 1), near, code_of(back, 1), coloured);
    return (uint16_t)(in_place(even, 0) | in_place(odd, 1));
}

/* Two blocks, two rows of luma and one of chroma. Even and odd columns of luma are apart: chroma's samples, and its
 * alpha, have the same place in a register as the pixels they belong to, and bytes become elements of 16 bits without
 * a shuffle. All that happens is in one loop, so that it happens in registers. */
INLINED void blend_block(const Rows *rows, int block, const Block *front, const Block *back, const Block *out,
                         const int fitted, const int coloured, const int nearer)
{
    uint16_t fore[2][BLOCK], behind[2][BLOCK], mixed[2][BLOCK];
    uint16_t u[BLOCK], v[BLOCK], behind_u[BLOCK], behind_v[BLOCK], mixed_u[BLOCK], mixed_v[BLOCK];
    for (int r = 0; r < 2; r++) {
        copy_lanes(fore[r], front->y[r], sizeof fore[r]);
        copy_lanes(behind[r], back->y[r], sizeof behind[r]);
    }
    codes_load(front->u, u);
    codes_load(front->v, v);
    codes_load(back->u, behind_u);
    codes_load(back->v, behind_v);
    EACH_LANE(x, BLOCK) {
        const int16_t centred_u = centre(u[x]), centred_v = centre(v[x]);
        const uint16_t near = coloured ? colour_at(rows, block, 0, x) : 0;
        /* Written out, for GCC does not vectorise loops around loops: even and odd columns of two rows. */
        const uint16_t a = alpha_at(rows, 0, nearer, block, 0, x, centred_u, centred_v, fore[0][x], fitted);
        const uint16_t b = alpha_at(rows, 0, nearer, block, 1, x, centred_u, centred_v, fore[0][x], fitted);
        const uint16_t c = alpha_at(rows, 1, nearer, block, 0, x, centred_u, centred_v, fore[1][x], fitted);
        const uint16_t d = alpha_at(rows, 1, nearer, block, 1, x, centred_u, centred_v, fore[1][x], fitted);
        mixed[0][x] = two_mixed(a, b, fore[0][x], behind[0][x], near, coloured);
        mixed[1][x] = two_mixed(c, d, fore[1][x], behind[1][x], near, coloured);
        const uint16_t alpha = (uint16_t)((uint16_t)(a + b + c + d + 2) >> 2);
        const uint16_t near_u = coloured ? colour_at(rows, block, 1, x) : 0;
        const uint16_t near_v = coloured ? colour_at(rows, block, 2, x) : 0;
        mixed_u[x] = mix_all(alpha, u[x], near_u, behind_u[x], coloured) >> 8;
        mixed_v[x] = mix_all(alpha, v[x], near_v, behind_v[x], coloured) >> 8;
    }
    for (int r = 0; r < 2; r++)
        copy_lanes(out->y[r], mixed[r], sizeof mixed[r]);
    codes_store(mixed_u, out->u);
    codes_store(mixed_v, out->v);
}

/* A pair of rows. Blocks are those at its start. */
typedef struct {
    Rows rows;
    Block front, back, out;
    int count; /* 1 if the picture ends within the pair */
    int nearer;
} Lines;

static Block lines_of(const Plane planes[3], int pair, int count)
{
    uint8_t *y = ROW(&planes[0], 2 * pair);
    return (Block){{y, count > 1 ? y + planes[0].stride : y}, ROW(&planes[1], pair), ROW(&planes[2], pair)};
}

INLINED Block block_at(const Block *start, Py_ssize_t block)
{
    const Py_ssize_t x = block * BLOCK, half = block * HALF;
    return (Block){{start->y[0] + x, start->y[1] + x}, start->u + half, start->v + half};
}

static void lines_init(Lines *lines, const Work *w, const Place *place, int pair, int count, const Plane front[3],
                       const Plane back[3], const Plane out[3])
{
    *lines = (Lines){.front = lines_of(front, pair, count), .back = lines_of(back, pair, count),
                     .out = lines_of(out, pair, count), .count = count};
    for (int r = 0; r < 3; r++) {
        const Wide *around[2] = {w->wide[place->slots[r][0]], w->wide[place->slots[r][1]]};
        lines->rows.first[r] = around[0];
        lines->rows.second[r] = around[1];
        lines->rows.nearer[r] = around[place->fraction[r] < 0];
        lines->rows.fraction[r] = place->fraction[r];
    }
    const int same = place->cell[0] == place->cell[1];
    lines->nearer = same ? (place->fraction[0] < 0) + (place->fraction[1] < 0) : APART;
}

typedef struct { uint8_t y[2][2 * BLOCK], u[BLOCK], v[BLOCK]; } BlockCopy;

static inline Block block_of(BlockCopy *copy) { return (Block){{copy->y[0], copy->y[1]}, copy->u, copy->v}; }

/* Copies `valid` columns. */
static void block_copy(const Block *from, const Block *to, int count, int valid)
{
    for (int r = 0; r < count; r++)
        memcpy(to->y[r], from->y[r], (size_t)valid);
    memcpy(to->u, from->u, (size_t)((valid + 1) / 2));
    memcpy(to->v, from->v, (size_t)((valid + 1) / 2));
}

INLINED void blend_span(const Lines *lines, const Span *span, int width, const int fitted, const int coloured,
                        const int nearer)
{
    const Rows rows = lines->rows;
    const Block front = lines->front, back = lines->back, out = lines->out;
    const int count = lines->count, stop = span->stop;
    /* Of an odd number of blocks, the last is blended with the one behind them, which that does not change. */
    for (int block = span->start; block < stop; block += 2) {
        const Block f = block_at(&front, block), b = block_at(&back, block), o = block_at(&out, block);
        const int valid = width - block * BLOCK;
        if (valid >= 2 * BLOCK) {
            blend_block(&rows, block, &f, &b, &o, fitted, coloured, nearer);
            continue;
        }
        /* Cut off by the picture's edge. A column more than there is makes an odd number even: what alpha is there
         * counts for chroma. */
        BlockCopy copies[3] = {{{{0}}, {0}, {0}}, {{{0}}, {0}, {0}}, {{{0}}, {0}, {0}}};
        Block fore = block_of(&copies[0]), behind = block_of(&copies[1]), mixed = block_of(&copies[2]);
        block_copy(&f, &fore, count, valid);
        block_copy(&b, &behind, count, valid);
        for (int r = 0; r < 2; r++)
            fore.y[r][valid] = fore.y[r][valid - 1];
        if (count == 1)
            fore.y[1] = fore.y[0], behind.y[1] = behind.y[0], mixed.y[1] = mixed.y[0];
        blend_block(&rows, block, &fore, &behind, &mixed, fitted, coloured, nearer);
        block_copy(&mixed, &o, count, valid);
    }
}

WIDE static void blend_band(const Lines *lines, const Span *span, int width, int fitted, int coloured)
{
    if (fitted && coloured && lines->nearer == NONE)
        blend_span(lines, span, width, 1, 1, NONE);
    else if (fitted && coloured && lines->nearer == LOWER)
        blend_span(lines, span, width, 1, 1, LOWER);
    else if (fitted && coloured && lines->nearer == BOTH)
        blend_span(lines, span, width, 1, 1, BOTH);
    else if (fitted && coloured)
        blend_span(lines, span, width, 1, 1, APART);
    else if (fitted)
        blend_span(lines, span, width, 1, 0, APART);
    else if (coloured)
        blend_span(lines, span, width, 0, 1, APART);
    else
        blend_span(lines, span, width, 0, 0, APART);
}

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

/* Rows first to last of a plane; as one piece, if they lie so in both. */
static void copy_rows(const Plane *from, const Plane *out, int first, int last)
{
    const size_t bytes = (size_t)(last - first) * (size_t)out->cols;
    if (out->stride == out->cols && is_plain(from)) {
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
    for (int pair = 0; 2 * pair < w->height; pair++) {
        const int count = 2 * pair + 1 < w->height ? 2 : 1;
        if (apart && pair % STRIP == 0) {
            /* One large copy, and the smaller part over it, is faster than many copies of pieces of rows: processors
             * need not read what they overwrite as a whole. */
            const int end = 2 * (pair + STRIP) < w->height ? pair + STRIP : (w->height + 1) / 2;
            copied = larger_part(w);
            const Plane *from = copied == FRONT ? front : back;
            copy_rows(&from[0], &out[0], 2 * pair, 2 * end < w->height ? 2 * end : w->height);
            for (int k = 1; k < 3; k++)
                copy_rows(&from[k], &out[k], pair, end);
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
    const size_t blocks = (size_t)layout->blocks, stride = (blocks + 8 + 31) / 32 * 32;
    const size_t rows = (size_t)layout->rows, nodes = rows * (size_t)layout->cols;
    const size_t kinds = (rows + 1) * stride + nodes + 8 + sizeof(Span) * blocks;
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
    w->kind_stride = (int)stride;
    w->kinds = carve(&cursor, rows * stride);
    w->kind = carve(&cursor, stride);
    w->node_kind = carve(&cursor, nodes + 8);
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
