/* Arrays from Python, as 2-D views with a row stride, through the buffer protocol (no NumPy headers). */
#ifndef EDGE_SEG_BUFFERS_H
#define EDGE_SEG_BUFFERS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

/* For functions with hot loops. On x86-64 they are compiled for SSE2 and for AVX2, with what they inline, and the
 * loader picks; NEON is what every aarch64 has. AVX2 comes without fused multiplications here, so that both give the
 * same floats. Needs glibc's ifunc; -DEDGE_SEG_BASELINE leaves the choice out, which a test compares with. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__GLIBC__) && !defined(EDGE_SEG_BASELINE)
#define WIDE __attribute__((target_clones("avx2", "default")))
#else
#define WIDE
#endif

/* For what such functions call: a function of its own would be for the baseline only. */
#if defined(__GNUC__)
#define INLINED static inline __attribute__((always_inline))
#else
#define INLINED static inline
#endif

/* Asks for what is needed soon. */
#if defined(__GNUC__)
#define PREFETCH(at) __builtin_prefetch(at)
#else
#define PREFETCH(at) ((void)(at))
#endif

/* A loop of few rounds, one register's. GCC would otherwise take it apart before it vectorises. */
#if defined(__GNUC__) && !defined(__clang__)
#define EACH_LANE(i, count) _Pragma("GCC unroll 1") for (int i = 0; i < (count); i++)
#else
#define EACH_LANE(i, count) for (int i = 0; i < (count); i++)
#endif

INLINED uint64_t eight(const uint8_t *at)
{
    uint64_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

/* Which of eight bytes is the first that is not 0. */
INLINED int first_of(uint64_t bytes)
{
#if defined(__GNUC__) && defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    return __builtin_ctzll(bytes) / 8;
#else
    uint8_t byte[8];
    int first = 0;
    memcpy(byte, &bytes, sizeof byte);
    while (byte[first] == 0)
        first++;
    return first;
#endif
}

/* memcpy in registers of 32 bytes: what compilers make of memcpy are halves of them, for which the next load of a
 * whole one has to wait until they are in the cache. */
INLINED void copy_lanes(void *to, const void *from, size_t bytes)
{
#if defined(__GNUC__)
    typedef uint8_t Lanes __attribute__((vector_size(32)));
    for (; bytes >= sizeof(Lanes); bytes -= sizeof(Lanes)) {
        Lanes lanes;
        memcpy(&lanes, from, sizeof lanes);
        memcpy(to, &lanes, sizeof lanes);
        to = (char *)to + sizeof lanes, from = (const char *)from + sizeof lanes;
    }
#endif
    memcpy(to, from, bytes);
}

/* Sixteen bytes to as many 16-bit elements, and back: said so that compilers see whole registers. */
INLINED void codes_load(const uint8_t *codes, void *out)
{
#if defined(__GNUC__)
    typedef uint8_t Codes __attribute__((vector_size(16)));
    typedef uint16_t Lanes __attribute__((vector_size(32)));
    Codes from;
    memcpy(&from, codes, sizeof from);
    Lanes lanes = __builtin_convertvector(from, Lanes);
    memcpy(out, &lanes, sizeof lanes);
#else
    for (int i = 0; i < 16; i++)
        ((uint16_t *)out)[i] = codes[i];
#endif
}

INLINED void codes_store(const uint16_t values[16], uint8_t *out)
{
#if defined(__GNUC__)
    typedef uint8_t Codes __attribute__((vector_size(16)));
    typedef uint16_t Lanes __attribute__((vector_size(32)));
    Lanes lanes;
    memcpy(&lanes, values, sizeof lanes);
    Codes codes = __builtin_convertvector(lanes, Codes);
    memcpy(out, &codes, sizeof codes);
#else
    for (int i = 0; i < 16; i++)
        out[i] = (uint8_t)values[i];
#endif
}

typedef struct {
    Py_buffer buffer;
    unsigned char *data;
    Py_ssize_t rows, cols;  /* cols counts items, all trailing dimensions flattened */
    Py_ssize_t stride;      /* bytes from one row to the next */
} Plane;

/* Fills `plane` from an array of at least one dimension whose rows are contiguous. A 1-D array is one row.
 * `format` is the struct character of the items ("B", "f", "h", ...). Returns 0, or -1 with a Python error set. */
static inline int plane_get(Plane *plane, PyObject *array, char format, int writable, const char *name)
{
    int flags = PyBUF_STRIDES | PyBUF_FORMAT | (writable ? PyBUF_WRITABLE : 0);
    if (PyObject_GetBuffer(array, &plane->buffer, flags) < 0)
        return -1;
    const Py_buffer *b = &plane->buffer;
    if (b->ndim < 1 || b->format == NULL || b->format[0] != format || b->format[1] != '\0') {
        PyErr_Format(PyExc_TypeError, "%s: expected an array of format '%c', got '%s' with %d dimensions", name, format,
                     b->format ? b->format : "?", b->ndim);
        goto fail;
    }
    plane->rows = b->ndim == 1 ? 1 : b->shape[0];
    plane->cols = b->ndim == 1 ? b->shape[0] : 1;
    Py_ssize_t expected = b->itemsize;
    for (int d = b->ndim - 1; d >= (b->ndim == 1 ? 0 : 1); d--) {
        if (b->shape[d] > 1 && b->strides[d] != expected) {
            PyErr_Format(PyExc_ValueError, "%s: rows must be contiguous", name);
            goto fail;
        }
        expected *= b->shape[d];
        if (b->ndim > 1)
            plane->cols *= b->shape[d];
    }
    plane->stride = b->ndim == 1 ? expected : b->strides[0];
    plane->data = b->buf;
    return 0;
fail:
    PyBuffer_Release(&plane->buffer);
    return -1;
}

/* The module; SOURCES says what it was built from, for edge_seg/kernels.py to compare. */
static inline PyObject *module_create(struct PyModuleDef *definition)
{
    PyObject *module = PyModule_Create(definition);
#ifdef EDGE_SEG_SOURCES
    if (module != NULL && PyModule_AddStringConstant(module, "SOURCES", EDGE_SEG_SOURCES) < 0) {
        Py_DECREF(module);
        return NULL;
    }
#endif
    return module;
}

static inline void plane_release(Plane *plane) { PyBuffer_Release(&plane->buffer); }

#endif
