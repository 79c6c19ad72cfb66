/* The matte's local colour models: for each grid node in the band, the linear function of the colour that best
 * explains the mask in the window around it. edge_seg/matte.py explains the method and holds the reference in
 * NumPy and OpenCV; both differ by rounding only.
 *
 * Column sums slide down the grid; rows are handled in blocks of 8 nodes, and blocks without a node of the band
 * in reach are skipped. Fields are kept apart (structure of arrays), so every loop over a block vectorises.
 */
#include "_buffers.h"
#include <math.h>

enum { WEIGHT, MASK, IY, IU, IV, YY, YU, YV, UU, UV, VV, MY, MU, MV, MOMENTS };
#define BLOCK 8
#define FITS 4     /* gain of y, u, v, and offset */
#define MAX_RADIUS 16
#define MAX_SIDE 4096

typedef struct {
    int rows, cols, radius, smoothing, passes;
    int step; /* 2: every other row is learnt from and fitted, and averaging fills the rows between */
    float epsilon, chroma_scale, weight_floor, low, high, sharpness, level, steepest, negligible;
} Task;

typedef struct {
    float *gain[3], *offset; /* rows x cols, contiguous */
    uint8_t *colour[3];      /* rows x cols, contiguous */
} Result;

typedef struct {
    int stride;      /* of all padded rows: MAX_RADIUS + cols rounded up to blocks + MAX_RADIUS */
    float *sums;     /* MOMENTS rows: column sums over the window's rows */
    float *row_sum;  /* 1 row: column sums of the uncertainty */
    float *mask;     /* rows x cols: the mask, with its ends drawn out to 0 and 1 */
    float *fits;     /* FITS x kept x stride: the newest rows of fits, row by row modulo `kept` */
    int kept;        /* as many as are averaged */
    float *share;    /* rows x stride: how far the fit replaces the mask, 0 to 1 */
    uint8_t *needed; /* rows x blocks: whether anyone uses what is computed for the block */
    uint8_t *kind;   /* rows x stride: what each node is, 0 beyond the grid */
    float *window_part; /* 1 row: 1 / how many columns of the window are in the grid, 0 beyond the grid */
    float *smooth_part; /* 1 row: the same for averaging */
    int blocks;
    int first_block, last_block, first_row, last_row; /* what holds everything needed, ends excluded */
} Work;

/* Adds (sign 1) or removes (sign -1) one grid row to the column sums, block by block. Colours are centred, so that
 * variances do not drown in rounding. */
static void slide(const Task *t, const Work *w, const float *restrict mask, const uint8_t *restrict y,
                  const uint8_t *restrict u, const uint8_t *restrict v, float sign)
{
    const float floor = t->weight_floor, chroma = t->chroma_scale / 255.0f;
    for (int block = w->first_block; block < w->last_block; block++) {
        int start = block * BLOCK, count = t->cols - start < BLOCK ? t->cols - start : BLOCK;
        float p[BLOCK] = {0}, term[MOMENTS][BLOCK];
        uint8_t py[BLOCK] = {0}, pu[BLOCK] = {0}, pv[BLOCK] = {0};
        memcpy(p, mask + start, sizeof(float) * (size_t)count);
        memcpy(py, y + start, (size_t)count);
        memcpy(pu, u + start, (size_t)count);
        memcpy(pv, v + start, (size_t)count);
        for (int i = 0; i < BLOCK; i++) {
            float m = p[i], certainty = fabsf(2 * m - 1);
            float weight = i < count ? sign * (certainty + floor) : 0;
            float a = (float)(py[i] - 128) * (1 / 255.0f), b = (float)(pu[i] - 128) * chroma;
            float c = (float)(pv[i] - 128) * chroma;
            float wa = weight * a, wb = weight * b, wc = weight * c;
            term[WEIGHT][i] = weight;
            term[MASK][i] = weight * m;
            term[IY][i] = wa;
            term[IU][i] = wb;
            term[IV][i] = wc;
            term[YY][i] = wa * a;
            term[YU][i] = wa * b;
            term[YV][i] = wa * c;
            term[UU][i] = wb * b;
            term[UV][i] = wb * c;
            term[VV][i] = wc * c;
            term[MY][i] = wa * m;
            term[MU][i] = wb * m;
            term[MV][i] = wc * m;
        }
        for (int k = 0; k < MOMENTS; k++) {
            float *sums = w->sums + k * w->stride + MAX_RADIUS + start;
            for (int i = 0; i < BLOCK; i++)
                sums[i] += term[k][i];
        }
    }
}

