/* Carrying a mask along block flow: edge_seg/carry_reference.py says what is computed.
 *
 * Nearly all of a mask is surely person or surely background. So the grid is cut into tiles; the costly part (what
 * colours the sources have, windows of alike colour) is for tiles whose windows hold a mask that differs, and that
 * do not show what they showed before. All is copied by rows first, and fetched where it moved.
 *
 * One row of tiles after the other goes through all of it: the mask is fetched, and one row of tiles later each: which tiles
 * are worth it, what windows see, the result.
 */
#include "_bits.h"
#include "_fusion.h"
#include "_motion.h"

#define RADIUS 2             /* of the window */
#define SLACK (TILE + 2 * RADIUS)
#define WINDOW_ROWS (3 * TILE)  /* that are kept: those of the result, and what their windows reach */
#define SURE (1.0f / 16)     /* masks that differ by less are alike */
#define CALM 3               /* code values of luma up to which what did not move is the same */
#define UNSEEN 0.05f         /* variance for each squared pixel that a source lies outside the picture */

/* The diamond around an element: its 13 elements give what the 25 of the square gave. */
#define NEAR 1.0f
#define TIP 0.5f
#define DIAMOND(TAP) \
    TAP(-2, 0, TIP) \
    TAP(-1, -1, NEAR) TAP(-1, 0, NEAR) TAP(-1, 1, NEAR) \
    TAP(0, -2, TIP) TAP(0, -1, NEAR) TAP(0, 0, NEAR) TAP(0, 1, NEAR) TAP(0, 2, TIP) \
    TAP(1, -1, NEAR) TAP(1, 0, NEAR) TAP(1, 1, NEAR) \
    TAP(2, 0, TIP)

enum { DIFFERENCE = PLANES, PER_ROW }; /* beside what windows see: how far the luma is from that of the element */

MEAN_OF_ALIKE(mean_near, DIAMOND, RADIUS)

typedef struct {
    Plane previous, current, residual, probability, variance, out_probability, out_variance;
    Plane previous_u, previous_v, current_u, current_v;
    Motion motion;
    Scales scales;
    float exact, drift, misfit;
    int rows, cols, tile_rows, tile_cols;
    int words;              /* from one row of bits to the next, one a tile */
    /* scratch */
    unsigned char *kind;    /* of each tile: how it is fetched */
    unsigned char *pair;    /* of each tile: whether the one to its right can be fetched with it */
    int16_t *across, *down; /* of a row of tiles: vectors, and one more */
    uint64_t *still;        /* which tiles did not move */
    uint64_t *busy;         /* in whose windows the mask differs, and which are not calm */
    uint64_t *column, *found;   /* for the moment: a row each */
    int *middle;            /* of each tile's column: the block there */
    int *starts, *spans;    /* of strips and spans of a row */
    int *lanes;             /* of each strip: how many are of busy tiles */
    unsigned char *changed; /* of each column of a row of tiles: whether it shows something else than before */
    float *least, *most;    /* in the windows of a row of tiles, with a rim of RADIUS */
    float *growth;          /* of the variance in each column of a row of tiles */
    float *own[VALUES];     /* colours of a row of the picture */
    float *alike;           /* of strips of a row */
    /* What windows of busy tiles see (_fusion.h), with a rim of RADIUS: colours from the frame before, the mask as it was
     * fetched, and how far that luma is from the element's own. WINDOW_ROWS, modulo their number. */
    float *window;
    Py_ssize_t plane;
} Carry;

static inline float *window_at(const Carry *c, int y) { return c->window + clamp(y, 0, c->rows - 1) % WINDOW_ROWS * PER_ROW * c->plane; }

static void mask_fetch_slowly(const Carry *c, int y0, int x0)
{
    for (int y = y0; y < least(y0 + TILE, c->rows); y++)
        for (int x = x0; x < least(x0 + TILE, c->cols); x++)
            floats_at(&c->out_probability, y)[x] = float_at(&c->probability, place_of(&c->motion, y, x, vector_at(&c->motion, y, x)));
}

