/* SPDX-License-Identifier: Apache-2.0
 *
 * A run that knows beforehand what it will take, and says afterwards how right it was. Seconds only
 * where `tailrace bench` has measured the very device that the run computes on.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/base/err.h"
#include "src/run/open.h"

int run_figures(const struct tr_run *run, struct tr_figures *out)
{
    char *path = tr_figures_path(0);
    int r = path && access(path, F_OK) == 0 ? tr_figures_read(path, out) : -ENOENT;

    tr_free(TR_MEM_MISC, path);
    if (r == 0 && (strcmp(out->device, run->device_info.bits) ||
                   (!out->cuda && out->threads != (int)run->params.threads)))
        r = -ENOENT; /* of another device, or of other threads */
    return r < 0 ? r : run_find_drives(run, out);
}

static int foresee(struct tr_run *run, struct tr_figures *figures)
{
    struct tr_batch batch;
    int r = run_figures(run, figures), known = r == 0;

    if (r < 0 && r != -ENOENT)
        run_log(run, "no figures: %s", tr_error_message());
    if (known && figures->strangers)
        run_log(run,
                "predicted as if all folders of the store were on one drive: not all of their "
                "drives have been measured (tailrace bench --store %s)",
                run->params.store);
    r = tr_data_batch(run->data, 0, 0, &batch);
    return r < 0 ? r : run_predict(run, known ? figures : NULL, &batch, &run->foreseen);
}

/* What is chosen by time is chosen before the disk is looked at: it may take more of it. */
int run_choose_here(struct tr_run *run)
{
    struct tr_figures *figures = tr_alloc(TR_MEM_MISC, sizeof(*figures));
    struct tr_batch batch;
    int r = figures ? tr_data_batch(run->data, 0, 0, &batch) : -ENOMEM;

    if (r == 0)
        r = run_choose(run, run_figures(run, figures) == 0 ? figures : NULL, &batch, 0);
    tr_free(TR_MEM_MISC, figures);
    return r;
}

/* That something cannot be predicted is no reason not to do it; a notice says why. */
int run_foresee(struct tr_run *run)
{
    struct tr_figures *figures = tr_alloc(TR_MEM_MISC, sizeof(*figures));
    int r = figures ? foresee(run, figures) : -ENOMEM;

    tr_free(TR_MEM_MISC, figures);
    if (r == 0 || r == -ENOMEM)
        return r;
    run_log(run, "no prediction: %s", tr_error_message());
    run->foreseen = (struct tr_prediction){0};
    return 0;
}

void run_measure_step(struct tr_run *run, const struct tr_step_report *report)
{
    struct tr_measured *m = &run->measured;
    int follows = m->follows && run->params.durability == TR_KEEP_CHECKPOINT;

    m->follows = m->committed;
    m->committed = 0;
    m->steps++;
    if (m->since++ == 0)
        return;
    m->step[m->next] = (struct tr_measured_step){report->seconds, follows};
    m->next = (m->next + 1) % TR_MEASURED_STEPS;
    m->n += m->n < TR_MEASURED_STEPS;
}

static int by_kind_and_value(const void *a, const void *b)
{
    const struct tr_measured_step *x = a, *y = b;

    if (x->after_commit != y->after_commit)
        return x->after_commit - y->after_commit;
    return (x->seconds > y->seconds) - (x->seconds < y->seconds);
}

/* Of the steps that follow a commit, or of the others; 0: there are none. */
static double median(struct tr_measured *m, int after_commit)
{
    const struct tr_measured_step *s = m->step;
    size_t from = 0, n = 0;

    if (!m->n)
        return 0;
    qsort(m->step, m->n, sizeof(*m->step), by_kind_and_value);
    while (from < m->n && s[from].after_commit < after_commit)
        from++;
    while (from + n < m->n && s[from + n].after_commit == after_commit)
        n++;
    return n ? (s[from + (n - 1) / 2].seconds + s[from + n / 2].seconds) / 2 : 0;
}

static void line(FILE *f, const char *what, const char *unit, double predicted, double measured)
{
    fprintf(f, "  %-24s %12.4g %12.4g %s", what, predicted, measured, unit);
    if (predicted > 0 && measured > 0)
        fprintf(f, "  %+.1f %%", 100 * (predicted / measured - 1));
    fputc('\n', f);
}

