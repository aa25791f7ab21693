/* SPDX-License-Identifier: Apache-2.0
 *
 * What a machine can do, as numbers: the drive, memory, copies, and what each op costs. They come
 * from `tailrace bench` (src/plan/probe.c), from a table of machines by name
 * (src/plan/figures_named.c), or from a file (src/plan/figures_json.c); predictions
 * (src/plan/predict.h) are made of nothing else.
 *
 * The cost of an op is linear in four quantities that follow from its own fields: how often
 * something is dispatched, the work (multiplications of a product, pairs of an attention, bytes of
 * everything else), the elements of the weight matrix that are gone through, and those of the
 * activations. The same function tells them to the probe, which fits the factors, and to the
 * prediction, which multiplies by them.
 */
#ifndef TR_SRC_PLAN_FIGURES_H
#define TR_SRC_PLAN_FIGURES_H

#include "src/base/device.h"
#include "src/base/folders.h"
#include "src/plan/drives.h"

enum tr_term { TR_TERM_ONCE, TR_TERM_WORK, TR_TERM_WEIGHTS, TR_TERM_ROWS, TR_TERMS };

struct tr_quantities {
    double of[TR_TERMS];
};

/* What ops are told apart by: kinds that cost the same have one row. */
enum tr_cost_row {
    TR_COST_MATMUL,
    TR_COST_MATMUL_DX,
    TR_COST_MATMUL_DW,
    TR_COST_ATTENTION,
    TR_COST_ATTENTION_GRAD,
    TR_COST_EMBED,
    TR_COST_EMBED_GRAD,
    TR_COST_NORM,
    TR_COST_NORM_GRAD,
    TR_COST_ROPE,
    TR_COST_SWIGLU,
    TR_COST_SWIGLU_GRAD,
    TR_COST_ADD,
    TR_COST_XENT,
    TR_COST_XENT_GRAD,
    TR_COST_SUMSQ,
    TR_COST_SGD,
    TR_COST_ADAMW,
    TR_COST_MOMENTUM,
    TR_COST_ADAM_MINI,
    TR_COST_ADALOMO_SUM,
    TR_COST_ADALOMO,
    TR_COST_ADAMW_BF16, /* state in fewer bits: in the order of that in f32 */
    TR_COST_MOMENTUM_BF16,
    TR_COST_ADAM_MINI_BF16,
    TR_COST_ADAMW_8BIT,
    TR_COST_MOMENTUM_8BIT,
    TR_COST_ADAM_MINI_8BIT,
    TR_COST_ROWS
};

/* Storage of what an op works on: full or half width. */
enum tr_width { TR_WIDTH_32, TR_WIDTH_16, TR_WIDTHS };

#define TR_FIGURES_FOLDER 512 /* characters of its path, the end included */
struct tr_figures_drive {
    char folder[TR_FIGURES_FOLDER]; /* that it was measured in; of a named machine: "drive 1" */
    struct tr_drive_rates rates;
};

struct tr_figures {
    char name[64];    /* of the table, or of the host that was probed */
    char device[96];  /* as the device describes what its bits depend on; named: its name */
    int cuda;         /* the kind of device: its dtypes and ways */
    int grain_tokens; /* of the device: TR_GRAIN_... */
    int threads;      /* of the cpu device; else 0 */
    uint64_t device_bytes, host_bytes; /* what there is */
    uint64_t workspace_bytes;          /* what the device takes for itself */

    double read, write, mixed; /* bytes/s of all drives; mixed: both directions together */
    double flush;              /* seconds of a sync of data just written, by the slowest of them */
    uint32_t n_drives;         /* 0: from a file that knows only the above */
    struct tr_figures_drive drive[TR_STORE_FOLDERS];
    /* Of the store at hand, in no file (src/run/drives.c): the drives of its folders; 0: all is on
     * one. elsewhere: on a machine that is not this one. */
    int elsewhere;
    int strangers; /* its folders are on several drives, not all of them measured: taken for one */
    uint32_t n_folders;
    unsigned char drive_of[TR_STORE_FOLDERS];
    double hash;      /* bytes/s of checksums, one core */
    double host_copy; /* bytes/s of memcpy, one core */
    double update;    /* bytes/s of an update by all cores: what it reads and writes */
    double update_bf16, update_8bit; /* the same with state that has to be decoded */
    double in, out, both;            /* bytes/s of copies to and from the device; both: their sum */
    double drag; /* seconds that the cpu device's compute loses per byte that the I/O moves */

    double cost[TR_COST_ROWS][TR_WIDTHS][TR_TERMS]; /* seconds per unit of each quantity */
};

/* Row, width and quantities of an op. */
struct tr_op_cost {
    enum tr_cost_row row;
    enum tr_width width;
    struct tr_quantities q;
};
struct tr_op_cost tr_op_cost_of(const struct tr_op *op);
/* The row with state in f32 of one with fewer bits, which files had none of at first; else the row
 * itself. */
enum tr_cost_row tr_cost_row_plain(enum tr_cost_row row);
double tr_figures_seconds(const struct tr_figures *f, const struct tr_op *op);

/* read, write, mixed and flush of the drives together. */
void tr_figures_sum(struct tr_figures *f);
void tr_figures_scale_drives(struct tr_figures *f, double factor);
/* By which a drive earns its share of a store: bytes a second, of so many read and written. */
double tr_drive_speed(const struct tr_drive_rates *r, double reads, double writes);

/* Least squares of relative errors, no factor negative: the factors of n samples. */
struct tr_sample {
    struct tr_quantities q;
    double seconds;
};
void tr_figures_fit(const struct tr_sample *s, int n, double factor[TR_TERMS]);

/* ---- by name (figures_named.c) ---- */

/* What of a named machine may be said otherwise; 0: as the table has it. Bytes and bytes/s. A speed
 * of the drives is one for all of them, or a list that ends with 0. */
struct tr_figures_changes {
    double pcie, drive_read[TR_STORE_FOLDERS], drive_write[TR_STORE_FOLDERS];
    int64_t drives;
    uint64_t host_bytes;
};
/* -ENOENT: no such name; the message lists those there are. -EINVAL: as many speeds as drives are
 * to be said, or one, and there are at most TR_STORE_FOLDERS. */
int tr_figures_named(const char *name, const struct tr_figures_changes *c, struct tr_figures *out);

/* ---- as a file (figures_json.c) ---- */

int tr_figures_write(const char *path, const struct tr_figures *f);
/* Strict: every figure once, finite and in a range that a machine can have. */
int tr_figures_read(const char *path, struct tr_figures *out);
/* Text of such a file; `where` names it in messages. */
int tr_figures_parse(const char *text, size_t bytes, const char *where, struct tr_figures *out);
/* $XDG_CACHE_HOME/tailrace/machine.json or ~/.cache/...; a TR_MEM_MISC string. `make`: the folders
 * too. NULL with a message. */
char *tr_figures_path(int make);
/* The row's name in files and tables. */
const char *tr_cost_row_name(enum tr_cost_row row);

#endif