static inline float clamp(float value, float limit)
{
    value = value < limit ? value : limit;
    return value > -limit ? value : -limit;
}

/* Solves (covariance + epsilon) gain = covariance with the mask, by Cramer's rule, for a block of nodes. */
static void solve(const Task *t, const float sum[MOMENTS][BLOCK], float *fits, Py_ssize_t plane)
{
    float fit[FITS][BLOCK];
    for (int i = 0; i < BLOCK; i++) {
        float scale = 1 / (sum[WEIGHT][i] > 1e-6f ? sum[WEIGHT][i] : 1e-6f);
        float m = sum[MASK][i] * scale, a = sum[IY][i] * scale, b = sum[IU][i] * scale, c = sum[IV][i] * scale;
        float yy = sum[YY][i] * scale - a * a + t->epsilon, yu = sum[YU][i] * scale - a * b;
        float yv = sum[YV][i] * scale - a * c, uu = sum[UU][i] * scale - b * b + t->epsilon;
        float uv = sum[UV][i] * scale - b * c, vv = sum[VV][i] * scale - c * c + t->epsilon;
        float my = sum[MY][i] * scale - m * a, mu = sum[MU][i] * scale - m * b, mv = sum[MV][i] * scale - m * c;
        float c00 = uu * vv - uv * uv, c01 = uv * yv - yu * vv, c02 = yu * uv - uu * yv;
        float c11 = yy * vv - yv * yv, c12 = yu * yv - yy * uv, c22 = yy * uu - yu * yu;
        float determinant = yy * c00 + yu * c01 + yv * c02;
        /* The smallest it can be is epsilon cubed; rounding may say less. */
        float smallest = t->epsilon * t->epsilon * t->epsilon;
        float inverse = 1 / (determinant > smallest ? determinant : smallest);
        float gy = (c00 * my + c01 * mu + c02 * mv) * inverse;
        float gu = (c01 * my + c11 * mu + c12 * mv) * inverse;
        float gv = (c02 * my + c12 * mu + c22 * mv) * inverse;
        gy = clamp(gy, t->steepest);
        gu = clamp(gu, t->steepest);
        gv = clamp(gv, t->steepest);
        fit[0][i] = gy;
        fit[1][i] = gu;
        fit[2][i] = gv;
        fit[3][i] = m - gy * a - gu * b - gv * c;
    }
    for (int k = 0; k < FITS; k++)
        memcpy(fits + k * plane, fit[k], sizeof fit[k]);
}

/* What the person's colour is where the picture shows half person, half room: blur fusion's F + (F - B) / 2, with
 * F and B the mean colours of person and room in the window (edge_seg/matte.py cites it). */
static void foreground(const float sum[MOMENTS][BLOCK], int centred, int product, float scale, uint8_t *colour, int count)
{
    for (int i = 0; i < count; i++) {
        /* A little of everything in both means: they stay defined where there is no person, or no room. */
        float share = sum[WEIGHT][i] * 0.02f + 1e-6f, all = sum[centred][i], person = sum[product][i];
        float front = (person + 0.02f * all) / (sum[MASK][i] + share);
        float back = (1.02f * all - person) / (sum[WEIGHT][i] - sum[MASK][i] + share);
        float value = (front + 0.5f * (front - back)) * scale + 128.5f;
        colour[i] = (uint8_t)(int)(value < 16 ? 16 : value > 240 ? 240 : value);
    }
}

