/* SPDX-License-Identifier: Apache-2.0
 *
 * The folders of a store with several. Each has a part.json that says which store it belongs to
 * and which of its folders it is; so one that is missing, given twice, in another's place or from
 * another store is known by name before a byte of it is read. Where a folder lies is said by
 * --store alone: it may be moved.
 *
 * part.json is the first file that is made in any folder: an import that was cut off may remove
 * what it finds beside one of its own, and nothing else.
 */
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "offload/store_private.h"
#include "src/base/err.h"
#include "src/base/file.h"
#include "src/base/json.h"
#include "src/base/mem.h"

#define FORMAT     "tailrace store part"
#define NAME       "part.json"
#define JSON_LIMIT 4096u

/* A lock of our own on the same folder would look like somebody else's. */
static int given_before(const struct tr_store *s, uint32_t folder)
{
    struct stat a, b;

    if (fstat(s->part_fd[folder], &a) < 0)
        return 0;
    for (uint32_t i = 0; i < folder; i++)
        if (fstat(tr_store_folder_fd(s, i), &b) == 0 && a.st_dev == b.st_dev &&
            a.st_ino == b.st_ino)
            return 1;
    return 0;
}

static int lock_part(struct tr_store *s, uint32_t folder, int exclusive)
{
    const char *path = s->folders.path[folder];
    int fd = s->part_fd[folder] = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0 && errno == ENOENT)
        return tr_error(-EINVAL,
                        "%s: folder %u of %u of the store is missing: where it is now, --store "
                        "must say",
                        path, folder + 1, s->folders.n);
    if (fd < 0)
        return tr_error(-errno, "%s: cannot open: %s", path, strerror(errno));
    if (given_before(s, folder))
        return tr_error(-EINVAL, "%s: given twice as a folder of the store", path);
    if (flock(fd, (exclusive ? LOCK_EX : LOCK_SH) | LOCK_NB) == 0)
        return 0;
    if (errno == EWOULDBLOCK) {
        s->made[folder] = 0;
        return tr_error(-EBUSY, "%s: the folder is in use by another process", path);
    }
    return tr_error(-errno, "%s: cannot lock: %s", path, strerror(errno));
}

int tr_parts_lock(struct tr_store *s, int exclusive)
{
    int r = 0;

    for (uint32_t i = 1; i < s->folders.n && r == 0; i++)
        r = lock_part(s, i, exclusive);
    return r;
}

int tr_parts_write(const struct tr_store *s)
{
    int r = 0;

    for (uint32_t i = 0; s->folders.n > 1 && i < s->folders.n && r == 0; i++) {
        char *path = tr_path(s->folders.path[i], NAME);
        json_t *o = json_pack("{s:s, s:i, s:s, s:i, s:i}", "format", FORMAT, "version", 1, "uuid",
                              s->shape.uuid, "folder", (int)i + 1, "of", (int)s->folders.n);

        r = path && o ? tr_json_write(path, o) : -ENOMEM;
        json_decref(o);
        tr_free(TR_MEM_MISC, path);
    }
    return r;
}

int tr_part_parse(const char *text, size_t bytes, const char *where, char uuid[TR_UUID_CHARS + 1],
                  uint32_t *number)
{
    json_t *o = NULL;
    int r = tr_json_parse(text, bytes, where, &o);
    const char *format = json_string_value(json_object_get(o, "format"));
    const char *id = json_string_value(json_object_get(o, "uuid"));
    json_int_t k = json_integer_value(json_object_get(o, "folder"));

    if (r == 0 && (!format || strcmp(format, FORMAT) || !id || strlen(id) != TR_UUID_CHARS ||
                   k < 1 || k > (json_int_t)TR_STORE_FOLDERS))
        r = tr_error(-EINVAL, "%s: not the description of a store's folder", where);
    if (r == 0) {
        memcpy(uuid, id, TR_UUID_CHARS + 1);
        *number = (uint32_t)k;
    }
    json_decref(o);
    return r;
}

int tr_part_read(const struct tr_store *s, uint32_t folder, char uuid[TR_UUID_CHARS + 1],
                 uint32_t *number)
{
    char *path = tr_path(s->folders.path[folder], NAME), *text = NULL;
    size_t bytes;
    int r = path ? tr_file_read(path, JSON_LIMIT, &text, &bytes) : -ENOMEM;

    if (r == 0)
        r = tr_part_parse(text, bytes, path, uuid, number);
    tr_free(TR_MEM_TEXT, text);
    tr_free(TR_MEM_MISC, path);
    return r;
}

static int check_part(const struct tr_store *s, uint32_t folder)
{
    const char *path = s->folders.path[folder];
    char uuid[TR_UUID_CHARS + 1];
    uint32_t number;
    int r = tr_part_read(s, folder, uuid, &number);

    if (r == -ENOENT)
        return tr_error(-EINVAL, "%s: is no folder of the store %s: it has no %s", path,
                        s->shape.uuid, NAME);
    if (r < 0)
        return r;
    if (strcmp(uuid, s->shape.uuid))
        return tr_error(-EINVAL, "%s: belongs to another store (%s), not to %s in %s", path, uuid,
                        s->shape.uuid, s->folder);
    if (number != folder + 1)
        return tr_error(-EINVAL,
                        "%s: is folder %u of the store, given as folder %u: --store names them in "
                        "order",
                        path, number, folder + 1);
    return 0;
}

int tr_parts_check(const struct tr_store *s)
{
    int r = 0;

    for (uint32_t i = 0; s->folders.n > 1 && i < s->folders.n && r == 0; i++)
        r = check_part(s, i);
    return r;
}

/* Only the beginning of a part.json is there: nothing else can be. */
static void remove_beginning(const char *path)
{
    char *name =
        tr_folder_holds_only(path, NAME TR_FILE_TMP) ? tr_path(path, NAME TR_FILE_TMP) : NULL;

    if (name)
        unlink(name);
    tr_free(TR_MEM_MISC, name);
}

int tr_parts_lock_begun(struct tr_store *s)
{
    uint32_t number;
    int r = 0;

    if (s->folders.n > 1 && tr_part_read(s, 0, s->shape.uuid, &number) < 0)
        return 0; /* cut off before there was any in the others */
    for (uint32_t i = 1; i < s->folders.n && r == 0; i++) {
        if (s->part_fd[i] >= 0)
            continue;
        if (!tr_folder_has(s->folders.path[i], NAME)) {
            remove_beginning(s->folders.path[i]);
            continue;
        }
        r = lock_part(s, i, 1);
        if (r == 0)
            r = check_part(s, i);
    }
    return r;
}
