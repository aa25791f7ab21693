/* SPDX-License-Identifier: Apache-2.0
 *
 * Open addressing with linear probing, never more than half full. Keys are mixed before they choose
 * a slot, because pairs of ids are anything but random.
 */
#include "src/text/bpe_map.h"

#include <string.h>

#include <xxhash.h>

#include "src/base/err.h"
#include "src/base/mem.h"

static void place(struct bpe_map *m, uint64_t key, uint32_t value)
{
    size_t i = bpe_map_slot(key) & m->mask;

    while (m->v[i].key != BPE_MAP_NO_KEY)
        i = (i + 1) & m->mask;
    m->v[i] = (struct bpe_map_entry){key, value};
    m->n++;
}

/* Growing places every entry anew; the order of the slots changes, and nothing may depend on it. */
int bpe_map_reserve(struct bpe_map *m, size_t n)
{
    struct bpe_map old = *m;
    size_t room = 16;

    while (room / 2 < n)
        room *= 2;
    if (old.v && room <= old.mask + 1)
        return 0;
    m->v = tr_alloc_array(TR_MEM_TEXT, room, sizeof(*m->v));
    if (!m->v) {
        *m = old;
        return -ENOMEM;
    }
    memset(m->v, 0xff, room * sizeof(*m->v));
    m->mask = room - 1;
    m->n = 0;
    for (size_t i = 0; old.v && i <= old.mask; i++)
        if (old.v[i].key != BPE_MAP_NO_KEY)
            place(m, old.v[i].key, old.v[i].value);
    tr_free(TR_MEM_TEXT, old.v);
    return 0;
}

void bpe_map_free(struct bpe_map *m)
{
    tr_free(TR_MEM_TEXT, m->v);
    memset(m, 0, sizeof(*m));
}

int bpe_map_put(struct bpe_map *m, uint64_t key, uint32_t value)
{
    struct bpe_map_entry *e = bpe_map_find(m, key);
    int r;

    if (e) {
        e->value = value;
        return 0;
    }
    r = bpe_map_reserve(m, m->n + 1);
    if (r < 0)
        return r;
    place(m, key, value);
    return 0;
}

/* The top bit stays clear, so that hash + 1, + 2, ... never meets BPE_MAP_NO_KEY. */
static uint64_t hash_name(const char *text, size_t bytes)
{
    return XXH3_64bits(text, bytes) >> 1;
}

int64_t bpe_names_find(const struct bpe_names *s, const char *text, size_t bytes)
{
    for (uint64_t h = hash_name(text, bytes);; h++) {
        const struct bpe_map_entry *e = bpe_map_find(&s->map, h);
        const char *name;
        size_t n;

        if (!e)
            return -1;
        name = s->name(s->owner, e->value, &n);
        if (n == bytes && !memcmp(name, text, n))
            return e->value;
    }
}

int bpe_names_add(struct bpe_names *s, const char *text, size_t bytes, uint32_t value)
{
    uint64_t h = hash_name(text, bytes);

    while (bpe_map_find(&s->map, h))
        h++;
    return bpe_map_put(&s->map, h, value);
}
