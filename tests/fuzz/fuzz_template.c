/* SPDX-License-Identifier: Apache-2.0
 *
 * Any bytes as a chat template, over conversations of every kind (invariant 9). What is written
 * must be UTF-8 within its bound, what is learnt must lie inside of it, in order, and no memory may
 * be kept.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/mem.h"
#include "src/text/chat.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(int truth)
{
    if (!truth)
        abort();
}

static json_t *parsed(const char *text)
{
    json_t *v = json_loads(text, 0, NULL);

    must(v != NULL);
    return v;
}

static void write_talk(const struct chat *c, json_t *messages, json_t *tools)
{
    struct chat_text t;
    json_t *text;
    size_t at = 0;

    if (chat_write(c, &(struct chat_conversation){.messages = messages, .tools = tools}, &t) < 0)
        return;
    text = json_stringn(t.text ? t.text : "", t.bytes);
    must(text != NULL);
    json_decref(text);
    for (size_t i = 0; i < t.n_turns; i++) {
        must(t.turn[i].from >= at && t.turn[i].from < t.turn[i].to && t.turn[i].to <= t.bytes);
        must(t.turn[i].message < (int)json_array_size(messages));
        at = t.turn[i].to;
    }
    chat_text_free(&t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint64_t before = tr_mem_now(TR_MEM_TEXT);
    json_t *talks = parsed("[[{\"role\":\"user\",\"content\":\"é q\"},{\"role\":\"assistant\","
                           "\"content\":\"<think>x</think> a\\n\"},{\"role\":\"user\",\"content\":"
                           "\"r\"},{\"role\":\"assistant\",\"content\":\"b\",\"tool_calls\":[{"
                           "\"function\":{\"name\":\"f\",\"arguments\":{\"a\":[1,2.5,null]}}}]}],"
                           "[{\"role\":\"assistant\",\"content\":\"\"}],[]]");
    json_t *tools = parsed("[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}]"), *talk;
    struct chat c = {.tokens = parsed("{\"bos_token\":\"<s>\",\"eos_token\":\"</s>\"}")};
    size_t i;

    if (jinja_open(&c.template, (const char *)data, size, "fuzz") == 0)
        json_array_foreach(talks, i, talk)
            write_talk(&c, talk, i ? NULL : tools);
    chat_close(&c);
    json_decref(tools);
    json_decref(talks);
    must(tr_mem_now(TR_MEM_TEXT) == before);
    return 0;
}
