/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/home.h"

#include <string.h>

#include "src/base/err.h"
#include "src/base/mem.h"

int tr_homes_open(struct tr_homes *h, struct tr_device *device, const struct tr_layout *layout,
                  const unsigned char *in_host)
{
    h->device = device;
    h->layout = layout;
    for (uint32_t i = 0; in_host && i < layout->n_spans; i++)
        h->n += in_host[i] != 0;
    if (!h->n)
        return 0;
    h->planned = tr_alloc(TR_MEM_MISC, layout->n_spans);
    h->home = tr_alloc_array(TR_MEM_MISC, layout->n_spans, sizeof(*h->home));
    if (!h->planned || !h->home)
        return -ENOMEM;
    memcpy(h->planned, in_host, layout->n_spans);
    return 0;
}

void tr_homes_close(struct tr_homes *h)
{
    for (uint32_t i = 0; h->home && i < h->layout->n_spans; i++)
        if (h->home[i].base)
            h->device->ops->host_free(h->device, h->home[i].base, h->layout->spans[i].bytes);
}

void tr_homes_free(struct tr_homes *h)
{
    tr_free(TR_MEM_MISC, h->planned);
    tr_free(TR_MEM_MISC, h->home);
}

struct tr_home *tr_home_of(const struct tr_homes *h, uint32_t span)
{
    return h->n && h->planned[span] ? &h->home[span] : NULL;
}

int tr_home_is_dirty(const struct tr_homes *h, uint32_t span)
{
    const struct tr_home *home = tr_home_of(h, span);

    return home && home->dirty;
}

int tr_home_need(struct tr_homes *h, uint32_t span)
{
    struct tr_home *home = tr_home_of(h, span);
    const struct tr_span *s = &h->layout->spans[span];

    if (home->base)
        return 0;
    home->base = h->device->ops->host_alloc(h->device, s->bytes);
    if (!home->base)
        return tr_error_prefix(-ENOMEM, "%llu bytes of host memory for record %s",
                               (unsigned long long)s->bytes,
                               h->layout->segments[s->segment].record);
    if ((uintptr_t)home->base % TR_STORE_ALIGN)
        return tr_error(-EINVAL, "the device's host memory is not aligned to %u bytes",
                        TR_STORE_ALIGN);
    return 0;
}

uint64_t tr_homes_bytes(const struct tr_homes *h)
{
    uint64_t bytes = 0;

    for (uint32_t i = 0; h->n && i < h->layout->n_spans; i++)
        bytes += h->planned[i] ? h->layout->spans[i].bytes : 0;
    return bytes;
}
