/* The background as it was seen without a person, and what a picture says when it is compared with it:
 * edge_seg/plate_reference.py says what is computed.
 *
 * Rows come in strips. Where the model sees nobody and nothing differs nothing can be said: such blocks are only learnt.
 */
#include "_fusion.h"

#define REACH 2
#define EDGE 0.32f
#define QUARTER 0.25f        /* squared differences are kept as whole quarters, so that they fit 16 bits */
#define MOST_APART 32767.0f
#define NOISE 50
#define SAME 50
#define EMPTY 0.25f
#define KNOWN 10
#define SEEN 30
#define LOSS 2
#define MEMORY 0.9
#define LEAST 0.07f
#define MOST 50.0f
#define DOUBT 3
#define PRIOR 500
#define LEVEL (1.0f / 256)
#define ROWS 4               /* of a strip: the first of them is counted, for all */
#define BLOCK 16             /* columns that are looked at together */
#define RING 8               /* rows of differences that are kept: those of a strip, and REACH above and below */

enum { OCCUPIED, OTHER, ALIKE };   /* what was seen of an element's background: nothing, another colour, the same */

typedef struct {
    Plane luma, chroma_u, chroma_v, plate_luma, plate_u, plate_v, seen;
    Plane probability, measured, weighed, variance;
    float chroma, noise;
    double *sums;            /* of what differs and of all, weighted: background, then person */
    int rows, cols, blocks;
    /* scratch: rows with a rim of REACH, and a block more than is wanted */
    int16_t *apart[RING];    /* quarters of squared differences */
    int16_t *across;         /* the greatest of each column */
    int16_t *around;         /* the greatest of 5x5 */
    int32_t *found;          /* of the strip, of each column: whether anything can be said there */
    float *counts;           /* 4 rows */
    unsigned char *state;    /* of the strip's elements */
    unsigned char *worth;    /* of each block of the strip: whether anything can be said there */
    Py_ssize_t stride;
} Evidence;

static inline int16_t *apart_at(const Evidence *e, int y) { return e->apart[clamp(y, 0, e->rows - 1) % RING]; }

WIDE static void row_compare(const unsigned char *restrict a, const unsigned char *restrict b, const unsigned char *restrict au,
                             const unsigned char *restrict bu, const unsigned char *restrict av, const unsigned char *restrict bv,
                             float chroma, int cols, int16_t *restrict out)
{
    for (int x = 0; x < cols; x++) {
        int d = a[x] - b[x], f = au[x] - bu[x], g = av[x] - bv[x];
        float apart = ((float)(d * d) + chroma * (float)(f * f + g * g)) * QUARTER;
        out[x] = (int16_t)(int)(apart < MOST_APART ? apart : MOST_APART);
    }
}

static void apart_fill(const Evidence *e, int y)
{
    int16_t *row = e->apart[y % RING];
    row_compare(bytes_at(&e->luma, y), bytes_at(&e->plate_luma, y), bytes_at(&e->chroma_u, y), bytes_at(&e->plate_u, y),
                bytes_at(&e->chroma_v, y), bytes_at(&e->plate_v, y), e->chroma, e->cols, row);
    for (int i = 1; i <= REACH; i++) {
        row[-i] = row[0];
        row[e->cols - 1 + i] = row[e->cols - 1];
    }
}

INLINED int16_t higher(int16_t a, int16_t b) { return a > b ? a : b; }

/* The greatest of 5x5 in the columns [x0, x1). */
WIDE static void around_fill(const int16_t *restrict a, const int16_t *restrict b, const int16_t *restrict c, const int16_t *restrict d,
                             const int16_t *restrict e, int16_t *restrict across, int16_t *restrict around, int x0, int x1)
{
    for (int x = x0 - REACH; x < x1 + REACH; x++)
        across[x] = higher(higher(higher(a[x], b[x]), higher(c[x], d[x])), e[x]);
    for (int x = x0; x < x1; x++)
        around[x] = higher(higher(higher(across[x - 2], across[x - 1]), higher(across[x], across[x + 1])), across[x + 2]);
}

