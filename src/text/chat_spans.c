/* SPDX-License-Identifier: Apache-2.0
 *
 * What of a conversation's text is learnt (chat.h says the rule). The generation prompt is found by
 * rendering the messages before a turn with add_generation_prompt: the text ends with what the
 * turn begins with. A prompt that goes on where a turn of the past does not ("<think>" behind the
 * header) is cut off where the two part.
 */
#include "src/text/chat.h"

#include <string.h>

#include "src/base/err.h"
#include "src/base/json.h"
#include "src/base/mem.h"

#define HEADER_MOST 4096
#define OTHER       "\x01" /* no answer, and no template, begins so */

void chat_text_free(struct chat_text *t)
{
    tr_free(TR_MEM_TEXT, t->text);
    tr_free(TR_MEM_TEXT, t->turn);
    *t = (struct chat_text){0};
}

static int is_assistant(const struct chat_conversation *of, size_t i)
{
    const char *role = json_string_value(json_object_get(json_array_get(of->messages, i), "role"));

    return role && !strcmp(role, "assistant");
}

/* The round that wrote a message: *span. 1; 0 and an empty one where there is none, -ENOTSUP where
 * there are two. */
static int round_of(const struct jinja_output *o, int message, struct jinja_span *span)
{
    int found = 0;

    *span = (struct jinja_span){.message = message};
    for (size_t i = 0; i < o->n_spans; i++)
        if (o->spans[i].message == message) {
            *span = o->spans[i];
            found++;
        }
    return found < 2 ? found
                     : tr_error(-ENOTSUP,
                                "the template writes message %d in two places: what is learnt "
                                "cannot be told; mark it with {%% generation %%} in the template",
                                message);
}

static size_t common(const char *a, size_t n, const char *b, size_t m)
{
    size_t k = 0;

    while (k < n && k < m && a[k] == b[k])
        k++;
    return k;
}

static int is_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* The most bytes of text[0..bytes) that the prompt ends with, and more than blanks of them: those
 * begin and end too many things. */
static size_t overlap(const struct tok_buf *prompt, const char *text, size_t bytes)
{
    size_t k = bytes < prompt->n ? bytes : prompt->n;

    for (k = k < HEADER_MOST ? k : HEADER_MOST; k; k--)
        if (!memcmp(prompt->v + prompt->n - k, text, k))
            break;
    for (size_t i = 0; i < k; i++)
        if (!is_blank(text[i]))
            return k;
    return 0;
}

static size_t blanks(const char *text, size_t bytes)
{
    size_t k = 0;

    while (k < bytes && is_blank(text[k]))
        k++;
    return k;
}

/* The bytes of a turn up to where it and the prompt part. They may begin with other blanks. */
static size_t begins(const char *prompt, size_t n, const char *turn, size_t bytes)
{
    size_t a = blanks(prompt, n), b = blanks(turn, bytes), k;

    if (a == n)
        return common(prompt, n, turn, bytes);
    k = common(prompt + a, n - a, turn + b, bytes - b);
    return k ? b + k : 0;
}

/* The conversation with another answer in the place of one; calls: with its tool calls, which a
 * template may write before the content. */
static json_t *with_other(const struct chat_conversation *of, size_t message, int calls)
{
    json_t *messages = tr_json_copy(of->messages);
    json_t *m = tr_json_copy(json_array_get(messages, message));

    if (!calls)
        json_object_del(m, "tool_calls");
    tr_json_add(&m, "content", json_string(OTHER));
    if (json_array_set_new(messages, message, m) == 0)
        return messages;
    json_decref(messages);
    return NULL;
}

/* An answer may begin by chance as the prompt goes on: with another one in its place the header is
 * what both turns have of it. The other one stands in the whole conversation, since a turn may look
 * otherwise where it is the last. A template that refuses a result without its call is asked again:
 * with the call, and with nothing behind the turn. One that refuses all has its first word. */
static int leave_answer(const struct chat *c, const struct chat_conversation *of,
                        const struct jinja_span *s, const struct tok_buf *prompt, size_t same,
                        size_t *header)
{
    size_t message = (size_t)s->message, all = json_array_size(of->messages);
    const struct {
        int calls;
        size_t n;
    } ways[] = {{0, all}, {1, all}, {0, message + 1}};
    int told = 0;

    for (int i = 0; i < 3 && !(i && told); i++) {
        struct chat_conversation other = *of;
        struct jinja_output then = {0};
        struct jinja_span t;

        other.messages = with_other(of, message, ways[i].calls);
        if (!other.messages)
            return tr_error(-ENOMEM, "out of memory");
        if (chat_render(c, &other, ways[i].n, 0, &then) == 0 &&
            round_of(&then, s->message, &t) > 0) {
            size_t k =
                begins(prompt->v + same, prompt->n - same, then.text.v + t.from, t.to - t.from);

            *header = k && k < *header ? k : *header;
            told = !i;
        }
        jinja_output_free(&then);
        json_decref(other.messages);
    }
    return 0;
}

/* How many bytes of a turn are the generation prompt's. Before a first message there may be nothing
 * that a template accepts: the prompt that would follow it serves as well. */