static void exact(FILE *f, const char *what, uint64_t predicted, uint64_t measured)
{
    fprintf(f, "  %-24s %15llu %15llu bytes%s\n", what, (unsigned long long)predicted,
            (unsigned long long)measured, predicted == measured ? ", equal" : "");
}

/* Of several drives each; where every step is durable, and none was finished beside the steps,
 * there is nothing else that they have written. */
static void compare_drives(FILE *f, const struct tr_run *run)
{
    const struct tr_prediction *p = &run->foreseen;
    const struct tr_measured *m = &run->measured;

    if (p->sim.n_drives < 2 || m->settled || m->since < m->steps || run->valid ||
        run->params.durability != TR_KEEP_STEP)
        return;
    for (uint32_t d = 0; d < p->sim.n_drives; d++) {
        struct tr_drive_bytes b = tr_prediction_drive(p, d, m->steps);
        uint64_t read = 0, written = 0;

        for (uint32_t i = 0; i < p->n_folders; i++) {
            read += p->drive_of[i] == d ? m->moved.read_by[i] : 0;
            written += p->drive_of[i] == d ? m->moved.written_by[i] : 0;
        }
        fprintf(f, "%s\n", p->drive[d]);
        exact(f, "  read", b.read, read);
        exact(f, "  written", b.written, written);
    }
}

/* All steps of this process: the first one's loads begin with empty slots, and so do those of the
 * first behind a snapshot. A validation in between reads too, and then nothing is said about reads.
 */
static void compare(FILE *f, struct tr_run *run)
{
    const struct tr_prediction *p = &run->foreseen;
    struct tr_measured *m = &run->measured;
    uint64_t written;
    double seconds;

    fprintf(f, "%-26s    predicted     measured\n", "prediction");
    if (p->timed && (seconds = median(m, 0)) > 0)
        line(f, "seconds a step", "s", p->sim.seconds, seconds);
    if (p->timed && (seconds = median(m, 1)) > 0)
        line(f, "seconds after a commit", "s", p->after_commit, seconds);
    if (!run->valid && m->steps > 1)
        exact(f, "read, all steps", tr_prediction_read(p, m->since) + m->foreseen_read,
              m->moved.read);
    written = tr_prediction_written(p, m->since) + m->foreseen_bytes;
    if (!run->valid ||
        run->params.durability == TR_KEEP_STEP) /* else it moves what waits in slots */
        exact(f, "written, all steps", written, m->moved.written);
    if (m->device_bytes)
        exact(f, "device peak", p->device_bytes, m->device_bytes);
    compare_drives(f, run);
}

static void measure_moved(struct tr_run *run)
{
    struct tr_measured *m = &run->measured;
    struct tr_offload_stats s;

    tr_offload_stats(run->offload, &s);
    m->moved.read = m->closed.read + s.read_bytes;
    m->moved.written = m->closed.written + s.written_bytes;
    for (int i = 0; i < TR_STORE_FOLDERS; i++) {
        m->moved.read_by[i] = m->closed.read_by[i] + s.read_by[i];
        m->moved.written_by[i] = m->closed.written_by[i] + s.written_by[i];
    }
}

/* The next one's slots are empty, as those of a process that begins. */
void run_measure_engine(struct tr_run *run)
{
    struct tr_measured *m = &run->measured;

    measure_moved(run);
    m->closed = m->moved;
    m->foreseen_read += tr_prediction_read(&run->foreseen, m->since);
    m->foreseen_bytes += tr_prediction_written(&run->foreseen, m->since);
    m->since = m->walked = 0;
}

int run_measure_end(struct tr_run *run)
{
    struct tr_measured *m = &run->measured;
    uint64_t high;
    size_t bytes;
    char *text = NULL;
    int r;
    FILE *f;

    tr_free(TR_MEM_MISC, m->text);
    m->text = NULL;
    if (!run->offload)
        return 0;
    measure_moved(run);
    if (!m->steps || !run->foreseen.tokens)
        return 0;
    if ((r = run_high_water(run, &high)) < 0)
        return r;
    m->device_bytes = high ? high + run->device_info.workspace_bytes : 0;
    f = open_memstream(&text, &bytes);
    if (!f)
        return tr_error(-ENOMEM, "out of memory");
    compare(f, run);
    if (fclose(f) == 0)
        m->text = tr_strdup(TR_MEM_MISC, text);
    free(text);
    return m->text ? 0 : -ENOMEM;
}
