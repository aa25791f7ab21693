/* SPDX-License-Identifier: Apache-2.0
 *
 * A commit record that is torn or damaged, and passed over: what its owner is told. A crash in the
 * middle of a commit leaves a torn one, and the run has lost nothing but the step at hand: that is
 * said, and no error. But a line in metrics.jsonl is written only when the commit of its step is
 * durable: where it has one of a later step than the store stands at, that commit was there, and
 * its record has been damaged since.
 */
#include "src/run/torn.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/base/err.h"
#include "src/base/file.h"
#include "src/base/mem.h"

FILE *metrics_open_file(const char *path, int flags, const char *mode)
{
    int fd = open(path, flags | O_CLOEXEC | O_NONBLOCK, 0644);
    FILE *f = NULL;
    struct stat st;

    if (fd >= 0 && fstat(fd, &st) == 0 && !S_ISREG(st.st_mode))
        errno = EINVAL;
    else if (fd >= 0)
        f = fdopen(fd, mode);
    if (!f && fd >= 0)
        close(fd);
    return f;
}

long metrics_read_line(FILE *f, char line[METRICS_LINE])
{
    long n = 0;
    int c = 0;

    for (; c != '\n' && (c = getc(f)) != EOF; n++)
        if (n < METRICS_LINE - 1)
            line[n] = (char)c;
    line[n < METRICS_LINE ? n : METRICS_LINE - 1] = 0;
    return n;
}

int metrics_step_of(const char *line, long n, unsigned long long *step)
{
    return n >= 2 && n < METRICS_LINE && !strcmp(line + n - 2, "}\n") &&
           sscanf(line, "{\"step\": %llu", step) == 1;
}

long metrics_find_end(FILE *f, uint64_t step, uint64_t *last)
{
    char line[METRICS_LINE];
    long at = 0, end = 0, n;

    *last = 0;
    while ((n = metrics_read_line(f, line)) > 0) {
        unsigned long long is = 0;
        int whole = metrics_step_of(line, n, &is);

        if (whole && is > step)
            break;
        at += n;
        end = whole ? at : end;
        *last = whole ? is : *last;
    }
    return end;
}

/* The step of the last whole line, 0: there is none. */
static uint64_t last_step(const char *run)
{
    char *path = tr_path(run, METRICS_FILE);
    FILE *f = path ? metrics_open_file(path, O_RDONLY, "r") : NULL;
    uint64_t last = 0;

    if (f) {
        metrics_find_end(f, UINT64_MAX, &last);
        fclose(f);
    }
    tr_free(TR_MEM_MISC, path);
    return last;
}

int run_torn(const char *run, const struct tr_store *s, uint64_t step, char *text, size_t room)
{
    const char *path = tr_store_torn(s);
    uint64_t last = path && run ? last_step(run) : 0;

    *text = 0;
    if (!path)
        return 0;
    if (last > step)
        snprintf(text, room,
                 "%s: damaged: this commit record, newer than the other one, was durable: step "
                 "%llu was done by then; the store stands at step %llu again",
                 path, (unsigned long long)last, (unsigned long long)step);
    else if (tr_store_torn_damaged(s))
        snprintf(text, room,
                 "%s: this commit record is damaged; the store stands at the other one, of step "
                 "%llu",
                 path, (unsigned long long)step);
    else
        snprintf(text, room,
                 "%s: this commit record is torn, as by a crash in the middle of a commit, or "
                 "damaged; the store stands at the other one, of step %llu",
                 path, (unsigned long long)step);
    return last > step || tr_store_torn_damaged(s) ? -1 : 1;
}
