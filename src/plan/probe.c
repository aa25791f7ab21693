/* SPDX-License-Identifier: Apache-2.0
 *
 * `bench`: opens the device, measures, keeps the figures, and says what it has found.
 */
#include "src/plan/probe.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/base/err.h"
#include "src/base/file.h"
#include "src/base/mem.h"
#include "src/base/sysmem.h"
#include "src/base/thread.h"

#define ARENA_BYTES (1100ull << 20)
#define QUICK_BYTES (160ull << 20)

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

double probe_median(double *values, int n)
{
    qsort(values, (size_t)n, sizeof(*values), by_value);
    return (values[(n - 1) / 2] + values[n / 2]) / 2;
}

void probe_log(const struct probe *p, const char *fmt, ...)
{
    char line[256];
    va_list ap;

    if (!p->params->log)
        return;
    va_start(ap, fmt);
    vsnprintf(line, sizeof(line), fmt, ap);
    va_end(ap);
    p->params->log(p->params->log_arg, line);
}

static int run_rounds(struct probe *p, probe_fn *fn, void *arg, int rounds, double *seconds)
{
    double start = tr_now();
    int r = 0;

    for (int i = 0; i < rounds && r == 0; i++)
        r = fn(p, arg);
    for (int s = 0; s < TR_STREAMS && r == 0; s++)
        r = p->device->ops->sync(p->device, (enum tr_stream)s);
    *seconds = (tr_now() - start) / rounds;
    return r;
}

int probe_time(struct probe *p, probe_fn *fn, void *arg, double *seconds)
{
    double times[5], length = p->params->quick ? 0.0005 : 0.02;
    int n = p->params->quick ? 1 : 5, rounds, r;

    if ((r = run_rounds(p, fn, arg, 1, &times[0])) < 0) /* warms up */
        return r;
    if (p->params->quick && times[0] > 100 * length) { /* far more than warming up takes */
        *seconds = times[0];
        return 0;
    }
    if ((r = run_rounds(p, fn, arg, 1, &times[0])) < 0)
        return r;
    rounds = times[0] < length ? (int)fmin(length / fmax(times[0], 1e-7), 20000) + 1 : 1;
    for (int i = 0; i < n && r == 0; i++)
        r = run_rounds(p, fn, arg, rounds, &times[i]);
    *seconds = fmax(probe_median(times, n), 1e-9);
    return r;
}

/* ---- the device ---- */

/* Numbers between -1 and 1, whichever dtype they are read as: a GPU is faster on zeros. */
static int fill_arena(struct probe *p)
{
    uint64_t bytes = p->info.arena_bytes, piece = 4u << 20;
    uint16_t *values = p->device->ops->host_alloc(p->device, piece);
    uint32_t random = 1;
    int r = values ? 0 : -ENOMEM;

    for (size_t i = 0; r == 0 && i < piece / 2; i++) {
        random = random * 1664525u + 1013904223u;
        values[i] = tr_f32_bf16((float)(int32_t)random / 2147483648.0f);
    }
    for (uint64_t at = 0; r == 0 && at < bytes; at += piece)
        r = p->device->ops->copy_in(p->device, TR_STREAM_COMPUTE, p->arena + at, values,
                                    bytes - at < piece ? bytes - at : piece);
    if (r == 0)
        r = p->device->ops->sync(p->device, TR_STREAM_COMPUTE);
    if (values)
        p->device->ops->host_free(p->device, values, piece);
    return r;
}

static int open_device(struct probe *p)
{
    const char *name = p->params->device ? p->params->device : tr_devices_default();
    struct tr_device_params params = {.threads = (int)p->params->threads};
    uint64_t own = 0;
    int r = tr_devices_parse(name, &p->choice);

    if (r == 0 && p->choice.cuda)
        r = tr_device_cuda_workspace(p->choice.ordinal, &own);
    else if (r == 0)
        own = tr_device_cpu_workspace(&params);
    params.memory_bytes = own + (p->params->quick ? QUICK_BYTES : ARENA_BYTES);
    if (r < 0 || (r = tr_devices_open(&p->device, &p->choice, &params)) < 0)
        return r;
    p->device->ops->info(p->device, &p->info);
    p->arena = p->device->ops->arena(p->device);
    probe_log(p, "device: %s", p->info.name);
    return fill_arena(p);
}

