/* The composite: out = background + alpha * (person - background), in one pass over I420.
 *
 * alpha = clip(offset + gain . (colour - 128) / 255, 0, 1), with offset and gain interpolated bilinearly from the
 * coarse grid (edge_seg/matte.py), all in 16-bit fixed point. Most of a picture is wholly person or wholly
 * background and is copied. Only what is neither is computed, in blocks of 16x2 pixels of luma and the 8x1 of chroma
 * over them: all of their loops have one length, so that no loop ends in single pixels and no branch is guessed wrong.
 * There the person's colour is the frame's, drawn towards the colour that the person has nearby as far as the pixel
 * is transparent: the old background goes out of it.
 *
 * edge_seg/composite.py holds the same arithmetic in NumPy; the tests hold both to be equal, bit for bit.
 */
#include "_buffers.h"

#define ALPHA_ONE 1027 /* alpha 1.0; a bit more than 1024, so that it still saturates after rounding down */
#define NOTHING 2      /* an offset up to here is alpha 0 */
#define COLOUR_ONE 16  /* colours, while they are interpolated */
#define BLOCK 16       /* columns of luma that are blended at a time */
#define HALF (BLOCK / 2)
#define SLOTS 8        /* at least the 6 grid rows that a pair of luma rows and their chroma row lie between */
#define NODES 8        /* of the grid that fit a register */
#define MAX_SIDE 16384
#define STRIP 16       /* pairs of rows that are copied at once: they stay in the second-level cache */

enum { OFFSET, GAIN_Y, GAIN_U, GAIN_V, COLOUR_Y, COLOUR_UV, FIELDS }; /* of the last, U lies before V */
enum { BAND, BACK, FRONT }; /* BACK & FRONT is BAND: what is not one or the other as a whole */

typedef struct {
    int rows, cols;
    const int16_t *offset, *gain; /* gain, 3 planes, may be NULL */
    const uint8_t *colour;        /* 3 planes, may be NULL */
} Grid;

/* Where samples lie between the nodes of the grid: sample i between nodes cell[i] and cell[i] + 1, at base + fraction *
 * step / 65536 with fraction in [-1/2, 1/2), counted from the nearer one. */
typedef struct {
    int *cell;
    int16_t *fraction;
    uint8_t *second; /* 1 where the nearer node is cell[i] + 1 */
} Axis;

/* The same for 8 samples, with the nodes counted from one of them on. As bytes of int16 elements: what a table look-up
 * of bytes wants. */
typedef struct {
    int16_t fraction[HALF];
    uint8_t near[2 * HALF], first[2 * HALF], second[2 * HALF];
} Pick;

typedef struct {
    int first_node;
    Pick luma[2], chroma;
} Column; /* of blocks */

typedef int16_t Wide[FIELDS][BLOCK]; /* a row of the grid at the picture's columns of a block */

typedef struct { int start, stop, kind; } Span; /* blocks */

typedef struct {
    int width, height, blocks;
    int narrow;              /* whether the nodes over each block fit a register */
    int shuffles;            /* whether bytes of a register can be looked up at once */
    Axis across, half_across, down, half_down;
    int *cell_start;         /* [nodes + 1]: the first column of each cell */
    Column *columns;         /* [blocks], if narrow */
    int node_row[SLOTS];     /* cached grid rows */
    int used[SLOTS], uses;   /* when each slot was last asked for */
    uint8_t *kinds[SLOTS];   /* of those rows: BACK or FRONT where alpha is 0 or 256 whatever the colour, else BAND */
    Wide *wide[SLOTS];       /* of those rows */
    uint8_t *is_wide[SLOTS]; /* of those rows, per block: whether `wide` is filled in */
    uint8_t *kind;           /* [cols]: what the grid rows around the row pair agree on */
    uint8_t *block_kind;     /* [blocks] */
    Span *spans;             /* [blocks] */
    int span_count, span_top, span_bottom;
} Work;

#define ROW(plane, y) ((plane)->data + (Py_ssize_t)(y) * (plane)->stride)

/* --- where things lie ------------------------------------------------------------------------------------------- */

/* Of samples at first, first + step, ..., at most 2 size - 1, in half pixels, centres aligned. Quotients of doubles are
 * exact enough: they are at least 2^-16 from the next whole number, if not whole. */
