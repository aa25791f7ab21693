/* SPDX-License-Identifier: Apache-2.0
 *
 * Scratch spans: the engine's layout is the store's with these behind it, cut into pieces like any
 * span, so that slots, moves and checksums make no difference between the two. What is different is
 * where a write goes and what it means: to files in the store's folders that have no name, read
 * back within the step against checksums that stay in memory (invariant 8), or to a home in host
 * memory alone. Nothing of it is synced or committed, and a crash leaves nothing behind.
 *
 * A file is made only where a span has a place in it, and its space is taken at once: a disk that
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

/* The store's layout, its names borrowed, with room for the scratch spans behind. */
static int copy_layout(struct tr_offload *o, const struct tr_offload_params *p)
{
    const struct tr_layout *from = &o->store->layout;
    struct tr_layout *to = &o->layout;
    size_t pieces = from->n_pieces;

    for (uint32_t i = 0; i < p->n_scratch; i++)
        pieces += tr_pieces_of(p->scratch[i].bytes);
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
                                              .n_pieces = tr_pieces_of(scratch->bytes),
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

/* It takes O_DIRECT as the files beside it do. */
static int open_file(struct tr_store *s, uint32_t folder, uint64_t bytes)
{
    struct tr_io_file *f = &s->file[tr_file_in(TR_FILE_SCRATCH, folder)];
    const struct tr_io_file *beside = &s->file[tr_file_in(TR_FILE_GEN0, folder)];
    int r;

    f->direct = beside->direct;
    f->memory = beside->memory;
    f->path = tr_path(s->folders.path[folder], TR_SCRATCH_NAME);
    if (!f->path)
        return -ENOMEM;
    r = tr_io_open_nameless(tr_store_folder_fd(s, folder), ".", TR_SCRATCH_NAME, &f->direct);
    if (r < 0)
        return tr_error(r, "%s: cannot make a file for what does not fit in memory: %s", f->path,
                        strerror(-r));
    f->fd = r;
    r = tr_store_reserve(f, bytes);
    return r < 0 ? tr_error_prefix(r, "activations that do not fit in memory") : 0;
}

static int open_files(struct tr_offload *o, uint64_t bytes)
{
    const struct tr_stripes *s = o->scratch_stripes;
    int r = 0;

    if (!s)
        return bytes ? open_file(o->store, 0, bytes) : 0;
    if (s->bytes != bytes || s->n_folders != o->store->folders.n)
        return tr_error(-EINVAL, "stripes of %llu bytes on %u folders for %llu bytes on %u",
                        (unsigned long long)s->bytes, s->n_folders, (unsigned long long)bytes,
                        o->store->folders.n);
    for (uint32_t i = 0; i < s->n_folders && r == 0; i++)
        r = s->folder_bytes[i] ? open_file(o->store, i, s->folder_bytes[i]) : 0;
    return r;
}

int tr_scratch_open(struct tr_offload *o, const struct tr_offload_params *p)
{
    uint64_t file = 0;
    int r = copy_layout(o, p);

    if (r < 0 || !p->n_scratch)
        return r;
    o->first_scratch_piece = o->layout.n_pieces;
    o->scratch_stripes = p->scratch_stripes;
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
    return open_files(o, file);
}

void tr_scratch_close(struct tr_offload *o)
{
    for (uint32_t i = 0; i < o->store->folders.n; i++) {
        struct tr_io_file *f = &o->store->file[tr_file_in(TR_FILE_SCRATCH, i)];

        if (f->fd >= 0)
            tr_file_drop(f->fd);
        tr_free(TR_MEM_MISC, f->path);
        *f = (struct tr_io_file){.fd = -1};
    }
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

int tr_scratch_check_hash(const struct tr_offload *o, uint32_t span, uint32_t piece, uint64_t hash)
{
    uint64_t saved = o->scratch_hash[piece - o->first_scratch_piece];
    uint64_t at = o->layout.spans[span].offset + o->layout.pieces[piece].offset;
    struct tr_stripe_place place = {.folder = 0};
    char text[512];

    if (hash == saved)
        return 0;
    if (o->scratch_stripes)
        place = tr_stripes_find(o->scratch_stripes, at);
    tr_layout_describe(&o->layout, piece, text, sizeof(text));
    return tr_error(-EBADMSG, "%s: %s: damaged: checksum %016llx, it was saved with %016llx",
                    o->store->file[tr_file_in(TR_FILE_SCRATCH, place.folder)].path, text,
                    (unsigned long long)hash, (unsigned long long)saved);
}