static inline void fit_row(const Task *t, const Work *w, int row, const Result *r, const int radius)
{
    const int twice = t->step == 2 && row + 1 < t->rows;
    Py_ssize_t plane = (Py_ssize_t)w->kept * w->stride;
    float sum[MOMENTS][BLOCK];
    for (int block = 0; block < w->blocks; block++) {
        if (!w->needed[row * w->blocks + block])
            continue;
        int start = block * BLOCK, count = t->cols - start < BLOCK ? t->cols - start : BLOCK;
        for (int k = 0; k < MOMENTS; k++) {
            const float *column = w->sums + k * w->stride + MAX_RADIUS + start;
            float total[BLOCK] = {0};
            for (int d = -radius; d <= radius; d++)
                for (int i = 0; i < BLOCK; i++)
                    total[i] += column[i + d];
            memcpy(sum[k], total, sizeof total);
        }
        const float(*sums)[BLOCK] = (const float(*)[BLOCK])sum;
        float *fits = w->fits + row % w->kept * w->stride + MAX_RADIUS + start;
        solve(t, sums, fits, plane);
        for (int k = 0; k < FITS; k++) /* beyond the grid */
            memset(fits + k * plane + count, 0, sizeof(float) * (size_t)(BLOCK - count));
        for (int k = 0; k < 3; k++) {
            uint8_t *colour = r->colour[k] + (Py_ssize_t)row * t->cols + start;
            foreground(sums, IY + k, MY + k, k ? 255 / t->chroma_scale : 255, colour, count);
            if (twice)
                memcpy(colour + t->cols, colour, (size_t)count);
        }
    }
}

/* How far the fit replaces the mask: from the mean uncertainty 4 p (1 - p) in the window. */
static void share_row(const Task *t, const Work *w, int row)
{
    float *share = w->share + (Py_ssize_t)row * w->stride + MAX_RADIUS;
    int top = row - t->radius < 0 ? 0 : row - t->radius;
    int bottom = row + t->radius >= t->rows ? t->rows - 1 : row + t->radius;
    float slope = 1 / (t->high - t->low), threshold = t->low * slope;
    float per_row = slope / (float)(bottom - top + 1);
    for (int block = 0; block < w->blocks; block++) {
        float total[BLOCK] = {0};
        for (int d = -t->radius; d <= t->radius; d++)
            for (int i = 0; i < BLOCK; i++)
                total[i] += w->row_sum[MAX_RADIUS + block * BLOCK + i + d];
        const float *part = w->window_part + MAX_RADIUS + block * BLOCK;
        for (int i = 0; i < BLOCK; i++) {
            float value = total[i] * part[i] * per_row - threshold;
            value = value < 0 ? 0 : value;
            share[block * BLOCK + i] = value > 1 ? 1 : value;
        }
    }
}

static void add_uncertainty(const Task *t, const Work *w, const float *mask, float sign)
{
    float *restrict sum = w->row_sum + MAX_RADIUS;
    for (int x = 0; x < t->cols; x++)
        sum[x] += sign * 4 * mask[x] * (1 - mask[x]);
}

enum { SOME = 1, NOT_ALL = 2, FITTED = 4 }; /* of the person; together, nothing is sure */

