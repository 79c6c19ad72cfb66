/* What is carried, along what, and where the steps of _carry.c leave for each other what they find. */
#ifndef EDGE_SEG_CARRY_STATE_H
#define EDGE_SEG_CARRY_STATE_H

#include "_bits.h"
#include "_fusion.h"
#include "_motion.h"

#define RADIUS 2             /* of the window */
#define SLACK (TILE + 2 * RADIUS)
#define WINDOW_ROWS (3 * TILE)  /* that are kept: those of the result, and what their windows reach */

enum { DIFFERENCE = PLANES, PER_ROW }; /* beside what windows see: how far the luma is from that of the element */

typedef struct {
    Plane previous, current, residual, probability, variance, out_probability, out_variance;
    Plane previous_u, previous_v, current_u, current_v;
    Motion motion;
    Scales scales;
    float exact, drift, misfit;
    int rows, cols, tile_rows, tile_cols;
    int words;              /* from one row of bits to the next, one a tile */
    /* scratch */
    unsigned char *kind;    /* of each tile: how it is fetched */
    unsigned char *pair;    /* of each tile: whether the one to its right can be fetched with it */
    int16_t *across, *down; /* of a row of tiles: vectors, and one more */
    uint64_t *still;        /* which tiles did not move */
    uint64_t *busy;         /* in whose windows the mask differs, and which are not calm */
    uint64_t *column, *found;   /* for the moment: a row each */
    int *middle;            /* of each tile's column: the block there */
    int *starts, *spans;    /* of strips and spans of a row */
    int *lanes;             /* of each strip: how many are of busy tiles */
    unsigned char *changed; /* of each column of a row of tiles: whether it shows something else than before */
    float *least, *most;    /* in the windows of a row of tiles, with a rim of RADIUS */
    float *growth;          /* of the variance in each column of a row of tiles */
    float *own[VALUES];     /* colours of a row of the picture */
    float *alike;           /* of strips of a row */
    /* What windows of busy tiles see (_fusion.h), with a rim of RADIUS: colours from the frame before, the mask as it was
     * fetched, and how far that luma is from the element's own. WINDOW_ROWS, modulo their number. */
    float *window;
    Py_ssize_t plane;
} Carry;

static inline float *window_at(const Carry *c, int y) { return c->window + clamp(y, 0, c->rows - 1) % WINDOW_ROWS * PER_ROW * c->plane; }

#endif
