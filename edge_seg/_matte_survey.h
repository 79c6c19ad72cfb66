/* What there is to do: where the mask is unsure and how far the fit replaces it there, and which nodes are wanted. */
#ifndef EDGE_SEG_MATTE_SURVEY_H
#define EDGE_SEG_MATTE_SURVEY_H

#include "_matte_work.h"

enum { SOME = 1, NOT_ALL = 2 }; /* of the person */

#define ALL_NODES 255 /* of a tile, as bits */

/* The mask's ends are drawn out to 0 and 1, so that what the model is sure of is sure. NaN becomes 0. */
INLINED float drawn_out(const Task *t, float p) { return least(most((p - t->level) * t->scale, t->zero), t->one); }

/* Two rows, SPAN columns, drawn out. Returns whether there is SOME of the person, and whether that is NOT_ALL. */
INLINED int draw(const Task *t, const float *above, const float *below, float *restrict a, float *restrict b)
{
    const float zero = t->zero, one = t->one;
    int32_t flags[TILE];
    EACH_LANE(i, TILE) {
        float p = drawn_out(t, above[i]), q = drawn_out(t, above[TILE + i]);
        float v = drawn_out(t, below[i]), z = drawn_out(t, below[TILE + i]);
        a[i] = p, a[TILE + i] = q, b[i] = v, b[TILE + i] = z;
        float high = most(most(p, q), most(v, z)), low = least(least(p, q), least(v, z));
        flags[i] = (high > zero ? SOME : 0) | (low < one ? NOT_ALL : 0);
    }
    return bits_of(flags);
}

/* How much of the person there is in SPAN nodes, for `settle`. */
INLINED void judge(const Task *t, const float *alpha, uint8_t *amount)
{
    const float none = t->negligible, all = 1 - t->negligible;
    int32_t flags[SPAN];
    uint16_t codes[SPAN];
    EACH_LANE(i, SPAN)
        flags[i] = (alpha[i] < none ? 0 : SOME) | (alpha[i] > all ? 0 : NOT_ALL);
    EACH_LANE(i, SPAN)
        codes[i] = (uint16_t)flags[i];
    codes_store(codes, amount);
}

/* Two rows over TILE nodes of the half grid: how unsure the mask is, and what it is at the nodes. Returns of which there
 * is SOME of the person, and above those, of which that is NOT_ALL. */
INLINED int examine(const float *restrict above, const float *restrict below, float *restrict uncertainty,
                    float *restrict sampled)
{
    int32_t flags[TILE];
    EACH_LANE(i, TILE) {
        float a = above[2 * i], b = above[2 * i + 1], c = below[2 * i], d = below[2 * i + 1];
        uncertainty[i] = (a - a * a) + (b - b * b) + (c - c * c) + (d - d * d);
        sampled[i] = a;
        float high = most(most(a, b), most(c, d)), low = least(least(a, b), least(c, d));
        flags[i] = (high > 0 ? bit_of[i] : 0) | (low < 1 ? bit_of[i] << TILE : 0);
    }
    return bits_of(flags);
}

/* What `survey` reads and fills, one row of the half grid. */
typedef struct {
    const float *mask[2];
    float *alpha[2]; /* NULL in the last pass */
    uint8_t *amount[2];
    int16_t *offset[2];
    float *uncertainty, *sampled;
} Surveyed;

