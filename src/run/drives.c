/* SPDX-License-Identifier: Apache-2.0
 *
 * Which of the drives that `bench` has measured the folders of a store are on: a folder is on the
 * drive whose folder is on the same file system. So figures say how fast the store is, how its
 * parts are dealt out, and what each drive will have to do.
 */
#include <math.h>
#include <string.h>
#include <sys/stat.h>

#include "offload/stripes.h"
#include "src/base/err.h"
#include "src/base/file.h"
#include "src/plan/predict.h"
#include "src/run/open.h"

#define SPARE_BYTES (2u << 20) /* of a folder, for all that is not its part of the generations */
#define MUCH_ROOM   (1ull << 60)

/* One of the folders, and what is known of the drive below it. */
struct place {
    dev_t device;
    uint64_t free_bytes;
    uint32_t drive; /* of the figures; n_drives: none of them */
};

struct places {
    uint32_t n;
    struct place place[TR_STORE_FOLDERS];
};

static uint32_t find_drive(const struct tr_figures *f, dev_t device)
{
    struct stat st;
    uint32_t k = 0;

    while (k < f->n_drives && (stat(f->drive[k].folder, &st) < 0 || st.st_dev != device))
        k++;
    return k;
}

static int look_at(const char *path, struct place *a)
{
    char at[4096];
    int r = run_nearest_folder(path, at, sizeof(at), &a->device);

    return r < 0 ? r : tr_free_bytes(at, &a->free_bytes);
}

static int look(const char *store, const struct tr_figures *f, struct places *p)
{
    struct tr_folders folders;
    int r = tr_folders_parse(&folders, store);

    p->n = folders.n;
    for (uint32_t i = 0; i < folders.n && r == 0; i++) {
        r = look_at(folders.path[i], &p->place[i]);
        p->place[i].drive = find_drive(f, p->place[i].device);
    }
    tr_folders_free(&folders);
    return r;
}

static uint32_t count_sharing(const struct places *p, uint32_t i)
{
    uint32_t n = 0;

    for (uint32_t k = 0; k < p->n; k++)
        n += p->place[k].device == p->place[i].device;
    return n;
}

/* Others were at work when it was measured beside them that this store does not use. */
static void ease(struct tr_drive_rates *r, uint32_t others, uint32_t measured)
{
    double share = measured ? (double)others / measured : 0;

    r->beside.read = r->alone.read + (r->beside.read - r->alone.read) * share;
    r->beside.write = r->alone.write + (r->beside.write - r->alone.write) * share;
    r->beside.mixed = r->alone.mixed + (r->beside.mixed - r->alone.mixed) * share;
}

/* Of all drives those that the folders are on, in their order. */
static void select_drives(struct tr_figures *f, const struct places *p)
{
    struct tr_figures_drive all[TR_STORE_FOLDERS];
    uint32_t at[TR_STORE_FOLDERS], n = f->n_drives, used = 0;

    memcpy(all, f->drive, sizeof(all));
    for (uint32_t k = 0; k < n; k++)
        at[k] = n;
    for (uint32_t i = 0; i < p->n; i++) {
        uint32_t k = p->place[i].drive;

        if (at[k] == n) {
            f->drive[used] = all[k];
            at[k] = used++;
        }
        f->drive_of[i] = (unsigned char)at[k];
    }
    for (uint32_t k = 0; k < used; k++)
        ease(&f->drive[k].rates, used - 1, n - 1);
    f->n_drives = used;
    f->n_folders = p->n;
    tr_figures_sum(f);
}

/* As one drive: all folders are on one that nobody has measured, or on several. */
static void take_first(struct tr_figures *f)
{
    f->n_folders = 0;
    if (!f->n_drives)
        return;
    f->n_drives = 1;
    ease(&f->drive[0].rates, 0, 1);
    tr_figures_sum(f);
}

int run_find_drives(const struct tr_run *run, struct tr_figures *f)
{
    struct places p = {.n = 0};
    int known = 1, one = 1, r = run->params.store ? look(run->params.store, f, &p) : 0;

    if (r < 0)
        return r;
    for (uint32_t i = 0; i < p.n; i++) {
        known &= p.place[i].drive < f->n_drives;
        one &= p.place[i].device == p.place[0].device;
    }
    if (known && p.n)
        select_drives(f, &p);
    else
        take_first(f);
    f->strangers = !known && !one;
    return 0;
}

void run_all_drives(struct tr_figures *f)
{
    f->n_folders = f->n_drives;
    for (uint32_t k = 0; k < f->n_drives; k++)
        f->drive_of[k] = (unsigned char)k;
}

