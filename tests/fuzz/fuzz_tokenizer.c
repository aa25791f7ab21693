/* SPDX-License-Identifier: Apache-2.0
 *
 * Any bytes as tokenizer.json (invariant 9). A file that is read must then encode and decode: ids
 * stay inside the vocabulary, a text in parts has the ids of the whole, and no memory is kept.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/mem.h"
#include "src/text/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(int truth)
{
    if (!truth)
        abort();
}

static void encode_parts(const struct tr_tokenizer *t, const char *text, size_t n,
                         struct tr_ids *ids)
{
    enum tr_text_place place = TR_TEXT_START;

    while (n) {
        size_t part = n > 20 ? tr_tokenizer_cut(t, text, 20) : 0;

        part = part ? part : n;
        must(tr_tokenizer_encode_more(t, text, part, &place, ids) == 0);
        text += part;
        n -= part;
    }
}

static void use(const struct tr_tokenizer *t, const char *text, size_t n)
{
    struct tr_ids whole = {0}, parts = {0};
    char *decoded;

    if (tr_tokenizer_encode(t, text, n, &whole) == 0) {
        for (size_t i = 0; i < whole.n; i++)
            must(tr_tokenizer_piece(t, whole.v[i]) != NULL);
        if (tr_tokenizer_decode(t, whole.v, whole.n, &decoded) == 0)
            tr_free(TR_MEM_TEXT, decoded);
        encode_parts(t, text, n, &parts);
        must(whole.n == parts.n &&
             (!whole.n || !memcmp(whole.v, parts.v, whole.n * sizeof(*whole.v))));
    }
    tr_ids_free(&whole);
    tr_ids_free(&parts);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char text[] =
        "<s> he ab\xC3\xA9  <x> \xE2\x82\xAC\xFFzz abcabc<x>he, he said.\n\n";
    struct tr_tokenizer_text in = {.json = (const char *)data, .json_bytes = size, .where = "fuzz"};
    struct tr_tokenizer *t;

    if (tr_tokenizer_parse(&t, &in) == 0) {
        use(t, text, sizeof(text) - 1);
        use(t, (const char *)data, size < 400 ? size : 400);
        tr_tokenizer_close(t);
    }
    must(tr_mem_now(TR_MEM_TEXT) == 0);
    return 0;
}