static void axis_init(Axis *axis, int count, int first, int step, int size, int nodes)
{
    const double unit = 2.0 * size;
    int *restrict cells = axis->cell;
    int16_t *restrict fraction = axis->fraction;
    uint8_t *restrict second = axis->second;
    for (int i = 0; i < count; i++) {
        int position = first + step * i;
        position = position < 2 * size ? position : 2 * size - 1;
        int numerator = position * nodes - size; /* in units of 1 / (2 * size) */
        numerator = numerator > 0 ? numerator : 0;
        int cell = (int)(numerator / unit);
        int weight = (int)((numerator - cell * unit) * 65536 / unit);
        weight = cell < nodes - 1 ? weight : 0;
        cells[i] = cell < nodes - 1 ? cell : nodes - 1;
        fraction[i] = (int16_t)(weight < 32768 ? weight : weight - 65536);
        second[i] = weight >= 32768;
    }
}

/* The nodes beside samples `from` on, counted from `first_node`; samples beyond the last are like the last. */
static void pick_init(Pick *pick, const Axis *axis, int from, int count, int first_node, int nodes)
{
    for (int i = 0; i < HALF; i++) {
        int x = from + i < count ? from + i : count - 1;
        int first = axis->cell[x], second = first + 1 < nodes ? first + 1 : first;
        int near = axis->second[x] ? second : first;
        pick->fraction[i] = axis->fraction[x];
        for (int byte = 0; byte < 2; byte++) {
            pick->first[2 * i + byte] = (uint8_t)(2 * (first - first_node) + byte);
            pick->second[2 * i + byte] = (uint8_t)(2 * (second - first_node) + byte);
            pick->near[2 * i + byte] = (uint8_t)(2 * (near - first_node) + byte);
        }
    }
}

