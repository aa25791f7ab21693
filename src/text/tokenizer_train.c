/* SPDX-License-Identifier: Apache-2.0
 *
 * Trains a tokenizer and writes it as tokenizer.json in the manner of Llama-2 (Prepend and Replace
 * normalizers, byte fallback, <s> before a text), with a tokenizer_config.json beside it. What is
 * written is read back by tokenizer_load.c and by the reference alike. A run that fails leaves the
 * folder as it was.
 */
#include "src/text/tokenizer.h"

#include <string.h>
#include <unistd.h>

#include "src/base/err.h"
#include "src/base/file.h"
#include "src/base/json.h"
#include "src/base/mem.h"
#include "src/text/bpe_train.h"

#define SPACE "\xE2\x96\x81"

/* NULL where something could not be added: what lacks a merge is another tokenizer. */
static json_t *whole(json_t *value, int bad)
{
    if (!bad)
        return value;
    json_decref(value);
    return NULL;
}

/* Not normalized: a "<s>" in a text is the token, wherever it stands. */
static json_t *added_tokens(void)
{
    static const char *const names[] = {"<unk>", "<s>", "</s>"};
    json_t *list = json_array();
    int bad = 0;

    for (int i = 0; i < 3; i++)
        bad |=
            json_array_append_new(list, json_pack("{s:i,s:s,s:b,s:b,s:b,s:b,s:b}", "id", i,
                                                  "content", names[i], "single_word", 0, "lstrip",
                                                  0, "rstrip", 0, "normalized", 0, "special", 1));
    return whole(list, bad);
}

static json_t *normalizer(void)
{
    return json_pack("{s:s,s:[{s:s,s:s},{s:s,s:{s:s},s:s}]}", "type", "Sequence", "normalizers",
                     "type", "Prepend", "prepend", SPACE, "type", "Replace", "pattern", "String",
                     " ", "content", SPACE);
}

static json_t *post_processor(void)
{
    json_t *single = json_pack("[{s:{s:s,s:i}},{s:{s:s,s:i}}]", "SpecialToken", "id", "<s>",
                               "type_id", 0, "Sequence", "id", "A", "type_id", 0);
    json_t *pair =
        json_pack("[{s:{s:s,s:i}},{s:{s:s,s:i}},{s:{s:s,s:i}},{s:{s:s,s:i}}]", "SpecialToken", "id",
                  "<s>", "type_id", 0, "Sequence", "id", "A", "type_id", 0, "SpecialToken", "id",
                  "<s>", "type_id", 1, "Sequence", "id", "B", "type_id", 1);

    return json_pack("{s:s,s:o,s:o,s:{s:{s:s,s:[i],s:[s]}}}", "type", "TemplateProcessing",
                     "single", single, "pair", pair, "special_tokens", "<s>", "id", "<s>", "ids", 1,
                     "tokens", "<s>");
}

/* The normalizer's steps backwards; Strip takes back the space that Prepend has put before a text.
 */
static json_t *decoder(void)
{
    return json_pack("{s:s,s:[{s:s,s:{s:s},s:s},{s:s},{s:s},{s:s,s:s,s:i,s:i}]}", "type",
                     "Sequence", "decoders", "type", "Replace", "pattern", "String", SPACE,
                     "content", " ", "type", "ByteFallback", "type", "Fuse", "type", "Strip",
                     "content", " ", "start", 1, "stop", 0);
}

static json_t *merge_of(const struct bpe_learnt *l, int32_t id)
{
    const struct bpe_piece *a = &l->v[l->v[id].left], *b = &l->v[l->v[id].right];

    return json_pack("s%+%+%", l->text.v + a->at, (size_t)a->bytes, " ", (size_t)1,
                     l->text.v + b->at, (size_t)b->bytes);
}

