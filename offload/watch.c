/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/watch.h"

#include <stdlib.h>
#include <string.h>

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double median(const struct tr_watch *w)
{
    uint32_t n = w->n < TR_WATCH_KEPT ? w->n : TR_WATCH_KEPT;
    double sorted[TR_WATCH_KEPT];

    memcpy(sorted, w->rate, n * sizeof(*sorted));
    qsort(sorted, n, sizeof(*sorted), by_size);
    return sorted[n / 2];
}

int tr_watch_add(struct tr_watch *w, uint64_t ns, uint64_t bytes, double *usual, double *now)
{
    double rate;

    w->ns += ns;
    w->bytes += bytes;
    if (w->ns < TR_WATCH_NS)
        return 0;
    rate = 1e9 * (double)w->bytes / (double)w->ns;
    w->ns = w->bytes = 0;
    if (w->n < TR_WATCH_EARLIER || rate >= median(w) / 2) {
        w->rate[w->n++ % TR_WATCH_KEPT] = rate;
        w->slow = 0;
        return 0;
    }
    if (++w->slow < TR_WATCH_SLOW || w->told)
        return 0;
    w->told = 1;
    *usual = median(w);
    *now = rate;
    return 1;
}