static void columns_init(Work *w, int nodes)
{
    const int *cell = w->across.cell, half_width = (w->width + 1) / 2;
    w->narrow = nodes >= NODES;
    for (int block = 0; block < w->blocks; block++) {
        int start = block * BLOCK, stop = start + BLOCK < w->width ? start + BLOCK : w->width;
        w->narrow &= cell[stop - 1] + 1 - cell[start] < NODES;
    }
    for (int block = 0; w->narrow && block < w->blocks; block++) {
        Column *column = &w->columns[block];
        int node = cell[block * BLOCK];
        column->first_node = node = node < nodes - NODES ? node : nodes - NODES;
        for (int k = 0; k < 2; k++)
            pick_init(&column->luma[k], &w->across, block * BLOCK + k * HALF, w->width, node, nodes);
        pick_init(&column->chroma, &w->half_across, block * HALF, half_width, node, nodes);
    }
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

WIDE static void kinds_fill(const int16_t *restrict offset, const int16_t *restrict gain, Py_ssize_t plane, int n, uint8_t *restrict kinds)
{
    if (gain == NULL) {
        for (int i = 0; i < n; i++)
            kinds[i] = (uint8_t)((offset[i] <= NOTHING ? BACK : 0) | (offset[i] >= ALPHA_ONE ? FRONT : 0));
        return;
    }
    const int16_t *restrict u = gain + plane, *restrict v = u + plane;
    for (int i = 0; i < n; i++) {
        int16_t kind = (int16_t)((offset[i] <= NOTHING ? BACK : 0) | (offset[i] >= ALPHA_ONE ? FRONT : 0));
        kinds[i] = (uint8_t)((int16_t)(gain[i] | u[i] | v[i]) == 0 ? kind : 0);
    }
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
    memset(w->is_wide[slot], 0, (size_t)w->blocks);
    Py_ssize_t at = (Py_ssize_t)row * n, plane = (Py_ssize_t)grid->rows * n;
    kinds_fill(grid->offset + at, grid->gain ? grid->gain + at : NULL, plane, n, w->kinds[slot]);
    return slot;
}

/* What the grid rows top to bottom agree on, as runs of blocks. */
static void find_spans(Work *w, const Grid *grid, int top, int bottom)
{
    const int n = grid->cols, *cell_start = w->cell_start;
    uint8_t *restrict kind = w->kind;
    for (int row = top; row <= bottom; row++) {
        const uint8_t *restrict kinds = w->kinds[load_row(w, grid, row)];
        if (row == top)
            memcpy(kind, kinds, (size_t)n);
        for (int i = 0; i < n; i++)
            kind[i] &= kinds[i];
    }
    for (int i = 0; i + 1 < n; i++) /* from nodes to the cells between them */
        kind[i] &= kind[i + 1];
    memset(w->block_kind, BACK | FRONT, (size_t)w->blocks);
    for (int i = 0, next; i < n; i = next) {
        next = i + run_length(kind + i, n - i);
        int start = cell_start[i], last = cell_start[next] - 1;
        if (last < start) /* no pixel lies there: the grid is the finer one */
            continue;
        for (int block = start / BLOCK; block <= last / BLOCK; block++)
            w->block_kind[block] &= kind[i];
    }
    w->span_count = 0;
    for (int i = 0, next; i < w->blocks; i = next) {
        next = i + run_length(w->block_kind + i, w->blocks - i);
        w->spans[w->span_count++] = (Span){.start = i, .stop = next, .kind = w->block_kind[i]};
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

INLINED void interpolate(const Pick *pick, const int16_t nodes[NODES], int shuffles, int16_t *restrict out)
{
    int16_t near[HALF], first[HALF], second[HALF], value[HALF];
    pick_lanes(nodes, pick->near, shuffles, near);
    pick_lanes(nodes, pick->first, shuffles, first);
    pick_lanes(nodes, pick->second, shuffles, second);
    for (int i = 0; i < HALF; i++)
        value[i] = (int16_t)(near[i] + ((pick->fraction[i] * (int16_t)(second[i] - first[i])) >> 16));
    memcpy(out, value, sizeof value);
}

INLINED void colours_load(const uint8_t *from, int16_t nodes[NODES])
{
    uint8_t code[NODES];
    memcpy(code, from, sizeof code);
    for (int i = 0; i < NODES; i++)
        nodes[i] = (int16_t)(code[i] * COLOUR_ONE);
}

INLINED void widen_narrow(const Work *w, const Grid *grid, int row, int block, Wide *wide, const int shuffles)
{
    const Column *column = &w->columns[block];
    const Py_ssize_t plane = (Py_ssize_t)grid->rows * grid->cols, at = (Py_ssize_t)row * grid->cols + column->first_node;
    int16_t nodes[NODES];
    for (int k = OFFSET; k <= (grid->gain ? GAIN_V : OFFSET); k++) {
        memcpy(nodes, k == OFFSET ? grid->offset + at : grid->gain + (k - GAIN_Y) * plane + at, sizeof nodes);
        for (int half = 0; half < 2; half++)
            interpolate(&column->luma[half], nodes, shuffles, (*wide)[k] + half * HALF);
    }
    if (grid->colour == NULL)
        return;
    colours_load(grid->colour + at, nodes);
    for (int half = 0; half < 2; half++)
        interpolate(&column->luma[half], nodes, shuffles, (*wide)[COLOUR_Y] + half * HALF);
    for (int k = 0; k < 2; k++) {
        colours_load(grid->colour + (k + 1) * plane + at, nodes);
        interpolate(&column->chroma, nodes, shuffles, (*wide)[COLOUR_UV] + k * HALF);
    }
}

INLINED int16_t between_nodes(const Axis *axis, int x, int16_t first, int16_t second)
{
    int16_t near = axis->second[x] ? second : first;
    return (int16_t)(near + ((axis->fraction[x] * (int16_t)(second - first)) >> 16));
}

/* The same, sample by sample: for grids that are nearly as fine as the picture, or finer. */
static void widen_slowly(const Work *w, const Grid *grid, int row, int block, Wide *wide)
{
    const Py_ssize_t plane = (Py_ssize_t)grid->rows * grid->cols, at = (Py_ssize_t)row * grid->cols;
    const int last = grid->cols - 1, half_width = (w->width + 1) / 2;
    for (int i = 0; i < BLOCK; i++) {
        int x = block * BLOCK + i < w->width ? block * BLOCK + i : w->width - 1;
        int a = w->across.cell[x], b = a < last ? a + 1 : a;
        for (int k = OFFSET; k <= (grid->gain ? GAIN_V : OFFSET); k++) {
            const int16_t *nodes = k == OFFSET ? grid->offset + at : grid->gain + (k - GAIN_Y) * plane + at;
            (*wide)[k][i] = between_nodes(&w->across, x, nodes[a], nodes[b]);
        }
        if (grid->colour == NULL)
            continue;
        const uint8_t *colour = grid->colour + at;
        (*wide)[COLOUR_Y][i] = between_nodes(&w->across, x, (int16_t)(colour[a] * COLOUR_ONE), (int16_t)(colour[b] * COLOUR_ONE));
        x = block * HALF + i % HALF < half_width ? block * HALF + i % HALF : half_width - 1;
        a = w->half_across.cell[x], b = a < last ? a + 1 : a;
        colour += (1 + i / HALF) * plane;
        (*wide)[COLOUR_UV][i] = between_nodes(&w->half_across, x, (int16_t)(colour[a] * COLOUR_ONE), (int16_t)(colour[b] * COLOUR_ONE));
    }
}

/* Fills in a cached grid row for the blocks of a span, where that was not done for another row of pixels. */
WIDE static void widen(const Work *w, const Grid *grid, int slot, const Span *span)
{
    uint8_t *done = w->is_wide[slot];
    const int row = w->node_row[slot];
    for (int block = span->start; block < span->stop; block++) {
        if (done[block])
            continue;
        done[block] = 1;
        Wide *wide = &w->wide[slot][block];
        if (!w->narrow)
            widen_slowly(w, grid, row, block, wide);
        else if (w->shuffles)
            widen_narrow(w, grid, row, block, wide, 1);
        else
            widen_narrow(w, grid, row, block, wide, 0);
    }
}

/* --- blending ------------------------------------------------------------------------------------------------------ */

/* Where the rows of a pair lie between the grid's rows: both of luma, and chroma's. */
typedef struct {
    int cell[3], slots[3][2];
    int near[3]; /* 0 or 1: the slot of the nearer grid row */
    int16_t fraction[3];
} Place;

/* A field between two grid rows: base + fraction * step / 65536, with the nearer row as the base. */
#define BETWEEN(k) ((int16_t)(base[k][x] + (int16_t)(((int16_t)(second[k][x] - first[k][x]) * fraction) >> 16)))

/* gain * (code - 128) / 255, with `centred` from `centre`. */
INLINED int16_t term(int16_t gain, int16_t centred) { return (int16_t)((gain * centred) >> 16); }
INLINED int16_t centre(uint16_t code) { return (int16_t)((uint16_t)(code << 8) ^ 0x8000); }

/* (above * alpha + below * (256 - alpha) + 128) / 256 fits 16 bits without a sign. */
INLINED uint16_t mix(uint16_t alpha, uint16_t above, uint16_t below)
{
    return (uint16_t)((uint16_t)((uint16_t)(below << 8) + (uint16_t)(alpha * (uint16_t)(above - below)) + 128) >> 8);
}

typedef struct { const int16_t (*base)[BLOCK], (*first)[BLOCK], (*second)[BLOCK]; int16_t fraction; } Rows;

INLINED Rows rows_at(const Work *w, const Place *place, int r, int block)
{
    const int16_t(*first)[BLOCK] = w->wide[place->slots[r][0]][block], (*second)[BLOCK] = w->wide[place->slots[r][1]][block];
    return (Rows){place->near[r] ? second : first, first, second, place->fraction[r]};
}

/* Sixteen pixels of luma: alpha, 0 to 256, and the mixture. Pictures come and go in 16 bits: elements of one size
 * fill the registers best. */
INLINED void luma_block(Rows rows, const uint16_t *restrict front, const uint16_t *restrict back, const int16_t *restrict u,
                              const int16_t *restrict v, uint16_t *restrict alphas, uint16_t *restrict out, const int fitted,
                              const int coloured)
{
    const int16_t(*base)[BLOCK] = rows.base, (*first)[BLOCK] = rows.first, (*second)[BLOCK] = rows.second, fraction = rows.fraction;
    for (int x = 0; x < BLOCK; x++) {
        int16_t value = BETWEEN(OFFSET);
        if (fitted)
            value = (int16_t)(value + term(BETWEEN(GAIN_Y), centre(front[x])) +
                              term(BETWEEN(GAIN_U), u[x]) + term(BETWEEN(GAIN_V), v[x]));
        value = (int16_t)((int16_t)(value + 1) >> 2);
        value = value < 0 ? 0 : value;
        uint16_t alpha = (uint16_t)(value > 256 ? 256 : value);
        uint16_t person = front[x];
        if (coloured)
            person = mix(alpha, person, (uint16_t)((uint16_t)(BETWEEN(COLOUR_Y) + COLOUR_ONE / 2) / COLOUR_ONE));
        alphas[x] = alpha;
        out[x] = mix(alpha, person, back[x]);
    }
}

INLINED void chroma_block(Rows rows, const uint16_t *restrict front, const uint16_t *restrict back,
                                const uint16_t *restrict alphas, uint16_t *restrict out, const int coloured)
{
    const int16_t(*base)[BLOCK] = rows.base, (*first)[BLOCK] = rows.first, (*second)[BLOCK] = rows.second, fraction = rows.fraction;
    for (int x = 0; x < BLOCK; x++) {
        uint16_t alpha = alphas[x], person = front[x];
        if (coloured)
            person = mix(alpha, person, (uint16_t)((uint16_t)(BETWEEN(COLOUR_UV) + COLOUR_ONE / 2) / COLOUR_ONE));
        out[x] = mix(alpha, person, back[x]);
    }
}

/* The planes of a block, or of a copy of it. */
typedef struct { uint8_t *y[2], *u, *v; } Block;

/* `count` rows of luma, `valid` columns of them, and their chroma. */
INLINED void blend_block(const Work *w, const Place *place, int block, int count, int valid, const Block *front,
                               const Block *back, const Block *out, const int fitted, const int coloured)
{
    uint8_t codes[BLOCK];
    uint16_t fore[BLOCK], behind[BLOCK], mixed[BLOCK], chroma[BLOCK], halved[BLOCK];
    uint16_t alpha[2][BLOCK] = {{0}};
    int16_t u[BLOCK], v[BLOCK];
    memcpy(codes, front->u, HALF);
    memcpy(codes + HALF, front->v, HALF);
    codes_load(codes, chroma);
    if (fitted)
        for (int x = 0; x < HALF; x++) {
            u[2 * x] = u[2 * x + 1] = centre(chroma[x]);
            v[2 * x] = v[2 * x + 1] = centre(chroma[HALF + x]);
        }
    for (int r = 0; r < 2; r++) {
        if (r < count) {
            codes_load(front->y[r], fore);
            codes_load(back->y[r], behind);
            luma_block(rows_at(w, place, r, block), fore, behind, u, v, alpha[r], mixed, fitted, coloured);
            codes_store(mixed, out->y[r]);
        } else {
            memcpy(alpha[r], alpha[0], sizeof alpha[0]);
        }
        if (valid % 2)
            alpha[r][valid] = alpha[r][valid - 1];
    }
    for (int x = 0; x < HALF; x++) {
        uint16_t sum = (uint16_t)(alpha[0][2 * x] + alpha[0][2 * x + 1] + alpha[1][2 * x] + alpha[1][2 * x + 1]);
        halved[x] = halved[HALF + x] = (uint16_t)((uint16_t)(sum + 2) >> 2);
    }
    memcpy(codes, back->u, HALF);
    memcpy(codes + HALF, back->v, HALF);
    codes_load(codes, behind);
    chroma_block(rows_at(w, place, 2, block), chroma, behind, halved, mixed, coloured);
    codes_store(mixed, codes);
    memcpy(out->u, codes, HALF);
    memcpy(out->v, codes + HALF, HALF);
}

INLINED Block block_at(const Plane planes[3], int pair, int count, int block)
{
    uint8_t *y = ROW(&planes[0], 2 * pair) + block * BLOCK;
    return (Block){{y, count > 1 ? y + planes[0].stride : y}, ROW(&planes[1], pair) + block * HALF, ROW(&planes[2], pair) + block * HALF};
}

typedef struct { uint8_t y[2][BLOCK], u[HALF], v[HALF]; } BlockCopy;

static inline Block block_of(BlockCopy *copy) { return (Block){{copy->y[0], copy->y[1]}, copy->u, copy->v}; }

/* Copies `valid` columns. */
static void block_copy(const Block *from, const Block *to, int count, int valid)
{
    for (int r = 0; r < count; r++)
        memcpy(to->y[r], from->y[r], (size_t)valid);
    memcpy(to->u, from->u, (size_t)((valid + 1) / 2));
    memcpy(to->v, from->v, (size_t)((valid + 1) / 2));
}

INLINED void blend_span(const Work *w, const Place *place, const Span *span, int pair, int count, const Plane front[3],
                              const Plane back[3], const Plane out[3], const int fitted, const int coloured)
{
    int stop = span->stop * BLOCK <= w->width ? span->stop : span->stop - 1;
    for (int block = span->start; block < stop; block++) {
        Block f = block_at(front, pair, count, block), b = block_at(back, pair, count, block), o = block_at(out, pair, count, block);
        blend_block(w, place, block, count, BLOCK, &f, &b, &o, fitted, coloured);
    }
    if (stop < span->stop) { /* cut off by the picture's edge */
        static const BlockCopy nothing;
        BlockCopy copies[3] = {nothing, nothing, nothing};
        int valid = w->width - stop * BLOCK;
        Block f = block_at(front, pair, count, stop), b = block_at(back, pair, count, stop), o = block_at(out, pair, count, stop);
        Block fore = block_of(&copies[0]), behind = block_of(&copies[1]), mixed = block_of(&copies[2]);
        block_copy(&f, &fore, count, valid);
        block_copy(&b, &behind, count, valid);
        blend_block(w, place, stop, count, valid, &fore, &behind, &mixed, fitted, coloured);
        block_copy(&mixed, &o, count, valid);
    }
}

WIDE static void blend_band(const Work *w, const Grid *grid, const Place *place, const Span *span, int pair, int count,
                            const Plane front[3], const Plane back[3], const Plane out[3])
{
    if (grid->gain && grid->colour)
        blend_span(w, place, span, pair, count, front, back, out, 1, 1);
    else if (grid->gain)
        blend_span(w, place, span, pair, count, front, back, out, 1, 0);
    else if (grid->colour)
        blend_span(w, place, span, pair, count, front, back, out, 0, 1);
    else
        blend_span(w, place, span, pair, count, front, back, out, 0, 0);
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

/* Has everything ready that the grid says about the rows of a pair. `place` is that of the pair before. */
static void prepare(Work *w, const Grid *grid, int pair, int count, Place *place)
{
    int changed = 0;
    for (int r = 0; r < 3; r++) {
        const Axis *axis = r == 2 ? &w->half_down : &w->down;
        const int y = r == 2 ? pair : 2 * pair + (r < count ? r : 0);
        changed |= place->cell[r] != axis->cell[y];
        place->cell[r] = axis->cell[y];
        place->fraction[r] = axis->fraction[y];
        place->near[r] = axis->second[y];
    }
    if (!changed)
        return;
    const int top = place->cell[0], bottom = place->cell[1] + (place->cell[1] + 1 < grid->rows);
    if (top != w->span_top || bottom != w->span_bottom)
        find_spans(w, grid, top, bottom);
    unsigned ready = 0;
    for (int r = 0; r < 3; r++)
        for (int k = 0; k < 2; k++) {
            int row = place->cell[r], slot = load_row(w, grid, row + (k && row + 1 < grid->rows));
            place->slots[r][k] = slot;
            for (int s = 0; !(ready >> slot & 1) && s < w->span_count; s++)
                if (w->spans[s].kind == BAND)
                    widen(w, grid, slot, &w->spans[s]);
            ready |= 1u << slot;
        }
}

/* Rows first to last of a plane; as one piece, if they lie so in both. */
static void copy_rows(const Plane *from, const Plane *out, int first, int last)
{
    if (from->stride == from->cols && out->stride == out->cols) {
        memcpy(ROW(out, first), ROW(from, first), (size_t)(last - first) * (size_t)from->cols);
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

static void composite(Work *w, const Plane front[3], const Plane back[3], const Plane out[3], const Grid *grid)
{
    Place place = {.cell = {-1, -1, -1}};
    const int apart = out[0].data != front[0].data && out[0].data != back[0].data;
    int copied = BAND; /* what all of the strip was filled with before */
    for (int pair = 0; 2 * pair < w->height; pair++) {
        const int count = 2 * pair + 1 < w->height ? 2 : 1;
        if (apart && pair % STRIP == 0) {
            /* One large copy, and the smaller part over it, is faster than many copies of pieces of rows: processors
             * need not read what they overwrite as a whole. */
            const int end = 2 * (pair + STRIP) < w->height ? pair + STRIP : (w->height + 1) / 2;
            copied = larger_part(w);
            for (int k = 0; k < 3; k++)
                copy_rows(copied == FRONT ? &front[k] : &back[k], &out[k], k ? pair : 2 * pair, k ? end : 2 * end < w->height ? 2 * end : w->height);
        }
        prepare(w, grid, pair, count, &place);
        for (int s = 0; s < w->span_count; s++) {
            const Span *span = &w->spans[s];
            if (span->kind == BAND)
                blend_band(w, grid, &place, span, pair, count, front, back, out);
            else if (span->kind != copied)
                copy_span(w, span, pair, count, span->kind == FRONT ? front : back, out);
        }
    }
}

/* --- the call ------------------------------------------------------------------------------------------------------ */

static void *carve(char **free_memory, size_t bytes)
{
    char *start = *free_memory;
    *free_memory += (bytes + 31) & ~(size_t)31;
    return start;
}

static void axis_carve(Axis *axis, char **cursor, size_t count)
{
    axis->cell = carve(cursor, sizeof(int) * count);
    axis->fraction = carve(cursor, sizeof(int16_t) * count);
    axis->second = carve(cursor, count);
}

/* One allocation for all of `work`, of the order of a few rows. Returns it, or NULL. */
static void *work_create(Work *w, int width, int height, const Grid *grid)
{
    const size_t blocks = ((size_t)width + BLOCK - 1) / BLOCK, n = (size_t)grid->cols;
    const size_t samples = (size_t)width + ((size_t)width + 1) / 2 + (size_t)height + ((size_t)height + 1) / 2;
    const size_t bytes = samples * (sizeof(int) + sizeof(int16_t) + 1) + sizeof(int) * (n + 1) + sizeof(Column) * blocks +
                         SLOTS * (n + (sizeof(Wide) + 1) * blocks) + n + (1 + sizeof(Span)) * blocks + 32 * (3 * SLOTS + 20);
    char *memory = PyMem_Malloc(bytes), *cursor;
    if (memory == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    cursor = (char *)(((uintptr_t)memory + 31) & ~(uintptr_t)31);
    *w = (Work){.width = width, .height = height, .blocks = (int)blocks, .span_top = -1};
#if defined(__x86_64__) && defined(__GNUC__)
    w->shuffles = __builtin_cpu_supports("avx2") != 0; /* what WIDE looks at */
#else
    w->shuffles = 1;
#endif
    axis_carve(&w->across, &cursor, (size_t)width);
    axis_carve(&w->half_across, &cursor, ((size_t)width + 1) / 2);
    axis_carve(&w->down, &cursor, (size_t)height);
    axis_carve(&w->half_down, &cursor, ((size_t)height + 1) / 2);
    w->cell_start = carve(&cursor, sizeof(int) * (n + 1));
    w->columns = carve(&cursor, sizeof(Column) * blocks);
    for (int k = 0; k < SLOTS; k++) {
        w->kinds[k] = carve(&cursor, n);
        w->wide[k] = carve(&cursor, sizeof(Wide) * blocks);
        w->is_wide[k] = carve(&cursor, blocks);
        w->node_row[k] = -1;
    }
    w->kind = carve(&cursor, n);
    w->block_kind = carve(&cursor, blocks);
    w->spans = carve(&cursor, sizeof(Span) * blocks);
    axis_init(&w->across, width, 1, 2, width, grid->cols);
    axis_init(&w->half_across, (width + 1) / 2, 2, 4, width, grid->cols);
    axis_init(&w->down, height, 1, 2, height, grid->rows);
    axis_init(&w->half_down, (height + 1) / 2, 2, 4, height, grid->rows);
    int next = 0;
    for (int x = 0; x < width; x++)
        while (next <= w->across.cell[x])
            w->cell_start[next++] = x;
    while (next <= grid->cols)
        w->cell_start[next++] = width;
    columns_init(w, grid->cols);
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
        char format = held == OFFSET_ARG || held == GAIN_ARG ? 'h' : 'B';
        if (plane_get(&planes[held], a[held], format, held >= OUT && held < OFFSET_ARG, names[held]) < 0)
            goto done;
        given[held] = 1;
    }
    if (!check(planes, given))
        goto done;
    Grid grid = {.rows = (int)planes[OFFSET_ARG].rows,
                 .cols = (int)planes[OFFSET_ARG].cols,
                 .offset = (const int16_t *)planes[OFFSET_ARG].data,
                 .gain = given[GAIN_ARG] ? (const int16_t *)planes[GAIN_ARG].data : NULL,
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

PyMODINIT_FUNC PyInit__blend(void) { return module_create(&module); }
