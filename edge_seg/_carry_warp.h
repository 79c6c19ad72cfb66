/* The mask and its variance, warped along block flow: all is copied by rows first, and fetched where it moved. */
#ifndef EDGE_SEG_CARRY_WARP_H
#define EDGE_SEG_CARRY_WARP_H

#include "_carry_state.h"

#define UNSEEN 0.05f         /* variance for each squared pixel that a source lies outside the picture */

static void mask_fetch_slowly(const Carry *c, int y0, int x0)
{
    for (int y = y0; y < least(y0 + TILE, c->rows); y++)
        for (int x = x0; x < least(x0 + TILE, c->cols); x++)
            floats_at(&c->out_probability, y)[x] = float_at(&c->probability, place_of(&c->motion, y, x, vector_at(&c->motion, y, x)));
}

/* How the tiles of a row are fetched, and the vectors of the first block of each. */
INLINED void kinds_fill(const Carry *c, int ty, int16_t *restrict across, int16_t *restrict down, unsigned char *restrict kind,
                        unsigned char *restrict pair)
{
    const Motion motion = c->motion; /* a copy: kinds are bytes, which could be anything's */
    const int y0 = ty * TILE, tile_cols = c->tile_cols;
    const int16_t *steps = steps_at(&motion, y0, 0);
    if (motion.block == TILE) {
        for (int tx = 0; tx < tile_cols; tx++)
            across[tx] = steps[2 * tx], down[tx] = steps[2 * tx + 1];
    } else {
        for (int tx = 0; tx < tile_cols; tx++)
            across[tx] = steps[2 * motion.block_of[tx * TILE]], down[tx] = steps[2 * motion.block_of[tx * TILE] + 1];
    }
    across[tile_cols] = down[tile_cols] = 0;
    const int whole = motion.block % TILE == 0 && y0 + TILE <= motion.rows ? motion.cols / TILE : 0;
    if (whole > 0)
        kinds_find(across, down, y0, motion.rows, motion.cols, whole, kind, pair);
    for (int tx = whole; tx < tile_cols; tx++) {
        kind[tx] = (unsigned char)kind_of(&motion, y0, tx * TILE, (Vector){across[tx], down[tx]});
        pair[tx] = 0;
    }
}

/* The mask of a row of tiles: all of it is copied, then what moved is fetched. */
WIDE static void tile_row_fetch(const Carry *c, int ty)
{
    const Py_ssize_t stride = c->probability.stride / (Py_ssize_t)sizeof(float), out_stride = c->out_probability.stride / (Py_ssize_t)sizeof(float);
    const int y0 = ty * TILE, tile_cols = c->tile_cols;
    for (int y = y0; y < least(y0 + TILE, c->rows); y++)
        memcpy(floats_at(&c->out_probability, y), floats_at(&c->probability, y), sizeof(float) * (size_t)c->cols);
    const unsigned char *kind = c->kind + ty * tile_cols, *pair = c->pair + ty * tile_cols;
    const int16_t *across = c->across, *down = c->down;
    kinds_fill(c, ty, c->across, c->down, c->kind + ty * tile_cols, c->pair + ty * tile_cols);
    for (int tx = 0; tx < tile_cols; tx++) {
        if (kind[tx] == STILL)
            continue;
        const int x0 = tx * TILE;
        const Origin from = origin_of(y0, x0, (Vector){across[tx], down[tx]});
        float *out = floats_at(&c->out_probability, y0) + x0;
        if (kind[tx] == RIM) {
            float gathered[SIDE * WIDTH];
            floats_gather(&c->motion, &c->probability, &from, gathered);
            fetch_floats(gathered, WIDTH, from.fx, from.fy, out, out_stride);
        } else if (kind[tx] == SCATTERED) {
            mask_fetch_slowly(c, y0, x0);
        } else if (pair[tx]) {
            fetch_pair(floats_at(&c->probability, from.top) + from.left, stride, from.fx, from.fy, out, out_stride);
            tx++;
        } else {
            fetch_floats(floats_at(&c->probability, from.top) + from.left, stride, from.fx, from.fy, out, out_stride);
        }
    }
}

/* How much the variance grows in each column of a row of tiles, by the block in the middle of each; in busy ones that comes
 * with the rest. */
