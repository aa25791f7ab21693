/* SPDX-License-Identifier: Apache-2.0
 *
 * Unigram: every piece has a score, and a word falls into those pieces whose scores have the
 * largest sum. The best way to every place is kept, from left to right (Viterbi); of equal ways the
 * one found first stays, which is the one with the longest last piece. A character that is no piece
 * costs 10 more than the worst piece; a run of such characters is looked up as a whole, then as its
 * bytes, then it is one unk. All sums are double and run from the beginning of the word in one
 * order, as in the reference, so that rounding decides as it does there.
 *
 * Where no piece reaches over a place, every way goes through it: what is before it is final and
 * leaves the work space. The time is linear in the text: at every place at most
 * TOK_STRING_MOST bytes of the trie are walked.
 */
#include "src/text/tokenizer_parts.h"

#include <math.h>
#include <string.h>

#include "src/base/err.h"
#include "src/base/mem.h"
#include "src/text/tokenizer_utf8.h"

#define UNK_PENALTY 10.0

/* ["piece", score]. A score of null is what sentencepiece.c writes for a piece that no text is made
 * of. */
static int read_piece(struct tr_tokenizer *t, const char *where, json_t *vocab, size_t i)
{
    json_t *v = json_array_get(vocab, i), *score = json_array_get(v, 1);
    const char *text = json_string_value(json_array_get(v, 0));
    size_t bytes = json_string_length(json_array_get(v, 0));
    int r;

    if (json_array_size(v) != 2 || !text || !(json_is_number(score) || json_is_null(score)))
        return tr_error(-EINVAL, "%s: piece %zu is not a pair of a string and a score", where, i);
    if (bytes > TOK_STRING_MOST)
        return tr_error(-EINVAL, "%s: piece %zu has %zu bytes, at most %d are read", where, i,
                        bytes, TOK_STRING_MOST);
    t->unigram.score[i] = json_is_null(score) ? NAN : json_number_value(score);
    if (tok_piece_id(t, text, bytes) >= 0) { /* named again later: that one counts */
        t->piece[i] = tr_strdup(TR_MEM_TEXT, text);
        return t->piece[i] ? 0 : -ENOMEM;
    }
    r = tok_add_piece(t, text, bytes, (int32_t)i);
    if (r < 0 || !bytes || json_is_null(score))
        return r;
    return tok_trie_add(&t->unigram.trie, text, bytes, (int32_t)i);
}

static int load_pieces(struct tr_tokenizer *t, const char *where, json_t *vocab)
{
    struct tok_unigram *u = &t->unigram;
    double least = INFINITY;

    u->score = tr_alloc_array(TR_MEM_TEXT, json_array_size(vocab), sizeof(*u->score));
    if (!u->score)
        return -ENOMEM;
    for (size_t i = json_array_size(vocab); i-- > 0;) {
        int r = read_piece(t, where, vocab, i);

        if (r < 0)
            return r;
        least = fmin(least, u->score[i]); /* passes over NAN */
    }
    u->unk_score = least - UNK_PENALTY;
    return 0;
}

static int load_unk(struct tr_tokenizer *t, const char *where, json_t *model, size_t pieces)
{
    json_t *v = json_object_get(model, "unk_id");

    if (!v || json_is_null(v))
        return 0;
    if (!json_is_integer(v) || json_integer_value(v) < 0 || (size_t)json_integer_value(v) >= pieces)
        return tr_error(-EINVAL, "%s: \"unk_id\" is not in the vocabulary", where);
    t->unk = (int32_t)json_integer_value(v);
    return 0;
}

int tok_load_unigram(struct tr_tokenizer *t, const char *where, json_t *model, json_t *added)
{
    json_t *vocab = json_object_get(model, "vocab");
    size_t pieces = json_array_size(vocab);
    int r;

    if (!pieces || pieces > TOK_ID_LIMIT)
        return tr_error(-EINVAL, "%s: the model needs \"vocab\", an array of 1 to %d pieces", where,
                        TOK_ID_LIMIT);
    t->unigram.on = 1;
    r = tok_open_vocab(t, where, (json_int_t)pieces, added);
    if (r == 0)
        r = load_pieces(t, where, vocab);
    if (r == 0)
        r = tok_load_flags(t, where, model);
    return r < 0 ? r : load_unk(t, where, model, pieces);
}

/* The nodes up to `place` of the word; new ones are not reached yet. */
static int make_room(struct tok_unigram_work *w, size_t place)
{
    size_t need = place - w->from + 1;

    if (need > w->room) {
        size_t room = need + need / 2 + 64;
        struct tok_node *v = tr_realloc(TR_MEM_TEXT, w->v, room * sizeof(*v));

        if (!v)
            return -ENOMEM;
        w->v = v;
        w->room = room;
    }
    if (need > w->n)
        memset(w->v + w->n, 0, (need - w->n) * sizeof(*w->v));
    w->n = need > w->n ? need : w->n;
    w->reach = place > w->reach ? place : w->reach;
    return 0;
}

