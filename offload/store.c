/* SPDX-License-Identifier: Apache-2.0
 *
 * Opening a store. Nothing that the files say is believed before it is checked (invariant 9):
 * sizes, order and overlap by the layout, UUID and counts by the commit record, lengths by fstat.
 */
#include "offload/store.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "offload/store_private.h"
#include "src/base/err.h"
#include "src/base/file.h"
#include "src/base/mem.h"

const char *const tr_store_names[TR_FILES] = {"gen0", "gen1", "commit0", "commit1"};

const char *tr_store_file_name(uint32_t file)
{
    enum tr_file kind = tr_file_kind(file);

    return kind == TR_FILE_SCRATCH ? TR_SCRATCH_NAME : tr_store_names[kind];
}

static int alloc_files(struct tr_store *s)
{
    uint32_t n = tr_file_count(s->folders.n);
    int whole = 1;

    s->file = tr_alloc_array(TR_MEM_MISC, n, sizeof(*s->file));
    for (uint32_t i = 0; s->file && i < n; i++) {
        s->file[i].fd = -1;
        if (tr_file_kind(i) == TR_FILE_SCRATCH)
            continue;
        s->file[i].path = tr_path(s->folders.path[tr_file_folder(i)], tr_store_file_name(i));
        whole &= s->file[i].path != NULL;
    }
    return s->file && whole ? 0 : -ENOMEM;
}

int tr_store_alloc(struct tr_store **out, const char *folders, enum tr_store_mode mode,
                   const struct tr_io_hook *hook)
{
    struct tr_store *s = tr_alloc(TR_MEM_MISC, sizeof(*s));
    int r;

    if (!s)
        return -ENOMEM;
    s->mode = mode;
    if (hook)
        s->hook = *hook;
    s->folder_fd = s->hosts_fd = -1;
    for (uint32_t i = 0; i < TR_STORE_FOLDERS; i++)
        s->part_fd[i] = -1;
    r = tr_folders_parse(&s->folders, folders);
    s->folder = s->folders.path[0];
    if (r == 0)
        r = alloc_files(s);
    if (r < 0) {
        tr_store_close(s);
        return r;
    }
    *out = s;
    return 0;
}

void tr_store_close_queue(struct tr_store *s)
{
    tr_queue_close(s->queue);
    s->queue = NULL;
}

void tr_store_close(struct tr_store *s)
{
    if (!s)
        return;
    tr_store_close_queue(s);
    for (uint32_t i = 0; s->file && i < tr_file_count(s->folders.n); i++) {
        if (s->file[i].fd >= 0)
            close(s->file[i].fd);
        tr_free(TR_MEM_MISC, s->file[i].path);
    }
    for (uint32_t i = 0; i < TR_STORE_FOLDERS; i++)
        if (s->part_fd[i] >= 0)
            close(s->part_fd[i]); /* and with it the lock */
    if (s->hosts_fd >= 0)
        close(s->hosts_fd);
    if (s->folder_fd >= 0)
        close(s->folder_fd);
    tr_commit_free(&s->durable);
    tr_commit_free(&s->next);
    tr_layout_free(&s->layout);
    tr_free_pages(TR_MEM_IO, s->record, s->record_bytes);
    tr_free(TR_MEM_MISC, s->fresh);
    tr_stripes_free(&s->stripes);
    tr_folders_free(&s->folders);
    tr_free(TR_MEM_MISC, s->file);
    tr_free(TR_MEM_MISC, s->remark);
    tr_free(TR_MEM_MISC, s);
}

