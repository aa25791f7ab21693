/* SPDX-License-Identifier: Apache-2.0
 *
 * What the store and the engine keep in host memory to know where everything is, beside the bytes
 * that they move: counted before either is opened, for a budget has to hold it, and from above. Who
 * adds a table adds it here; a test opens engines and compares.
 */
#include <string.h>

#include "offload/engine.h"

#define BLOCK 16u         /* what an allocation takes beyond its size, at most */
#define FEW   (64u << 10) /* structs of fixed size, and the requests of two queues */

static uint64_t of_name(const char *name)
{
    return strlen(name) + 1 + BLOCK;
}

uint64_t tr_store_table_bytes(const struct tr_layout *l)
{
    struct tr_commit_shape shape = {.n_spans = l->n_spans, .n_pieces = l->n_pieces};
    uint64_t bytes = FEW + tr_commit_bytes(&shape);

    for (uint32_t i = 0; i < l->n_segments; i++)
        bytes +=
            sizeof(*l->segments) + of_name(l->segments[i].record) + of_name(l->segments[i].kind);
    for (uint32_t i = 0; i < l->n_pieces; i++)
        bytes += sizeof(*l->pieces) + of_name(l->pieces[i].name);
    bytes += l->n_spans * (sizeof(*l->spans) + 2 * sizeof(uint8_t)); /* two commits */
    return bytes + l->n_pieces * (2 * sizeof(uint64_t) + 1 + sizeof(struct tr_stripe));
}

/* A step's schedule with all that it is made of, its visits, and those under way. */
static uint64_t of_visit(void)
{
    uint64_t schedule = 2 * sizeof(uint32_t) + TR_VISIT_SPANS * (sizeof(uint32_t) + 1);
    uint64_t making = 2 * TR_VISIT_SPANS * sizeof(uint32_t); /* of this step and the next */

    return schedule + making + TR_VISIT_SPANS * sizeof(struct tr_load) + sizeof(struct tr_visit) +
           sizeof(struct tr_ticket) + BLOCK;
}

static uint64_t of_slot(const struct tr_slot_pool *pool)
{
    return sizeof(struct tr_slot) + sizeof(struct tr_move) +
           7 * sizeof(uint32_t) + /* two rings; what the schedule knows of it */
           tr_queue_chunks(pool->slot_bytes) * sizeof(uint16_t);
}

uint64_t tr_offload_table_bytes(const struct tr_table_sizes *t)
{
    const struct tr_layout *l = t->layout;
    uint64_t spans = (uint64_t)l->n_spans + t->n_scratch, slots = 0, bytes = FEW;

    for (uint32_t i = 0; i < t->n_pools; i++) {
        slots += t->pools[i].n_slots;
        bytes += t->pools[i].n_slots * of_slot(&t->pools[i]);
    }
    bytes += ((uint64_t)l->n_segments + t->n_scratch) * (sizeof(*l->segments) + TR_SCRATCH_TEXT);
    bytes += spans * (sizeof(*l->spans) + 2 * sizeof(uint32_t) + 1);
    bytes += (l->n_pieces + t->scratch_pieces) * (sizeof(*l->pieces) + sizeof(uint64_t));
    bytes += t->scratch_pieces * (sizeof(struct tr_stripe) + sizeof(uint64_t) + 1);
    if (t->staged) /* everything may have a home */
        bytes += spans * (sizeof(struct tr_home) + 1 + sizeof(struct tr_move)) +
                 (slots + spans) * TR_HASH_BYTES;
    return bytes + t->visits * of_visit();
}
