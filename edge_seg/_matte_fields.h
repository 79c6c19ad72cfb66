/* What becomes of the fits: averaged, weighed with their share, spread over the full grid as gains and offset, and settled
 * where they say nothing new. */
#ifndef EDGE_SEG_MATTE_FIELDS_H
#define EDGE_SEG_MATTE_FIELDS_H

#include "_matte_survey.h"

/* Averages the fits of neighbours, sharpens the result about one half, and weighs it with the share:
 * alpha = gain . colour + intercept + (1 - share) * mask. */
INLINED void smooth_row(const Task *t, const Work *w, int row, const int reach)
{
    const int kept = 2 * reach + 1, stride = w->stride;
    const int top = row - reach < 0 ? 0 : row - reach;
    const int bottom = row + reach >= t->half_rows ? t->half_rows - 1 : row + reach;
    const float per_row = 1 / (float)(bottom - top + 1), sharpness = t->sharpness;
    const float *rows[2 * MAX_RADIUS + 1];
    for (int y = 0; y < kept; y++) {
        const int at = row - reach + y;
        rows[y] = w->fits + (at < top || at > bottom ? kept : at % kept) * FITS * stride;
    }
    float *fields = w->fields + row % 2 * FIELDS * stride;
    const float *share = w->share + (Py_ssize_t)row * stride;
    const uint64_t *fitted = w->fitted + row * w->words;
    for (int tile = 0; row >= 2 && tile < w->needed_count[row - 2]; tile++) /* that row was here before */
        for (int k = 0; k < FIELDS; k++)
            memset(fields + k * stride + w->needed[(row - 2) * w->most + tile], 0, sizeof(float) * TILE);
    for (int tile = 0; tile < w->needed_count[row]; tile++) {
        const int x = w->needed[row * w->most + tile];
        const int32_t here = (int32_t)(bits_from(fitted, x) & ALL_NODES);
        if (here == 0)
            continue;
        float part[TILE], steep[TILE];
        EACH_LANE(i, TILE) {
            part[i] = (here & bit_of[i]) ? share[x + i] : 0;
            steep[i] = w->smooth_part[x + i] * per_row * part[i] * sharpness;
        }
        for (int k = 0; k < FITS; k++) {
            Lanes all = {0};
            float total[TILE];
            for (int y = 0; y < kept; y++)
                for (int d = -reach; d <= reach; d++)
                    lanes_add(&all, rows[y] + k * stride + x + d);
            copy_lanes(total, &all, sizeof total);
            const float scale = k == GAIN_U || k == GAIN_V ? t->chroma_scale : 1;
            const float middle = k == INTERCEPT ? 0.5f - 0.5f * sharpness : 0;
            EACH_LANE(i, TILE)
                total[i] = total[i] * steep[i] * scale + middle * part[i];
            copy_lanes(fields + k * stride + x, total, sizeof total);
        }
        copy_lanes(fields + SHARE * stride + x, part, sizeof part);
    }
    for (int k = 0; k < FIELDS; k++) /* the last node stands for what is beyond it */
        fields[k * stride + t->half_cols] = fields[k * stride + t->half_cols - 1];
}

/* The default radius has loops of its own, unrolled. */
WIDE static void smooth(const Task *t, const Work *w, int row)
{
    if (t->smoothing == 1)
        smooth_row(t, w, row, 1);
    else
        smooth_row(t, w, row, t->smoothing);
}

/* What `expand` fills of one row of the full grid, from some column on. */
typedef struct {
    int16_t *fit[FITS];
    uint8_t *amount;
    float *alpha; /* NULL in the last pass */
} Expanded;

