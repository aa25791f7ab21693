/* SPDX-License-Identifier: Apache-2.0
 *
 * messages        {"role", "content", ...}; beside them "tools"
 * conversations   {"from", "value"} with human, gpt, system, tool or observation, or as messages;
 *                 beside them "system" and "tools"
 * alpaca          "instruction", "input", "output"; beside them "system" and "history", a list of
 *                 pairs; the user says the instruction and, on a new line, the input
 * prompt          "prompt" and "completion", each a text or a list of messages; of the prompt
 *                 nothing is learnt
 * question        "question" and "answer", two texts
 *
 * A message of the assistant counts 1, any other 0. "weight" or "loss_weight" (a number) or "train"
 * (true, false) in a message say otherwise for the assistant. What is null is taken for absent.
 */
#include "src/text/data_talk.h"

#include <string.h>

#include "src/base/err.h"
#include "src/base/json.h"
#include "src/text/buf.h"

void data_talk_free(struct data_talk *t)
{
    json_decref(t->messages);
    json_decref(t->weights);
    json_decref(t->tools);
    *t = (struct data_talk){0};
}

/* Takes over both references. */
static int add(struct data_talk *t, json_t *message, json_t *weight)
{
    int r = json_array_append_new(t->messages, message);

    return json_array_append_new(t->weights, weight) < 0 || r < 0
               ? tr_error(-ENOMEM, "out of memory")
               : 0;
}

static int say(struct data_talk *t, const char *role, json_t *content)
{
    return add(t, json_pack("{s:s,s:O}", "role", role, "content", content),
               json_integer(!strcmp(role, "assistant")));
}

static int is_absent(const json_t *v)
{
    return !v || json_is_null(v);
}

static json_t *text_of(json_t *part)
{
    json_t *text = json_object_get(part, "text");

    return text ? text : json_object_get(part, "value");
}

/* A list of parts that are all texts is one text, which is what most templates take. New. */
static json_t *content_of(json_t *content)
{
    struct tok_buf all = {0};
    json_t *part, *joined;
    size_t i;
    int r = 0;

    json_array_foreach(content, i, part)
        if (!json_is_string(text_of(part)))
            return json_incref(content);
    json_array_foreach(content, i, part) {
        json_t *text = text_of(part);

        if (r == 0)
            r = tok_buf_add(&all, json_string_value(text), json_string_length(text));
    }
    joined = r < 0 ? NULL : i ? json_stringn(all.v, all.n) : json_incref(content);
    tok_buf_free(&all);
    return joined;
}

/* What "weight" and "train" make of a message's own weight. */
static int read_weight(const char *where, json_t *m, const char *role, size_t i, double *weight)
{
    json_t *w = json_object_get(m, "weight"), *train = json_object_get(m, "train");

    if (is_absent(w))
        w = json_object_get(m, "loss_weight");

    *weight = !strcmp(role, "assistant");
    if (!is_absent(json_object_get(m, "train_detail")))
        return tr_error(-ENOTSUP, "%s: message %zu: \"train_detail\" is not supported", where, i);
    if (!is_absent(train) && !json_is_boolean(train))
        return tr_error(-EINVAL, "%s: message %zu: \"train\" is neither true nor false", where, i);
    if (!is_absent(w) &&
        (!json_is_number(w) || !(json_number_value(w) >= 0) || !(json_number_value(w) <= 1e6)))
        return tr_error(-EINVAL, "%s: message %zu: \"weight\" is no number from 0 to 1000000",
                        where, i);
    if (*weight == 0 && (json_is_true(train) || (!is_absent(w) && json_number_value(w) > 0)))
        return tr_error(-ENOTSUP, "%s: message %zu: only the assistant's messages are learnt",
                        where, i);
    if (*weight > 0 && !is_absent(w))
        *weight = (float)json_number_value(w); /* what is too small for it counts nothing */
    if (json_is_false(train))
        *weight = 0;
    return 0;
}

