/* SPDX-License-Identifier: Apache-2.0
 *
 * What a run reads back from its own folder (invariant 9). What begins like a cursor is taken as
 * the payload of a commit: what passes must be packed to the same bytes, and what its version knew
 * nothing of to zeros. Other input is taken as run.yaml: what passes must be printed and read again
 * to the same options, for that is what a run is compared with when it is continued. (store.json
 * and commit records: fuzz_commit.c.)
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/options/options.h"
#include "src/run/cursor.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(int truth)
{
    if (!truth)
        abort();
}

/* How much a payload of so many bytes says; its versions differ in size (src/run/cursor.c). */
static size_t known_bytes(size_t size)
{
    return size == 88 ? 72 : size; /* 16 bytes of the first version meant nothing */
}

static void fuzz_cursor(const uint8_t *data, size_t size)
{
    unsigned char again[TR_CURSOR_BYTES];
    struct tr_cursor c;

    if (tr_cursor_parse(data, size, &c) < 0)
        return;
    must(size <= sizeof(again));
    tr_cursor_pack(&c, again);
    must(!memcmp(again + 16, data + 16, known_bytes(size) - 16)); /* behind its head */
    for (size_t i = known_bytes(size); i < sizeof(again); i++)
        must(again[i] == 0);
}

static void compare(const struct tr_train_params *a, const struct tr_train_params *b)
{
    char names[256];

    must(tr_options_compare(a, b, TR_OPTION_FIXED,
                            &(struct tr_option_names){names, sizeof(names)}) == 0);
}

static void fuzz_options(const uint8_t *data, size_t size)
{
    struct tr_train_params p = {0}, again = {0};
    char *text = NULL;
    size_t bytes = 0;
    FILE *f;

    if (tr_options_parse((const char *)data, size, &p) == 0) {
        f = open_memstream(&text, &bytes);
        must(f != NULL);
        tr_options_print(f, &p);
        must(fclose(f) == 0);
        must(tr_options_parse(text, bytes, &again) == 0);
        compare(&p, &again);
        free(text);
    }
    tr_options_free(&p);
    tr_options_free(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size >= 4 && !memcmp(data, "TRCR", 4))
        fuzz_cursor(data, size);
    else
        fuzz_options(data, size);
    return 0;
}
