/* Where the elements and tiles of a grid come from by block flow, and what is there. */
#ifndef EDGE_SEG_MOTION_H
#define EDGE_SEG_MOTION_H

#include "_fusion.h"

#define Q 16                 /* steps to a pixel */
#define PIXELS_MAX 4096      /* no vector is longer: 16 bits of steps */

typedef struct {
    Plane steps;             /* the vectors: pairs of int16, in 1 / Q pixel */
    int block, rows, cols;
    int *block_of;           /* in which block a row or column is: dividing is slow */
} Motion;

typedef struct { int x, y; } Vector;   /* in 1 / Q pixel */

/* Rounded down. */
INLINED int pixels_of(int steps) { return (int)((unsigned)(steps + Q * PIXELS_MAX) / Q) - PIXELS_MAX; }

INLINED const int16_t *steps_at(const Motion *m, int y, int x)
{
    const void *row = m->steps.data + m->block_of[y] * m->steps.stride;
    return (const int16_t *)row + 2 * m->block_of[x];
}

INLINED Vector vector_at(const Motion *m, int y, int x)
{
    const int16_t *v = steps_at(m, y, x);
    return (Vector){v[0], v[1]};
}

#if defined(__GNUC__) && !defined(__clang__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define HAS_LANES 1
typedef uint8_t Bytes __attribute__((vector_size(16)));
typedef uint16_t Codes __attribute__((vector_size(16)));
typedef int32_t Wholes __attribute__((vector_size(16)));
typedef float Floats __attribute__((vector_size(16)));

/* Eight bytes as 16-bit elements, by a shuffle with zeros: compilers take conversions of half a register apart. */
INLINED Codes codes_of(const uint8_t *at)
{
    uint64_t eight[2] = {0, 0};
    memcpy(eight, at, sizeof eight[0]);
    Bytes low, zero = {0};
    memcpy(&low, eight, sizeof low);
    return (Codes)__builtin_shuffle(low, zero, (Bytes){0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23});
}

/* What a tile fetches from a place inside the picture, (fx, fy) in 1 / Q. Eight columns are read, and the one behind them. */
INLINED void fetch_bytes(const unsigned char *p, Py_ssize_t stride, int fx, int fy, float *out, Py_ssize_t out_stride)
{
    const uint16_t right = (uint16_t)fx, left = (uint16_t)(Q - fx), under = (uint16_t)fy, over = (uint16_t)(Q - fy);
    const Codes zero = {0};
    Codes above = codes_of(p) * left + codes_of(p + 1) * right;
    for (int j = 0; j < TILE; j++) {
        p += stride;
        Codes below = codes_of(p) * left + codes_of(p + 1) * right, mixed = above * over + below * under;
        Wholes wholes = (Wholes)__builtin_shuffle(mixed, zero, (Codes){0, 8, 1, 9, 2, 10, 3, 11});
        Floats floats = __builtin_convertvector(wholes, Floats) * (1.0f / (Q * Q));
        memcpy(out + j * out_stride, &floats, sizeof floats);
        above = below;
    }
}

/* Four bytes of one plane, and four of another. */
INLINED Codes codes_of_two(const uint8_t *first, const uint8_t *second)
{
    uint32_t four[4] = {0, 0, 0, 0};
    memcpy(&four[0], first, sizeof four[0]);
    memcpy(&four[1], second, sizeof four[1]);
    Bytes low, zero = {0};
    memcpy(&low, four, sizeof low);
    return (Codes)__builtin_shuffle(low, zero, (Bytes){0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23});
}

/* The same from two places of one stride, at each of which TILE columns are read, and the one behind them. `together`: the
 * second is TILE columns to the right of the first. */
INLINED void fetch_two(const unsigned char *p, const unsigned char *q, const int together, Py_ssize_t stride, int fx, int fy, float *out_p,
                       float *out_q, Py_ssize_t out_stride)
{
    const uint16_t right = (uint16_t)fx, left = (uint16_t)(Q - fx), under = (uint16_t)fy, over = (uint16_t)(Q - fy);
    const Codes zero = {0};
#define CODES(dx) (together ? codes_of(p + (dx)) : codes_of_two(p + (dx), q + (dx)))
    Codes above = CODES(0) * left + CODES(1) * right;
    for (int j = 0; j < TILE; j++) {
        p += stride, q += stride;
        Codes below = CODES(0) * left + CODES(1) * right, mixed = above * over + below * under;
        Wholes first = (Wholes)__builtin_shuffle(mixed, zero, (Codes){0, 8, 1, 9, 2, 10, 3, 11});
        Wholes second = (Wholes)__builtin_shuffle(mixed, zero, (Codes){4, 12, 5, 13, 6, 14, 7, 15});
        Floats floats = __builtin_convertvector(first, Floats) * (1.0f / (Q * Q));
        memcpy(out_p + j * out_stride, &floats, sizeof floats);
        floats = __builtin_convertvector(second, Floats) * (1.0f / (Q * Q));
        memcpy(out_q + j * out_stride, &floats, sizeof floats);
        above = below;
    }
#undef CODES
}
#else
#define HAS_LANES 0
#endif

