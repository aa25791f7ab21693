/* SPDX-License-Identifier: Apache-2.0
 *
 * Best fit keeps the rows that have room in lists by how much room they have, and a bit a list; the
 * smallest room that is large enough is the next set bit, so that a sample costs row_tokens / 64
 * steps at most. Random draws come from a counter (epoch, what, place) under the seed: no state,
 * the same on every machine, and epoch 7 can be made without the six before it.
 */
#include "src/text/rows.h"

#include <string.h>

#include "src/base/err.h"
#include "src/base/mem.h"
#include "src/base/philox.h"

enum { SHUFFLE_SAMPLES = 1, SHUFFLE_ROWS = 2 }; /* third word of the generator's counter */

/* Rows that still have room, by how much: one list a capacity, and a bit where it is not empty. */
struct bins {
    int32_t *head; /* (row_tokens + 1) */
    int32_t *next; /* (rows) */
    uint64_t *bits;
    uint32_t most;
};

/* Fisher-Yates; each draw is a function of its place alone. */
static void shuffle(uint32_t *v, size_t n, const struct rows_params *p, uint32_t what)
{
    for (size_t i = n; i > 1; i--) {
        struct tr_philox c = {
            {(uint32_t)i, what, (uint32_t)p->epoch, (uint32_t)((uint64_t)p->epoch >> 32)}};
        struct tr_philox r = tr_philox4x32(c, (uint32_t)p->seed, (uint32_t)(p->seed >> 32));
        uint64_t x = (uint64_t)r.v[1] << 32 | r.v[0];
        size_t k = (size_t)((unsigned __int128)x * i >> 64);
        uint32_t t = v[i - 1];

        v[i - 1] = v[k];
        v[k] = t;
    }
}

/* Stable, longest first. */
static int sort_by_length(uint32_t *order, size_t n, const struct rows_params *p)
{
    uint32_t *count = tr_alloc_array(TR_MEM_TEXT, (size_t)p->row_tokens + 2, sizeof(*count));
    uint32_t *sorted = tr_alloc_array(TR_MEM_TEXT, n, sizeof(*sorted));
    int r = count && sorted ? 0 : -ENOMEM;

    if (r == 0) {
        for (size_t i = 0; i < n; i++)
            count[p->row_tokens - p->length[order[i]] + 1]++;
        for (uint32_t k = 1; k <= p->row_tokens; k++)
            count[k] += count[k - 1];
        for (size_t i = 0; i < n; i++)
            sorted[count[p->row_tokens - p->length[order[i]]]++] = order[i];
        memcpy(order, sorted, n * sizeof(*order));
    }
    tr_free(TR_MEM_TEXT, sorted);
    tr_free(TR_MEM_TEXT, count);
    return r;
}

static void bins_free(struct bins *b)
{
    tr_free(TR_MEM_TEXT, b->head);
    tr_free(TR_MEM_TEXT, b->next);
    tr_free(TR_MEM_TEXT, b->bits);
}

static int bins_init(struct bins *b, size_t rows, uint32_t most)
{
    b->most = most;
    b->head = tr_alloc_array(TR_MEM_TEXT, (size_t)most + 1, sizeof(*b->head));
    b->next = tr_alloc_array(TR_MEM_TEXT, rows, sizeof(*b->next));
    b->bits = tr_alloc_array(TR_MEM_TEXT, (size_t)most / 64 + 1, sizeof(*b->bits));
    if (!b->head || !b->next || !b->bits)
        return -ENOMEM;
    memset(b->head, 0xff, ((size_t)most + 1) * sizeof(*b->head));
    return 0;
}

/* The row put in last is taken first; as rows of equal room are alike, that decides nothing but
 * where a sample lies. */
static void bins_put(struct bins *b, int32_t row, uint32_t room)
{
    b->next[row] = b->head[room];
    b->head[room] = row;
    b->bits[room / 64] |= 1ull << room % 64;
}

/* Takes the row with the least room of at least `want`; -1 where there is none. */
static int32_t bins_take(struct bins *b, uint32_t want, uint32_t *room)
{
    uint64_t w = b->bits[want / 64] & ~0ull << want % 64;
    uint32_t k = want / 64;
    int32_t row;

    while (!w && k < b->most / 64)
        w = b->bits[++k];
    if (!w)
        return -1;
    *room = k * 64 + (uint32_t)__builtin_ctzll(w);
    row = b->head[*room];
    b->head[*room] = b->next[row];
    if (b->head[*room] < 0)
        b->bits[k] &= ~(1ull << *room % 64);
    return row;
}

