/* SPDX-License-Identifier: Apache-2.0
 *
 * The learner. Every different word is spelt once as a row of symbols, with the number of times it
 * occurs; every pair of neighbours has a count and a list of the words it was seen in. The most
 * frequent pair becomes a piece, the words on its list are rewritten, and only the pairs of those
 * words change. So a merge costs what it touches, and 14 MB of text cost seconds.
 *
 * Counts fall and rise as words are rewritten. The heap is not searched for that: a pair gets a new
 * entry where it is new or its count has fallen, and an entry whose count is no longer true is
 * thrown away when it comes up. Equal counts go by the smaller pair of ids, so that the result does
 * not depend on the order of anything.
 */
#include "src/text/bpe_train.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/err.h"
#include "src/base/mem.h"
#include "src/text/tokenizer_utf8.h"

#define COVERAGE    0.9999
#define PIECE_CHARS 16 /* characters of a learnt piece at most */

struct pair {
    uint64_t key;
    int64_t count;
    uint32_t *words; /* words it was seen in; may name a word twice or in vain */
    uint32_t n, room;
};

struct entry {
    int64_t count;
    uint64_t key;
};

struct trainer {
    struct bpe_learnt *out;
    const struct bpe_words *words;
    int32_t *symbols;          /* all words, one behind the other; -1 ends what may merge */
    size_t *start;             /* (words) first symbol */
    uint8_t *length;           /* (words) symbols now */
    int32_t *stamp;            /* (words) piece for which it was rewritten last */
    struct bpe_map chars, map; /* code point -> id; pair key -> index in pairs */
    struct pair *pairs;
    size_t n_pairs, room_pairs;
    struct entry *heap; /* greatest count, then smallest key, first; entries may be stale */
    size_t n_heap, room_heap;
    int32_t n_chars;
    int crowded; /* characters of the text had no room */
};

struct tally {
    uint32_t cp;
    uint64_t count;
};

_Static_assert(BPE_WORD_MOST < 256, "lengths of words are kept in a byte");

static const char *piece_text(const void *owner, uint32_t id, size_t *bytes)
{
    const struct bpe_learnt *l = owner;

    *bytes = l->v[id].bytes;
    return l->text.v + l->v[id].at;
}

void bpe_learnt_free(struct bpe_learnt *l)
{
    bpe_map_free(&l->names.map);
    tok_buf_free(&l->text);
    tr_free(TR_MEM_TEXT, l->v);
    *l = (struct bpe_learnt){0};
}

static int add_piece(struct bpe_learnt *l, const char *text, size_t bytes, uint32_t chars)
{
    int r;

    l->v[l->n] = (struct bpe_piece){l->text.n, (uint32_t)bytes, chars, -1, -1};
    r = tok_buf_add(&l->text, text, bytes);
    if (r == 0)
        r = bpe_names_add(&l->names, text, bytes, (uint32_t)l->n);
    l->n += r == 0;
    return r;
}

/* The fixed pieces count as full-length, so that no merge ever begins or ends with one. */
static int add_fixed(struct bpe_learnt *l)
{
    static const char *const specials[] = {"<unk>", "<s>", "</s>"};
    int r = 0;

    for (int i = 0; r == 0 && i < 3; i++)
        r = add_piece(l, specials[i], strlen(specials[i]), PIECE_CHARS);
    for (int i = 0; r == 0 && i < 256; i++) {
        char name[8];

        snprintf(name, sizeof(name), "<0x%02X>", i);
        r = add_piece(l, name, 6, PIECE_CHARS);
    }
    return r;
}

static int by_count(const void *a, const void *b)
{
    const struct tally *x = a, *y = b;

    if (x->count != y->count)
        return x->count < y->count ? 1 : -1;
    return (x->cp > y->cp) - (x->cp < y->cp);
}

/* How often each code point occurs; *total counts them all. */
static int tally_chars(const struct bpe_words *w, uint64_t *count, uint64_t *total)
{
    *total = 0;
    for (size_t i = 0; i < w->n; i++) {
        const char *p = w->text.v + w->v[i].at;

        for (size_t k = 0; k < w->v[i].bytes;) {
            uint32_t cp = 0;

            k += (size_t)tr_utf8_decode(p + k, w->v[i].bytes - k, &cp);
            count[cp] += w->v[i].count;
            *total += w->v[i].count;
        }
    }
    return 0;
}

