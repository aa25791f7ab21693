/* SPDX-License-Identifier: Apache-2.0
 *
 * Values that come from an f32 checkpoint, or from a seed, keep all of their bits in a master; a
 * bf16 checkpoint begins with remainders of zero.
 */
#include "src/model/master.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#include "src/base/err.h"

int tr_master_check(const struct tr_model *m, enum tr_master kind)
{
    for (int32_t i = 0; kind && i < m->n_tensors; i++) {
        const struct tr_tensor *t = &m->tensors[i];

        if (t->frozen || tr_is_adapter(t) || tr_master_fits(kind, t->dtype))
            continue;
        if (t->dtype == TR_F32)
            return tr_error(-EINVAL,
                            "--master %s: %s is f32 and loses nothing of an update: it is for "
                            "16-bit parameters (--dtype bf16)",
                            tr_master_name(kind), t->name);
        return tr_error(-EINVAL, "--master %s: %s is %s: only bf16 is an upper half of f32",
                        tr_master_name(kind), t->name, tr_dtype_name(t->dtype));
    }
    return 0;
}

int tr_master_has(const struct tr_model *m, const struct tr_tensor *t)
{
    return m->master && !t->frozen && !tr_is_adapter(t); /* adapters are f32 themselves */
}

uint32_t tr_master_piece(const struct tr_model *m, const struct tr_tensor *t, uint64_t byte)
{
    const struct tr_table *table = t->role == TR_ROLE_EMBED ? &m->embed : &m->head;
    uint64_t row = (uint64_t)t->cols * tr_master_size(m->master);
    const struct tr_slice *s;

    if (t->role != TR_ROLE_EMBED && t->role != TR_ROLE_HEAD)
        return t->first_master_piece + (uint32_t)(byte / TR_PIECE_BYTES);
    s = &table->slices[byte / row / (uint64_t)table->slices[0].rows];
    return s->first_master_piece + (uint32_t)((byte - (uint64_t)s->row0 * row) / TR_PIECE_BYTES);
}

int tr_master_part(enum tr_master kind, enum tr_dtype type, const struct tr_master_parts *to,
                   const float *x, size_t n)
{
    int overflow = 0;

    for (size_t i = 0; i < n; i++) {
        int16_t rest;
        uint16_t weight = tr_master_split(x[i], &rest);

        if (type == TR_F16)
            weight = tr_f32_f16(x[i]);
        overflow |=
            isfinite(x[i]) && isinf(type == TR_F16 ? tr_f16_f32(weight) : tr_bf16_f32(weight));
        if (to->weights)
            to->weights[i] = weight;
        if (to->master && kind == TR_MASTER_SPLIT)
            ((int16_t *)to->master)[i] = rest;
    }
    if (to->master && kind == TR_MASTER_F32)
        memcpy(to->master, x, n * 4);
    return overflow ? -ERANGE : 0;
}

void tr_master_whole(enum tr_master kind, float *x, const uint16_t *w, const void *master, size_t n)
{
    if (kind == TR_MASTER_F32)
        memcpy(x, master, n * 4);
    for (size_t i = 0; kind == TR_MASTER_SPLIT && i < n; i++)
        x[i] = tr_master_join(w[i], ((const int16_t *)master)[i]);
}
