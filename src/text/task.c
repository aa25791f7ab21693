/* SPDX-License-Identifier: Apache-2.0 */
#include "src/text/task.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/err.h"
#include "src/base/json.h"
#include "src/base/mem.h"
#include "src/text/tokenizer_utf8.h"

struct record {
    const json_t *o;
    const char *where;
    tr_task_fn *fn;
    void *arg;
};

static int missing(const struct record *r, const char *key, const char *what)
{
    return tr_error(-EINVAL, "%s: \"%s\" is not there or not %s", r->where, key, what);
}

static int text_of(const struct record *r, const json_t *o, const char *key, const char **out)
{
    *out = json_string_value(json_object_get(o, key));
    return *out ? 0 : missing(r, key, "a text");
}

/* The texts of keys, which NULL ends. */
static int texts_of(const struct record *r, const char *const keys[], const char *out[])
{
    int e = 0;

    for (int i = 0; keys[i] && e == 0; i++)
        e = text_of(r, r->o, keys[i], &out[i]);
    return e;
}

static const char *const truths[] = {"true", "false", NULL};

static int bad_label(const struct record *r, const char *const names[])
{
    char *found = tr_json_text(json_object_get(r->o, "label"), JSON_ENCODE_ANY | JSON_COMPACT);
    int e;

    if (!found)
        e = tr_error(-EINVAL, "%s: \"label\" is not there (the records of a test set have none)",
                     r->where);
    else
        e = tr_error(-EINVAL, "%s: \"label\" is %.64s; this task's are %s, %s%s%s", r->where, found,
                     names[0], names[1], names[2] ? ", " : "", names[2] ? names[2] : "");
    free(found);
    return e;
}

/* A label by its name, or true and false, or the number that the data sets of the hub have for it:
 * there 1 is true, and names count from 0 on. */
static int label_of(const struct record *r, const char *const names[], int *out)
{
    const json_t *v = json_object_get(r->o, "label");
    const char *name = json_is_true(v) ? "true" : json_is_false(v) ? "false" : json_string_value(v);
    json_int_t number = names == truths ? 1 - json_integer_value(v) : json_integer_value(v);

    for (int i = 0; names[i]; i++)
        if (name ? !strcmp(name, names[i]) : json_is_integer(v) && number == i) {
            *out = i;
            return 0;
        }
    return bad_label(r, names);
}

/* Hands one item on whose context is printed. */
__attribute__((format(printf, 3, 4))) static int
ask(const struct record *r, struct tr_task_item *item, const char *fmt, ...)
{
    char *context;
    va_list ap;
    int n, e;

    va_start(ap, fmt);
    n = vasprintf(&context, fmt, ap);
    va_end(ap);
    if (n < 0)
        return tr_error(-ENOMEM, "out of memory");
    item->context = context;
    e = r->fn(r->arg, item);
    free(context);
    return e;
}

/* Yes is choice 0 throughout. */
static struct tr_task_item yes_or_no(void)
{
    return (struct tr_task_item){.choices = {"Yes", "No"}, .delimiter = "", .n = 2};
}

/* What RTE and CB ask about. */
static const char *const inference[] = {"premise", "hypothesis", NULL};

static int read_rte(const struct record *r)
{
    static const char *const labels[] = {"entailment", "not_entailment", NULL};
    struct tr_task_item item = yes_or_no();
    const char *text[2];
    int e;

    if ((e = texts_of(r, inference, text)) < 0 || (e = label_of(r, labels, &item.gold)) < 0)
        return e;
    return ask(r, &item, "%s\nDoes this mean that \"%s\" is true? Yes or No?\n", text[0], text[1]);
}

static int read_cb(const struct record *r)
{
    static const char *const labels[] = {"entailment", "contradiction", "neutral", NULL};
    struct tr_task_item item = {.choices = {"Yes", "No", "Maybe"}, .delimiter = "", .n = 3};
    const char *text[2];
    int e;

    if ((e = texts_of(r, inference, text)) < 0 || (e = label_of(r, labels, &item.gold)) < 0)
        return e;
    return ask(r, &item, "Suppose %s Can we infer that \"%s\"? Yes, No, or Maybe?\n", text[0],
               text[1]);
}

/* The questions of the data set have no question mark, and small letters throughout. */
static int read_boolq(const struct record *r)
{
    struct tr_task_item item = yes_or_no();
    static const char *const keys[] = {"passage", "question", NULL};
    const char *text[2], *question;
    int e;

    if ((e = texts_of(r, keys, text)) < 0 || (e = label_of(r, truths, &item.gold)) < 0)
        return e;
    question = text[1];
    return ask(r, &item, "%s %c%s?\n", text[0], toupper((unsigned char)*question),
               *question ? question + 1 : "");
}

