/* A picture prepared for matching: a pyramid of 2x2 means whose rows are stored in interleaved pairs.
 *
 * The trick that makes matching fast on SSE2 and NEON alike: 16 vector lanes, but windows only 8 pixels wide. So rows y
 * and y + 1 of a picture are stored interleaved, for every y; 16 consecutive bytes are then an 8x2 patch at any
 * (x, y), an 8x8 window is four of them, and the compiler's own sum-of-absolute-differences pattern applies.
 */
#ifndef EDGE_SEG_FLOW_PICTURE_H
#define EDGE_SEG_FLOW_PICTURE_H

#include "_buffers.h"

#define BORDER 18      /* replicated pixels around each level: how far out of the picture a window may lie */
#define LEVELS_MAX 4
#define SIDE_MIN 16    /* a level smaller than this carries no information for 8x8 windows */
#define SIDE_MAX 2048

typedef struct {
    int width, height;
    Py_ssize_t stride;        /* bytes from one pair of rows to the next */
    unsigned char *pairs;     /* height + 2 BORDER - 1 of them, each 2 (width + 2 BORDER) bytes */
} Level;

static inline size_t level_bytes(const Level *l) { return (size_t)l->stride * (size_t)(l->height + 2 * BORDER - 1); }

/* Lays the levels of a picture out in `memory`, which may be NULL. Returns how many there are. */
static int levels_of(int width, int height, unsigned char *memory, Level levels[LEVELS_MAX])
{
    int count = 0;
    while (count < LEVELS_MAX && (count == 0 || (width >= SIDE_MIN && height >= SIDE_MIN))) {
        Level *l = &levels[count++];
        l->width = width, l->height = height;
        l->stride = 2 * (width + 2 * BORDER);
        l->pairs = memory;
        if (memory)
            memory += level_bytes(l);
        width = (width + 1) / 2, height = (height + 1) / 2;
    }
    return count;
}

static inline const unsigned char *window_at(const Level *l, int x, int y)
{
    return l->pairs + (y + BORDER) * l->stride + 2 * (x + BORDER);
}

/* A row with its border. */
INLINED void row_pad(unsigned char *restrict row, int width)
{
    memset(row, row[BORDER], BORDER);
    memset(row + BORDER + width, row[BORDER + width - 1], BORDER);
}

INLINED void rows_pair(const unsigned char *restrict a, const unsigned char *restrict b, int width, unsigned char *restrict out)
{
    for (int x = 0; x < width; x++) {
        out[2 * x] = a[x];
        out[2 * x + 1] = b[x];
    }
}

/* Means of 2x2 pixels: of four consecutive bytes of a pair of rows. */
INLINED void pair_halve(const unsigned char *restrict pair, int width, unsigned char *restrict out)
{
    for (int x = 0; x < width; x++) {
        uint32_t four;   /* in either byte order */
        memcpy(&four, pair + 4 * x, sizeof four);
        uint32_t two = (four & 0x00ff00ff) + (four >> 8 & 0x00ff00ff);
        out[x] = (unsigned char)((two + (two >> 16) + 2) >> 2);
    }
}

/* Fills a level from a picture, or from the next larger level. */
WIDE static void level_fill(Level *l, const Plane *picture, const Level *larger)
{
    unsigned char memory[2][SIDE_MAX + 2 * BORDER];
    unsigned char *above = memory[0], *row = memory[1], *pair = l->pairs;
    int padded = l->width + 2 * BORDER;
    for (int y = 0; y < l->height; y++) {
        if (larger)
            pair_halve(window_at(larger, 0, 2 * y), l->width, row + BORDER);
        else
            memcpy(row + BORDER, picture->data + y * picture->stride, (size_t)l->width);
        row_pad(row, l->width);
        rows_pair(y ? above : row, row, padded, pair);
        pair += l->stride;
        for (int i = 1; y == 0 && i < BORDER; i++, pair += l->stride)
            memcpy(pair, l->pairs, (size_t)l->stride);
        unsigned char *swap = above;
        above = row, row = swap;
    }
    rows_pair(above, above, padded, pair);
    for (int i = 1; i < BORDER; i++)
        memcpy(pair + i * l->stride, pair, (size_t)l->stride);
}

/* The mean of a level's pixels. */
static double level_mean(const Level *l)
{
    int64_t sum = 0;
    for (int y = 0; y < l->height; y++) {
        const unsigned char *pair = window_at(l, 0, y);
        for (int x = 0; x < l->width; x++)
            sum += pair[2 * x];
    }
    return (double)sum / ((double)l->width * l->height);
}

#endif