/* What is blended, or fitted, or beside such a node, is wanted; and so are the fits that are averaged there. */
static void mark_needed(const Task *t, Work *w)
{
    const int reach = t->smoothing > 2 ? t->smoothing : 2;
    memset(w->needed, 0, (size_t)t->rows * (size_t)w->blocks);
    w->first_block = w->blocks;
    w->first_row = t->rows;
    w->last_block = w->last_row = 0;
    for (int row = 0; row < t->rows; row++) {
        const float *share = w->share + (Py_ssize_t)row * w->stride + MAX_RADIUS;
        const float *mask = w->mask + (Py_ssize_t)row * t->cols;
        uint8_t *kind = w->kind + (Py_ssize_t)row * w->stride + MAX_RADIUS;
        for (int x = 0; x < t->cols; x++)
            kind[x] = (uint8_t)((mask[x] > 0) * SOME | (mask[x] < 1) * NOT_ALL | (share[x] > 0) * FITTED);
    }
    for (int row = 0; row < t->rows; row++) {
        const uint8_t *kind = w->kind + (Py_ssize_t)row * w->stride + MAX_RADIUS;
        const uint8_t *below = row + 1 < t->rows ? kind + w->stride : kind;
        int top = row - reach < 0 ? 0 : row - reach, bottom = row + 1 + reach < t->rows ? row + 1 + reach : t->rows - 1;
        for (int block = 0; block < w->blocks; block++) {
            uint8_t any = 0;
            for (int x = block * BLOCK - reach; x < (block + 1) * BLOCK + reach; x++)
                any |= kind[x] | below[x];
            if (any == SOME || any == NOT_ALL) /* all person, or all room */
                continue;
            for (int y = top; y <= bottom; y++)
                w->needed[y * w->blocks + block] = 1;
            w->first_block = block < w->first_block ? block : w->first_block;
            w->last_block = block + 1 > w->last_block ? block + 1 : w->last_block;
            w->first_row = top < w->first_row ? top : w->first_row;
            w->last_row = bottom + 1; /* never less than before */
        }
    }
    /* Windows reach into the blocks beside. */
    const int beside = (t->radius + BLOCK - 1) / BLOCK;
    w->first_block = w->first_block > beside ? w->first_block - beside : 0;
    w->last_block = w->last_block + beside < w->blocks ? w->last_block + beside : w->blocks;
}

static inline void finish_row(const Task *t, const Work *w, int row, const Result *r, const int s)
{
    const float *mask = w->mask + (Py_ssize_t)row * t->cols;
    Py_ssize_t plane = (Py_ssize_t)w->kept * w->stride, at = (Py_ssize_t)row * t->cols;
    int top = row - s < 0 ? 0 : row - s, bottom = row + s >= t->rows ? t->rows - 1 : row + s;
    top += top % t->step;
    const float per_row = 1 / (float)((bottom - top) / t->step + 1);
    const float *share = w->share + (Py_ssize_t)row * w->stride + MAX_RADIUS;
    for (int block = 0; block < w->blocks; block++) {
        int start = block * BLOCK, count = t->cols - start < BLOCK ? t->cols - start : BLOCK;
        float most = 0;
        for (int i = 0; i < BLOCK; i++)
            most = share[start + i] > most ? share[start + i] : most;
        if (most == 0) {
            for (int k = 0; k < 3; k++)
                memset(r->gain[k] + at + start, 0, sizeof(float) * (size_t)count);
            memcpy(r->offset + at + start, mask + start, sizeof(float) * (size_t)count);
            continue;
        }
        float mean[FITS][BLOCK];
        for (int k = 0; k < FITS; k++) {
            float column[BLOCK + 2 * MAX_RADIUS] = {0}, total[BLOCK] = {0};
            for (int y = top; y <= bottom; y += t->step) {
                const float *fits = w->fits + k * plane + y % w->kept * w->stride + MAX_RADIUS + start - s;
                for (int i = 0; i < BLOCK + 2 * s; i++)
                    column[i] += fits[i];
            }
            for (int d = 0; d <= 2 * s; d++)
                for (int i = 0; i < BLOCK; i++)
                    total[i] += column[i + d];
            const float *part = w->smooth_part + MAX_RADIUS + start;
            for (int i = 0; i < BLOCK; i++)
                mean[k][i] = total[i] * part[i] * per_row;
        }
        float old[BLOCK] = {0};
        memcpy(old, mask + start, sizeof(float) * (size_t)count);
        for (int i = 0; i < BLOCK; i++) {
            float part = share[start + i], steep = part * t->sharpness;
            mean[0][i] *= steep;
            mean[1][i] *= steep * t->chroma_scale;
            mean[2][i] *= steep * t->chroma_scale;
            /* Sharpened about one half, and mixed with the mask. */
            mean[3][i] = part * ((mean[3][i] - 0.5f) * t->sharpness + 0.5f) + (1 - part) * old[i];
        }
        for (int k = 0; k < FITS; k++)
            memcpy((k < 3 ? r->gain[k] : r->offset) + at + start, mean[k], sizeof(float) * (size_t)count);
    }
}

