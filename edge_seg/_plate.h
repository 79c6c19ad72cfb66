/* The background as it was seen without a person, and what a picture says when it is compared with it:
 * edge_seg/plate_reference.py says what is computed.
 *
 * Rows come in strips, one of tiles each: what is said of one is in the nearest cache when the filter wants it. Where the
 * model sees nobody and nothing differs nothing can be said: that is only learnt.
 */
#ifndef EDGE_SEG_PLATE_H
#define EDGE_SEG_PLATE_H

#include "_bits.h"
#include "_fusion.h"

#define EDGE 0.32f
#define AROUND 2             /* reach of the square in which the greatest difference is looked for */
/* Squared differences are kept as whole quarters, so that they fit 16 bits: those of luma up to 255 * 255 / 4, those of
 * chroma up to what is left. */
#define CHROMA_MOST 127
#define CHROMA_QUARTERS 8064.0f
#define CHROMA_ALONE 16511.0f
#define NOISE 50
#define SAME 50
#define EMPTY 0.25f
#define KNOWN 10
#define SEEN 30
#define LOSS 2
#define MEMORY 0.9
#define LEAST_ODDS 0.07f
#define MOST_ODDS 50.0f
#define COUNTED 8            /* every so many rows are counted, for all */
#define DOUBT 3
#define PRIOR 500
#define LEVEL (1.0f / 256)
#define BLOCK 16             /* columns that are looked at together */
#define RING 8               /* rows that are kept: those of a strip, and what is looked at above and below */

enum { OCCUPIED, OTHER, ALIKE };   /* what was seen of an element's background: nothing, another colour, the same */

/* How often background and person differ from the plate, and what is made of it. */
typedef struct { float background, person, trust, noise; } Odds;

/* How squared differences of chroma count: the most that is told apart, in quarters, and x * lift * factor >> 16. */
typedef struct { int16_t most; uint16_t lift, factor; } Weight;

typedef struct {
    /* arguments */
    Plane luma, u, v;        /* of the plate */
    Plane seen, sums;        /* the sums: of what differs and of all, weighted: background, then person */
    /* scratch: rows with a rim of AROUND, and a block more than is wanted */
    int16_t *apart[RING];    /* quarters of squared differences */
    int16_t *around;         /* of a row: the greatest of the square */
    unsigned char *close;    /* RING rows: those quarters, as far as a byte tells them apart */
    unsigned char *found;    /* of a row: whether anything can be said */
    unsigned char *vacant;   /* of a row: whether the model sees nobody */
    float *counts;           /* 4 rows */
    unsigned char *state;    /* of the strip's elements */
    uint64_t *worth;         /* of the strip's rows: what was found there */
    int *starts;             /* of blocks of a row */
    Odds odds;
    Weight weight;
    int words;               /* from one row of bits to the next */
    int compared;            /* rows before this are in `apart` */
    Py_ssize_t stride;
} Background;

/* What is compared with it. */
typedef struct {
    const Plane *luma, *u, *v, *probability, *measured, *variance;   /* the variance's data may be NULL */
    float chroma;
    int rows, cols;
} Seen;

static inline int16_t *apart_at(const Background *b, int y, int rows) { return b->apart[clamp(y, 0, rows - 1) % RING]; }

static inline Weight weight_of(float chroma)
{
    const float most = chroma > 0 ? CHROMA_ALONE / chroma : CHROMA_QUARTERS;
    Weight w = {(int16_t)(most < CHROMA_QUARTERS ? most : CHROMA_QUARTERS), 1, 0};
    while (w.most * w.lift * 2 < 65536 && w.lift < 32768)
        w.lift = (uint16_t)(2 * w.lift);
    w.factor = (uint16_t)(chroma * (65536.0f / w.lift));
    return w;
}

INLINED unsigned char least_of(unsigned char a, unsigned char b) { return a < b ? a : b; }
INLINED unsigned char most_of(unsigned char a, unsigned char b) { return a > b ? a : b; }