/* At most half of what is left goes to characters: a vocabulary of letters alone would be useless
 * for texts in a script of thousands. */
static int32_t most_chars(int32_t vocab)
{
    return (vocab - BPE_TRAIN_FIRST + 1) / 2;
}

static int add_chars(struct trainer *t, struct tally *order, size_t n, uint64_t total)
{
    uint64_t covered = 0;
    int r = 0;

    qsort(order, n, sizeof(*order), by_count);
    for (size_t i = 0; r == 0 && i < n && (double)covered < COVERAGE * (double)total; i++) {
        char text[4];
        int k = tr_utf8_encode(order[i].cp, text);

        t->crowded = t->n_chars == most_chars(t->out->vocab);
        if (t->crowded)
            break;
        covered += order[i].count;
        r = bpe_map_put(&t->chars, order[i].cp, (uint32_t)t->out->n);
        if (r == 0)
            r = add_piece(t->out, text, (size_t)k, 1);
        t->n_chars += r == 0;
    }
    return r;
}

/* NUL is left to the byte pieces: JSON keys in C cannot hold it. */
static int choose_chars(struct trainer *t)
{
    uint64_t *count = tr_alloc_array(TR_MEM_TEXT, 0x110000, sizeof(*count)), total;
    struct tally *order = NULL;
    size_t n = 0;
    int r = -ENOMEM;

    if (!count)
        return r;
    tally_chars(t->words, count, &total);
    order = tr_alloc_array(TR_MEM_TEXT, 0x110000, sizeof(*order));
    if (order) {
        for (uint32_t cp = 1; cp < 0x110000; cp++)
            if (count[cp])
                order[n++] = (struct tally){cp, count[cp]};
        r = add_chars(t, order, n, total);
    }
    tr_free(TR_MEM_TEXT, order);
    tr_free(TR_MEM_TEXT, count);
    return r;
}

static int goes_before(const struct entry *a, const struct entry *b)
{
    return a->count != b->count ? a->count > b->count : a->key < b->key;
}

static int heap_push(struct trainer *t, struct entry x)
{
    size_t i = t->n_heap;

    if (i == t->room_heap) {
        size_t room = i ? 2 * i : 4096;
        struct entry *heap = tr_realloc(TR_MEM_TEXT, t->heap, room * sizeof(*heap));

        if (!heap)
            return -ENOMEM;
        t->heap = heap;
        t->room_heap = room;
    }
    t->n_heap++;
    for (; i && goes_before(&x, &t->heap[(i - 1) / 2]); i = (i - 1) / 2)
        t->heap[i] = t->heap[(i - 1) / 2];
    t->heap[i] = x;
    return 0;
}

static struct entry heap_pop(struct trainer *t)
{
    struct entry top = t->heap[0], x = t->heap[--t->n_heap];
    size_t i = 0;

    for (size_t c; (c = 2 * i + 1) < t->n_heap; i = c) {
        if (c + 1 < t->n_heap && goes_before(&t->heap[c + 1], &t->heap[c]))
            c++;
        if (!goes_before(&t->heap[c], &x))
            break;
        t->heap[i] = t->heap[c];
    }
    t->heap[i] = x;
    return top;
}

/* Pointers into the table hold until the next new pair: whoever keeps one across count_pairs copies
 * it first (merge_pair). */
static struct pair *pair_of(struct trainer *t, uint64_t key)
{
    const struct bpe_map_entry *e = bpe_map_find(&t->map, key);

    if (e)
        return &t->pairs[e->value];
    if (t->n_pairs == t->room_pairs) {
        size_t room = t->room_pairs ? 2 * t->room_pairs : 4096;
        struct pair *pairs = tr_realloc(TR_MEM_TEXT, t->pairs, room * sizeof(*pairs));

        if (!pairs)
            return NULL;
        t->pairs = pairs;
        t->room_pairs = room;
    }
    if (bpe_map_put(&t->map, key, (uint32_t)t->n_pairs) < 0)
        return NULL;
    t->pairs[t->n_pairs] = (struct pair){.key = key};
    return &t->pairs[t->n_pairs++];
}

