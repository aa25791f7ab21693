/* SPDX-License-Identifier: Apache-2.0
 *
 * Both forms show samples as they were read, before packing; a sample that is kept out of the rows
 * is shown too, because why it is kept out is what one wants to see.
 */
#include "src/text/preview.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/err.h"
#include "src/base/json.h"
#include "src/text/data_set.h"
#include "src/text/tokenizer_parts.h"

/* Control characters as \xNN, so that a line stays a line. */
static int add_piece(struct tok_buf *b, const char *piece)
{
    int r = 0;

    for (const char *p = piece; r == 0 && *p; p++) {
        char hex[8];

        if ((unsigned char)*p >= ' ' && *p != 0x7f) {
            r = tok_buf_add(b, p, 1);
            continue;
        }
        snprintf(hex, sizeof(hex), "\\x%02X", (unsigned char)*p);
        r = tok_buf_add(b, hex, 4);
    }
    return r;
}

static int add_token(struct tok_buf *b, const struct tr_preview_sample_params *p, int32_t token)
{
    int32_t id = token & ~DATA_MASKED;
    const char *piece = p->tokenizer ? tr_tokenizer_piece(p->tokenizer, id) : NULL;
    char number[16];

    snprintf(number, sizeof(number), "%d", id);
    return add_piece(b, piece ? piece : number);
}

/* A run of tokens that are learnt stands in one pair of brackets. That a token is learnt is decided
 * where it stands, not where it is predicted. */
static int add_tokens(struct tok_buf *b, const struct tr_preview_sample_params *p,
                      const int32_t *tokens, size_t n)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < n; i++) {
        int learnt = tokens[i] >= 0, before = i && tokens[i - 1] >= 0;

        if (i)
            r = tok_buf_add(b, " ", 1);
        if (r == 0 && learnt && !before)
            r = tok_buf_add(b, "[", 1);
        if (r == 0)
            r = add_token(b, p, tokens[i]);
        if (r == 0 && learnt && (i + 1 == n || tokens[i + 1] < 0))
            r = tok_buf_add(b, "]", 1);
    }
    return r;
}

static int show_text(const struct tr_preview_sample_params *p, size_t sample)
{
    const struct tr_data *d = p->data;
    uint64_t from = d->start[sample], to = d->start[sample + 1], loss = 0;
    struct tok_buf b = {0};
    char heading[128];
    int r;

    for (uint64_t i = from; i < to; i++)
        loss += d->tokens.v[i] >= 0;
    r = snprintf(heading, sizeof(heading), "sample %zu: %llu tokens, %llu with loss%s", sample,
                 (unsigned long long)(to - from), (unsigned long long)loss,
                 d->length[sample] ? "" : " (kept out)");
    r = p->line(p->arg, heading, (size_t)r);
    if (r >= 0)
        r = add_tokens(&b, p, d->tokens.v + from, to - from);
    if (r >= 0)
        r = p->line(p->arg, b.v ? b.v : "", b.n);
    tok_buf_free(&b);
    return r;
}

/* The same names and the same -100 as the reference's data: the two can be compared by a program.
 */
static int show_json(const struct tr_preview_sample_params *p, size_t sample)
{
    const struct tr_data *d = p->data;
    json_t *ids = json_array(), *labels = json_array(), *o;
    char *text;
    int r;

    for (uint64_t i = d->start[sample]; i < d->start[sample + 1]; i++) {
        int32_t token = d->tokens.v[i];

        tr_json_append(&ids, json_integer(token & ~DATA_MASKED));
        tr_json_append(&labels, json_integer(token >= 0 ? token : -100));
    }
    o = json_pack("{s:o,s:o}", "input_ids", ids, "labels", labels);
    text = o ? tr_json_text(o, JSON_COMPACT) : NULL;
    r = text ? p->line(p->arg, text, strlen(text)) : tr_error(-ENOMEM, "out of memory");
    free(text);
    json_decref(o);
    return r;
}

int tr_preview(const struct tr_preview_sample_params *p)
{
    int r = 0;

    for (size_t i = 0; r >= 0 && i < p->data->n_samples && (int64_t)i < p->samples; i++)
        r = p->json ? show_json(p, i) : show_text(p, i);
    return r < 0 ? r : 0;
}