/* The difference from which on an element is more person than background. */
INLINED float half_of(int16_t greatest)
{
    float half = EDGE * (float)greatest;
    return half > NOISE ? half : NOISE;
}

INLINED float known_of(unsigned char seen)
{
    float known = (float)seen * (1.0f / KNOWN);
    return known < 1 ? known : 1;
}

/* Adds to the sums of each column: one sum of all would not be vectorized. */
WIDE static void row_count(const int16_t *restrict apart, const int16_t *restrict around, const unsigned char *restrict seen,
                           const float *restrict p, int cols, float *restrict b1, float *restrict b0, float *restrict f1, float *restrict f0)
{
    for (int x = 0; x < cols; x++) {
        float a = (float)apart[x], differs = a / (a + half_of(around[x]));
        float known = known_of(seen[x]), empty = known * (1 - p[x]), full = known * p[x];
        b1[x] += empty * differs;
        b0[x] += empty;
        f1[x] += full * differs;
        f0[x] += full;
    }
}

/* How often background and person differ from the plate, and what is made of it. */
typedef struct { float background, person, trust, noise; } Odds;

/* `count` elements. Their variances, if they have some of their own, change with them (r, or NULL). */
INLINED void elements_weigh(const int16_t *restrict apart, const int16_t *restrict around, const unsigned char *restrict seen,
                            const Odds *odds, const int count, float *restrict z, float *restrict r)
{
    const float b = odds->background, f = odds->person, trust = odds->trust, noise = 4 * odds->noise;
    float change[BLOCK];
    for (int x = 0; x < count; x++) {
        float a = (float)apart[x], half = half_of(around[x]);
        float rate = (f * a + (1 - f) * half) / (b * a + (1 - b) * half);
        float cube = rate * rate * rate, ratio = limit(cube * cube, LEAST, MOST);
        float doubt = limit((z[x] - EMPTY) * (1 / EMPTY), 0, 1);
        float up = ratio > 1 ? ratio : 1, down = ratio < 1 ? ratio : 1;
        float gain = ((up - 1) + (down - 1) * doubt) * known_of(seen[x]) * trust;
        float from = z[x] > LEVEL ? z[x] : LEVEL;
        float to = z[x] + from * (1 - from) * gain / (1 + from * gain);
        change[x] = to * (1 - to) - z[x] * (1 - z[x]);
        z[x] = to;
    }
    if (r)
        for (int x = 0; x < count; x++)
            r[x] += noise * change[x];
}

/* In the columns [x0, x1), where x0 begins a block. */
WIDE static void row_weigh(const int16_t *apart, const int16_t *around, const unsigned char *seen, const Odds *odds, int x0, int x1,
                           float *z, float *r)
{
    int x = x0;
    for (; x + BLOCK <= x1; x += BLOCK)
        elements_weigh(apart + x, around + x, seen + x, odds, BLOCK, z + x, r ? r + x : NULL);
    if (x < x1)
        elements_weigh(apart + x, around + x, seen + x, odds, x1 - x, z + x, r ? r + x : NULL);
}

INLINED unsigned char towards(unsigned char from, unsigned char to) { return (unsigned char)(from + (to > from) - (to < from)); }

WIDE static void plane_learn(const unsigned char *restrict a, const unsigned char *restrict seen, const unsigned char *restrict state,
                             int cols, unsigned char *restrict b)
{
    for (int x = 0; x < cols; x++) {
        unsigned char nearer = towards(b[x], a[x]), anew = seen[x] <= LOSS ? a[x] : b[x];
        b[x] = state[x] == ALIKE ? nearer : state[x] == OTHER ? anew : b[x];
    }
}

WIDE static void seen_learn(const unsigned char *restrict state, int cols, unsigned char *restrict seen)
{
    for (int x = 0; x < cols; x++) {
        unsigned char more = (unsigned char)(seen[x] + (seen[x] < SEEN)), less = (unsigned char)(seen[x] > LOSS ? seen[x] - LOSS : 0);
        seen[x] = state[x] == ALIKE ? more : state[x] == OTHER ? less : seen[x];
    }
}

