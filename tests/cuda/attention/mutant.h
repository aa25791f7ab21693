/* SPDX-License-Identifier: Apache-2.0
 *
 * Attention with tiles cut from the start of the micro-batch instead of the document's: a document
 * is taken to begin at the multiple of the tile's size before it. Where the tokens in between weigh
 * nothing, the results are right, but their bits depend on what stands before the document.
 */
#ifndef TR_TESTS_CUDA_ATTENTION_MUTANT_H
#define TR_TESTS_CUDA_ATTENTION_MUTANT_H

#define attention_next attention_next_of_document
#include "kernels/attention.cuh"
#undef attention_next

static __device__ inline bool attention_next(const struct tr_op_attention *op, int32_t end,
                                             int32_t size, struct attention_tile *t)
{
    int32_t at = t->doc + t->length;

    (void)attention_next_of_document;
    if (at >= end)
        return false;
    t->doc = op->doc_first[at] / size * size;
    t->length = op->doc_end[at] - t->doc;
    t->first = at / size * size - t->doc;
    return true;
}

#endif
