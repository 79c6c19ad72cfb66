/* Blocks of 8 pixels matched to the pixel, from the coarsest level to the finest, by the sum of absolute differences. */
#ifndef EDGE_SEG_FLOW_SEARCH_H
#define EDGE_SEG_FLOW_SEARCH_H

#include "_flow_picture.h"
#include <stdlib.h>

#define WINDOW 8              /* side of a block that is matched, at every level, and of its window */
#define PAIRS (WINDOW / 2)
#define AREA (WINDOW * WINDOW)
#define STILL (2 * AREA)      /* a sum of differences (two code values a pixel) below which nothing better is looked for */

typedef struct { int16_t x, y; } Vector;

/* Vectors of 8-pixel blocks of one level, in whole pixels. */
typedef struct {
    int rows, cols;
    Vector *vectors;
} Stage;

typedef struct {
    int block, levels, search, penalty;
    int rows, cols;                  /* of the block grid that is asked for */
    const Vector *hint;              /* the flow of the frame before, in 1/16 pixel, or NULL */
    const unsigned char *active;     /* where precision is wanted, or NULL for everywhere */
} Settings;

static inline int clamp(int v, int lo, int hi) { return v < lo ? lo : v > hi ? hi : v; }
static inline int blocks(int pixels, int side) { return (pixels + side - 1) / side; }

INLINED int sad(const unsigned char *restrict a, const unsigned char *restrict b, Py_ssize_t stride)
{
    int sum = 0;
    for (int r = 0; r < PAIRS; r++) {
        for (int i = 0; i < 2 * WINDOW; i++)
            sum += abs((int)a[i] - (int)b[i]);
        a += 2 * stride, b += 2 * stride;
    }
    return sum;
}

/* A cost and which candidate has it, so that the smaller of two is one instruction, and the first of equal ones wins.
 * Costs are below 2^18 (AREA * 255 and 32 times the largest penalty), candidates fewer than 2^11. */
#define WHICH 11
INLINED int32_t key_of(int cost, int which) { return (int32_t)cost << WHICH | which; }
INLINED int32_t least(int32_t a, int32_t b) { return a < b ? a : b; }
INLINED int cost_of(int32_t key) { return key >> WHICH; }
INLINED int which_of(int32_t key) { return key & ((1 << WHICH) - 1); }

/* The vectors that keep the window at (x, y), and a rim of 2, inside the border. */
typedef struct { int x_lo, x_hi, y_lo, y_hi; } Range;

INLINED Range range_of(const Level *l, int x, int y)
{
    return (Range){-BORDER + 2 - x, l->width + BORDER - WINDOW - 2 - x, -BORDER + 2 - y, l->height + BORDER - WINDOW - 2 - y};
}

INLINED Vector limited(int x, int y, Range range)
{
    return (Vector){(int16_t)clamp(x, range.x_lo, range.x_hi), (int16_t)clamp(y, range.y_lo, range.y_hi)};
}

/* A block of the current picture, where it stands in the previous one, and the best vector so far. */
typedef struct {
    const unsigned char *patch, *here;
    Py_ssize_t stride;
    Range range;
    Vector best;
    int cost;
} Search;

/* Begins with standing still. */
INLINED Search search_at(const Level *previous, const Level *current, int bx, int by)
{
    Search s = {window_at(current, bx * WINDOW, by * WINDOW), window_at(previous, bx * WINDOW, by * WINDOW), previous->stride,
                range_of(previous, bx * WINDOW, by * WINDOW), {0, 0}, 0};
    s.cost = sad(s.patch, s.here, s.stride);
    return s;
}

INLINED int cost_at(const Search *s, Vector v) { return sad(s->patch, s->here + v.y * s->stride + 2 * v.x, s->stride); }

INLINED void search_try(Search *s, Vector v, int penalty)
{
    int cost = cost_at(s, v) + penalty;
    if (cost < s->cost)
        s->cost = cost, s->best = v;
}

/* The eight neighbours of the best vector, row by row. */
INLINED void search_around(Search *s, int penalty)
{
    Vector v = s->best;
    if (v.x <= s->range.x_lo || v.x >= s->range.x_hi || v.y <= s->range.y_lo || v.y >= s->range.y_hi)
        return;
    const unsigned char *at = s->here + v.y * s->stride + 2 * v.x, *over = at - s->stride, *under = at + s->stride;
    int32_t best = key_of(s->cost, 0);
    best = least(best, key_of(sad(s->patch, over - 2, s->stride) + penalty, 1));
    best = least(best, key_of(sad(s->patch, over, s->stride) + penalty, 2));
    best = least(best, key_of(sad(s->patch, over + 2, s->stride) + penalty, 3));
    best = least(best, key_of(sad(s->patch, at - 2, s->stride) + penalty, 4));
    best = least(best, key_of(sad(s->patch, at + 2, s->stride) + penalty, 6));
    best = least(best, key_of(sad(s->patch, under - 2, s->stride) + penalty, 7));
    best = least(best, key_of(sad(s->patch, under, s->stride) + penalty, 8));
    best = least(best, key_of(sad(s->patch, under + 2, s->stride) + penalty, 9));
    if (which_of(best)) {
        s->best.x = (int16_t)(v.x + (which_of(best) - 1) % 3 - 1);
        s->best.y = (int16_t)(v.y + (which_of(best) - 1) / 3 - 1);
        s->cost = cost_of(best);
    }
}