/* The loops of the default are unrolled. */
static void finish(const Task *t, const Work *w, int row, const Result *r)
{
    if (t->smoothing == 2)
        finish_row(t, w, row, r, 2);
    else
        finish_row(t, w, row, r, t->smoothing);
}

#define ROW(plane, row) ((plane)->data + (Py_ssize_t)(row) * (plane)->stride)

static void one_pass(const Task *t, Work *w, const Plane *colours, const Result *r)
{
    const int n = t->radius;
    memset(w->sums, 0, sizeof(float) * MOMENTS * (size_t)w->stride);
    memset(w->row_sum, 0, sizeof(float) * (size_t)w->stride);
    for (int row = -n; row < t->rows; row++) {
        if (row + n < t->rows)
            add_uncertainty(t, w, w->mask + (Py_ssize_t)(row + n) * t->cols, 1);
        if (row - n > 0)
            add_uncertainty(t, w, w->mask + (Py_ssize_t)(row - n - 1) * t->cols, -1);
        if (row >= 0)
            share_row(t, w, row);
    }
    mark_needed(t, w);
    for (int row = w->first_row - 2 * n; row < w->last_row + t->smoothing; row++) {
        int entering = row + n, leaving = row - n - 1, averaged = row - t->smoothing;
        if (row < w->last_row) {
            if (entering >= 0 && entering < t->rows && entering >= w->first_row - n && entering % t->step == 0)
                slide(t, w, w->mask + (Py_ssize_t)entering * t->cols, ROW(&colours[0], entering),
                      ROW(&colours[1], entering), ROW(&colours[2], entering), 1);
            if (leaving >= 0 && leaving >= w->first_row - n && leaving % t->step == 0)
                slide(t, w, w->mask + (Py_ssize_t)leaving * t->cols, ROW(&colours[0], leaving),
                      ROW(&colours[1], leaving), ROW(&colours[2], leaving), -1);
            if (row >= w->first_row && row % t->step == 0) {
                if (n == 4) /* the default: its loops are unrolled */
                    fit_row(t, w, row, r, 4);
                else
                    fit_row(t, w, row, r, n);
            }
        }
        if (averaged >= w->first_row && averaged < w->last_row)
            finish(t, w, averaged, r);
    }
    for (int row = 0; row < t->rows; row++)
        if (row < w->first_row || row >= w->last_row)
            finish(t, w, row, r);
}

/* The mask that a pass has made, for the next one. */
static void evaluate(const Task *t, const Work *w, const Plane *colours, const Result *r)
{
    for (int row = 0; row < t->rows; row++) {
        const uint8_t *y = ROW(&colours[0], row), *u = ROW(&colours[1], row), *v = ROW(&colours[2], row);
        Py_ssize_t at = (Py_ssize_t)row * t->cols;
        for (int x = 0; x < t->cols; x++) {
            float a = r->offset[at + x] + (r->gain[0][at + x] * (float)(y[x] - 128) +
                                           r->gain[1][at + x] * (float)(u[x] - 128) +
                                           r->gain[2][at + x] * (float)(v[x] - 128)) * (1 / 255.0f);
            w->mask[at + x] = a < 0 ? 0 : a > 1 ? 1 : a;
        }
    }
}

/* Nodes around which the fit says next to nothing, or next to everything, everywhere: they say just that, and need
 * not be blended. `alpha` is the fit at the nodes, as `evaluate` leaves it in the work's mask. */
