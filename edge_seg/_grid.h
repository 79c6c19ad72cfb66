/* The grid of offsets and gains, and what it says about the blocks of a picture: which are wholly person, which wholly
 * background, and which are the band between. */
#ifndef EDGE_SEG_GRID_H
#define EDGE_SEG_GRID_H

#include "_layout.h"

#define ALPHA_ONE 1027 /* alpha 1.0; a bit more than 1024, so that it still saturates after rounding down */
#define NOTHING 2      /* an offset up to here is alpha 0; with gains, what is less */
#define SLOTS 6        /* for the grid rows that a pair of luma rows and their chroma row lie between */

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

#endif
