/* Hierarchical block matching on 8-bit luma: where each block of the current picture stood in the previous one.
 *
 * All of the search is integer arithmetic, so that the NumPy reference (edge_seg/flow_reference.py) gives equal
 * vectors. Blocks do not read each other's results within a pass, for the same reason.
 *
 * The trick that makes it fast on SSE2 and NEON alike: 16 vector lanes, but windows only 8 pixels wide. So rows y
 * and y + 1 of a picture are stored interleaved, for every y; 16 consecutive bytes are then an 8x2 patch at any
 * (x, y), an 8x8 window is four of them, and the compiler's own sum-of-absolute-differences pattern applies.
 */
#include "_buffers.h"
#include <math.h>
#include <stdlib.h>

#define WINDOW 8
#define PAIRS (WINDOW / 2)
#define BORDER 18     /* replicated pixels around each level: how far out of the picture a window may lie */
#define MAX_LEVELS 4
#define SIDE_MIN 16   /* a level smaller than this carries no information for 8x8 windows */
#define Q 16          /* vectors are in 1/16 pixel after the sub-pixel step */

typedef struct {
    int width, height;
    Py_ssize_t stride;       /* bytes from one pair row to the next */
    unsigned char *pixels;   /* (height + 2 BORDER) rows of width + 2 BORDER */
    unsigned char *pairs;    /* (height + 2 BORDER - 1) rows of 2 (width + 2 BORDER) */
} Level;

typedef struct { int16_t x, y; } Vector;

typedef struct {
    int level, step;    /* side of a block, in pixels of its level */
    int rows, cols;
    Vector *vectors;    /* whole pixels of its level */
} Stage;

typedef struct {
    int block, levels, search, penalty;
    const Stage *finest;
} Settings;

static inline int clamp(int v, int lo, int hi) { return v < lo ? lo : v > hi ? hi : v; }
static inline int absolute(int v) { return abs(v); }

/* --- pyramid ------------------------------------------------------------------------------------------------ */

static inline Py_ssize_t row_bytes(const Level *l) { return l->width + 2 * BORDER; }

static void level_replicate(Level *l)
{
    Py_ssize_t n = row_bytes(l);
    for (int y = 0; y < l->height; y++) {
        unsigned char *row = l->pixels + (y + BORDER) * n;
        memset(row, row[BORDER], BORDER);
        memset(row + BORDER + l->width, row[BORDER + l->width - 1], BORDER);
    }
    for (int y = 0; y < BORDER; y++) {
        memcpy(l->pixels + y * n, l->pixels + BORDER * n, n);
        memcpy(l->pixels + (BORDER + l->height + y) * n, l->pixels + (BORDER + l->height - 1) * n, n);
    }
    for (int y = 0; y < l->height + 2 * BORDER - 1; y++) {
        const unsigned char *restrict a = l->pixels + y * n, *restrict b = a + n;
        unsigned char *restrict pair = l->pairs + y * l->stride;
        for (Py_ssize_t x = 0; x < n; x++) {
            pair[2 * x] = a[x];
            pair[2 * x + 1] = b[x];
        }
    }
}

static void level_halve(const Level *from, Level *to)
{
    Py_ssize_t nf = row_bytes(from), nt = row_bytes(to);
    for (int y = 0; y < to->height; y++) {
        const unsigned char *restrict a = from->pixels + (2 * y + BORDER) * nf + BORDER, *restrict b = a + nf;
        unsigned char *restrict out = to->pixels + (y + BORDER) * nt + BORDER;
        for (int x = 0; x < to->width; x++)
            out[x] = (unsigned char)((a[2 * x] + a[2 * x + 1] + b[2 * x] + b[2 * x + 1] + 2) >> 2);
    }
}

static size_t level_bytes(int width, int height)
{
    size_t n = (size_t)(width + 2 * BORDER) * (size_t)(height + 2 * BORDER);
    return 3 * n + 64;
}

