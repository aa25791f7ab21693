/* SPDX-License-Identifier: Apache-2.0
 *
 * A file becomes tokens: plain text through a window that is cut where no id can change, JSONL line
 * by line, so that memory is four bytes a token and one window or line. Every refusal names the
 * file and the line (invariant 9).
 */
#include "src/text/data_set.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/err.h"
#include "src/base/json.h"
#include "src/text/data_file.h"
#include "src/text/data_talk.h"
#include "src/text/task.h"

#define WINDOW ((size_t)4 << 20)

/* BOS is masked like any first token: there is nothing to predict it from. */
static int begin_document(struct tr_data *d, const char *where)
{
    const struct tr_tokenizer *t = d->p.tokenizer;

    return tr_tokenizer_adds_bos(t) ? data_push(d, where, tr_tokenizer_bos(t), 1) : 0;
}

/* EOS is learnt, or the model would never stop. */
static int end_document(struct tr_data *d, const char *where)
{
    const struct tr_tokenizer *t = d->p.tokenizer;

    return tr_tokenizer_eos(t) >= 0 ? data_push(d, where, tr_tokenizer_eos(t), 0) : 0;
}

static int push_encoded(struct tr_data *d, const char *where, json_t *text,
                        enum tr_text_place *place, int masked)
{
    struct tr_ids ids = {0};
    int r = tr_tokenizer_encode_more(d->p.tokenizer, json_string_value(text),
                                     json_string_length(text), place, &ids);

    d->info.bytes += masked ? 0 : json_string_length(text);
    if (r < 0)
        tr_error_prefix(r, "%s", where);
    else
        r = data_push_text(d, where, &ids, masked);
    tr_ids_free(&ids);
    return r;
}

/* A document of one or two strings; the first is masked where there is a second. */
static int read_strings(struct tr_data *d, const char *where, json_t *first, json_t *second)
{
    enum tr_text_place place = TR_TEXT_START;
    int r = begin_document(d, where);

    if (r == 0)
        r = push_encoded(d, where, first, &place, second != NULL);
    if (r == 0 && second)
        r = push_encoded(d, where, second, &place, 0);
    if (r == 0)
        r = end_document(d, where);
    return r < 0 ? r : data_sample_end(d);
}

static int read_pair(struct tr_data *d, const char *where, json_t *o)
{
    struct data_pair pair;
    int r = data_pair_plain(&pair, where, d->info.format, o);

    if (r < 0)
        return r;
    r = read_strings(d, where, pair.first, pair.second);
    data_pair_free(&pair);
    return r;
}

/* Element i of a list of numbers, as an id. */
static int read_number(json_t *list, size_t i, const char *key, const char *where, int64_t *out)
{
    json_t *v = json_array_get(list, i);

    if (!json_is_integer(v))
        return tr_error(-EINVAL, "%s: %s[%zu] is not a whole number", where, key, i);
    *out = json_integer_value(v);
    return 0;
}

/* A label is the id itself or -100; another id would be a different task, and is not guessed at. */
static int push_labelled(struct tr_data *d, const char *where, json_t *ids, json_t *labels,
                         size_t i)
{
    int64_t id = 0, label;
    int r = read_number(ids, i, "input_ids", where, &id);

    if (r < 0)
        return r;
    label = id;
    if (labels)
        r = read_number(labels, i, "labels", where, &label);
    if (r < 0)
        return r;
    if (id < 0 || id >= d->p.vocab)
        return tr_error(-ERANGE, "%s: input_ids[%zu] is %lld, the model's vocabulary has %d ids",
                        where, i, (long long)id, d->p.vocab);
    if (label != -100 && label != id)
        return tr_error(-EINVAL, "%s: labels[%zu] is %lld, neither -100 nor input_ids[%zu] = %lld",
                        where, i, (long long)label, i, (long long)id);
    return data_push(d, where, (int32_t)id, label == -100);
}

