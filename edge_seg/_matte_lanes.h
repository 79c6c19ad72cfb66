/* A tile of nodes in registers: what is added up there, kept within limits, and rounded to fixed point. */
#ifndef EDGE_SEG_MATTE_LANES_H
#define EDGE_SEG_MATTE_LANES_H

#include "_buffers.h"
#include <math.h>

#define TILE 8             /* nodes of the half grid */
#define SPAN (2 * TILE)    /* nodes of the full grid over a tile */

#define ALPHA_ONE 1027 /* edge_seg/types.py says why */
#define GAIN_ONE 1031
#define FIXED_LIMIT 16383

/* Sums in registers. */
#if defined(__GNUC__)
typedef float Lanes __attribute__((vector_size(4 * TILE)));
INLINED void lanes_add(Lanes *total, const float *from)
{
    Lanes more;
    memcpy(&more, from, sizeof more);
    *total += more;
}
#else
typedef struct { float lane[TILE]; } Lanes;
INLINED void lanes_add(Lanes *total, const float *from)
{
    for (int i = 0; i < TILE; i++)
        total->lane[i] += from[i];
}
#endif

INLINED float least(float a, float b) { return a < b ? a : b; }
INLINED float most(float a, float b) { return a > b ? a : b; }

INLINED float clamp(float value, float limit) { return most(least(value, limit), -limit); }

/* To fixed point, rounded to the nearest. NaN becomes 0. */
INLINED int16_t fixed(float value, float one)
{
    float scaled = value * one;
    scaled = scaled == scaled ? scaled : 0;
    scaled = scaled < -FIXED_LIMIT ? -FIXED_LIMIT : scaled;
    scaled = scaled > FIXED_LIMIT ? FIXED_LIMIT : scaled;
    return (int16_t)(int)(scaled + copysignf(0.5f, scaled));
}

/* The same for what is known to be a number, or even to be from 0 to 1. */
INLINED int16_t fixed_number(float scaled, float limit)
{
    scaled = most(least(scaled, limit), -limit);
    float nearest = scaled + 12582912.0f; /* 3 * 2^22: there floats are whole numbers, and the low bits count them */
    int32_t bits;
    memcpy(&bits, &nearest, sizeof bits);
    return (int16_t)bits;
}

INLINED int16_t fixed_alpha(float value) { return (int16_t)(int)(value * ALPHA_ONE + 0.5f); }

#endif