/* How the tiles of a row are fetched, and the vectors of the first block of each. */
INLINED void kinds_fill(const Carry *c, int ty, int16_t *restrict across, int16_t *restrict down, unsigned char *restrict kind,
                        unsigned char *restrict pair)
{
    const Motion motion = c->motion; /* a copy: kinds are bytes, which could be anything's */
    const int y0 = ty * TILE, tile_cols = c->tile_cols;
    const int16_t *steps = steps_at(&motion, y0, 0);
    if (motion.block == TILE) {
        for (int tx = 0; tx < tile_cols; tx++)
            across[tx] = steps[2 * tx], down[tx] = steps[2 * tx + 1];
    } else {
        for (int tx = 0; tx < tile_cols; tx++)
            across[tx] = steps[2 * motion.block_of[tx * TILE]], down[tx] = steps[2 * motion.block_of[tx * TILE] + 1];
    }
    across[tile_cols] = down[tile_cols] = 0;
    const int whole = motion.block % TILE == 0 && y0 + TILE <= motion.rows ? motion.cols / TILE : 0;
    if (whole > 0)
        kinds_find(across, down, y0, motion.rows, motion.cols, whole, kind, pair);
    for (int tx = whole; tx < tile_cols; tx++) {
        kind[tx] = (unsigned char)kind_of(&motion, y0, tx * TILE, (Vector){across[tx], down[tx]});
        pair[tx] = 0;
    }
}

/* The mask of a row of tiles: all of it is copied, then what moved is fetched. */
WIDE static void tile_row_fetch(const Carry *c, int ty)
{
    const Py_ssize_t stride = c->probability.stride / (Py_ssize_t)sizeof(float), out_stride = c->out_probability.stride / (Py_ssize_t)sizeof(float);
    const int y0 = ty * TILE, tile_cols = c->tile_cols;
    for (int y = y0; y < least(y0 + TILE, c->rows); y++)
        memcpy(floats_at(&c->out_probability, y), floats_at(&c->probability, y), sizeof(float) * (size_t)c->cols);
    const unsigned char *kind = c->kind + ty * tile_cols, *pair = c->pair + ty * tile_cols;
    const int16_t *across = c->across, *down = c->down;
    kinds_fill(c, ty, c->across, c->down, c->kind + ty * tile_cols, c->pair + ty * tile_cols);
    for (int tx = 0; tx < tile_cols; tx++) {
        if (kind[tx] == STILL)
            continue;
        const int x0 = tx * TILE;
        const Origin from = origin_of(y0, x0, (Vector){across[tx], down[tx]});
        float *out = floats_at(&c->out_probability, y0) + x0;
        if (kind[tx] == RIM) {
            float gathered[SIDE * WIDTH];
            floats_gather(&c->motion, &c->probability, &from, gathered);
            fetch_floats(gathered, WIDTH, from.fx, from.fy, out, out_stride);
        } else if (kind[tx] == SCATTERED) {
            mask_fetch_slowly(c, y0, x0);
        } else if (pair[tx]) {
            fetch_pair(floats_at(&c->probability, from.top) + from.left, stride, from.fx, from.fy, out, out_stride);
            tx++;
        } else {
            fetch_floats(floats_at(&c->probability, from.top) + from.left, stride, from.fx, from.fy, out, out_stride);
        }
    }
}

/* --- which tiles are worth it --------------------------------------------------------------------------------------- */

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

/* --- what their windows see -------------------------------------------------------------------------------------------- */

/* In which columns runs of marked tiles begin that are as long as `columns`. Returns how many. */
INLINED int runs_find(const Carry *c, const uint64_t *tiles, int columns, int *starts)
{
    const int count = bits_runs(tiles, c->tile_cols, columns / TILE, starts);
    for (int n = 0; n < count; n++)
        starts[n] *= TILE;
    return count;
}

/* The colours of spans of a row of tiles, as if they had not moved. */
INLINED void still_fetch(const Carry *c, int ty, int count)
{
    for (int y = ty * TILE; y < least((ty + 1) * TILE, c->rows); y++) {
        float *row = window_at(c, y);
        spans_unpack(bytes_at(&c->previous, y), c->starts, count, c->cols, row + LUMA * c->plane);
        if (c->scales.chroma > 0) {
            spans_unpack(bytes_at(&c->previous_u, y), c->starts, count, c->cols, row + CHROMA_U * c->plane);
            spans_unpack(bytes_at(&c->previous_v, y), c->starts, count, c->cols, row + CHROMA_V * c->plane);
        }
    }
}

