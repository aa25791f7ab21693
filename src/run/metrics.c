/* SPDX-License-Identifier: Apache-2.0
 *
 * RUN/metrics.jsonl: one line a step, written when the step counts, which is when its commit is
 * durable. A commit that is durable must find the lines of its steps again, whatever happens next:
 * so before it is begun they go to metrics.jsonl.next, and from there they are dropped only when
 * the file that they have been added to since has been synced. A run that is taken up again adds
 * from there what its commit speaks of and the file lacks, and drops from both what speaks of steps
 * that the store does not hold. What is dropped comes again.
 *
 * So a line in metrics.jsonl proves that a commit of its step, or of a later one, was durable once
 * (torn.c). The order is kept in the page cache: a kill loses nothing that has been written. For a
 * loss of power both are synced before a commit, but at most once a second: a sync costs what a
 * short step costs.
 */
#include "src/run/run.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "src/base/err.h"
#include "src/base/file.h"
#include "src/base/mem.h"
#include "src/base/number.h"
#include "src/run/metrics_lines.h"

static int refuse(const char *path)
{
    int e = errno;

    return tr_error(-e, "%s: cannot open for writing: %s", path,
                    e == ELOOP    ? "a symbolic link is not followed"
                    : e == EINVAL ? "not a regular file"
                                  : strerror(e));
}

int metrics_open(struct tr_metrics *m, const char *run_folder)
{
    memset(m, 0, sizeof(*m));
    m->path = tr_path(run_folder, METRICS_FILE);
    m->next_path = tr_path(run_folder, METRICS_FILE ".next");
    if (!m->path || !m->next_path)
        return -ENOMEM;
    m->file = metrics_open_file(m->path, O_WRONLY | O_APPEND | O_CREAT, "a");
    m->next = m->file ? metrics_open_file(m->next_path, O_RDWR | O_APPEND | O_CREAT, "a+") : NULL;
    return m->next ? tr_sync_folder(run_folder) /* what a sync of the files does not hold */
                   : refuse(m->file ? m->next_path : m->path);
}

/* JSON knows no NaN and no infinity. */
static const char *number(char text[32], double x)
{
    tr_number_print(text, 32, isfinite(x) ? "%.9g" : "null", x);
    return text;
}

static int format(char *out, size_t room, const struct tr_step_report *r)
{
    char eval[128] = "", loss[32], norm[32], text[32];

    if (isfinite(r->eval_loss))
        snprintf(eval, sizeof(eval), ", \"eval_loss\": %s", number(text, r->eval_loss));
    if (isfinite(r->eval_accuracy))
        snprintf(eval + strlen(eval), sizeof(eval) - strlen(eval), ", \"eval_accuracy\": %s",
                 number(text, r->eval_accuracy));
    return tr_number_print(
        out, room,
        "{\"step\": %lld, \"loss\": %s, \"lr\": %.9g, \"grad_norm\": %s, "
        "\"tokens\": %lld, \"targets\": %lld, \"skipped\": %s, \"seconds\": %.6f, "
        "\"tokens_per_s\": %.3f, \"device_peak_bytes\": %llu, \"host_peak_bytes\": "
        "%llu, \"read_bytes\": %llu, \"written_bytes\": %llu, \"spilled_bytes\": "
        "%llu, \"wait_load_s\": %.6f, "
        "\"wait_commit_s\": %.6f%s}\n",
        (long long)r->step, number(loss, r->loss), r->lr, number(norm, r->grad_norm),
        (long long)r->tokens, (long long)r->targets, r->skipped ? "true" : "false", r->seconds,
        r->tokens_per_s, (unsigned long long)r->device_peak_bytes,
        (unsigned long long)r->host_peak_bytes, (unsigned long long)r->read_bytes,
        (unsigned long long)r->written_bytes, (unsigned long long)r->spilled_bytes, r->wait_load_s,
        r->wait_commit_s, eval);
}

int metrics_add(struct tr_metrics *m, const struct tr_step_report *r)
{
    char line[METRICS_LINE];
    int n = format(line, sizeof(line), r);

    if (!m->file || n < 0)
        return 0;
    if (m->bytes + (size_t)n > m->room) {
        size_t room = 2 * m->room + sizeof(line);
        char *p = tr_realloc(TR_MEM_MISC, m->pending, room);

        if (!p)
            return -ENOMEM;
        m->pending = p;
        m->room = room;
    }
    memcpy(m->pending + m->bytes, line, (size_t)n);
    m->bytes += (size_t)n;
    return 0;
}

