/* What the kernels of fusion have in common: arguments on one grid, and means of what has the same colour. */
#ifndef EDGE_SEG_FUSION_H
#define EDGE_SEG_FUSION_H

#include "_buffers.h"
#include <math.h>
#include <stdlib.h>

#define TILE 4               /* side of the tiles that are treated alike, in pixels */
#define STRIP 8              /* elements that are computed at once: no loop ends with single ones */
#define SPAN 32              /* bytes that become floats at once */
#define SELF (16 * 1e-3f)    /* what an element counts for itself at least; all weights are in sixteenths */
#define SIDE_MAX 8192

static inline int clamp(int v, int lo, int hi) { return v < lo ? lo : v > hi ? hi : v; }
static inline int least(int a, int b) { return a < b ? a : b; }
INLINED float limit(float v, float lo, float hi) { v = v > lo ? v : lo; return v < hi ? v : hi; } /* NaN: lo */

static inline const unsigned char *bytes_at(const Plane *p, int y) { return p->data + y * p->stride; }
static inline float *floats_at(const Plane *p, int y) { return (float *)(void *)(p->data + y * p->stride); }

INLINED void row_of_bytes(const unsigned char *restrict row, int n, float *restrict out)
{
    for (int i = 0; i < n; i++)
        out[i] = (float)row[i];
}

/* Spans of a row; the last may begin earlier than it is wanted. */
INLINED void spans_unpack(const unsigned char *restrict row, const int *restrict starts, int count, int cols, float *restrict out)
{
    if (cols < SPAN)
        row_of_bytes(row, cols, out);
    for (int n = 0; cols >= SPAN && n < count; n++) {
        const int x = least(starts[n], cols - SPAN);
        EACH_LANE(i, SPAN)
            out[x + i] = (float)row[x + i];
    }
}

INLINED void spans_copy(const float *restrict row, const int *restrict starts, int count, int cols, float *restrict out)
{
    if (cols < SPAN)
        memcpy(out, row, sizeof(float) * (size_t)cols);
    for (int n = 0; cols >= SPAN && n < count; n++) {
        const int x = least(starts[n], cols - SPAN);
        copy_lanes(out + x, row + x, sizeof(float) * SPAN);
    }
}

/* Up to STRIP floats. */
INLINED void strip_copy(float *to, const float *from, int count)
{
    if (count >= STRIP)
        copy_lanes(to, from, sizeof(float) * STRIP);
    else
        memcpy(to, from, sizeof(float) * (size_t)count);
}

/* Repeats the outermost elements of a row into a rim of that many. */
INLINED void row_rim(float *row, int cols, int rim)
{
    for (int i = 1; i <= rim; i++) {
        row[-i] = row[0];
        row[cols - 1 + i] = row[cols - 1];
    }
}

/* --- windows of alike colour ---------------------------------------------------------------------------------------- */

/* How a difference of colour counts: alike = max(0, 1 - luma dy^2 - chroma (du^2 + dv^2))^2. */
typedef struct {
    float luma, chroma;
    float zero; /* a constant, but as a variable: compilers make three instructions of a maximum with a constant */
} Scales;

static inline int scales_get(Scales *scales, float like, float chroma)
{
    if (like > 0 && chroma >= 0) {
        scales->luma = 1 / (like * like);
        scales->chroma = chroma * scales->luma;
        scales->zero = 0;
        return 0;
    }
    PyErr_SetString(PyExc_ValueError, "like: expected more than 0, chroma: expected at least 0");
    return -1;
}

/* What windows see lies together, row by row: luma, two of chroma, the values, and what else there is; `plane` elements
 * from one to the next.
 * Up to NARROW_COLS columns, which is what the models have, that is a number known to the compiler: then each of them is at
 * a known distance from the first. */
enum { LUMA, CHROMA_U, CHROMA_V, VALUES, PLANES };
#define NARROW_COLS 256
#define NARROW 272

static inline Py_ssize_t plane_of(int cols, int reach) { return cols <= NARROW_COLS ? NARROW : cols + 2 * reach + STRIP; }

/* For strips of a row: the mean over the window around each element of the values whose colour is like its own (y, u, v).
 * `rows` are those that the window reaches, from `reach` above. All rows must have STRIP elements more than are wanted; what
 * they hold does not matter. The means lie strip by strip. */