static void pyramid_build(Level *levels, int count, const Plane *picture, unsigned char *memory)
{
    int width = (int)picture->cols, height = (int)picture->rows;
    for (int i = 0; i < count; i++) {
        Level *l = &levels[i];
        l->width = width, l->height = height;
        l->stride = 2 * row_bytes(l);
        l->pixels = memory;
        l->pairs = memory + row_bytes(l) * (height + 2 * BORDER);
        memory += level_bytes(width, height);
        if (i == 0)
            for (int y = 0; y < height; y++)
                memcpy(l->pixels + (y + BORDER) * row_bytes(l) + BORDER, picture->data + y * picture->stride, width);
        else
            level_halve(&levels[i - 1], l);
        level_replicate(l);
        width = (width + 1) / 2, height = (height + 1) / 2;
    }
}

/* --- matching ----------------------------------------------------------------------------------------------- */

static inline const unsigned char *window_at(const Level *l, int x, int y)
{
    return l->pairs + (y + BORDER) * l->stride + 2 * (x + BORDER);
}

static inline int sad(const unsigned char *restrict a, const unsigned char *restrict b, Py_ssize_t stride)
{
    int sum = 0;
    for (int r = 0; r < PAIRS; r++) {
        for (int i = 0; i < 2 * WINDOW; i++)
            sum += absolute((int)a[i] - (int)b[i]);
        a += 2 * stride, b += 2 * stride;
    }
    return sum;
}

typedef struct {
    const Level *previous;
    const unsigned char *patch;   /* the window in the current picture */
    int x, y;                     /* its top-left pixel */
    int x_lo, x_hi, y_lo, y_hi;   /* vectors that keep it (and a rim of 2) inside the border */
    Vector best;
    int32_t cost;
} Search;

static inline void search_begin(Search *s, const Level *previous, const Level *current, int x, int y)
{
    s->previous = previous;
    s->patch = window_at(current, x, y);
    s->x = x, s->y = y;
    s->x_lo = -BORDER + 2 - x, s->x_hi = current->width + BORDER - WINDOW - 2 - x;
    s->y_lo = -BORDER + 2 - y, s->y_hi = current->height + BORDER - WINDOW - 2 - y;
    s->best.x = s->best.y = 0;
    s->cost = INT32_MAX;
}

static inline void search_try(Search *s, int dx, int dy, int extra)
{
    dx = clamp(dx, s->x_lo, s->x_hi), dy = clamp(dy, s->y_lo, s->y_hi);
    int cost = sad(s->patch, window_at(s->previous, s->x + dx, s->y + dy), s->previous->stride) + extra;
    if (cost < s->cost) {
        s->cost = cost;
        s->best.x = (int16_t)dx, s->best.y = (int16_t)dy;
    }
}

static void match_top(Stage *stage, const Level *previous, const Level *current, const Settings *settings)
{
    int margin = (WINDOW - stage->step) / 2, r = settings->search;
    for (int by = 0; by < stage->rows; by++)
        for (int bx = 0; bx < stage->cols; bx++) {
            Search s;
            search_begin(&s, previous, current, bx * stage->step - margin, by * stage->step - margin);
            search_try(&s, 0, 0, 0);
            for (int dy = -r; dy <= r; dy++)
                for (int dx = -r; dx <= r; dx++)
                    search_try(&s, dx, dy, settings->penalty * (absolute(dx) + absolute(dy)));
            stage->vectors[by * stage->cols + bx] = s.best;
        }
}

/* The two blocks of the coarser stage whose centres enclose the centre of block b along one axis. */
static inline void parents(int b, int step, int scale, int parent_step, int count, int *near, int *far)
{
    int centre2 = (2 * b + 1) * step, size2 = 2 * parent_step * scale;   /* doubled, to stay whole */
    int n = centre2 / size2;
    int f = centre2 % size2 < parent_step * scale ? n - 1 : n + 1;
    *near = clamp(n, 0, count - 1);
    *far = clamp(f, 0, count - 1);
}

