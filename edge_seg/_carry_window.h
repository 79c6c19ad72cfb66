/* What the windows of busy tiles see, filled a row of tiles at a time: the colours that the elements' sources have in the
 * frame before, the mask as it was fetched, and how far that luma is from the elements' own. */
#ifndef EDGE_SEG_CARRY_WINDOW_H
#define EDGE_SEG_CARRY_WINDOW_H

#include "_carry_tiles.h"

/* The colours of spans of a row of tiles, as if they had not moved. */
INLINED void still_fetch(const Carry *c, int ty, int count)
{
    for (int y = ty * TILE; y < least((ty + 1) * TILE, c->rows); y++) {
        float *row = window_at(c, y);
        spans_unpack(bytes_at(&c->previous, y), c->starts, count, c->cols, row + LUMA * c->plane);
        if (c->scales.chroma > 0) {
            spans_unpack(bytes_at(&c->previous_u, y), c->starts, count, c->cols, row + CHROMA_U * c->plane);
            spans_unpack(bytes_at(&c->previous_v, y), c->starts, count, c->cols, row + CHROMA_V * c->plane);
        }
    }
}

static void colours_fetch_slowly(const Carry *c, int y0, int x0)
{
    for (int y = y0; y < least(y0 + TILE, c->rows); y++)
        for (int x = x0; x < least(x0 + TILE, c->cols); x++) {
            Place at = place_of(&c->motion, y, x, vector_at(&c->motion, y, x));
            float *out = window_at(c, y) + x;
            out[LUMA * c->plane] = byte_at(&c->previous, at);
            if (c->scales.chroma > 0) {
                out[CHROMA_U * c->plane] = byte_at(&c->previous_u, at);
                out[CHROMA_V * c->plane] = byte_at(&c->previous_v, at);
            }
        }
}

/* A plane of colours of a tile. Near the picture's end eight columns cannot be read. */
#if HAS_LANES
INLINED void plane_fetch(const Carry *c, const Plane *plane, const Origin *from, int kind, float *out)
{
    if (kind != RIM && from->left + 2 * TILE < c->cols) {
        fetch_bytes(bytes_at(plane, from->top) + from->left, plane->stride, from->fx, from->fy, out, PER_ROW * c->plane);
    } else {
        unsigned char gathered[SIDE * WIDTH] = {0};
        bytes_gather(&c->motion, plane, from, gathered);
        fetch_bytes(gathered, WIDTH, from->fx, from->fy, out, PER_ROW * c->plane);
    }
}
#endif

/* The colours of a tile with one vector, if that can be done at once: then 1. `out`: where the window has it. */
INLINED int tile_fetch(const Carry *c, int y0, int x0, int kind, float *out)
{
#if HAS_LANES
    if (kind == SCATTERED)
        return 0;
    const Origin from = tile_origin(&c->motion, y0, x0);
    const Plane *u = &c->previous_u, *v = &c->previous_v;
    float *out_u = out + CHROMA_U * c->plane, *out_v = out + CHROMA_V * c->plane;
    plane_fetch(c, &c->previous, &from, kind, out + LUMA * c->plane);
    if (c->scales.chroma > 0 && kind != RIM && u->stride == v->stride) {
        fetch_two(bytes_at(u, from.top) + from.left, bytes_at(v, from.top) + from.left, 0, u->stride, from.fx, from.fy, out_u, out_v,
                  PER_ROW * c->plane);
    } else if (c->scales.chroma > 0) {
        plane_fetch(c, u, &from, kind, out_u);
        plane_fetch(c, v, &from, kind, out_v);
    }
    return 1;
#else
    (void)c, (void)y0, (void)x0, (void)kind, (void)out;
    return 0;
#endif
}

/* The same of two tiles. */
INLINED int pair_fetch(const Carry *c, int y0, int x0, float *out)
{
#if HAS_LANES
    const Plane *const planes[VALUES] = {&c->previous, &c->previous_u, &c->previous_v};
    const Origin from = tile_origin(&c->motion, y0, x0);
    const Py_ssize_t plane = c->plane;
    const int count = c->scales.chroma > 0 ? VALUES : 1;
    for (int i = 0; i < count; i++, out += plane) {
        const unsigned char *at = bytes_at(planes[i], from.top) + from.left;
        fetch_two(at, at + TILE, 1, planes[i]->stride, from.fx, from.fy, out, out + TILE, PER_ROW * plane);
    }
    return 1;
#else
    (void)c, (void)y0, (void)x0, (void)out;
    return 0;
#endif
}

/* How far the luma is from the element's own, in spans of a row. */
INLINED void spans_compare(const unsigned char *restrict own, const float *restrict luma, const int *restrict starts, int count, int cols,
                           float *restrict difference)
{
    if (cols < SPAN)
        for (int x = 0; x < cols; x++)
            difference[x] = fabsf((float)own[x] - luma[x]);
    for (int n = 0; cols >= SPAN && n < count; n++) {
        const int x = least(starts[n], cols - SPAN);
        EACH_LANE(i, SPAN)
            difference[x + i] = fabsf((float)own[x + i] - luma[x + i]);
    }
}

/* What the windows of busy tiles reach in a row of tiles. */
WIDE static void tile_row_unpack(const Carry *c, int ty)
{
    const int top = ty > 0 ? ty - 1 : 0, bottom = least(ty + 1, c->tile_rows - 1);
    const uint64_t *still = c->still + ty * c->words;
    uint64_t *wanted = c->found, *part = c->column;
    bits_near(c->busy + top * c->words, bottom - top + 1, c->words, 1, c->column, wanted);
    for (int i = 0; i < c->words - 2; i++)
        part[i] = wanted[i] & still[i];
    still_fetch(c, ty, runs_find(c, part, SPAN, c->starts)); /* over what moved, too: that is fetched later */
    for (int i = 0; i < c->words - 2; i++)
        part[i] = wanted[i] & ~still[i];
    const int moved = bits_runs(part, c->tile_cols, 1, c->starts);
    const unsigned char *kind = c->kind + ty * c->tile_cols, *pair = c->pair + ty * c->tile_cols;
    float *window = window_at(c, ty * TILE);
    for (int n = 0; n < moved; n++) {
        const int tx = c->starts[n], x0 = tx * TILE;
        if (pair[tx] && n + 1 < moved && c->starts[n + 1] == tx + 1 && pair_fetch(c, ty * TILE, x0, window + x0))
            n++;
        else if (!tile_fetch(c, ty * TILE, x0, kind[tx], window + x0))
            colours_fetch_slowly(c, ty * TILE, x0);
    }
    const int count = runs_find(c, wanted, SPAN, c->starts), at_rim = (wanted[0] | bits_from(wanted, c->tile_cols - 1)) & 1;
    for (int y = ty * TILE; count > 0 && y < least((ty + 1) * TILE, c->rows); y++) {
        float *row = window_at(c, y);
        spans_compare(bytes_at(&c->current, y), row + LUMA * c->plane, c->starts, count, c->cols, row + DIFFERENCE * c->plane);
        spans_copy(floats_at(&c->out_probability, y), c->starts, count, c->cols, row + VALUES * c->plane);
        for (int i = 0; at_rim && i < PER_ROW; i++)
            row_rim(row + i * c->plane, c->cols, RADIUS);
    }
}

#endif
