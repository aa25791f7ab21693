/* SPDX-License-Identifier: Apache-2.0
 *
 * RUN/matmuls.txt: which algorithm the device's library chose for each shape of product, a line
 * each, "SHAPE: ALGORITHM". Bits depend on it, so a run that goes on with another choice is told.
 * A shape that is recorded stays; there are as many lines as there are shapes of grains.
 * RUN/times.txt: what ops have taken, by a device that was told to look.
 */
#include "src/run/choices.h"

#include <stdio.h>
#include <string.h>

#include "src/base/err.h"
#include "src/base/file.h"
#include "src/run/open.h"

#define FILE_BYTES (4u << 20)

static int write_choices(const struct tr_run *run, const char *path, const char *now)
{
    char *before = NULL, *all;
    size_t bytes = 0;
    int differ, r = 0;

    if (tr_folder_has(run->params.out, "matmuls.txt"))
        r = tr_file_read(path, FILE_BYTES, &before, &bytes);
    all = r == 0 ? choices_merge(before, now, &differ) : NULL;
    if (r == 0 && !all)
        r = -ENOMEM;
    if (r == 0) {
        if (differ)
            run_log(run,
                    "%s: for %d shapes of matrix products the library now chooses another "
                    "algorithm than before: the bits may differ",
                    path, differ);
        r = tr_file_write(path, all, strlen(all));
    }
    tr_free(TR_MEM_TEXT, all);
    tr_free(TR_MEM_TEXT, before);
    return r;
}

static int write_times(const struct tr_run *run, const char *path, const char *now)
{
    (void)run;
    return tr_file_write(path, now, strlen(now));
}

/* Hands what the device tells by this call of its own to `write`, for a file of the run; nothing
 * where it tells nothing. */
static int record(const struct tr_run *run, size_t (*tell)(struct tr_device *, char *, size_t),
                  const char *name,
                  int (*write)(const struct tr_run *run, const char *path, const char *now))
{
    size_t room = tell ? tell(run->device, NULL, 0) + 1 : 1;
    char *now, *path;
    int r = -ENOMEM;

    if (room == 1)
        return 0;
    now = tr_alloc(TR_MEM_TEXT, room);
    path = tr_path(run->params.out, name);
    if (now && path) {
        tell(run->device, now, room);
        r = write(run, path, now);
    }
    tr_free(TR_MEM_MISC, path);
    tr_free(TR_MEM_TEXT, now);
    return r;
}

int run_record_times(const struct tr_run *run)
{
    return record(run, run->device->ops->times, "times.txt", write_times);
}

int run_record_choices(const struct tr_run *run)
{
    return record(run, run->device->ops->choices, "matmuls.txt", write_choices);
}