/* All vectors within `search` pixels along each axis, the farther the dearer. */
INLINED void search_all(Search *s, int search, int penalty)
{
    const int span = 2 * search + 1;
    const int x_lo = clamp(-search, s->range.x_lo, 0), x_hi = clamp(search, 0, s->range.x_hi);
    const int y_lo = clamp(-search, s->range.y_lo, 0), y_hi = clamp(search, 0, s->range.y_hi);
    int32_t best = key_of(s->cost, 0);
    for (int y = y_lo; y <= y_hi; y++) {
        const unsigned char *row = s->here + y * s->stride;
        int far = penalty * abs(y), which = 1 + (y + search) * span + search;
        for (int x = x_lo; x <= x_hi; x++)
            best = least(best, key_of(sad(s->patch, row + 2 * x, s->stride) + far + penalty * abs(x), which + x));
    }
    if (which_of(best)) {
        s->best.x = (int16_t)((which_of(best) - 1) % span - search);
        s->best.y = (int16_t)((which_of(best) - 1) / span - search);
    }
}

/* The two of `count` blocks of twice the size whose centres enclose the centre of block b along one axis. */
INLINED void parents(int b, int count, int *near, int *far)
{
    *near = clamp(b >> 1, 0, count - 1);
    *far = clamp((b >> 1) + (b & 1 ? 1 : -1), 0, count - 1);
}

/* The hint at the centre of a block of a level, in whole pixels of that level. */
INLINED Vector hint_at(const Settings *settings, int level, int bx, int by)
{
    int shift = settings->block == 2 ? 2 : settings->block == 4 ? 3 : 4;   /* 2 * block */
    int x = clamp((2 * bx + 1) * WINDOW << level >> shift, 0, settings->cols - 1);
    int y = clamp((2 * by + 1) * WINDOW << level >> shift, 0, settings->rows - 1);
    Vector v = settings->hint[y * settings->cols + x];
    int half = 8 << level;
    return (Vector){(int16_t)((v.x + half) >> (4 + level)), (int16_t)((v.y + half) >> (4 + level))};
}

/* Whether precision is wanted anywhere in a block of the finest level. */
static inline int is_active(const Settings *settings, int bx, int by)
{
    if (!settings->active)
        return 1;
    int n = WINDOW / settings->block;
    for (int y = by * n; y < (by + 1) * n && y < settings->rows; y++)
        for (int x = bx * n; x < (bx + 1) * n && x < settings->cols; x++)
            if (settings->active[y * settings->cols + x])
                return 1;
    return 0;
}

#define MUCH_BETTER 2   /* times as good a match as standing still: the hint is right, and need not be searched for */

WIDE static void match_top(Stage *stage, int level, const Level *previous, const Level *current, const Settings *settings)
{
    for (int by = 0; by < stage->rows; by++)
        for (int bx = 0; bx < stage->cols; bx++) {
            Search s = search_at(previous, current, bx, by);
            int still = s.cost, known = still <= STILL;
            if (!known && settings->hint) {
                Vector h = hint_at(settings, level, bx, by);
                search_try(&s, limited(h.x, h.y, s.range), settings->penalty);
                if (s.cost < still) {
                    search_around(&s, 2 * settings->penalty);
                    known = MUCH_BETTER * s.cost <= still;
                }
            }
            if (!known)
                search_all(&s, settings->search, settings->penalty);
            stage->vectors[by * stage->cols + bx] = s.best;
        }
}

WIDE static void match_refine(Stage *stage, int level, const Stage *coarse, const Level *previous, const Level *current,
                              const Settings *settings)
{
    for (int by = 0; by < stage->rows; by++) {
        int ys[2], xs[2];
        parents(by, coarse->rows, &ys[0], &ys[1]);
        const Vector *rows[2] = {coarse->vectors + ys[0] * coarse->cols, coarse->vectors + ys[1] * coarse->cols};
        for (int bx = 0; bx < stage->cols; bx++) {
            Search s = search_at(previous, current, bx, by);
            if (s.cost > STILL) {
                parents(bx, coarse->cols, &xs[0], &xs[1]);
                for (int i = 0; i < 4; i++) {
                    Vector p = rows[i >> 1][xs[i & 1]];
                    search_try(&s, limited(2 * p.x, 2 * p.y, s.range), settings->penalty);
                }
                if (settings->hint) {
                    Vector h = hint_at(settings, level, bx, by);
                    search_try(&s, limited(h.x, h.y, s.range), settings->penalty);
                }
                if (s.cost > STILL && (level > 0 || is_active(settings, bx, by)))
                    search_around(&s, 2 * settings->penalty);
            }
            stage->vectors[by * stage->cols + bx] = s.best;
        }
    }
}

#endif