static int describe(struct probe *p)
{
    struct tr_figures *f = &p->figures;
    int r = tr_free_memory(&f->host_bytes);

    if (r == 0)
        r = tr_devices_free_memory(&p->choice, &f->device_bytes);
    if (gethostname(f->name, sizeof(f->name) - 1) < 0 || !f->name[0])
        strcpy(f->name, "this machine");
    snprintf(f->device, sizeof(f->device), "%s", p->info.bits);
    f->cuda = p->choice.cuda;
    f->grain_tokens = p->info.grain_tokens;
    f->threads = p->choice.cuda           ? 0
                 : p->params->threads > 0 ? (int)p->params->threads
                                          : tr_thread_cores();
    f->workspace_bytes = p->info.workspace_bytes;
    return r;
}

/* ---- what is said ---- */

static void print_ways(FILE *f, const struct tr_drive_ways *w)
{
    fprintf(f, " %8.3f %8.3f %8.3f\n", w->read * 1e-9, w->write * 1e-9, w->mixed * 1e-9);
}

static void print_drives(FILE *f, const struct probe *p)
{
    const struct tr_figures *m = &p->figures;

    for (uint32_t k = 0; k < m->n_drives; k++) {
        if (m->n_drives > 1)
            fprintf(f, "%s\n", m->drive[k].folder);
        fprintf(f, "%-38s %8s %8s %8s\n", "drive, GB/s", "read", "write", "mixed");
        for (int i = 0; i < PROBE_DEPTHS; i++) {
            fprintf(f, "  %2u requests of 1 MiB under way        ", p->depth[k][i].depth);
            print_ways(f, &p->depth[k][i].ways);
        }
        if (m->n_drives > 1) {
            fprintf(f, "  while the others are at work          ");
            print_ways(f, &m->drive[k].rates.beside);
        }
    }
    fprintf(f, "  %s\n", p->drive);
}

static void print_rates(FILE *f, const struct probe *p)
{
    const struct tr_figures *m = &p->figures;

    print_drives(f, p);
    fprintf(f, "sync of data just written              %8.2f ms\n", m->flush * 1e3);
    fprintf(f, "checksums, one core                    %8.2f GB/s\n", m->hash * 1e-9);
    fprintf(f, "memcpy, one core                       %8.2f GB/s\n", m->host_copy * 1e-9);
    fprintf(f, "updates on the cpu, all cores          %8.2f GB/s\n", m->update * 1e-9);
    fprintf(f, "the same with state in bf16, in 8 bits %8.2f %8.2f GB/s\n", m->update_bf16 * 1e-9,
            m->update_8bit * 1e-9);
    fprintf(f, "copies to the device, from it, both    %8.2f %8.2f %8.2f GB/s\n", m->in * 1e-9,
            m->out * 1e-9, m->both * 1e-9);
    if (m->cuda)
        return;
    fprintf(f, "compute lost to the I/O                %8.3f s a GB\n", m->drag * 1e9);
    fprintf(f, "in a run: compute takes, drive gives   %8.3f %8.3f of that\n", p->compute_factor,
            p->drive_factor);
}

