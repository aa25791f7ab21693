/* SPDX-License-Identifier: Apache-2.0
 *
 * RUN/metrics.jsonl: one line a step. A commit that is durable must find the lines of its steps in
 * the file, whatever happens next; so they are written before it is begun, and a run that is taken
 * up again drops what speaks of steps that the store does not hold. What is dropped comes again.
 *
 * A kill loses nothing that has been written. For a loss of power the file is synced before a
 * commit, but at most once a second: a sync costs what a short step costs.
 */
#include "src/run/run.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "src/base/err.h"
#include "src/base/file.h"
#include "src/base/mem.h"

int metrics_open(struct tr_metrics *m, const char *run_folder)
{
    memset(m, 0, sizeof(*m));
    m->path = tr_path(run_folder, "metrics.jsonl");
    if (!m->path)
        return -ENOMEM;
    m->file = fopen(m->path, "ae");
    return m->file ? 0
                   : tr_error(-errno, "%s: cannot open for writing: %s", m->path, strerror(errno));
}

/* JSON knows no NaN and no infinity. */
static const char *number(char text[32], double x)
{
    snprintf(text, 32, isfinite(x) ? "%.9g" : "null", x);
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
    return snprintf(out, room,
                    "{\"step\": %lld, \"loss\": %s, \"lr\": %.9g, \"grad_norm\": %s, "
                    "\"tokens\": %lld, \"targets\": %lld, \"skipped\": %s, \"seconds\": %.6f, "
                    "\"tokens_per_s\": %.3f, \"device_peak_bytes\": %llu, \"host_peak_bytes\": "
                    "%llu, \"read_bytes\": %llu, \"written_bytes\": %llu, \"spilled_bytes\": "
                    "%llu, \"wait_load_s\": %.6f, "
                    "\"wait_commit_s\": %.6f%s}\n",
                    (long long)r->step, number(loss, r->loss), r->lr, number(norm, r->grad_norm),
                    (long long)r->tokens, (long long)r->targets, r->skipped ? "true" : "false",
                    r->seconds, r->tokens_per_s, (unsigned long long)r->device_peak_bytes,
                    (unsigned long long)r->host_peak_bytes, (unsigned long long)r->read_bytes,
                    (unsigned long long)r->written_bytes, (unsigned long long)r->spilled_bytes,
                    r->wait_load_s, r->wait_commit_s, eval);
}

int metrics_add(struct tr_metrics *m, const struct tr_step_report *r)
{
    char line[768];
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

static int sync_lines(struct tr_metrics *m)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    if (t.tv_sec == m->synced)
        return 0;
    m->synced = t.tv_sec;
    return fdatasync(fileno(m->file));
}

int metrics_write(struct tr_metrics *m)
{
    if (!m->file || !m->bytes)
        return 0;
    if (fwrite(m->pending, 1, m->bytes, m->file) != m->bytes || fflush(m->file) != 0 ||
        sync_lines(m) < 0)
        return tr_error(-errno, "%s: cannot write %zu bytes: %s", m->path, m->bytes,
                        strerror(errno));
    m->bytes = 0;
    return 0;
}

/* 1: a whole line, which begins with its step. */
static int step_of(const char *line, ssize_t n, unsigned long long *step)
{
    return n >= 2 && !strcmp(line + n - 2, "}\n") && sscanf(line, "{\"step\": %llu", step) == 1;
}

/* Bytes as far as the last whole line of a step up to `step`; one behind it that is torn goes, and
 * what lies before it stays, whatever it is. */
static long find_end(FILE *f, uint64_t step)
{
    char *line = NULL;
    size_t room = 0;
    long at = 0, end = 0;
    ssize_t n;

    while ((n = getline(&line, &room, f)) > 0) {
        unsigned long long is = 0;
        int whole = step_of(line, n, &is);

        if (whole && is > step)
            break;
        at += (long)n;
        end = whole ? at : end;
    }
    free(line);
    return end;
}

int metrics_rewind(struct tr_metrics *m, const char *run_folder, uint64_t step)
{
    char *path = tr_path(run_folder, "metrics.jsonl");
    FILE *f = path ? fopen(path, "re") : NULL;
    int r = 0;

    m->bytes = 0;
    if (!path)
        return -ENOMEM;
    if (!f || ftruncate(fileno(m->file), find_end(f, step)) < 0)
        r = tr_error(-errno, "%s: cannot be cut to step %llu: %s", path, (unsigned long long)step,
                     strerror(errno));
    if (f)
        fclose(f);
    tr_free(TR_MEM_MISC, path);
    return r;
}

void metrics_close(struct tr_metrics *m)
{
    if (m->file)
        fclose(m->file);
    tr_free(TR_MEM_MISC, m->pending);
    tr_free(TR_MEM_MISC, m->path);
    memset(m, 0, sizeof(*m));
}
