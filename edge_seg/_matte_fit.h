/* The fit of each node, and the colour of the person there: both from the moments in the window around it. */
#ifndef EDGE_SEG_MATTE_FIT_H
#define EDGE_SEG_MATTE_FIT_H

#include "_matte_work.h"

typedef float Moments[MOMENTS][TILE];

/* Of a whole tile wherever it is one: its length is known then, and no call is made. */
INLINED void copy_wide(void *to, const void *from, int count, size_t size)
{
    if (count >= SPAN)
        copy_lanes(to, from, SPAN * size);
    else
        memcpy(to, from, (size_t)count * size);
}

/* Solves (covariance + epsilon) gain = covariance with the mask, by Cramer's rule, for a tile of nodes. */
INLINED void solve(const Task *t, const Moments sum, float *fits, int stride)
{
    float fit[FITS][TILE];
    const float epsilon = t->epsilon, steepest = t->steepest;
    /* The smallest that a determinant can be is epsilon cubed; rounding may say less. */
    const float smallest = epsilon * epsilon * epsilon;
    EACH_LANE(i, TILE) {
        float scale = 1 / most(sum[WEIGHT][i], 1e-6f);
        float m = sum[MASK][i] * scale, a = sum[IY][i] * scale, b = sum[IU][i] * scale, c = sum[IV][i] * scale;
        float yy = sum[YY][i] * scale - a * a + epsilon, yu = sum[YU][i] * scale - a * b;
        float yv = sum[YV][i] * scale - a * c, uu = sum[UU][i] * scale - b * b + epsilon;
        float uv = sum[UV][i] * scale - b * c, vv = sum[VV][i] * scale - c * c + epsilon;
        float my = sum[MY][i] * scale - m * a, mu = sum[MU][i] * scale - m * b, mv = sum[MV][i] * scale - m * c;
        float c00 = uu * vv - uv * uv, c01 = uv * yv - yu * vv, c02 = yu * uv - uu * yv;
        float c11 = yy * vv - yv * yv, c12 = yu * yv - yy * uv, c22 = yy * uu - yu * yu;
        float inverse = 1 / most(yy * c00 + yu * c01 + yv * c02, smallest);
        float gy = clamp((c00 * my + c01 * mu + c02 * mv) * inverse, steepest);
        float gu = clamp((c01 * my + c11 * mu + c12 * mv) * inverse, steepest);
        float gv = clamp((c02 * my + c12 * mu + c22 * mv) * inverse, steepest);
        fit[GAIN_Y][i] = gy;
        fit[GAIN_U][i] = gu;
        fit[GAIN_V][i] = gv;
        fit[INTERCEPT][i] = m - gy * a - gu * b - gv * c;
    }
    for (int k = 0; k < FITS; k++)
        copy_lanes(fits + k * stride, fit[k], sizeof fit[k]);
}

/* What the person's colour is where the picture shows half person, half room: blur fusion's F + (F - B) / 2, with
 * F and B the mean colours of person and room in the window (edge_seg/matte.py cites it). For four nodes alike. */
INLINED void foreground(const Task *t, const Moments sum, const Result *r, int row, int x)
{
    const int start = 2 * x, count = t->cols - start;
    const float light = t->light, dark = t->dark;
    float person_part[TILE], room_part[TILE];
    EACH_LANE(i, TILE) {
        /* A little of everything in both means: they stay defined where there is no person, or no room. */
        float little = sum[WEIGHT][i] * 0.02f + 1e-6f;
        person_part[i] = 1 / (sum[MASK][i] + little);
        room_part[i] = 1 / (sum[WEIGHT][i] - sum[MASK][i] + little);
    }
    for (int k = 0; k < 3; k++) {
        const float scale = k ? 255 / t->chroma_scale : 255;
        int32_t value[TILE];
        uint16_t code[TILE];
        EACH_LANE(i, TILE) {
            float all = sum[IY + k][i], person = sum[MY + k][i];
            float front = (person + 0.02f * all) * person_part[i], back = (1.02f * all - person) * room_part[i];
            float colour = (front + 0.5f * (front - back)) * scale + 128.5f;
            value[i] = (int)most(least(colour, light), dark) * 0x0101;
        }
        EACH_LANE(i, TILE) /* by itself, for compilers choose registers by the smallest elements of a loop */
            code[i] = (uint16_t)value[i];
        uint8_t *colour = r->colour[k] + (Py_ssize_t)2 * row * t->cols + start;
        copy_wide(colour, code, count, 1);
        if (2 * row + 1 < t->rows)
            copy_wide(colour + t->cols, code, count, 1);
    }
}

/* The fits of one row, from the sums over the window. */
INLINED void fit_row(const Task *t, const Work *w, int row, const Result *r, const int radius)
{
    const int kept = 2 * radius + 1, stride = w->stride;
    float *fits = w->fits + row % (2 * t->smoothing + 1) * FITS * stride;
    const float *rows[2 * MAX_RADIUS + 1];
    for (int y = 0; y < kept; y++) {
        int at = row - radius + y;
        rows[y] = w->sums + (Py_ssize_t)(at < 0 || at >= t->half_rows ? kept : at % kept) * MOMENTS * stride;
    }
    for (int tile = 0; tile < w->needed_count[row]; tile++) {
        const int x = w->needed[row * w->most + tile];
        Moments sum;
        Py_ssize_t at = x;
        for (int k = 0; k < MOMENTS; k++, at += stride) {
            Lanes total = {0};
            for (int y = 0; y < kept; y++)
                lanes_add(&total, rows[y] + at);
            copy_lanes(sum[k], &total, sizeof total);
        }
        solve(t, sum, fits + x, stride);
        for (int i = t->half_cols - x; i < TILE; i++) /* averaging counts what is in the grid only */
            for (int k = 0; k < FITS; k++)
                fits[k * stride + x + i] = 0;
        foreground(t, sum, r, row, x);
    }
}

/* The default radius has loops of its own, unrolled. */
WIDE static void fit(const Task *t, const Work *w, int row, const Result *r)
{
    if (t->radius == 2)
        fit_row(t, w, row, r, 2);
    else
        fit_row(t, w, row, r, t->radius);
}

#endif