/* What `survey` does with SPAN columns from `x` on. Returns what `examine` does. */
INLINED int survey_tile(const Task *t, const Surveyed *s, int x)
{
    float drawn[2][SPAN];
    float *uncertainty = s->uncertainty + x / 2, *sampled = s->sampled + x / 2;
    const int found = draw(t, s->mask[0] + x, s->mask[1] + x, drawn[0], drawn[1]);
    for (int k = 0; k < 2; k++)
        if (s->alpha[k])
            copy_lanes(s->alpha[k] + x, drawn[k], sizeof drawn[k]);
    if (found == (SOME | NOT_ALL)) {
        for (int k = 0; k < 2; k++) {
            int16_t *offset = s->offset[k] + x;
            EACH_LANE(i, SPAN)
                offset[i] = fixed_alpha(drawn[k][i]);
            judge(t, drawn[k], s->amount[k] + x);
        }
        return examine(drawn[0], drawn[1], uncertainty, sampled);
    }
    const int16_t alpha = found == SOME ? ALPHA_ONE : 0;
    const float sample = found == SOME ? 1 : 0;
    for (int k = 0; k < 2; k++) {
        int16_t *offset = s->offset[k] + x;
        EACH_LANE(i, SPAN)
            offset[i] = alpha;
        memset(s->amount[k] + x, found, SPAN);
    }
    EACH_LANE(i, TILE)
        sampled[i] = sample;
    EACH_LANE(i, TILE)
        uncertainty[i] = 0;
    return found == SOME ? ALL_NODES : ALL_NODES << TILE;
}

/* The same where the grid ends within the columns: its last node stands for what is beyond. */
WIDE static int survey_rim(const Task *t, const Surveyed *s, int x, int count)
{
    float mask[2][SPAN];
    int16_t offset[2][SPAN];
    Surveyed rim = {.uncertainty = s->uncertainty + x / 2, .sampled = s->sampled + x / 2};
    for (int k = 0; k < 2; k++) {
        for (int i = 0; i < SPAN; i++)
            mask[k][i] = s->mask[k][x + (i < count ? i : count - 1)];
        rim.mask[k] = mask[k];
        rim.offset[k] = offset[k];
        rim.alpha[k] = s->alpha[k] ? s->alpha[k] + x : NULL;
        rim.amount[k] = s->amount[k] + x;
    }
    const int found = survey_tile(t, &rim, 0);
    for (int k = 0; k < 2; k++)
        memcpy(s->offset[k] + x, offset[k], (size_t)count * sizeof(int16_t));
    return found & ((1 << (count + 1) / 2) - 1) * (1 | 1 << TILE);
}

/* One row of the half grid: how unsure the mask is, and where there is what; and what alpha is if nothing is fitted. */
WIDE static void survey(const Task *t, const Work *w, const Plane *mask, const Result *r, int row)
{
    Surveyed s = {.uncertainty = w->uncertainty + (Py_ssize_t)row * w->stride,
                  .sampled = w->sampled + (Py_ssize_t)row * w->stride};
    const float *next[2];
    for (int k = 0; k < 2; k++) {
        const int line = 2 * row + k < t->rows ? 2 * row + k : 2 * row;
        s.mask[k] = (const float *)ROW(mask, line);
        next[k] = line + 2 < t->rows ? (const float *)ROW(mask, line + 2) : s.mask[k];
        s.alpha[k] = t->passes > 1 ? w->alpha + (Py_ssize_t)line * w->wide : NULL;
        s.amount[k] = w->amount + (Py_ssize_t)line * w->wide;
        s.offset[k] = result_at(t, r, INTERCEPT, line, 0);
    }
    for (int word = 0; word < w->words - 2; word++) {
        const int first = word * WORD, count = t->half_cols - first < WORD ? t->half_cols - first : WORD;
        uint64_t some = 0, not_all = 0;
        for (int node = 0; node < count; node += TILE) {
            const int x = 2 * (first + node), left = t->cols - x;
            PREFETCH(next[0] + x);
            PREFETCH(next[1] + x);
            const uint64_t found = (uint64_t)(left >= SPAN ? survey_tile(t, &s, x) : survey_rim(t, &s, x, left));
            some |= (found & ALL_NODES) << node;
            not_all |= (found >> TILE) << node;
        }
        w->some[row * w->words + word] = some;
        w->not_all[row * w->words + word] = not_all;
        w->soft[row * w->words + word] = some & not_all;
    }
    for (int k = 0; k < 2; k++) { /* the padding */
        float *padded = k ? s.sampled : s.uncertainty;
        memset(padded - LEFT, 0, sizeof(float) * LEFT);
        memset(padded + t->half_cols, 0, sizeof(float) * RIGHT);
        s.amount[k][-1] = s.amount[k][t->cols] = 0;
    }
}

