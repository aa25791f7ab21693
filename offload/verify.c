/* SPDX-License-Identifier: Apache-2.0
 *
 * Verification: both commit records and every checksum that the newest one names. Goes on after
 * damage, so that one run tells all there is to tell. What a crash may leave is no damage: a record
 * that is torn names nothing, as if it had never been begun.
 */
#include <stdio.h>

#include "offload/store_private.h"
#include "src/base/err.h"
#include "src/base/mem.h"

struct report {
    void (*found)(void *arg, const char *text);
    void *arg;
    uint64_t damaged;
};

static void report_error(struct report *out)
{
    out->damaged++;
    if (out->found)
        out->found(out->arg, tr_error_message());
}

/* Read anew. 1: it is damaged, with a message; 0: whole, never written, or torn as by a crash. */
static int is_damaged(struct tr_store *s, enum tr_file file, struct tr_commit *c)
{
    struct tr_transfer t = {
        .op = TR_IO_READ, .file = file, .buf = s->record, .bytes = s->record_bytes};
    int r = tr_store_transfer(s, &t);

    if (r < 0)
        return 1; /* too short, it has lost bytes; or it cannot be read */
    r = tr_commit_parse(&s->shape, s->record, s->record_bytes, s->file[file].path, c);
    if (r == -EBADMSG && !s->torn_damaged && !tr_commit_was_whole(s->record, s->record_bytes))
        return 0;
    if (r == -EBADMSG)
        tr_error(r, "%s: commit record damaged", s->file[file].path);
    return r < 0 && r != -ENODATA;
}

static int verify_records(struct tr_store *s, struct report *out)
{
    struct tr_commit c;
    int r = tr_commit_alloc(&c, &s->shape);

    for (int i = 0; i < 2 && r == 0; i++) {
        enum tr_file file = TR_FILE_COMMIT0 + (enum tr_file)i;

        if (!is_damaged(s, file, &c))
            continue;
        report_error(out);
        if (file == (enum tr_file)s->torn)
            s->torn_damaged = 1;
    }
    tr_commit_free(&c);
    return r;
}

int tr_store_verify(struct tr_store *s, void (*found)(void *arg, const char *text), void *arg,
                    uint64_t *damaged)
{
    struct report out = {.found = found, .arg = arg};
    size_t room = tr_layout_piece_room(&s->layout);
    void *buf = tr_alloc_pages(TR_MEM_IO, room);
    int r = buf ? verify_records(s, &out) : -ENOMEM;

    for (uint32_t i = 0; i < s->layout.n_pieces && r == 0; i++)
        if (tr_store_read_piece(s, i, buf) < 0)
            report_error(&out);
    tr_free_pages(TR_MEM_IO, buf, room);
    *damaged = out.damaged;
    return r;
}
