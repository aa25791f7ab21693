/* SPDX-License-Identifier: Apache-2.0
 *
 * Generation for the public API: prompts to tokens, the shape that fits, tokens to text. A text
 * that is handed on while it grows ends where a character does: what a token leaves half done is
 * held back until it is whole, or the text ends.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/err.h"
#include "src/base/file.h"
#include "src/base/json.h"
#include "src/base/mem.h"
#include "src/infer/infer.h"
#include "src/infer/prompts.h"

#define MORE_TOKENS   64
#define ANSWER_TOKENS 512             /* of a conversation */
#define MOST_TOKENS   (INT32_MAX / 2) /* as many positions as there are at most */

static int encode_prompts(struct prompts *p, const struct infer *f, const struct chat *c)
{
    const struct tr_tokenizer *t = f->run.tokenizer;
    int r = 0;

    for (int32_t i = 0; i < p->n && r == 0; i++) {
        r = c->template ? infer_encode_turn(t, c, p->text[i], &p->ids[i])
                        : infer_encode_prompt(t, p->text[i], &p->ids[i]);
        p->length[i] = p->ids[i].n;
    }
    return r;
}

/* The largest groups that fit, with the cache where that is possible at all. */
static int choose_shape(const struct infer *f, const struct tr_generate_params *p,
                        const struct prompts *prompts, struct infer_shape *shape)
{
    int64_t more = p->max_tokens;
    int r = -ENOMEM;

    for (int cached = p->kv_cache != TR_NO; cached >= (p->kv_cache == TR_YES); cached--)
        for (int32_t group = prompts->n; group; group = group > 1 ? (group + 1) / 2 : 0) {
            shape->cache_tokens = cached;
            infer_shape_of(shape, prompts->ids, prompts->n, group, more);
            if ((r = infer_fits(f, shape)) != -ENOMEM)
                return r;
        }
    return r;
}

/* Where the text ends that will stay as it is: before a character that is not whole. */
static size_t settled(const char *text, size_t n)
{
    while (n >= 3 && !memcmp(text + n - 3, "\xEF\xBF\xBD", 3))
        n -= 3;
    return n;
}

static int tell(struct infer_stream *s, const struct tr_ids *ids, int whole)
{
    char *text;
    size_t n;
    int r = tr_tokenizer_decode(s->tokenizer, ids->v + s->prompt, ids->n - s->prompt, &text);

    if (r < 0)
        return r;
    n = whole ? strlen(text) : settled(text, strlen(text));
    /* A byte that breaks a character takes those before it along, as in the reference. */
    while (s->told < n && (text[s->told] & 0xC0) == 0x80)
        s->told++;
    if (n > s->told) {
        text[n] = 0;
        s->params->piece(s->params->piece_arg, text + s->told);
        s->told = n;
    }
    tr_free(TR_MEM_TEXT, text);
    return 0;
}

static int on_token(void *arg, int32_t sequence, const struct tr_ids *ids)
{
    (void)sequence;
    return tell(arg, ids, 0);
}

static int answer_one(const struct infer *f, const struct prompts *p, char **out)
{
    char *text;
    size_t from = p->length[0];
    int r = tr_tokenizer_decode(f->run.tokenizer, p->ids[0].v + from, p->ids[0].n - from, &text);

    if (r < 0)
        return r;
    *out = strdup(text);
    tr_free(TR_MEM_TEXT, text);
    return *out ? 0 : tr_error(-ENOMEM, "out of memory");
}

/* A JSON object a line, in the order of the prompts. */
static int answer_all(const struct infer *f, const struct prompts *p, char **out)
{
    size_t bytes;
    FILE *to = open_memstream(out, &bytes);
    int r = to ? 0 : tr_error(-ENOMEM, "out of memory");

    for (int32_t i = 0; i < p->n && r == 0; i++) {
        size_t from = p->length[i];
        char *text;
        json_t *line;

        r = tr_tokenizer_decode(f->run.tokenizer, p->ids[i].v + from, p->ids[i].n - from, &text);
        if (r < 0)
            break;
        line = json_pack("{s:s, s:s}", "prompt", p->text[i], "text", text);
        if (!line || json_dumpf(line, to, JSON_COMPACT) < 0 || fputc('\n', to) == EOF)
            r = tr_error(-ENOMEM, "out of memory");
        json_decref(line);
        tr_free(TR_MEM_TEXT, text);
    }
    if (to && fclose(to) != 0 && r == 0)
        r = tr_error(-ENOMEM, "out of memory");
    if (to && r < 0) {
        free(*out);
        *out = NULL;
    }
    return r;
}