static int read_wic(const struct record *r)
{
    struct tr_task_item item = yes_or_no();
    static const char *const keys[] = {"word", "sentence1", "sentence2", NULL};
    const char *text[3];
    int e;

    if ((e = texts_of(r, keys, text)) < 0 || (e = label_of(r, truths, &item.gold)) < 0)
        return e;
    return ask(r, &item,
               "Does the word \"%s\" have the same meaning in these two sentences? Yes, No?\n"
               "%s\n%s\n",
               text[0], text[1], text[2]);
}

static int read_wsc(const struct record *r)
{
    struct tr_task_item item = yes_or_no();
    const json_t *target = json_object_get(r->o, "target");
    const char *text, *who, *pronoun;
    int e;

    if ((e = text_of(r, r->o, "text", &text)) < 0 ||
        (e = text_of(r, target, "span1_text", &who)) < 0 ||
        (e = text_of(r, target, "span2_text", &pronoun)) < 0 ||
        (e = label_of(r, truths, &item.gold)) < 0)
        return e;
    return ask(r, &item,
               "%s\nIn the previous sentence, does the pronoun \"%s\" refer to %s? Yes or No?\n",
               text, pronoun, who);
}

/* The second half of a sentence begins small, but for "I". */
static char *lowered(const char *text)
{
    char *copy = tr_strdup(TR_MEM_TEXT, text);

    if (copy && !(*copy == 'I' && !isalpha((unsigned char)copy[1])))
        *copy = (char)tolower((unsigned char)*copy);
    return copy;
}

static int ask_copa(const struct record *r, const char *premise, int cause, char *const half[2],
                    int gold)
{
    struct tr_task_item item = {
        .choices = {half[0], half[1]}, .delimiter = " ", .n = 2, .gold = gold};
    size_t n = strlen(premise);

    while (n && strchr(" .", premise[n - 1]))
        n--;
    return ask(r, &item, "%.*s %s", (int)n, premise, cause ? "because" : "so");
}

static int read_copa(const struct record *r)
{
    const json_t *label = json_object_get(r->o, "label");
    static const char *const keys[] = {"premise", "question", "choice1", "choice2", NULL};
    const char *text[4];
    char *half[2];
    int e, cause;

    if ((e = texts_of(r, keys, text)) < 0)
        return e;
    cause = !strcmp(text[1], "cause");
    if (!cause && strcmp(text[1], "effect") != 0)
        return missing(r, "question", "cause or effect");
    if (!json_is_integer(label) || json_integer_value(label) < 0 || json_integer_value(label) > 1)
        return missing(r, "label", "0 or 1");
    half[0] = lowered(text[2]);
    half[1] = lowered(text[3]);
    e = half[0] && half[1] ? ask_copa(r, text[0], cause, half, (int)json_integer_value(label))
                           : -ENOMEM;
    tr_free(TR_MEM_TEXT, half[0]);
    tr_free(TR_MEM_TEXT, half[1]);
    return e;
}

static int ask_multirc(const struct record *r, const char *passage, const char *question,
                       const json_t *answer, int64_t group)
{
    const json_t *label = json_object_get(answer, "label");
    struct tr_task_item item = yes_or_no();
    const char *text;
    int e = text_of(r, answer, "text", &text);

    if (e < 0)
        return e;
    if (!json_is_integer(label) || json_integer_value(label) < 0 || json_integer_value(label) > 1)
        return missing(r, "label", "0 or 1");
    item.gold = !json_integer_value(label);
    item.group = group;
    return ask(r, &item,
               "%s\nQuestion: %s\nI found this answer \"%s\". Is that correct? Yes or No?\n",
               passage, question, text);
}

static int ask_answers(const struct record *r, const char *passage, const json_t *question,
                       int64_t group)
{
    const json_t *answers = json_object_get(question, "answers"), *answer;
    const char *asked;
    size_t i;
    int e = text_of(r, question, "question", &asked);

    if (e < 0)
        return e;
    if (!json_array_size(answers))
        return missing(r, "answers", "a list of them");
    json_array_foreach(answers, i, answer) {
        if ((e = ask_multirc(r, passage, asked, answer, group)) < 0)
            return e;
    }
    return 0;
}

static int read_multirc(const struct record *r)
{
    const json_t *passage = json_object_get(r->o, "passage"), *question;
    const json_t *questions = json_object_get(passage, "questions");
    const char *text;
    size_t i;
    int e;

    if (!json_is_object(passage))
        return missing(r, "passage", "an object with \"text\" and \"questions\"");
    if ((e = text_of(r, passage, "text", &text)) < 0)
        return e;
    if (!json_array_size(questions))
        return missing(r, "questions", "a list of them");
    json_array_foreach(questions, i, question) {
        if ((e = ask_answers(r, text, question, (int64_t)i)) < 0)
            return e;
    }
    return 0;
}

