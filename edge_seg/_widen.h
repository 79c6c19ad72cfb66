/* From the nodes of a row of the grid to the columns of the picture, for the blocks of the band. */
#ifndef EDGE_SEG_WIDEN_H
#define EDGE_SEG_WIDEN_H

#include "_grid.h"

#define COLOUR_ONE 16 /* colours, while they are interpolated */

/* A Pick in registers: loaded from memory, bytes could be anything's, and would be loaded again after each store. */
#if defined(__GNUC__) && !defined(__clang__)
typedef uint8_t Bytes __attribute__((vector_size(2 * HALF)));
#else
typedef struct { uint8_t of[2 * HALF]; } Bytes;
#endif
typedef struct { const int16_t *fraction; Bytes first, nearer; } Picked;

INLINED Picked picked(const Pick *pick)
{
    Picked p = {.fraction = pick->fraction};
    memcpy(&p.first, pick->first, sizeof p.first);
    memcpy(&p.nearer, pick->nearer, sizeof p.nearer);
    return p;
}

/* Eight elements of eight: by a table look-up of bytes where the machine has one. */
INLINED void pick_lanes(const int16_t nodes[NODES], Bytes bytes, int shuffles, int16_t out[HALF])
{
    uint8_t index[2 * HALF];
#if defined(__GNUC__) && !defined(__clang__)
    if (shuffles) {
        Bytes table;
        memcpy(&table, nodes, sizeof table);
        table = __builtin_shuffle(table, bytes);
        memcpy(out, &table, sizeof table);
        return;
    }
#endif
    (void)shuffles;
    memcpy(index, &bytes, sizeof index);
    for (int i = 0; i < HALF; i++)
        out[i] = nodes[index[2 * i] / 2];
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

INLINED void interpolate(const Picked *pick, const int16_t nodes[NODES], const int16_t steps[NODES], int shuffles, int how,
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

/* Of a block, even columns of luma, odd ones, and chroma's. */
typedef struct { Picked even, odd, chroma; } Places;

INLINED void widen_luma(const Places *places, const int16_t nodes[NODES], int shuffles, int how, Wide *wide, int k)
{
    int16_t steps[NODES];
    steps_of(nodes, steps);
    interpolate(&places->even, nodes, steps, shuffles, how, (*wide)[k]);
    interpolate(&places->odd, nodes, steps, shuffles, how, (*wide)[k + 1]);
}

/* `counts`: of each node, all bits if its gain does, else none. */
INLINED void widen_gain(const Places *places, const int16_t *from, const int16_t counts[NODES], int shuffles, Wide *wide,
                        int k)
{
    int16_t nodes[NODES];
    memcpy(nodes, from, sizeof nodes);
    EACH_LANE(i, NODES)
        nodes[i] &= counts[i];
    widen_luma(places, nodes, shuffles, AS_IT_IS, wide, k);
}

INLINED void widen_colour(const Places *places, const uint8_t *from, int shuffles, Wide *wide, int k)
{
    int16_t nodes[NODES], steps[NODES];
    colours_load(from, nodes);
    steps_of(nodes, steps);
    interpolate(&places->chroma, nodes, steps, shuffles, AS_IT_IS, (*wide)[k]);
}

INLINED void widen_narrow(const Work *w, const Grid *grid, int row, int block, Wide *wide, const int shuffles,
                          const int fitted)
{
    const Column *column = &w->layout->columns[block];
    const Places places = {picked(&column->luma[0]), picked(&column->luma[1]), picked(&column->chroma)};
    const Py_ssize_t plane = (Py_ssize_t)grid->rows * grid->cols;
    const Py_ssize_t at = (Py_ssize_t)row * grid->cols + column->first_node;
    int16_t offset[NODES], counts[NODES];
    memcpy(offset, grid->offset + at, sizeof offset);
    widen_luma(&places, offset, shuffles, fitted ? HALVED : WHOLE, wide, OFFSET);
    if (fitted) { /* written out, so that the columns' places stay in registers */
        EACH_LANE(i, NODES)
            counts[i] = is_fitted(offset[i]) ? -1 : 0;
        widen_gain(&places, grid->gain + at, counts, shuffles, wide, GAIN_Y);
        widen_gain(&places, grid->gain + plane + at, counts, shuffles, wide, GAIN_U);
        widen_gain(&places, grid->gain + 2 * plane + at, counts, shuffles, wide, GAIN_V);
    }
    if (grid->colour) {
        widen_colour(&places, grid->colour + at, shuffles, wide, COLOUR);
        widen_colour(&places, grid->colour + plane + at, shuffles, wide, COLOUR + 1);
        widen_colour(&places, grid->colour + 2 * plane + at, shuffles, wide, COLOUR + 2);
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
            const int16_t *gain = grid->gain + k * plane + at, *offset = grid->offset + at;
            const int16_t first = is_fitted(offset[a]) ? gain[a] : 0, second = is_fitted(offset[b]) ? gain[b] : 0;
            to[GAIN_Y + 2 * k][i / 2] = between_nodes(&w->layout->across, x, first, second);
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
INLINED void widen_span(const Work *w, const Grid *grid, int slot, const Span *span, const int narrow, const int shuffles,
                        const int fitted)
{
    uint8_t *done = w->is_wide[slot];
    const int row = w->node_row[slot];
    const int stop = span->stop + (span->stop - span->start) % 2; /* two are blended at a time */
    for (int block = span->start; block < stop && block < w->blocks; block++) {
        if (done[block])
            continue;
        done[block] = 1;
        Wide *wide = &w->wide[slot][block];
        if (narrow)
            widen_narrow(w, grid, row, block, wide, shuffles, fitted);
        else
            widen_slowly(w, grid, row, block, wide);
    }
}

INLINED void widen_rows(const Work *w, const Grid *grid, unsigned slots, const int narrow, const int shuffles, const int fitted)
{
    for (int slot = 0; slot < SLOTS; slot++)
        for (int s = 0; slots >> slot & 1 && s < w->span_count; s++)
            if (w->spans[s].kind == BAND)
                widen_span(w, grid, slot, &w->spans[s], narrow, shuffles, fitted);
}

/* Several of them, as bits of `slots`, for all of the band. What is usual has a loop of its own. */
WIDE static void widen(const Work *w, const Grid *grid, unsigned slots)
{
    if (!w->layout->narrow)
        widen_rows(w, grid, slots, 0, 0, 0);
    else if (w->shuffles && grid->gain)
        widen_rows(w, grid, slots, 1, 1, 1);
    else
        widen_rows(w, grid, slots, 1, w->shuffles, grid->gain != NULL);
}

#endif