/* What a durable step moves of a store of which nothing stays in memory: parameters come twice,
 * what trains goes back, and what is with it comes and goes. A drive that writes slowly has its
 * part. */
static double step_speed(const struct tr_model *m, const struct tr_drive_rates *rates)
{
    double params = 0, both = 0, trained = (double)m->n_trained / (double)m->n_params;

    for (uint32_t i = 0; i < m->layout.n_spans; i++)
        *(m->layout.spans[i].pool < TR_SLOTS_BLOCK_STATE ? &params : &both) +=
            (double)m->layout.spans[i].bytes;
    return tr_drive_speed(rates, 2 * params + both, fmin(trained, 1) * params + both);
}

int run_drive_speeds(const struct tr_run *run, double speed[TR_STORE_FOLDERS])
{
    struct tr_figures *f = tr_alloc(TR_MEM_MISC, sizeof(*f));
    int known = f && run_figures(run, f) == 0 && f->n_folders > 1;

    for (uint32_t i = 0; known && i < f->n_folders; i++)
        speed[i] = step_speed(run->model, &f->drive[f->drive_of[i]].rates);
    tr_free(TR_MEM_MISC, f);
    return known;
}

static int fill_rooms(const struct tr_run *run, const struct tr_figures *f, struct tr_drive *drives)
{
    uint64_t generations = run_generations(run);
    struct places p = {.n = 0};
    int r = look(run->params.store, f, &p);

    for (uint32_t i = 0; i < p.n && r == 0; i++) {
        uint64_t part = p.place[i].free_bytes / count_sharing(&p, i);

        drives[i].room = part > SPARE_BYTES ? (part - SPARE_BYTES) / generations : 0;
    }
    return r;
}

/* Without room for the store there will be none; then it is dealt out as if there were. */
int run_deal_out(const struct tr_run *run, const struct tr_figures *f, struct tr_stripes *out)
{
    struct tr_drive drives[TR_STORE_FOLDERS] = {{0}};
    uint32_t sharing[TR_STORE_FOLDERS] = {0};
    int here = run->params.store && f->n_folders && !f->elsewhere, r;

    for (uint32_t i = 0; i < f->n_folders; i++)
        sharing[f->drive_of[i]]++;
    for (uint32_t i = 0; i < f->n_folders; i++) {
        drives[i].speed =
            step_speed(run->model, &f->drive[f->drive_of[i]].rates) / sharing[f->drive_of[i]];
        drives[i].room = MUCH_ROOM;
    }
    r = here ? fill_rooms(run, f, drives) : 0;
    if (r == 0)
        r = tr_stripes_make(out, &run->model->layout, drives, f->n_folders);
    for (uint32_t i = 0; i < f->n_folders && r == -ENOSPC; i++)
        drives[i].room = MUCH_ROOM;
    if (r == -ENOSPC) {
        tr_stripes_free(out);
        r = tr_stripes_make(out, &run->model->layout, drives, f->n_folders);
    }
    return r;
}

/* What is free in each folder of the store. */
static int fill_scratch_rooms(const struct tr_run *run, struct tr_drive *drives)
{
    struct places p = {.n = tr_store_folders(run->store)};
    uint64_t bytes;
    int r = 0;

    for (uint32_t i = 0; i < p.n && r == 0; i++)
        r = look_at(tr_store_folder_at(run->store, i, &bytes), &p.place[i]);
    for (uint32_t i = 0; i < p.n && r == 0; i++)
        drives[i].room = p.place[i].free_bytes / count_sharing(&p, i);
    return r;
}

int run_deal_out_spills(const struct tr_run *run, const struct tr_stripes *store,
                        struct tr_stripes *out)
{
    struct tr_drive drives[TR_STORE_FOLDERS] = {{0}};
    uint32_t n = tr_plan_scratch(&run->plan);
    int r = 0;

    if (!run->spill_bytes || store->n == 0 || out->n)
        return 0;
    for (uint32_t i = 0; i < store->n_folders; i++)
        drives[i] = (struct tr_drive){(double)store->folder_bytes[i], MUCH_ROOM};
    if (run->store)
        r = fill_scratch_rooms(run, drives);
    if (r == 0)
        r = tr_stripes_make_scratch(out, run->scratch, n, drives, store->n_folders);
    if (r != -ENOSPC)
        return r;
    tr_stripes_free(out);
    return tr_error(r,
                    "the folders of the store have no room for %llu bytes of activations that do "
                    "not fit in memory",
                    (unsigned long long)run->spill_bytes);
}
