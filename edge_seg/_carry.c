/* Carrying a mask along block flow: edge_seg/carry_reference.py says what is computed.
 *
 * Nearly all of a mask is surely person or surely background. So the grid is cut into tiles; the costly part (what
 * colours the sources have, windows of alike colour) is for tiles whose windows hold a mask that differs, and that
 * do not show what they showed before. All is copied by rows first, and fetched where it moved.
 */
#include "_fusion.h"
#include "_motion.h"

#define RADIUS 2             /* of the window */
#define SLACK (TILE + 2 * RADIUS)
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
    /* scratch */
    unsigned char *kind;    /* of each tile: how it is fetched */
    unsigned char *busy;    /* whether the mask differs in the windows of each tile, and it is not calm */
    unsigned char *wanted;  /* whether such windows reach into it */
    unsigned char *changed; /* of each column of a row of tiles: whether it shows something else than before */
    float *least, *most;    /* in the windows of a row of tiles, with a rim of RADIUS */
    float *growth;          /* of the variance of each of a row of tiles */
    /* What windows of busy tiles see (_fusion.h), each from the element (0, 0) on, with a rim of RADIUS: colours from the
     * frame before, the mask as it was fetched, and how far that luma is from the element's own. */
    float *y, *u, *v, *moved, *difference;
    Py_ssize_t plane, stride;
} Carry;

static void mask_fetch_slowly(const Carry *c, int y0, int x0)
{
    for (int y = y0; y < least(y0 + TILE, c->rows); y++)
        for (int x = x0; x < least(x0 + TILE, c->cols); x++)
            floats_at(&c->out_probability, y)[x] = float_at(&c->probability, place_of(&c->motion, y, x, vector_at(&c->motion, y, x)));
}

/* The mask: all of it is copied, then what moved is fetched. */
WIDE static void mask_fetch(const Carry *c)
{
    const Py_ssize_t stride = c->probability.stride / (Py_ssize_t)sizeof(float), out_stride = c->out_probability.stride / (Py_ssize_t)sizeof(float);
    for (int y = 0; y < c->rows; y++)
        memcpy(floats_at(&c->out_probability, y), floats_at(&c->probability, y), sizeof(float) * (size_t)c->cols);
    for (int ty = 0; ty < c->tile_rows; ty++) {
        const int y0 = ty * TILE;
        const int16_t *steps = steps_at(&c->motion, y0, 0);
        unsigned char *kinds = c->kind + (Py_ssize_t)ty * c->tile_cols;
        for (int tx = 0; tx < c->tile_cols; tx++) {
            const int x0 = tx * TILE, block = c->motion.block_of[x0];
            const Vector v = {steps[2 * block], steps[2 * block + 1]};
            const int kind = kind_of(&c->motion, y0, x0, v);
            kinds[tx] = (unsigned char)kind;
            if (kind == STILL)
                continue;
            const Origin from = origin_of(y0, x0, v);
            float *out = floats_at(&c->out_probability, y0) + x0;
            if (kind == RIM) {
                float gathered[SIDE * WIDTH];
                floats_gather(&c->motion, &c->probability, &from, gathered);
                fetch_floats(gathered, WIDTH, from.fx, from.fy, out, out_stride);
            } else if (kind == SCATTERED) {
                mask_fetch_slowly(c, y0, x0);
            } else if (is_pair(&c->motion, y0, x0, &from)) {
                fetch_pair(floats_at(&c->probability, from.top) + from.left, stride, from.fx, from.fy, out, out_stride);
                kinds[++tx] = (unsigned char)kind;
            } else {
                fetch_floats(floats_at(&c->probability, from.top) + from.left, stride, from.fx, from.fy, out, out_stride);
            }
        }
    }
}