static int read_choice(const struct record *r)
{
    const json_t *choices = json_object_get(r->o, "choices"), *v;
    const json_t *answer = json_object_get(r->o, "answer");
    struct tr_task_item item = {.delimiter = " ", .n = (int)json_array_size(choices)};
    const char *context;
    size_t i;
    int e = text_of(r, r->o, "context", &context);

    if (e < 0)
        return e;
    if (json_array_size(choices) < 2 || json_array_size(choices) > TR_TASK_CHOICES)
        return missing(r, "choices", "a list of 2 to 64 texts");
    json_array_foreach(choices, i, v) {
        item.choices[i] = json_string_value(v);
        if (!item.choices[i] || !*item.choices[i])
            return missing(r, "choices", "a list of 2 to 64 texts");
    }
    if (!json_is_integer(answer) || json_integer_value(answer) < 0 ||
        json_integer_value(answer) >= item.n)
        return missing(r, "answer", "the number of a choice, from 0 on");
    item.gold = (int)json_integer_value(answer);
    item.context = context;
    return r->fn(r->arg, &item);
}

static const struct {
    const char *name;
    int (*read)(const struct record *r);
} tasks[TR_TASKS] = {
    [TR_TASK_NONE] = {"none", NULL},
    [TR_TASK_RTE] = {"rte", read_rte},
    [TR_TASK_CB] = {"cb", read_cb},
    [TR_TASK_BOOLQ] = {"boolq", read_boolq},
    [TR_TASK_COPA] = {"copa", read_copa},
    [TR_TASK_WIC] = {"wic", read_wic},
    [TR_TASK_WSC] = {"wsc", read_wsc},
    [TR_TASK_MULTIRC] = {"multirc", read_multirc},
    [TR_TASK_CHOICE] = {"choice", read_choice},
};

int tr_task_find(const char *name)
{
    for (int i = TR_TASK_RTE; i < TR_TASKS; i++)
        if (!strcmp(name, tasks[i].name))
            return i;
    return -1;
}

int tr_task_check(enum tr_task task, const char *template)
{
    if ((unsigned)task >= TR_TASKS)
        return tr_error(-EINVAL, "--task: %d names none", (int)task);
    return !task || !template
               ? 0
               : tr_error(-EINVAL,
                          "--task and --template exclude each other: a task has its prompts");
}

int tr_task_read(enum tr_task task, const json_t *record, const char *where, tr_task_fn *fn,
                 void *arg)
{
    int r = tr_json_refuse_nul(record, where);

    return r < 0 ? r : tasks[task].read(&(struct record){record, where, fn, arg});
}

static int encode(const struct tr_tokenizer *t, const char *text, size_t bytes, struct tr_ids *ids)
{
    int r = tr_tokenizer_adds_bos(t) ? tr_ids_push(ids, tr_tokenizer_bos(t)) : 0;

    return r < 0 ? r : tr_tokenizer_encode(t, text, bytes, ids);
}

/* Nothing stands before the continuation: it follows what begins or ends a text. */
static int encode_alone(const struct tr_tokenizer *t, const char *text, struct tr_ids *ids,
                        size_t *first)
{
    int32_t before = tr_tokenizer_bos(t) >= 0 ? tr_tokenizer_bos(t) : tr_tokenizer_eos(t);
    int r;

    if (before < 0)
        return tr_error(-EINVAL, "an empty context, and the tokenizer has neither BOS nor EOS");
    r = tr_ids_push(ids, before);
    *first = ids->n;
    return r < 0 ? r : tr_tokenizer_encode(t, text, strlen(text), ids);
}

/* Bytes of a text without the white space at its end. */
static size_t without_space(const char *text, size_t n)
{
    for (;;) {
        size_t at = n;
        uint32_t cp;

        while (at && ((unsigned char)text[--at] & 0xC0) == 0x80)
            ;
        if (at == n || tr_utf8_decode(text + at, n - at, &cp) != (int)(n - at) ||
            !tr_unicode_is_space(cp))
            return n;
        n = at;
    }
}

int tr_task_encode(const struct tr_tokenizer *t, const char *context, const char *continuation,
                   struct tr_ids *ids, size_t *first)
{
    size_t n = strlen(context), from = ids->n;
    struct tr_ids alone = {0};
    char *whole;
    int r;

    if (n == 0)
        return encode_alone(t, continuation, ids, first);
    n = without_space(context, n);
    if (asprintf(&whole, "%s%s", context, continuation) < 0)
        return tr_error(-ENOMEM, "out of memory");
    r = encode(t, whole, strlen(whole), ids);
    if (r == 0)
        r = encode(t, context, n, &alone);
    *first = from + alone.n;
    if (r == 0 && *first >= ids->n)
        r = tr_error(-EINVAL, "\"%.64s\" adds no token to its context", continuation);
    tr_ids_free(&alone);
    free(whole);
    return r;
}
