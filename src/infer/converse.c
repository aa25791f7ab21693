/* SPDX-License-Identifier: Apache-2.0
 *
 * Chat: turns of people become prompts by a chat template, the run's own where it named one, and an
 * answer ends where the template ends a turn of the assistant. What the template writes is all
 * there is: no BOS is put before it, as in training.
 *
 * A conversation keeps its history and computes it again for every answer: that is one pass over
 * the model, as each token is.
 */
#include <stdlib.h>
#include <string.h>

#include "src/base/err.h"
#include "src/base/file.h"
#include "src/base/mem.h"
#include "src/infer/infer.h"
#include "src/options/options.h"
#include "src/text/data_talk.h"

#define TURNS      4  /* that a conversation has room for, of the longest answers */
#define LEAST_ROOM 64 /* tokens that a conversation is opened for at least */

int infer_run_options(const char *model, struct tr_train_params *out)
{
    char *yaml = tr_path(model, "run.yaml");
    int r = yaml ? 0 : -ENOMEM;

    memset(out, 0, sizeof(*out));
    if (r == 0 && run_is_folder(model))
        r = tr_run_file_read(yaml, out);
    tr_free(TR_MEM_MISC, yaml);
    return r;
}

int infer_template(const char *model, const char *asked, char **out)
{
    struct tr_train_params options;
    int r = infer_run_options(model, &options);

    *out = NULL;
    asked = asked ? asked : options.chat_template;
    if (r == 0 && asked) {
        *out = tr_strdup(TR_MEM_MISC, asked);
        r = *out ? 0 : -ENOMEM;
    }
    tr_options_free(&options);
    return r;
}

/* The first special token behind the answer in "b<|im_end|>\n" ends a turn. A template that cannot
 * write such a conversation has its end from elsewhere, or none. */
static int add_end_of_turn(struct infer *f, const struct chat *c)
{
    json_t *talk = json_pack("[{s:s,s:s},{s:s,s:s}]", "role", "user", "content", "a", "role",
                             "assistant", "content", "b");
    struct chat_text text = {0};
    struct tr_ids ids = {0};
    int r = talk ? 0 : -ENOMEM;

    if (r == 0 && chat_write(c, &(struct chat_conversation){.messages = talk}, &text) == 0 &&
        text.n_turns == 1)
        r = tr_tokenizer_encode(f->run.tokenizer, text.text + text.turn->from,
                                text.turn->to - text.turn->from, &ids);
    for (size_t i = 0; r == 0 && i < ids.n; i++)
        if (tr_tokenizer_is_special(f->run.tokenizer, ids.v[i])) {
            infer_add_stop(f, ids.v[i]);
            break;
        }
    chat_text_free(&text);
    tr_ids_free(&ids);
    json_decref(talk);
    return r;
}

int infer_chat_open(struct infer *f, const char *model, const char *asked, struct chat *c)
{
    struct chat_params p = {.tokenizer = f->run.tokenizer};
    char *name;
    int r = infer_template(model, asked, &name);

    if (r < 0)
        return r;
    p.name = name;
    p.folder = tr_tokenizer_folder(f->run.tokenizer);
    r = chat_open(c, &p);
    if (r == 0 && (r = add_end_of_turn(f, c)) < 0)
        chat_close(c);
    tr_free(TR_MEM_MISC, name);
    return r;
}

int infer_encode_talk(const struct tr_tokenizer *t, const struct chat *c, json_t *messages,
                      json_t *tools, struct tr_ids *ids)
{
    struct chat_conversation talk = {messages, tools};
    struct jinja_output text;
    int r = chat_render(c, &talk, json_array_size(messages), 1, &text);

    if (r < 0)
        return r;
    r = tr_tokenizer_encode(t, text.text.v, text.text.n, ids);
    jinja_output_free(&text);
    return r;
}

static int say(json_t *messages, const char *role, const char *content)
{
    json_t *m = json_pack("{s:s,s:s}", "role", role, "content", content);

    if (!m)
        return tr_error(-EINVAL, "what the %s says is not UTF-8", role);
    return json_array_append_new(messages, m) < 0 ? tr_error(-ENOMEM, "out of memory") : 0;
}

int infer_encode_turn(const struct tr_tokenizer *t, const struct chat *c, const char *text,
                      struct tr_ids *ids)
{
    json_t *messages = json_array();
    int r = messages ? say(messages, "user", text) : -ENOMEM;

    if (r == 0)
        r = infer_encode_talk(t, c, messages, NULL, ids);
    json_decref(messages);
    return r;
}

/* The longest conversation that there is room for, with the cache if that is possible at all. */
static int choose_room(const struct infer *f, const struct tr_generate_params *p,
                       struct infer_shape *shape)
{
    int r = -ENOMEM;

    for (int cached = p->kv_cache != TR_NO; cached >= (p->kv_cache == TR_YES); cached--)
        for (int64_t room = shape->positions; room >= LEAST_ROOM; room /= 2) {
            shape->batch_tokens = room;
            shape->cache_tokens = cached ? room : 0;
            if ((r = infer_fits(f, shape)) != -ENOMEM)
                return r;
        }
    return r;
}

/* One answer to all that was said, told as it grows; becomes a message itself. */
static int answer(struct infer *f, const struct chat *c, const struct tr_generate_params *p,
                  json_t *messages, int64_t room)
{
    const struct tr_tokenizer *t = f->run.tokenizer;
    struct infer_stream s = {p, t, 0, 0};
    struct tr_ids ids = {0};
    char *text = NULL;
    int r = infer_encode_talk(t, c, messages, NULL, &ids);

    s.prompt = ids.n;
    if (r == 0 && (int64_t)ids.n >= room)
        r = tr_error(-E2BIG, "the conversation has %zu tokens; there is room for %lld", ids.n,
                     (long long)room);
    if (r == 0)
        r = infer_tell_all(f, &s, &ids, 1,
                           p->max_tokens < room - (int64_t)ids.n ? p->max_tokens
                                                                 : room - (int64_t)ids.n);
    if (r == 0)
        r = tr_tokenizer_decode(t, ids.v + s.prompt, ids.n - s.prompt, &text);
    if (r == 0)
        r = say(messages, "assistant", text);
    tr_free(TR_MEM_TEXT, text);
    tr_ids_free(&ids);
    return r;
}

int infer_converse(struct infer *f, const struct chat *c, const struct tr_generate_params *p)
{
    struct infer_shape shape = {.logit_rows = 1};
    json_t *messages = json_array();
    const char *turn;
    int r = messages ? infer_positions(p->model, TURNS * p->max_tokens, &shape.positions) : -ENOMEM;

    if (r == 0)
        r = choose_room(f, p, &shape);
    if (r == 0)
        r = infer_start(f, &shape);
    while (r == 0 && (turn = p->ask(p->ask_arg)) != NULL) {
        r = say(messages, "user", turn);
        if (r == 0)
            r = answer(f, c, p, messages, shape.batch_tokens);
    }
    json_decref(messages);
    return r;
}