/* The previous flow's vector at the centre of a block, in whole pixels of the stage's level. */
static inline Vector hint_at(const Vector *hint, const Settings *settings, const Stage *stage, int bx, int by)
{
    const Stage *finest = settings->finest;
    int hx = clamp(((2 * bx + 1) * stage->step << stage->level) / (2 * finest->step), 0, finest->cols - 1);
    int hy = clamp(((2 * by + 1) * stage->step << stage->level) / (2 * finest->step), 0, finest->rows - 1);
    Vector v = hint[hy * finest->cols + hx];
    int shift = 4 + stage->level, half = 1 << (shift - 1);
    v.x = (int16_t)((v.x + half) >> shift), v.y = (int16_t)((v.y + half) >> shift);
    return v;
}

static void match_refine(Stage *stage, const Stage *coarse, const Level *previous, const Level *current,
                         const Vector *hint, const Settings *settings)
{
    int margin = (WINDOW - stage->step) / 2;
    int scale = 1 << (coarse->level - stage->level);
    for (int by = 0; by < stage->rows; by++)
        for (int bx = 0; bx < stage->cols; bx++) {
            int index = by * stage->cols + bx, ys[2], xs[2];
            parents(by, stage->step, scale, coarse->step, coarse->rows, &ys[0], &ys[1]);
            parents(bx, stage->step, scale, coarse->step, coarse->cols, &xs[0], &xs[1]);
            Search s;
            search_begin(&s, previous, current, bx * stage->step - margin, by * stage->step - margin);
            search_try(&s, 0, 0, 0);
            for (int i = 0; i < 4; i++) {
                Vector p = coarse->vectors[ys[i >> 1] * coarse->cols + xs[i & 1]];
                search_try(&s, p.x * scale, p.y * scale, settings->penalty);
            }
            if (hint) {
                Vector h = hint_at(hint, settings, stage, bx, by);
                search_try(&s, h.x, h.y, settings->penalty);
            }
            Vector c = s.best;
            if (scale > 1)
                for (int dy = -1; dy <= 1; dy++)
                    for (int dx = -1; dx <= 1; dx++)
                        if (dx || dy)
                            search_try(&s, c.x + dx, c.y + dy, 2 * settings->penalty);
            stage->vectors[index] = s.best;
        }
}

/* --- sub-pixel step, median, residual -------------------------------------------------------------------------- */

static inline int64_t floor_div(int64_t a, int64_t b) /* b > 0 */
{
    return a >= 0 ? a / b : -((-a + b - 1) / b);
}

/* The structure tensor of a window and its product with the temporal difference, in doubled gradients. */
typedef struct { int32_t xx, xy, yy, xt, yt; } Moments;

static inline Moments moments(const unsigned char *restrict p, const unsigned char *restrict c, Py_ssize_t stride)
{
    Moments m = {0, 0, 0, 0, 0};
    for (int r = 0; r < PAIRS; r++) {
        int16_t gx[2 * WINDOW], gy[2 * WINDOW], gt[2 * WINDOW];
        for (int i = 0; i < 2 * WINDOW; i++) {
            gx[i] = (int16_t)(p[i + 2] - p[i - 2]);
            gy[i] = (int16_t)(p[i + stride] - p[i - stride]);
            gt[i] = (int16_t)(p[i] - c[i]);
        }
        for (int i = 0; i < 2 * WINDOW; i++) {
            m.xx += gx[i] * gx[i];
            m.xy += gx[i] * gy[i];
            m.yy += gy[i] * gy[i];
            m.xt += gx[i] * gt[i];
            m.yt += gy[i] * gt[i];
        }
        p += 2 * stride, c += 2 * stride;
    }
    return m;
}

#define FLAT (WINDOW * WINDOW * 4 * 4)   /* regularises the normal equations: noise of about 2 code values */
#define STEP_MAX (Q * 3 / 4)

