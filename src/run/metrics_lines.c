/* SPDX-License-Identifier: Apache-2.0 */
#include "src/run/metrics_lines.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/base/file.h"
#include "src/base/mem.h"

FILE *metrics_open_file(const char *path, int flags, const char *mode)
{
    int fd = open(path, flags | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW, 0644);
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

uint64_t metrics_last_step(const char *run)
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
