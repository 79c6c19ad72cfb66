/* Where the pixels of a picture lie between the nodes of a grid. It depends on the two sizes alone, so that it is computed
 * once for a stream, and any number of composites may read it at the same time. */
#ifndef EDGE_SEG_LAYOUT_H
#define EDGE_SEG_LAYOUT_H

#include "_buffers.h"

#define BLOCK 16       /* columns of luma that are copied, or blended, as a whole; blending takes two at a time */
#define HALF (BLOCK / 2)
#define NODES 8        /* of the grid that fit a register */
#define MAX_SIDE 16384

/* Where samples lie between the nodes of the grid: sample i between nodes cell[i] and cell[i] + 1, at base + fraction *
 * step / 65536 with fraction in [-1/2, 1/2), counted from the nearer one: from cell[i] + 1 where it is negative. */
typedef struct {
    int *cell;
    int16_t *fraction;
} Axis;

/* The same for 8 samples, with the nodes counted from one of them on. As bytes of int16 elements: what a table look-up
 * of bytes wants. */
typedef struct {
    int16_t fraction[HALF];
    uint8_t first[2 * HALF], nearer[2 * HALF];
} Pick;

typedef struct {
    int first_node;
    Pick luma[2], chroma; /* luma: even columns, odd ones */
} Column; /* of blocks */

typedef struct {
    int width, height, blocks; /* of the picture */
    int rows, cols;            /* of the grid */
    int narrow;                /* whether the nodes over each block fit a register */
    Axis across, half_across, down, half_down;
    int *cell_start;           /* [cols + 1]: the first column of each cell */
    Column *columns;           /* [blocks], if narrow */
} Layout;

/* Of samples at first, first + step, ..., at most 2 size - 1, in half pixels, centres aligned. All quotients are whole,
 * or at least 2^-15 from the next whole number: products of doubles are exact enough. */
WIDE static void axis_init(Axis *axis, int count, int first, int step, int size, int nodes)
{
    const double per_unit = 1 / (2.0 * size), hair = 1.0 / 131072;
    const int unit = 2 * size, last = nodes - 1;
    int *restrict cells = axis->cell;
    int16_t *restrict fraction = axis->fraction;
    for (int i = 0; i < count; i++) {
        int position = first + step * i;
        position = position < unit ? position : unit - 1;
        int numerator = position * nodes - size; /* in units of 1 / unit */
        numerator = numerator > 0 ? numerator : 0;
        int cell = (int)(numerator * per_unit + hair);
        int weight = (int)((numerator - cell * unit) * (65536 * per_unit) + hair);
        weight = cell < last ? weight : 0;
        cells[i] = cell < last ? cell : last;
        fraction[i] = (int16_t)weight; /* less 65536 where the second node is the nearer one */
    }
}

/* Where int16 element `lane` lies, as the two bytes of it. */
INLINED uint16_t bytes_of(int lane)
{
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    return (uint16_t)(lane * 0x0202 + 0x0001);
#else
    return (uint16_t)(lane * 0x0202 + 0x0100);
#endif
}

/* The nodes beside samples `from`, `from` + `step`, ..., counted from `first_node`. */
INLINED void pick_init(Pick *pick, const Axis *axis, int from, const int step, int first_node)
{
    const int *restrict cell = axis->cell + from;
    const int16_t *restrict fraction = axis->fraction + from;
    uint16_t first[HALF], nearer[HALF];
    for (int i = 0; i < HALF; i++) {
        pick->fraction[i] = fraction[step * i];
        first[i] = bytes_of(cell[step * i] - first_node);
        nearer[i] = bytes_of(cell[step * i] - first_node + (fraction[step * i] < 0));
    }
    memcpy(pick->first, first, sizeof first);
    memcpy(pick->nearer, nearer, sizeof nearer);
}

WIDE static void columns_init(Layout *layout)
{
    const int *cell = layout->across.cell, width = layout->width, nodes = layout->cols;
    layout->narrow = nodes >= NODES;
    for (int block = 0; block < layout->blocks; block++) {
        int start = block * BLOCK, stop = start + BLOCK < width ? start + BLOCK : width;
        layout->narrow &= cell[stop - 1] + 1 - cell[start] < NODES;
    }
    for (int block = 0; layout->narrow && block < layout->blocks; block++) {
        Column *column = &layout->columns[block];
        int node = cell[block * BLOCK];
        column->first_node = node = node < nodes - NODES ? node : nodes - NODES;
        for (int k = 0; k < 2; k++)
            pick_init(&column->luma[k], &layout->across, block * BLOCK + k, 2, node);
        pick_init(&column->chroma, &layout->half_across, block * HALF, 1, node);
    }
}

static void cell_start_init(Layout *layout)
{
    int next = 0;
    for (int x = 0; x < layout->width; x++)
        while (next <= layout->across.cell[x])
            layout->cell_start[next++] = x;
    while (next <= layout->cols)
        layout->cell_start[next++] = layout->width;
}

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
}

/* In one piece, for PyMem_Free; NULL with a Python error set. All sides: 1 to MAX_SIDE. */
static Layout *layout_create(int width, int height, int rows, int cols)
{
    const size_t blocks = ((size_t)width + BLOCK - 1) / BLOCK;
    const size_t columns = blocks * BLOCK; /* those beyond the picture are like its last one */
    const size_t samples = columns + columns / 2 + (size_t)height + ((size_t)height + 1) / 2;
    const size_t bytes = sizeof(Layout) + samples * (sizeof(int) + sizeof(int16_t)) + sizeof(int) * ((size_t)cols + 1) +
                         sizeof(Column) * blocks + 32 * 12;
    Layout *layout = PyMem_Malloc(bytes);
    if (layout == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    *layout = (Layout){.width = width, .height = height, .blocks = (int)blocks, .rows = rows, .cols = cols};
    char *cursor = (char *)(((uintptr_t)(layout + 1) + 31) & ~(uintptr_t)31);
    axis_carve(&layout->across, &cursor, columns);
    axis_carve(&layout->half_across, &cursor, columns / 2);
    axis_carve(&layout->down, &cursor, (size_t)height);
    axis_carve(&layout->half_down, &cursor, ((size_t)height + 1) / 2);
    layout->cell_start = carve(&cursor, sizeof(int) * ((size_t)cols + 1));
    layout->columns = carve(&cursor, sizeof(Column) * blocks);
    axis_init(&layout->across, (int)columns, 1, 2, width, cols);
    axis_init(&layout->half_across, (int)columns / 2, 2, 4, width, cols);
    axis_init(&layout->down, height, 1, 2, height, rows);
    axis_init(&layout->half_down, (height + 1) / 2, 2, 4, height, rows);
    cell_start_init(layout);
    columns_init(layout);
    return layout;
}

#endif
