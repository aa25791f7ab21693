/* SPDX-License-Identifier: Apache-2.0
 *
 * What a user should know of the places that a store lies in, told once when it is opened: they
 * work, but not as a drive with O_DIRECT does.
 */
#include <stdio.h>
#include <stdlib.h>

#include "offload/store_private.h"
#include "src/base/err.h"
#include "src/base/mem.h"

static const char in_memory[] =
    "%s: in memory (tmpfs): survives the end of a process, not that of the machine, and counts "
    "against the memory limit of a cgroup\n";
static const char buffered[] =
    "%s: this file system has no O_DIRECT: slower, as all goes through the page cache, which "
    "counts against the memory limit of a cgroup\n";

int tr_store_make_remark(struct tr_store *s)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *f = open_memstream(&text, &bytes);

    if (!f)
        return -ENOMEM;
    for (uint32_t i = 0; i < s->folders.n; i++) {
        const struct tr_io_file *file = &s->file[tr_file_in(TR_FILE_GEN0, i)];

        if (file->memory)
            fprintf(f, in_memory, s->folders.path[i]);
        else if (!file->direct)
            fprintf(f, buffered, s->folders.path[i]);
    }
    fclose(f);
    tr_free(TR_MEM_MISC, s->remark);
    s->remark = text ? tr_strdup(TR_MEM_MISC, text) : NULL;
    free(text);
    return s->remark ? 0 : -ENOMEM;
}
