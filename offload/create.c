/* SPDX-License-Identifier: Apache-2.0
 *
 * Making a store: all space is taken before anything else is done, store.json comes last (a folder
 * that has it is complete), and whatever fails leaves nothing behind.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "offload/store_private.h"
#include "src/base/err.h"
#include "src/base/file.h"
#include "src/base/mem.h"

#define SPARE_BYTES (1u << 20) /* for store.json, the folder, and the file system's own needs */
#define ZEROS       (128u << 10)

static int make_uuid(char text[TR_UUID_CHARS + 1])
{
    unsigned char b[16];

    if (getrandom(b, sizeof(b), 0) != sizeof(b))
        return tr_error(-EIO, "no random bytes for the store's UUID");
    b[6] = (unsigned char)(0x40 | (b[6] & 0x0f));
    b[8] = (unsigned char)(0x80 | (b[8] & 0x3f));
    for (int i = 0, at = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            text[at++] = '-';
        at += snprintf(text + at, 3, "%02x", b[i]);
    }
    return 0;
}

static uint64_t bytes_needed(const struct tr_store *s)
{
    uint64_t n = SPARE_BYTES + 2 * (uint64_t)s->record_bytes;

    return n + s->shape.generations * tr_layout_bytes(&s->layout);
}

/* The folder may not exist yet: then its parent is asked. */
static int check_space(const struct tr_store *s)
{
    char parent[4096];
    const char *where = s->folder, *slash = strrchr(s->folder, '/');
    uint64_t room, need = bytes_needed(s);
    int r;

    if (access(s->folder, F_OK) < 0) {
        if (!slash || slash == s->folder)
            where = slash ? "/" : ".";
        else if (snprintf(parent, sizeof(parent), "%.*s", (int)(slash - s->folder), s->folder) > 0)
            where = parent;
    }
    r = tr_free_bytes(where, &room);
    if (r < 0)
        return r;
    if (room < need)
        return tr_error(-ENOSPC, "%s: the store needs %llu bytes, %llu are free on that disk",
                        s->folder, (unsigned long long)need, (unsigned long long)room);
    return 0;
}

uint64_t tr_store_create_bytes(uint32_t n_folders)
{
    return n_folders > 1 ? TR_GAUGE_BYTES : ZEROS;
}

/* For file systems that cannot reserve: written out, the space is ours as well. */
static int write_zeros(const struct tr_io_file *f, uint64_t bytes)
{
    char *zeros = tr_alloc_pages(TR_MEM_IO, ZEROS);
    int r = zeros ? 0 : -ENOMEM;

    for (uint64_t at = 0; at < bytes && r == 0; at += ZEROS)
        r = tr_pwrite(f->fd, f->path, zeros, bytes - at < ZEROS ? bytes - at : ZEROS, at);
    tr_free_pages(TR_MEM_IO, zeros, ZEROS);
    return r;
}

/* What has no room is not tried: the drive would be full for others until that is found out. By
 * the descriptor, since scratch has no name. */
static int allocate_bytes(const struct tr_io_file *f, uint64_t bytes)
{
    struct stat has;
    uint64_t room;
    int r;

    if (fstat(f->fd, &has) == 0 && tr_free_bytes_of(f->fd, f->path, &room) == 0 &&
        bytes > room + (uint64_t)has.st_blocks * 512)
        return -ENOSPC;
    do /* a small model may leave a folder empty */
        r = bytes && fallocate(f->fd, 0, 0, (off_t)bytes) < 0 ? -errno : 0;
    while (r == -EINTR);
    return r;
}

int tr_store_reserve(const struct tr_io_file *f, uint64_t bytes)
{
    int r = allocate_bytes(f, bytes);

    if (r == -EOPNOTSUPP || r == -ENOSYS)
        r = write_zeros(f, bytes);
    else if (r < 0)
        r = tr_error(r, "%s: cannot allocate %llu bytes: %s", f->path, (unsigned long long)bytes,
                     strerror(-r));
    return r;
}

static int allocate(struct tr_store *s, uint32_t file)
{
    const struct tr_io_file *f = &s->file[file];
    int r = tr_store_reserve(f, tr_store_file_bytes(s, file));

    if (r == 0 && fsync(f->fd) < 0)
        r = tr_error(-errno, "%s: cannot sync: %s", f->path, strerror(errno));
    return r;
}

/* The names of the files in the other folders; those in the first are synced with store.json. */
static int sync_parts(const struct tr_store *s)
{
    int r = 0;

    for (uint32_t i = 1; i < s->folders.n && r == 0; i++)
        r = tr_sync_folder(s->folders.path[i]);
    return r;
}

static int make_files(struct tr_store *s)
{
    int r = 0;

    for (uint32_t i = 0; i < tr_file_count(s->folders.n) && r == 0; i++) {
        if (!tr_store_has_file(s, i))
            continue;
        r = tr_store_open_file(s, i, O_RDWR | O_CREAT | O_EXCL);
        if (r == 0)
            r = allocate(s, i);
    }
    if (r == 0)
        r = sync_parts(s);
    return r < 0 ? r : tr_store_write_json(s);
}

