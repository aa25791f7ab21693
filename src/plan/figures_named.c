/* SPDX-License-Identifier: Apache-2.0
 *
 * Machines by name, for those who do not own one (yet). Rates of products are what the vendor's
 * data sheet says for dense bf16 with f32 accumulation, times the share of it that trainers with
 * products of this size have been seen to reach. Everything that goes through memory once is
 * counted with four fifths of the sheet's bandwidth. The drive is one of PCIe 4 class unless said
 * otherwise; memory of the host is a choice of the builder and so an option.
 */
#include "src/plan/figures.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "src/base/err.h"

#define MEMORY_SHARE 0.8
#define LAUNCH       5e-6  /* seconds of a kernel that has nothing to do */
#define CHECKSUM     10e9  /* XXH3 on a core of a desktop: 9 to 12 GB/s */
#define HOST_COPY    10e9  /* memcpy by one core */
#define HOST_UPDATE  40e9  /* four fifths of two channels of DDR4-3200, which bound it */
#define HOST_DECODE  25e9  /* state in 8 bits: eight cores, 3 GB/s each */
#define FLUSH        0.005 /* a consumer drive's cache, emptied */
#define HOST_BYTES   (128ull << 30)
#define WORKSPACE    (640ull << 20) /* context, code, cuBLASLt's workspace */
#define DRIVE_READ   7e9
#define DRIVE_WRITE  6e9
#define LEAST_SPEED  1e6 /* what may be said of copies and drives, bytes a second */
#define MOST_SPEED   1e15

struct machine {
    const char *name;
    double tflops, share; /* dense bf16 with f32 accumulation, and what is reached */
    double memory;        /* GB/s of device memory */
    double pcie;          /* GB/s each way, as measured with pinned memory */
    uint64_t bytes;
    int grain_tokens;
};

static const struct machine machines[] = {
    /* GA102 whitepaper: 71 TFLOPS, 936 GB/s, 24 GB; PCIe 4.0 x16 */
    {"rtx-3090", 71, 0.80, 936, 25, 24ull << 30, TR_GRAIN_CUDA},
    /* Ada whitepaper: 165.2 TFLOPS, 1008 GB/s, 24 GB; PCIe 4.0 x16 */
    {"rtx-4090", 165.2, 0.85, 1008, 25, 24ull << 30, TR_GRAIN_CUDA},
    /* Blackwell GeForce whitepaper: 209.5 TFLOPS, 1792 GB/s, 32 GB; PCIe 5.0 x16 */
    {"rtx-5090", 209.5, 0.85, 1792, 52, 32ull << 30, TR_GRAIN_CUDA},
    /* H200 data sheet: 989 TFLOPS, 4800 GB/s, 141 GB; PCIe 5.0 x16 */
    {"h200", 989, 0.65, 4800, 52, 141000000000ull, TR_GRAIN_LARGE},
};
#define N_MACHINES (sizeof(machines) / sizeof(machines[0]))

static int refuse(const char *name)
{
    char list[256] = "";
    size_t used = 0;

    for (size_t i = 0; i < N_MACHINES && used < sizeof(list); i++)
        used += (size_t)snprintf(list + used, sizeof(list) - used, "%s%s", i ? ", " : "",
                                 machines[i].name);
    return tr_error(-ENOENT, "--machine %s: neither a file nor one of: %s", name, list);
}

/* Half-width products run at the tensor cores' rate, full-width ones (no TF32) at a quarter. The
 * unit of a product's work is a multiplication with its addition, of an attention's a pair times
 * the width: two products forward, five backward. */
static void fill_costs(struct tr_figures *f, const struct machine *m)
{
    double flop = 1 / (m->tflops * 1e12 * m->share), byte = 1 / (m->memory * 1e9 * MEMORY_SHARE);

    for (int w = 0; w < TR_WIDTHS; w++) {
        double slow = w == TR_WIDTH_32 ? 4 : 1;

        for (int row = 0; row < TR_COST_ROWS; row++) {
            double work = row <= TR_COST_MATMUL_DW        ? 2 * flop * slow
                          : row == TR_COST_ATTENTION      ? 4 * flop * slow
                          : row == TR_COST_ATTENTION_GRAD ? 10 * flop * slow
                                                          : byte;

            f->cost[row][w][TR_TERM_ONCE] = LAUNCH;
            f->cost[row][w][TR_TERM_WORK] = work;
        }
    }
}

