/* SPDX-License-Identifier: Apache-2.0
 *
 * Any bytes as tokenizer.model (invariant 9): one error, or a tokenizer that encodes into its own
 * vocabulary and gives all its memory back.
 */
#include <stdint.h>
#include <stdlib.h>

#include "src/base/mem.h"
#include "src/text/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(int truth)
{
    if (!truth)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char text[] = "<s> ab \xE2\x96\x81 abc\xFF\n";
    struct tr_tokenizer_text in = {
        .json = (const char *)data, .json_bytes = size, .where = "fuzz", .is_model = 1};
    struct tr_tokenizer *t;
    struct tr_ids ids = {0};

    if (tr_tokenizer_parse(&t, &in) == 0) {
        must(tr_tokenizer_encode(t, text, sizeof(text) - 1, &ids) == 0);
        for (size_t i = 0; i < ids.n; i++)
            must(tr_tokenizer_piece(t, ids.v[i]) != NULL);
        tr_ids_free(&ids);
        tr_tokenizer_close(t);
    }
    must(tr_mem_now(TR_MEM_TEXT) == 0);
    return 0;
}
