/* SPDX-License-Identifier: Apache-2.0
 *
 * Scratch spans: the engine's layout is the store's with these behind it, cut into pieces like any
 * span, so that slots, moves and checksums make no difference between the two. What is different is
 * where a write goes and what it means: to a file in the store's folder that has no name, read back
 * within the step against checksums that stay in memory (invariant 8), or to a home in host memory
 * alone. Nothing of it is synced or committed, and a crash leaves nothing behind.
 *
 * The file is made only where a span has a place in it, and its space is taken at once: a disk that
 * is too small says so before the first step.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "offload/engine.h"
#include "src/base/err.h"
#include "src/base/file.h"
#include "src/base/mem.h"

static uint32_t pieces_of(uint64_t bytes)
{
    return (uint32_t)((bytes + TR_PIECE_BYTES - 1) / TR_PIECE_BYTES);
}

/* The store's layout, its names borrowed, with room for the scratch spans behind. */
static int copy_layout(struct tr_offload *o, const struct tr_offload_params *p)
{
    const struct tr_layout *from = &o->store->layout;
    struct tr_layout *to = &o->layout;
    size_t pieces = from->n_pieces;

    for (uint32_t i = 0; i < p->n_scratch; i++)
        pieces += pieces_of(p->scratch[i].bytes);
    to->segments =
        tr_alloc_array(TR_MEM_MISC, (size_t)from->n_segments + p->n_scratch, sizeof(*to->segments));
    to->spans =
        tr_alloc_array(TR_MEM_MISC, (size_t)from->n_spans + p->n_scratch, sizeof(*to->spans));
    to->pieces = tr_alloc_array(TR_MEM_MISC, pieces, sizeof(*to->pieces));
    o->scratch_names = tr_alloc_array(TR_MEM_MISC, p->n_scratch, sizeof(*o->scratch_names));
    if (!to->segments || !to->spans || !to->pieces || !o->scratch_names)
        return -ENOMEM;
    memcpy(to->segments, from->segments, from->n_segments * sizeof(*to->segments));
    memcpy(to->spans, from->spans, from->n_spans * sizeof(*to->spans));
    memcpy(to->pieces, from->pieces, from->n_pieces * sizeof(*to->pieces));
    to->n_segments = from->n_segments;
    to->n_spans = from->n_spans;
    to->n_pieces = from->n_pieces;
    return 0;
}

/* *offset: where the file ends so far. */
static int add_span(struct tr_offload *o, const struct tr_scratch *scratch, uint32_t number,
                    uint64_t *offset)
{
    static char kind[] = "within a step", tensor[] = "activations";
    struct tr_layout *l = &o->layout;
    char *name = o->scratch_names[number];

    if (!scratch->bytes || scratch->bytes % TR_STORE_ALIGN)
        return tr_error(-EINVAL, "scratch span %u: %llu bytes are not a multiple of %u", number,
                        (unsigned long long)scratch->bytes, TR_STORE_ALIGN);
    snprintf(name, sizeof(o->scratch_names[number]), "scratch %u", number);
    l->segments[l->n_segments] = (struct tr_segment){name, kind};
    l->spans[l->n_spans++] = (struct tr_span){.segment = l->n_segments++,
                                              .pool = scratch->pool,
                                              .first_piece = l->n_pieces,
                                              .n_pieces = pieces_of(scratch->bytes),
                                              .offset = *offset,
                                              .bytes = scratch->bytes};
    if (scratch->spills)
        *offset += scratch->bytes;
    for (uint64_t at = 0; at < scratch->bytes; at += TR_PIECE_BYTES) {
        uint64_t left = scratch->bytes - at;

        l->pieces[l->n_pieces++] =
            (struct tr_piece){tensor, at, at, left < TR_PIECE_BYTES ? left : TR_PIECE_BYTES};
    }
    return 0;
}

