/* The step from whole pixels to sixteenths, and how well blocks match then. */
#ifndef EDGE_SEG_FLOW_SUBPIXEL_H
#define EDGE_SEG_FLOW_SUBPIXEL_H

#include "_flow_search.h"
#include <math.h>

#define COLS_MAX (SIDE_MAX / WINDOW)
#define Q 16                  /* vectors are in 1/16 pixel after the sub-pixel step */

/* What was found for blocks of the finest level, `side` pixels wide. */
typedef struct {
    int side, rows, cols;
    Vector *vectors;      /* 1/16 pixel */
    float *residual;      /* mean absolute difference */
    float *texture;       /* the smaller eigenvalue of the mean structure tensor */
} Found;

INLINED int whole(int steps) { return (steps - (steps & (Q - 1))) / Q; }
INLINED int part(int steps) { return steps & (Q - 1); }
INLINED Range sixteenths(Range r) { return (Range){Q * r.x_lo, Q * r.x_hi, Q * r.y_lo, Q * r.y_hi}; }

/* Eight pixels of a row, and of the row below: a pair's bytes, as the halves of numbers. */
typedef uint16_t Row __attribute__((vector_size(16)));

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
INLINED Row first(Row both) { return both >> 8; }
INLINED Row second(Row both) { return both & 255; }
#else
INLINED Row first(Row both) { return both & 255; }
INLINED Row second(Row both) { return both >> 8; }
#endif

INLINED Row pair_load(const unsigned char *pair)
{
    Row both;
    memcpy(&both, pair, sizeof both);
    return both;
}

/* Doubled gradients in x and y and the difference in time, at the pixels of a window. */
typedef struct { int16_t x[AREA], y[AREA], t[AREA]; } Gradients;

INLINED void gradients(const unsigned char *restrict p, const unsigned char *restrict c, Py_ssize_t stride, Gradients *out)
{
    for (int r = 0; r < WINDOW; r += 2) {
        Row here = pair_load(p), left = pair_load(p - 2), right = pair_load(p + 2), now = pair_load(c);
        Row over = pair_load(p - stride), under = pair_load(p + stride);
        Row x[2] = {first(right) - first(left), second(right) - second(left)};
        Row y[2] = {second(here) - first(over), second(under) - first(here)};
        Row t[2] = {first(here) - first(now), second(here) - second(now)};
        memcpy(out->x + WINDOW * r, x, sizeof x);
        memcpy(out->y + WINDOW * r, y, sizeof y);
        memcpy(out->t + WINDOW * r, t, sizeof t);
        p += 2 * stride, c += 2 * stride;
    }
}

/* The structure tensor of a window and its product with the temporal difference. */
typedef struct { int32_t xx, xy, yy, xt, yt; } Moments;

INLINED Moments moments(const Gradients *g)
{
    Moments m = {0, 0, 0, 0, 0};
    for (int i = 0; i < AREA; i++) {
        m.xx += g->x[i] * g->x[i];
        m.xy += g->x[i] * g->y[i];
        m.yy += g->y[i] * g->y[i];
        m.xt += g->x[i] * g->t[i];
        m.yt += g->y[i] * g->t[i];
    }
    return m;
}

#define FLAT (AREA * 2 * 2)   /* regularises the normal equations: noise of about 1 code value */
#define STEP_MAX (Q * 3 / 4)
#define HAIR 1                /* in 1/16 pixel: what moves by no more stands still; noise moves everything by as much */

/* floor(q), limited to +-STEP_MAX; below 2^31 they all are. */
INLINED void steps_of(const double *restrict quotients, int count, int32_t *restrict out)
{
    for (int i = 0; i < count; i++) {
        int32_t truncated = (int32_t)quotients[i];
        out[i] = clamp(truncated - (truncated > quotients[i]), -STEP_MAX, STEP_MAX);
    }
}

/* The smaller eigenvalue of the mean structure tensor, in squared code values per pixel. */
static inline float texture_of(float a, float b, float c)
{
    float smaller = 0.5f * (a + c - sqrtf((a - c) * (a - c) + 4.0f * b * b));
    return smaller > 0.0f ? smaller / (4.0f * WINDOW * WINDOW) : 0.0f;
}

INLINED Row apart(Row a, Row b)
{
    typedef int16_t Signed __attribute__((vector_size(16)));
    Signed difference = (Signed)(a - b), sign = difference >> 15;
    return (Row)((difference ^ sign) - sign);
}

/* The sum of what is together below 2^16. */
INLINED int sum_of(Row row)
{
    uint64_t four[2];
    memcpy(four, &row, sizeof four);
    return (int)((four[0] + four[1]) * 0x0001000100010001u >> 48);
}

/* Sum of absolute differences over `pairs` pairs of rows at fx, fy sixteenths of a pixel right of and below p,
 * bilinear. Columns outside `mask` do not count. */