static int header_bytes(const struct chat *c, const struct chat_conversation *of,
                        const struct jinja_output *whole, const struct jinja_span *s, size_t *out)
{
    const char *turn = whole->text.v + s->from;
    struct jinja_output with = {0}, without = {0};
    size_t n = s->message ? (size_t)s->message : 1, bytes = s->to - s->from, same = 0;
    int r = chat_render(c, of, n, 1, &with);

    *out = 0;
    if (r == 0)
        r = chat_render(c, of, n, 0, &without);
    if (r == 0)
        same = common(with.text.v, with.text.n, without.text.v, without.text.n);
    if (r == 0 && same < with.text.n) {
        *out = overlap(&with.text, turn, bytes);
        if (!*out) {
            *out = begins(with.text.v + same, with.text.n - same, turn, bytes);
            r = *out ? leave_answer(c, of, s, &with.text, same, out) : 0;
        }
        if (!*out)
            r = tr_error(-ENOTSUP,
                         "message %d does not begin with the template's generation prompt: what is "
                         "learnt cannot be told; mark it with {%% generation %%} in the template",
                         s->message);
    }
    jinja_output_free(&with);
    jinja_output_free(&without);
    return r;
}

/* 1 where the turn looked otherwise when it was the last one. */
static int is_rewritten(const struct chat *c, const struct chat_conversation *of,
                        const struct jinja_output *whole, const struct jinja_span *s)
{
    struct jinja_output then;
    struct jinja_span t;
    int r;

    if ((size_t)s->message + 1 == json_array_size(of->messages))
        return 0;
    r = chat_render(c, of, (size_t)s->message + 1, 0, &then);
    if (r < 0)
        return r;
    r = round_of(&then, s->message, &t);
    if (r >= 0)
        r = r == 0 || t.to - t.from != s->to - s->from ||
            memcmp(then.text.v + t.from, whole->text.v + s->from, t.to - t.from) != 0;
    jinja_output_free(&then);
    return r;
}

/* 0 where the turn begins beyond what is asked for. */
static int add_turn(const struct chat *c, const struct chat_conversation *of,
                    const struct jinja_output *whole, size_t message, struct chat_text *out)
{
    struct jinja_span s;
    size_t header = 0, to;
    int r = round_of(whole, (int)message, &s);

    if (r == 0)
        return tr_error(-ENOTSUP,
                        "the template writes message %zu outside of a loop over the messages: what "
                        "is learnt cannot be told; mark it with {%% generation %%} in the template",
                        message);
    if (r > 0 && of->most && s.from >= of->most) {
        out->told = s.from;
        return 0;
    }
    if (r > 0 && jinja_uses(chat_template(c, of), "add_generation_prompt"))
        r = header_bytes(c, of, whole, &s, &header);
    if (r >= 0)
        r = is_rewritten(c, of, whole, &s);
    if (r < 0)
        return r;
    out->rewritten += (size_t)r;
    to = message + 1 == json_array_size(of->messages) ? whole->text.n : s.to;
    while (to > s.from + header && is_blank(whole->text.v[to - 1]))
        to--;
    if (to > s.from + header)
        out->turn[out->n_turns++] = (struct chat_turn){s.from + header, to, (int)message};
    return 1;
}

static int add_turns(const struct chat *c, const struct chat_conversation *of,
                     const struct jinja_output *whole, struct chat_text *out)
{
    int r = 1;

    for (size_t i = 0; r > 0 && i < json_array_size(of->messages); i++)
        if (is_assistant(of, i))
            r = add_turn(c, of, whole, i, out);
    return r < 0 ? r : 0;
}

/* A block belongs to the round that it stands in. */
static void add_blocks(const struct jinja_output *whole, struct chat_text *out)
{
    for (size_t i = 0; i < whole->n_spans; i++) {
        const struct jinja_span *s = &whole->spans[i];
        int message = -1;

        for (size_t k = i + 1; k < whole->n_spans && message < 0; k++)
            if (whole->spans[k].from <= s->from)
                message = whole->spans[k].message;
        if (s->message < 0)
            out->turn[out->n_turns++] = (struct chat_turn){s->from, s->to, message};
    }
}

int chat_write(const struct chat *c, const struct chat_conversation *of, struct chat_text *out)
{
    size_t n = json_array_size(of->messages);
    struct jinja_output whole;
    int r = chat_render(c, of, n, 0, &whole);

    *out = (struct chat_text){0};
    if (r < 0)
        return r;
    out->turn = tr_alloc_array(TR_MEM_TEXT, n + whole.n_spans + 1, sizeof(*out->turn));
    r = out->turn ? 0 : -ENOMEM;
    out->told = whole.text.n;
    if (r == 0 && jinja_has_generation(chat_template(c, of)))
        add_blocks(&whole, out);
    else if (r == 0)
        r = add_turns(c, of, &whole, out);
    for (size_t i = 1; r == 0 && i < out->n_turns; i++)
        if (out->turn[i].from < out->turn[i - 1].to)
            r = tr_error(-ENOTSUP, "the template writes the messages in another order");
    if (r == 0) {
        out->text = whole.text.v;
        out->bytes = whole.text.n;
        whole.text = (struct tok_buf){0};
    }
    jinja_output_free(&whole);
    if (r < 0)
        chat_text_free(out);
    return r;
}