/* Whether the file system takes O_DIRECT is known from the files beside it. */
static int open_file(struct tr_store *s, uint64_t bytes)
{
    struct tr_io_file *f = &s->file[TR_FILE_SCRATCH];
    int flags = O_RDWR | O_CLOEXEC | (s->file[TR_FILE_GEN0].direct ? O_DIRECT : 0);
    int r;

    f->direct = s->file[TR_FILE_GEN0].direct;
    f->memory = s->file[TR_FILE_GEN0].memory;
    f->path = tr_path(s->folder, TR_SCRATCH_NAME);
    if (!f->path)
        return -ENOMEM;
    f->fd = openat(s->folder_fd, ".", flags | O_TMPFILE, 0600);
    if (f->fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL)) {
        f->fd = openat(s->folder_fd, TR_SCRATCH_NAME, flags | O_CREAT | O_TRUNC | O_NOFOLLOW, 0600);
        if (f->fd >= 0)
            unlinkat(s->folder_fd, TR_SCRATCH_NAME, 0);
    }
    if (f->fd < 0)
        return tr_error(-errno, "%s: cannot make a file for what does not fit in memory: %s",
                        f->path, strerror(errno));
    r = tr_store_reserve(f, bytes);
    return r < 0 ? tr_error_prefix(r, "activations that do not fit in memory") : 0;
}

int tr_scratch_open(struct tr_offload *o, const struct tr_offload_params *p)
{
    uint64_t file = 0;
    int r = copy_layout(o, p);

    if (r < 0 || !p->n_scratch)
        return r;
    o->first_scratch_piece = o->layout.n_pieces;
    o->scratch_placed = tr_alloc(TR_MEM_MISC, p->n_scratch);
    if (!o->scratch_placed)
        return -ENOMEM;
    for (uint32_t i = 0; i < p->n_scratch && r == 0; i++) {
        o->scratch_placed[i] = p->scratch[i].spills != 0;
        r = add_span(o, &p->scratch[i], i, &file);
    }
    if (r < 0)
        return r;
    o->scratch_hash = tr_alloc_array(TR_MEM_MISC, o->layout.n_pieces - o->first_scratch_piece,
                                     sizeof(*o->scratch_hash));
    if (!o->scratch_hash)
        return -ENOMEM;
    return file ? open_file(o->store, file) : 0;
}

void tr_scratch_close(struct tr_offload *o)
{
    struct tr_io_file *f = &o->store->file[TR_FILE_SCRATCH];

    if (f->fd >= 0)
        close(f->fd);
    tr_free(TR_MEM_MISC, f->path);
    *f = (struct tr_io_file){.fd = -1};
    tr_free(TR_MEM_MISC, o->scratch_placed);
    tr_free(TR_MEM_MISC, o->scratch_hash);
    tr_free(TR_MEM_MISC, o->scratch_names);
    tr_free(TR_MEM_MISC, o->layout.segments);
    tr_free(TR_MEM_MISC, o->layout.spans);
    tr_free(TR_MEM_MISC, o->layout.pieces);
}

int tr_scratch_check_saves(const struct tr_offload *o, const struct tr_visit *visits,
                           const struct tr_schedule *s)
{
    for (uint32_t v = 0; v < s->n_visits; v++)
        for (uint32_t k = 0; k < visits[v].n_spans; k++) {
            uint32_t span = visits[v].span[k], number = span - o->slots.first_scratch;

            if (!(s->saved[v] >> k & 1) || !tr_is_scratch(o, span) || tr_home_of(&o->homes, span) ||
                o->scratch_placed[number])
                continue;
            return tr_error(-ENOSPC, "visit %u: scratch span %u must be saved and has no place", v,
                            number);
        }
    return 0;
}

int tr_scratch_check_hash(const struct tr_offload *o, uint32_t piece, uint64_t hash)
{
    uint64_t saved = o->scratch_hash[piece - o->first_scratch_piece];
    char text[512];

    if (hash == saved)
        return 0;
    tr_layout_describe(&o->layout, piece, text, sizeof(text));
    return tr_error(-EBADMSG, "%s: %s: damaged: checksum %016llx, it was saved with %016llx",
                    o->store->file[TR_FILE_SCRATCH].path, text, (unsigned long long)hash,
                    (unsigned long long)saved);
}
