/* SPDX-License-Identifier: Apache-2.0
 *
 * The store: a folder that holds the records of a run, its truth. It knows bytes and names, no
 * model.
 *
 *   STORE/store.json   format version, UUID, layout (records, spans, pieces), generations, stripes;
 *                      written once
 *   STORE/gen0 gen1    the two places of every span, at the same offsets, allocated in full
 *   STORE/commit0 1    commit records, written in turn: sequence number, flags, generation of every
 *                      span, XXH3 of every piece, the caller's payload, and an XXH3 over all of it
 *
 * A record (one unit of the model) owns segments (params, state); a segment is a run of spans; a
 * span is what is streamed as one (a block's segment, or one slice of rows of a table); a span is
 * made of pieces (a tensor, or at most 16 MiB of one), each checksummed by itself. Spans and pieces
 * begin at multiples of 4096; the pieces of one tensor lie back to back.
 *
 * A store may have several folders on several drives ("DIR:DIR", src/base/folders.h): then each has
 * a gen0 and gen1 with the pieces that the stripes put there (offload/stripes.h), and a part.json
 * with the store's UUID and the folder's number. All else is in the first, commits too. Whoever
 * uses the store by these calls sees none of that.
 *
 * Invariants kept here (design.md, section 4):
 * (3) A commit never names bytes that are not yet synced, and the generation that it replaces is
 * not overwritten before it is durable. (7) Nothing outside the store's own folder is written; an
 * existing store is never overwritten. (8) Every transfer is checked for its length, every piece's
 * checksum is verified when it is read.
 */
#ifndef TR_OFFLOAD_STORE_H
#define TR_OFFLOAD_STORE_H

#include <stddef.h>
#include <stdint.h>

#include "src/base/folders.h"

#define TR_STORE_ALIGN   4096u
#define TR_PIECE_BYTES   (16u << 20) /* a piece at most */
#define TR_LAYOUT_PIECES (1u << 22)  /* pieces of a store at most: 64 TiB */
#define TR_PAYLOAD_BYTES 4096u       /* a commit's payload at most */
#define TR_LOST_TEXT     128u

struct tr_piece {
    char *name;             /* the tensor's (state: "m of NAME") */
    uint64_t tensor_offset; /* of this piece in its tensor, bytes */
    uint64_t offset;        /* in its span */
    uint64_t bytes;
};

struct tr_span {
    uint32_t segment;
    uint32_t pool; /* slot pool that it is loaded into */
    uint32_t first_piece, n_pieces;
    uint64_t offset; /* in the generation files */
    uint64_t bytes;  /* multiple of 4096 */
};

struct tr_segment {
    char *record; /* "embedding", "block 3", "head" */
    char *kind;   /* "params", "state" */
};

/* Arrays in disk order; owned by whoever made them, freed by tr_layout_free. */
struct tr_layout {
    struct tr_segment *segments;
    struct tr_span *spans;
    struct tr_piece *pieces;
    uint32_t n_segments, n_spans, n_pieces;
};

/* How many pieces these bytes of one tensor are cut into. */
static inline uint32_t tr_pieces_of(uint64_t bytes)
{
    return (uint32_t)((bytes + TR_PIECE_BYTES - 1) / TR_PIECE_BYTES);
}

void tr_layout_free(struct tr_layout *l);
uint64_t tr_layout_bytes(const struct tr_layout *l);      /* of one generation */
uint64_t tr_layout_piece_room(const struct tr_layout *l); /* that a buffer for any piece needs */

enum tr_durability { TR_DURABLE_STEP, TR_DURABLE_CHECKPOINT, TR_DURABLE_NONE };

struct tr_store;

struct tr_stripes;

/* Makes the folders (-EEXIST unless absent or empty), locks them (-EBUSY) and allocates the files
 * in full (-ENOSPC beforehand, with the bytes needed); what it has made goes where it fails, and
 * nothing else does. The layout is copied. generations: 2, or 1 for TR_DURABLE_NONE. Where there
 * are several folders, a short write and read of each decides their shares. */
int tr_store_create(struct tr_store **out, const char *folders, const struct tr_layout *layout,
                    int generations);
/* The same with speeds that are known, in bytes/s of each folder's drive: folders on one drive
 * share it. NULL: they are measured. */
int tr_store_create_dealt(struct tr_store **out, const char *folders,
                          const struct tr_layout *layout, int generations, const double *speed);

/* Host memory that making one of so many folders takes for a moment. */
uint64_t tr_store_create_bytes(uint32_t n_folders);

/* In place of closing one that this process has created and is not to be a store after all: removes
 * its files, which are locked as yet, and those of its folders that were absent, unless somebody
 * has put something there. */
void tr_store_undo(struct tr_store *s);

enum tr_store_mode { TR_STORE_READ, TR_STORE_WRITE };

