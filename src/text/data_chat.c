/* SPDX-License-Identifier: Apache-2.0
 *
 * A conversation becomes tokens: the template's text, encoded part by part, so that no token
 * straddles the border of what is learnt; the ids of a prompt are those that `generate` sees. The
 * template is opened for the first record that needs one.
 */
#include "src/text/data_set.h"

#include <stdio.h>
#include <string.h>

#include "src/base/err.h"
#include "src/base/mem.h"
#include "src/text/data_talk.h"

/* Instructions have a format of their own, where neither the user nor the model names one. */
int data_chat_open(struct tr_data *d)
{
    struct chat_params p = {.name = d->p.template_name,
                            .folder =
                                d->p.folder ? d->p.folder : tr_tokenizer_folder(d->p.tokenizer),
                            .tokenizer = d->p.tokenizer};
    int r = chat_open(&d->chat, &p);

    if (r == -ENOENT && !p.name && d->info.format == TR_DATA_ALPACA) {
        p.name = "alpaca";
        r = chat_open(&d->chat, &p);
    }
    if (r < 0)
        return r;
    snprintf(d->info.template_from, sizeof(d->info.template_from), "%s", d->chat.from);
    return 0;
}

static int push_part(struct tr_data *d, const char *where, const struct chat_text *text,
                     struct chat_turn part, enum tr_text_place *place)
{
    struct tr_ids ids = {0};
    int r = tr_tokenizer_encode_more(d->p.tokenizer, text->text + part.from, part.to - part.from,
                                     place, &ids);

    if (r < 0)
        tr_error_prefix(r, "%s", where);
    else
        r = data_push_text(d, where, &ids, part.message < 0);
    tr_ids_free(&ids);
    return r;
}

/* 1 for what a generation block wrote outside of the messages. */
static double weight_of(const struct data_talk *talk, int message)
{
    return message < 0 ? 1 : json_number_value(json_array_get(talk->weights, (size_t)message));
}

/* Turns that count 0 are text like any other, and are encoded with it. */
static int push_text(struct tr_data *d, const char *where, const struct chat_text *text,
                     const struct data_talk *talk)
{
    enum tr_text_place place = TR_TEXT_START;
    size_t at = 0;
    int r = 0;

    for (size_t i = 0; i <= text->n_turns && r == 0; i++) {
        struct chat_turn turn =
            i < text->n_turns ? text->turn[i] : (struct chat_turn){text->bytes, text->bytes, 0};
        double weight = i < text->n_turns ? weight_of(talk, turn.message) : 0;
        uint64_t from;

        if (weight == 0 && i < text->n_turns)
            continue;
        if (at < turn.from)
            r = push_part(d, where, text, (struct chat_turn){at, turn.from, -1}, &place);
        from = d->tokens.n;
        turn.message = 0;
        if (r == 0 && turn.from < turn.to)
            r = push_part(d, where, text, turn, &place);
        if (r == 0)
            r = data_weigh(d, from, (float)weight);
        at = turn.to;
    }
    return r;
}

int data_read_talk(struct tr_data *d, const char *where, json_t *o)
{
    struct data_talk talk;
    struct chat_text text;
    int r = data_talk_read(&talk, where, d->info.format, o);

    if (r < 0)
        return r;
    r = chat_write(&d->chat,
                   &(struct chat_conversation){.messages = talk.messages, .tools = talk.tools},
                   &text);
    if (r < 0) {
        tr_error_prefix(r, "%s", where);
    } else {
        d->info.rewritten += text.rewritten;
        r = push_text(d, where, &text, &talk);
        chat_text_free(&text);
    }
    data_talk_free(&talk);
    return r < 0 ? r : data_sample_end(d);
}
