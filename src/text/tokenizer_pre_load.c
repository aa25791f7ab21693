/* SPDX-License-Identifier: Apache-2.0
 *
 * The pre_tokenizer of tokenizer.json, read into steps. A kind or a behaviour that is not known
 * here is refused by its name, never skipped: words cut elsewhere would be other ids.
 */
#include <string.h>

#include "src/base/err.h"
#include "src/base/mem.h"
#include "src/text/tokenizer_parts.h"
#include "src/text/tokenizer_pre.h"
#include "src/text/tokenizer_utf8.h"

#define DEPTH 8 /* of Sequence inside Sequence */

#define SPLITS       "|\\s+(?!\\S)|\\s+"
#define GPT2         "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+" SPLITS
#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)|"
#define WORDS        CONTRACTIONS "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"
#define TAIL         "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+" SPLITS
#define UPPER        "\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}"
#define LOWER        "\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}"
#define HEAD         "[^\\r\\n\\p{L}\\p{N}]?"

#define MARKS "!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~"

/* Expressions that are known to begin a match at every space between two letters, whatever stands
 * around: GPT-2, Llama-3, Qwen, Tekken, the later Qwen, DeepSeek. A long text may be cut there. */
static const char *const safe[] = {
    GPT2,
    WORDS "\\p{N}{1,3}" TAIL,
    WORDS "\\p{N}" TAIL,
    HEAD "[" UPPER "]*[" LOWER "]+|" HEAD "[" UPPER "]+[" LOWER "]*|\\p{N}"
         "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
    CONTRACTIONS HEAD "[\\p{L}\\p{M}]+|\\p{N}" TAIL,
    "[" MARKS "][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
    "| ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
};

static const char *const known_as[] = {"gpt-2", "llama-bpe", "qwen2", "tekken", NULL, NULL};

/* Expressions that match neither a space nor a letter of ASCII: numbers, and those of DeepSeek. */
static const char *const elsewhere[] = {
    "\\p{N}",
    "\\p{N}{1,3}",
    "[0-9][0-9][0-9]",
    "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
};

static int unsupported(const char *where, const char *what, const char *name)
{
    return tr_error(-ENOTSUP, "%s: pre_tokenizer: %s\"%.64s\" is not supported", where, what, name);
}

static int copy_text(struct tok_pre *p, json_t *o, const char *key, const char *where)
{
    const char *s;
    int r = tok_get_text(o, key, where, &s, &p->bytes);

    if (r < 0)
        return r;
    if (!p->bytes)
        return tr_error(-EINVAL, "%s: pre_tokenizer: an empty pattern", where);
    p->text = tr_strdup(TR_MEM_TEXT, s);
    return p->text ? 0 : -ENOMEM;
}

static int read_regex(struct tok_pre *p, const char *where, const char *pattern, size_t bytes)
{
    int r = tr_regex_open(&p->regex, pattern, bytes);

    for (size_t i = 0; i < sizeof(safe) / sizeof(safe[0]); i++)
        if (!strcmp(pattern, safe[i])) {
            p->safe = 1;
            p->name = known_as[i];
        }
    for (size_t i = 0; i < sizeof(elsewhere) / sizeof(elsewhere[0]); i++)
        p->elsewhere |= !strcmp(pattern, elsewhere[i]);
    return r < 0 ? tr_error_prefix(r, "%s: pre_tokenizer", where) : 0;
}

static int read_behaviour(struct tok_pre *p, json_t *o, const char *where)
{
    static const char *const names[] = {[TOK_ISOLATED] = "Isolated",
                                        [TOK_REMOVED] = "Removed",
                                        [TOK_CONTIGUOUS] = "Contiguous",
                                        [TOK_PREVIOUS] = "MergedWithPrevious",
                                        [TOK_NEXT] = "MergedWithNext"};
    json_t *v = json_object_get(o, "behavior");

    for (size_t i = 0; json_is_string(v) && i < sizeof(names) / sizeof(names[0]); i++)
        if (!strcmp(json_string_value(v), names[i])) {
            p->how = (enum tok_behaviour)i;
            return 0;
        }
    if (!v)
        return 0;
    return unsupported(where, "behavior ", json_is_string(v) ? json_string_value(v) : "");
}