static int empty_next(struct tr_metrics *m)
{
    if (ftruncate(fileno(m->next), 0) < 0)
        return tr_error(-errno, "%s: cannot be emptied: %s", m->next_path, strerror(errno));
    rewind(m->next); /* it may have been read */
    return 0;
}

static int is_sync_due(struct tr_metrics *m)
{
    struct timespec t;
    long last = m->synced;

    clock_gettime(CLOCK_MONOTONIC, &t);
    m->synced = t.tv_sec;
    return m->synced != last;
}

static int sync_file(FILE *f, const char *path)
{
    return fdatasync(fileno(f)) == 0
               ? 0
               : tr_error(-errno, "%s: cannot sync: %s", path, strerror(errno));
}

/* All lines of .next have been added to the file: once they are safe there, they go. */
static int drop_settled(struct tr_metrics *m)
{
    int r = sync_file(m->file, m->path);

    if (r < 0 || (r = empty_next(m)) < 0)
        return r;
    m->settled = 0;
    return 0;
}

/* All of them or none: what a full disk cuts short would become the beginning of another line by a
 * second try. Not through the buffer of f, which would be written again, too. */
static int add_lines(FILE *f, const char *path, const char *lines, size_t bytes)
{
    off_t before = lseek(fileno(f), 0, SEEK_END);
    int r = tr_pwrite(fileno(f), path, lines, bytes, (uint64_t)before);

    if (r < 0 && ftruncate(fileno(f), before) < 0)
        r = tr_error(-errno, "%s: cannot be cut to %lld bytes: %s", path, (long long)before,
                     strerror(errno));
    return r;
}

int metrics_begin(struct tr_metrics *m)
{
    int due = m->file && is_sync_due(m), r = 0;

    if (due && m->settled)
        r = drop_settled(m);
    if (r == 0 && m->file && m->bytes > m->begun) {
        m->settled = 0;
        r = add_lines(m->next, m->next_path, m->pending + m->begun, m->bytes - m->begun);
    }
    if (r < 0 || !m->file)
        return r;
    m->begun = m->bytes;
    return due ? sync_file(m->next, m->next_path) : 0;
}

int metrics_settle(struct tr_metrics *m)
{
    int r = m->begun ? add_lines(m->file, m->path, m->pending, m->begun) : 0;

    if (r < 0 || !m->begun)
        return r;
    m->bytes -= m->begun;
    memmove(m->pending, m->pending + m->begun, m->bytes);
    m->begun = 0;
    m->settled = 1;
    return 0;
}

/* Cuts the file; *last is the step of the line that it ends with. */
static int cut(struct tr_metrics *m, uint64_t step, uint64_t *last)
{
    FILE *f = metrics_open_file(m->path, O_RDONLY, "r");
    int r = 0;

    if (!f || ftruncate(fileno(m->file), metrics_find_end(f, step, last)) < 0)
        r = tr_error(-errno, "%s: cannot be cut to step %llu: %s", m->path,
                     (unsigned long long)step, strerror(errno));
    if (f)
        fclose(f);
    return r;
}

/* Adds the lines behind `last` as far as `step` of a commit that has become durable without them.
 */
static int add_lost(struct tr_metrics *m, uint64_t last, uint64_t step)
{
    char line[METRICS_LINE];
    long n;
    int r = 0;

    rewind(m->next);
    while (r == 0 && (n = metrics_read_line(m->next, line)) > 0) {
        unsigned long long is = 0;

        if (!metrics_step_of(line, n, &is) || is <= last || is > step)
            continue;
        r = add_lines(m->file, m->path, line, (size_t)n);
        last = is;
    }
    return r;
}

int metrics_rewind(struct tr_metrics *m, uint64_t step)
{
    uint64_t last = 0;
    int r = cut(m, step, &last);

    m->bytes = m->begun = 0;
    if (r == 0)
        r = add_lost(m, last, step);
    return r < 0 ? r : drop_settled(m);
}

static int needs_next(const struct tr_metrics *m)
{
    struct stat st;

    if (m->settled)
        return fdatasync(fileno(m->file)) < 0;
    return fstat(fileno(m->next), &st) < 0 || st.st_size > 0;
}

void metrics_close(struct tr_metrics *m)
{
    if (m->next) {
        if (!needs_next(m))
            unlink(m->next_path);
        fclose(m->next);
    }
    if (m->file)
        fclose(m->file);
    tr_free(TR_MEM_MISC, m->pending);
    tr_free(TR_MEM_MISC, m->next_path);
    tr_free(TR_MEM_MISC, m->path);
    memset(m, 0, sizeof(*m));
}