/* Differences are taken in bytes, of which a register holds twice as many as of what they become when they are squared. */
WIDE static void colours_compare(const unsigned char *restrict a, const unsigned char *restrict b, const unsigned char *restrict au,
                                 const unsigned char *restrict bu, const unsigned char *restrict av, const unsigned char *restrict bv,
                                 Weight weight, int cols, int16_t *restrict out, unsigned char *restrict close)
{
    for (int x = 0; x < cols; x++) {
        unsigned char d = (unsigned char)(most_of(a[x], b[x]) - least_of(a[x], b[x]));
        unsigned char f = least_of((unsigned char)(most_of(au[x], bu[x]) - least_of(au[x], bu[x])), CHROMA_MOST);
        unsigned char g = least_of((unsigned char)(most_of(av[x], bv[x]) - least_of(av[x], bv[x])), CHROMA_MOST);
        uint16_t luma = (uint16_t)((uint16_t)(d * d) >> 2);
        int16_t chroma = (int16_t)((uint16_t)(f * f + g * g) >> 2);
        chroma = chroma < weight.most ? chroma : weight.most;
        uint16_t lifted = (uint16_t)(chroma * weight.lift), weighed = (uint16_t)(((uint32_t)lifted * weight.factor) >> 16);
        int16_t apart = (int16_t)(luma + weighed);
        out[x] = apart;
        close[x] = (unsigned char)(apart < 255 ? apart : 255);
    }
}

static void apart_fill(const Background *b, const Seen *s, int y)
{
    int16_t *row = b->apart[y % RING];
    colours_compare(bytes_at(s->luma, y), bytes_at(&b->luma, y), bytes_at(s->u, y), bytes_at(&b->u, y), bytes_at(s->v, y),
                    bytes_at(&b->v, y), b->weight, s->cols, row, b->close + y % RING * b->stride);
    for (int i = 1; i <= AROUND; i++) {
        row[-i] = row[0];
        row[s->cols - 1 + i] = row[s->cols - 1];
    }
}

INLINED int16_t greater(int16_t a, int16_t b) { return a > b ? a : b; }

/* The greatest of 5x5, in a block of the middle one of rows. */
INLINED void block_scan(const int16_t *const rows[2 * AROUND + 1], int x0, int16_t around[BLOCK])
{
    const int16_t *a = rows[0] + x0, *b = rows[1] + x0, *c = rows[2] + x0, *d = rows[3] + x0, *e = rows[4] + x0;
#define COLUMN(x) greater(greater(greater(a[x], b[x]), greater(c[x], d[x])), e[x])
    EACH_LANE(i, BLOCK)
        around[i] = greater(greater(greater(COLUMN(i - 2), COLUMN(i - 1)), greater(COLUMN(i), COLUMN(i + 1))), COLUMN(i + 2));
#undef COLUMN
}

WIDE static void row_scan(const int16_t *const rows[2 * AROUND + 1], int cols, int16_t *around)
{
    for (int x = 0; x < cols; x += BLOCK)
        block_scan(rows, x, around + x);
}

/* The difference from which on an element is more person than background. */
INLINED float half_of(int16_t greatest)
{
    float half = EDGE * (float)greatest;
    return half > NOISE ? half : NOISE;
}

INLINED float known_of(int seen)
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

/* A copy of a row of the measured mask, and where it says that nobody is. */
WIDE static void row_take(const float *restrict measured, int cols, float *restrict z, unsigned char *restrict vacant)
{
    for (int x = 0; x < cols; x++) {
        z[x] = measured[x];
        vacant[x] = measured[x] < EMPTY;
    }
}

/* What was seen of the background of each element, and whether anything can be said there. */
WIDE static void row_judge(const unsigned char *restrict close, const unsigned char *restrict vacant, const unsigned char *restrict seen,
                           int cols, unsigned char *restrict state, unsigned char *restrict found)
{
    for (int x = 0; x < cols; x++) {
        unsigned char same = close[x] < SAME, other = close[x] > NOISE, known = seen[x] > 0;
        state[x] = (unsigned char)(vacant[x] + (vacant[x] & same));
        found[x] = (unsigned char)(((vacant[x] ^ 1) | other) & known);
    }
}

