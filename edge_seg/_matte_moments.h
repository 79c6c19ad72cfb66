/* The moments of mask and colours, summed over the width of a window: what the fits are made from. */
#ifndef EDGE_SEG_MATTE_MOMENTS_H
#define EDGE_SEG_MATTE_MOMENTS_H

#include "_matte_work.h"
#include <math.h>

/* The first of two bytes that were loaded as one element: compilers take every other byte one by one. */
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define FIRST_OF(pair) ((pair) >> 8)
#else
#define FIRST_OF(pair) ((pair) & 255)
#endif

/* The moments of `width` nodes from `first` on. Colours are centred, so that variances do not drown in rounding. */
INLINED void learn_tile(const Task *t, const Work *w, const Plane *colours, int row, int first, const int width,
                        float (*restrict term)[AROUND])
{
    const float floor = t->weight_floor, luma_scale = 1 / 255.0f, chroma_scale = t->chroma_scale / 255.0f;
    const int left = 2 * first, right = left + 2 * width;
    uint16_t y[AROUND], u[AROUND], v[AROUND], *const pairs[3] = {y, u, v};
    for (int k = 0; k < 3; k++) {
        const uint8_t *from = ROW(&colours[k], 2 * row);
        if (left >= 0 && right <= t->cols) {
            copy_lanes(pairs[k], from + left, 2 * (size_t)width);
        } else {
            const int start = left > 0 ? left : 0, stop = right < t->cols ? right : t->cols;
            memset(pairs[k], 0, 2 * (size_t)width);
            memcpy((uint8_t *)pairs[k] + (start - left), from + start, (size_t)(stop - start));
        }
    }
    const float *restrict p = w->sampled + (Py_ssize_t)row * w->stride + first, *restrict inside = w->inside + first;
    EACH_LANE(i, width) {
        float m = p[i], weight = (fabsf(2 * m - 1) + floor) * inside[i];
        float a = (float)(FIRST_OF(y[i]) - 128) * luma_scale, b = (float)(FIRST_OF(u[i]) - 128) * chroma_scale;
        float c = (float)(FIRST_OF(v[i]) - 128) * chroma_scale;
        float wa = weight * a, wb = weight * b, wc = weight * c;
        term[WEIGHT][i] = weight;
        term[MASK][i] = weight * m;
        term[IY][i] = wa;
        term[IU][i] = wb;
        term[IV][i] = wc;
        term[YY][i] = wa * a;
        term[YU][i] = wa * b;
        term[YV][i] = wa * c;
        term[UU][i] = wb * b;
        term[UV][i] = wb * c;
        term[VV][i] = wc * c;
        term[MY][i] = wa * m;
        term[MU][i] = wb * m;
        term[MV][i] = wc * m;
    }
}

/* The moments of one row, summed over the width of a window. */
INLINED void learn_row(const Task *t, const Work *w, const Plane *colours, int row, const int radius, const int width)
{
    const int top = row - radius < 0 ? 0 : row - radius;
    const int bottom = row + radius >= t->half_rows ? t->half_rows - 1 : row + radius;
    float *sums = w->sums + (Py_ssize_t)(row % (2 * radius + 1)) * MOMENTS * w->stride;
    bits_near(w->wanted + top * w->words, bottom - top + 1, w->words, 0, w->near[0], w->near[1]);
    const int count = bits_runs(w->near[1], t->half_cols, TILE, w->tiles);
    const Py_ssize_t stride = w->stride;
    float terms[2][MOMENTS][AROUND];
    for (int tile = 0; tile <= count; tile++) {
        float(*term)[AROUND] = terms[tile % 2];
        if (tile < count)
            learn_tile(t, w, colours, row, w->tiles[tile] - radius, width, term);
        if (tile == 0)
            continue;
        term = terms[1 - tile % 2]; /* what was written last is still on its way to the cache */
        float *to = sums + w->tiles[tile - 1];
        for (int k = 0; k < MOMENTS; k++, to += stride) {
            Lanes total = {0};
            for (int d = 0; d <= 2 * radius; d++)
                lanes_add(&total, term[k] + d);
            copy_lanes(to, &total, sizeof total);
        }
    }
}

/* The default radius has loops of its own, unrolled. */
WIDE static void learn(const Task *t, const Work *w, const Plane *colours, int row)
{
    if (t->radius == 2)
        learn_row(t, w, colours, row, 2, 2 * TILE);
    else
        learn_row(t, w, colours, row, t->radius, AROUND);
}

#endif