/* row_of[i]: the row of sample order[i]; returns how many rows there are. */
static int64_t fit(uint32_t *row_of, const uint32_t *order, size_t n, const struct rows_params *p)
{
    struct bins b = {0};
    int32_t n_rows = 0;
    int r = bins_init(&b, n, p->row_tokens);

    for (size_t i = 0; r == 0 && i < n; i++) {
        uint32_t want = p->length[order[i]], room = p->row_tokens;
        int32_t row = bins_take(&b, want, &room);

        if (row < 0)
            row = n_rows++;
        row_of[i] = (uint32_t)row;
        bins_put(&b, row, room - want);
    }
    bins_free(&b);
    return r < 0 ? r : n_rows;
}

/* Writes the samples row by row; place[row] is where the row stands. */
static void gather(struct rows *out, const uint32_t *order, const uint32_t *row_of,
                   const uint32_t *place, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out->start[place[row_of[i]] + 1]++;
    for (size_t k = 0; k < out->n_rows; k++)
        out->start[k + 1] += out->start[k];
    for (size_t i = 0; i < n; i++)
        out->sample[out->start[place[row_of[i]]]++] = order[i];
    for (size_t k = out->n_rows; k > 0; k--)
        out->start[k] = out->start[k - 1];
    out->start[0] = 0;
}

static int pack(struct rows *out, uint32_t *order, size_t n, const struct rows_params *p)
{
    uint32_t *row_of = tr_alloc_array(TR_MEM_TEXT, n, sizeof(*row_of)), *place = NULL;
    int64_t rows = row_of ? 0 : -ENOMEM;
    int r = -ENOMEM;

    if (rows == 0 && p->shuffle)
        rows = sort_by_length(order, n, p);
    if (rows == 0)
        rows = fit(row_of, order, n, p);
    if (rows >= 0) {
        out->n_rows = (size_t)rows;
        place = tr_alloc_array(TR_MEM_TEXT, out->n_rows, sizeof(*place));
        out->start = tr_alloc_array(TR_MEM_TEXT, out->n_rows + 1, sizeof(*out->start));
    }
    if (place && out->start) {
        for (size_t k = 0; k < out->n_rows; k++)
            place[k] = (uint32_t)k;
        if (p->shuffle)
            shuffle(place, out->n_rows, p, SHUFFLE_ROWS);
        gather(out, order, row_of, place, n);
        r = 0;
    }
    tr_free(TR_MEM_TEXT, place);
    tr_free(TR_MEM_TEXT, row_of);
    return r;
}

/* Every sample is a row. */
static int lay_out(struct rows *out, const uint32_t *order, size_t n)
{
    out->n_rows = n;
    out->start = tr_alloc_array(TR_MEM_TEXT, n + 1, sizeof(*out->start));
    if (!out->start)
        return -ENOMEM;
    for (size_t i = 0; i <= n; i++)
        out->start[i] = (uint32_t)i;
    memcpy(out->sample, order, n * sizeof(*order));
    return 0;
}

void rows_free(struct rows *r)
{
    tr_free(TR_MEM_TEXT, r->sample);
    tr_free(TR_MEM_TEXT, r->start);
    memset(r, 0, sizeof(*r));
}

int rows_make(struct rows *out, const struct rows_params *p)
{
    uint32_t *order = tr_alloc_array(TR_MEM_TEXT, p->n, sizeof(*order));
    size_t n = 0;
    int r = -ENOMEM;

    memset(out, 0, sizeof(*out));
    out->sample = tr_alloc_array(TR_MEM_TEXT, p->n, sizeof(*out->sample));
    if (order && out->sample) {
        for (size_t i = 0; i < p->n; i++)
            if (p->length[i])
                order[n++] = (uint32_t)i;
        if (p->shuffle)
            shuffle(order, n, p, SHUFFLE_SAMPLES);
        r = p->pack ? pack(out, order, n, p) : lay_out(out, order, n);
    }
    tr_free(TR_MEM_TEXT, order);
    if (r < 0)
        rows_free(out);
    return r;
}
