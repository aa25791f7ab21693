/* SPDX-License-Identifier: Apache-2.0
 *
 * Added tokens: read from tokenizer.json, and cut out of a text by a leftmost-longest search in a
 * trie, as the reference does it with Aho-Corasick. A token is at most TOK_STRING_MOST bytes long,
 * which bounds the search at one place. Tokens with "normalized" are searched for in the normalised
 * text, in their own normalised form.
 */
#include "src/text/tokenizer_parts.h"

#include <string.h>

#include "src/base/err.h"
#include "src/base/mem.h"
#include "src/text/tokenizer_utf8.h"

/* Where "normalized" is absent, special tokens are taken as they are, as the reference does. */
static int read_flags(struct tok_added *a, const char *where, json_t *v)
{
    int r = tok_get_flag(v, "single_word", 0, where, &a->single_word);

    if (r == 0)
        r = tok_get_flag(v, "lstrip", 0, where, &a->lstrip);
    if (r == 0)
        r = tok_get_flag(v, "rstrip", 0, where, &a->rstrip);
    if (r == 0)
        r = tok_get_flag(v, "special", 0, where, &a->special);
    return r < 0 ? r : tok_get_flag(v, "normalized", !a->special, where, &a->normalized);
}

/* An added token may be a piece of the model already; then both must mean the same id. */
static int name_piece(struct tr_tokenizer *t, const char *where, const char *text, int32_t id)
{
    int32_t known = tok_piece_id(t, text, strlen(text));

    if (known == id)
        return 0;
    if (known >= 0 || t->piece[id])
        return tr_error(-EINVAL, "%s: added token \"%.64s\" with id %d contradicts the vocabulary",
                        where, text, id);
    t->piece[id] = tr_strdup(TR_MEM_TEXT, text);
    t->flags[id] |= TOK_OUTSIDE;
    return t->piece[id] ? bpe_names_add(&t->names, text, strlen(text), (uint32_t)id) : -ENOMEM;
}

int tok_load_added(struct tr_tokenizer *t, const char *where, json_t *root)
{
    json_t *list = json_object_get(root, "added_tokens"), *v;
    size_t i;

    t->added = tr_alloc_array(TR_MEM_TEXT, json_array_size(list), sizeof(*t->added));
    if (!t->added)
        return -ENOMEM;
    json_array_foreach(list, i, v) {
        struct tok_added *a = &t->added[t->n_added];
        size_t bytes;
        int r = tok_get_text(v, "content", where, &a->text, &bytes);

        if (r == 0)
            r = read_flags(a, where, v);
        a->id = (int32_t)json_integer_value(json_object_get(v, "id"));
        if (r == 0)
            r = name_piece(t, where, a->text, a->id);
        if (r < 0)
            return r;
        a->text = t->piece[a->id];
        t->flags[a->id] |= a->special ? TOK_SPECIAL : 0;
        t->n_added += bytes > 0;
    }
    return 0;
}

static int new_node(struct tok_trie *t)
{
    if (t->n == t->room) {
        size_t room = t->room ? t->room * 2 : 64;
        int32_t *leaf = tr_realloc(TR_MEM_TEXT, t->leaf, room * sizeof(*leaf));

        if (!leaf)
            return -ENOMEM;
        t->leaf = leaf;
        t->room = room;
    }
    t->leaf[t->n++] = -1;
    return 0;
}

int tok_trie_add(struct tok_trie *t, const char *text, size_t n, int32_t index)
{
    uint64_t node = 0;
    int r = t->n ? 0 : new_node(t);

    for (size_t i = 0; r == 0 && i < n; i++) {
        uint64_t key = node << 8 | (unsigned char)text[i];
        const struct bpe_map_entry *e = bpe_map_find(&t->edges, key);

        if (!e) {
            node = t->n;
            r = new_node(t);
            if (r == 0)
                r = bpe_map_put(&t->edges, key, (uint32_t)node);
        } else {
            node = e->value;
        }
    }
    if (r < 0 || !n)
        return r;
    t->first[(unsigned char)text[0]] = 1;
    if (t->leaf[node] < 0)
        t->leaf[node] = index;
    return 0;
}

void tok_trie_free(struct tok_trie *t)
{
    bpe_map_free(&t->edges);
    tr_free(TR_MEM_TEXT, t->leaf);
    memset(t, 0, sizeof(*t));
}

/* A normalised token is known by its normalised text, in the search and when decoded. */
static int add_normal(struct tr_tokenizer *t, struct tok_added *a, int32_t index)
{
    struct tok_span all = {-1, 0, strlen(a->text)};
    struct tok_buf normal = {0};
    int r = tok_normalise(t, &all, a->text, 1, &normal);

    if (r < 0) {
        tok_buf_free(&normal);
        return r;
    }
    a->normal = normal.v;
    r = bpe_map_put(&t->normal_of, (uint64_t)a->id, (uint32_t)index);
    return r < 0 ? r : tok_trie_add(&t->normal, normal.v, normal.n, index);
}