/* One Gauss-Newton step of Lucas and Kanade from a whole-pixel vector, in 1/16 pixel. */
static void subpixel(const Stage *stage, const Level *previous, const Level *current, Vector *out, float *texture)
{
    int margin = (WINDOW - stage->step) / 2;
    for (int by = 0; by < stage->rows; by++)
        for (int bx = 0; bx < stage->cols; bx++) {
            int index = by * stage->cols + bx, x = bx * stage->step - margin, y = by * stage->step - margin;
            Vector v = stage->vectors[index];
            Moments m = moments(window_at(previous, x + v.x, y + v.y), window_at(current, x, y), previous->stride);
            int64_t xx = (int64_t)m.xx + FLAT, yy = (int64_t)m.yy + FLAT, xy = m.xy;
            int64_t det = xx * yy - xy * xy;   /* positive: FLAT makes the matrix positive definite */
            int64_t nx = xy * m.yt - yy * m.xt, ny = xy * m.xt - xx * m.yt;
            int sx = (int)floor_div(4 * Q * nx + det, 2 * det), sy = (int)floor_div(4 * Q * ny + det, 2 * det);
            out[index].x = (int16_t)(v.x * Q + clamp(sx, -STEP_MAX, STEP_MAX));
            out[index].y = (int16_t)(v.y * Q + clamp(sy, -STEP_MAX, STEP_MAX));
            /* The smaller eigenvalue of the mean structure tensor, in squared code values per pixel. */
            float a = (float)m.xx, b = (float)m.xy, c = (float)m.yy;
            float smaller = 0.5f * (a + c - sqrtf((a - c) * (a - c) + 4.0f * b * b));
            texture[index] = smaller > 0.0f ? smaller / (4.0f * WINDOW * WINDOW) : 0.0f;
        }
}

static inline int16_t median9(const int16_t *v)
{
    int16_t s[9];
    memcpy(s, v, sizeof s);
#define SORT(i, j) do { int16_t lo = s[i] < s[j] ? s[i] : s[j], hi = s[i] < s[j] ? s[j] : s[i]; s[i] = lo; s[j] = hi; } while (0)
    SORT(1, 2); SORT(4, 5); SORT(7, 8); SORT(0, 1); SORT(3, 4); SORT(6, 7); SORT(1, 2); SORT(4, 5); SORT(7, 8);
    SORT(0, 3); SORT(5, 8); SORT(4, 7); SORT(3, 6); SORT(1, 4); SORT(2, 5); SORT(4, 7); SORT(4, 2); SORT(6, 4); SORT(4, 2);
#undef SORT
    return s[4];
}

static void median3x3(const Vector *in, Vector *out, int rows, int cols)
{
    for (int y = 0; y < rows; y++)
        for (int x = 0; x < cols; x++) {
            int16_t vx[9], vy[9];
            for (int k = 0; k < 9; k++) {
                Vector v = in[clamp(y + k / 3 - 1, 0, rows - 1) * cols + clamp(x + k % 3 - 1, 0, cols - 1)];
                vx[k] = v.x, vy[k] = v.y;
            }
            out[y * cols + x].x = median9(vx), out[y * cols + x].y = median9(vy);
        }
}

/* Sum of absolute differences at a vector in 1/16 pixel, bilinear. */
static inline int sad_bilinear(const unsigned char *restrict c, const unsigned char *restrict p, Py_ssize_t stride,
                               int fx, int fy)
{
    unsigned short w00 = (unsigned short)((Q - fx) * (Q - fy)), w01 = (unsigned short)(fx * (Q - fy));
    unsigned short w10 = (unsigned short)((Q - fx) * fy), w11 = (unsigned short)(fx * fy);
    int sum = 0;
    for (int r = 0; r < PAIRS; r++) {
        unsigned char value[2 * WINDOW];
        for (int i = 0; i < 2 * WINDOW; i++)
            value[i] = (unsigned char)((unsigned short)(w00 * p[i] + w01 * p[i + 2] + w10 * p[i + stride] +
                                                        w11 * p[i + stride + 2] + 128) >> 8);
        for (int i = 0; i < 2 * WINDOW; i++)
            sum += absolute((int)value[i] - (int)c[i]);
        p += 2 * stride, c += 2 * stride;
    }
    return sum;
}

