/* Rows of bits, one a node of a grid: node x is bit x % 64 of word x / 64. A row has a word of zeros before its first and
 * one behind its last, and zeros behind its last node. */
#ifndef EDGE_SEG_BITS_H
#define EDGE_SEG_BITS_H

#include "_buffers.h"

#define WORD 64 /* bits of one */

/* The first that is set; there is one. */
INLINED int first_bit(uint64_t bits)
{
#if defined(__GNUC__)
    return __builtin_ctzll(bits);
#else
    int first = 0;
    while (!(bits >> first & 1))
        first++;
    return first;
#endif
}

/* The bits of eight lanes, each of which has 0 or its own. */
static const int32_t bit_of[8] = {1, 2, 4, 8, 16, 32, 64, 128};
INLINED int bits_of(const int32_t flags[8])
{
    int32_t bits = 0;
    EACH_LANE(i, 8)
        bits |= flags[i];
    return bits;
}

/* The first `count` of a word. */
INLINED uint64_t bits_below(int count) { return count < WORD ? ((uint64_t)1 << count) - 1 : ~(uint64_t)0; }

/* How many words a row takes, with those before and behind it. */
INLINED int bits_words(int nodes) { return (nodes + WORD - 1) / WORD + 2; }

/* A word's worth of nodes, from `x` on. */
INLINED uint64_t bits_from(const uint64_t *row, int x)
{
    const uint64_t *word = row + x / WORD;
    return word[0] >> x % WORD | word[1] << 1 << (WORD - 1 - x % WORD);
}

/* Sets up to a word's worth of nodes, from `x` on. */
INLINED void bits_set(uint64_t *row, int x, uint64_t bits)
{
    uint64_t *word = row + x / WORD;
    word[0] |= bits << x % WORD;
    word[1] |= bits >> 1 >> (WORD - 1 - x % WORD);
}

/* What is set in any of `count` rows, or within `reach` (less than a word) beside that. `words` is from one row to the
 * next; `column` is for the moment, a row itself. */
INLINED void bits_near(const uint64_t *rows, int count, int words, int reach, uint64_t *column, uint64_t *out)
{
    for (int i = 0; i < words - 2; i++) {
        column[i] = 0;
        for (int y = 0; y < count; y++)
            column[i] |= rows[y * words + i];
    }
    for (int i = 0; i < words - 2; i++) {
        const uint64_t left = column[i - 1], here = column[i], right = column[i + 1];
        uint64_t near = here;
        for (int d = 1; d <= reach; d++)
            near |= here << d | left >> (WORD - d) | here >> d | right << (WORD - d);
        out[i] = near;
    }
}

/* Eight bytes that are 0 or 1. */
INLINED uint64_t bits_of_bytes(const uint8_t *flags)
{
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    return eight(flags) * 0x0102040810204080u >> 56; /* each is added where its bit belongs */
#else
    uint64_t bits = 0;
    for (int i = 0; i < 8; i++)
        bits |= (uint64_t)flags[i] << i;
    return bits;
#endif
}

/* The same of a row, with zeros behind it that make the last word whole. */
INLINED void bits_pack(const uint8_t *flags, int nodes, uint64_t *row)
{
    for (int first = 0; first < nodes; first += WORD) {
        uint64_t word = 0;
        for (int x = 0; x < WORD; x += 8)
            word |= bits_of_bytes(flags + first + x) << x;
        row[first / WORD] = word;
    }
}

/* Nodes that are set go into runs of `length`, a word or less, each of which begins where the row has the next one. What is
 * set behind the last node does not count. Returns how many. */
INLINED int bits_runs(const uint64_t *row, int nodes, int length, int *start)
{
    const uint64_t run = bits_below(length);
    uint64_t taken = 0; /* of the word, by a run that began in the one before */
    int found = 0;
    for (int first = 0; first < nodes; first += WORD) {
        uint64_t left = row[first / WORD] & bits_below(nodes - first) & ~taken;
        taken = 0;
        while (left) {
            const int x = first_bit(left);
            start[found++] = first + x;
            left &= ~(run << x);
            taken = run >> 1 >> (WORD - 1 - x);
        }
    }
    return found;
}

#endif