INLINED int sad_between(const unsigned char *restrict c, const unsigned char *restrict p, Py_ssize_t stride, int fx, int fy,
                        int pairs, Row mask)
{
    const uint16_t left = (uint16_t)(Q - fx), right = (uint16_t)fx, over = (uint16_t)(Q - fy), under = (uint16_t)fy;
    Row total = {0}, a = pair_load(p), b = pair_load(p + 2), upper = first(a) * left + first(b) * right;
    for (int r = 0; r < pairs; r++) {
        Row middle = second(a) * left + second(b) * right, lower, now = pair_load(c);
        p += r + 1 < pairs ? 2 * stride : stride;
        a = pair_load(p), b = pair_load(p + 2);
        if (r + 1 < pairs)
            lower = first(a) * left + first(b) * right;
        else
            lower = second(a) * left + second(b) * right;
        total += apart((upper * over + middle * under + 128) >> 8, first(now));
        total += apart((middle * over + lower * under + 128) >> 8, second(now));
        upper = lower;
        c += 2 * stride;
    }
    return sum_of(total & mask);
}

static const Row middle8 = {65535, 65535, 65535, 65535, 65535, 65535, 65535, 65535};

/* Where a vector in 1/16 pixel takes a block, in whole pixels. */
INLINED const unsigned char *landing(const Level *previous, int bx, int by, Vector v)
{
    return window_at(previous, bx * WINDOW + whole(v.x), by * WINDOW + whole(v.y));
}

#define BATCH 16   /* windows: what is written in halves of registers is not read in whole ones at once, which waits */

/* One Gauss-Newton step of Lucas and Kanade from the whole-pixel vectors, in 1/16 pixel, and how well it fits then. */
WIDE static void subpixel(const Stage *stage, const Level *previous, const Level *current, Found *found)
{
    const Py_ssize_t stride = previous->stride;
    Gradients batch[BATCH];
    for (int by = 0; by < stage->rows; by++) {
        const Vector *vectors = stage->vectors + by * stage->cols;
        Vector *out = found->vectors + by * stage->cols;
        float *residual = found->residual + by * stage->cols, *texture = found->texture + by * stage->cols;
        int32_t xx[COLS_MAX], xy[COLS_MAX], yy[COLS_MAX], xt[COLS_MAX], yt[COLS_MAX], sx[COLS_MAX], sy[COLS_MAX];
        double qx[COLS_MAX], qy[COLS_MAX];
        for (int start = 0; start < stage->cols; start += BATCH) {
            int end = start + BATCH < stage->cols ? start + BATCH : stage->cols;
            for (int bx = start; bx < end; bx++) {
                int x = bx * WINDOW, y = by * WINDOW;
                Vector v = vectors[bx];
                gradients(window_at(previous, x + v.x, y + v.y), window_at(current, x, y), stride, &batch[bx - start]);
            }
            for (int bx = start; bx < end; bx++) {
                Moments m = moments(&batch[bx - start]);
                xx[bx] = m.xx, xy[bx] = m.xy, yy[bx] = m.yy, xt[bx] = m.xt, yt[bx] = m.yt;
            }
        }
        for (int bx = 0; bx < stage->cols; bx++) {
            double a = xx[bx] + FLAT, b = xy[bx], c = yy[bx] + FLAT;
            double det = a * c - b * b; /* positive: FLAT makes the matrix positive definite */
            qx[bx] = (4 * Q * (b * yt[bx] - c * xt[bx]) + det) / (2 * det);
            qy[bx] = (4 * Q * (b * xt[bx] - a * yt[bx]) + det) / (2 * det);
        }
        steps_of(qx, stage->cols, sx);
        steps_of(qy, stage->cols, sy);
        for (int bx = 0; bx < stage->cols; bx++)
            texture[bx] = texture_of((float)xx[bx], (float)xy[bx], (float)yy[bx]);
        int sums[COLS_MAX], between[COLS_MAX], count = 0;
        for (int bx = 0; bx < stage->cols; bx++) {
            Range range = sixteenths(range_of(previous, bx * WINDOW, by * WINDOW));
            Vector v = limited(vectors[bx].x * Q + sx[bx], vectors[bx].y * Q + sy[bx], range);
            if (abs(v.x) <= HAIR && abs(v.y) <= HAIR)
                v = (Vector){0, 0};
            sums[bx] = sad(window_at(current, bx * WINDOW, by * WINDOW), landing(previous, bx, by, v), stride);
            between[count] = bx;
            count += (part(v.x) | part(v.y)) != 0;
            out[bx] = v;
        }
        for (int i = 0; i < count; i++) { /* by themselves: no processor foresees which they are */
            const int bx = between[i];
            const Vector v = out[bx];
            sums[bx] = sad_between(window_at(current, bx * WINDOW, by * WINDOW), landing(previous, bx, by, v), stride,
                                   part(v.x), part(v.y), PAIRS, middle8);
        }
        for (int bx = 0; bx < stage->cols; bx++)
            residual[bx] = (float)sums[bx] / AREA;
    }
}

#endif