#define RESIDUAL_SCALE 8.0f   /* code values at which a match is half believed */
#define TEXTURE_SCALE 4.0f    /* squared code values a pixel: gradients of 2 in the weaker direction */

static void finish(const Stage *stage, const Level *previous, const Level *current, const Vector *q,
                   const float *texture, Plane *vectors, Plane *residual, Plane *confidence)
{
    int margin = (WINDOW - stage->step) / 2;
    for (int by = 0; by < stage->rows; by++) {
        float *v = (float *)(vectors->data + by * vectors->stride);
        float *r = (float *)(residual->data + by * residual->stride);
        float *k = (float *)(confidence->data + by * confidence->stride);
        for (int bx = 0; bx < stage->cols; bx++) {
            Search s;
            search_begin(&s, previous, current, bx * stage->step - margin, by * stage->step - margin);
            Vector qv = q[by * stage->cols + bx];
            int qx = clamp(qv.x, Q * s.x_lo, Q * s.x_hi), qy = clamp(qv.y, Q * s.y_lo, Q * s.y_hi);
            int dx = (int)floor_div(qx, Q), dy = (int)floor_div(qy, Q);
            int sum = sad_bilinear(s.patch, window_at(previous, s.x + dx, s.y + dy), previous->stride, qx - Q * dx,
                                   qy - Q * dy);
            float moved = (float)(absolute(qx) > absolute(qy) ? absolute(qx) : absolute(qy)) / Q;
            float t = texture[by * stage->cols + bx], trust = t / (t + TEXTURE_SCALE);
            v[2 * bx] = (float)qx / Q, v[2 * bx + 1] = (float)qy / Q;
            r[bx] = (float)sum / (WINDOW * WINDOW);
            float miss = r[bx] / RESIDUAL_SCALE;
            k[bx] = (1.0f - (1.0f - trust) * (moved < 1.0f ? moved : 1.0f)) / (1.0f + miss * miss);
        }
    }
}

/* --- the call --------------------------------------------------------------------------------------------------- */

#define MAX_STAGES (MAX_LEVELS + 1)

static int stage_plan(Stage *stages, const Level *levels, int count, int block)
{
    int n = 0;
    for (int l = count - 1; l >= 0; l--) {
        int first = l == 0 && block == 8 ? 8 : 4;
        int last = l == 0 ? block : 4;
        for (int step = first; step >= last && step >= 2; step /= 2) {
            Stage *s = &stages[n++];
            s->level = l, s->step = step;
            s->rows = (levels[l].height + step - 1) / step;
            s->cols = (levels[l].width + step - 1) / step;
        }
    }
    return n;
}

static int check_shape(const Plane *p, Py_ssize_t rows, Py_ssize_t cols, const char *name)
{
    if (p->rows == rows && p->cols == cols)
        return 0;
    PyErr_Format(PyExc_ValueError, "%s: expected %zd rows of %zd items, got %zd of %zd", name, rows, cols, p->rows, p->cols);
    return -1;
}

