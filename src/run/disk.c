/* SPDX-License-Identifier: Apache-2.0
 *
 * The disk that a new run will take, looked at before anything is made: all generations of the
 * store with the file that block inputs spill to, and the exported model at the end. Folders that
 * do not exist yet are measured at the nearest one above them that does.
 */
#include <string.h>
#include <sys/stat.h>

#include "src/base/err.h"
#include "src/base/file.h"
#include "src/checkpoint/export.h"
#include "src/run/open.h"

int run_nearest_folder(const char *path, char *out, size_t room, dev_t *device)
{
    struct stat st;
    char *slash;

    if (snprintf(out, room, "%s", path) >= (int)room)
        return tr_error(-ENAMETOOLONG, "%s: path too long", path);
    while (stat(out, &st) < 0) {
        slash = strrchr(out, '/');
        if (!slash)
            strcpy(out, ".");
        else if (slash == out)
            out[1] = '\0';
        else
            *slash = '\0';
    }
    *device = st.st_dev;
    return 0;
}

static int too_small(const char *folder, uint64_t bytes, uint64_t left, const char *what)
{
    return tr_error(
        -ENOSPC,
        "%s: the disk is too small: %s takes %llu bytes (%.1f MiB), %llu (%.1f MiB) are "
        "free",
        folder, what, (unsigned long long)bytes, (double)bytes / 1048576, (unsigned long long)left,
        (double)left / 1048576);
}

static int check(const char *folder, uint64_t bytes, const char *what)
{
    uint64_t left;
    int r = tr_free_bytes(folder, &left);

    return r < 0 || bytes <= left ? r : too_small(folder, bytes, left, what);
}

/* The places of the store: what is free on all of them together, and whether `device` is one. */
struct places {
    dev_t device[TR_STORE_FOLDERS];
    uint64_t left;
    int shared;
};

static int look_at_places(const char *store, dev_t device, struct places *p)
{
    struct tr_folders f;
    char at[4096];
    int r = tr_folders_parse(&f, store);

    for (uint32_t i = 0; i < f.n && r == 0; i++) {
        uint64_t left = 0;
        uint32_t k = 0;

        if ((r = run_nearest_folder(f.path[i], at, sizeof(at), &p->device[i])) < 0 ||
            (r = tr_free_bytes(at, &left)) < 0)
            break;
        while (p->device[k] != p->device[i])
            k++;
        p->left += k == i ? left : 0;
        p->shared |= p->device[i] == device;
    }
    tr_folders_free(&f);
    return r;
}

/* With what the export wants to be free beside it: a run that begins is not to be refused that at
 * its end. */
static uint64_t exported_bytes(const struct tr_run *run)
{
    const struct tr_model *m = run->model;
    uint64_t bytes = TR_EXPORT_SPARE;

    for (int32_t t = tr_lora_freezes(&m->lora) ? m->n_base : 0; t < m->n_tensors; t++)
        bytes += m->tensors[t].bytes;
    return bytes;
}

int run_check_snapshot(const struct tr_run *run)
{
    return run->spill_bytes ? check(run->params.out, exported_bytes(run), "a snapshot") : 0;
}

int run_check_disk(const struct tr_run *run)
{
    const struct tr_train_params *p = &run->params;
    uint64_t generations = run_generations(run);
    uint64_t weights = p->export_model != TR_NO ? exported_bytes(run) : 0;
    uint64_t store = generations * tr_layout_bytes(&run->model->layout) + run->spill_bytes;
    struct places places = {.left = 0};
    char out_at[4096];
    dev_t out_device = 0;
    int r;

    if ((r = run_nearest_folder(p->out, out_at, sizeof(out_at), &out_device)) < 0 ||
        (r = look_at_places(p->store, out_device, &places)) < 0)
        return r;
    if (places.shared && store + weights > places.left)
        return too_small(p->store, store + weights, places.left,
                         weights ? "the store with the exported model" : "the store");
    if (store > places.left)
        return too_small(p->store, store, places.left, "the store");
    return check(out_at, weights, "the exported model");
}
