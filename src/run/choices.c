/* SPDX-License-Identifier: Apache-2.0
 *
 * RUN/matmuls.txt: which algorithm the device's library chose for each shape of product, a line
 * each, "SHAPE: ALGORITHM". Bits depend on it, so a run that goes on with another choice is told.
 * A shape that is recorded stays; there are as many lines as there are shapes of grains.
 */
#include "src/run/open.h"

#include <stdio.h>
#include <string.h>

#include "src/base/err.h"
#include "src/base/file.h"

#define FILE_BYTES (4u << 20)

/* The line of `text` with the same shape as `line`, or NULL. Both lines end with a newline. */
static const char *find_shape(const char *text, const char *line)
{
    size_t n = strcspn(line, ":\n") + 1;

    for (; *text; text += strcspn(text, "\n") + 1)
        if (!strncmp(text, line, n))
            return text;
    return NULL;
}

static int same_line(const char *a, const char *b)
{
    size_t n = strcspn(a, "\n");

    return n == strcspn(b, "\n") && !strncmp(a, b, n);
}

/* Adds the lines of shapes that are not recorded yet. Returns how many others differ. */
static int merge(char *all, const char *now)
{
    size_t used = strlen(all);
    int differ = 0;

    for (const char *line = now; *line; line += strcspn(line, "\n") + 1) {
        size_t n = strcspn(line, "\n") + 1;
        const char *before = find_shape(all, line);

        if (before) {
            differ += !same_line(before, line);
        } else {
            memcpy(all + used, line, n);
            used += n;
            all[used] = 0;
        }
    }
    return differ;
}

static int write_choices(const struct tr_run *run, const char *path, const char *now)
{
    char *before = NULL, *all;
    size_t bytes = 0;
    int differ, r = 0;

    if (tr_folder_has(run->params.out, "matmuls.txt"))
        r = tr_file_read(path, FILE_BYTES, &before, &bytes);
    all = tr_alloc(TR_MEM_TEXT, bytes + strlen(now) + 2);
    if (r == 0 && !all)
        r = -ENOMEM;
    if (r == 0) {
        memcpy(all, before ? before : "", bytes);
        if (bytes && all[bytes - 1] != '\n')
            all[bytes] = '\n';
        differ = merge(all, now);
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

int run_record_choices(const struct tr_run *run)
{
    struct tr_device *d = run->device;
    size_t room = d->ops->choices ? d->ops->choices(d, NULL, 0) + 1 : 1;
    char *now, *path;
    int r = 0;

    if (room == 1)
        return 0;
    now = tr_alloc(TR_MEM_TEXT, room);
    path = tr_path(run->params.out, "matmuls.txt");
    if (now && path) {
        d->ops->choices(d, now, room);
        r = write_choices(run, path, now);
    }
    tr_free(TR_MEM_MISC, path);
    tr_free(TR_MEM_TEXT, now);
    return now && path ? r : -ENOMEM;
}