static int too_small(const struct tr_store *s, const struct tr_drive *drives)
{
    uint64_t need = bytes_needed(s), room = 0;

    for (uint32_t i = 0; i < s->folders.n; i++)
        room += drives[i].room * s->shape.generations;
    return tr_error(-ENOSPC,
                    "%s and %u more folders: the store needs %llu bytes and up to %u beside them "
                    "in each, %llu are free in all",
                    s->folder, s->folders.n - 1, (unsigned long long)need, TR_PIECE_BYTES,
                    (unsigned long long)room);
}

/* Which folder holds what: settled by a measurement, once. */
static int deal_out(struct tr_store *s)
{
    struct tr_drive drives[TR_STORE_FOLDERS] = {0};
    int r = tr_gauge_folders(s, drives);

    if (r == 0)
        r = tr_stripes_make(&s->stripes, &s->layout, drives, s->folders.n);
    return r == -ENOSPC && s->stripes.stripe ? too_small(s, drives) : r;
}

static int make_parts(struct tr_store *s)
{
    int r;

    if (s->folders.n == 1)
        return 0;
    r = tr_parts_write(s);
    return r < 0 ? r : deal_out(s);
}

static int sync_parents(const struct tr_store *s)
{
    int r = 0;

    for (uint32_t i = 0; i < s->folders.n && r == 0; i++) {
        char *parent = tr_path(s->folders.path[i], "..");

        r = parent ? tr_sync_folder(parent) : -ENOMEM;
        tr_free(TR_MEM_MISC, parent);
    }
    return r;
}

/* Absent or empty, all of them? */
static int look_at_folders(const struct tr_store *s)
{
    for (uint32_t i = 0; i < s->folders.n; i++)
        if (!tr_folder_is_empty(s->folders.path[i]))
            return tr_error(-EEXIST, "%s: exists and is not an empty folder", s->folders.path[i]);
    return 0;
}

/* Locked, they are looked at again: another store may have come in between. */
static int take_folders(struct tr_store *s)
{
    int r = 0;

    for (uint32_t i = 0; i < s->folders.n && r == 0; i++) {
        s->made[i] = tr_folder_is_empty(s->folders.path[i]) == -ENOENT;
        r = tr_make_folder(s->folders.path[i]);
    }
    if (r == 0)
        r = tr_store_lock(s, 1);
    if (r == 0)
        r = tr_parts_lock(s, 1);
    return r < 0 ? r : look_at_folders(s);
}

/* The last first: one may lie within one before it. */
static void remove_folders(const struct tr_store *s)
{
    for (uint32_t i = s->folders.n; i-- > 0;)
        if (s->made[i])
            rmdir(s->folders.path[i]);
}

static int prepare(struct tr_store *s, const struct tr_layout *layout, int generations)
{
    int r;

    if (generations != 1 && generations != 2)
        return tr_error(-EINVAL, "%s: a store has one or two generations", s->folder);
    r = tr_layout_check(layout, s->folder);
    if (r < 0)
        return r;
    r = tr_layout_copy(&s->layout, layout);
    if (r < 0)
        return r;
    s->shape.generations = (uint32_t)generations;
    r = make_uuid(s->shape.uuid);
    return r < 0 ? r : tr_store_alloc_state(s);
}

/* The folders are locked and were empty: what has the name of a store's file is ours. */
static int fill_folders(struct tr_store *s)
{
    int r = make_parts(s);

    if (r == 0)
        r = make_files(s);
    if (r == 0)
        r = sync_parents(s);
    if (r < 0)
        tr_store_remove_files(s);
    return r;
}

int tr_store_create_hooked(struct tr_store **out, const char *folders,
                           const struct tr_layout *layout, int generations,
                           const struct tr_io_hook *hook)
{
    struct tr_store *s;
    int r = tr_store_alloc(&s, folders, TR_STORE_WRITE, hook);

    if (r < 0)
        return r;
    r = look_at_folders(s);
    if (r == 0)
        r = prepare(s, layout, generations);
    if (r == 0 && s->folders.n == 1)
        r = check_space(s);
    if (r < 0)
        goto fail_store;
    r = take_folders(s);
    if (r == 0)
        r = fill_folders(s);
    if (r < 0)
        goto fail_folders;
    *out = s;
    return 0;

fail_folders:
    remove_folders(s);
fail_store:
    tr_store_close(s);
    return r;
}

void tr_store_undo(struct tr_store *s)
{
    tr_store_remove_files(s);
    remove_folders(s);
    tr_store_close(s);
}

int tr_store_create_dealt(struct tr_store **out, const char *folders,
                          const struct tr_layout *layout, int generations, const double *speed)
{
    return tr_store_create_hooked(out, folders, layout, generations,
                                  &(struct tr_io_hook){.speed = speed});
}

int tr_store_create(struct tr_store **out, const char *folders, const struct tr_layout *layout,
                    int generations)
{
    return tr_store_create_dealt(out, folders, layout, generations, NULL);
}