/* The same of floats: one tile, or two side by side. */
#if defined(__GNUC__)
typedef float Four __attribute__((vector_size(4 * TILE)));
typedef float Eight __attribute__((vector_size(8 * TILE)));
#define FETCH_FLOATS(name, Lanes) \
INLINED void name(const float *p, Py_ssize_t stride, int x_steps, int y_steps, float *out, Py_ssize_t out_stride) \
{ \
    const float fx = (float)x_steps * (1.0f / Q), fy = (float)y_steps * (1.0f / Q); \
    Lanes here, next, above; \
    memcpy(&here, p, sizeof here), memcpy(&next, p + 1, sizeof next); \
    above = here + fx * (next - here); \
    for (int j = 0; j < TILE; j++) { \
        p += stride; \
        memcpy(&here, p, sizeof here), memcpy(&next, p + 1, sizeof next); \
        const Lanes below = here + fx * (next - here), mixed = above + fy * (below - above); \
        memcpy(out + j * out_stride, &mixed, sizeof mixed); \
        above = below; \
    } \
}
FETCH_FLOATS(fetch_floats, Four)
FETCH_FLOATS(fetch_pair, Eight)
#else
INLINED void fetch_floats(const float *p, Py_ssize_t stride, int x_steps, int y_steps, float *out, Py_ssize_t out_stride)
{
    const float fx = (float)x_steps * (1.0f / Q), fy = (float)y_steps * (1.0f / Q);
    for (int j = 0; j < TILE; j++)
        for (int i = 0; i < TILE; i++) {
            const float *here = p + j * stride + i, *under = here + stride;
            float above = here[0] + fx * (here[1] - here[0]), below = under[0] + fx * (under[1] - under[0]);
            out[j * out_stride + i] = above + fy * (below - above);
        }
}

INLINED void fetch_pair(const float *p, Py_ssize_t stride, int x_steps, int y_steps, float *out, Py_ssize_t out_stride)
{
    fetch_floats(p, stride, x_steps, y_steps, out, out_stride);
    fetch_floats(p + TILE, stride, x_steps, y_steps, out + TILE, out_stride);
}
#endif

/* Where an element comes from: between four, moved to the rim if it is outside the picture, and by how much. */
typedef struct { int left, top, right, down; float x_weight, y_weight, outside; } Place;

static inline Place place_of(const Motion *m, int y, int x, Vector v)
{
    const int from_x = Q * x + v.x, from_y = Q * y + v.y;
    const int sx = clamp(from_x, 0, Q * (m->cols - 1)), sy = clamp(from_y, 0, Q * (m->rows - 1));
    Place at = {.left = sx / Q, .top = sy / Q};
    at.right = least(at.left + 1, m->cols - 1);
    at.down = least(at.top + 1, m->rows - 1);
    at.x_weight = (float)(sx % Q) * (1.0f / Q);
    at.y_weight = (float)(sy % Q) * (1.0f / Q);
    at.outside = (float)(abs(from_x - sx) + abs(from_y - sy)) * (1.0f / Q);
    return at;
}

static inline float mixed(Place at, float a, float b, float d, float e)
{
    float t = a + at.x_weight * (b - a), u = d + at.x_weight * (e - d);
    return t + at.y_weight * (u - t);
}

static inline float byte_at(const Plane *plane, Place at)
{
    const unsigned char *p = bytes_at(plane, at.top), *q = bytes_at(plane, at.down);
    return mixed(at, (float)p[at.left], (float)p[at.right], (float)q[at.left], (float)q[at.right]);
}

static inline float float_at(const Plane *plane, Place at)
{
    const float *p = floats_at(plane, at.top), *q = floats_at(plane, at.down);
    return mixed(at, p[at.left], p[at.right], q[at.left], q[at.right]);
}

/* Where a tile with one vector comes from: the pixel, and what is left of the vector. */
typedef struct { int left, top, fx, fy; } Origin;

INLINED Origin origin_of(int y0, int x0, Vector v)
{
    const int x = pixels_of(v.x), y = pixels_of(v.y);
    return (Origin){x0 + x, y0 + y, v.x - Q * x, v.y - Q * y};
}

INLINED Origin tile_origin(const Motion *m, int y0, int x0) { return origin_of(y0, x0, vector_at(m, y0, x0)); }

