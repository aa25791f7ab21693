/* SPDX-License-Identifier: Apache-2.0 */
#include "src/text/tokenizer_table.h"

#include <string.h>

#include "src/base/err.h"
#include "src/base/mem.h"
#include "src/text/tokenizer_parts.h"

static int is_byte_level(const struct tr_tokenizer *t)
{
    for (int i = 0; i < t->decode.n; i++)
        if (t->decode.v[i].kind == TOK_BYTE_LEVEL)
            return 1;
    return 0;
}

/* The one expression that cuts the text; steps that only change it may stand around. One has a name
 * of its own where digits are words before it. */
static const char *find_pre(const struct tr_tokenizer *t)
{
    const char *found = NULL;
    int digits = 0;

    for (int i = 0; i < t->pre.n; i++) {
        const struct tok_pre *p = &t->pre.v[i];

        if (p->kind == TOK_PRE_BYTE_LEVEL && !p->split)
            continue;
        if (found || !tok_pre_isolates(p) || (!p->name && p->kind != TOK_PRE_DIGITS))
            return NULL;
        digits |= p->kind == TOK_PRE_DIGITS;
        found = p->name;
    }
    if (digits)
        return found && !strcmp(found, "gpt-2") ? "smollm" : NULL;
    return found;
}

static int adds_space(const struct tr_tokenizer *t)
{
    for (int i = 0; i < t->norm.n; i++)
        if (t->norm.v[i].kind == TOK_PREPEND)
            return 1;
    for (int i = 0; i < t->pre.n; i++)
        if (t->pre.v[i].kind == TOK_PRE_METASPACE && t->pre.v[i].prefix != TOK_PREFIX_NEVER)
            return 1;
    return 0;
}

static void fill_kinds(struct tr_token_table *w)
{
    const struct tr_tokenizer *t = w->tokenizer;

    for (int32_t i = 0; i < w->n; i++)
        w->kind[i] = i < t->vocab && t->piece[i] ? TR_TOKEN_NORMAL : TR_TOKEN_UNUSED;
    for (int i = 0; i < 256 && t->byte_fallback; i++)
        if (t->byte_id[i] >= 0 && t->byte_id[i] < w->n)
            w->kind[t->byte_id[i]] = TR_TOKEN_BYTE;
    for (size_t i = 0; i < t->n_added; i++)
        if (t->added[i].id < w->n)
            w->kind[t->added[i].id] = t->added[i].special ? TR_TOKEN_CONTROL : TR_TOKEN_USER;
    if (t->unk >= 0 && t->unk < w->n)
        w->kind[t->unk] = TR_TOKEN_UNKNOWN;
}

/* A piece joins in the order of the first merge that makes it; pieces that none makes come last,
 * and no text joins to them but from their own characters. */
static void fill_scores(struct tr_token_table *w)
{
    const struct tr_tokenizer *t = w->tokenizer;

    for (int32_t i = 0; i < w->n; i++)
        w->score[i] = w->kind[i] == TR_TOKEN_NORMAL ? -(float)t->bpe.n : 0;
    for (uint32_t rank = t->bpe.n; rank-- > 0;)
        if (t->bpe.result[rank] < w->n)
            w->score[t->bpe.result[rank]] = -(float)rank;
}

/* A rank is missing where its pair was named again later. */
static void fill_merges(struct tr_token_table *w)
{
    const struct bpe_map *pairs = &w->tokenizer->bpe.pairs;
    uint32_t n = 0;

    for (uint32_t rank = 0; rank < w->n_merges; rank++)
        w->merge[rank] = -1;
    for (size_t i = 0; pairs->n && i <= pairs->mask; i++)
        if (pairs->v[i].key != BPE_MAP_NO_KEY)
            w->merge[pairs->v[i].value] = (int64_t)pairs->v[i].key;
    for (uint32_t rank = 0; rank < w->n_merges; rank++)
        if (w->merge[rank] >= 0)
            w->merge[n++] = w->merge[rank];
    w->n_merges = n;
}

static int check(const struct tr_tokenizer *t, int byte_level, const char *pre)
{
    if (t->unigram.on)
        return tr_error(-ENOTSUP, "the tokenizer is a Unigram, whose table is not written");
    if (!byte_level && !t->byte_fallback)
        return tr_error(-ENOTSUP, "the tokenizer is neither byte-level nor has it byte fallback");
    if (byte_level && !pre)
        return tr_error(-ENOTSUP, "the tokenizer's pre_tokenizer is none of those that have a name "
                                  "(gpt-2, llama-bpe, qwen2, tekken, smollm)");
    return 0;
}

int tr_token_table_open(struct tr_token_table *w, const struct tr_tokenizer *t, int32_t n)
{
    int byte_level = is_byte_level(t), r;

    memset(w, 0, sizeof(*w));
    *w = (struct tr_token_table){.tokenizer = t,
                                 .n = n,
                                 .pre = byte_level ? find_pre(t) : "default",
                                 .adds_space = !byte_level && adds_space(t),
                                 .bos = t->bos,
                                 .eos = t->eos,
                                 .unk = t->unk,
                                 .adds_bos = t->adds_bos,
                                 .adds_eos = t->adds_eos};
    if ((r = check(t, byte_level, w->pre)) < 0)
        return r;
    w->kind = tr_alloc_array(TR_MEM_TEXT, (size_t)n, sizeof(*w->kind));
    if (byte_level)
        w->merge = tr_alloc_array(TR_MEM_TEXT, t->bpe.n, sizeof(*w->merge));
    else
        w->score = tr_alloc_array(TR_MEM_TEXT, (size_t)n, sizeof(*w->score));
    if (!w->kind || (!w->merge && !w->score)) {
        tr_token_table_close(w);
        return -ENOMEM;
    }
    fill_kinds(w);
    if (byte_level) {
        w->n_merges = t->bpe.n;
        fill_merges(w);
    } else {
        fill_scores(w);
    }
    return 0;
}

void tr_token_table_close(struct tr_token_table *w)
{
    tr_free(TR_MEM_TEXT, w->kind);
    tr_free(TR_MEM_TEXT, w->score);
    tr_free(TR_MEM_TEXT, w->merge);
    memset(w, 0, sizeof(*w));
}