static void settle(const Task *t, const Work *w, const Result *r)
{
    const float none = t->negligible, all = 1 - t->negligible;
    for (int row = w->first_row; row < w->last_row; row++) {
        Py_ssize_t at = (Py_ssize_t)row * t->cols;
        const float *here = w->mask + at;
        const float *above = row > 0 ? here - t->cols : here, *below = row + 1 < t->rows ? here + t->cols : here;
        for (int block = 0; block < w->blocks; block++) {
            if (!w->needed[row * w->blocks + block])
                continue;
            int start = block * BLOCK, count = t->cols - start < BLOCK ? t->cols - start : BLOCK;
            float low[BLOCK + 2], high[BLOCK + 2];
            int left = start > 0, right = start + count < t->cols;
            for (int i = -left; i < count + right; i++) {
                float a = above[start + i], b = here[start + i], c = below[start + i];
                float least = a < b ? a : b, most = a > b ? a : b;
                low[i + 1] = least < c ? least : c;
                high[i + 1] = most > c ? most : c;
            }
            if (!left)
                low[0] = low[1], high[0] = high[1];
            if (!right)
                low[count + 1] = low[count], high[count + 1] = high[count];
            for (int i = 0; i < count; i++) {
                float least = low[i] < low[i + 1] ? low[i] : low[i + 1], most = high[i] > high[i + 1] ? high[i] : high[i + 1];
                least = least < low[i + 2] ? least : low[i + 2];
                most = most > high[i + 2] ? most : high[i + 2];
                if (most >= none && least <= all)
                    continue;
                r->offset[at + start + i] = most < none ? 0.0f : 1.0f;
                for (int k = 0; k < 3; k++)
                    r->gain[k][at + start + i] = 0;
            }
        }
    }
}

static void refine(const Task *t, Work *w, const Plane *mask, const Plane *colours, const Result *r)
{
    float scale = 1 / (1 - 2 * t->level);
    for (int row = 0; row < t->rows; row++) {
        const float *p = (const float *)ROW(mask, row);
        float *to = w->mask + (Py_ssize_t)row * t->cols;
        for (int x = 0; x < t->cols; x++) {
            float value = (p[x] - t->level) * scale;
            to[x] = value > 0 ? (value < 1 ? value : 1) : 0; /* NaN becomes 0 */
        }
    }
    for (int pass = 0; pass < t->passes; pass++) {
        if (pass > 0)
            evaluate(t, w, colours, r);
        one_pass(t, w, colours, r);
    }
    evaluate(t, w, colours, r);
    settle(t, w, r);
}