/* Padding has no place here: rows are as long as they are. */
static int check_attention(json_t *o, const char *where, size_t n)
{
    json_t *mask = json_object_get(o, "attention_mask"), *v;
    size_t i;

    if (!mask || json_is_null(mask))
        return 0;
    if (json_array_size(mask) != n)
        return tr_error(-EINVAL, "%s: attention_mask and input_ids differ in length", where);
    json_array_foreach(mask, i, v)
        if (!json_is_integer(v) || json_integer_value(v) != 1)
            return tr_error(-ENOTSUP,
                            "%s: attention_mask[%zu] is not 1: "
                            "leave padding out of the rows",
                            where, i);
    return 0;
}

static int read_ids(struct tr_data *d, const char *where, json_t *o)
{
    json_t *ids = json_object_get(o, "input_ids"), *labels = json_object_get(o, "labels");
    size_t n = json_array_size(ids);
    int r = check_attention(o, where, n);

    if (json_is_null(labels))
        labels = NULL;
    if (r == 0 && labels && json_array_size(labels) != n)
        r = tr_error(-EINVAL, "%s: %zu labels for %zu input_ids", where, json_array_size(labels),
                     n);
    if (r == 0 && !d->p.packing_asked && n > (size_t)d->p.seq_len)
        r = tr_error(-EMSGSIZE,
                     "%s: %zu input_ids, but a row holds %d: raise --seq-len; rows are cut and "
                     "packed only where train is given --packing on",
                     where, n, d->p.seq_len);
    for (size_t i = 0; r == 0 && i < n; i++)
        r = push_labelled(d, where, ids, labels, i);
    return r < 0 ? r : data_sample_end(d);
}

/* 1 where a template writes the record. */
static int is_talk(const struct tr_data *d, json_t *o)
{
    return d->info.format >= TR_DATA_MESSAGES ||
           (d->info.format == TR_DATA_PROMPT && json_is_array(json_object_get(o, "prompt"))) ||
           (data_is_pair(d->info.format) && d->p.template_name);
}

static int unknown(const char *where, json_t *o)
{
    char keys[160] = "";
    const char *key;
    json_t *v;

    json_object_foreach(o, key, v) {
        size_t n = strlen(keys);

        snprintf(keys + n, sizeof(keys) - n, "%s\"%.24s\"", n ? ", " : "", key);
    }
    return tr_error(-EINVAL,
                    "%s: no known record: it has %s, and needs \"messages\", \"conversations\", "
                    "\"instruction\" and \"output\", \"prompt\" and \"completion\", "
                    "\"question\" and \"answer\", \"text\", or \"input_ids\" (the records of a "
                    "task need --task)",
                    where, *keys ? keys : "nothing");
}

/* Tables write null for what a row has not. */
static int has(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);

    return v && !json_is_null(v);
}

/* Formats are tried from the most to the least special: a pre-tokenised record may carry its text.
 */
int data_format_of(const char *where, json_t *o, enum tr_data_format *out)
{
    if (has(o, "input_ids"))
        *out = TR_DATA_IDS;
    else if (has(o, "messages"))
        *out = TR_DATA_MESSAGES;
    else if (has(o, "conversations"))
        *out = TR_DATA_CONVERSATIONS;
    else if (has(o, "instruction") && has(o, "output"))
        *out = TR_DATA_ALPACA;
    else if (has(o, "prompt") && has(o, "completion"))
        *out = TR_DATA_PROMPT;
    else if (has(o, "text"))
        *out = TR_DATA_JSONL_TEXT;
    else if (has(o, "question") && has(o, "answer"))
        *out = TR_DATA_QUESTION;
    else
        return unknown(where, o);
    return 0;
}

static int needs_tokenizer(const char *where, const char *what)
{
    return tr_error(-EINVAL, "%s: %s, but the model has no tokenizer.json; give --tokenizer", where,
                    what);
}