static void colours_fetch_slowly(const Carry *c, int y0, int x0)
{
    for (int y = y0; y < least(y0 + TILE, c->rows); y++)
        for (int x = x0; x < least(x0 + TILE, c->cols); x++) {
            Place at = place_of(&c->motion, y, x, vector_at(&c->motion, y, x));
            float *out = window_at(c, y) + x;
            out[LUMA * c->plane] = byte_at(&c->previous, at);
            if (c->scales.chroma > 0) {
                out[CHROMA_U * c->plane] = byte_at(&c->previous_u, at);
                out[CHROMA_V * c->plane] = byte_at(&c->previous_v, at);
            }
        }
}

/* A plane of colours of a tile. Near the picture's end eight columns cannot be read. */
#if HAS_LANES
INLINED void plane_fetch(const Carry *c, const Plane *plane, const Origin *from, int kind, float *out)
{
    if (kind != RIM && from->left + 2 * TILE < c->cols) {
        fetch_bytes(bytes_at(plane, from->top) + from->left, plane->stride, from->fx, from->fy, out, PER_ROW * c->plane);
    } else {
        unsigned char gathered[SIDE * WIDTH] = {0};
        bytes_gather(&c->motion, plane, from, gathered);
        fetch_bytes(gathered, WIDTH, from->fx, from->fy, out, PER_ROW * c->plane);
    }
}
#endif

/* The colours of a tile with one vector, if that can be done at once: then 1. `out`: where the window has it. */
INLINED int tile_fetch(const Carry *c, int y0, int x0, int kind, float *out)
{
#if HAS_LANES
    if (kind == SCATTERED)
        return 0;
    const Origin from = tile_origin(&c->motion, y0, x0);
    const Plane *u = &c->previous_u, *v = &c->previous_v;
    float *out_u = out + CHROMA_U * c->plane, *out_v = out + CHROMA_V * c->plane;
    plane_fetch(c, &c->previous, &from, kind, out + LUMA * c->plane);
    if (c->scales.chroma > 0 && kind != RIM && u->stride == v->stride) {
        fetch_two(bytes_at(u, from.top) + from.left, bytes_at(v, from.top) + from.left, 0, u->stride, from.fx, from.fy, out_u, out_v,
                  PER_ROW * c->plane);
    } else if (c->scales.chroma > 0) {
        plane_fetch(c, u, &from, kind, out_u);
        plane_fetch(c, v, &from, kind, out_v);
    }
    return 1;
#else
    (void)c, (void)y0, (void)x0, (void)kind, (void)out;
    return 0;
#endif
}

/* The same of two tiles. */
INLINED int pair_fetch(const Carry *c, int y0, int x0, float *out)
{
#if HAS_LANES
    const Plane *const planes[VALUES] = {&c->previous, &c->previous_u, &c->previous_v};
    const Origin from = tile_origin(&c->motion, y0, x0);
    const Py_ssize_t plane = c->plane;
    const int count = c->scales.chroma > 0 ? VALUES : 1;
    for (int i = 0; i < count; i++, out += plane) {
        const unsigned char *at = bytes_at(planes[i], from.top) + from.left;
        fetch_two(at, at + TILE, 1, planes[i]->stride, from.fx, from.fy, out, out + TILE, PER_ROW * plane);
    }
    return 1;
#else
    (void)c, (void)y0, (void)x0, (void)out;
    return 0;
#endif
}

/* How far the luma is from the element's own, in spans of a row. */
INLINED void spans_compare(const unsigned char *restrict own, const float *restrict luma, const int *restrict starts, int count, int cols,
                           float *restrict difference)
{
    if (cols < SPAN)
        for (int x = 0; x < cols; x++)
            difference[x] = fabsf((float)own[x] - luma[x]);
    for (int n = 0; cols >= SPAN && n < count; n++) {
        const int x = least(starts[n], cols - SPAN);
        EACH_LANE(i, SPAN)
            difference[x + i] = fabsf((float)own[x + i] - luma[x + i]);
    }
}

