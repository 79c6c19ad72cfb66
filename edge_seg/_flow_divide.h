/* Blocks of half the side, each with the vector, of the four around it, under which its pixels match best. */
#ifndef EDGE_SEG_FLOW_DIVIDE_H
#define EDGE_SEG_FLOW_DIVIDE_H

#include "_flow_subpixel.h"

#define APART (Q / 2)   /* vectors that differ by no more than this need no choice between them */
#define ALIKE (Q / 4)   /* of vectors that differ by no more than this one is enough to choose from */

INLINED int within(int difference, int limit) { return difference <= limit && difference >= -limit; }

static const Row middle6 = {0, 65535, 65535, 65535, 65535, 65535, 65535, 0};
static const Row middle4 = {0, 0, 65535, 65535, 65535, 65535, 0, 0};

/* Of the four vectors around a block of half the size, the one under which the pixels around it match best: 6x6 for a
 * block of 4, 4x4 for one of 2. Windows so small would not do for a search, but choose well between few good vectors. */
INLINED void choose(const Found *from, const Found *to, int side, int bx, int by, const Level *previous, const Level *current)
{
    const Py_ssize_t stride = previous->stride;
    const int pairs = side == 4 ? 3 : 2, rim = (WINDOW - 2 * pairs) / 2;
    const int x = side * bx + side / 2 - WINDOW / 2, y = side * by + side / 2 - WINDOW / 2;
    const Row columns = side == 4 ? middle6 : middle4;
    const unsigned char *patch = window_at(current, x, y + rim), *here = window_at(previous, x, y + rim);
    const Range range = sixteenths(range_of(previous, x, y));
    const Vector nowhere = {INT16_MAX, INT16_MAX};
    Vector tried[4] = {nowhere, nowhere, nowhere, nowhere};
    int ys[2], xs[2], index = by * to->cols + bx;
    int32_t best = key_of(1 << 18, 0);
    parents(by, from->rows, &ys[0], &ys[1]);
    parents(bx, from->cols, &xs[0], &xs[1]);
    for (int i = 0; i < 4; i++) {
        const Vector *near = &from->vectors[ys[i >> 1] * from->cols + xs[i & 1]], v = limited(near->x, near->y, range);
        int known = 0;
        for (int k = 0; k < 3; k++) /* whatever `i` is, for compilers to have no loop here */
            known |= within(tried[k].x - v.x, ALIKE) & within(tried[k].y - v.y, ALIKE);
        if (known)
            continue;
        tried[i] = v;
        const unsigned char *at = here + whole(v.y) * stride + 2 * whole(v.x);
        best = least(best, key_of(sad_between(patch, at, stride, part(v.x), part(v.y), pairs, columns), i));
    }
    const int which = which_of(best);
    to->vectors[index] = tried[which];
    to->residual[index] = (float)cost_of(best) / (float)(4 * pairs * pairs);
    to->texture[index] = from->texture[ys[which >> 1] * from->cols + xs[which & 1]];
}

INLINED int16_t far_apart(int16_t a, int16_t b)
{
    const int16_t difference = (int16_t)abs((int16_t)(a - b));
    return difference > APART ? -1 : 0;
}

/* Where the vectors of two block rows differ by more than APART from those of `near`, each compared with the neighbours
 * on the left (1) and on the right (2). Rows hold x and y interleaved, with one block of replicated border. */
INLINED void differences(const int16_t *restrict near, const int16_t *restrict far, int cols, int16_t *restrict out)
{
    for (int i = 0; i < 2 * cols; i++) {
        const int16_t across = far_apart(near[i], far[i]);
        const int16_t left = across | far_apart(near[i], near[i - 2]) | far_apart(near[i], far[i - 2]);
        const int16_t right = across | far_apart(near[i], near[i + 2]) | far_apart(near[i], far[i + 2]);
        out[i] = (int16_t)((left & 1) | (right & 2));
    }
}

static void row_load(const Found *from, int row, int16_t *out)
{
    const Vector *v = from->vectors + row * from->cols;
    memcpy(out + 2, v, (size_t)from->cols * sizeof(Vector));
    memcpy(out, v, sizeof(Vector));
    memcpy(out + 2 + 2 * from->cols, v + from->cols - 1, sizeof(Vector));
}

/* Each item of 4 bytes two times, until there are `count`. */
INLINED void twice(const void *restrict items, int count, void *restrict out)
{
    for (int i = 0; i < count / 2; i++) {
        uint32_t item;
        memcpy(&item, (const unsigned char *)items + 4 * i, sizeof item);
        memcpy((unsigned char *)out + 8 * i, &item, sizeof item);
        memcpy((unsigned char *)out + 8 * i + 4, &item, sizeof item);
    }
    if (count & 1)
        memcpy((unsigned char *)out + 4 * (count - 1), (const unsigned char *)items + 4 * (count / 2), 4);
}

/* From blocks to blocks of half the side, which is `side`. */
INLINED void divide_into(const Found *from, const Found *to, int side, const Level *previous, const Level *current,
                         const unsigned char *active)
{
    int16_t rows[2][2 * (SIDE_MAX / 4 + 2)], differ[2 * (SIDE_MAX / 4)];
    for (int by = 0; by < to->rows; by++) {
        int y0, y1, start = by * to->cols;
        parents(by, from->rows, &y0, &y1);
        twice(from->vectors + y0 * from->cols, to->cols, to->vectors + start);
        twice(from->residual + y0 * from->cols, to->cols, to->residual + start);
        twice(from->texture + y0 * from->cols, to->cols, to->texture + start);
        row_load(from, y0, rows[0]);
        row_load(from, y1, rows[1]);
        differences(rows[0] + 2, rows[1] + 2, from->cols, differ);
        for (int parent = 0; parent < from->cols; parent++) {
            const int sides = differ[2 * parent] | differ[2 * parent + 1];
            for (int k = 0; sides && k < 2; k++) {
                const int bx = 2 * parent + k;
                if (sides >> k & 1 && bx < to->cols && (!active || active[start + bx]))
                    choose(from, to, side, bx, by, previous, current);
            }
        }
    }
}

/* Both have loops of their own, unrolled. */
WIDE static void divide(const Found *from, const Found *to, const Level *previous, const Level *current, const unsigned char *active)
{
    if (to->side == 4)
        divide_into(from, to, 4, previous, current, active);
    else
        divide_into(from, to, 2, previous, current, active);
}

#endif