static double or_else(double said, double otherwise)
{
    return said > 0 ? said : otherwise;
}

static int64_t count(const double list[TR_STORE_FOLDERS])
{
    int64_t n = 0;

    while (n < (int64_t)TR_STORE_FOLDERS && list[n] > 0)
        n++;
    return n;
}

/* Zero: not said. Beyond the bounds the time of a step could come out as no number. */
static int check_speed(const char *what, double speed)
{
    if (speed == 0 || (speed >= LEAST_SPEED && speed <= MOST_SPEED))
        return 0;
    return tr_error(-EINVAL, "%s: %g GB/s is no speed (%g to %g)", what, speed * 1e-9,
                    LEAST_SPEED * 1e-9, MOST_SPEED * 1e-9);
}

static int check_speeds(const struct tr_figures_changes *c)
{
    int r = check_speed("--pcie", c->pcie);

    for (uint32_t i = 0; i < TR_STORE_FOLDERS && r == 0; i++)
        if ((r = check_speed("--drive-read", c->drive_read[i])) == 0)
            r = check_speed("--drive-write", c->drive_write[i]);
    return r;
}

static int check_drives(const char *what, int64_t said, int64_t drives)
{
    if (drives > (int64_t)TR_STORE_FOLDERS)
        return tr_error(-EINVAL, "--drives: a store has at most %u folders", TR_STORE_FOLDERS);
    if (said <= 1 || said == drives)
        return 0;
    return tr_error(-EINVAL, "%s: %lld speeds for %lld drives", what, (long long)said,
                    (long long)drives);
}

/* Side by side, none in the way of another. */
static int fill_drives(struct tr_figures *f, const struct tr_figures_changes *c)
{
    int64_t reads = count(c->drive_read), writes = count(c->drive_write), n = c->drives;
    int r;

    if (n <= 0)
        n = reads > writes ? reads : writes > 0 ? writes : 1;
    if ((r = check_drives("--drive-read", reads, n)) < 0 ||
        (r = check_drives("--drive-write", writes, n)) < 0)
        return r;
    f->n_drives = (uint32_t)n;
    for (uint32_t i = 0; i < f->n_drives; i++) {
        struct tr_drive_rates *d = &f->drive[i].rates;

        snprintf(f->drive[i].folder, sizeof(f->drive[i].folder), "drive %u", i + 1);
        d->alone.read = or_else(c->drive_read[reads > 1 ? i : 0], DRIVE_READ);
        d->alone.write = or_else(c->drive_write[writes > 1 ? i : 0], DRIVE_WRITE);
        d->alone.mixed = 2 / (1 / d->alone.read + 1 / d->alone.write); /* by turns */
        d->beside = d->alone;
        d->flush = FLUSH;
    }
    tr_figures_sum(f);
    return 0;
}

int tr_figures_named(const char *name, const struct tr_figures_changes *c, struct tr_figures *out)
{
    const struct machine *m = machines;
    int r = check_speeds(c);

    if (r < 0)
        return r;
    while (m < machines + N_MACHINES && strcasecmp(name, m->name))
        m++;
    if (m == machines + N_MACHINES)
        return refuse(name);
    memset(out, 0, sizeof(*out));
    snprintf(out->name, sizeof(out->name), "%s", m->name);
    snprintf(out->device, sizeof(out->device), "%s", m->name);
    out->cuda = 1;
    out->grain_tokens = m->grain_tokens;
    out->device_bytes = m->bytes;
    out->host_bytes = c->host_bytes ? c->host_bytes : HOST_BYTES;
    out->workspace_bytes = WORKSPACE;
    out->in = out->out = or_else(c->pcie, m->pcie * 1e9);
    out->both = 2 * out->in;
    out->hash = CHECKSUM;
    out->host_copy = HOST_COPY;
    out->update = out->update_bf16 = HOST_UPDATE;
    out->update_8bit = HOST_DECODE;
    fill_costs(out, m);
    return fill_drives(out, c);
}