int tok_build_tries(struct tr_tokenizer *t)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < t->n_added; i++) {
        struct tok_added *a = &t->added[i];

        r = a->normalized ? add_normal(t, a, (int32_t)i)
                          : tok_trie_add(&t->raw, a->text, strlen(a->text), (int32_t)i);
    }
    return r;
}

/* The longest token that begins at text[at], or 0. */
static size_t longest_at(const struct tok_scan *s, size_t at, int32_t *added)
{
    uint64_t node = 0;
    size_t best = 0;

    for (size_t i = at; i < s->n; i++) {
        const struct bpe_map_entry *e =
            bpe_map_find(&s->trie->edges, node << 8 | (unsigned char)s->text[i]);

        if (!e)
            break;
        node = e->value;
        if (s->trie->leaf[node] >= 0) {
            *added = s->trie->leaf[node];
            best = i + 1 - at;
        }
    }
    return best;
}

static int is_word_before(const char *text, size_t at)
{
    uint32_t cp;
    size_t from;

    if (!at)
        return 0;
    from = tr_utf8_back(text, at);
    return tr_utf8_decode(text + from, at - from, &cp) > 0 && tr_unicode_is_word(cp);
}

static int is_word_at(const char *text, size_t at, size_t n)
{
    uint32_t cp;

    return at < n && tr_utf8_decode(text + at, n - at, &cp) > 0 && tr_unicode_is_word(cp);
}

static size_t spaces_before(const char *text, size_t at, size_t floor)
{
    while (at > floor) {
        uint32_t cp;
        size_t from = tr_utf8_back(text, at);

        if (tr_utf8_decode(text + from, at - from, &cp) < 0 || !tr_unicode_is_space(cp))
            break;
        at = from;
    }
    return at;
}

/* Remembers the last run of spaces, so that tokens made of spaces do not walk it again and again.
 */
static size_t spaces_behind(struct tok_scan *s, size_t at)
{
    if (at >= s->run_start && at < s->run_stop)
        return s->run_stop;
    s->run_start = at;
    while (at < s->n) {
        uint32_t cp;
        int k = tr_utf8_decode(s->text + at, s->n - at, &cp);

        if (k < 0 || !tr_unicode_is_space(cp))
            break;
        at += (size_t)k;
    }
    s->run_stop = at;
    return at;
}

void tok_scan_start(struct tok_scan *s, const struct tr_tokenizer *t, const struct tok_trie *trie,
                    const char *text, size_t n)
{
    *s = (struct tok_scan){.trie = trie, .added = t->added, .text = text, .n = n};
}

/* Moves s->at past the next match that counts. */
static int find_match(struct tok_scan *s, struct tok_span *m)
{
    while (s->at < s->n) {
        size_t start = s->at, k = 0;
        const struct tok_added *a;

        if (s->trie->first[(unsigned char)s->text[start]])
            k = longest_at(s, start, &m->added);
        if (!k) {
            s->at++;
            continue;
        }
        s->at = start + k;
        a = &s->added[m->added];
        if (a->single_word &&
            (is_word_before(s->text, start) || is_word_at(s->text, start + k, s->n)))
            continue;
        m->start = a->lstrip ? spaces_before(s->text, start, s->done) : start;
        if (a->lstrip && m->start < s->done)
            m->start = s->done;
        m->stop = a->rstrip ? spaces_behind(s, start + k) : start + k;
        if (m->start < m->stop)
            return 1;
        s->done = m->stop; /* the token before it has taken all of it */
    }
    return 0;
}

/* Ordinary text before a match is given out first, and the match is held back. */
int tok_scan_next(struct tok_scan *s, struct tok_span *span)
{
    if (!s->holding)
        s->holding = find_match(s, &s->held);
    if (!s->holding) {
        *span = (struct tok_span){-1, s->done, s->n};
        s->done = s->n;
        return span->start < span->stop;
    }
    if (s->done < s->held.start) {
        *span = (struct tok_span){-1, s->done, s->held.start};
        s->done = s->held.start;
        return 1;
    }
    *span = s->held;
    s->done = s->held.stop;
    s->holding = 0;
    return 1;
}

/* A match is given out with the blanks that it strips, but the scan stands behind its text. Tokens
 * of the normalised text have no place in this one. */
size_t tr_tokenizer_whole(const struct tr_tokenizer *t, const char *text, size_t bytes, size_t at)
{
    struct tok_scan scan;
    struct tok_span span;
    size_t from = at;

    tok_scan_start(&scan, t, &t->raw, text, bytes);
    while (scan.done < at && tok_scan_next(&scan, &span))
        if (span.added >= 0 && scan.at > at)
            from = scan.at - strlen(t->added[span.added].text);
    return from < at ? from : at;
}
