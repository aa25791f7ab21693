/* SPDX-License-Identifier: Apache-2.0
 *
 * Byte pair encoding over symbol ids: the merge table, and the work space of one encoding.
 *
 * Owns ranks and the order of merges; knows no text (characters become ids elsewhere). Always the
 * pair of lowest rank merges first, of equal ones the leftmost: a heap of (rank, position) over a
 * linked list, O(n log n). Merges span words, so a document is one sequence; it falls apart exactly
 * wherever no merge can ever join two neighbouring first symbols (the `joins` set, made from all
 * merges), which keeps heaps short without changing a single id. Where symbols that are not
 * characters take part in merges (`whole`), nothing falls apart and one heap does it all.
 * A struct bpe is read-only after loading and may be shared by threads; a work space may not.
 */
#ifndef TR_SRC_TEXT_BPE_H
#define TR_SRC_TEXT_BPE_H

#include "src/text/bpe_map.h"
#include "src/text/tokenizer.h"

struct bpe {
    struct bpe_map pairs; /* (left, right) -> rank */
    struct bpe_map joins; /* neighbouring first symbols that some merge may join */
    int32_t *result;      /* rank -> id */
    uint32_t n, room;
    int whole;
};

int bpe_init(struct bpe *b, size_t merges);
void bpe_free(struct bpe *b);
/* Adds the next merge; its rank is the count so far. A pair named twice keeps the later rank. */
int bpe_add(struct bpe *b, int32_t left, int32_t right, int32_t id);
int bpe_add_join(struct bpe *b, int32_t last, int32_t first);
/* 1 where a merge may join the two first symbols. */
int bpe_may_join(const struct bpe *b, int32_t last, int32_t first);

struct bpe_work {
    const struct bpe *bpe;
    struct tr_ids *out;
    int32_t *id, *prev, *next; /* (room) */
    uint64_t *heap;            /* (2 * room) rank << 32 | position */
    size_t n, room, n_heap;
};

void bpe_work_free(struct bpe_work *w);
/* Appends a first symbol; symbols before it that cannot change any more go to *out. */
int bpe_push(struct bpe_work *w, int32_t id);
/* Ends the sequence: what is left goes to *out. */
int bpe_flush(struct bpe_work *w);

#endif
