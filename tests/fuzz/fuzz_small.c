/* SPDX-License-Identifier: Apache-2.0
 *
 * Small files, each input as all of them (invariant 9): part.json of a store's folder;
 * generation_config.json; matmuls.txt of a run, whose lines must all be there when others have been
 * added, and those once; and a file of prompts, each of which must be a text of its own line.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "offload/store_private.h"
#include "src/base/file.h"
#include "src/base/mem.h"
#include "src/infer/prompts.h"
#include "src/infer/stops.h"
#include "src/run/choices.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(int truth)
{
    if (!truth)
        abort();
}

static void fuzz_part(const char *text, size_t size)
{
    char uuid[TR_UUID_CHARS + 1];
    uint32_t number;

    if (tr_part_parse(text, size, "input", uuid, &number) == 0)
        must(strlen(uuid) == TR_UUID_CHARS && number >= 1 && number <= TR_STORE_FOLDERS);
}

static void fuzz_stops(const char *text, size_t size)
{
    int64_t ids[INFER_STOPS];

    must(infer_parse_stops(text, size, "input", ids) <= INFER_STOPS);
}

static void fuzz_choices(const char *text)
{
    static const char now[] = "8 x 64 x 64 bf16: tile 3\n16 x 64 x 64 bf16: tile 4\n";
    int differ = -1, again = -1;
    char *all = choices_merge(text, now, &differ), *same = choices_merge(all, now, &again);

    must(all && same && !strncmp(all, text, strlen(text)) && !strcmp(all, same));
    must(differ >= 0 && differ <= 2 && differ == again);
    must(!*all || all[strlen(all) - 1] == '\n');
    tr_free(TR_MEM_TEXT, all);
    tr_free(TR_MEM_TEXT, same);
}

static void fuzz_prompts(const char *text, size_t size)
{
    static int fd = -1;
    static char path[64];
    struct prompts p = {0};

    if (fd < 0) {
        fd = memfd_create("prompts", MFD_CLOEXEC);
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    }
    must(fd >= 0 && ftruncate(fd, 0) == 0 && tr_pwrite(fd, path, text, size, 0) == 0);
    if (prompts_read(&p, path) == 0) {
        must(p.n > 0 && (size_t)p.n <= size);
        for (int32_t i = 0; i < p.n; i++)
            must(strlen(p.text[i]) <= size && p.text[i][0] != '\n');
    }
    prompts_free(&p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint64_t before = tr_mem_now(TR_MEM_TEXT);
    char *text = malloc(size + 1);

    must(text != NULL);
    memcpy(text, data, size);
    text[size] = 0;
    fuzz_part(text, size);
    fuzz_stops(text, size);
    fuzz_choices(text);
    fuzz_prompts(text, size);
    free(text);
    must(tr_mem_now(TR_MEM_TEXT) == before);
    return 0;
}