static int recognise(struct tr_data *d, const char *where, json_t *o)
{
    int r = data_format_of(where, o, &d->info.format);

    if (r < 0)
        return r;
    if (d->info.format != TR_DATA_IDS && !d->p.tokenizer)
        return needs_tokenizer(where, "a text record");
    if (!is_talk(d, o))
        return 0;
    r = data_chat_open(d);
    return r < 0 ? tr_error_prefix(r, "%s", where) : 0;
}

/* The first record has said what the file is; one that differs is an error, not another format. */
static int read_object(struct tr_data *d, const char *where, json_t *o)
{
    json_t *text = json_object_get(o, "text");

    switch (d->info.format) {
    case TR_DATA_IDS:
        if (!json_is_array(json_object_get(o, "input_ids")))
            break;
        return read_ids(d, where, o);
    case TR_DATA_MESSAGES:
    case TR_DATA_CONVERSATIONS:
    case TR_DATA_ALPACA:
        return data_read_talk(d, where, o);
    case TR_DATA_PROMPT:
    case TR_DATA_QUESTION:
        return d->chat.template ? data_read_talk(d, where, o) : read_pair(d, where, o);
    default:
        if (!json_is_string(text))
            break;
        return read_strings(d, where, text, NULL);
    }
    return tr_error(-EINVAL, "%s: %s", where,
                    d->info.format == TR_DATA_IDS ? "\"input_ids\" must be a list of numbers"
                                                  : "\"text\" must be a string");
}

/* A question's context loses its beginning rather than its answer, as where it is asked. */
static int push_question(struct tr_data *d, const char *where, const struct tr_ids *ids,
                         size_t first)
{
    int eos = tr_tokenizer_eos(d->p.tokenizer) >= 0;
    size_t most = (size_t)d->p.seq_len - (size_t)eos, cut = ids->n > most ? ids->n - most : 0;
    int r = 0;

    d->info.truncated += cut > 0;
    d->info.dropped_tokens += cut;
    for (size_t i = cut; r == 0 && i < ids->n; i++)
        r = data_push(d, where, ids->v[i], i < first);
    if (r == 0)
        r = end_document(d, where);
    return r < 0 ? r : data_sample_end(d);
}

struct question {
    struct tr_data *d;
    const char *where;
};

static int read_question(void *arg, const struct tr_task_item *item)
{
    const struct question *q = arg;
    struct tr_ids ids = {0};
    size_t first;
    char *answer;
    int r;

    if (asprintf(&answer, "%s%s", item->delimiter, item->choices[item->gold]) < 0)
        return tr_error(-ENOMEM, "out of memory");
    r = tr_task_encode(q->d->p.tokenizer, item->context, answer, &ids, &first);
    free(answer);
    if (r < 0)
        tr_error_prefix(r, "%s", q->where);
    else
        r = push_question(q->d, q->where, &ids, first);
    tr_ids_free(&ids);
    return r;
}

/* The record of a task. */
static int read_task(struct tr_data *d, const char *where, const json_t *o)
{
    struct question q = {d, where};

    d->info.format = TR_DATA_PROMPT;
    if (!d->p.tokenizer)
        return needs_tokenizer(where, "a task's record");
    return tr_task_read((enum tr_task)d->p.task, o, where, read_question, &q);
}

int data_read_record(struct tr_data *d, const char *where, json_t *o)
{
    int r;

    if (d->p.task)
        return read_task(d, where, o);
    r = d->n_samples ? 0 : recognise(d, where, o);
    return r < 0 ? r : read_object(d, where, o);
}

static int read_record(void *owner, const char *where, json_t *o)
{
    return data_read_record(owner, where, o);
}

