/* The band: from two rows of the grid, at the picture's columns, to alpha at every pixel of a pair of rows, and to the
 * mixture of two pictures. */
#ifndef EDGE_SEG_BAND_H
#define EDGE_SEG_BAND_H

#include "_widen.h"

/* Where the rows of a pair lie between the grid's rows: both of luma, and chroma's. */
typedef struct {
    int cell[3], slots[3][2];
    int16_t fraction[3];
} Place;

/* How many of a pair's two rows of luma are nearer to the grid row below them than to that above: none, the lower one
 * or both. But APART if not the same two grid rows are around both. */
enum { APART = -1, NONE, LOWER, BOTH };

/* gain * (code - 128) / 255 / 2, with `centred` from `centre`: halves, so that no sum of them leaves 16 bits. */
INLINED int16_t term(int16_t gain, int16_t centred) { return (int16_t)((gain * centred) >> 16); }
INLINED int16_t centre(uint16_t code) { return (int16_t)((int16_t)((uint16_t)(code << 8) ^ 0x8000) >> 1); }

/* above * alpha + below * (256 - alpha) + 128 fits 16 bits without a sign; its high byte is the mixture. */
INLINED uint16_t mix(uint16_t alpha, uint16_t above, uint16_t below)
{
    return (uint16_t)((uint16_t)((uint16_t)(below << 8) + 128) + (uint16_t)(alpha * (uint16_t)(above - below)));
}

/* Of two pixels in one element: the even one or the odd one; and back, from a mixture. */
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define IN_HIGH_BYTE(odd) (!(odd))
#else
#define IN_HIGH_BYTE(odd) (odd)
#endif
INLINED uint16_t code_of(uint16_t two, int odd) { return (uint16_t)(IN_HIGH_BYTE(odd) ? two >> 8 : two & 255); }
INLINED uint16_t in_place(uint16_t mixture, int odd)
{
    return (uint16_t)(IN_HIGH_BYTE(odd) ? mixture & 0xff00 : mixture >> 8);
}

/* What a grid row says about alpha, but for luma: the two rows of a pair have their chroma in common. */
INLINED int16_t combined(const Wide *wide, int odd, int x, int16_t u, int16_t v)
{
    return (int16_t)((*wide)[OFFSET + odd][x] + term((*wide)[GAIN_U + odd][x], u) + term((*wide)[GAIN_V + odd][x], v));
}

/* The grid rows around both rows of luma and that of chroma, and which of the two is the nearer one. */
typedef struct {
    const Wide *first[3], *second[3], *nearer[3];
    int16_t fraction[3];
} Rows;

INLINED uint16_t colour_at(const Rows *rows, int block, int k, int x)
{
    const int16_t step = (int16_t)(rows->second[2][block][COLOUR + k][x] - rows->first[2][block][COLOUR + k][x]);
    return (uint16_t)((uint16_t)on_the_way(rows->nearer[2][block][COLOUR + k][x], step, rows->fraction[2]) / COLOUR_ONE);
}

/* The planes of two blocks, or of a copy of them. */
typedef struct { uint8_t *y[2], *u, *v; } Block;

/* Alpha, 0 to 256, in row r of a pair. */
INLINED uint16_t alpha_at(const Rows *rows, const int r, const int nearer, int block, int odd, int x, int16_t u, int16_t v,
                          uint16_t two, const int fitted)
{
    const int around = nearer == APART ? r : 0, is_below = nearer + r >= BOTH;
    const Wide *first = &rows->first[around][block], *second = &rows->second[around][block];
    const Wide *near = nearer == APART ? &rows->nearer[r][block] : is_below ? second : first;
    const int16_t fraction = rows->fraction[r];
    int16_t value;
    if (fitted) {
        const int16_t step = (int16_t)((*second)[GAIN_Y + odd][x] - (*first)[GAIN_Y + odd][x]);
        const int16_t gain = on_the_way((*near)[GAIN_Y + odd][x], step, fraction);
        const int16_t above = combined(first, odd, x, u, v), below = combined(second, odd, x, u, v);
        value = on_the_way(combined(near, odd, x, u, v), (int16_t)(below - above), fraction);
        value = (int16_t)((int16_t)(value + term(gain, centre(code_of(two, odd)))) >> 1);
    } else {
        const int16_t step = (int16_t)((*second)[OFFSET + odd][x] - (*first)[OFFSET + odd][x]);
        value = (int16_t)(on_the_way((*near)[OFFSET + odd][x], step, fraction) >> 2);
    }
    value = value < 0 ? 0 : value;
    return (uint16_t)(value > 256 ? 256 : value);
}

