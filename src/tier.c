/* SPDX-License-Identifier: Apache-2.0 */
#include "src/tier.h"

#include <stdlib.h>
#include <string.h>

#include "offload/schedule.h"
#include "src/base/err.h"
#include "src/base/mem.h"

struct candidate {
    uint32_t span, loads;
};

static int by_loads(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;

    if (x->loads != y->loads)
        return x->loads > y->loads ? -1 : 1;
    return x->span < y->span ? -1 : 1;
}

static uint32_t count_slots(const struct tr_tier_params *p)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < p->n_pools; i++)
        n += p->pools[i].n_slots;
    return n;
}

/* Plays one step from what the slots hold; afterwards they hold what the step leaves there. */
static int play(const struct tr_tier_params *p, uint32_t *holds, struct candidate *loads)
{
    struct tr_schedule_params step = {.visits = p->visits->spans,
                                      .n = p->visits->n,
                                      .next = p->visits->spans,
                                      .n_next = p->visits->n,
                                      .spans = p->layout->spans,
                                      .n_spans = p->layout->n_spans,
                                      .pools = p->pools,
                                      .n_pools = p->n_pools,
                                      .holds = holds};
    struct tr_schedule s;
    int r = tr_schedule_make(&s, &step);

    if (r < 0)
        return r;
    for (uint32_t i = 0; i < p->layout->n_spans; i++)
        loads[i] = (struct candidate){i, 0};
    for (uint32_t i = 0; i < s.n_loads; i++) {
        loads[s.loads[i].span].loads++;
        holds[s.loads[i].slot] = s.loads[i].span;
    }
    tr_schedule_free(&s);
    return 0;
}

/* Loads of each span in a step that follows another one. */
static int count_loads(const struct tr_tier_params *p, struct candidate *loads)
{
    uint32_t n = count_slots(p);
    uint32_t *holds = tr_alloc_array(TR_MEM_MISC, n, sizeof(*holds));
    int r;

    if (!holds)
        return -ENOMEM;
    for (uint32_t i = 0; i < n; i++)
        holds[i] = TR_NONE;
    if ((r = play(p, holds, loads)) == 0)
        r = play(p, holds, loads);
    tr_free(TR_MEM_MISC, holds);
    return r;
}

int64_t tr_tier_choose(const struct tr_tier_params *p, unsigned char *in_host)
{
    uint32_t n = p->layout->n_spans;
    struct candidate *c = tr_alloc_array(TR_MEM_MISC, n, sizeof(*c));
    uint64_t sum = 0;
    int r = c ? count_loads(p, c) : -ENOMEM;

    memset(in_host, 0, n);
    if (r == 0)
        qsort(c, n, sizeof(*c), by_loads);
    for (uint32_t i = 0; r == 0 && i < n && c[i].loads; i++) {
        uint64_t bytes = p->layout->spans[c[i].span].bytes;

        if (bytes > p->budget - sum)
            continue;
        in_host[c[i].span] = 1;
        sum += bytes;
    }
    tr_free(TR_MEM_MISC, c);
    return r < 0 ? r : (int64_t)sum;
}