/* What the windows of busy tiles reach in a row of tiles. */
WIDE static void tile_row_unpack(const Carry *c, int ty)
{
    const int top = ty > 0 ? ty - 1 : 0, bottom = least(ty + 1, c->tile_rows - 1);
    const uint64_t *still = c->still + ty * c->words;
    uint64_t *wanted = c->found, *part = c->column;
    bits_near(c->busy + top * c->words, bottom - top + 1, c->words, 1, c->column, wanted);
    for (int i = 0; i < c->words - 2; i++)
        part[i] = wanted[i] & still[i];
    still_fetch(c, ty, runs_find(c, part, SPAN, c->starts)); /* over what moved, too: that is fetched later */
    for (int i = 0; i < c->words - 2; i++)
        part[i] = wanted[i] & ~still[i];
    const int moved = bits_runs(part, c->tile_cols, 1, c->starts);
    const unsigned char *kind = c->kind + ty * c->tile_cols, *pair = c->pair + ty * c->tile_cols;
    float *window = window_at(c, ty * TILE);
    for (int n = 0; n < moved; n++) {
        const int tx = c->starts[n], x0 = tx * TILE;
        if (pair[tx] && n + 1 < moved && c->starts[n + 1] == tx + 1 && pair_fetch(c, ty * TILE, x0, window + x0))
            n++;
        else if (!tile_fetch(c, ty * TILE, x0, kind[tx], window + x0))
            colours_fetch_slowly(c, ty * TILE, x0);
    }
    const int count = runs_find(c, wanted, SPAN, c->starts), at_rim = (wanted[0] | bits_from(wanted, c->tile_cols - 1)) & 1;
    for (int y = ty * TILE; count > 0 && y < least((ty + 1) * TILE, c->rows); y++) {
        float *row = window_at(c, y);
        spans_compare(bytes_at(&c->current, y), row + LUMA * c->plane, c->starts, count, c->cols, row + DIFFERENCE * c->plane);
        spans_copy(floats_at(&c->out_probability, y), c->starts, count, c->cols, row + VALUES * c->plane);
        for (int i = 0; at_rim && i < PER_ROW; i++)
            row_rim(row + i * c->plane, c->cols, RADIUS);
    }
}

/* --- the result ------------------------------------------------------------------------------------------------------ */

/* Strips of a row; of each the first `lanes` are of busy tiles, the others keep what they have. */
WIDE static void row_blend(const float *const rows[3], Py_ssize_t plane, const int *restrict starts, const int *restrict lanes, int count,
                           int cols, const float *restrict alike, float exact, float drift, float misfit, float *p, float *q)
{
    static const float ninth = 1.0f / 9;
    const float *up = rows[0] + DIFFERENCE * plane, *here = rows[1] + DIFFERENCE * plane, *down = rows[2] + DIFFERENCE * plane;
    const float *m = rows[1] + VALUES * plane;
    exact *= exact;
    for (int n = 0; n < count; n++) {
        const int x = starts[n], busy = lanes[n];
        float mask[STRIP], variance[STRIP];
        strip_copy(mask, p + x, cols - x);
        strip_copy(variance, q + x, cols - x);
        EACH_LANE(i, STRIP) {
            const int k = x + i;
            float d = here[k] * here[k], share = d / (d + exact);
            float r = ((up[k - 1] + up[k] + up[k + 1]) + (here[k - 1] + here[k] + here[k + 1]) + (down[k - 1] + down[k] + down[k + 1])) * ninth;
            float carried = m[k] + share * (alike[n * STRIP + i] - m[k]), grown = variance[i] + (drift + misfit * r * r);
            mask[i] = i < busy ? carried : mask[i];
            variance[i] = i < busy ? grown : variance[i];
        }
        strip_copy(p + x, mask, cols - x);
        strip_copy(q + x, variance, cols - x);
    }
}

/* The colours of spans of a row of the picture. */
WIDE static void row_unpack(const Carry *c, int y, int count)
{
    const Plane *const planes[VALUES] = {&c->current, &c->current_u, &c->current_v};
    for (int i = 0; i < (c->scales.chroma > 0 ? VALUES : 1); i++)
        spans_unpack(bytes_at(planes[i], y), c->spans, count, c->cols, c->own[i]);
}