static void print_costs(FILE *f, const struct probe *p)
{
    fprintf(f, "%-24s %14s %12s %14s %14s %8s\n", "op, bits", "work", "once, us", "ns a weight",
            "ns a value", "fit, %");
    for (int row = 0; row < TR_COST_ROWS; row++)
        for (int w = 0; w < TR_WIDTHS; w++) {
            const double *c = p->figures.cost[row][w];
            int products = row <= TR_COST_ATTENTION_GRAD;
            double flops = row <= TR_COST_MATMUL_DW ? 2 : row == TR_COST_ATTENTION ? 4 : 10;
            double rate = (products ? flops : 1) * 1e-9 / c[TR_TERM_WORK];

            if (p->residual[row][w] < 0)
                continue;
            fprintf(f, "%-20s %s %8.1f %s %12.2f %14.4f %14.4f %8.1f\n",
                    tr_cost_row_name((enum tr_cost_row)row), w == TR_WIDTH_32 ? " 32" : " 16",
                    c[TR_TERM_WORK] > 0 ? rate : 0, products ? "GF/s" : "GB/s",
                    c[TR_TERM_ONCE] * 1e6, c[TR_TERM_WEIGHTS] * 1e9, c[TR_TERM_ROWS] * 1e9,
                    p->residual[row][w] * 100);
        }
}

static int print(const struct probe *p, const char *path, char **out)
{
    size_t bytes;
    FILE *f = open_memstream(out, &bytes);

    if (!f)
        return tr_error(-ENOMEM, "out of memory");
    fprintf(f, "%s: %s\n", p->figures.name, p->info.name);
    print_rates(f, p);
    print_costs(f, p);
    fprintf(f, "kept in   %s\n", path);
    if (fclose(f) == 0)
        return 0;
    free(*out);
    *out = NULL;
    return tr_error(-ENOMEM, "out of memory");
}

static int print_file(const char *path, char **out)
{
    char *text;
    size_t bytes;
    int r = tr_file_read(path, 1 << 16, &text, &bytes);

    if (r < 0)
        return r;
    *out = strdup(text);
    tr_free(TR_MEM_TEXT, text);
    return *out ? 0 : tr_error(-ENOMEM, "out of memory");
}

static int measure(struct probe *p)
{
    int r = open_device(p);

    if (r < 0 || (r = describe(p)) < 0 || (r = probe_copies(p)) < 0)
        return r;
    if ((r = probe_memory(p)) < 0 || (r = probe_update(p)) < 0 || (r = probe_drive(p)) < 0)
        return r;
    r = probe_ops(p);
    p->device->ops->close(p->device);
    p->device = NULL;
    if (r == 0)
        probe_rehearse(p);
    return r;
}

/* Before a minute is spent on it. Figures take the place of figures, and of nothing else. */
static int check_out(const char *path)
{
    struct tr_figures *there;
    int r;

    if (!path || access(path, F_OK) < 0)
        return path && *path ? tr_check_place(path) : tr_need_text(path, "out");
    there = tr_alloc(TR_MEM_MISC, sizeof(*there));
    r = there ? tr_figures_read(path, there) : -ENOMEM;
    tr_free(TR_MEM_MISC, there);
    return r == 0 || r == -ENOMEM
               ? r
               : tr_error(-EEXIST, "%s: exists and holds no figures; nothing is overwritten", path);
}

int tr_bench_machine(const struct tr_bench_params *params, char **out)
{
    struct probe *p = tr_alloc(TR_MEM_MISC, sizeof(*p));
    char *path = params->out ? tr_strdup(TR_MEM_MISC, params->out) : tr_figures_path(1);
    int r = p && path ? 0 : -ENOMEM;

    *out = NULL;
    if (p)
        p->params = params;
    if (r == 0 && (r = tr_need_threads(params->threads)) == 0 && (r = probe_find_drives(p)) == 0 &&
        (r = check_out(params->out)) == 0)
        r = measure(p);
    if (r == 0 && (r = tr_figures_write(path, &p->figures)) == 0)
        r = params->json ? print_file(path, out) : print(p, path, out);
    if (p && p->device)
        p->device->ops->close(p->device);
    tr_free(TR_MEM_MISC, path);
    tr_free(TR_MEM_MISC, p);
    return r;
}
