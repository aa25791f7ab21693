/* SPDX-License-Identifier: Apache-2.0
 *
 * Making a store: all space is taken before anything else is done, store.json comes last (a folder
 * that has it is complete), and whatever fails leaves nothing behind.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "offload/store_private.h"
#include "src/base/err.h"
#include "src/base/file.h"
#include "src/base/json.h"
#include "src/base/mem.h"

#define FORMAT      "tailrace store"
#define VERSION     1
#define SPARE_BYTES (1u << 20) /* for store.json, the folder, and the file system's own needs */

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

/* For file systems that cannot reserve: written out, the space is ours as well. */
static int write_zeros(const struct tr_io_file *f, uint64_t bytes)
{
    char *zeros = tr_alloc_pages(TR_MEM_IO, TR_IO_CHUNK);
    int r = zeros ? 0 : -ENOMEM;

    for (uint64_t at = 0; at < bytes && r == 0; at += TR_IO_CHUNK)
        r = tr_pwrite(f->fd, f->path, zeros, bytes - at < TR_IO_CHUNK ? bytes - at : TR_IO_CHUNK,
                      at);
    tr_free_pages(TR_MEM_IO, zeros, TR_IO_CHUNK);
    return r;
}

int tr_store_reserve(const struct tr_io_file *f, uint64_t bytes)
{
    int r;

    do
        r = fallocate(f->fd, 0, 0, (off_t)bytes) < 0 ? -errno : 0;
    while (r == -EINTR);
    if (r == -EOPNOTSUPP || r == -ENOSYS)
        r = write_zeros(f, bytes);
    else if (r < 0)
        r = tr_error(r, "%s: cannot allocate %llu bytes: %s", f->path, (unsigned long long)bytes,
                     strerror(-r));
    return r;
}

static int allocate(struct tr_store *s, enum tr_file file)
{
    const struct tr_io_file *f = &s->file[file];
    int r = tr_store_reserve(f, tr_store_file_bytes(s, file));

    if (r == 0 && fsync(f->fd) < 0)
        r = tr_error(-errno, "%s: cannot sync: %s", f->path, strerror(errno));
    return r;
}

static int write_json(const struct tr_store *s)
{
    json_t *o = json_pack("{s:s, s:i, s:s, s:i}", "format", FORMAT, "version", VERSION, "uuid",
                          s->shape.uuid, "generations", (int)s->shape.generations);
    char *path = tr_path(s->folder, "store.json");
    int r = o && path ? tr_layout_to_json(&s->layout, o) : -ENOMEM;

    if (r == 0)
        r = tr_json_write(path, o);
    tr_free(TR_MEM_MISC, path);
    json_decref(o);
    return r;
}

static int make_files(struct tr_store *s)
{
    int r = 0;

    for (int i = 0; i < TR_FILES && r == 0; i++) {
        if (i == TR_FILE_GEN1 && s->shape.generations == 1)
            continue;
        r = tr_store_open_file(s, (enum tr_file)i, O_RDWR | O_CREAT | O_EXCL);
        if (r == 0)
            r = allocate(s, (enum tr_file)i);
    }
    return r < 0 ? r : write_json(s);
}

static int sync_parent(const char *folder)
{
    char *parent = tr_path(folder, "..");
    int r = parent ? tr_sync_folder(parent) : -ENOMEM;

    tr_free(TR_MEM_MISC, parent);
    return r;
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

int tr_store_create_hooked(struct tr_store **out, const char *folder,
                           const struct tr_layout *layout, int generations,
                           const struct tr_io_hook *hook)
{
    struct tr_store *s;
    int empty = tr_folder_is_empty(folder), r;

    if (!empty)
        return tr_error(-EEXIST, "%s: exists and is not an empty folder", folder);
    r = tr_store_alloc(&s, folder);
    if (r < 0)
        return r;
    if (hook)
        s->hook = *hook;
    s->mode = TR_STORE_WRITE;
    r = prepare(s, layout, generations);
    if (r == 0)
        r = check_space(s);
    if (r == 0 && empty < 0)
        r = tr_make_folder(folder);
    if (r < 0)
        goto fail_store;
    r = tr_store_lock(s, 1);
    if (r < 0)
        goto fail_store;
    r = make_files(s);
    if (r == 0)
        r = sync_parent(folder);
    if (r < 0)
        goto fail_files;
    *out = s;
    return 0;

fail_files:
    tr_store_remove_files(s); /* the folder was absent or empty: all of these are ours */
    if (empty < 0)
        rmdir(folder);
fail_store:
    tr_store_close(s);
    return r;
}

int tr_store_create(struct tr_store **out, const char *folder, const struct tr_layout *layout,
                    int generations)
{
    return tr_store_create_hooked(out, folder, layout, generations, NULL);
}
