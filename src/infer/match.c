/* SPDX-License-Identifier: Apache-2.0 */
#include "src/infer/match.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "src/base/err.h"
#include "src/base/json.h"
#include "src/base/mem.h"
#include "src/text/data_file.h"
#include "src/text/data_talk.h"

#define RESULT_BYTES 64
#define LEAST_TOKENS 32 /* of an answer, where not asked for */

struct question {
    char *shown, *expected; /* shown: what was asked last, for people */
    struct tr_ids ids;
    size_t prompt; /* tokens of it */
};

struct questions {
    struct infer *f;
    const struct tr_eval_params *p;
    enum tr_data_format format; /* of the first record */
    struct chat chat;           /* once it is needed */
    struct question *v;
    size_t n, room;
    size_t longest; /* tokens of an expected answer, at most */
};

static void questions_free(struct questions *q)
{
    for (size_t i = 0; i < q->n; i++) {
        tr_free(TR_MEM_TEXT, q->v[i].shown);
        tr_free(TR_MEM_TEXT, q->v[i].expected);
        tr_ids_free(&q->v[i].ids);
    }
    tr_free(TR_MEM_TEXT, q->v);
    chat_close(&q->chat);
}

/* The next question, empty. */
static int add(struct questions *q, struct question **out)
{
    if (q->n == q->room) {
        size_t room = 2 * q->room + 64;
        struct question *v = tr_realloc(TR_MEM_TEXT, q->v, room * sizeof(*v));

        if (!v)
            return -ENOMEM;
        q->v = v;
        q->room = room;
    }
    *out = &q->v[q->n++];
    **out = (struct question){0};
    return 0;
}

static int keep(struct questions *q, struct question *k, const char *shown, const char *expected)
{
    struct tr_ids answer = {0};
    int r = tr_tokenizer_encode(q->f->run.tokenizer, expected, strlen(expected), &answer);

    q->longest = answer.n > q->longest ? answer.n : q->longest;
    tr_ids_free(&answer);
    k->shown = tr_strdup(TR_MEM_TEXT, shown);
    k->expected = tr_strdup(TR_MEM_TEXT, expected);
    k->prompt = k->ids.n;
    return r < 0 || (k->shown && k->expected) ? r : -ENOMEM;
}

/* Both are texts, and no template is named. */
static int add_plain(struct questions *q, const char *where, json_t *o)
{
    struct data_pair pair;
    struct question *k;
    int r = data_pair_plain(&pair, where, q->format, o);

    if (r < 0)
        return r;
    r = add(q, &k);
    if (r == 0)
        r = infer_encode_prompt(q->f->run.tokenizer, json_string_value(pair.first), &k->ids);
    if (r == 0)
        r = keep(q, k, json_string_value(pair.first), json_string_value(pair.second));
    data_pair_free(&pair);
    return r;
}

static const char *content(const json_t *messages, size_t i)
{
    return json_string_value(json_object_get(json_array_get(messages, i), "content"));
}

/* The last message is the answer, and is taken off. */
static int add_messages(struct questions *q, const char *where, const struct data_talk *talk)
{
    size_t n = json_array_size(talk->messages);
    const char *role =
        json_string_value(json_object_get(json_array_get(talk->messages, n - 1), "role"));
    const char *expected = content(talk->messages, n - 1), *shown;
    json_t *before;
    struct question *k;
    int r;

    if (n < 2 || !role || strcmp(role, "assistant") || !expected)
        return tr_error(-EINVAL,
                        "%s: exact match needs a conversation that ends with a text of the "
                        "assistant",
                        where);
    shown = content(talk->messages, n - 2);
    before = tr_json_copy(talk->messages);
    r = before && json_array_remove(before, n - 1) == 0 ? add(q, &k) : -ENOMEM;
    if (r == 0)
        r = infer_encode_talk(q->f->run.tokenizer, &q->chat, before, talk->tools, &k->ids);
    if (r == 0)
        r = keep(q, k, shown ? shown : "", expected);
    json_decref(before);
    return r < 0 ? tr_error_prefix(r, "%s", where) : 0;
}

static int add_talk(struct questions *q, const char *where, json_t *o)
{
    struct data_talk talk;
    int r = data_talk_read(&talk, where, q->format, o);

    if (r < 0)
        return r;
    r = add_messages(q, where, &talk);
    data_talk_free(&talk);
    return r;
}

/* Instructions have a format of their own, where neither the user nor the model names one. */
static int open_chat(struct questions *q)
{
    int r = infer_chat_open(q->f, q->p->model, q->p->chat_template, &q->chat);

    if (r == -ENOENT && !q->p->chat_template && q->format == TR_DATA_ALPACA)
        r = infer_chat_open(q->f, q->p->model, "alpaca", &q->chat);
    return r;
}

/* The first record says what the file is. */
static int recognise(struct questions *q, const char *where, json_t *o)
{
    char *template = NULL;
    int talk, r = data_format_of(where, o, &q->format);

    if (r == 0 && (q->format == TR_DATA_IDS || q->format == TR_DATA_JSONL_TEXT))
        r = tr_error(-EINVAL,
                     "%s: exact match needs \"prompt\" and \"completion\", \"question\" and "
                     "\"answer\", or conversations",
                     where);
    if (r == 0)
        r = infer_template(q->p->model, q->p->chat_template, &template);
    talk = template || !data_is_pair(q->format) || json_is_array(json_object_get(o, "prompt"));
    tr_free(TR_MEM_MISC, template);
    if (r < 0 || !talk)
        return r;
    r = open_chat(q);
    return r < 0 ? tr_error_prefix(r, "%s", where) : 0;
}