static void *work_create(Work *w, const Task *t)
{
    w->blocks = (t->cols + BLOCK - 1) / BLOCK;
    w->stride = w->blocks * BLOCK + 2 * MAX_RADIUS;
    size_t stride = (size_t)w->stride, rows = (size_t)t->rows;
    w->kept = 2 * t->smoothing + 2; /* even: where every other row is fitted, it keeps its place */
    size_t floats = stride * (MOMENTS + 3 + (size_t)w->kept * FITS + rows) + rows * (size_t)t->cols;
    size_t kinds = rows * stride;
    float *memory = PyMem_Calloc(1, sizeof(float) * floats + rows * (size_t)w->blocks + kinds);
    if (memory == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    w->sums = memory;
    w->row_sum = w->sums + stride * MOMENTS;
    w->window_part = w->row_sum + stride;
    w->smooth_part = w->window_part + stride;
    w->fits = w->smooth_part + stride;
    w->share = w->fits + stride * (size_t)w->kept * FITS;
    w->mask = w->share + stride * rows;
    w->needed = (uint8_t *)(w->mask + rows * (size_t)t->cols);
    w->kind = w->needed + rows * (size_t)w->blocks;
    for (int x = 0; x < t->cols; x++) {
        const int reach[2] = {t->radius, t->smoothing};
        for (int k = 0; k < 2; k++) {
            int left = x < reach[k] ? 0 : x - reach[k], right = x + reach[k] < t->cols ? x + reach[k] : t->cols - 1;
            (k ? w->smooth_part : w->window_part)[MAX_RADIUS + x] = 1 / (float)(right - left + 1);
        }
    }
    return memory;
}

static PyObject *matte_refine(PyObject *self, PyObject *args)
{
    (void)self;
    enum { MASK_ARG, Y_ARG, U_ARG, V_ARG, GAIN_ARG, OFFSET_ARG, COLOUR_ARG, ARRAYS };
    static const char *const names[ARRAYS] = {"mask", "y", "u", "v", "gain", "offset", "colour"};
    static const char formats[ARRAYS] = {'f', 'B', 'B', 'B', 'f', 'f', 'B'};
    PyObject *arrays[ARRAYS];
    Task t;
    if (!PyArg_ParseTuple(args, "OOOOOOOiiifffffffff", &arrays[0], &arrays[1], &arrays[2], &arrays[3], &arrays[4],
                          &arrays[5], &arrays[6], &t.radius, &t.smoothing, &t.passes, &t.epsilon, &t.chroma_scale,
                          &t.weight_floor, &t.low, &t.high, &t.sharpness, &t.level, &t.steepest,
                          &t.negligible))
        return NULL;
    Plane planes[ARRAYS];
    int held = 0;
    PyObject *result = NULL;
    void *memory = NULL;
    for (; held < ARRAYS; held++)
        if (plane_get(&planes[held], arrays[held], formats[held], held >= GAIN_ARG, names[held]) < 0)
            goto done;
    Py_ssize_t rows = planes[0].rows, cols = planes[0].cols;
    if (rows < 1 || cols < 1 || rows > MAX_SIDE || cols > MAX_SIDE || t.radius < 1 || t.radius > MAX_RADIUS ||
        t.smoothing < 0 || t.smoothing > MAX_RADIUS || t.passes < 1 || t.passes > 4 || !(t.epsilon > 0) ||
        !(t.low < t.high) || !(t.weight_floor > 0) || !(t.chroma_scale > 0) || !(t.steepest > 0) || !(t.negligible < 0.5f) || !(t.level >= 0 && t.level < 0.5f)) {
        PyErr_SetString(PyExc_ValueError, "a parameter or a size is out of its range");
        goto done;
    }
    for (int i = 1; i < ARRAYS; i++) {
        int stacked = i == GAIN_ARG || i == COLOUR_ARG;
        Py_ssize_t want_rows = stacked ? 3 : rows, want_cols = stacked ? rows * cols : cols;
        Py_ssize_t item = formats[i] == 'f' ? (Py_ssize_t)sizeof(float) : 1;
        if (planes[i].rows != want_rows || planes[i].cols != want_cols) {
            PyErr_Format(PyExc_ValueError, "%s: expected %s%zdx%zd", names[i], stacked ? "3x" : "", rows, cols);
            goto done;
        }
        if (i >= GAIN_ARG && planes[i].stride != want_cols * item) {
            PyErr_Format(PyExc_ValueError, "%s: must be contiguous", names[i]);
            goto done;
        }
    }
    t.rows = (int)rows;
    t.step = t.smoothing > 0 ? 2 : 1;
    t.cols = (int)cols;
    Result r = {.offset = (float *)planes[OFFSET_ARG].data};
    for (int k = 0; k < 3; k++) {
        r.gain[k] = (float *)planes[GAIN_ARG].data + k * rows * cols;
        r.colour[k] = planes[COLOUR_ARG].data + k * rows * cols;
    }
    Work work;
    memory = work_create(&work, &t);
    if (memory == NULL)
        goto done;
    Py_BEGIN_ALLOW_THREADS
    refine(&t, &work, &planes[MASK_ARG], &planes[Y_ARG], &r);
    Py_END_ALLOW_THREADS
    result = Py_NewRef(Py_None);
done:
    PyMem_Free(memory);
    while (held-- > 0)
        plane_release(&planes[held]);
    return result;
}

static PyMethodDef methods[] = {
    {"refine", matte_refine, METH_VARARGS, "Local colour models of a mask, see edge_seg/matte.py"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_matte", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__matte(void) { return PyModule_Create(&module); }
