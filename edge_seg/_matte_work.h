/* What the matte is asked for, what it fills, and where its steps leave for each other what they find. */
#ifndef EDGE_SEG_MATTE_WORK_H
#define EDGE_SEG_MATTE_WORK_H

#include "_bits.h"
#include "_matte_lanes.h"

enum { WEIGHT, MASK, IY, IU, IV, YY, YU, YV, UU, UV, VV, MY, MU, MV, MOMENTS };
enum { GAIN_Y, GAIN_U, GAIN_V, INTERCEPT, FITS, SHARE = FITS, FIELDS };
#define MAX_RADIUS TILE    /* on the half grid */
#define LEFT MAX_RADIUS    /* padding of a row of the half grid: a window's half, */
#define RIGHT (3 * TILE)   /* and a tile with its window */
#define AROUND (TILE + 2 * MAX_RADIUS)
#define MAX_SIDE 4096

typedef struct {
    int rows, cols;           /* of the full grid */
    int half_rows, half_cols; /* of the half grid */
    int radius, smoothing;    /* on the half grid */
    int passes; /* that are left, with the one at work */
    float epsilon, chroma_scale, weight_floor, low, high, sharpness, level, steepest, negligible;
    float scale; /* from a mask between the levels to one from 0 to 1 */
    /* Constants, but as variables: compilers make three instructions of a minimum with a constant. */
    float zero, one, limit, light, dark;
} Task;

typedef struct {
    int16_t *gain[3], *offset; /* rows x cols, contiguous, in units of 1 / GAIN_ONE and 1 / ALPHA_ONE */
    uint8_t *colour[3];        /* rows x cols, contiguous */
} Result;

/* Pointers to rows of the half grid are to node 0, behind the padding; `stride` is from one row to the next. */
typedef struct {
    int stride, wide;   /* wide: of the full grid */
    float *alpha;       /* rows x wide: at the nodes, for the next pass; only if there is one */
    uint8_t *amount;    /* rows x wide: of the person at the nodes: more than next to nothing is SOME of it, less than next
                           to everything NOT_ALL; 0 beside the grid */
    float *sampled;     /* half_rows x stride: the mask at the nodes */
    float *uncertainty; /* half_rows x stride: mean of 4 p (1 - p) of four nodes, 0 beyond the grid */
    float *share;       /* half_rows x stride: how far the fit replaces the mask, 0 to 1, where it does */
    float *sums;        /* (2 radius + 2) x MOMENTS x stride: of the newest rows, the sums over a window's width; row
                           by row modulo their number, and zeros */
    float *fits;        /* (2 smoothing + 2) x FITS x stride: the newest rows of fits, likewise */
    float *fields;      /* 2 x FIELDS x stride: what comes of two rows, times the share; see `smooth` */
    float *inside;      /* stride: 1 in the grid, 0 beyond */
    float *window_part; /* stride: 1 / how many columns of the window are in the grid */
    float *smooth_part; /* stride: the same for averaging */
    int words;          /* from one row of bits to the next, of nodes: */
    uint64_t *some;     /* half_rows x words: there is some of the person in the node, or its three neighbours, */
    uint64_t *not_all;  /* half_rows x words: and not all is */
    uint64_t *soft;     /* half_rows x words: both */
    uint64_t *fitted;   /* half_rows x words: the fit has a share */
    uint64_t *wanted;   /* half_rows x words: someone uses what is computed for the node */
    uint64_t *near[4];  /* words: of a row, for the moment */
    int most;           /* tiles in a row */
    int *needed;        /* half_rows x most: first nodes of the tiles over what is wanted */
    int *needed_count;  /* [half_rows] */
    int *tiles;         /* [most]: of a row, for the moment */
} Work;

#define ROW(plane, row) ((plane)->data + (Py_ssize_t)(row) * (plane)->stride)

/* Where gain k, or the offset, lies. */
static inline int16_t *result_at(const Task *t, const Result *r, int k, int row, int col)
{
    return (k < FITS - 1 ? r->gain[k] : r->offset) + (Py_ssize_t)row * t->cols + col;
}