/* The busy tiles of a row of tiles. */
static void tile_row_carry(const Carry *c, int ty)
{
    const uint64_t *busy = c->busy + ty * c->words;
    const int y0 = ty * TILE, spans = runs_find(c, busy, SPAN, c->spans), strips = runs_find(c, busy, STRIP, c->starts);
    if (strips == 0)
        return;
    for (int n = 0; n < strips; n++)
        c->lanes[n] = bits_from(busy, c->starts[n] / TILE) & 2 ? STRIP : TILE;
    const float *rows[TILE + 2 * RADIUS];
    for (int j = 0; j < TILE + 2 * RADIUS; j++)
        rows[j] = window_at(c, y0 - RADIUS + j);
    for (int y = y0; y < least(y0 + TILE, c->rows); y++) {
        const float *const *reached = rows + y - y0;
        row_unpack(c, y, spans);
        mean_near(c->own[LUMA], c->own[CHROMA_U], c->own[CHROMA_V], reached, c->starts, strips, c->plane, c->scales, c->alike);
        row_blend(reached + 1, c->plane, c->starts, c->lanes, strips, c->cols, c->alike, c->exact, c->drift, c->misfit,
                  floats_at(&c->out_probability, y), floats_at(&c->out_variance, y));
    }
}

/* How much the variance grows in each column of a row of tiles, by the block in the middle of each; in busy ones that comes
 * with the rest. */
INLINED void growth_fill(const Carry *c, int ty, float *restrict growth)
{
    const float *residual = floats_at(&c->residual, c->motion.block_of[least(ty * TILE + TILE / 2, c->rows - 1)]);
    const int *middle = c->middle, *starts = c->starts, tile_cols = c->tile_cols;
    const float drift = c->drift, misfit = c->misfit;
    for (int tx = 0; tx < tile_cols; tx++) {
        const float r = residual[middle[tx]], grown = drift + misfit * r * r;
        for (int i = 0; i < TILE; i++)
            growth[tx * TILE + i] = grown;
    }
    const int busy = bits_runs(c->busy + ty * c->words, tile_cols, 1, c->starts);
    for (int n = 0; n < busy; n++)
        for (int i = 0; i < TILE; i++)
            growth[starts[n] * TILE + i] = 0;
}

/* A row of elements that did not move. */
WIDE static void row_grow(const float *restrict from, const float *restrict growth, int cols, float *restrict out)
{
    for (int x = 0; x < cols; x++)
        out[x] = from[x] + growth[x];
}

/* The variance of elements that moved and are inside: `columns` of a row of tiles. */
INLINED void variance_move(const float *from, Py_ssize_t stride, const float *growth, const int columns, float *out, Py_ssize_t out_stride)
{
    for (int j = 0; j < TILE; j++)
        EACH_LANE(i, columns)
            out[j * out_stride + i] = from[j * stride + i] + growth[i];
}

static void variance_fetch_rim(const Carry *c, int y0, int x0, Vector v)
{
    int xs[TILE], ys[TILE];
    float right[TILE], down[TILE];
    axis_fill(x0, v.x, c->cols, xs, right);
    axis_fill(y0, v.y, c->rows, ys, down);
    for (int j = 0; j < TILE; j++) {
        const float *from = floats_at(&c->variance, ys[j]);
        float *q = floats_at(&c->out_variance, y0 + j) + x0;
        for (int i = 0; i < TILE; i++)
            q[i] = from[xs[i]] + UNSEEN * (right[i] + down[j]) * (right[i] + down[j]) + c->growth[x0];
    }
}

static void variance_fetch_slowly(const Carry *c, int y0, int x0)
{
    for (int y = y0; y < least(y0 + TILE, c->rows); y++)
        for (int x = x0; x < least(x0 + TILE, c->cols); x++) {
            const Vector own = vector_at(&c->motion, y, x);
            const float outside = place_of(&c->motion, y, x, own).outside;
            const float *from = floats_at(&c->variance, clamp(y + pixels_of(own.y + Q / 2), 0, c->rows - 1));
            floats_at(&c->out_variance, y)[x] = from[clamp(x + pixels_of(own.x + Q / 2), 0, c->cols - 1)] + UNSEEN * outside * outside + c->growth[x0];
        }
}