static int add_message(struct data_talk *t, const char *where, json_t *m, size_t i, int learn)
{
    const char *role = json_string_value(json_object_get(m, "role")), *key;
    json_t *copy, *v;
    double weight;
    int r;

    if (!role || !*role)
        return tr_error(-EINVAL, "%s: message %zu has no \"role\"", where, i);
    if (is_absent(json_object_get(m, "content")) && is_absent(json_object_get(m, "tool_calls")))
        return tr_error(-EINVAL, "%s: message %zu has no \"content\"", where, i);
    r = read_weight(where, m, role, i, &weight);
    if (r < 0)
        return r;
    copy = json_object();
    /* Tables write null for what a row has not; but of a content it is a value that templates ask.
     */
    json_object_foreach(m, key, v)
        if ((!json_is_null(v) || !strcmp(key, "content")) && strcmp(key, "weight") != 0 &&
            strcmp(key, "train") != 0)
            tr_json_add(&copy, key, json_incref(v));
    if (json_is_array(json_object_get(copy, "content")))
        tr_json_add(&copy, "content", content_of(json_object_get(m, "content")));
    return add(t, copy, json_real(learn ? weight : 0));
}

static int add_messages(struct data_talk *t, const char *where, json_t *list, const char *key,
                        int learn)
{
    json_t *m;
    size_t i;
    int r = json_array_size(list)
                ? 0
                : tr_error(-EINVAL, "%s: \"%s\" must be a list of messages", where, key);

    json_array_foreach(list, i, m)
        if (r == 0)
            r = add_message(t, where, m, i, learn);
    return r;
}

static const char *role_of(const char *from)
{
    static const char *const roles[][2] = {
        {"human", "user"},        {"user", "user"},           {"gpt", "assistant"},
        {"chatgpt", "assistant"}, {"assistant", "assistant"}, {"model", "assistant"},
        {"bard", "assistant"},    {"system", "system"},       {"tool", "tool"},
        {"observation", "tool"},
    };

    for (size_t i = 0; from && i < sizeof(roles) / sizeof(roles[0]); i++)
        if (!strcmp(from, roles[i][0]))
            return roles[i][1];
    return NULL;
}

static int read_conversations(struct data_talk *t, const char *where, json_t *o)
{
    json_t *list = json_object_get(o, "conversations"), *m, *system = json_object_get(o, "system");
    size_t i;
    int r = json_array_size(list)
                ? 0
                : tr_error(-EINVAL, "%s: \"conversations\" must be a list of messages", where);

    if (r == 0 && json_is_string(system) && json_string_length(system))
        r = say(t, "system", system);
    if (r == 0 && json_object_get(json_array_get(list, 0), "role"))
        return add_messages(t, where, list, "conversations", 1);
    json_array_foreach(list, i, m) {
        const char *from = json_string_value(json_object_get(m, "from")), *role = role_of(from);
        json_t *value = json_object_get(m, "value");
        double weight;

        if (r == 0 && !role)
            r = tr_error(-EINVAL,
                         "%s: message %zu: \"from\" is %.64s; human, gpt, system and tool "
                         "are known",
                         where, i, from ? from : "missing");
        if (r == 0 && !json_is_string(value))
            r = tr_error(-EINVAL, "%s: message %zu: \"value\" must be a string", where, i);
        if (r == 0)
            r = read_weight(where, m, role, i, &weight);
        if (r == 0)
            r = add(t, json_pack("{s:s,s:O}", "role", role, "content", value), json_real(weight));
    }
    return r;
}

static int read_history(struct data_talk *t, const char *where, json_t *history)
{
    json_t *pair;
    size_t i;
    int r = 0;

    json_array_foreach(history, i, pair) {
        json_t *q = json_array_get(pair, 0), *a = json_array_get(pair, 1);

        if (r == 0 && (json_array_size(pair) != 2 || !json_is_string(q) || !json_is_string(a)))
            r = tr_error(-EINVAL, "%s: history[%zu] is no pair of texts", where, i);
        if (r == 0)
            r = say(t, "user", q);
        if (r == 0)
            r = say(t, "assistant", a);
    }
    return r;
}

