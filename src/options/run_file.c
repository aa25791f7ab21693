/* SPDX-License-Identifier: Apache-2.0
 *
 * RUN/run.yaml: the options of a run, with a checksum of all that is above it in the last line. A
 * flipped digit of a rate would be believed without a word; so a file that is not as it was written
 * is refused by name. Who has changed it by hand says so by taking the last line away, which makes
 * it a file like any other, or by --force. Files from before there was a checksum have none.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/err.h"
#include "src/base/file.h"
#include "src/base/hash.h"
#include "src/base/mem.h"
#include "src/options/options.h"

#define WORDS      "# checksum of all above: "
#define ADVICE     " (after a change by hand, take this line away)\n"
#define LINE_BYTES (sizeof(WORDS ADVICE) + 16)
#define FILE_BYTES (1u << 20)

static void make_line(char line[LINE_BYTES], const char *text, size_t bytes)
{
    snprintf(line, LINE_BYTES, WORDS "%016llx" ADVICE,
             (unsigned long long)XXH3_64bits(text, bytes));
}

int tr_options_write(const char *path, const struct tr_train_params *params)
{
    char line[LINE_BYTES], *text = NULL;
    size_t bytes = 0;
    FILE *f = open_memstream(&text, &bytes);
    int rc = f ? 0 : -ENOMEM;

    if (rc == 0) {
        tr_options_print(f, params);
        rc = fflush(f) == 0 ? 0 : -ENOMEM;
    }
    if (rc == 0) {
        make_line(line, text, bytes);
        fputs(line, f);
    }
    if (f && fclose(f) != 0)
        rc = -ENOMEM;
    rc = rc < 0 ? tr_error(rc, "%s: out of memory", path) : tr_file_write(path, text, bytes);
    free(text);
    return rc;
}

/* Where the line of the checksum begins, NULL: there is none. */
static const char *find_line(const char *text)
{
    const char *at = NULL;

    for (const char *next = text; (next = strstr(next, "\n" WORDS)); next++)
        at = next + 1;
    return at;
}

int tr_run_file_check(const char *path)
{
    char line[LINE_BYTES], *text = NULL;
    const char *at;
    size_t bytes;
    int rc = tr_file_read(path, FILE_BYTES, &text, &bytes);

    if (rc < 0)
        return rc;
    at = find_line(text);
    if (at)
        make_line(line, text, (size_t)(at - text));
    if (at && strcmp(at, line) != 0)
        rc = tr_error(-EBADMSG,
                      "%s: damaged, or changed by hand: its checksum is another; if the change is "
                      "meant, take its last line away, or --force",
                      path);
    tr_free(TR_MEM_TEXT, text);
    return rc;
}

int tr_run_file_read(const char *path, struct tr_train_params *params)
{
    int rc = tr_run_file_check(path);

    return rc < 0 ? rc : tr_options_read(path, params);
}