/* How a tile is fetched. WHOLE: it has one vector, and all that is mixed for it is in the picture. CLOSE: the same, and the
 * nearest elements are its own. RIM: it has one vector, and not all of that is in the picture. SCATTERED: element by element. */
enum { STILL, CLOSE, WHOLE, RIM, SCATTERED };

/* Whether all blocks in a tile have the vector of its first. */
INLINED int is_uniform(const Motion *m, int y0, int x0)
{
    const int y1 = m->block_of[least(y0 + TILE, m->rows) - 1], x1 = m->block_of[least(x0 + TILE, m->cols) - 1];
    const int16_t *first = steps_at(m, y0, x0);
    for (int y = m->block_of[y0]; y <= y1; y++)
        for (int x = m->block_of[x0]; x <= x1; x++) {
            const int16_t *v = (const int16_t *)(const void *)(m->steps.data + y * m->steps.stride) + 2 * x;
            if (v[0] != first[0] || v[1] != first[1])
                return 0;
        }
    return 1;
}

/* Whether 0 <= v < limit, which is not negative. */
INLINED int is_below(int v, int limit) { return (unsigned)v < (unsigned)limit; }

/* `v`: the vector of its first block. */
INLINED int kind_of(const Motion *m, int y0, int x0, Vector v)
{
    if (m->block % TILE != 0 && !is_uniform(m, y0, x0))
        return SCATTERED;
    if (v.x == 0 && v.y == 0)
        return STILL;
    if (y0 + TILE > m->rows || x0 + TILE > m->cols)
        return SCATTERED;
    const Origin from = origin_of(y0, x0, v);
    if (!is_below(from.left, m->cols - TILE) || !is_below(from.top, m->rows - TILE))
        return RIM;
    return is_below(v.x + Q / 2, Q) & is_below(v.y + Q / 2, Q) ? CLOSE : WHOLE;
}

/* `pixels_of` in 16 bits, of which a register holds twice as many. */
INLINED int16_t few_pixels_of(int16_t steps) { return (int16_t)((uint16_t)(steps + Q * PIXELS_MAX / 2) / Q - PIXELS_MAX / 2); }

/* The kinds of a row of `count` tiles inside the grid that have the vectors (x, y), and as `pair` whether the tile to the right
 * of each can be fetched with it. There is one more vector. */
WIDE static void kinds_find(const int16_t *restrict x, const int16_t *restrict y, int y0, int rows, int cols, int count,
                            unsigned char *restrict kind, unsigned char *restrict pair)
{
    const int16_t right = (int16_t)(cols - TILE), down = (int16_t)(rows - TILE), first = (int16_t)y0;
    for (int tx = 0; tx < count; tx++) {
        const int16_t left = (int16_t)(few_pixels_of(x[tx]) + (int16_t)(tx * TILE)), top = (int16_t)(few_pixels_of(y[tx]) + first);
        const int16_t moves = (x[tx] | y[tx]) != 0, inside = (left >= 0) & (left < right) & (top >= 0) & (top < down);
        const int16_t close = (x[tx] >= -Q / 2) & (x[tx] < Q / 2) & (y[tx] >= -Q / 2) & (y[tx] < Q / 2);
        const int16_t alike = (x[tx] == x[tx + 1]) & (y[tx] == y[tx + 1]);
        kind[tx] = (unsigned char)(!moves ? STILL : !inside ? RIM : close ? CLOSE : WHOLE);
        pair[tx] = (unsigned char)(inside & (left < right - TILE) & alike);
    }
    pair[count - 1] = 0;
}

#define SIDE (TILE + 1)
#define WIDTH 16             /* more columns than are read */

/* What is mixed for a tile at the rim: the outermost elements stand for those outside. */
#define GATHER(name, type, row_at) \
INLINED void name(const Motion *m, const Plane *plane, const Origin *from, type out[SIDE * WIDTH]) \
{ \
    for (int j = 0; j < SIDE; j++) { \
        const type *row = row_at(plane, clamp(from->top + j, 0, m->rows - 1)); \
        for (int i = 0; i < SIDE; i++) \
            out[j * WIDTH + i] = row[clamp(from->left + i, 0, m->cols - 1)]; \
    } \
}
GATHER(bytes_gather, unsigned char, bytes_at)
GATHER(floats_gather, float, floats_at)

/* Where along an axis each element of a tile comes from, to the nearest, and how many pixels outside the picture that is. */
INLINED void axis_fill(int first, int steps, int side, int at[TILE], float outside[TILE])
{
    const int whole = pixels_of(steps + Q / 2);
    for (int i = 0; i < TILE; i++) {
        const int from = Q * (first + i) + steps;
        at[i] = clamp(first + i + whole, 0, side - 1);
        outside[i] = (float)abs(from - clamp(from, 0, Q * (side - 1))) * (1.0f / Q);
    }
}

#endif
