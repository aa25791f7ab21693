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

static int verify_records(struct tr_store *s, struct report *out)
{
    struct tr_commit c;
    int r = tr_commit_alloc(&c, &s->shape);

    if (r < 0)
        return r;
    for (int i = 0; i < 2; i++) {
        enum tr_file file = TR_FILE_COMMIT0 + (enum tr_file)i;
        struct tr_transfer t = {
            .op = TR_IO_READ, .file = file, .buf = s->record, .bytes = s->record_bytes};

        r = tr_store_transfer(s, &t);
        if (r == -ENODATA) { /* too short: it has lost bytes */
            report_error(out);
            continue;
        }
        if (r == 0)
            r = tr_commit_parse(&s->shape, s->record, s->record_bytes, s->file[file].path, &c);
        if (r < 0 && r != -ENODATA &&
            (r != -EBADMSG || tr_commit_was_whole(s->record, s->record_bytes)))
            report_error(out);
    }
    tr_commit_free(&c);
    return 0;
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