/* Merges in the order in which they were learnt, which is their rank when a text is encoded. */
static json_t *model(const struct bpe_learnt *l)
{
    json_t *vocab = json_object(), *merges = json_array();
    int bad = 0;

    for (int32_t id = 0; id < l->n; id++) {
        bad |=
            json_object_setn_new(vocab, l->text.v + l->v[id].at, l->v[id].bytes, json_integer(id));
        if (l->v[id].left >= 0)
            bad |= json_array_append_new(merges, merge_of(l, id));
    }
    vocab = whole(vocab, bad);
    return json_pack("{s:s,s:n,s:s,s:n,s:n,s:b,s:b,s:b,s:o,s:o}", "type", "BPE", "dropout",
                     "unk_token", "<unk>", "continuing_subword_prefix", "end_of_word_suffix",
                     "fuse_unk", 1, "byte_fallback", 1, "ignore_merges", 0, "vocab", vocab,
                     "merges", merges);
}

static json_t *tokenizer_json(const struct bpe_learnt *l)
{
    return json_pack("{s:s,s:n,s:n,s:o,s:o,s:n,s:o,s:o,s:o}", "version", "1.0", "truncation",
                     "padding", "added_tokens", added_tokens(), "normalizer", normalizer(),
                     "pre_tokenizer", "post_processor", post_processor(), "decoder", decoder(),
                     "model", model(l));
}

static json_t *config_json(void)
{
    return json_pack("{s:b,s:b,s:s,s:b,s:s,s:s,s:s}", "add_bos_token", 1, "add_eos_token", 0,
                     "bos_token", "<s>", "clean_up_tokenization_spaces", 0, "eos_token", "</s>",
                     "tokenizer_class", "PreTrainedTokenizerFast", "unk_token", "<unk>");
}

/* Takes the value over, also where it is NULL for want of memory. */
static int write_json(const char *folder, const char *name, json_t *value)
{
    char *path = tr_path(folder, name);
    int r = -ENOMEM;

    if (path && !value)
        tr_error(r, "%s: out of memory", path);
    else if (path)
        r = tr_json_write(path, value);
    tr_free(TR_MEM_MISC, path);
    json_decref(value);
    return r;
}

static void take_back(const char *folder, int made)
{
    char *path = tr_path(folder, "tokenizer_config.json");

    if (path)
        unlink(path);
    tr_free(TR_MEM_MISC, path);
    if (made)
        rmdir(folder);
}

/* tokenizer.json comes last: a folder that has it is whole. */
static int write_folder(const struct bpe_learnt *l, const char *folder, int made)
{
    int r = tr_make_folder(folder);

    if (r < 0)
        return r;
    r = write_json(folder, "tokenizer_config.json", config_json());
    if (r == 0)
        r = write_json(folder, "tokenizer.json", tokenizer_json(l));
    if (r < 0)
        take_back(folder, made);
    return r;
}

int tr_tokenizer_train(const struct tr_tokenizer_train_params *p)
{
    int state = tr_folder_is_empty(p->out), r;
    struct bpe_words words;
    struct bpe_learnt learnt;

    if (state == 0)
        return tr_error(-EEXIST, "%s: exists and is not an empty folder", p->out);
    if (p->vocab < BPE_TRAIN_LEAST || p->vocab >= TOK_ID_LIMIT)
        return tr_error(-EINVAL, "a vocabulary of %lld pieces: it must be between %d and %d",
                        (long long)p->vocab, BPE_TRAIN_LEAST, TOK_ID_LIMIT - 1);
    bpe_words_init(&words);
    r = bpe_words_read(&words, p->data);
    if (r == 0) {
        r = bpe_train(&learnt, &words, (int32_t)p->vocab);
        if (r < 0)
            tr_error_prefix(r, "%s", p->data);
    }
    if (r == 0) {
        r = write_folder(&learnt, p->out, state == -ENOENT);
        bpe_learnt_free(&learnt);
    }
    bpe_words_free(&words);
    return r;
}