static int read_question(void *owner, const char *where, json_t *o)
{
    struct questions *q = owner;
    int r = tr_json_refuse_nul(o, where);

    if (r == 0 && !q->n)
        r = recognise(q, where, o);
    if (r < 0)
        return r;
    r = q->chat.template ? add_talk(q, where, o) : add_plain(q, where, o);
    return r < 0 ? r : q->p->samples > 0 && (int64_t)q->n >= q->p->samples;
}

static int same_text(const char *a, const char *b)
{
    size_t na, nb;

    while (isspace((unsigned char)*a))
        a++;
    while (isspace((unsigned char)*b))
        b++;
    na = strlen(a);
    nb = strlen(b);
    while (na && isspace((unsigned char)a[na - 1]))
        na--;
    while (nb && isspace((unsigned char)b[nb - 1]))
        nb--;
    return na == nb && !memcmp(a, b, na);
}

/* The number behind "####", where an answer of GSM8K has its result, without the commas in it. */
static int result_of(const char *text, char out[RESULT_BYTES])
{
    const char *at = strstr(text, "#### ");
    size_t n = 0;

    for (at = at ? at + 5 : ""; *at && strchr("-.,0123456789", *at) && n + 1 < RESULT_BYTES; at++) {
        if (*at == '-' && n)
            break;
        if (*at != ',')
            out[n++] = *at;
    }
    out[n] = '\0';
    return n > 0;
}

int match_is_right(enum tr_data_format format, const char *answer, const char *expected)
{
    char want[RESULT_BYTES], got[RESULT_BYTES];

    if (format != TR_DATA_QUESTION || !result_of(expected, want))
        return same_text(answer, expected);
    return result_of(answer, got) && !strcmp(got, want);
}

static int log_answer(const struct tr_eval_params *p, const struct question *k, const char *answer,
                      int ok)
{
    size_t room = strlen(k->shown) + strlen(answer) + strlen(k->expected) + 32;
    char *line;

    if (!p->log)
        return 0;
    line = tr_alloc(TR_MEM_TEXT, room);
    if (!line)
        return -ENOMEM;
    snprintf(line, room, "%s %s -> %s (expected %s)", ok ? "ok  " : "miss", k->shown, answer,
             k->expected);
    p->log(p->log_arg, line);
    tr_free(TR_MEM_TEXT, line);
    return 0;
}

static int fits(const struct questions *q, const struct question *k)
{
    return (int64_t)k->prompt < q->f->run.plan.in.positions;
}

static int judge(const struct questions *q, const struct question *k, struct tr_eval_report *report)
{
    char *answer;
    int ok, r;

    report->samples++;
    if (!fits(q, k))
        return log_answer(q->p, k, "(the prompt does not fit into --seq-len)", 0);
    r = tr_tokenizer_decode(q->f->run.tokenizer, k->ids.v + k->prompt, k->ids.n - k->prompt,
                            &answer);
    if (r < 0)
        return r;
    ok = match_is_right(q->format, answer, k->expected);
    report->matched += ok;
    r = log_answer(q->p, k, answer, ok);
    tr_free(TR_MEM_TEXT, answer);
    return r;
}

/* Unless asked for, half as many again as the longest right answer has: one that is worded in other
 * tokens comes to its end, too. */
static int64_t answer_tokens(const struct questions *q)
{
    int64_t room = (int64_t)(q->longest + q->longest / 2);

    if (q->p->max_tokens)
        return q->p->max_tokens;
    return room > LEAST_TOKENS ? room : LEAST_TOKENS;
}

/* All that fit grow together; their ids lie in one array meanwhile. */
static int answer_all(struct questions *q)
{
    struct tr_ids *ids = tr_alloc_array(TR_MEM_TEXT, q->n, sizeof(*ids));
    size_t n = 0;
    int r = ids ? 0 : -ENOMEM;

    for (size_t i = 0; ids && i < q->n; i++)
        if (fits(q, &q->v[i]))
            ids[n++] = q->v[i].ids;
    if (r == 0 && n)
        r = infer_greedy(q->f, ids, (int32_t)n, answer_tokens(q));
    n = 0;
    for (size_t i = 0; ids && i < q->n; i++)
        if (fits(q, &q->v[i]))
            q->v[i].ids = ids[n++];
    tr_free(TR_MEM_TEXT, ids);
    return r;
}

int tr_match(struct infer *f, const struct tr_eval_params *p, struct tr_eval_report *report)
{
    struct questions q = {.f = f, .p = p};
    char *path = NULL;
    int r = f->run.tokenizer
                ? data_file_find(p->data, 1, &path)
                : tr_error(-EINVAL, "%s: has no tokenizer.json; give --tokenizer", p->model);

    if (r == 0)
        r = data_file_records(path, read_question, &q);
    if (r == 0 && !q.n)
        r = tr_error(-ENODATA, "%s: no samples", path);
    if (r == 0)
        r = answer_all(&q);
    for (size_t i = 0; r == 0 && i < q.n; i++)
        r = judge(&q, &q.v[i], report);
    questions_free(&q);
    tr_free(TR_MEM_TEXT, path);
    return r;
}
