/* SPDX-License-Identifier: Apache-2.0
 *
 * Where memory ends, what becomes of a sentencepiece model or of a conversation is whole, or is an
 * error.
 */
#include "tests/text/text_test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/text/chat.h"
#include "src/text/data_talk.h"
#include "src/text/sentencepiece.h"
#include "tests/json_blocks.h"

struct conversion {
    char model[1 << 15];
    size_t bytes;
    json_t *config;
};

static char *converted(void *of)
{
    struct conversion *c = of;
    json_t *root = NULL;
    int r = tr_sentencepiece_convert(c->model, c->bytes, c->config, "model", &root);

    return blocks_text(r, root);
}

/* Of pieces and merges, the last; and the token that only the configuration has. */
static void a_conversion_is_whole(void **state)
{
    static const char token[] = "{\"added_tokens_decoder\":{\"99999\":{\"content\":\"<x>\"}}}";
    struct conversion c = {.config = json_loads(token, 0, NULL)};

    (void)state;
    assert_non_null(c.config);
    for (int i = 0; i < 2; i++) {
        FILE *f = fopen(i ? TEST_RECORDS "bpe.model" : TEST_RECORDS "unigram.model", "rb");

        assert_non_null(f);
        c.bytes = fread(c.model, 1, sizeof(c.model), f);
        fclose(f);
        assert_true(blocks_whole(converted, &c, 200) > 190);
    }
    json_decref(c.config);
}

/* The record as a conversation, and where in it what is learnt stands. */
static char *written(void *record)
{
    struct data_talk talk = {0};
    struct chat_text text = {0};
    struct chat chat = {0};
    char *out = NULL, *more;
    int r = data_talk_read(&talk, "record", TR_DATA_MESSAGES, record);

    if (r == 0)
        r = chat_open(&chat, &(struct chat_params){.name = "llama3"});
    if (r == 0)
        r = chat_write(&chat, &(struct chat_conversation){.messages = talk.messages}, &text);
    if (r == 0)
        out = strndup(text.text, text.bytes);
    for (size_t i = 0; i < text.n_turns; i++, out = more) {
        assert_true(asprintf(&more, "%s%zu-%zu\n", out, text.turn[i].from, text.turn[i].to) > 0);
        free(out);
    }
    chat_text_free(&text);
    chat_close(&chat);
    data_talk_free(&talk);
    return out;
}

static void a_conversation_is_whole(void **state)
{
    static const char text[] =
        "{\"messages\":[{\"name\":\"n\",\"content\":[{\"text\":\"a\"},{\"text\":\"b\"}],\"role\":"
        "\"user\"},{\"role\":\"assistant\",\"tool_calls\":[{\"id\":1}],\"content\":null},{\"role\":"
        "\"user\",\"content\":\"c\"},{\"role\":\"assistant\",\"content\":\"d\"}]}";
    json_t *record = json_loads(text, 0, NULL);

    (void)state;
    assert_non_null(record);
    assert_true(blocks_whole(written, record, 0) > 100);
    json_decref(record);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_conversion_is_whole),
        cmocka_unit_test(a_conversation_is_whole),
    };

    return cmocka_run_group_tests(tests, text_setup, text_teardown);
}
