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

#define BYTES_A_TOKEN 16 /* more than there are in any text, nearly */
#define MARGIN        64 /* tokens by which two ways to cut a text may differ in its first part */

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

static int encode(struct tr_data *d, const char *where, const char *text, size_t bytes,
                  enum tr_text_place *place, struct tr_ids *ids)
{
    int r = tr_tokenizer_encode_more(d->p.tokenizer, text, bytes, place, ids);

    return r < 0 ? tr_error_prefix(r, "%s", where) : 0;
}

/* text[0..bytes) of which the first `learnt` bytes are learnt. How many tokens those are is
 * seen by encoding them alone: a token that straddles their end is none of them. */
static int push_part(struct tr_data *d, const char *where, const char *text, size_t bytes,
                     size_t learnt, enum tr_text_place *place)
{
    enum tr_text_place before = *place;
    struct tr_ids ids = {0}, alone = {0};
    size_t same = 0;
    int r = encode(d, where, text, bytes, place, &ids);

    if (r == 0 && learnt)
        r = encode(d, where, text, learnt, &before, &alone);
    while (same < alone.n && same < ids.n && alone.v[same] == ids.v[same])
        same++;
    for (size_t i = 0; r == 0 && i < ids.n; i++)
        r = data_push(d, where, ids.v[i], i >= same);
    if (same)
        d->info.endless += !tr_tokenizer_is_special(d->p.tokenizer, ids.v[same - 1]);
    tr_ids_free(&alone);
    tr_ids_free(&ids);
    return r;
}

/* 1 for what a generation block wrote outside of the messages. */
static double weight_of(const struct data_talk *talk, int message)
{
    return message < 0 ? 1 : json_number_value(json_array_get(talk->weights, (size_t)message));
}

/* Where what is learnt of a turn begins: not inside of a token of the text behind `at`. */
static size_t begin_of(const struct tr_data *d, const struct chat_text *text, size_t at,
                       const struct chat_turn *turn)
{
    return at + tr_tokenizer_whole(d->p.tokenizer, text->text + at, turn->to - at, turn->from - at);
}

/* The text is cut only where something learnt begins, as a prompt ends there. Turns that count 0
 * are text like any other. */
static int push_text(struct tr_data *d, const char *where, const struct chat_text *text,
                     const struct data_talk *talk)
{
    enum tr_text_place place = TR_TEXT_START;
    size_t at = 0, learnt = 0;
    double weight = 1;
    int r = 0;

    for (size_t i = 0; i <= text->n_turns && r == 0; i++) {
        double next = i < text->n_turns ? weight_of(talk, text->turn[i].message) : 0;
        size_t end = text->bytes;
        uint64_t from = d->tokens.n;

        if (i < text->n_turns && next == 0)
            continue;
        if (i < text->n_turns)
            end = begin_of(d, text, at, &text->turn[i]);
        if (at < end)
            r = push_part(d, where, text->text + at, end - at, learnt, &place);
        if (r == 0)
            r = data_weigh(d, from, (float)weight);
        at = end;
        weight = next;
        learnt = i < text->n_turns ? text->turn[i].to - end : 0;
    }
    return r;
}

/* 1 where the turns that are told are all that a row can hold. */
static int is_told(const struct tr_data *d, const struct chat_text *text)
{
    enum tr_text_place place = TR_TEXT_START;
    struct tr_ids ids = {0};
    int r;

    if (text->told == text->bytes)
        return 1;
    r = tr_tokenizer_encode_more(d->p.tokenizer, text->text, text->told, &place, &ids);
    if (r == 0)
        r = ids.n > (size_t)d->p.seq_len + MARGIN;
    tr_ids_free(&ids);
    return r;
}

/* Of a conversation that is longer than a row by far, only what comes first is looked at. */
static int write_talk(const struct tr_data *d, const struct data_talk *talk, struct chat_text *text)
{
    struct chat_conversation of = {.messages = talk->messages,
                                   .tools = talk->tools,
                                   .most = (size_t)d->p.seq_len * BYTES_A_TOKEN};
    int r = chat_write(&d->chat, &of, text);

    if (r < 0)
        return r;
    r = is_told(d, text);
    if (r > 0)
        return 0;
    chat_text_free(text);
    of.most = 0;
    return r < 0 ? r : chat_write(&d->chat, &of, text);
}

int data_read_talk(struct tr_data *d, const char *where, json_t *o)
{
    struct data_talk talk;
    struct chat_text text;
    int r = data_talk_read(&talk, where, d->info.format, o);

    if (r < 0)
        return r;
    r = write_talk(d, &talk, &text);
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
