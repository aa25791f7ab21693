/* SPDX-License-Identifier: Apache-2.0 */
#include "src/text/tokenizer_cache.h"

#include <stdatomic.h>
#include <string.h>

#include <xxhash.h>

#include "src/base/err.h"
#include "src/base/mem.h"

#define LINES 8192

struct tok_cache {
    atomic_flag taken;
    struct tok_cache_line line[LINES];
};

int tok_cache_open(struct tok_cache **out)
{
    struct tok_cache *c = tr_alloc(TR_MEM_TEXT, sizeof(*c));

    if (!c)
        return -ENOMEM;
    atomic_flag_clear(&c->taken);
    *out = c;
    return 0;
}

void tok_cache_close(struct tok_cache *c)
{
    tr_free(TR_MEM_TEXT, c);
}

struct tok_cache *tok_cache_take(struct tok_cache *c)
{
    return c && !atomic_flag_test_and_set_explicit(&c->taken, memory_order_acquire) ? c : NULL;
}

void tok_cache_give_back(struct tok_cache *c)
{
    if (c)
        atomic_flag_clear_explicit(&c->taken, memory_order_release);
}

struct tok_cache_line *tok_cache_line(struct tok_cache *c, const char *text, size_t n, int *found)
{
    struct tok_cache_line *line;

    *found = 0;
    if (!c || n > sizeof(line->key))
        return NULL;
    line = &c->line[XXH3_64bits(text, n) % LINES];
    *found = line->bytes == n && !memcmp(line->key, text, n);
    return line;
}

void tok_cache_put(struct tok_cache_line *line, const char *text, size_t n, const int32_t *ids,
                   size_t n_ids)
{
    if (n_ids > TOK_CACHE_IDS)
        return;
    line->bytes = (uint8_t)n;
    line->n_ids = (uint8_t)n_ids;
    memcpy(line->key, text, n);
    memcpy(line->id, ids, n_ids * sizeof(*ids));
}