/* Only ever called for a window that is known to hold one: the slow way finds the line. */
static int has_bad_id(const struct tr_data *d, const char *text, size_t n)
{
    enum tr_text_place place = TR_TEXT_INSIDE;
    struct tr_ids ids = {0};
    int bad = 0;

    tr_tokenizer_encode_more(d->p.tokenizer, text, n, &place, &ids);
    for (size_t i = 0; i < ids.n; i++)
        bad |= ids.v[i] >= d->p.vocab;
    tr_ids_free(&ids);
    return bad;
}

/* Moves f->line to the line of text[0..n) that holds an id past the vocabulary. */
static void find_line(const struct tr_data *d, struct data_file *f, const char *text, size_t n)
{
    for (size_t at = 0; at < n;) {
        const char *end = memchr(text + at, '\n', n - at);
        size_t stop = end ? (size_t)(end - text) : n;

        if (has_bad_id(d, text + at, stop - at))
            return;
        f->line += end != NULL;
        at = stop + 1;
    }
}

/* All ids of a window are checked before one is pushed, so that the line can be found from its
 * text. */
static int push_window(struct tr_data *d, struct data_file *f, size_t n, enum tr_text_place *place)
{
    const char *text = f->v + f->at;
    struct tr_ids ids = {0};
    char where[4200];
    int r = tr_tokenizer_encode_more(d->p.tokenizer, text, n, place, &ids);

    if (r < 0)
        tr_error_prefix(r, "%s", d->path);
    for (size_t i = 0; r == 0 && i < ids.n; i++)
        if (ids.v[i] >= d->p.vocab) {
            find_line(d, f, text, n);
            snprintf(where, sizeof(where), "%s:%llu", f->path, (unsigned long long)f->line);
            r = data_push(d, where, ids.v[i], 0);
        }
    if (r == 0)
        r = data_push_text(d, d->path, &ids, 0);
    for (size_t i = 0; i < n; i++)
        f->line += text[i] == '\n';
    f->at += n;
    d->info.bytes += n;
    tr_ids_free(&ids);
    return r;
}

/* A plain text is one document, whatever its size. */
static int read_document(struct tr_data *d, struct data_file *f)
{
    enum tr_text_place place = TR_TEXT_START;
    size_t want = WINDOW;
    int more = 1, r = begin_document(d, d->path);

    f->line = 1;
    while (r == 0 && more) {
        size_t n;

        while (more > 0 && f->n - f->at < want)
            more = data_file_more(f);
        if (more < 0)
            return more;
        n = f->n - f->at;
        if (!n && d->tokens.n <= 1 && place == TR_TEXT_START)
            return tr_error(-ENODATA, "%s: is empty", d->path);
        if (more)
            n = tr_tokenizer_cut(d->p.tokenizer, f->v + f->at, n);
        if (n || !more)
            r = push_window(d, f, n, &place);
        want = n ? WINDOW : want * 2; /* no place to cut: look further */
        if (r == 0 && want > WINDOW)
            r = data_may_grow(d, want);
    }
    if (r == 0)
        r = end_document(d, d->path);
    return r < 0 ? r : data_cut_windows(d);
}

static int read_file(struct tr_data *d, struct data_file *f)
{
    int records = d->p.task ? 1 : data_file_has_records(f);

    if (records)
        return records < 0 ? records : data_file_each(f, read_record, d);
    return d->p.tokenizer ? read_document(d, f) : needs_tokenizer(d->path, "a plain text");
}

int data_read(struct tr_data *d)
{
    struct data_file f;
    int r = data_file_open(&f, d->path);

    if (r < 0)
        return r;
    r = read_file(d, &f);
    data_file_close(&f);
    if (r < 0)
        return r;
    if (!d->n_samples)
        return tr_error(-ENODATA, "%s: holds no record", d->path);
    data_draw(d);
    return d->info.targets
               ? 0
               : tr_error(-ENODATA, "%s: nothing to learn: none of %zu samples has a target%s",
                          d->path, d->n_samples,
                          d->info.truncated ? " within --seq-len tokens" : "");
}
