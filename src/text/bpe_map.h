/* SPDX-License-Identifier: Apache-2.0
 *
 * A hash map from 64-bit keys to 32-bit values, and on top of it one from strings to numbers.
 *
 * Owns its table and nothing else. A string is found by its hash, hash + 1, ... until the caller's
 * own copy of the string agrees, so that no string is stored twice. Nothing depends on the order of
 * the table. Not thread-safe for writing.
 */
#ifndef TR_SRC_TEXT_BPE_MAP_H
#define TR_SRC_TEXT_BPE_MAP_H

#include <stddef.h>
#include <stdint.h>

struct bpe_map_entry {
    uint64_t key;
    uint32_t value;
};

struct bpe_map {
    struct bpe_map_entry *v;
    size_t mask, n;
};

#define BPE_MAP_NO_KEY UINT64_MAX

/* An all-zero map is empty. Room for `n` keys without growing. */
int bpe_map_reserve(struct bpe_map *m, size_t n);
void bpe_map_free(struct bpe_map *m);
/* Sets or replaces; key must not be BPE_MAP_NO_KEY. */
int bpe_map_put(struct bpe_map *m, uint64_t key, uint32_t value);

static inline uint64_t bpe_map_slot(uint64_t key)
{
    key ^= key >> 33;
    key *= 0xff51afd7ed558ccdull;
    key ^= key >> 33;
    key *= 0xc4ceb9fe1a85ec53ull;
    return key ^ key >> 33;
}

/* The entry of a key, or NULL. Valid until the next put. */
static inline struct bpe_map_entry *bpe_map_find(const struct bpe_map *m, uint64_t key)
{
    if (!m->n)
        return NULL;
    for (size_t i = bpe_map_slot(key) & m->mask;; i = (i + 1) & m->mask) {
        if (m->v[i].key == key)
            return &m->v[i];
        if (m->v[i].key == BPE_MAP_NO_KEY)
            return NULL;
    }
}

static inline uint64_t bpe_pair_key(int32_t left, int32_t right)
{
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

/* What a string map asks for: the string with number `value`, as the caller keeps it. */
typedef const char *bpe_name_fn(const void *owner, uint32_t value, size_t *bytes);

struct bpe_names {
    struct bpe_map map;
    bpe_name_fn *name;
    const void *owner;
};

/* The number of a string, or -1. */
int64_t bpe_names_find(const struct bpe_names *s, const char *text, size_t bytes);
/* Adds a string that is not there yet. */
int bpe_names_add(struct bpe_names *s, const char *text, size_t bytes, uint32_t value);

#endif