static void row_learn(const Evidence *e, int y, const unsigned char *state)
{
    unsigned char *seen = e->seen.data + y * e->seen.stride;
    plane_learn(bytes_at(&e->luma, y), seen, state, e->cols, e->plate_luma.data + y * e->plate_luma.stride);
    plane_learn(bytes_at(&e->chroma_u, y), seen, state, e->cols, e->plate_u.data + y * e->plate_u.stride);
    plane_learn(bytes_at(&e->chroma_v, y), seen, state, e->cols, e->plate_v.data + y * e->plate_v.stride);
    seen_learn(state, e->cols, seen);
}

/* What was seen of the background of each element, and, added to what was found in its column, whether anything can be said
 * there. */
WIDE static void row_judge(const int16_t *restrict apart, const float *restrict z, const unsigned char *restrict seen, int cols,
                           unsigned char *restrict state, int32_t *restrict found)
{
    for (int x = 0; x < cols; x++) {
        int vacant = z[x] < EMPTY, same = apart[x] < SAME;
        state[x] = (unsigned char)(vacant + (vacant & same));
        found[x] |= ((vacant ^ 1) | (apart[x] > NOISE)) & (seen[x] > 0);
    }
}

/* Judges a strip, and marks its blocks in which something can be said. */
WIDE static void strip_judge(const Evidence *e, int y0, int y1)
{
    int32_t *restrict found = e->found;
    memset(found, 0, sizeof(int32_t) * (size_t)e->stride);
    for (int y = y0; y < y1; y++)
        row_judge(apart_at(e, y), floats_at(&e->measured, y), bytes_at(&e->seen, y), e->cols, e->state + (y - y0) * e->cols, found);
    for (int block = 0; block < e->blocks; block++) {
        int32_t any = 0;
        for (int x = block * BLOCK; x < (block + 1) * BLOCK; x++)
            any |= found[x];
        e->worth[block] = (unsigned char)any;
    }
}

static void row_handle(const Evidence *e, int y, const Odds *odds, const unsigned char *state, int counted)
{
    const int16_t *apart = apart_at(e, y);
    float *z = floats_at(&e->weighed, y), *r = e->variance.data ? floats_at(&e->variance, y) : NULL;
    if (counted) {
        float *counts = e->counts;
        around_fill(apart_at(e, y - 2), apart_at(e, y - 1), apart, apart_at(e, y + 1), apart_at(e, y + 2), e->across, e->around, 0, e->cols);
        row_count(apart, e->around, bytes_at(&e->seen, y), floats_at(&e->probability, y), e->cols, counts, counts + e->cols,
                  counts + 2 * e->cols, counts + 3 * e->cols);
    }
    memcpy(z, floats_at(&e->measured, y), sizeof(float) * (size_t)e->cols);
    for (int block = 0, end; block < e->blocks; block = end + 1) {
        for (end = block; end < e->blocks && e->worth[end];)
            end++;
        const int x0 = block * BLOCK, x1 = least(end * BLOCK, e->cols);
        if (x1 <= x0)
            continue;
        if (!counted)
            around_fill(apart_at(e, y - 2), apart_at(e, y - 1), apart, apart_at(e, y + 1), apart_at(e, y + 2), e->across, e->around, x0, x1);
        row_weigh(apart, e->around, bytes_at(&e->seen, y), odds, x0, x1, z, r);
    }
    row_learn(e, y, state);
}