static int relax(struct tok_unigram_work *w, size_t at, size_t bytes, double score, int32_t id)
{
    int r = make_room(w, at + bytes);
    struct tok_node *to;

    if (r < 0)
        return r;
    score += w->v[at - w->from].score;
    to = &w->v[at + bytes - w->from];
    if (to->bytes && score <= to->score)
        return 0;
    *to = (struct tok_node){.score = score, .bytes = (uint32_t)bytes, .id = id};
    return 0;
}

/* All ways that go on from `at`, where a character of k bytes stands. */
static int go_on(const struct tr_tokenizer *t, struct tok_unigram_work *w, const char *text,
                 size_t n, size_t at, size_t k)
{
    const struct tok_trie *trie = &t->unigram.trie;
    uint64_t node = 0;
    int r = 0, known = 0;

    for (size_t i = at; r == 0 && i < n; i++) {
        const struct bpe_map_entry *e =
            bpe_map_find(&trie->edges, node << 8 | (unsigned char)text[i]);
        int32_t id;

        if (!e)
            break;
        node = e->value;
        id = trie->leaf[node];
        if (id < 0)
            continue;
        known |= i + 1 - at == k;
        r = relax(w, at, i + 1 - at, t->unigram.score[id], id);
    }
    if (r < 0 || known)
        return r;
    if (t->unk < 0)
        return tr_error(-EINVAL, "a text has a character that is no piece of the tokenizer, which "
                                 "has no \"unk_id\"");
    return relax(w, at, k, t->unigram.unk_score, t->unk);
}

/* What a run of characters without a piece becomes. */
static int end_run(const struct tr_tokenizer *t, struct tok_unigram_work *w, const char *text,
                   struct tr_ids *ids)
{
    const char *run = text + w->run;
    size_t n = w->run_end - w->run;
    int32_t id = n ? tok_piece_id(t, run, n) : -1;
    int bytes = t->byte_fallback, r = 0;

    w->run = w->run_end;
    if (!n)
        return 0;
    if (id >= 0 && !(t->flags[id] & TOK_OUTSIDE) && !isnan(t->unigram.score[id]))
        return tr_ids_push(ids, id);
    for (size_t i = 0; bytes && i < n; i++)
        bytes = t->byte_id[(unsigned char)run[i]] >= 0;
    if (!bytes)
        return tr_ids_push(ids, t->unk);
    for (size_t i = 0; r == 0 && i < n; i++)
        r = tr_ids_push(ids, t->byte_id[(unsigned char)run[i]]);
    return r;
}

/* Hands on the best way from w->from to `to`, and starts again from there. */
static int settle(const struct tr_tokenizer *t, struct tok_unigram_work *w, const char *text,
                  size_t to, struct tr_ids *ids)
{
    size_t at = to - w->from;
    double score = w->v[at].score;
    int r = 0;

    for (size_t from; at > 0; at = from) {
        from = at - w->v[at].bytes;
        w->v[from].next = (uint32_t)at;
    }
    while (r == 0 && at < to - w->from) {
        size_t end = w->v[at].next;

        if (w->v[end].id != t->unk) {
            r = end_run(t, w, text, ids);
            if (r == 0)
                r = tr_ids_push(ids, w->v[end].id);
            w->run = w->from + end;
        }
        w->run_end = w->from + end;
        at = end;
    }
    w->from = to;
    w->n = 1;
    w->v[0] = (struct tok_node){.score = score};
    return r;
}

int tok_unigram_encode(const struct tr_tokenizer *t, struct tok_unigram_work *w, const char *text,
                       size_t n, struct tr_ids *ids)
{
    int r;

    if (n >= INT32_MAX)
        return tr_error(-EFBIG, "a text without any break of %zu bytes is too long", n);
    w->n = w->from = w->reach = w->run = w->run_end = 0;
    r = make_room(w, 0);
    for (size_t at = 0; r == 0 && at < n;) {
        uint32_t cp;
        int k = tr_utf8_decode(text + at, n - at, &cp);

        k = k < 0 ? -k : k;
        if (at > w->from && at == w->reach)
            r = settle(t, w, text, at, ids);
        if (r == 0)
            r = go_on(t, w, text, n, at, (size_t)k);
        at += (size_t)k;
    }
    if (r == 0)
        r = settle(t, w, text, n, ids);
    return r < 0 ? r : end_run(t, w, text, ids);
}

void tok_unigram_work_free(struct tok_unigram_work *w)
{
    tr_free(TR_MEM_TEXT, w->v);
    memset(w, 0, sizeof(*w));
}