/* One row of the full grid, SPAN columns: gains and offset in fixed point, and what alpha is there. */
INLINED void apply(const Task *t, float (*restrict field)[SPAN], const uint8_t *const code[3], const float *mask,
                   const Expanded *to)
{
    const float zero = t->zero, one = t->one, limit = t->limit;
    int16_t y[SPAN], u[SPAN], v[SPAN]; /* bytes in the loop would halve its registers */
    float alpha[SPAN];
    codes_load(code[0], y);
    codes_load(code[1], u);
    codes_load(code[2], v);
    EACH_LANE(i, SPAN) {
        float fit = field[GAIN_Y][i] * (float)(y[i] - 128) + field[GAIN_U][i] * (float)(u[i] - 128) +
                    field[GAIN_V][i] * (float)(v[i] - 128);
        float offset = field[INTERCEPT][i] + (1 - field[SHARE][i]) * drawn_out(t, mask[i]);
        field[INTERCEPT][i] = offset;
        alpha[i] = most(least(offset + fit * (1 / 255.0f), one), zero);
    }
    int16_t fit[FITS][SPAN];
    for (int k = 0; k < FITS; k++) {
        const float unit = k < 3 ? GAIN_ONE : ALPHA_ONE;
        EACH_LANE(i, SPAN)
            fit[k][i] = fixed_number(field[k][i] * unit, limit);
    }
    /* An offset of exactly 0 or 1 would say that the gains do not count. */
    EACH_LANE(i, SPAN) {
        const int16_t gains = fit[GAIN_Y][i] | fit[GAIN_U][i] | fit[GAIN_V][i], offset = fit[INTERCEPT][i];
        fit[INTERCEPT][i] = (int16_t)(offset - ((gains != 0) & ((offset == 0) | (offset == ALPHA_ONE))));
    }
    for (int k = 0; k < FITS; k++)
        copy_lanes(to->fit[k], fit[k], sizeof fit[k]);
    judge(t, alpha, to->amount);
    if (to->alpha)
        copy_lanes(to->alpha, alpha, sizeof alpha);
}

/* From two rows of nodes to two of the full grid, odd rows and columns between two nodes. */
INLINED void spread(const float *upper, const float *lower, Py_ssize_t stride, float (*restrict even)[SPAN],
                    float (*restrict odd)[SPAN])
{
    for (int k = 0; k < FIELDS; k++, upper += stride, lower += stride)
        EACH_LANE(i, TILE) {
            float across = upper[i] + upper[i + 1];
            even[k][2 * i] = upper[i];
            even[k][2 * i + 1] = 0.5f * across;
            odd[k][2 * i] = 0.5f * (upper[i] + lower[i]);
            odd[k][2 * i + 1] = 0.25f * (across + lower[i] + lower[i + 1]);
        }
}

/* The same as `apply` where the grid ends within the columns. */
WIDE static void apply_rim(const Task *t, float (*restrict field)[SPAN], const uint8_t *const code[3], const float *mask,
                           const Expanded *to, int count)
{
    uint8_t rim[3][SPAN] = {{0}}, amount[SPAN];
    float rim_mask[SPAN] = {0};
    int16_t fit[FITS][SPAN];
    for (int k = 0; k < 3; k++)
        memcpy(rim[k], code[k], (size_t)count);
    memcpy(rim_mask, mask, (size_t)count * sizeof(float));
    const uint8_t *const full[3] = {rim[0], rim[1], rim[2]};
    const Expanded full_to = {.fit = {fit[0], fit[1], fit[2], fit[3]}, .amount = amount, .alpha = to->alpha};
    apply(t, field, full, rim_mask, &full_to);
    for (int k = 0; k < FITS; k++)
        memcpy(to->fit[k], fit[k], (size_t)count * sizeof(int16_t));
    memcpy(to->amount, amount, (size_t)count);
}

/* Up to SPAN gains of what is not fitted. */
INLINED void gains_clear(int16_t *gains, int count)
{
    memset(gains, 0, sizeof(int16_t) * (size_t)(count < SPAN ? count : SPAN));
}