static json_t *joined(json_t *a, json_t *b)
{
    return json_is_string(b) && json_string_length(b)
               ? json_pack("s%++%", json_string_value(a), json_string_length(a), "\n",
                           json_string_value(b), json_string_length(b))
               : json_incref(a);
}

static int read_alpaca(struct data_talk *t, const char *where, json_t *o)
{
    json_t *instruction = json_object_get(o, "instruction"), *output = json_object_get(o, "output");
    json_t *input = json_object_get(o, "input"), *system = json_object_get(o, "system"), *question;
    int r = 0;

    if (!json_is_string(instruction) || !json_is_string(output) ||
        (!is_absent(input) && !json_is_string(input)))
        return tr_error(-EINVAL,
                        "%s: \"instruction\", \"output\" and, where there is one, \"input\" must "
                        "be strings",
                        where);
    if (json_is_string(system) && json_string_length(system))
        r = say(t, "system", system);
    if (r == 0)
        r = read_history(t, where, json_object_get(o, "history"));
    question = joined(instruction, input);
    if (r == 0)
        r = question ? say(t, "user", question) : tr_error(-ENOMEM, "out of memory");
    json_decref(question);
    return r < 0 ? r : say(t, "assistant", output);
}

static int read_pair(struct data_talk *t, const char *where, enum tr_data_format format, json_t *o)
{
    struct data_pair pair;
    int r = data_pair_find(&pair, where, format, o);

    if (r == 0)
        r = say(t, "user", pair.first);
    return r < 0 ? r : say(t, "assistant", pair.second);
}

/* Two texts are a question and its answer. */
static int read_prompt(struct data_talk *t, const char *where, json_t *o)
{
    json_t *prompt = json_object_get(o, "prompt"), *completion = json_object_get(o, "completion");
    int r;

    if (json_is_string(prompt) && json_is_string(completion))
        return read_pair(t, where, TR_DATA_PROMPT, o);
    r = add_messages(t, where, prompt, "prompt", 0);
    return r < 0 ? r : add_messages(t, where, completion, "completion", 1);
}

/* A list, or a text that holds one. */
static int read_tools(struct data_talk *t, const char *where, json_t *v)
{
    if (is_absent(v))
        return 0;
    if (json_is_string(v)) {
        if (!json_string_length(v))
            return 0;
        if (tr_json_parse(json_string_value(v), json_string_length(v), where, &t->tools) < 0)
            return tr_error_prefix(-EINVAL, "tools");
    } else {
        t->tools = json_incref(v);
    }
    if (!json_is_array(t->tools))
        return tr_error(-EINVAL, "%s: \"tools\" must be a list", where);
    if (!json_array_size(t->tools)) {
        json_decref(t->tools);
        t->tools = NULL;
    }
    return 0;
}

int data_talk_read(struct data_talk *t, const char *where, enum tr_data_format format, json_t *o)
{
    int r;

    *t = (struct data_talk){.messages = json_array(), .weights = json_array()};
    r = t->messages && t->weights ? 0 : tr_error(-ENOMEM, "out of memory");
    if (r == 0 && format == TR_DATA_MESSAGES)
        r = add_messages(t, where, json_object_get(o, "messages"), "messages", 1);
    else if (r == 0 && format == TR_DATA_CONVERSATIONS)
        r = read_conversations(t, where, o);
    else if (r == 0 && format == TR_DATA_ALPACA)
        r = read_alpaca(t, where, o);
    else if (r == 0 && format == TR_DATA_QUESTION)
        r = read_pair(t, where, format, o);
    else if (r == 0)
        r = read_prompt(t, where, o);
    if (r == 0)
        r = read_tools(t, where, json_object_get(o, "tools"));
    if (r < 0)
        data_talk_free(t);
    return r;
}