static int evidence_run(Evidence *e)
{
    e->blocks = (e->cols + BLOCK - 1) / BLOCK;
    e->stride = e->blocks * BLOCK + 2 * REACH + BLOCK;
    const size_t stride = (size_t)e->stride, cols = (size_t)e->cols;
    float *floats = malloc(sizeof(float) * 4 * cols);
    int16_t *wholes = malloc(sizeof(int16_t) * (RING + 2) * stride);
    e->state = malloc(ROWS * cols + (size_t)e->blocks);
    e->found = malloc(sizeof(int32_t) * stride);
    const int done = floats && wholes && e->state && e->found;
    if (done) {
        e->counts = floats;
        memset(e->counts, 0, sizeof(float) * 4 * cols);
        for (int i = 0; i < RING; i++)
            e->apart[i] = wholes + i * e->stride + REACH;
        e->across = wholes + RING * e->stride + REACH;
        e->around = e->across + e->stride;
        e->worth = e->state + ROWS * cols;
        const float background = (float)((e->sums[0] + PRIOR) / (e->sums[1] + 2 * PRIOR)), person = (float)((e->sums[2] + PRIOR) / (e->sums[3] + 2 * PRIOR));
        const Odds odds = {background, person > background ? person : background, limit(1 - DOUBT * background, 0, 1), e->noise};
        int filled = 0;
        for (int y0 = 0; y0 < e->rows; y0 += ROWS) {
            const int y1 = least(y0 + ROWS, e->rows);
            for (; filled < least(y1 + REACH, e->rows); filled++)
                apart_fill(e, filled);
            strip_judge(e, y0, y1);
            for (int y = y0; y < y1; y++)
                row_handle(e, y, &odds, e->state + (y - y0) * e->cols, y == y0);
        }
        for (int i = 0; i < 4; i++) {
            double sum = 0;
            for (int x = 0; x < e->cols; x++)
                sum += (double)e->counts[i * e->cols + x];
            e->sums[i] = MEMORY * e->sums[i] + ROWS * sum;
        }
    }
    free(e->found);
    free(e->state);
    free(wholes);
    free(floats);
    return done ? 0 : -1;
}

static PyObject *plate_evidence(PyObject *module, PyObject *args)
{
    (void)module;
    Evidence e;
    Plane sums;
    enum { ON_GRID = 11, SUMS = ON_GRID, ARRAYS };
    Argument a[ARRAYS] = {
        {NULL, &e.luma, 'B', READ, "luma"}, {NULL, &e.chroma_u, 'B', READ, "u"}, {NULL, &e.chroma_v, 'B', READ, "v"},
        {NULL, &e.plate_luma, 'B', WRITE, "plate luma"}, {NULL, &e.plate_u, 'B', WRITE, "plate u"},
        {NULL, &e.plate_v, 'B', WRITE, "plate v"}, {NULL, &e.seen, 'B', WRITE, "seen"},
        {NULL, &e.probability, 'f', READ, "probability"}, {NULL, &e.measured, 'f', READ, "measured"},
        {NULL, &e.weighed, 'f', WRITE, "weighed"}, {NULL, &e.variance, 'f', MAYBE, "variance"}, {NULL, &sums, 'd', WRITE, "sums"},
    };
    if (!PyArg_ParseTuple(args, "(OOO)(OOO)OOOOOOff", &a[0].array, &a[1].array, &a[2].array, &a[3].array, &a[4].array, &a[5].array,
                          &a[6].array, &a[7].array, &a[8].array, &a[9].array, &a[10].array, &a[11].array, &e.chroma, &e.noise))
        return NULL;
    if (arguments_get(a, ARRAYS) < 0)
        return NULL;
    PyObject *result = NULL;
    if (one_grid(a, ON_GRID) < 0)
        goto end;
    if (sums.rows != 1 || sums.cols != 4) {
        PyErr_SetString(PyExc_ValueError, "sums: expected shape (4,)");
        goto end;
    }
    e.sums = (double *)(void *)sums.data;
    e.rows = (int)e.luma.rows;
    e.cols = (int)e.luma.cols;
    int failed;
    Py_BEGIN_ALLOW_THREADS
    failed = evidence_run(&e);
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
    {"evidence", plate_evidence, METH_VARARGS,
     "evidence((y, u, v), (y, u, v) plate, seen, probability, measured, weighed, variance or None, sums, chroma, noise)"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_plate", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__plate(void) { return module_create(&module); }