static void *carve(char **free_memory, size_t bytes)
{
    char *start = *free_memory;
    *free_memory += (bytes + 31) & ~(size_t)31;
    return start;
}

static void *work_create(Work *w, const Task *t)
{
    w->stride = (LEFT + t->half_cols + RIGHT + TILE - 1) / TILE * TILE;
    w->wide = 2 * w->stride;
    w->most = (t->half_cols + TILE - 1) / TILE;
    w->words = bits_words(t->half_cols);
    const size_t rows = (size_t)t->half_rows, stride = (size_t)w->stride, most = (size_t)w->most;
    const size_t words = (size_t)w->words;
    const size_t kept = 2 * (size_t)t->radius + 2, averaged = 2 * (size_t)t->smoothing + 2;
    const size_t nodes = (size_t)t->rows * (size_t)w->wide, alpha = t->passes > 1 ? nodes : 0;
    const size_t floats = alpha + stride * (3 * rows + kept * MOMENTS + averaged * FITS + 2 * FIELDS + 3);
    char *memory = PyMem_Malloc(sizeof(float) * floats + sizeof(int) * (rows * most + rows + most) +
                                sizeof(uint64_t) * words * (5 * rows + 4) + nodes + 32 * 24), *cursor = memory;
    if (memory == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    cursor = (char *)(((uintptr_t)memory + 31) & ~(uintptr_t)31);
    w->alpha = (float *)carve(&cursor, sizeof(float) * alpha) + 2 * LEFT;
    w->amount = (uint8_t *)carve(&cursor, nodes) + 2 * LEFT;
    w->sampled = (float *)carve(&cursor, sizeof(float) * rows * stride) + LEFT;
    w->uncertainty = (float *)carve(&cursor, sizeof(float) * rows * stride) + LEFT;
    w->share = (float *)carve(&cursor, sizeof(float) * rows * stride) + LEFT;
    w->fields = (float *)carve(&cursor, sizeof(float) * 2 * FIELDS * stride) + LEFT;
    w->needed = carve(&cursor, sizeof(int) * rows * most);
    w->needed_count = carve(&cursor, sizeof(int) * rows);
    w->tiles = carve(&cursor, sizeof(int) * most);
    char *zeros = cursor; /* of what is read beyond the grid, or before it is written */
    w->some = (uint64_t *)carve(&cursor, sizeof(uint64_t) * rows * words) + 1;
    w->not_all = (uint64_t *)carve(&cursor, sizeof(uint64_t) * rows * words) + 1;
    w->soft = (uint64_t *)carve(&cursor, sizeof(uint64_t) * rows * words) + 1;
    w->fitted = (uint64_t *)carve(&cursor, sizeof(uint64_t) * rows * words) + 1;
    w->wanted = (uint64_t *)carve(&cursor, sizeof(uint64_t) * rows * words) + 1;
    for (int k = 0; k < 4; k++)
        w->near[k] = (uint64_t *)carve(&cursor, sizeof(uint64_t) * words) + 1;
    w->sums = (float *)carve(&cursor, sizeof(float) * kept * MOMENTS * stride) + LEFT;
    w->fits = (float *)carve(&cursor, sizeof(float) * averaged * FITS * stride) + LEFT;
    w->inside = (float *)carve(&cursor, sizeof(float) * stride) + LEFT;
    w->window_part = (float *)carve(&cursor, sizeof(float) * stride) + LEFT;
    w->smooth_part = (float *)carve(&cursor, sizeof(float) * stride) + LEFT;
    memset(zeros, 0, (size_t)(cursor - zeros));
    const int reach[2] = {t->radius, t->smoothing}, last = t->half_cols - 1;
    for (int x = 0; x <= last; x++) {
        w->inside[x] = 1;
        for (int k = 0; k < 2; k++) {
            int left = x < reach[k] ? 0 : x - reach[k], right = x + reach[k] < last ? x + reach[k] : last;
            (k ? w->smooth_part : w->window_part)[x] = 1 / (float)(right - left + 1);
        }
    }
    return memory;
}

#endif