#define MEAN_OF_ALIKE(name, WINDOW, reach) \
INLINED void name##_of(const float *y, const float *u, const float *v, const float *const rows[2 * (reach) + 1], const Py_ssize_t plane, \
                       Scales scales, float *restrict out) \
{ \
    const float *const *const row = rows + (reach); \
    const float *const values = row[0] + VALUES * plane; \
    const float luma = scales.luma, chroma = scales.chroma, zero = scales.zero; \
    if (chroma > 0) \
        EACH_LANE(i, STRIP) { \
            float t = SELF * values[i], w = SELF; \
            WINDOW(COLOUR_TAP) \
            out[i] = t / w; \
        } \
    else \
        EACH_LANE(i, STRIP) { \
            float t = SELF * values[i], w = SELF; \
            WINDOW(TAP) \
            out[i] = t / w; \
        } \
} \
INLINED void name##_strips(const float *y, const float *u, const float *v, const float *const rows[2 * (reach) + 1], const int *starts, \
                           int count, const Py_ssize_t plane, Scales scales, float *restrict out) \
{ \
    for (int n = 0; n < count; n++) { \
        const int x = starts[n]; \
        const float *from[2 * (reach) + 1]; \
        for (int j = 0; j <= 2 * (reach); j++) \
            from[j] = rows[j] + x; \
        name##_of(y + x, u + x, v + x, from, plane, scales, out + n * STRIP); \
    } \
} \
WIDE static void name(const float *y, const float *u, const float *v, const float *const rows[2 * (reach) + 1], const int *starts, \
                      int count, Py_ssize_t plane, Scales scales, float *restrict out) \
{ \
    if (plane == NARROW) \
        name##_strips(y, u, v, rows, starts, count, NARROW, scales, out); \
    else \
        name##_strips(y, u, v, rows, starts, count, plane, scales, out); \
}
#define TAP(dy, dx, share) { \
        const float *at = row[dy] + (dx) + i; \
        float d = y[i] - at[LUMA * plane]; \
        float a = 1.0f - d * d * luma; \
        a = a > zero ? a : zero; \
        a = a * a * (share); \
        t += a * at[VALUES * plane]; \
        w += a; }
#define COLOUR_TAP(dy, dx, share) { \
        const float *at = row[dy] + (dx) + i; \
        float d = y[i] - at[LUMA * plane], e = u[i] - at[CHROMA_U * plane], f = v[i] - at[CHROMA_V * plane]; \
        float a = 1.0f - d * d * luma - (e * e + f * f) * chroma; \
        a = a > zero ? a : zero; \
        a = a * a * (share); \
        t += a * at[VALUES * plane]; \
        w += a; }

/* --- arguments ------------------------------------------------------------------------------------------------------ */

enum { READ, WRITE, MAYBE };   /* MAYBE: to be changed, or None */

typedef struct { PyObject *array; Plane *plane; char format; int use; const char *name; } Argument;

static inline int is_given(const Argument *argument) { return argument->use != MAYBE || argument->array != Py_None; }

static void arguments_release(Argument *arguments, int count)
{
    for (int i = 0; i < count; i++)
        if (is_given(&arguments[i]))
            plane_release(arguments[i].plane);
}

/* The data of what is not given are NULL. Returns 0, or -1 with an error set and nothing held. */
static int arguments_get(Argument *arguments, int count)
{
    for (int i = 0; i < count; i++) {
        Argument *a = &arguments[i];
        a->plane->data = NULL;
        if (is_given(a) && plane_get(a->plane, a->array, a->format, a->use != READ, a->name) < 0) {
            arguments_release(arguments, i);
            return -1;
        }
    }
    return 0;
}

/* Whether all have the shape of the first, and that is one which can be computed with. If not: -1 with an error set. */
static int one_grid(const Argument *arguments, int count)
{
    const Plane *grid = arguments[0].plane;
    if (grid->rows < 1 || grid->cols < 1 || grid->rows > SIDE_MAX || grid->cols > SIDE_MAX) {
        PyErr_Format(PyExc_ValueError, "a grid of 1 to %d pixels a side is needed, got %zd x %zd", SIDE_MAX, grid->rows, grid->cols);
        return -1;
    }
    for (int i = 1; i < count; i++) {
        const Plane *plane = arguments[i].plane;
        if (is_given(&arguments[i]) && (plane->rows != grid->rows || plane->cols != grid->cols)) {
            PyErr_Format(PyExc_ValueError, "%s: expected shape (%zd, %zd), got (%zd, %zd)", arguments[i].name, grid->rows,
                         grid->cols, plane->rows, plane->cols);
            return -1;
        }
    }
    return 0;
}

#endif