/* How far the fit replaces the mask: from the mean uncertainty in the window. */
INLINED void share_row(const Task *t, const Work *w, int row, const int radius, const int width)
{
    const int top = row - radius < 0 ? 0 : row - radius;
    const int bottom = row + radius >= t->half_rows ? t->half_rows - 1 : row + radius;
    const float zero = t->zero, one = t->one;
    const float slope = 1 / (t->high - t->low), threshold = t->low * slope;
    const float per_row = slope / (float)(bottom - top + 1);
    float *share = w->share + (Py_ssize_t)row * w->stride;
    uint64_t *fitted = w->fitted + row * w->words, *soft = w->near[1];
    bits_near(w->soft + top * w->words, bottom - top + 1, w->words, radius, w->near[0], soft);
    const int count = bits_runs(soft, t->half_cols, TILE, w->tiles);
    for (int i = 0; i < w->words - 2; i++)
        fitted[i] = 0;
    float columns[2][AROUND];
    for (int tile = 0; tile <= count; tile++) {
        for (int i = 0; tile < count && i < width; i += TILE) {
            Lanes down = {0};
            for (int y = top; y <= bottom; y++)
                lanes_add(&down, w->uncertainty + (Py_ssize_t)y * w->stride + w->tiles[tile] - radius + i);
            copy_lanes(columns[tile % 2] + i, &down, sizeof down);
        }
        if (tile == 0)
            continue;
        const int x = w->tiles[tile - 1]; /* what was written last is still on its way to the cache */
        float total[TILE];
        Lanes across = {0};
        for (int d = 0; d <= 2 * radius; d++)
            lanes_add(&across, columns[1 - tile % 2] + d);
        copy_lanes(total, &across, sizeof total);
        int32_t over[TILE], found = 0;
        EACH_LANE(i, TILE) {
            float value = most(total[i] * w->window_part[x + i] * per_row - threshold, zero);
            total[i] = least(value, one);
            over[i] = value > 0 ? bit_of[i] : 0;
        }
        copy_lanes(share + x, total, sizeof total);
        EACH_LANE(i, TILE)
            found |= over[i];
        bits_set(fitted, x, (uint64_t)found);
    }
}

/* The default radius has loops of its own, unrolled. */
WIDE static void share(const Task *t, const Work *w, int row)
{
    if (t->radius == 2)
        share_row(t, w, row, 2, 2 * TILE);
    else
        share_row(t, w, row, t->radius, AROUND);
}

/* What is blended, or fitted, or beside such a node, is wanted; and so are the fits that are averaged there. */
WIDE static void want(const Task *t, const Work *w, const Plane *colours, int row)
{
    const int reach = t->smoothing > 1 ? t->smoothing : 1;
    const int top = row - reach < 0 ? 0 : row - reach;
    const int bottom = row + reach >= t->half_rows ? t->half_rows - 1 : row + reach;
    const uint64_t *const rows[3] = {w->some, w->not_all, w->fitted};
    uint64_t *wanted = w->wanted + row * w->words;
    for (int k = 0; k < 3; k++)
        bits_near(rows[k] + top * w->words, bottom - top + 1, w->words, reach, w->near[0], w->near[1 + k]);
    for (int i = 0; i < w->words - 2; i++)
        wanted[i] = (w->near[1][i] & w->near[2][i]) | w->near[3][i];
    int *needed = w->needed + (Py_ssize_t)row * w->most, count = bits_runs(wanted, t->half_cols, TILE, needed);
    w->needed_count[row] = count;
    for (int k = 0; k < 3; k++)
        for (int line = 2 * row; line < 2 * row + 2 && line < t->rows; line++) {
            const uint8_t *codes = ROW(&colours[k], line);
            for (int tile = 0; tile < count; tile++)
                PREFETCH(codes + 2 * needed[tile]);
        }
}

#endif