/* A mixture whose person is first drawn towards the colour nearby. */
INLINED uint16_t mix_all(uint16_t alpha, uint16_t code, uint16_t near, uint16_t behind, const int coloured)
{
    return mix(alpha, coloured ? mix(alpha, code, near) >> 8 : code, behind);
}

INLINED uint16_t two_mixed(uint16_t even_alpha, uint16_t odd_alpha, uint16_t front, uint16_t back, uint16_t near,
                           const int coloured)
{
    uint16_t even = mix_all(even_alpha, code_of(front, 0), near, code_of(back, 0), coloured);
    uint16_t odd = mix_all(odd_alpha, code_of(front, 1), near, code_of(back, 1), coloured);
    return (uint16_t)(in_place(even, 0) | in_place(odd, 1));
}

/* Two blocks, two rows of luma and one of chroma. Even and odd columns of luma are apart: chroma's samples, and its
 * alpha, have the same place in a register as the pixels they belong to, and bytes become elements of 16 bits without
 * a shuffle. All that happens is in one loop, so that it happens in registers. */
INLINED void blend_block(const Rows *rows, int block, const Block *front, const Block *back, const Block *out,
                         const int fitted, const int coloured, const int nearer)
{
    uint16_t fore[2][BLOCK], behind[2][BLOCK], mixed[2][BLOCK];
    uint16_t u[BLOCK], v[BLOCK], behind_u[BLOCK], behind_v[BLOCK], mixed_u[BLOCK], mixed_v[BLOCK];
    for (int r = 0; r < 2; r++) {
        copy_lanes(fore[r], front->y[r], sizeof fore[r]);
        copy_lanes(behind[r], back->y[r], sizeof behind[r]);
    }
    codes_load(front->u, u);
    codes_load(front->v, v);
    codes_load(back->u, behind_u);
    codes_load(back->v, behind_v);
    EACH_LANE(x, BLOCK) {
        const int16_t centred_u = centre(u[x]), centred_v = centre(v[x]);
        const uint16_t near = coloured ? colour_at(rows, block, 0, x) : 0;
        /* Written out, for GCC does not vectorise loops around loops: even and odd columns of two rows. */
        const uint16_t a = alpha_at(rows, 0, nearer, block, 0, x, centred_u, centred_v, fore[0][x], fitted);
        const uint16_t b = alpha_at(rows, 0, nearer, block, 1, x, centred_u, centred_v, fore[0][x], fitted);
        const uint16_t c = alpha_at(rows, 1, nearer, block, 0, x, centred_u, centred_v, fore[1][x], fitted);
        const uint16_t d = alpha_at(rows, 1, nearer, block, 1, x, centred_u, centred_v, fore[1][x], fitted);
        mixed[0][x] = two_mixed(a, b, fore[0][x], behind[0][x], near, coloured);
        mixed[1][x] = two_mixed(c, d, fore[1][x], behind[1][x], near, coloured);
        const uint16_t alpha = (uint16_t)((uint16_t)(a + b + c + d + 2) >> 2);
        const uint16_t near_u = coloured ? colour_at(rows, block, 1, x) : 0;
        const uint16_t near_v = coloured ? colour_at(rows, block, 2, x) : 0;
        mixed_u[x] = mix_all(alpha, u[x], near_u, behind_u[x], coloured) >> 8;
        mixed_v[x] = mix_all(alpha, v[x], near_v, behind_v[x], coloured) >> 8;
    }
    for (int r = 0; r < 2; r++)
        copy_lanes(out->y[r], mixed[r], sizeof mixed[r]);
    codes_store(mixed_u, out->u);
    codes_store(mixed_v, out->v);
}

/* A pair of rows. Blocks are those at its start. */
typedef struct {
    Rows rows;
    Block front, back, out;
    int count; /* 1 if the picture ends within the pair */
    int nearer;
} Lines;

static Block lines_of(const Plane planes[3], int pair, int count)
{
    uint8_t *y = ROW(&planes[0], 2 * pair);
    return (Block){{y, count > 1 ? y + planes[0].stride : y}, ROW(&planes[1], pair), ROW(&planes[2], pair)};
}