/* The colours of a row of tiles, in the columns [x0, x1): none of them moved. */
INLINED void still_fetch(const Carry *c, int y0, int x0, int x1)
{
    for (int y = y0; y < least(y0 + TILE, c->rows); y++) {
        const Py_ssize_t k = y * c->stride + x0;
        row_of_bytes(bytes_at(&c->previous, y) + x0, x1 - x0, c->y + k);
        if (c->scales.chroma > 0) {
            row_of_bytes(bytes_at(&c->previous_u, y) + x0, x1 - x0, c->u + k);
            row_of_bytes(bytes_at(&c->previous_v, y) + x0, x1 - x0, c->v + k);
        }
    }
}

static void colours_fetch_slowly(const Carry *c, int y0, int x0)
{
    for (int y = y0; y < least(y0 + TILE, c->rows); y++)
        for (int x = x0; x < least(x0 + TILE, c->cols); x++) {
            Place at = place_of(&c->motion, y, x, vector_at(&c->motion, y, x));
            Py_ssize_t k = y * c->stride + x;
            c->y[k] = byte_at(&c->previous, at);
            if (c->scales.chroma > 0) {
                c->u[k] = byte_at(&c->previous_u, at);
                c->v[k] = byte_at(&c->previous_v, at);
            }
        }
}

/* A plane of colours of a tile. Near the picture's end eight columns cannot be read. */
#if HAS_LANES
INLINED void plane_fetch(const Carry *c, const Plane *plane, const Origin *from, int kind, float *out)
{
    if (kind != RIM && from->left + 2 * TILE < c->cols) {
        fetch_bytes(bytes_at(plane, from->top) + from->left, plane->stride, from->fx, from->fy, out, c->stride);
    } else {
        unsigned char gathered[SIDE * WIDTH] = {0};
        bytes_gather(&c->motion, plane, from, gathered);
        fetch_bytes(gathered, WIDTH, from->fx, from->fy, out, c->stride);
    }
}
#endif

/* The colours of a tile with one vector, if that can be done at once: then 1. */
INLINED int tile_fetch(const Carry *c, int y0, int x0, int kind)
{
#if HAS_LANES
    if (kind == SCATTERED)
        return 0;
    const Origin from = tile_origin(&c->motion, y0, x0);
    const Py_ssize_t k = y0 * c->stride + x0;
    const Plane *u = &c->previous_u, *v = &c->previous_v;
    plane_fetch(c, &c->previous, &from, kind, c->y + k);
    if (c->scales.chroma > 0 && kind != RIM && u->stride == v->stride) {
        fetch_two(bytes_at(u, from.top) + from.left, bytes_at(v, from.top) + from.left, u->stride, from.fx, from.fy, c->u + k, c->v + k, c->stride);
    } else if (c->scales.chroma > 0) {
        plane_fetch(c, u, &from, kind, c->u + k);
        plane_fetch(c, v, &from, kind, c->v + k);
    }
    return 1;
#else
    (void)c, (void)y0, (void)x0, (void)kind;
    return 0;
#endif
}

/* The rest of what windows see in the columns [x0, x1) of a row of tiles. */
INLINED void values_fill(const Carry *c, int y0, int x0, int x1)
{
    for (int y = y0; y < least(y0 + TILE, c->rows); y++) {
        const Py_ssize_t k = y * c->stride + x0;
        const unsigned char *restrict own = bytes_at(&c->current, y) + x0;
        const float *restrict luma = c->y + k;
        float *restrict difference = c->difference + k;
        memcpy(c->moved + k, floats_at(&c->out_probability, y) + x0, sizeof(float) * (size_t)(x1 - x0));
        for (int i = 0; i < x1 - x0; i++)
            difference[i] = fabsf((float)own[i] - luma[i]);
    }
}

/* Repeats the outermost columns of a row of tiles into the rim, where they are wanted. */
static void sides_fill(const Carry *c, int y0, const unsigned char *wanted)
{
    if (!wanted[0] && !wanted[c->tile_cols - 1])
        return;
    for (int y = y0; y < least(y0 + TILE, c->rows); y++)
        for (int i = 0; i < PER_ROW; i++)
            if (c->scales.chroma > 0 || (i != CHROMA_U && i != CHROMA_V))
                row_rim(c->y + y * c->stride + i * c->plane, c->cols, RADIUS);
}