/* Words are read in order, so that a pair that is twice in a word is nearly always noticed here. */
static int remember_word(struct pair *p, uint32_t word)
{
    if (p->n && p->words[p->n - 1] == word)
        return 0;
    if (p->n == p->room) {
        uint32_t room = p->room ? p->room * 2 : 4;
        uint32_t *words = tr_realloc(TR_MEM_TEXT, p->words, room * sizeof(*words));

        if (!words)
            return -ENOMEM;
        p->words = words;
        p->room = room;
    }
    p->words[p->n++] = word;
    return 0;
}

/* Adds `times` the pairs of a word. Pairs with `fresh` (-1: all) learn where they occur. */
static int count_pairs(struct trainer *t, uint32_t word, int64_t times, int32_t fresh)
{
    const int32_t *s = t->symbols + t->start[word];

    for (int i = 0; i + 1 < t->length[word]; i++) {
        struct pair *p;
        int r = 0;

        if (s[i] < 0 || s[i + 1] < 0)
            continue;
        p = pair_of(t, bpe_pair_key(s[i], s[i + 1]));
        if (!p)
            return -ENOMEM;
        p->count += times;
        if (times < 0)
            continue;
        if (fresh < 0 || s[i] == fresh || s[i + 1] == fresh)
            r = remember_word(p, word);
        if (r == 0 && fresh >= 0 && (s[i] == fresh || s[i + 1] == fresh))
            r = heap_push(t, (struct entry){p->count, p->key});
        if (r < 0)
            return r;
    }
    return 0;
}

/* Characters outside the alphabet (-1) never merge: they will be encoded as bytes. */
static int spell_words(struct trainer *t)
{
    const struct bpe_words *w = t->words;
    size_t n = 0;

    for (size_t i = 0; i < w->n; i++) {
        const char *p = w->text.v + w->v[i].at;
        int r;

        t->start[i] = n;
        for (size_t k = 0; k < w->v[i].bytes;) {
            const struct bpe_map_entry *e;
            uint32_t cp = 0;

            k += (size_t)tr_utf8_decode(p + k, w->v[i].bytes - k, &cp);
            e = bpe_map_find(&t->chars, cp);
            t->symbols[n++] = e ? (int32_t)e->value : -1;
        }
        t->length[i] = (uint8_t)(n - t->start[i]);
        r = count_pairs(t, (uint32_t)i, (int64_t)w->v[i].count, -1);
        if (r < 0)
            return r;
    }
    return 0;
}

/* Takes all pairs of the word out, merges from left to right, and puts all pairs of the result in:
 * simpler than minding the neighbours of each merge, and words are short. */
static int rewrite_word(struct trainer *t, uint32_t word, int32_t id)
{
    const struct bpe_piece *p = &t->out->v[id];
    int32_t *s = t->symbols + t->start[word];
    int64_t count = (int64_t)t->words->v[word].count;
    int n = t->length[word], k = 0, r;

    if (t->stamp[word] == id)
        return 0;
    t->stamp[word] = id;
    r = count_pairs(t, word, -count, -1);
    for (int i = 0; i < n; i++) {
        int hit = i + 1 < n && s[i] == p->left && s[i + 1] == p->right;

        s[k++] = hit ? id : s[i];
        i += hit;
    }
    t->length[word] = (uint8_t)k;
    return r < 0 ? r : count_pairs(t, word, count, id);
}

/* Makes the piece of a pair; 0 where the pair must not merge (too long, or its text is a piece). */
static int make_piece(struct trainer *t, uint64_t key)
{
    struct bpe_learnt *l = t->out;
    int32_t left = (int32_t)(key >> 32), right = (int32_t)(uint32_t)key;
    uint32_t chars = l->v[left].chars + l->v[right].chars;
    struct tok_buf text = {0};
    int r;

    if (chars > PIECE_CHARS)
        return 0;
    r = tok_buf_add(&text, l->text.v + l->v[left].at, l->v[left].bytes);
    if (r == 0)
        r = tok_buf_add(&text, l->text.v + l->v[right].at, l->v[right].bytes);
    if (r == 0 && bpe_names_find(&l->names, text.v, text.n) < 0) {
        r = add_piece(l, text.v, text.n, chars);
        if (r == 0) {
            l->v[l->n - 1].left = left;
            l->v[l->n - 1].right = right;
            r = 1;
        }
    }
    tok_buf_free(&text);
    return r;
}

