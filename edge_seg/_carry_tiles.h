/* Which tiles are busy: in whose windows the mask differs, and that do not show what they showed before. The costly part
 * of carrying is for these. */
#ifndef EDGE_SEG_CARRY_TILES_H
#define EDGE_SEG_CARRY_TILES_H

#include "_carry_state.h"

#define SURE (1.0f / 16)     /* masks that differ by less are alike */
#define CALM 3               /* code values of luma up to which what did not move is the same */

INLINED float lower(float a, float b) { return a < b ? a : b; }
INLINED float higher(float a, float b) { return a > b ? a : b; }

/* The extremes of each column of the TILE + 2 RADIUS rows that windows of a row of tiles reach. */
WIDE static void columns_scan(const float *restrict a, const float *restrict b, const float *restrict c, const float *restrict d,
                              const float *restrict e, const float *restrict f, const float *restrict g, const float *restrict h,
                              float *restrict low, float *restrict high, int count)
{
    for (int x = 0; x < count; x++) {
        low[x] = lower(lower(lower(a[x], b[x]), lower(c[x], d[x])), lower(lower(e[x], f[x]), lower(g[x], h[x])));
        high[x] = higher(higher(higher(a[x], b[x]), higher(c[x], d[x])), higher(higher(e[x], f[x]), higher(g[x], h[x])));
    }
}

/* The extremes of twice as many columns. */
INLINED void pairs_join(float *low, float *high, int count, const int step)
{
    for (int x = 0; x < count; x++) {
        low[x] = lower(low[x], low[x + step]);
        high[x] = higher(high[x], high[x + step]);
    }
}

/* How much the mask differs in the window of a tile that begins at each column. */
WIDE static void spread_scan(const Carry *c, int ty)
{
    const int width = c->cols + RADIUS + SLACK;
    float *restrict low = c->least, *restrict high = c->most;
    const float *rows[TILE + 2 * RADIUS];
    for (int j = 0; j < TILE + 2 * RADIUS; j++)
        rows[j] = floats_at(&c->out_probability, clamp(ty * TILE - RADIUS + j, 0, c->rows - 1));
    columns_scan(rows[0], rows[1], rows[2], rows[3], rows[4], rows[5], rows[6], rows[7], low + RADIUS, high + RADIUS, c->cols);
    for (int i = 0; i < RADIUS; i++)
        low[i] = low[RADIUS], high[i] = high[RADIUS];
    for (int i = c->cols + RADIUS; i < width; i++)
        low[i] = low[c->cols + RADIUS - 1], high[i] = high[c->cols + RADIUS - 1];
    pairs_join(low, high, width - 1, 1);
    pairs_join(low, high, width - 3, 2);
    pairs_join(low, high, width - 7, 4);
    for (int x = 0; x < c->cols; x++)
        high[x] -= low[x];
}

/* Marks the columns in which a row shows something else than before. */
WIDE static void row_changes(const unsigned char *restrict was, const unsigned char *restrict is, int cols, unsigned char *restrict changed)
{
    for (int x = 0; x < cols; x++) {
        const unsigned char more = is[x] > was[x] ? is[x] : was[x], less = is[x] > was[x] ? was[x] : is[x];
        changed[x] |= (unsigned char)(more - less) > CALM;
    }
}

/* The same of a row of tiles. */
static void changes_mark(const Carry *c, int ty)
{
    memset(c->changed, 0, (size_t)c->tile_cols * TILE);
    for (int y = ty * TILE; y < least((ty + 1) * TILE, c->rows); y++)
        row_changes(bytes_at(&c->previous, y), bytes_at(&c->current, y), c->cols, c->changed);
}

/* Of a word's worth of tiles: which are still, and in which none of TILE columns changed. */
WIDE static void tiles_compare(const unsigned char *restrict kind, const unsigned char *restrict changed, int count, uint64_t *still,
                               uint64_t *same)
{
    unsigned char stays[WORD] = {0}, unchanged[WORD] = {0};
    for (int i = 0; i < count; i++) {
        uint32_t four;
        memcpy(&four, changed + i * TILE, sizeof four);
        stays[i] = kind[i] == STILL;
        unchanged[i] = four == 0;
    }
    bits_pack(stays, WORD, still);
    bits_pack(unchanged, WORD, same);
}

/* Marks the tiles that are still and, as `calm`, those that show what they showed before. Returns whether all do. */
static int calm_mark(const Carry *c, int ty, uint64_t *calm)
{
    uint64_t others = 0;
    changes_mark(c, ty);
    for (int first = 0; first < c->tile_cols; first += WORD) {
        const int count = least(c->tile_cols - first, WORD);
        uint64_t *still = c->still + ty * c->words + first / WORD, same;
        tiles_compare(c->kind + (Py_ssize_t)ty * c->tile_cols + first, c->changed + first * TILE, count, still, &same);
        calm[first / WORD] = *still & same;
        others |= bits_below(count) & ~(*still & same);
    }
    return others == 0;
}

/* Marks the tiles in whose windows the mask differs and which are not calm. */
WIDE static void tile_row_mark(const Carry *c, int ty)
{
    uint64_t *calm = c->found;
    if (calm_mark(c, ty, calm))
        return;
    spread_scan(c, ty);
    for (int first = 0; first < c->tile_cols; first += WORD) {
        const float *differs = c->most + first * TILE;
        const int count = least(c->tile_cols - first, WORD);
        uint64_t busy = 0;
        for (int i = 0; i < count; i++)
            busy |= (uint64_t)(differs[i * TILE] > SURE) << i;
        c->busy[ty * c->words + first / WORD] = busy & ~calm[first / WORD];
    }
}

/* In which columns runs of marked tiles begin that are as long as `columns`. Returns how many. */
INLINED int runs_find(const Carry *c, const uint64_t *tiles, int columns, int *starts)
{
    const int count = bits_runs(tiles, c->tile_cols, columns / TILE, starts);
    for (int n = 0; n < count; n++)
        starts[n] *= TILE;
    return count;
}

#endif
