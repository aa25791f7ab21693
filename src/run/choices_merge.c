/* SPDX-License-Identifier: Apache-2.0
 *
 * Pure: what is in the file, whatever that is, and what the device says now.
 */
#include "src/run/choices.h"

#include <string.h>

#include "src/base/mem.h"

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
static int add_lines(char *all, const char *now)
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

char *choices_merge(const char *before, const char *now, int *differ)
{
    size_t bytes = before ? strlen(before) : 0;
    char *all = tr_alloc(TR_MEM_TEXT, bytes + strlen(now) + 2);

    if (!all)
        return NULL;
    memcpy(all, before ? before : "", bytes);
    if (bytes && all[bytes - 1] != '\n')
        all[bytes] = '\n';
    *differ = add_lines(all, now);
    return all;
}