/* Judges a strip. Its measured mask is copied to the rows `weighed`. */
static void strip_judge(const Background *b, const Seen *s, int y0, int y1, float *const weighed[TILE])
{
    for (int y = y0; y < y1; y++) {
        row_take(floats_at(s->measured, y), s->cols, weighed[y - y0], b->vacant);
        row_judge(b->close + y % RING * b->stride, b->vacant, bytes_at(&b->seen, y), s->cols, b->state + (y - y0) * s->cols, b->found);
        bits_pack(b->found, s->cols, b->worth + (y - y0) * b->words);
    }
}

/* A block of elements, and by how much the variance of their probabilities (of a coin with them) changes. */
INLINED void block_weigh(const int16_t *restrict apart, const int16_t *restrict around, const uint16_t *restrict seen, Odds odds,
                         float *restrict z, float *restrict change)
{
    const float b = odds.background, f = odds.person, trust = odds.trust;
    EACH_LANE(x, BLOCK) {
        float a = (float)apart[x], half = half_of(around[x]);
        float rate = (f * a + (1 - f) * half) / (b * a + (1 - b) * half);
        float cube = rate * rate * rate, ratio = limit(cube * cube, LEAST_ODDS, MOST_ODDS);
        float doubt = limit((z[x] - EMPTY) * (1 / EMPTY), 0, 1);
        float up = ratio > 1 ? ratio : 1, down = ratio < 1 ? ratio : 1;
        float gain = ((up - 1) + (down - 1) * doubt) * known_of(seen[x]) * trust;
        float from = z[x] > LEVEL ? z[x] : LEVEL;
        float to = z[x] + from * (1 - from) * gain / (1 + from * gain);
        change[x] = to * (1 - to) - z[x] * (1 - z[x]);
        z[x] = to;
    }
}

/* Blocks of a row of the measured mask, behind which there is one more, and of its variance, if it has one. */
WIDE static void row_weigh(const int16_t *const rows[2 * AROUND + 1], const unsigned char *seen, const int *starts, int count, int cols,
                           Odds odds, float *z, float *r)
{
    for (int n = 0; n < count; n++) {
        const int x = starts[n], inside = least(BLOCK, cols - x);
        int16_t around[BLOCK];
        uint16_t frames[BLOCK];
        unsigned char end[BLOCK] = {0};
        float change[BLOCK];
        if (inside < BLOCK)
            memcpy(end, seen + x, (size_t)inside);
        codes_load(inside < BLOCK ? end : seen + x, frames);
        block_scan(rows, x, around);
        block_weigh(rows[AROUND] + x, around, frames, odds, z + x, change);
        for (int i = 0; r && i < inside; i++)
            r[x + i] += 4 * odds.noise * change[i];
    }
}

/* `from`, nearer to `to` by up to `step`. */
INLINED unsigned char towards(unsigned char from, unsigned char to, unsigned char step)
{
    const unsigned char more = most_of(from, to), up = (unsigned char)(more - from), down = (unsigned char)(more - to);
    return (unsigned char)(from + least_of(up, step) - least_of(down, step));
}

static inline unsigned char *row_of(const Plane *plane, int y) { return plane->data + y * plane->stride; }

WIDE static void colours_learn(const unsigned char *restrict y, const unsigned char *restrict u, const unsigned char *restrict v,
                               const unsigned char *restrict state, int cols, unsigned char *restrict known_y,
                               unsigned char *restrict known_u, unsigned char *restrict known_v, unsigned char *restrict seen)
{
    for (int x = 0; x < cols; x++) {
        const unsigned char alike = state[x] == ALIKE, other = state[x] == OTHER;
        const unsigned char step = other & (seen[x] <= LOSS) ? 255 : alike; /* 255: all the way */
        known_y[x] = towards(known_y[x], y[x], step);
        known_u[x] = towards(known_u[x], u[x], step);
        known_v[x] = towards(known_v[x], v[x], step);
        const unsigned char more = (unsigned char)(seen[x] + (alike & (seen[x] < SEEN)));
        seen[x] = (unsigned char)(more - least_of(more, (unsigned char)(other * LOSS)));
    }
}

