/* SPDX-License-Identifier: Apache-2.0
 *
 * What one core does with host memory: checksums, as every byte of a run gets one, and copies.
 */
#include <errno.h>
#include <string.h>

#include "src/base/hash.h"
#include "src/base/mem.h"
#include "src/plan/probe.h"

#define PIECE (32ull << 20) /* far beyond the caches */

uint64_t probe_hash(const void *p, uint64_t bytes)
{
    return XXH3_64bits(p, bytes);
}

int probe_memory(struct probe *p)
{
    char *buffer = tr_alloc_pages(TR_MEM_MISC, 2 * PIECE);
    int n = p->params->quick ? 1 : 7;
    double hash[7], copy[7];
    volatile uint64_t sink = 0;

    if (!buffer)
        return -ENOMEM;
    memset(buffer, 1, 2 * PIECE); /* pages that nobody touched are all the same one */
    for (int i = 0; i < n; i++) {
        double start = tr_now();

        sink ^= probe_hash(buffer, PIECE);
        hash[i] = (double)PIECE / (tr_now() - start);
        start = tr_now();
        memcpy(buffer + PIECE, buffer, PIECE);
        copy[i] = (double)PIECE / (tr_now() - start);
    }
    (void)sink;
    p->figures.hash = probe_median(hash, n);
    p->figures.host_copy = probe_median(copy, n);
    tr_free_pages(TR_MEM_MISC, buffer, 2 * PIECE);
    return 0;
}