/* What the windows of busy tiles see. */
WIDE static void windows_fill(const Carry *c)
{
    for (int ty = 0; ty < c->tile_rows; ty++) {
        const unsigned char *wanted = c->wanted + (Py_ssize_t)ty * c->tile_cols, *kind = c->kind + (Py_ssize_t)ty * c->tile_cols;
        const int y0 = ty * TILE;
        for (int tx = 0; tx < c->tile_cols; tx++) {
            const int x0 = tx * TILE;
            if (!wanted[tx])
                continue;
            if (kind[tx] == STILL) {
                while (tx + 1 < c->tile_cols && wanted[tx + 1] && kind[tx + 1] == STILL)
                    tx++;
                still_fetch(c, y0, x0, least((tx + 1) * TILE, c->cols));
            } else if (!tile_fetch(c, y0, x0, kind[tx])) {
                colours_fetch_slowly(c, y0, x0);
            }
        }
        for (int tx = 0, end; tx < c->tile_cols; tx = end + 1) {
            for (end = tx; end < c->tile_cols && wanted[end];)
                end++;
            if (end > tx)
                values_fill(c, y0, tx * TILE, least(end * TILE, c->cols));
        }
        sides_fill(c, y0, wanted);
    }
    const size_t bytes = sizeof(float) * (size_t)c->stride;
    float *first = c->y - RADIUS, *last = first + (c->rows - 1) * c->stride;
    for (int i = 1; i <= RADIUS; i++) {
        memcpy(first - i * c->stride, first, bytes);
        memcpy(last + i * c->stride, last, bytes);
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

/* Whether a tile shows what it showed before. */
INLINED int is_calm(const Carry *c, int ty, int tx)
{
    uint32_t changed;
    memcpy(&changed, c->changed + tx * TILE, sizeof changed);
    return c->kind[ty * c->tile_cols + tx] == STILL && !changed;
}

/* Marks the tiles in whose windows the mask differs and which are not calm, and those that these windows reach. */
WIDE static void tiles_mark(const Carry *c)
{
    memset(c->wanted, 0, (size_t)c->tile_rows * (size_t)c->tile_cols);
    for (int ty = 0; ty < c->tile_rows; ty++) {
        unsigned char *restrict busy = c->busy + (Py_ssize_t)ty * c->tile_cols;
        spread_scan(c, ty);
        changes_mark(c, ty);
        for (int tx = 0; tx < c->tile_cols; tx++)
            busy[tx] = c->most[tx * TILE] > SURE && !is_calm(c, ty, tx);
        const int top = ty > 0 ? ty - 1 : 0, bottom = least(ty + 1, c->tile_rows - 1);
        for (int tx = 0; tx < c->tile_cols; tx++) {
            if (!busy[tx])
                continue;
            const int left = tx > 0 ? tx - 1 : 0, right = least(tx + 1, c->tile_cols - 1);
            for (int y = top; y <= bottom; y++)
                memset(c->wanted + (Py_ssize_t)y * c->tile_cols + left, 1, (size_t)(right - left + 1));
        }
    }
}

/* --- the result ------------------------------------------------------------------------------------------------------ */

/* The span of tiles [tx0, tx1) of tile row ty. */
INLINED void span_carry_of(const Carry *c, int ty, int tx0, int tx1, const Py_ssize_t plane)
{
    const int x0 = tx0 * TILE, y1 = least((ty + 1) * TILE, c->rows), width = least(tx1 * TILE, c->cols) - x0;
    static const float ninth = 1.0f / 9;
    const float exact = c->exact * c->exact, drift = c->drift, misfit = c->misfit;
    const Py_ssize_t pitch = PER_ROW * plane;
    const Scales scales = c->scales;
    float own_y[BUFFER], own_u[BUFFER], own_v[BUFFER], alike[BUFFER];
    for (int y = ty * TILE; y < y1; y++) {
        const Py_ssize_t k = y * c->stride + x0;
        row_of_bytes(bytes_at(&c->current, y) + x0, width, own_y);
        if (c->scales.chroma > 0) {
            row_of_bytes(bytes_at(&c->current_u, y) + x0, width, own_u);
            row_of_bytes(bytes_at(&c->current_v, y) + x0, width, own_v);
        }
        for (int x = 0; x < width; x += STRIP) {
            const float *const own = c->y + k + x;
            const float *const rows[2 * RADIUS + 1] = {own - 2 * pitch, own - pitch, own, own + pitch, own + 2 * pitch};
            mean_near(own_y + x, own_u + x, own_v + x, rows, plane, scales, alike + x);
        }
        float *restrict p = floats_at(&c->out_probability, y) + x0, *restrict q = floats_at(&c->out_variance, y) + x0;
        const float *restrict here = c->difference + k, *restrict up = here - c->stride, *restrict down = here + c->stride;
        const float *restrict m = c->moved + k;
        for (int x = 0; x < width; x++) {
            float d = here[x] * here[x], share = d / (d + exact);
            float r = ((up[x - 1] + up[x] + up[x + 1]) + (here[x - 1] + here[x] + here[x + 1]) + (down[x - 1] + down[x] + down[x + 1])) * ninth;
            p[x] = m[x] + share * (alike[x] - m[x]);
            q[x] += drift + misfit * r * r;
        }
    }
}

WIDE static void span_carry(const Carry *c, int ty, int tx0, int tx1)
{
    if (c->plane == NARROW)
        span_carry_of(c, ty, tx0, tx1, NARROW);
    else
        span_carry_of(c, ty, tx0, tx1, c->plane);
}

/* How much the variance of each of a row of tiles grows, by the block in its middle; in busy ones that comes with the rest. */
INLINED void growth_fill(const Carry *c, int ty, const unsigned char *busy)
{
    const float *residual = floats_at(&c->residual, c->motion.block_of[least(ty * TILE + TILE / 2, c->rows - 1)]);
    for (int tx = 0; tx < c->tile_cols; tx++) {
        const float r = residual[c->motion.block_of[least(tx * TILE + TILE / 2, c->cols - 1)]];
        c->growth[tx] = busy[tx] ? 0 : c->drift + c->misfit * r * r;
    }
}

/* A row of elements that did not move; the growth is that of their tiles. */
WIDE static void row_grow(const float *restrict from, const float *restrict growth, int cols, float *restrict out)
{
    const int whole = cols / TILE;
    for (int tx = 0; tx < whole; tx++) {
        float four[TILE];
        memcpy(four, from + tx * TILE, sizeof four);
        for (int i = 0; i < TILE; i++)
            four[i] += growth[tx];
        memcpy(out + tx * TILE, four, sizeof four);
    }
    for (int x = whole * TILE; x < cols; x++)
        out[x] = from[x] + growth[whole];
}

/* The variance of a tile that moved: that of the nearest elements, for it changes little from one to the next. */
INLINED void variance_fetch(const Carry *c, int y0, int x0, int kind)
{
    const Vector v = vector_at(&c->motion, y0, x0);
    const int dx = pixels_of(v.x + Q / 2), dy = pixels_of(v.y + Q / 2);
    const float growth = c->growth[x0 / TILE];
    if (kind == WHOLE) {
        for (int y = y0; y < y0 + TILE; y++) {
            const float *restrict from = floats_at(&c->variance, y + dy) + x0 + dx;
            float *restrict q = floats_at(&c->out_variance, y) + x0;
            for (int i = 0; i < TILE; i++)
                q[i] = from[i] + growth;
        }
    } else if (kind == RIM) {
        int xs[TILE], ys[TILE];
        float right[TILE], down[TILE];
        axis_fill(x0, v.x, c->cols, xs, right);
        axis_fill(y0, v.y, c->rows, ys, down);
        for (int j = 0; j < TILE; j++) {
            const float *from = floats_at(&c->variance, ys[j]);
            float *q = floats_at(&c->out_variance, y0 + j) + x0;
            for (int i = 0; i < TILE; i++)
                q[i] = from[xs[i]] + UNSEEN * (right[i] + down[j]) * (right[i] + down[j]) + growth;
        }
    } else {
        for (int y = y0; y < least(y0 + TILE, c->rows); y++)
            for (int x = x0; x < least(x0 + TILE, c->cols); x++) {
                const Vector own = vector_at(&c->motion, y, x);
                const float outside = place_of(&c->motion, y, x, own).outside;
                const float *from = floats_at(&c->variance, clamp(y + pixels_of(own.y + Q / 2), 0, c->rows - 1));
                floats_at(&c->out_variance, y)[x] = from[clamp(x + pixels_of(own.x + Q / 2), 0, c->cols - 1)] + UNSEEN * outside * outside + growth;
            }
    }
}

WIDE static void tile_row_finish(const Carry *c, int ty)
{
    const unsigned char *busy = c->busy + (Py_ssize_t)ty * c->tile_cols, *kind = c->kind + (Py_ssize_t)ty * c->tile_cols;
    growth_fill(c, ty, busy);
    for (int y = ty * TILE; y < least((ty + 1) * TILE, c->rows); y++)
        row_grow(floats_at(&c->variance, y), c->growth, c->cols, floats_at(&c->out_variance, y));
    for (int tx = 0; tx < c->tile_cols; tx++)
        if (kind[tx] > CLOSE)
            variance_fetch(c, ty * TILE, tx * TILE, kind[tx]);
    for (int tx = 0; tx < c->tile_cols; tx++) {
        int end = tx;
        while (end < c->tile_cols && end - tx < SPAN_TILES && busy[end])
            end++;
        if (end > tx) {
            span_carry(c, ty, tx, end);
            tx = end - 1;
        }
    }
}

static int carry_run(Carry *c)
{
    const int longer = c->rows > c->cols ? c->rows : c->cols;
    c->tile_rows = (c->rows + TILE - 1) / TILE;
    c->tile_cols = (c->cols + TILE - 1) / TILE;
    c->plane = plane_of(c->cols, RADIUS);
    c->stride = PER_ROW * c->plane;
    const size_t tiles = (size_t)c->tile_rows * (size_t)c->tile_cols, line = (size_t)c->cols + 2 * SLACK;
    const size_t fetched = (size_t)(c->rows + 2 * RADIUS) * (size_t)c->stride + STRIP;
    float *floats = malloc(sizeof(float) * (fetched + 3 * line));
    unsigned char *marks = malloc(3 * tiles + (size_t)c->tile_cols * TILE);
    c->motion.block_of = malloc(sizeof(int) * (size_t)longer);
    const int done = floats && marks && c->motion.block_of;
    if (done) {
        for (int i = 0; i < longer; i++)
            c->motion.block_of[i] = i / c->motion.block;
        c->y = floats + RADIUS * c->stride + RADIUS;
        c->u = c->y + CHROMA_U * c->plane;
        c->v = c->y + CHROMA_V * c->plane;
        c->moved = c->y + VALUES * c->plane;
        c->difference = c->y + DIFFERENCE * c->plane;
        c->least = floats + fetched;
        c->most = c->least + line;
        c->growth = c->most + line;
        c->busy = marks;
        c->wanted = marks + tiles;
        c->kind = marks + 2 * tiles;
        c->changed = marks + 3 * tiles;
        mask_fetch(c);
        tiles_mark(c);
        windows_fill(c);
        for (int ty = 0; ty < c->tile_rows; ty++)
            tile_row_finish(c, ty);
    }
    free(c->motion.block_of);
    free(floats);
    free(marks);
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