static void row_learn(const Background *b, const Seen *s, int y, const unsigned char *state)
{
    colours_learn(bytes_at(s->luma, y), bytes_at(s->u, y), bytes_at(s->v, y), state, s->cols, row_of(&b->luma, y), row_of(&b->u, y),
                  row_of(&b->v, y), row_of(&b->seen, y));
}

/* Writes to the rows `weighed` what the background says to the strip from y0 on, and learns from it. Strips come in order. */
static void background_weigh(Background *b, const Seen *s, int y0, float *const weighed[TILE])
{
    const int y1 = least(y0 + TILE, s->rows);
    for (; b->compared < least(y1 + AROUND, s->rows); b->compared++)
        apart_fill(b, s, b->compared);
    strip_judge(b, s, y0, y1, weighed);
    for (int y = y0; y < y1; y++) {
        const unsigned char *seen = bytes_at(&b->seen, y);
        const int16_t *rows[2 * AROUND + 1];
        for (int j = 0; j <= 2 * AROUND; j++)
            rows[j] = apart_at(b, y - AROUND + j, s->rows);
        if (y % COUNTED == 0) {
            float *counts = b->counts;
            row_scan(rows, s->cols, b->around);
            row_count(rows[AROUND], b->around, seen, floats_at(s->probability, y), s->cols, counts, counts + s->cols, counts + 2 * s->cols,
                      counts + 3 * s->cols);
        }
        const int count = bits_runs(b->worth + (y - y0) * b->words, s->cols, BLOCK, b->starts);
        row_weigh(rows, seen, b->starts, count, s->cols, b->odds, weighed[y - y0], s->variance->data ? floats_at(s->variance, y) : NULL);
        row_learn(b, s, y, b->state + (y - y0) * s->cols);
    }
}

/* Returns 0, or -1 where there is no memory; `background_end` is wanted either way. `noise`: of the model's mask. */
static int background_begin(Background *b, const Seen *s, float noise)
{
    const int blocks = (s->cols + BLOCK - 1) / BLOCK;
    b->stride = blocks * BLOCK + 2 * AROUND + BLOCK;
    b->words = bits_words(s->cols);
    b->compared = 0;
    b->weight = weight_of(s->chroma);
    const size_t stride = (size_t)b->stride, cols = (size_t)s->cols;
    int16_t *rows = malloc(sizeof(int16_t) * (RING + 1) * stride);
    uint64_t *worth = calloc(TILE * (size_t)b->words, sizeof(uint64_t));
    b->apart[0] = rows ? rows + AROUND : NULL;
    b->worth = worth ? worth + 1 : NULL;
    b->starts = malloc(sizeof(int) * (size_t)blocks);
    b->counts = calloc(4 * cols, sizeof(float));
    b->state = malloc(TILE * cols + (RING + 2) * stride + WORD);
    if (!rows || !worth || !b->starts || !b->counts || !b->state)
        return -1;
    for (int i = 1; i < RING; i++)
        b->apart[i] = b->apart[0] + i * b->stride;
    b->around = b->apart[0] + RING * b->stride;
    b->close = b->state + TILE * cols;
    b->vacant = b->close + RING * b->stride;
    b->found = b->vacant + b->stride;
    memset(b->found, 0, stride + WORD);
    const double *sums = (const double *)(const void *)b->sums.data;
    const float background = (float)((sums[0] + PRIOR) / (sums[1] + 2 * PRIOR)), person = (float)((sums[2] + PRIOR) / (sums[3] + 2 * PRIOR));
    b->odds = (Odds){background, person > background ? person : background, limit(1 - DOUBT * background, 0, 1), noise};
    return 0;
}

/* Forgets some of what was counted, adds what was counted now if all went well, and frees the scratch. */
static void background_end(Background *b, const Seen *s, int counted)
{
    double *sums = (double *)(void *)b->sums.data;
    for (int i = 0; counted && i < 4; i++) {
        double sum = 0;
        for (int x = 0; x < s->cols; x++)
            sum += (double)b->counts[i * s->cols + x];
        sums[i] = MEMORY * sums[i] + COUNTED * sum;
    }
    free(b->state);
    free(b->counts);
    free(b->starts);
    free(b->worth ? b->worth - 1 : NULL);
    free(b->apart[0] ? b->apart[0] - AROUND : NULL);
}

#endif