int infer_tell_all(struct infer *f, struct infer_stream *s, struct tr_ids *ids, int32_t n,
                   int64_t max_tokens)
{
    const struct tr_generate_params *p = s->params;
    struct infer_generation how = {
        .max_tokens = max_tokens,
        .sample = {.temperature = p->temperature, .top_p = p->top_p, .seed = p->seed},
        .token = p->piece && !p->prompts ? on_token : NULL,
        .arg = s};
    int r = infer_generate(f, ids, n, &how);

    return r < 0 || !how.token ? r : tell(s, ids, 1);
}

static int64_t longest(const struct prompts *p)
{
    int64_t most = 0;

    for (int32_t i = 0; i < p->n; i++)
        most = (int64_t)p->ids[i].n > most ? (int64_t)p->ids[i].n : most;
    return most;
}

static int generate(struct infer *f, const struct tr_generate_params *p, const struct chat *c,
                    struct prompts *prompts, char **out)
{
    struct infer_stream s = {p, f->run.tokenizer, 0, 0};
    struct infer_shape shape = {0};
    int r = encode_prompts(prompts, f, c);

    if (r < 0 ||
        (r = infer_positions(p->model, longest(prompts) + p->max_tokens, &shape.positions)) < 0 ||
        (r = infer_check_prompts(prompts->ids, prompts->n, shape.positions,
                                 f->run.model->config.vocab)) < 0 ||
        (r = choose_shape(f, p, prompts, &shape)) < 0 || (r = infer_start(f, &shape)) < 0)
        return r;
    s.prompt = prompts->length[0];
    r = infer_tell_all(f, &s, prompts->ids, prompts->n, p->max_tokens);
    if (r < 0)
        return r;
    return p->prompt ? answer_one(f, prompts, out) : answer_all(f, prompts, out);
}

/* What is asked of an opened model: a conversation has no text to give back but what it told. */
static int serve(struct infer *f, const struct tr_generate_params *p, struct prompts *prompts,
                 char **out)
{
    struct chat c = {0};
    int r = f->run.tokenizer
                ? 0
                : tr_error(-EINVAL, "%s: has no tokenizer.json; give --tokenizer", p->model);

    if (r == 0 && (p->chat || p->chat_template))
        r = infer_chat_open(f, p->model, p->chat_template, &c);
    if (r == 0 && p->ask) {
        r = infer_converse(f, &c, p);
        if (r == 0 && !(*out = strdup("")))
            r = tr_error(-ENOMEM, "out of memory");
    } else if (r == 0) {
        r = generate(f, p, &c, prompts, out);
    }
    chat_close(&c);
    return r;
}

static int check(const struct tr_generate_params *p)
{
    int r;

    if ((r = tr_need(p->model, "model")) < 0 ||
        (r = infer_check_texts(p->tokenizer, p->adapter, p->device, p->chat_template)) < 0)
        return r;
    if (!p->prompt && !p->prompts && !p->ask)
        return tr_error(-EINVAL, "--prompt is missing");
    if (p->ask && (p->prompt || p->prompts || !p->chat))
        return tr_error(-EINVAL, "a conversation is a chat, without --prompt or --prompts");
    if (p->prompt && p->prompts)
        return tr_error(-EINVAL, "--prompt and --prompts exclude each other");
    if (!(p->temperature >= 0) || !(p->top_p >= 0 && p->top_p <= 1))
        return tr_error(-EINVAL, "--temperature %g, --top-p %g: at least 0, and 0 to 1",
                        p->temperature, p->top_p);
    if ((r = tr_need_count(p->max_tokens, "max-tokens")) < 0)
        return r;
    return tr_need_threads(p->threads);
}

int tr_generate_text(const struct tr_generate_params *params, char **out)
{
    struct tr_generate_params p = *params;
    struct prompts prompts = {0};
    struct infer *f = NULL;
    int r = check(&p);

    *out = NULL;
    if (!p.max_tokens)
        p.max_tokens = p.ask ? ANSWER_TOKENS : MORE_TOKENS;
    if (p.max_tokens > MOST_TOKENS)
        p.max_tokens = MOST_TOKENS;
    if (r == 0 && p.prompt)
        r = prompts_add(&prompts, p.prompt, strlen(p.prompt));
    else if (r == 0 && p.prompts)
        r = prompts_read(&prompts, p.prompts);
    if (r == 0)
        r = infer_open_model(&f, &(struct infer_params){.model = p.model,
                                                        .adapter = p.adapter,
                                                        .tokenizer = p.tokenizer,
                                                        .threads = p.threads,
                                                        .device = p.device,
                                                        .device_memory = p.device_memory});
    if (r == 0)
        r = serve(f, &p, &prompts, out);
    infer_close(f);
    prompts_free(&prompts);
    return r;
}