/* From one row of the half grid to two of the full one. */
WIDE static void expand(const Task *t, const Work *w, const Plane *mask, const Plane *colours, const Result *r, int row)
{
    const int below = row + 1 < t->half_rows ? row + 1 : row, stride = w->stride;
    const int lines[2] = {2 * row, 2 * row + 1}, line_count = 2 * row + 1 < t->rows ? 2 : 1;
    const float *upper = w->fields + row % 2 * FIELDS * stride, *lower = w->fields + below % 2 * FIELDS * stride;
    const uint64_t *fitted = w->fitted + row * w->words, *under = w->fitted + below * w->words;
    for (int tile = 0; tile < w->needed_count[row]; tile++) {
        const int x = w->needed[row * w->most + tile], start = 2 * x;
        if (!((bits_from(fitted, x) | bits_from(under, x)) & (ALL_NODES << 1 | 1))) {
            for (int fine = 0; fine < line_count; fine++)
                for (int k = 0; k < 3; k++)
                    gains_clear(result_at(t, r, k, lines[fine], start), t->cols - start);
            continue;
        }
        float field[2][FIELDS][SPAN];
        spread(upper + x, lower + x, stride, field[0], field[1]);
        for (int fine = 0; fine < line_count; fine++) {
            const Py_ssize_t at = (Py_ssize_t)lines[fine] * t->cols + start;
            const Py_ssize_t padded_at = (Py_ssize_t)lines[fine] * w->wide + start;
            const uint8_t *const code[3] = {ROW(&colours[0], lines[fine]) + start, ROW(&colours[1], lines[fine]) + start,
                                            ROW(&colours[2], lines[fine]) + start};
            const float *from = (const float *)ROW(mask, lines[fine]) + start;
            const Expanded to = {.fit = {r->gain[0] + at, r->gain[1] + at, r->gain[2] + at, r->offset + at},
                                 .amount = w->amount + padded_at,
                                 .alpha = t->passes > 1 ? w->alpha + padded_at : NULL};
            if (start + SPAN <= t->cols)
                apply(t, field[fine], code, from, &to);
            else
                apply_rim(t, field[fine], code, from, &to, t->cols - start);
        }
    }
}

/* Nodes around which the fit says next to nothing, or next to everything, everywhere: they say just that, and need
 * not be blended. One row of the half grid. */
WIDE static void settle(const Task *t, const Work *w, const Result *r, int row)
{
    const uint8_t *lines[4];
    for (int k = 0; k < 4; k++) {
        int line = 2 * row - 1 + k;
        line = line < 0 ? 0 : line < t->rows ? line : t->rows - 1;
        lines[k] = w->amount + (Py_ssize_t)line * w->wide;
    }
    for (int tile = 0; tile < w->needed_count[row]; tile++) {
        const int start = 2 * w->needed[row * w->most + tile], count = t->cols - start;
        uint8_t across[4][SPAN];
        for (int k = 0; k < 4; k++) {
            const uint8_t *restrict at = lines[k] + start;
            EACH_LANE(i, SPAN)
                across[k][i] = at[i - 1] | at[i] | at[i + 1];
        }
        for (int fine = 0; fine < 2 && 2 * row + fine < t->rows; fine++) {
            uint8_t around[SPAN];
            uint16_t amount[SPAN];
            int16_t unsure[SPAN], sure[SPAN], kept[SPAN] = {0};
            EACH_LANE(i, SPAN)
                around[i] = across[fine][i] | across[fine + 1][i] | across[fine + 2][i];
            codes_load(around, amount);
            EACH_LANE(i, SPAN) {
                unsure[i] = amount[i] == (SOME | NOT_ALL) ? -1 : 0;
                sure[i] = amount[i] == SOME ? ALPHA_ONE : 0;
            }
            int16_t *offset = result_at(t, r, INTERCEPT, 2 * row + fine, start);
            int16_t *at = count < SPAN ? memcpy(kept, offset, (size_t)count * sizeof(int16_t)) : offset;
            EACH_LANE(i, SPAN)
                at[i] = (int16_t)((at[i] & unsure[i]) | sure[i]);
            if (count < SPAN)
                memcpy(offset, kept, (size_t)count * sizeof(int16_t));
        }
    }
}

#endif