static PyObject *estimate(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *objects[6];
    Settings settings;
    if (!PyArg_ParseTuple(args, "OOOOOOiiii", &objects[0], &objects[1], &objects[2], &objects[3], &objects[4], &objects[5],
                          &settings.block, &settings.levels, &settings.search, &settings.penalty))
        return NULL;
    static const char *names[6] = {"previous", "current", "hint", "vectors", "residual", "confidence"};
    static const char formats[6] = {'B', 'B', 'h', 'f', 'f', 'f'};
    Plane planes[6];
    int held = 0;
    unsigned char *memory = NULL;
    PyObject *result = NULL;
    int has_hint = objects[2] != Py_None;
    for (held = 0; held < 6; held++) {
        if (held == 2 && !has_hint)
            continue;
        if (plane_get(&planes[held], objects[held], formats[held], held >= 3, names[held]) < 0)
            goto done;
    }
    Py_ssize_t height = planes[0].rows, width = planes[0].cols;
    if (check_shape(&planes[1], height, width, "current") < 0)
        goto done;
    if (width < 1 || height < 1 || width > 2048 || height > 2048) {
        PyErr_Format(PyExc_ValueError, "luma grid: 1 to 2048 pixels a side, got %zdx%zd", width, height);
        goto done;
    }
    if ((settings.block != 2 && settings.block != 4 && settings.block != 8) || settings.levels < 1 ||
        settings.levels > MAX_LEVELS || settings.search < 0 || settings.search > 16 || settings.penalty < 0 ||
        settings.penalty > 4096) {
        PyErr_SetString(PyExc_ValueError, "settings out of range");
        goto done;
    }

    Level previous[MAX_LEVELS], current[MAX_LEVELS];
    size_t bytes = 0;
    int count = 0;
    for (int w = (int)width, h = (int)height; count < settings.levels && (count == 0 || (w >= SIDE_MIN && h >= SIDE_MIN));
         w = (w + 1) / 2, h = (h + 1) / 2, count++) {
        bytes += level_bytes(w, h);
        previous[count].width = current[count].width = w;
        previous[count].height = current[count].height = h;
    }
    Stage stages[MAX_STAGES];
    int stage_count = stage_plan(stages, current, count, settings.block);
    const Stage *finest = &stages[stage_count - 1];
    settings.finest = finest;
    size_t blocks = (size_t)finest->rows * finest->cols, all_blocks = 0;
    for (int i = 0; i < stage_count; i++)
        all_blocks += (size_t)stages[i].rows * stages[i].cols;
    if ((has_hint && check_shape(&planes[2], finest->rows, 2 * (Py_ssize_t)finest->cols, "hint") < 0) ||
        check_shape(&planes[3], finest->rows, 2 * (Py_ssize_t)finest->cols, "vectors") < 0 ||
        check_shape(&planes[4], finest->rows, finest->cols, "residual") < 0 ||
        check_shape(&planes[5], finest->rows, finest->cols, "confidence") < 0)
        goto done;
    if (has_hint && planes[2].stride != 4 * (Py_ssize_t)finest->cols) {
        PyErr_SetString(PyExc_ValueError, "hint: must be contiguous");
        goto done;
    }
    memory = malloc(2 * bytes + (all_blocks + 2 * blocks) * sizeof(Vector) + blocks * sizeof(float) + 64);
    if (!memory) {
        PyErr_NoMemory();
        goto done;
    }

    Py_BEGIN_ALLOW_THREADS
    float *texture = (float *)memory;
    Vector *v = (Vector *)(texture + blocks), *q = v, *smooth = v + blocks;
    v += 2 * blocks;
    for (int i = 0; i < stage_count; i++) {
        stages[i].vectors = v;
        v += (size_t)stages[i].rows * stages[i].cols;
    }
    unsigned char *pictures = (unsigned char *)v;
    pyramid_build(previous, count, &planes[0], pictures);
    pyramid_build(current, count, &planes[1], pictures + bytes);
    const Vector *hint = has_hint ? (const Vector *)planes[2].data : NULL;
    match_top(&stages[0], &previous[count - 1], &current[count - 1], &settings);
    for (int i = 1; i < stage_count; i++) {
        int l = stages[i].level;
        match_refine(&stages[i], &stages[i - 1], &previous[l], &current[l], hint, &settings);
    }
    subpixel(finest, &previous[0], &current[0], q, texture);
    median3x3(q, smooth, finest->rows, finest->cols);
    finish(finest, &previous[0], &current[0], smooth, texture, &planes[3], &planes[4], &planes[5]);
    Py_END_ALLOW_THREADS

    result = Py_None;
    Py_INCREF(result);
done:
    free(memory);
    for (int i = 0; i < held; i++)
        if (i != 2 || has_hint)
            plane_release(&planes[i]);
    return result;
}

static PyMethodDef methods[] = {
    {"estimate", estimate, METH_VARARGS,
     "estimate(previous, current, hint, vectors, residual, confidence, block_px, levels, search_px, penalty)\n\n"
     "Fills vectors, residual and confidence of the backward block flow; see edge_seg.flow.estimate."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_flow", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__flow(void) { return PyModule_Create(&module); }