/* The variances of a row of tiles: all are taken as if they had not moved, then what moved is fetched, from the nearest
 * elements, for they change little from one to the next. */
WIDE static void variances_fetch(const Carry *c, int ty)
{
    const Py_ssize_t stride = c->variance.stride / (Py_ssize_t)sizeof(float), out_stride = c->out_variance.stride / (Py_ssize_t)sizeof(float);
    const int y0 = ty * TILE, tile_cols = c->tile_cols;
    const unsigned char *kind = c->kind + ty * tile_cols, *pair = c->pair + ty * tile_cols;
    const float *variance = floats_at(&c->variance, y0);
    float *out = floats_at(&c->out_variance, y0), *growth = c->growth;
    growth_fill(c, ty, growth);
    for (int y = y0; y < least(y0 + TILE, c->rows); y++)
        row_grow(floats_at(&c->variance, y), growth, c->cols, floats_at(&c->out_variance, y));
    const Motion motion = c->motion;
    for (int tx = 0; tx < tile_cols; tx++) {
        const int x0 = tx * TILE;
        if (kind[tx] <= CLOSE)
            continue;
        if (kind[tx] == SCATTERED) {
            variance_fetch_slowly(c, y0, x0);
            continue;
        }
        const Vector v = vector_at(&motion, y0, x0);
        if (kind[tx] == RIM) {
            variance_fetch_rim(c, y0, x0, v);
            continue;
        }
        const float *nearest = variance + pixels_of(v.y + Q / 2) * stride + x0 + pixels_of(v.x + Q / 2);
        if (pair[tx]) {
            variance_move(nearest, stride, growth + x0, 2 * TILE, out + x0, out_stride);
            tx++;
        } else {
            variance_move(nearest, stride, growth + x0, TILE, out + x0, out_stride);
        }
    }
}

static void tile_row_finish(const Carry *c, int ty)
{
    variances_fetch(c, ty);
    tile_row_carry(c, ty);
}

/* Each step needs what the one before it finds a row of tiles further down. */
static void rows_run(const Carry *c)
{
    void (*const steps[])(const Carry *, int) = {tile_row_fetch, tile_row_mark, tile_row_unpack, tile_row_finish};
    const int count = sizeof steps / sizeof steps[0];
    for (int ty = 0; ty < c->tile_rows + count - 1; ty++)
        for (int i = 0; i < count; i++)
            if (ty - i >= 0 && ty - i < c->tile_rows)
                steps[i](c, ty - i);
}

static int carry_run(Carry *c)
{
    const int longer = c->rows > c->cols ? c->rows : c->cols;
    c->tile_rows = (c->rows + TILE - 1) / TILE;
    c->tile_cols = (c->cols + TILE - 1) / TILE;
    c->words = bits_words(c->tile_cols);
    c->plane = plane_of(c->cols, RADIUS);
    const size_t tiles = (size_t)c->tile_rows * (size_t)c->tile_cols, line = (size_t)c->cols + 2 * SLACK;
    const size_t window = WINDOW_ROWS * PER_ROW * (size_t)c->plane, words = (size_t)c->words, rows_of_bits = 2 * (size_t)c->tile_rows + 2;
    float *floats = malloc(sizeof(float) * (window + (4 + VALUES) * line));
    unsigned char *bytes = malloc(2 * tiles + (size_t)c->tile_cols * TILE);
    int16_t *vectors = malloc(sizeof(int16_t) * 2 * ((size_t)c->tile_cols + 1));
    uint64_t *bits = calloc(rows_of_bits * words, sizeof(uint64_t));
    int *indices = malloc(sizeof(int) * ((size_t)longer + 4 * (size_t)c->tile_cols));
    const int done = floats && bytes && vectors && bits && indices;
    if (done) {
        c->motion.block_of = indices;
        for (int i = 0; i < longer; i++)
            c->motion.block_of[i] = i / c->motion.block;
        c->starts = indices + longer;
        c->spans = c->starts + c->tile_cols;
        c->lanes = c->spans + c->tile_cols;
        c->middle = c->lanes + c->tile_cols;
        for (int tx = 0; tx < c->tile_cols; tx++)
            c->middle[tx] = c->motion.block_of[least(tx * TILE + TILE / 2, c->cols - 1)];
        c->window = floats + RADIUS;
        c->least = floats + window;
        c->most = c->least + line;
        c->growth = c->most + line;
        c->alike = c->growth + line;
        for (int i = 0; i < VALUES; i++)
            c->own[i] = c->alike + (i + 1) * line;
        c->kind = bytes;
        c->pair = bytes + tiles;
        c->changed = bytes + 2 * tiles;
        c->across = vectors;
        c->down = vectors + c->tile_cols + 1;
        c->still = bits + 1;
        c->busy = c->still + c->tile_rows * c->words;
        c->column = c->busy + c->tile_rows * c->words;
        c->found = c->column + c->words;
        rows_run(c);
    }
    free(indices);
    free(bits);
    free(vectors);
    free(bytes);
    free(floats);
    return done ? 0 : -1;
}

