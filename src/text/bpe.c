/* SPDX-License-Identifier: Apache-2.0
 *
 * The merge loop. A chain of first symbols lies in arrays: id, prev, next. A merge puts the new id
 * into the left place and takes the right place out of the list (id -1), so that places never move
 * and the place of a symbol is the place of its first character: "leftmost" is a comparison of
 * places.
 *
 * The heap holds rank << 32 | place, so that one comparison of integers orders by rank, then by
 * place. Entries are not taken out when their pair changes; they are recognised when they come up.
 */
#include "src/text/bpe.h"

#include <string.h>

#include "src/base/err.h"
#include "src/base/mem.h"

int bpe_init(struct bpe *b, size_t merges)
{
    memset(b, 0, sizeof(*b));
    b->result = tr_alloc_array(TR_MEM_TEXT, merges, sizeof(*b->result));
    if (!b->result)
        return -ENOMEM;
    b->room = (uint32_t)merges;
    return bpe_map_reserve(&b->pairs, merges);
}

void bpe_free(struct bpe *b)
{
    bpe_map_free(&b->pairs);
    bpe_map_free(&b->joins);
    tr_free(TR_MEM_TEXT, b->result);
    memset(b, 0, sizeof(*b));
}

int bpe_add(struct bpe *b, int32_t left, int32_t right, int32_t id)
{
    if (b->n == b->room)
        return tr_error(-EINVAL, "more merges than announced");
    b->result[b->n] = id;
    return bpe_map_put(&b->pairs, bpe_pair_key(left, right), b->n++);
}

int bpe_add_join(struct bpe *b, int32_t last, int32_t first)
{
    return bpe_map_put(&b->joins, bpe_pair_key(last, first), 1);
}

int bpe_may_join(const struct bpe *b, int32_t last, int32_t first)
{
    return b->whole || bpe_map_find(&b->joins, bpe_pair_key(last, first));
}

void bpe_work_free(struct bpe_work *w)
{
    tr_free(TR_MEM_TEXT, w->id);
    tr_free(TR_MEM_TEXT, w->prev);
    tr_free(TR_MEM_TEXT, w->next);
    tr_free(TR_MEM_TEXT, w->heap);
    memset(w, 0, sizeof(*w));
}

static int grow_to(void *array, size_t bytes)
{
    void **p = array;
    void *q = tr_realloc(TR_MEM_TEXT, *p, bytes);

    if (!q)
        return -ENOMEM;
    *p = q;
    return 0;
}

/* All four arrays grow together; a failure in between leaves the larger ones, which does no harm.
 */
static int grow(struct bpe_work *w)
{
    size_t room = w->room ? w->room * 2 : 256;

    if (room > INT32_MAX)
        return tr_error(-EFBIG, "a text without any break of %zu characters is too long", w->n);
    if (grow_to(&w->id, room * sizeof(*w->id)) < 0 ||
        grow_to(&w->prev, room * sizeof(*w->prev)) < 0 ||
        grow_to(&w->next, room * sizeof(*w->next)) < 0 ||
        grow_to(&w->heap, 2 * room * sizeof(*w->heap)) < 0)
        return -ENOMEM;
    w->room = room;
    return 0;
}

static void sift_down(uint64_t *h, size_t n, size_t i)
{
    uint64_t x = h[i];

    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && h[child + 1] < h[child])
            child++;
        if (h[child] >= x)
            break;
        h[i] = h[child];
    }
    h[i] = x;
}

static void heap_push(struct bpe_work *w, uint64_t x)
{
    uint64_t *h = w->heap;
    size_t i = w->n_heap++;

    for (; i && h[(i - 1) / 2] > x; i = (i - 1) / 2)
        h[i] = h[(i - 1) / 2];
    h[i] = x;
}

static uint64_t heap_pop(struct bpe_work *w)
{
    uint64_t top = w->heap[0];

    w->heap[0] = w->heap[--w->n_heap];
    if (w->n_heap)
        sift_down(w->heap, w->n_heap, 0);
    return top;
}

/* The merge that position `left` and its right neighbour would take now, or NULL. */
static const struct bpe_map_entry *merge_at(const struct bpe_work *w, int32_t left)
{
    int32_t right = w->next[left];

    if (w->id[left] < 0 || right < 0)
        return NULL;
    return bpe_map_find(&w->bpe->pairs, bpe_pair_key(w->id[left], w->id[right]));
}

static void queue_at(struct bpe_work *w, int32_t left)
{
    const struct bpe_map_entry *m = left < 0 ? NULL : merge_at(w, left);

    if (m)
        heap_push(w, (uint64_t)m->value << 32 | (uint32_t)left);
}

/* The first heap is built bottom up, in linear time: most places of a long chain have a merge. */
static void link_all(struct bpe_work *w)
{
    int32_t n = (int32_t)w->n;

    w->n_heap = 0;
    for (int32_t i = 0; i < n; i++) {
        w->prev[i] = i - 1;
        w->next[i] = i + 1 < n ? i + 1 : -1;
    }
    for (int32_t i = 0; i + 1 < n; i++) {
        const struct bpe_map_entry *m = merge_at(w, i);

        if (m)
            w->heap[w->n_heap++] = (uint64_t)m->value << 32 | (uint32_t)i;
    }
    for (size_t i = w->n_heap / 2; i--;)
        sift_down(w->heap, w->n_heap, i);
}

/* Every merge takes one entry out and puts at most two in, and there are fewer merges than symbols:
 * 2 * n entries are enough. A stale entry is one whose pair has another rank by now; a position's
 * pair only ever grows, so the same rank means the same pair. */
static void merge_all(struct bpe_work *w)
{
    link_all(w);
    while (w->n_heap) {
        uint64_t top = heap_pop(w);
        int32_t left = (int32_t)(uint32_t)top, right, after;
        const struct bpe_map_entry *m = merge_at(w, left);

        if (!m || m->value != top >> 32)
            continue;
        right = w->next[left];
        after = w->next[right];
        w->id[left] = w->bpe->result[m->value];
        w->id[right] = -1;
        w->next[left] = after;
        if (after >= 0)
            w->prev[after] = left;
        queue_at(w, w->prev[left]);
        queue_at(w, left);
    }
}

/* A chain of one symbol has no links: it is the commonest chain, and most of the time of a text. */
int bpe_flush(struct bpe_work *w)
{
    int r = 0;

    if (w->n > 1)
        merge_all(w);
    for (int32_t i = 0; r == 0 && i >= 0 && w->n; i = w->n > 1 ? w->next[i] : -1)
        r = tr_ids_push(w->out, w->id[i]);
    w->n = 0;
    return r;
}

int bpe_push(struct bpe_work *w, int32_t id)
{
    int r = 0;

    if (w->n && !bpe_may_join(w->bpe, w->id[w->n - 1], id))
        r = bpe_flush(w);
    if (r == 0 && w->n == w->room)
        r = grow(w);
    if (r < 0)
        return r;
    w->id[w->n++] = id;
    return 0;
}
