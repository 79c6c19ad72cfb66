/* The grid of offsets and gains, and what it says about the blocks of a picture: which are wholly person, which wholly
 * background, and which are the band between. */
#ifndef EDGE_SEG_GRID_H
#define EDGE_SEG_GRID_H

#include "_layout.h"

#define ALPHA_ONE 1027 /* alpha 1.0; a bit more than 1024, so that it still saturates after rounding down */
#define NOTHING 2      /* without gains an offset up to here is alpha 0 */
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
    uint8_t *node_kind;      /* [rows][cols] */
    uint8_t *kind;           /* [cols]: what many grid rows agree on */
    Span *spans;             /* [blocks] */
    int node_row[SLOTS];     /* cached grid rows */
    Wide *wide[SLOTS];       /* of those rows */
    uint8_t *is_wide[SLOTS]; /* of those rows, per block: whether `wide` is filled in */
    int span_count, span_top, span_bottom;
} Work;

#define ROW(plane, y) ((plane)->data + (Py_ssize_t)(y) * (plane)->stride)

/* Rows of nodes; what they say about a node is what all of them do. */
typedef struct { const uint8_t *first, *second, *third; } Agreed;

INLINED uint8_t kind_at(const Agreed *rows, int node)
{
    return rows->first[node] & rows->second[node] & rows->third[node];
}

/* The first of the nodes behind `from` of which they say something else than of the one before it; `count` if of none.
 * Nothing is stored on the way: what was stored in other pieces than it is loaded in is waited for. */
INLINED int next_change(const Agreed *rows, int from, int count)
{
    for (int i = from + 1; i < count; i += 8) {
        const uint64_t here = eight(rows->first + i) & eight(rows->second + i) & eight(rows->third + i);
        const uint64_t before = eight(rows->first + i - 1) & eight(rows->second + i - 1) & eight(rows->third + i - 1);
        const uint64_t change = here ^ before;
        if (change != 0)
            return i + first_of(change) < count ? i + first_of(change) : count;
    }
    return count;
}

/* Whether a node's gains count: not where its offset is exactly alpha 0 or 1. */
INLINED int is_fitted(int16_t offset) { return offset != 0 && offset != ALPHA_ONE; }

/* Of all nodes: BACK or FRONT where alpha is 0 or 256 whatever the colour, else BAND. */
WIDE static void find_kinds(const Work *w, const Grid *grid)
{
    const Py_ssize_t n = (Py_ssize_t)grid->rows * grid->cols;
    const int16_t *restrict offset = grid->offset;
    uint8_t *restrict kinds = w->node_kind;
    if (grid->gain == NULL)
        for (Py_ssize_t i = 0; i < n; i++)
            kinds[i] = (uint8_t)((offset[i] <= NOTHING ? BACK : 0) | (offset[i] >= ALPHA_ONE ? FRONT : 0));
    else
        for (Py_ssize_t i = 0; i < n; i++)
            kinds[i] = (uint8_t)((offset[i] == 0 ? BACK : 0) | (offset[i] == ALPHA_ONE ? FRONT : 0));
}

INLINED void add_span(Work *w, int start, int stop, int kind)
{
    if (start < stop)
        w->spans[w->span_count++] = (Span){.start = start, .stop = stop, .kind = kind};
}

/* The rows top to bottom; if they are more than three, as one row that says what they do. */
INLINED Agreed agreed(const Work *w, int top, int bottom)
{
    const int nodes = w->layout->cols;
    const uint8_t *first = w->node_kind + (Py_ssize_t)top * nodes, *last = w->node_kind + (Py_ssize_t)bottom * nodes;
    if (bottom <= top + 2)
        return (Agreed){first, bottom > top ? first + nodes : first, last};
    memcpy(w->kind, first, (size_t)nodes);
    for (const uint8_t *row = first + nodes; row <= last; row += nodes)
        for (int i = 0; i < nodes; i++)
            w->kind[i] &= row[i];
    return (Agreed){w->kind, w->kind, w->kind};
}

/* What the grid rows top to bottom agree on, as runs of blocks. */
WIDE static void find_spans(Work *w, int top, int bottom)
{
    const int nodes = w->layout->cols, *cell_start = w->layout->cell_start;
    const Agreed rows = agreed(w, top, bottom);
    w->span_count = 0;
    int done = 0;
    for (int i = 0, next; i < nodes; i = next) {
        const uint8_t kind = kind_at(&rows, i);
        next = next_change(&rows, i, nodes);
        if (kind == BAND)
            continue;
        /* The blocks whose pixels lie between nodes of this run, all of them. */
        const int start = (cell_start[i] + BLOCK - 1) / BLOCK;
        const int stop = next < nodes ? cell_start[next - 1] / BLOCK : w->blocks;
        if (start < stop) {
            add_span(w, done, start, BAND);
            add_span(w, start, stop, kind);
            done = stop;
        }
    }
    add_span(w, done, w->blocks, BAND);
    w->span_top = top;
    w->span_bottom = bottom;
}

#endif