static int read_split(struct tok_pre *p, json_t *o, const char *where)
{
    json_t *pattern = json_object_get(o, "pattern");
    const char *s;
    size_t bytes;
    int r = read_behaviour(p, o, where);

    if (r == 0)
        r = tok_get_flag(o, "invert", 0, where, &p->invert);
    if (r < 0)
        return r;
    if (!json_object_get(pattern, "Regex"))
        return copy_text(p, pattern, "String", where);
    r = tok_get_text(pattern, "Regex", where, &s, &bytes);
    return r < 0 ? r : read_regex(p, where, s, bytes);
}

static int read_byte_level(struct tok_pre *p, json_t *o, const char *where)
{
    int prefix, r = tok_get_flag(o, "add_prefix_space", 1, where, &prefix);

    p->prefix = prefix ? TOK_PREFIX_ALWAYS : TOK_PREFIX_NEVER;
    if (r == 0)
        r = tok_get_flag(o, "use_regex", 1, where, &p->split);
    return r < 0 || !p->split ? r : read_regex(p, where, GPT2, strlen(GPT2));
}

static int read_digits(struct tok_pre *p, json_t *o, const char *where)
{
    int alone, r = tok_get_flag(o, "individual_digits", 0, where, &alone);

    p->how = alone ? TOK_ISOLATED : TOK_CONTIGUOUS;
    return r;
}

static int read_metaspace(struct tok_pre *p, json_t *o, const char *where)
{
    uint32_t cp;
    int r = copy_text(p, o, "replacement", where);

    if (r < 0)
        return r;
    if ((size_t)tr_utf8_decode(p->text, p->bytes, &cp) != p->bytes)
        return tr_error(-EINVAL, "%s: pre_tokenizer: \"replacement\" must be one character", where);
    p->how = TOK_NEXT;
    r = tok_get_flag(o, "split", 1, where, &p->split);
    return r < 0 ? r : tok_get_prefix(o, where, "pre_tokenizer", &p->prefix);
}

static int read_one(struct tok_pres *p, json_t *o, const char *where)
{
    static const struct {
        const char *name;
        enum tok_pre_kind kind;
        int (*read)(struct tok_pre *p, json_t *o, const char *where);
    } kinds[] = {{"Split", TOK_PRE_SPLIT, read_split},
                 {"ByteLevel", TOK_PRE_BYTE_LEVEL, read_byte_level},
                 {"Digits", TOK_PRE_DIGITS, read_digits},
                 {"Punctuation", TOK_PRE_PUNCTUATION, read_behaviour},
                 {"Metaspace", TOK_PRE_METASPACE, read_metaspace},
                 {"WhitespaceSplit", TOK_PRE_SPACES, NULL}};
    const char *type = tok_type(o);
    struct tok_pre *s;

    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (strcmp(type, kinds[i].name) != 0)
            continue;
        if (p->n == TOK_PRE_MOST)
            return tr_error(-ENOTSUP, "%s: pre_tokenizer: more than %d steps", where, TOK_PRE_MOST);
        s = &p->v[p->n++];
        *s = (struct tok_pre){.kind = kinds[i].kind, .split = 1};
        s->how = kinds[i].read ? TOK_ISOLATED : TOK_REMOVED;
        return kinds[i].read ? kinds[i].read(s, o, where) : 0;
    }
    return unsupported(where, "", type);
}

static int read_all(struct tok_pres *p, json_t *o, const char *where, int depth)
{
    json_t *v, *list;
    size_t i;

    if (!o || json_is_null(o))
        return 0;
    if (strcmp(tok_type(o), "Sequence"))
        return read_one(p, o, where);
    list = json_object_get(o, "pretokenizers");
    if (!json_is_array(list) || depth == DEPTH)
        return tr_error(
            -EINVAL, "%s: pre_tokenizer: a Sequence without \"pretokenizers\" or too deep", where);
    json_array_foreach(list, i, v) {
        int r = read_all(p, v, where, depth + 1);

        if (r < 0)
            return r;
    }
    return 0;
}

int tok_pre_load(struct tok_pres *p, const char *where, json_t *o)
{
    return read_all(p, o, where, 0);
}

void tok_pre_free(struct tok_pres *p)
{
    for (int i = 0; i < p->n; i++) {
        tr_free(TR_MEM_TEXT, p->v[i].text);
        tr_regex_close(p->v[i].regex);
    }
    p->n = 0;
}