/* Takes the list of words away from the pair, which moves when the table of pairs grows. */
static int merge_pair(struct trainer *t, struct pair *p)
{
    struct pair mine = *p;
    int32_t id = t->out->n - 1;
    int r = 0;

    p->words = NULL;
    p->n = p->room = 0;
    for (uint32_t i = 0; r == 0 && i < mine.n; i++)
        r = rewrite_word(t, mine.words[i], id);
    tr_free(TR_MEM_TEXT, mine.words);
    return r;
}

/* A smaller vocabulary has room for fewer characters, and then less can be learnt. */
static int too_few(const struct trainer *t)
{
    int32_t n = t->out->n;

    if (t->crowded)
        return tr_error(-ENODATA,
                        "a vocabulary of %d pieces has room for %d of the text's characters, with "
                        "which it comes to %d; ask for more",
                        t->out->vocab, t->n_chars, n);
    return tr_error(-ENODATA, "the text has only %d pieces to learn; %s", n,
                    n >= BPE_TRAIN_LEAST && t->n_chars <= most_chars(n)
                        ? "ask for a vocabulary of at most that"
                        : "it must be longer");
}

/* An entry is true when its count is the pair's. A pair whose count has fallen below its entry is
 * put in again with the true one; one whose count has risen has an entry above already. */
static int learn(struct trainer *t)
{
    while (t->out->n < t->out->vocab && t->n_heap) {
        struct entry top = heap_pop(t);
        struct pair *p = pair_of(t, top.key);
        int r;

        if (p->count <= 0)
            continue;
        if (p->count != top.count) {
            r = p->count < top.count ? heap_push(t, (struct entry){p->count, p->key}) : 0;
            if (r < 0)
                return r;
            continue;
        }
        r = make_piece(t, top.key);
        if (r > 0)
            r = merge_pair(t, p);
        if (r < 0)
            return r;
    }
    return t->out->n < t->out->vocab ? too_few(t) : 0;
}

/* Only now, when all words have been counted: an entry for each count on the way would be stale. */
static int start_heap(struct trainer *t)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < t->n_pairs; i++)
        r = heap_push(t, (struct entry){t->pairs[i].count, t->pairs[i].key});
    return r;
}

static void trainer_free(struct trainer *t)
{
    for (size_t i = 0; i < t->n_pairs; i++)
        tr_free(TR_MEM_TEXT, t->pairs[i].words);
    tr_free(TR_MEM_TEXT, t->pairs);
    tr_free(TR_MEM_TEXT, t->heap);
    tr_free(TR_MEM_TEXT, t->symbols);
    tr_free(TR_MEM_TEXT, t->start);
    tr_free(TR_MEM_TEXT, t->length);
    tr_free(TR_MEM_TEXT, t->stamp);
    bpe_map_free(&t->chars);
    bpe_map_free(&t->map);
}

static int allocate(struct trainer *t)
{
    size_t n = t->words->n;

    t->symbols = tr_alloc_array(TR_MEM_TEXT, t->words->text.n, sizeof(*t->symbols));
    t->start = tr_alloc_array(TR_MEM_TEXT, n, sizeof(*t->start));
    t->length = tr_alloc(TR_MEM_TEXT, n);
    t->stamp = tr_alloc_array(TR_MEM_TEXT, n, sizeof(*t->stamp));
    t->out->v = tr_alloc_array(TR_MEM_TEXT, (size_t)t->out->vocab, sizeof(*t->out->v));
    return t->symbols && t->start && t->length && t->stamp && t->out->v ? 0 : -ENOMEM;
}

int bpe_train(struct bpe_learnt *out, const struct bpe_words *words, int32_t vocab)
{
    struct trainer t = {.out = out, .words = words};
    int r;

    *out = (struct bpe_learnt){.vocab = vocab, .names.name = piece_text, .names.owner = out};
    r = allocate(&t);
    if (r == 0)
        r = add_fixed(out);
    if (r == 0)
        r = choose_chars(&t);
    if (r == 0)
        r = spell_words(&t);
    if (r == 0)
        r = start_heap(&t);
    if (r == 0)
        r = learn(&t);
    trainer_free(&t);
    if (r < 0)
        bpe_learnt_free(out);
    return r;
}
