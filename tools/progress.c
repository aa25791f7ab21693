/* SPDX-License-Identifier: Apache-2.0
 *
 * The width is asked anew for every line, so a resized window needs no signal handler.
 */
#include "tools/progress.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "tools/cli.h"

#define BAR_WIDTH 20

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int width(const struct progress *p)
{
    const char *columns = getenv("COLUMNS");
    struct winsize size;

    if (columns && atoi(columns) > 0)
        return atoi(columns);
    if (ioctl(fileno(p->out), TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
        return size.ws_col;
    return 80;
}

void progress_start(struct progress *p, FILE *out)
{
    const char *term = getenv("TERM"), *no_color = getenv("NO_COLOR");

    *p = (struct progress){.out = out};
    p->live = isatty(fileno(out)) && term && strcmp(term, "dumb") != 0;
    p->color = p->live && !(no_color && *no_color);
}

static void describe(const struct progress *p, const struct tr_step_report *r,
                     char text[static 256])
{
    char left[32], loss[32] = "not finite", eval[80] = "";

    if (isfinite(r->eval_loss))
        snprintf(eval, sizeof(eval), "  held-out %.4f", r->eval_loss);
    if (isfinite(r->eval_accuracy))
        snprintf(eval + strlen(eval), sizeof(eval) - strlen(eval), "  accuracy %.1f %%",
                 100 * r->eval_accuracy);
    cli_time(left, p->step_seconds * (double)(r->steps - r->step));
    if (isfinite(r->loss))
        snprintf(loss, sizeof(loss), "%.4f", r->loss);
    snprintf(text, 256, "%3.0f %%  loss %s%s%s  lr %.3g  %.0f tok/s  %s%s",
             100.0 * (double)r->step / (double)(r->steps ? r->steps : 1), loss,
             r->skipped ? " (skipped)" : "", eval, r->lr, r->tokens_per_s,
             r->step < r->steps ? "ETA " : "", r->step < r->steps ? left : "done");
}

static void rewrite_line(struct progress *p, const struct tr_step_report *r, const char *text)
{
    int columns = width(p), filled = r->steps ? (int)(BAR_WIDTH * r->step / r->steps) : 0;
    char head[64];
    int used =
        snprintf(head, sizeof(head), "step %lld/%lld ", (long long)r->step, (long long)r->steps);

    fprintf(p->out, "\r\033[K%.*s", columns - 1, head);
    if (columns > used + BAR_WIDTH + 60) {
        fprintf(p->out, "%s%.*s%s%.*s ", p->color ? "\033[32m" : "", filled, "####################",
                p->color ? "\033[0m" : "", BAR_WIDTH - filled, "....................");
        used += BAR_WIDTH + 1;
    }
    if (columns - 1 > used)
        fprintf(p->out, "%.*s", columns - 1 - used, text);
    fflush(p->out);
    p->open = 1;
}

void progress_import(struct progress *p, uint64_t done, uint64_t total)
{
    double time = now();
    char text[2][32];

    if (p->last_line == 0)
        p->last_line = time;
    if (time - p->last_line < (!p->live ? 5 : p->open ? 0.1 : 1) || width(p) < 60)
        return;
    p->last_line = time;
    fprintf(p->out, "%simport %3.0f %%  %s of %s%s", p->live ? "\r\033[K" : "",
            100.0 * (double)done / (double)(total ? total : 1), cli_size(text[0], done),
            cli_size(text[1], total), p->live ? "" : "\n");
    p->open = p->live;
    fflush(p->out);
}

/* For a log file: the first and the last step always, between them one in ten, and where those ten
 * take long a line a second, so that a slow run is seen to be alive. */
static int is_due(const struct progress *p, const struct tr_step_report *r, double time)
{
    return p->last_step == 0 || r->step >= r->steps || isfinite(r->eval_loss) || r->skipped ||
           r->step - p->last_step >= 10 || time - p->last_line >= 1;
}

/* The step time is smoothed, or the time left would jump with every hiccup of the disk. */
void progress_step(struct progress *p, const struct tr_step_report *r)
{
    double time = now();
    char text[256];

    p->step_seconds = p->step_seconds > 0 ? 0.9 * p->step_seconds + 0.1 * r->seconds : r->seconds;
    describe(p, r, text);
    if (p->live) {
        rewrite_line(p, r, text);
    } else if (is_due(p, r, time)) {
        fprintf(p->out, "step %lld/%lld %s\n", (long long)r->step, (long long)r->steps, text);
        fflush(p->out);
        p->last_line = time;
        p->last_step = r->step;
    }
}

void progress_say(struct progress *p, const char *line)
{
    if (p->open)
        fputs("\r\033[K", p->out);
    p->open = 0;
    fprintf(p->out, "%s\n", line);
    fflush(p->out);
}

void progress_end(struct progress *p)
{
    if (p->open)
        fputc('\n', p->out);
    p->open = 0;
    fflush(p->out);
}