/* Opens and (for writing: exclusively, for reading: shared) locks it and reads the newest whole
 * commit. -EBUSY: another process has it; -ENODATA: no commit yet (an import that was cut off);
 * -EUCLEAN: marked open by a run without durability that was killed. -EINVAL names the folder that
 * is missing, given twice, in the wrong place, or another store's. */
int tr_store_open(struct tr_store **out, const char *folders, enum tr_store_mode mode);
void tr_store_close(struct tr_store *s); /* NULL is allowed; commits nothing */

const struct tr_layout *tr_store_layout(const struct tr_store *s);
const char *tr_store_uuid(const struct tr_store *s);   /* 36 characters */
const char *tr_store_folder(const struct tr_store *s); /* the first */
uint32_t tr_store_folders(const struct tr_store *s);
/* Folder k of them, and what it holds of one generation. */
const char *tr_store_folder_at(const struct tr_store *s, uint32_t k, uint64_t *bytes);
/* Which of them has what; n == 0: there is one. The store's. */
const struct tr_stripes *tr_store_stripes(const struct tr_store *s);
/* What is slower or less safe than elsewhere about the places of this store, a line for each; ""
 * where nothing is. Kept until it is closed. */
const char *tr_store_remark(const struct tr_store *s);
int tr_store_generations(const struct tr_store *s);
/* The payload of the commit that the store stands at, and its sequence number (0: none). Not while
 * an offload engine runs on the store. */
uint64_t tr_store_payload(const struct tr_store *s, void *buf, size_t room, size_t *bytes);

/* The file of a commit record that was torn, damaged or unreadable when the store was opened, and
 * passed over; NULL: there is none. A crash in the middle of a commit leaves one, and nothing is
 * lost then but the step at hand; it may also have been whole once, newer than what the store
 * stands at or older.
 */
const char *tr_store_torn(const struct tr_store *s);
/* 1: it is damaged, for no torn write leaves a record so. Verifying looks closer than opening does,
 * and counts what is known, and what cannot be read. 0: a crash may have left it so. */
int tr_store_torn_damaged(const struct tr_store *s);

/* Synchronous piece access for import, export, inspect and verify. buf: 4096-aligned, with room for
 * bytes rounded up to 4096. Reads verify the checksum (-EBADMSG names record, tensor and file);
 * writes go to the generation that the last commit does not name. Not while an offload engine runs.
 */
int tr_store_read_piece(struct tr_store *s, uint32_t piece, void *buf);
int tr_store_write_piece(struct tr_store *s, uint32_t piece, const void *buf);
/* Enters a piece of a new store as the zeros that its reserved space reads as: nothing is written.
 * `zeros` has them. -EINVAL once there is a commit, or the piece has been written. */
int tr_store_leave_piece(struct tr_store *s, uint32_t piece, const void *zeros);
/* Syncs the data, then makes the commit durable. A span of which any piece was written since the
 * last commit must have been written whole (-EINVAL names the missing piece). */
int tr_store_commit(struct tr_store *s, const void *payload, size_t bytes);

/* Reads everything that the commit names, and both commit records. Every damage is told to `found`
 * (may be NULL) and counted; 0 also where there was damage. A record that is torn as by a crash is
 * none (tr_store_torn has it), one with a flipped bit is. */
int tr_store_verify(struct tr_store *s, void (*found)(void *arg, const char *text), void *arg,
                    uint64_t *damaged);

/* Reads everything that the commit names, as far as the first damage: its error, or 0. Not while an
 * offload engine runs. */
int tr_store_check_all(struct tr_store *s);

/* The payload of the commit before the newest one, if all that it names is whole (reads all of it);
 * returns its bytes. -ENODATA: there is no such commit; -EBADMSG: its bytes are damaged or have
 * been overwritten since. Not while an offload engine runs. */
int tr_store_before(struct tr_store *s, void *payload, size_t room);
struct tr_glance {
    uint32_t looked, lost;    /* pieces */
    char first[TR_LOST_TEXT]; /* record and kind of the first that is lost */
};

/* The same from its record and a glance at what it names: the smallest piece, where that is small,
 * of every span that the newest commit has elsewhere. One that is lost is overwritten by what came
 * after the newest commit, or damaged, and the commit is no way back; that none is, is no proof
 * that all is whole. */
int tr_store_glance_before(struct tr_store *s, void *payload, size_t room, struct tr_glance *g);
/* Goes back to that commit, for good; needs TR_STORE_WRITE. Errors as above: nothing is changed
 * then. */
int tr_store_fall_back(struct tr_store *s);

/* Removes what an import that was cut off left: only files of ours, only where there is no commit
 * (-EEXIST otherwise) and nobody is at it (-EBUSY). The folders themselves stay. */
int tr_store_discard(const char *folders);

#endif
