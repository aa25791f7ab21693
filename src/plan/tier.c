/* SPDX-License-Identifier: Apache-2.0 */
#include "src/plan/tier.h"

#include <stdlib.h>
#include <string.h>

#include "offload/schedule.h"
#include "src/base/err.h"
#include "src/base/mem.h"

struct candidate {
    uint32_t span, loads, saves; /* loads: without those that move nothing; saves: writes spared */
    int first;
};

static int by_traffic(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    uint32_t tx = x->loads + x->saves, ty = y->loads + y->saves;

    if (x->first != y->first)
        return x->first ? -1 : 1;
    if (tx != ty)
        return tx > ty ? -1 : 1;
    if (x->saves != y->saves)
        return x->saves > y->saves ? -1 : 1;
    return x->span < y->span ? -1 : 1;
}

static uint32_t count_slots(const struct tr_tier_params *p)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < p->n_pools; i++)
        n += p->pools[i].n_slots;
    return n;
}

/* Its slots are in host memory already: it has no home, for there is no copy to be spared. */
static int lies_in_host(const struct tr_tier_params *p, uint32_t span)
{
    return p->pools[p->spans[span].pool].host;
}

static int is_scratch(const struct tr_tier_params *p, uint32_t span)
{
    return span >= p->n_spans - p->n_scratch;
}

static void count(const struct tr_tier_params *p, const struct tr_schedule *s,
                  struct candidate *traffic)
{
    for (uint32_t i = 0; i < p->n_spans; i++)
        traffic[i] = (struct candidate){.span = i};
    for (uint32_t i = 0; i < s->n_loads; i++)
        traffic[s->loads[i].span].loads += !s->loads[i].fresh && !lies_in_host(p, s->loads[i].span);
    for (uint32_t v = 0; v < s->n_visits; v++)
        for (uint32_t k = 0; k < p->visits->spans[v].n_spans; k++) {
            uint32_t span = p->visits->spans[v].span[k];

            traffic[span].saves += (s->saved[v] >> k & 1) && !lies_in_host(p, span);
        }
}

/* Plays one step from what the slots hold; afterwards they hold what the step leaves there. */
static int play(const struct tr_tier_params *p, uint32_t *holds, unsigned char *newer,
                struct candidate *traffic)
{
    struct tr_schedule_params step = {.visits = p->visits->spans,
                                      .n = p->visits->n,
                                      .next = p->visits->spans,
                                      .n_next = p->visits->n,
                                      .spans = p->spans,
                                      .n_spans = p->n_spans,
                                      .n_scratch = p->n_scratch,
                                      .pools = p->pools,
                                      .n_pools = p->n_pools,
                                      .holds = holds,
                                      .lazy = p->lazy,
                                      .newer = newer};
    struct tr_schedule s;
    int r = tr_schedule_make(&s, &step);

    if (r < 0)
        return r;
    count(p, &s, traffic);
    for (uint32_t i = 0; i < count_slots(p); i++)
        if (s.carried[i] && !lies_in_host(p, holds[i]))
            traffic[holds[i]].saves++;
    tr_schedule_leave(&s, &step, holds, p->lazy ? newer : NULL);
    tr_schedule_free(&s);
    return 0;
}

/* What each span moves in a step that follows another one. */
static int count_traffic(const struct tr_tier_params *p, struct candidate *traffic)
{
    uint32_t n = count_slots(p);
    uint32_t *holds = tr_alloc_array(TR_MEM_MISC, n, sizeof(*holds) + 1);
    unsigned char *newer = (unsigned char *)(holds + n);
    int r;

    if (!holds)
        return -ENOMEM;
    for (uint32_t i = 0; i < n; i++)
        holds[i] = TR_NONE;
    if ((r = play(p, holds, newer, traffic)) == 0)
        r = play(p, holds, newer, traffic);
    tr_free(TR_MEM_MISC, holds);
    return r;
}

int64_t tr_tier_choose(const struct tr_tier_params *p, unsigned char *tier)
{
    uint32_t n = p->n_spans;
    struct candidate *c = tr_alloc_array(TR_MEM_MISC, n, sizeof(*c));
    uint64_t sum = 0;
    int r = c ? count_traffic(p, c) : -ENOMEM;

    memset(tier, TR_TIER_NONE, n);
    for (uint32_t i = 0; r == 0 && i < n; i++)
        c[i].first = p->scratch_first && c[i].saves && is_scratch(p, i);
    if (r == 0)
        qsort(c, n, sizeof(*c), by_traffic);
    for (uint32_t i = 0; r == 0 && i < n && c[i].loads + c[i].saves; i++) {
        uint64_t bytes = p->spans[c[i].span].bytes;
        int fits = bytes <= p->budget - sum;

        sum += fits ? bytes : 0;
        tier[c[i].span] = fits                                     ? TR_TIER_HOST
                          : c[i].saves && is_scratch(p, c[i].span) ? TR_TIER_SPILL
                                                                   : TR_TIER_NONE;
    }
    tr_free(TR_MEM_MISC, c);
    return r < 0 ? r : (int64_t)sum;
}
