/* SPDX-License-Identifier: Apache-2.0
 *
 * A store from inside: shared by the store's own files (description, create, store, piece, verify)
 * and by the offload engine, which plays on the same state while it runs. Nobody else includes
 * this.
 *
 * `durable` is what the newest durable commit record says. `next` is what the next one will say:
 * the changes of spans since are entered there when their bytes have been written. One rule gives
 * the place of every write: the generation that `durable` does not name. So the first write of a
 * span after a commit goes to the other generation, later ones update that one in place, and what
 * the durable commit names stays whole until the next commit is durable (invariant 3).
 */
#ifndef TR_OFFLOAD_STORE_PRIVATE_H
#define TR_OFFLOAD_STORE_PRIVATE_H

#include "offload/commit.h"
#include "offload/layout.h"
#include "offload/queue.h"
#include "offload/stripes.h"

/* Where the file system knows no files without a name, for the moment between open and unlink. */
#define TR_SCRATCH_NAME "scratch"

struct tr_store {
    struct tr_folders folders;
    char *folder;                  /* the first of them, the store's own */
    int folder_fd;                 /* holds the lock */
    int hosts_fd;                  /* and this one what other hosts see of it; or -1 */
    int part_fd[TR_STORE_FOLDERS]; /* of the others, which have locks of their own; [0] is unused */
    unsigned char made[TR_STORE_FOLDERS]; /* was absent before tr_store_create, and is ours alone */
    enum tr_store_mode mode;
    struct tr_layout layout;
    struct tr_commit_shape shape;
    struct tr_stripes stripes;
    struct tr_io_file *file; /* (files of all folders, tr_file_in) */
    struct tr_commit durable, next;
    unsigned char *fresh; /* (pieces) written since the durable commit, by tr_store_write_piece */
    unsigned char touched[2]; /* generation files written since their last sync */
    int torn; /* the file of a commit record that was torn or damaged when opened; 0: none was */
    int torn_damaged; /* and it is known to be damaged */
    int failed; /* a write or sync failed: what the files hold is unknown, no commit any more */
    struct tr_io_hook hook;
    struct tr_queue *queue; /* of the synchronous access, opened when first needed */
    void *record;           /* a commit record, 4096-aligned */
    size_t record_bytes;
    char *remark;
};

static inline uint8_t tr_store_target(const struct tr_store *s, uint32_t span)
{
    if (s->shape.generations == 1)
        return 0;
    /* Before the first commit nothing is named: everything goes to generation 0. */
    return s->durable.sequence ? (uint8_t)(1 - s->durable.generation[span]) : 0;
}

/* Written in place, the store is no state to resume until the next commit: it has to be marked open
 * before the first write. */
static inline int tr_store_needs_mark(const struct tr_store *s)
{
    return s->shape.generations == 1 && s->durable.sequence && !(s->durable.flags & TR_COMMIT_OPEN);
}

/* Packs `next` with this sequence number and flags into s->record; returns the file it goes to. */
enum tr_file tr_store_pack(struct tr_store *s, uint32_t flags);
/* Writes s->record to the file of a commit record, and syncs it. */
int tr_store_put_record(struct tr_store *s, enum tr_file file);
/* The record just packed has become durable. */
void tr_store_settle(struct tr_store *s);

/* One of the two commit records; errors as tr_commit_parse. */
int tr_store_read_record(struct tr_store *s, enum tr_file file, struct tr_commit *c);

/* The whole of one transfer through the store's own queue, with a message that names the file. */
int tr_store_transfer(struct tr_store *s, struct tr_transfer *t);
int tr_store_transfer_error(struct tr_store *s, const struct tr_transfer *t);
void tr_store_close_queue(struct tr_store *s);

/* -EBADMSG with record, tensor and file unless the bytes are those that `c` names. */
int tr_store_check_piece(const struct tr_store *s, const struct tr_commit *c, uint32_t piece,
                         const void *bytes);
int tr_store_check_hash(const struct tr_store *s, const struct tr_commit *c, uint32_t piece,
                        uint64_t hash); /* the same, of its checksum */

static inline int tr_store_folder_fd(const struct tr_store *s, uint32_t folder)
{
    return folder ? s->part_fd[folder] : s->folder_fd;
}

/* Opening parts shared by create and open; `file` counts the files of all folders. */
extern const char *const tr_store_names[TR_FILES];
const char *tr_store_file_name(uint32_t file);
int tr_store_has_file(const struct tr_store *s, uint32_t file);
int tr_store_alloc(struct tr_store **out, const char *folders, enum tr_store_mode mode,
                   const struct tr_io_hook *hook); /* NULL: none */
int tr_store_lock(struct tr_store *s, int exclusive);
int tr_store_open_file(struct tr_store *s, uint32_t file, int flags);
int tr_store_alloc_state(struct tr_store *s);
int tr_store_remove_files(const struct tr_store *s);
uint64_t tr_store_file_bytes(const struct tr_store *s, uint32_t file);

/* description.c: store.json. -ENOENT: there is none. */
int tr_store_write_json(const struct tr_store *s);
int tr_store_read_json(struct tr_store *s);

/* parts.c: the further folders. Each folder of several has a part.json with the store's UUID and
 * its own number. */
int tr_parts_lock(struct tr_store *s, int exclusive);
int tr_parts_write(const struct tr_store *s);
/* Are these the folders of this store, in order? */
int tr_parts_check(const struct tr_store *s);
/* What the first folder of a store without store.json says: 0 and its UUID and number. */
int tr_part_read(const struct tr_store *s, uint32_t folder, char uuid[TR_UUID_CHARS + 1],
                 uint32_t *number);
int tr_part_parse(const char *text, size_t bytes, const char *where, char uuid[TR_UUID_CHARS + 1],
                  uint32_t *number);
/* Locks those further folders that an import which was cut off has begun; leaves others alone. */
int tr_parts_lock_begun(struct tr_store *s);

/* remark.c, once the files are open */
int tr_store_make_remark(struct tr_store *s);

/* gauge.c: speed and room of every folder, for a new store. */
int tr_gauge_folders(struct tr_store *s, struct tr_drive drives[TR_STORE_FOLDERS]);
#define TR_GAUGE_FILE  "probe"
#define TR_GAUGE_BYTES (16u << 20) /* of host memory, meanwhile */
/* Takes the file's space on the disk; nothing is synced. */
int tr_store_reserve(const struct tr_io_file *f, uint64_t bytes);

/* As tr_store_create and tr_store_open, with a test's table around all I/O. */
int tr_store_create_hooked(struct tr_store **out, const char *folder,
                           const struct tr_layout *layout, int generations,
                           const struct tr_io_hook *hook);
int tr_store_open_hooked(struct tr_store **out, const char *folder, enum tr_store_mode mode,
                         const struct tr_io_hook *hook);

#endif