INLINED Block block_at(const Block *start, Py_ssize_t block)
{
    const Py_ssize_t x = block * BLOCK, half = block * HALF;
    return (Block){{start->y[0] + x, start->y[1] + x}, start->u + half, start->v + half};
}

static void lines_init(Lines *lines, const Work *w, const Place *place, int pair, int count, const Plane front[3],
                       const Plane back[3], const Plane out[3])
{
    *lines = (Lines){.front = lines_of(front, pair, count), .back = lines_of(back, pair, count),
                     .out = lines_of(out, pair, count), .count = count};
    for (int r = 0; r < 3; r++) {
        const Wide *around[2] = {w->wide[place->slots[r][0]], w->wide[place->slots[r][1]]};
        lines->rows.first[r] = around[0];
        lines->rows.second[r] = around[1];
        lines->rows.nearer[r] = around[place->fraction[r] < 0];
        lines->rows.fraction[r] = place->fraction[r];
    }
    const int same = place->cell[0] == place->cell[1];
    lines->nearer = same ? (place->fraction[0] < 0) + (place->fraction[1] < 0) : APART;
}

typedef struct { uint8_t y[2][2 * BLOCK], u[BLOCK], v[BLOCK]; } BlockCopy;

static inline Block block_of(BlockCopy *copy) { return (Block){{copy->y[0], copy->y[1]}, copy->u, copy->v}; }

/* Copies `valid` columns. */
static void block_copy(const Block *from, const Block *to, int count, int valid)
{
    for (int r = 0; r < count; r++)
        memcpy(to->y[r], from->y[r], (size_t)valid);
    memcpy(to->u, from->u, (size_t)((valid + 1) / 2));
    memcpy(to->v, from->v, (size_t)((valid + 1) / 2));
}

INLINED void blend_span(const Lines *lines, const Span *span, int width, const int fitted, const int coloured,
                        const int nearer)
{
    const Rows rows = lines->rows;
    const Block front = lines->front, back = lines->back, out = lines->out;
    const int count = lines->count, stop = span->stop;
    /* Of an odd number of blocks, the last is blended with the one behind them, which that does not change. */
    for (int block = span->start; block < stop; block += 2) {
        const Block f = block_at(&front, block), b = block_at(&back, block), o = block_at(&out, block);
        const int valid = width - block * BLOCK;
        if (valid >= 2 * BLOCK) {
            blend_block(&rows, block, &f, &b, &o, fitted, coloured, nearer);
            continue;
        }
        /* Cut off by the picture's edge. A column more than there is makes an odd number even: what alpha is there
         * counts for chroma. */
        BlockCopy copies[3] = {{{{0}}, {0}, {0}}, {{{0}}, {0}, {0}}, {{{0}}, {0}, {0}}};
        Block fore = block_of(&copies[0]), behind = block_of(&copies[1]), mixed = block_of(&copies[2]);
        block_copy(&f, &fore, count, valid);
        block_copy(&b, &behind, count, valid);
        for (int r = 0; r < 2; r++)
            fore.y[r][valid] = fore.y[r][valid - 1];
        if (count == 1)
            fore.y[1] = fore.y[0], behind.y[1] = behind.y[0], mixed.y[1] = mixed.y[0];
        blend_block(&rows, block, &fore, &behind, &mixed, fitted, coloured, nearer);
        block_copy(&mixed, &o, count, valid);
    }
}

WIDE static void blend_band(const Lines *lines, const Span *span, int width, int fitted, int coloured)
{
    if (fitted && coloured && lines->nearer == NONE)
        blend_span(lines, span, width, 1, 1, NONE);
    else if (fitted && coloured && lines->nearer == LOWER)
        blend_span(lines, span, width, 1, 1, LOWER);
    else if (fitted && coloured && lines->nearer == BOTH)
        blend_span(lines, span, width, 1, 1, BOTH);
    else if (fitted && coloured)
        blend_span(lines, span, width, 1, 1, APART);
    else if (fitted)
        blend_span(lines, span, width, 1, 0, APART);
    else if (coloured)
        blend_span(lines, span, width, 0, 1, APART);
    else
        blend_span(lines, span, width, 0, 0, APART);
}

#endif