/* The lock is on the folder itself: it holds from before the first file to after the last. */
int tr_store_lock(struct tr_store *s, int exclusive)
{
    s->folder_fd = open(s->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (s->folder_fd < 0)
        return tr_error(-errno, "%s: cannot open the store: %s", s->folder, strerror(errno));
    if (flock(s->folder_fd, (exclusive ? LOCK_EX : LOCK_SH) | LOCK_NB) == 0)
        return 0;
    if (errno == EWOULDBLOCK) {
        s->made[0] = 0;
        return tr_error(-EBUSY, "%s: the store is in use by another process", s->folder);
    }
    return tr_error(-errno, "%s: cannot lock the store: %s", s->folder, strerror(errno));
}

static int is_memory(int fd)
{
    struct statfs fs;

    return fstatfs(fd, &fs) == 0 && (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC);
}

/* Where several hosts have the same disk (NFS, Lustre) the lock of a folder is each host's own, and
 * only that of a file is for all of them. It has a descriptor to itself: a ring that was killed
 * lets go of its files a little late. Where there is no such lock the folder's has to do. */
static int lock_among_hosts(struct tr_store *s)
{
    int write = s->mode == TR_STORE_WRITE;
    int fd = openat(s->folder_fd, tr_store_names[TR_FILE_GEN0],
                    (write ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);

    s->hosts_fd = fd;
    if (fd < 0 || flock(fd, (write ? LOCK_EX : LOCK_SH) | LOCK_NB) == 0 || errno != EWOULDBLOCK)
        return 0;
    return tr_error(-EBUSY, "%s: the store is in use by a process on another host", s->folder);
}

int tr_store_open_file(struct tr_store *s, uint32_t file, int flags)
{
    struct tr_io_file *f = &s->file[file];
    int folder_fd = tr_store_folder_fd(s, tr_file_folder(file)), fd;

    f->direct = !s->hook.buffered;
    fd = tr_io_openat(folder_fd, tr_store_file_name(file), flags | O_CLOEXEC | O_NOFOLLOW,
                      &f->direct);
    if (fd < 0)
        return tr_error(fd, "%s: cannot open: %s", f->path, strerror(-fd));
    f->fd = fd;
    f->memory = is_memory(fd);
    return file == TR_FILE_GEN0 ? lock_among_hosts(s) : 0;
}

/* What a store's folder holds beside its files; the one that says whose it is goes last. */
static const char *const others[] = {TR_GAUGE_FILE, "store.json", "store.json" TR_FILE_TMP,
                                     "part.json" TR_FILE_TMP, "part.json"};
#define OTHERS (sizeof(others) / sizeof(others[0]))

static int remove_in(const struct tr_store *s, uint32_t folder, const char *name)
{
    int fd = tr_store_folder_fd(s, folder);

    if (fd < 0 || unlinkat(fd, name, 0) == 0 || errno == ENOENT)
        return 0;
    return tr_error(-errno, "%s/%s: cannot remove: %s", s->folders.path[folder], name,
                    strerror(errno));
}

/* A commit record that never became whole reads as never written again. */
static void blank(const struct tr_store *s, const char *name)
{
    int fd = openat(s->folder_fd, name, O_WRONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    struct stat st;

    if (fd < 0)
        return;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && ftruncate(fd, 0) == 0)
        (void)!ftruncate(fd, st.st_size);
    close(fd);
}

/* Cut off anywhere, what is left is still an import that was cut off: first nothing looks like a
 * commit any more, then store.json goes, which would say that all files are there. The first folder
 * comes last, for it knows the others. */
int tr_store_remove_files(const struct tr_store *s)
{
    int r = 0, e;

    blank(s, tr_store_names[TR_FILE_COMMIT0]);
    blank(s, tr_store_names[TR_FILE_COMMIT1]);
    if ((e = remove_in(s, 0, "store.json")) < 0)
        r = e;
    for (uint32_t i = tr_file_count(s->folders.n); i-- > 0;)
        if ((e = remove_in(s, tr_file_folder(i), tr_store_file_name(i))) < 0)
            r = e;
    for (uint32_t folder = s->folders.n; folder-- > 0;)
        for (size_t k = 0; k < OTHERS; k++)
            if ((e = remove_in(s, folder, others[k])) < 0)
                r = e;
    return r;
}

uint64_t tr_store_file_bytes(const struct tr_store *s, uint32_t file)
{
    if (!tr_file_is_generation(file))
        return s->record_bytes;
    return s->stripes.n ? s->stripes.folder_bytes[tr_file_folder(file)]
                        : tr_layout_bytes(&s->layout);
}

int tr_store_has_file(const struct tr_store *s, uint32_t file)
{
    enum tr_file kind = tr_file_kind(file);

    if (kind == TR_FILE_SCRATCH)
        return 0; /* an engine's, while it runs */
    return s->shape.generations == 2 || kind != TR_FILE_GEN1;
}

int tr_store_alloc_state(struct tr_store *s)
{
    int r;

    s->shape.n_spans = s->layout.n_spans;
    s->shape.n_pieces = s->layout.n_pieces;
    s->record_bytes = tr_commit_bytes(&s->shape);
    s->record = tr_alloc_pages(TR_MEM_IO, s->record_bytes);
    s->fresh = tr_alloc(TR_MEM_MISC, s->layout.n_pieces);
    if (!s->record || !s->fresh)
        return -ENOMEM;
    r = tr_commit_alloc(&s->durable, &s->shape);
    return r < 0 ? r : tr_commit_alloc(&s->next, &s->shape);
}

/* Anything but zeros at the beginning of a commit file: somebody has committed. */
static int has_record(const struct tr_store *s, enum tr_file file)
{
    unsigned char block[512] = {0};
    int fd =
        openat(s->folder_fd, tr_store_names[file], O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    ssize_t n = fd < 0 ? 0 : pread(fd, block, sizeof(block), 0);

    if (fd >= 0)
        close(fd);
    while (n > 0 && !block[n - 1])
        n--;
    return n != 0;
}

/* Without store.json: no store, or one whose making was cut off, or one that has been damaged. The
 * difference matters, as what was cut off may be removed. */
static int without_json(const struct tr_store *s, int r)
{
    char uuid[TR_UUID_CHARS + 1];
    uint32_t number = 1;

    if (tr_folder_has(s->folder, "part.json") && tr_part_read(s, 0, uuid, &number) == 0 &&
        number != 1)
        return tr_error(-EINVAL,
                        "%s: is folder %u of the store %s, given as folder 1: --store names them "
                        "in order",
                        s->folder, number, uuid);
    if (has_record(s, TR_FILE_COMMIT0) || has_record(s, TR_FILE_COMMIT1))
        return tr_error(-EINVAL, "%s: store.json is missing, but there are commits", s->folder);
    for (size_t i = 0; i < TR_FILES + OTHERS; i++) {
        const char *name = i < TR_FILES ? tr_store_names[i] : others[i - TR_FILES];

        if (faccessat(s->folder_fd, name, F_OK, 0) == 0)
            return tr_error(-ENODATA, "%s: an import that was cut off: start it again", s->folder);
    }
    return r;
}

/* A generation or a commit record that is too short has lost bytes, like one that is damaged, and
 * the other may be whole. A generation is made as long as it was, and its checksums tell what is
 * missing; a record's length tells, until the next one takes its place. */
static int check_length(const struct tr_store *s, uint32_t file, uint64_t bytes)
{
    const struct tr_io_file *f = &s->file[file];
    uint64_t whole = tr_store_file_bytes(s, file);

    if (bytes == whole)
        return 0;
    if (bytes > whole || (tr_file_is_generation(file) && s->shape.generations == 1))
        return tr_error(-EINVAL,
                        "%s: %llu bytes, the layout says %llu: truncated or of another store",
                        f->path, (unsigned long long)bytes, (unsigned long long)whole);
    if (s->mode == TR_STORE_WRITE && tr_file_is_generation(file) &&
        ftruncate(f->fd, (off_t)whole) < 0)
        return tr_error(-errno, "%s: cannot make it %llu bytes long: %s", f->path,
                        (unsigned long long)whole, strerror(errno));
    return 0;
}

static int open_files(struct tr_store *s)
{
    for (uint32_t i = 0; i < tr_file_count(s->folders.n); i++) {
        struct stat st;
        int r;

        if (!tr_store_has_file(s, i))
            continue;
        r = tr_store_open_file(s, i, s->mode == TR_STORE_WRITE ? O_RDWR : O_RDONLY);
        if (r == -ENOENT) /* which says "no store" to the caller: but there is one */
            return tr_error(-EINVAL, "%s: is missing", s->file[i].path);
        if (r < 0)
            return r;
        if (fstat(s->file[i].fd, &st) < 0 || !S_ISREG(st.st_mode))
            return tr_error(-EINVAL, "%s: not a regular file", s->file[i].path);
        if ((r = check_length(s, i, (uint64_t)st.st_size)) < 0)
            return r;
    }
    return 0;
}

int tr_store_read_record(struct tr_store *s, enum tr_file file, struct tr_commit *c)
{
    struct tr_transfer t = {
        .op = TR_IO_READ, .file = file, .buf = s->record, .bytes = s->record_bytes};
    int r = tr_store_transfer(s, &t);

    if (r == -EIO) /* once may be chance */
        r = tr_store_transfer(s, &t);
    /* Too short, which is not "never written"; or unreadable, which a drive may make of a sector
     * that it was writing when the power failed. */
    if (r == -ENODATA || r == -EIO)
        return tr_error_prefix(-EBADMSG, "commit record");
    return r < 0 ? r
                 : tr_commit_parse(&s->shape, s->record, s->record_bytes, s->file[file].path, c);
}

const char *tr_store_torn(const struct tr_store *s)
{
    return s->torn ? s->file[s->torn].path : NULL;
}

int tr_store_torn_damaged(const struct tr_store *s)
{
    return s->torn && s->torn_damaged;
}

/* Once it is known at what the store stands: may the other record have been torn by a crash? */
static void look_at_torn(struct tr_store *s)
{
    struct tr_transfer t = {.op = TR_IO_READ,
                            .file = (enum tr_file)s->torn,
                            .buf = s->record,
                            .bytes = s->record_bytes};
    int r = tr_store_transfer(s, &t);

    if (r == 0)
        s->torn_damaged = tr_commit_is_damaged(&s->shape, s->record, s->record_bytes, &s->durable);
    else
        s->torn_damaged = r == -ENODATA; /* it has lost bytes */
}

static int is_empty(const struct tr_store *s, int file)
{
    struct stat st;

    return fstat(s->file[file].fd, &st) == 0 && st.st_size == 0;
}

/* Neither is whole. The very first commit, which ends an import, goes to the one record and finds
 * the other never written: what a crash may have left of that is no damage. Nor is a file without
 * any bytes, as a kill leaves it in blank(). */
static int without_commit(struct tr_store *s, const int r[2])
{
    int torn = 0;

    s->torn = 0;
    for (int i = 0; i < 2; i++)
        if (r[i] == -EBADMSG && !is_empty(s, TR_FILE_COMMIT0 + i)) {
            s->torn = TR_FILE_COMMIT0 + i;
            torn++;
        }
    if (torn == 2)
        return tr_error_prefix(-EBADMSG, "%s: both commit records are damaged", s->folder);
    s->durable.payload_bytes = TR_PAYLOAD_BYTES; /* as it is not known */
    if (torn)
        look_at_torn(s);
    if (torn && (s->torn_damaged || s->torn != TR_FILE_COMMIT0 + tr_commit_slot(1)))
        return tr_error(-EBADMSG, "%s: damaged, and the only commit record", s->file[s->torn].path);
    return tr_error(-ENODATA, "%s: no commit yet, an import that was cut off: start it again",
                    s->folder);
}

/* Of the two records the newest whole one. One torn by a crash, damaged or unreadable is passed
 * over; what is whole and not for us (of a newer version, of another store) is not. */
static int read_newest(struct tr_store *s)
{
    struct tr_commit *c[2] = {&s->next, &s->durable};
    int r[2], torn = 0;

    for (int i = 0; i < 2; i++) {
        r[i] = tr_store_read_record(s, TR_FILE_COMMIT0 + (enum tr_file)i, c[i]);
        if (r[i] < 0 && r[i] != -ENODATA && r[i] != -EBADMSG)
            return r[i];
        if (r[i] == -EBADMSG) {
            s->torn = TR_FILE_COMMIT0 + i;
            torn++;
        }
    }
    if (r[0] < 0 && r[1] < 0)
        return without_commit(s, r);
    if (r[1] < 0 || (r[0] == 0 && s->next.sequence > s->durable.sequence))
        tr_commit_copy(&s->durable, &s->next, &s->shape);
    tr_commit_copy(&s->next, &s->durable, &s->shape);
    if (torn)
        look_at_torn(s);
    if (s->durable.flags & TR_COMMIT_OPEN)
        return tr_error(-EUCLEAN,
                        "%s: marked open: a run with durability none was killed while it "
                        "changed the parameters in place; start again from the source",
                        s->folder);
    return 0;
}

/* The run that wrote the newest record may have died before its sync, and what is built on it must
 * not lose it. So both are synced before they are read (which also drops them from the page cache:
 * a buffered record is then read from the disk, even where that run's sync failed). */
static int sync_records(struct tr_store *s)
{
    int r = 0;

    for (int i = TR_FILE_COMMIT0; i <= TR_FILE_COMMIT1 && r == 0; i++) {
        struct tr_transfer sync = {.op = TR_IO_SYNC, .file = (enum tr_file)i};

        r = tr_store_transfer(s, &sync);
    }
    return r;
}

static int load(struct tr_store *s)
{
    int r = tr_store_read_json(s);

    if (r == -ENOENT)
        r = without_json(s, r);
    if (r == 0)
        r = tr_parts_lock(s, s->mode == TR_STORE_WRITE);
    if (r == 0)
        r = tr_parts_check(s);
    if (r == 0)
        r = tr_store_alloc_state(s);
    if (r == 0)
        r = open_files(s);
    if (r == 0)
        r = tr_store_make_remark(s);
    if (r == 0 && s->mode == TR_STORE_WRITE)
        r = sync_records(s);
    return r < 0 ? r : read_newest(s);
}

int tr_store_open_hooked(struct tr_store **out, const char *folders, enum tr_store_mode mode,
                         const struct tr_io_hook *hook)
{
    struct tr_store *s;
    int r = tr_store_alloc(&s, folders, mode, hook);

    if (r < 0)
        return r;
    r = tr_store_lock(s, mode == TR_STORE_WRITE);
    if (r == 0)
        r = load(s);
    if (r < 0) {
        tr_store_close(s);
        return r;
    }
    *out = s;
    return 0;
}

int tr_store_open(struct tr_store **out, const char *folders, enum tr_store_mode mode)
{
    return tr_store_open_hooked(out, folders, mode, NULL);
}

int tr_store_discard(const char *folders)
{
    struct tr_store *s;
    int r = tr_store_alloc(&s, folders, TR_STORE_READ, NULL);

    if (r < 0)
        return r;
    r = tr_store_lock(s, 1);
    if (r == 0)
        r = load(s);
    if (r == 0 || r == -EUCLEAN)
        r = tr_error(-EEXIST, "%s: a store with a commit is not discarded", s->folder);
    else if (r == -ENODATA && (r = tr_parts_lock_begun(s)) == 0)
        r = tr_store_remove_files(s);
    tr_store_close(s);
    return r;
}

const struct tr_layout *tr_store_layout(const struct tr_store *s)
{
    return &s->layout;
}

const char *tr_store_uuid(const struct tr_store *s)
{
    return s->shape.uuid;
}

const char *tr_store_folder(const struct tr_store *s)
{
    return s->folder;
}

uint32_t tr_store_folders(const struct tr_store *s)
{
    return s->folders.n;
}

const struct tr_stripes *tr_store_stripes(const struct tr_store *s)
{
    return &s->stripes;
}

const char *tr_store_folder_at(const struct tr_store *s, uint32_t k, uint64_t *bytes)
{
    *bytes = tr_store_file_bytes(s, tr_file_in(TR_FILE_GEN0, k));
    return s->folders.path[k];
}

const char *tr_store_remark(const struct tr_store *s)
{
    return s->remark ? s->remark : "";
}

int tr_store_generations(const struct tr_store *s)
{
    return (int)s->shape.generations;
}

uint64_t tr_store_payload(const struct tr_store *s, void *buf, size_t room, size_t *bytes)
{
    size_t n = s->durable.payload_bytes;

    memcpy(buf, s->durable.payload, n < room ? n : room);
    if (bytes)
        *bytes = n;
    return s->durable.sequence;
}