static PyObject *fusion_carry(PyObject *module, PyObject *args)
{
    (void)module;
    Carry c;
    enum { CURRENT, ON_GRID = 10, STEPS = ON_GRID, RESIDUAL, ARRAYS };
    Argument a[ARRAYS] = {
        {NULL, &c.current, 'B', READ, "current"}, {NULL, &c.current_u, 'B', READ, "current_u"},
        {NULL, &c.current_v, 'B', READ, "current_v"}, {NULL, &c.previous, 'B', READ, "previous"},
        {NULL, &c.previous_u, 'B', READ, "previous_u"}, {NULL, &c.previous_v, 'B', READ, "previous_v"},
        {NULL, &c.probability, 'f', READ, "probability"}, {NULL, &c.variance, 'f', READ, "variance"},
        {NULL, &c.out_probability, 'f', WRITE, "out_probability"}, {NULL, &c.out_variance, 'f', WRITE, "out_variance"},
        {NULL, &c.motion.steps, 'h', READ, "steps"}, {NULL, &c.residual, 'f', READ, "residual"},
    };
    float like, chroma;
    if (!PyArg_ParseTuple(args, "(OOO)(OOO)OOiOOOOfffff", &a[3].array, &a[4].array, &a[5].array, &a[0].array, &a[1].array,
                          &a[2].array, &a[STEPS].array, &a[RESIDUAL].array, &c.motion.block, &a[6].array, &a[7].array, &a[8].array,
                          &a[9].array, &like, &chroma, &c.exact, &c.drift, &c.misfit))
        return NULL;
    if (arguments_get(a, ARRAYS) < 0)
        return NULL;
    PyObject *result = NULL;
    const Plane *grid = &c.current;
    if (one_grid(a, ON_GRID) < 0)
        goto end;
    if (c.motion.block < 1 || c.motion.steps.rows != (grid->rows + c.motion.block - 1) / c.motion.block ||
        c.motion.steps.cols != 2 * ((grid->cols + c.motion.block - 1) / c.motion.block) || c.residual.rows != c.motion.steps.rows ||
        c.residual.cols * 2 != c.motion.steps.cols) {
        PyErr_Format(PyExc_ValueError, "steps and residual: not one for each block of %d pixels", c.motion.block);
        goto end;
    }
    if (scales_get(&c.scales, like, chroma) < 0)
        goto end;
    c.rows = c.motion.rows = (int)grid->rows;
    c.cols = c.motion.cols = (int)grid->cols;
    int failed;
    Py_BEGIN_ALLOW_THREADS
    failed = carry_run(&c);
    Py_END_ALLOW_THREADS
    if (failed < 0)
        PyErr_NoMemory();
    else
        result = Py_NewRef(Py_None);
end:
    arguments_release(a, ARRAYS);
    return result;
}

static PyMethodDef methods[] = {
    {"carry", fusion_carry, METH_VARARGS,
     "carry((y, u, v) previous, (y, u, v) current, steps, residual, block_px, probability, variance, "
     "out_probability, out_variance, like, chroma, exact, drift, misfit)"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_carry", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__carry(void) { return module_create(&module); }