INLINED void growth_fill(const Carry *c, int ty, float *restrict growth)
{
    const float *residual = floats_at(&c->residual, c->motion.block_of[least(ty * TILE + TILE / 2, c->rows - 1)]);
    const int *middle = c->middle, *starts = c->starts, tile_cols = c->tile_cols;
    const float drift = c->drift, misfit = c->misfit;
    for (int tx = 0; tx < tile_cols; tx++) {
        const float r = residual[middle[tx]], grown = drift + misfit * r * r;
        for (int i = 0; i < TILE; i++)
            growth[tx * TILE + i] = grown;
    }
    const int busy = bits_runs(c->busy + ty * c->words, tile_cols, 1, c->starts);
    for (int n = 0; n < busy; n++)
        for (int i = 0; i < TILE; i++)
            growth[starts[n] * TILE + i] = 0;
}

/* A row of elements that did not move. */
WIDE static void row_grow(const float *restrict from, const float *restrict growth, int cols, float *restrict out)
{
    for (int x = 0; x < cols; x++)
        out[x] = from[x] + growth[x];
}

/* The variance of elements that moved and are inside: `columns` of a row of tiles. */
INLINED void variance_move(const float *from, Py_ssize_t stride, const float *growth, const int columns, float *out, Py_ssize_t out_stride)
{
    for (int j = 0; j < TILE; j++)
        EACH_LANE(i, columns)
            out[j * out_stride + i] = from[j * stride + i] + growth[i];
}

static void variance_fetch_rim(const Carry *c, int y0, int x0, Vector v)
{
    int xs[TILE], ys[TILE];
    float right[TILE], down[TILE];
    axis_fill(x0, v.x, c->cols, xs, right);
    axis_fill(y0, v.y, c->rows, ys, down);
    for (int j = 0; j < TILE; j++) {
        const float *from = floats_at(&c->variance, ys[j]);
        float *q = floats_at(&c->out_variance, y0 + j) + x0;
        for (int i = 0; i < TILE; i++)
            q[i] = from[xs[i]] + UNSEEN * (right[i] + down[j]) * (right[i] + down[j]) + c->growth[x0];
    }
}

static void variance_fetch_slowly(const Carry *c, int y0, int x0)
{
    for (int y = y0; y < least(y0 + TILE, c->rows); y++)
        for (int x = x0; x < least(x0 + TILE, c->cols); x++) {
            const Vector own = vector_at(&c->motion, y, x);
            const float outside = place_of(&c->motion, y, x, own).outside;
            const float *from = floats_at(&c->variance, clamp(y + pixels_of(own.y + Q / 2), 0, c->rows - 1));
            floats_at(&c->out_variance, y)[x] = from[clamp(x + pixels_of(own.x + Q / 2), 0, c->cols - 1)] + UNSEEN * outside * outside + c->growth[x0];
        }
}

/* The variances of a row of tiles: all are taken as if they had not moved, then what moved is fetched, from the nearest
 * elements, for they change little from one to the next. */
WIDE static void variances_fetch(const Carry *c, int ty)
{
    const Py_ssize_t stride = c->variance.stride / (Py_ssize_t)sizeof(float), out_stride = c->out_variance.stride / (Py_ssize_t)sizeof(float);
    const int y0 = ty * TILE, tile_cols = c->tile_cols;
    const unsigned char *kind = c->kind + ty * tile_cols, *pair = c->pair + ty * tile_cols;
    const float *variance = floats_at(&c->variance, y0);
    float *out = floats_at(&c->out_variance, y0), *growth = c->growth;
    growth_fill(c, ty, growth);
    for (int y = y0; y < least(y0 + TILE, c->rows); y++)
        row_grow(floats_at(&c->variance, y), growth, c->cols, floats_at(&c->out_variance, y));
    const Motion motion = c->motion;
    for (int tx = 0; tx < tile_cols; tx++) {
        const int x0 = tx * TILE;
        if (kind[tx] <= CLOSE)
            continue;
        if (kind[tx] == SCATTERED) {
            variance_fetch_slowly(c, y0, x0);
            continue;
        }
        const Vector v = vector_at(&motion, y0, x0);
        if (kind[tx] == RIM) {
            variance_fetch_rim(c, y0, x0, v);
            continue;
        }
        const float *nearest = variance + pixels_of(v.y + Q / 2) * stride + x0 + pixels_of(v.x + Q / 2);
        if (pair[tx]) {
            variance_move(nearest, stride, growth + x0, 2 * TILE, out + x0, out_stride);
            tx++;
        } else {
            variance_move(nearest, stride, growth + x0, TILE, out + x0, out_stride);
        }
    }
}

#endif
