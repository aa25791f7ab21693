/* SPDX-License-Identifier: Apache-2.0
 *
 * Layout of a model, from its shapes. A builder appends in disk order to four arrays (segments,
 * spans, pieces, tensors); every tensor begins at a multiple of 4096 in its span and is cut into
 * pieces of 16 MiB. The shapes table below is the one place that knows what a family's tensors are
 * called. What can fail is memory, and the number of pieces, which a config.json may drive beyond
 * any drive: both are looked at once, at the end (`bad`).
 */
#include "src/model/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "offload/offload.h"
#include "src/base/err.h"
#include "src/base/mem.h"
#include "src/model/freeze.h"
#include "src/model/master.h"

#define SLICE_ROWS  4096
#define SLICE_BYTES (64u << 20)
#define SLICE_STEP  256
#define SLICES      8 /* at least, of a table that has so many steps */

enum extent { ONE, HIDDEN, FFN, VOCAB, HEAD_DIM, Q_ROWS, KV_ROWS, RANK };
enum when { ALWAYS, QKV_BIAS, O_BIAS, QK_NORM, ADAPTED };

#define ADAPTER(target, base, rows, cols, part)                                                    \
    [TR_LORA_A(target)] = {base ".lora_A.weight", RANK, cols, ADAPTED, part},                      \
    [TR_LORA_B(target)] = {base ".lora_B.weight", rows, RANK, ADAPTED, part}

static const struct {
    const char *name; /* of a block's tensors: after "model.layers.N." */
    enum extent rows, cols;
    enum when when;
    enum tr_part part; /* TR_PARTS: not of a block */
} shapes[TR_ROLES] = {
    [TR_ROLE_EMBED] = {"model.embed_tokens.weight", VOCAB, HIDDEN, ALWAYS, TR_PARTS},
    [TR_ROLE_NORM1] = {"input_layernorm.weight", ONE, HIDDEN, ALWAYS, TR_PART_KV},
    [TR_ROLE_Q] = {"self_attn.q_proj.weight", Q_ROWS, HIDDEN, ALWAYS, TR_PART_Q},
    [TR_ROLE_Q_BIAS] = {"self_attn.q_proj.bias", ONE, Q_ROWS, QKV_BIAS, TR_PART_Q},
    [TR_ROLE_Q_NORM] = {"self_attn.q_norm.weight", ONE, HEAD_DIM, QK_NORM, TR_PART_Q},
    [TR_ROLE_K] = {"self_attn.k_proj.weight", KV_ROWS, HIDDEN, ALWAYS, TR_PART_KV},
    [TR_ROLE_K_BIAS] = {"self_attn.k_proj.bias", ONE, KV_ROWS, QKV_BIAS, TR_PART_KV},
    [TR_ROLE_K_NORM] = {"self_attn.k_norm.weight", ONE, HEAD_DIM, QK_NORM, TR_PART_KV},
    [TR_ROLE_V] = {"self_attn.v_proj.weight", KV_ROWS, HIDDEN, ALWAYS, TR_PART_KV},
    [TR_ROLE_V_BIAS] = {"self_attn.v_proj.bias", ONE, KV_ROWS, QKV_BIAS, TR_PART_KV},
    [TR_ROLE_O] = {"self_attn.o_proj.weight", HIDDEN, Q_ROWS, ALWAYS, TR_PART_O},
    [TR_ROLE_O_BIAS] = {"self_attn.o_proj.bias", ONE, HIDDEN, O_BIAS, TR_PART_O},
    [TR_ROLE_NORM2] = {"post_attention_layernorm.weight", ONE, HIDDEN, ALWAYS, TR_PART_UP},
    [TR_ROLE_GATE] = {"mlp.gate_proj.weight", FFN, HIDDEN, ALWAYS, TR_PART_GATE},
    [TR_ROLE_UP] = {"mlp.up_proj.weight", FFN, HIDDEN, ALWAYS, TR_PART_UP},
    [TR_ROLE_DOWN] = {"mlp.down_proj.weight", HIDDEN, FFN, ALWAYS, TR_PART_DOWN},
    [TR_ROLE_FINAL_NORM] = {"model.norm.weight", ONE, HIDDEN, ALWAYS, TR_PARTS},
    [TR_ROLE_HEAD] = {"lm_head.weight", VOCAB, HIDDEN, ALWAYS, TR_PARTS},
    ADAPTER(TR_LORA_Q, "self_attn.q_proj", Q_ROWS, HIDDEN, TR_PART_Q),
    ADAPTER(TR_LORA_K, "self_attn.k_proj", KV_ROWS, HIDDEN, TR_PART_KV),
    ADAPTER(TR_LORA_V, "self_attn.v_proj", KV_ROWS, HIDDEN, TR_PART_KV),
    ADAPTER(TR_LORA_O, "self_attn.o_proj", HIDDEN, Q_ROWS, TR_PART_O),
    ADAPTER(TR_LORA_GATE, "mlp.gate_proj", FFN, HIDDEN, TR_PART_GATE),
    ADAPTER(TR_LORA_UP, "mlp.up_proj", FFN, HIDDEN, TR_PART_UP),
    ADAPTER(TR_LORA_DOWN, "mlp.down_proj", HIDDEN, FFN, TR_PART_DOWN),
};

struct builder {
    struct tr_model *m;
    const struct tr_model_params *p;
    uint32_t room_segments, room_spans, room_pieces, room_tensors;
    int bad;  /* memory has run out, or: nothing is appended any more */
    int full; /* there are as many pieces as a layout may have */
};

/* A name for a size, so that the table above reads like the model's own documentation. */
static int64_t extent_of(const struct tr_model *m, enum extent e)
{
    const struct tr_model_config *c = &m->config;

    switch (e) {
    case HIDDEN:
        return c->hidden;
    case FFN:
        return c->ffn;
    case VOCAB:
        return c->vocab;
    case HEAD_DIM:
        return c->head_dim;
    case Q_ROWS:
        return (int64_t)c->heads * c->head_dim;
    case KV_ROWS:
        return (int64_t)c->kv_heads * c->head_dim;
    case RANK:
        return m->lora.rank;
    case ONE:
        break;
    }
    return 1;
}

static int has_role(const struct tr_model_config *c, enum tr_role role)
{
    switch (shapes[role].when) {
    case QKV_BIAS:
        return c->qkv_bias;
    case O_BIAS:
        return c->o_bias;
    case QK_NORM:
        return c->qk_norm;
    case ADAPTED: /* its tensors come behind all others */
        return 0;
    case ALWAYS:
        break;
    }
    return 1;
}

/* The array with room for entry n, new entries zeroed; the old one where memory has run out. */
static void *reserve(struct builder *b, void *array, uint32_t *room, uint32_t n, size_t size)
{
    uint32_t more = *room ? *room * 2 : 64;
    void *p;

    if (b->bad || n < *room)
        return array;
    p = tr_realloc(TR_MEM_MISC, array, (size_t)more * size);
    if (!p) {
        b->bad = 1;
        return array;
    }
    memset((char *)p + (size_t)*room * size, 0, (size_t)(more - *room) * size);
    *room = more;
    return p;
}

static char *copy_name(struct builder *b, const char *prefix, const char *name)
{
    size_t n = strlen(prefix) + strlen(name) + 1;
    char *s = tr_alloc(TR_MEM_MISC, n);

    if (s)
        snprintf(s, n, "%s%s", prefix, name);
    else
        b->bad = 1;
    return s;
}

/* A segment is what one phase needs of a record and another does not: parameters are read in every
 * pass, optimizer state only where the update is made. */
static void add_segment(struct builder *b, const char *record, const char *kind)
{
    struct tr_layout *l = &b->m->layout;

    l->segments = reserve(b, l->segments, &b->room_segments, l->n_segments, sizeof(*l->segments));
    if (b->bad)
        return;
    l->segments[l->n_segments].record = copy_name(b, "", record);
    l->segments[l->n_segments++].kind = copy_name(b, "", kind);
}

/* Opens a span of the newest segment; the following add_bytes belong to it. */
static uint32_t add_span(struct builder *b, uint32_t pool)
{
    struct tr_layout *l = &b->m->layout;

    l->spans = reserve(b, l->spans, &b->room_spans, l->n_spans, sizeof(*l->spans));
    if (b->bad)
        return 0;
    l->spans[l->n_spans] = (struct tr_span){.segment = l->n_segments - 1,
                                            .pool = pool,
                                            .first_piece = l->n_pieces,
                                            .offset = tr_layout_bytes(l)};
    return l->n_spans++;
}

/* Bytes [from, from + bytes) of a tensor at the end of the newest span, as pieces; returns where.
 */
static uint64_t add_bytes(struct builder *b, const char *prefix, const char *name, uint64_t from,
                          uint64_t bytes)
{
    struct tr_layout *l = &b->m->layout;
    uint64_t at, done = 0;
    struct tr_span *s;

    if (b->bad)
        return 0;
    s = &l->spans[l->n_spans - 1];
    at = s->bytes;
    while (done < bytes) {
        struct tr_piece *p;

        if (l->n_pieces == TR_LAYOUT_PIECES)
            b->bad = b->full = 1;
        l->pieces = reserve(b, l->pieces, &b->room_pieces, l->n_pieces, sizeof(*l->pieces));
        if (b->bad)
            return 0;
        p = &l->pieces[l->n_pieces];
        p->bytes = bytes - done < TR_PIECE_BYTES ? bytes - done : TR_PIECE_BYTES;
        p->name = copy_name(b, prefix, name);
        p->tensor_offset = from + done;
        p->offset = at + done;
        done += p->bytes;
        l->n_pieces++;
        s->n_pieces++;
    }
    s->bytes = tr_round_up(at + bytes, TR_STORE_ALIGN);
    return at;
}

/* The entry alone; where its bytes lie is said by add_params, since a table's are cut into slices.
 */
static int32_t add_tensor(struct builder *b, enum tr_role role, int32_t layer)
{
    struct tr_model *m = b->m;
    int adapter = role >= TR_ROLE_LORA;
    char prefix[48] = "";
    const char *name = shapes[role].name;
    struct tr_tensor *t;

    m->tensors =
        reserve(b, m->tensors, &b->room_tensors, (uint32_t)m->n_tensors, sizeof(*m->tensors));
    if (b->bad)
        return -1;
    if (layer >= 0)
        snprintf(prefix, sizeof(prefix), "model.layers.%d.", layer);
    if (role == TR_ROLE_EMBED && b->p->tied_as_head)
        name = shapes[TR_ROLE_HEAD].name;
    t = &m->tensors[m->n_tensors];
    t->name = copy_name(b, prefix, name);
    t->role = role;
    t->layer = layer;
    t->rows = extent_of(m, shapes[role].rows);
    t->cols = extent_of(m, shapes[role].cols);
    t->dims = shapes[role].rows == ONE ? 1 : 2;
    t->dtype = adapter ? TR_F32 : b->p->dtypes[role];
    t->bytes = (uint64_t)t->rows * (uint64_t)t->cols * tr_dtype_size(t->dtype);
    t->frozen = !adapter && t->name &&
                (tr_lora_freezes(&m->lora) || tr_freeze_matches(b->p->freeze, t->name));
    t->first_param = m->n_params;
    t->first_trained = m->n_trained;
    m->n_params += adapter ? 0 : (uint64_t)t->rows * (uint64_t)t->cols;
    m->n_trained += t->frozen ? 0 : (uint64_t)t->rows * (uint64_t)t->cols;
    return m->n_tensors++;
}

static void add_params(struct builder *b, int32_t tensor)
{
    struct tr_tensor *t = b->bad ? NULL : &b->m->tensors[tensor];

    if (!t)
        return;
    t->first_piece = b->m->layout.n_pieces;
    t->offset = add_bytes(b, "", t->name, 0, t->bytes);
    t->n_pieces = b->m->layout.n_pieces - t->first_piece;
}

/* Both parts of a tensor's state behind one another, and its master: an update reads and writes
 * all of them. */
static void add_state(struct builder *b, int32_t tensor)
{
    struct tr_tensor *t = b->bad ? NULL : &b->m->tensors[tensor];
    struct tr_state_part parts[2];
    uint64_t master;

    if (!t || t->frozen || !tr_model_keeps(b->m, t))
        return;
    master = tr_master_has(b->m, t) ? tr_master_size(b->p->master) : 0;
    tr_state_parts(tr_model_state(b->m, t), &b->m->config, t, (struct tr_state_rows){0, t->rows},
                   parts);
    t->m_offset = add_bytes(b, parts[0].name, t->name, 0, parts[0].bytes);
    t->v_offset = add_bytes(b, parts[1].name, t->name, 0, parts[1].bytes);
    t->first_master_piece = b->m->layout.n_pieces;
    t->master_offset =
        add_bytes(b, "master of ", t->name, 0, (uint64_t)(t->rows * t->cols) * master);
}

static void add_parked(struct builder *b, int32_t tensor)
{
    struct tr_tensor *t = b->bad ? NULL : &b->m->tensors[tensor];
    uint64_t size = tr_dtype_size(tr_parked_dtype(b->p->parked));

    if (t && !t->frozen)
        t->g_offset = add_bytes(b, "g of ", t->name, 0, (uint64_t)(t->rows * t->cols) * size);
}

/* A small model's table is cut as well: its slot, its logits and its gradient would otherwise be
 * the largest things on a device that holds one block at a time. */
static int64_t slice_rows(const struct tr_model_config *c)
{
    int64_t rows = SLICE_BYTES / ((int64_t)c->hidden * 4) / SLICE_STEP * SLICE_STEP;
    int64_t share = (int64_t)tr_round_up((size_t)c->vocab, SLICES * SLICE_STEP) / SLICES;

    rows = rows < share ? rows : share;
    rows = rows < SLICE_ROWS ? rows : SLICE_ROWS;
    return rows < SLICE_STEP ? SLICE_STEP : rows;
}

static void add_slice_params(struct builder *b, struct tr_table *table)
{
    struct tr_tensor *t = b->bad ? NULL : &b->m->tensors[table->tensor];

    for (int32_t i = 0; !b->bad && i < table->n_slices; i++) {
        struct tr_slice *s = &table->slices[i];
        uint64_t row = (uint64_t)t->cols * tr_dtype_size(t->dtype);

        s->params_span = add_span(b, TR_SLOTS_TABLE);
        add_bytes(b, "", t->name, (uint64_t)s->row0 * row, (uint64_t)s->rows * row);
    }
}

static void add_slice_state(struct builder *b, struct tr_table *table)
{
    struct tr_tensor *t = b->bad ? NULL : &b->m->tensors[table->tensor];
    uint64_t from[2] = {0};

    for (int32_t i = 0; !b->bad && i < table->n_slices; i++) {
        struct tr_slice *s = &table->slices[i];
        uint64_t row = (uint64_t)t->cols * tr_master_size(b->p->master);
        struct tr_state_part parts[2];

        tr_state_parts(b->p->state, &b->m->config, t, (struct tr_state_rows){s->row0, s->rows},
                       parts);
        s->state_span = add_span(b, TR_SLOTS_TABLE_STATE);
        add_bytes(b, parts[0].name, t->name, from[0], parts[0].bytes);
        s->v_offset = add_bytes(b, parts[1].name, t->name, from[1], parts[1].bytes);
        s->first_master_piece = b->m->layout.n_pieces;
        s->master_offset =
            add_bytes(b, "master of ", t->name, (uint64_t)s->row0 * row, (uint64_t)s->rows * row);
        from[0] += parts[0].bytes;
        from[1] += parts[1].bytes;
    }
}

static void add_slice_parked(struct builder *b, struct tr_table *table)
{
    struct tr_tensor *t = b->bad ? NULL : &b->m->tensors[table->tensor];
    uint64_t size = tr_dtype_size(tr_parked_dtype(b->p->parked));

    for (int32_t i = 0; !b->bad && i < table->n_slices; i++) {
        struct tr_slice *s = &table->slices[i];
        uint64_t row = (uint64_t)t->cols * size;

        s->parked_span = add_span(b, TR_SLOTS_TABLE_PARKED);
        add_bytes(b, "g of ", t->name, (uint64_t)s->row0 * row, (uint64_t)s->rows * row);
    }
}

static void add_table(struct builder *b, struct tr_table *table, enum tr_role role,
                      const char *record)
{
    int64_t vocab = b->m->config.vocab, rows = slice_rows(&b->m->config);
    uint32_t first;

    table->tensor = add_tensor(b, role, -1);
    table->slices =
        tr_alloc_array(TR_MEM_MISC, (size_t)((vocab + rows - 1) / rows), sizeof(*table->slices));
    b->bad |= !table->slices;
    for (int64_t row = 0; !b->bad && row < vocab; row += rows) {
        struct tr_slice *s = &table->slices[table->n_slices++];

        s->row0 = row;
        s->rows = vocab - row < rows ? vocab - row : rows;
    }
    add_segment(b, record, "params");
    first = b->m->layout.n_pieces;
    add_slice_params(b, table);
    if (!b->bad) {
        b->m->tensors[table->tensor].first_piece = first;
        b->m->tensors[table->tensor].n_pieces = b->m->layout.n_pieces - first;
    }
    for (int32_t i = 0; !b->bad && i < table->n_slices; i++)
        table->slices[i].state_span = table->slices[i].parked_span = TR_NONE;
    if (!b->bad && b->m->has_state && tr_trains(b->m, table->tensor)) {
        add_segment(b, record, "state");
        add_slice_state(b, table);
    }
    if (!b->bad && b->p->parked && tr_trains(b->m, table->tensor) &&
        (role != TR_ROLE_EMBED || b->m->config.tied)) { /* tr_embeds_at_once */
        add_segment(b, record, "gradient");
        add_slice_parked(b, table);
    }
}

static int is_of_part(const struct tr_block *block, int role, int part)
{
    return block->tensor[role] >= 0 && (int)shapes[role].part == part;
}

static void add_part_params(struct builder *b, struct tr_block *block, int part)
{
    block->params_span[part] = add_span(b, TR_SLOTS_BLOCK + part);
    for (int r = 0; r < TR_ROLES_BASE; r++)
        if (is_of_part(block, r, part))
            add_params(b, block->tensor[r]);
}

static void add_part_state(struct builder *b, int32_t layer, int part)
{
    struct tr_block *block = &b->m->blocks[layer];

    block->state_span[part] = TR_NONE;
    if (b->bad || !tr_trains_part(b->m, layer, (enum tr_part)part))
        return;
    block->state_span[part] = add_span(b, TR_SLOTS_BLOCK_STATE + part);
    for (int r = 0; r < TR_ROLES_BASE; r++)
        if (is_of_part(block, r, part))
            add_state(b, block->tensor[r]);
}

static int trains_block(const struct builder *b, int32_t layer)
{
    int trains = 0;

    for (int part = 0; !b->bad && part < TR_PARTS; part++)
        trains |= tr_trains_part(b->m, layer, (enum tr_part)part);
    return trains;
}

static void add_part_parked(struct builder *b, int32_t layer, int part)
{
    struct tr_block *block = &b->m->blocks[layer];

    block->parked_span[part] = TR_NONE;
    if (b->bad || !tr_trains_part(b->m, layer, (enum tr_part)part))
        return;
    block->parked_span[part] = add_span(b, TR_SLOTS_BLOCK_PARKED + part);
    for (int r = 0; r < TR_ROLES_BASE; r++)
        if (is_of_part(block, r, part))
            add_parked(b, block->tensor[r]);
}

static void add_block(struct builder *b, int32_t layer)
{
    struct tr_block *block = &b->m->blocks[layer];
    char record[32];

    snprintf(record, sizeof(record), "block %d", layer);
    for (int r = 0; r < TR_ROLES; r++)
        block->tensor[r] = -1;
    for (int part = 0; part < TR_PARTS; part++)
        block->adapter_span[part] = TR_NONE;
    for (int r = 0; r < TR_ROLES_BASE; r++) {
        int here = r > TR_ROLE_EMBED && r < TR_ROLE_FINAL_NORM && has_role(&b->m->config, r);

        block->tensor[r] = here ? add_tensor(b, (enum tr_role)r, layer) : -1;
    }
    add_segment(b, record, "params");
    for (int part = 0; part < TR_PARTS; part++)
        add_part_params(b, block, part);
    if (b->m->has_state && trains_block(b, layer))
        add_segment(b, record, "state");
    for (int part = 0; b->m->has_state && part < TR_PARTS; part++)
        add_part_state(b, layer, part);
    if (b->p->parked && trains_block(b, layer))
        add_segment(b, record, "gradient");
    for (int part = 0; b->p->parked && part < TR_PARTS; part++)
        add_part_parked(b, layer, part);
}

static void add_part_adapter(struct builder *b, struct tr_block *block, int part)
{
    block->adapter_span[part] = add_span(b, TR_SLOTS_ADAPTER);
    for (int r = TR_ROLE_LORA; r < TR_ROLES; r++)
        if (is_of_part(block, r, part)) {
            add_params(b, block->tensor[r]);
            add_state(b, block->tensor[r]);
            if (b->p->parked)
                add_parked(b, block->tensor[r]);
        }
}

static void add_adapters(struct builder *b, int32_t layer)
{
    struct tr_block *block = &b->m->blocks[layer];
    unsigned parts = 0;
    char record[32];

    snprintf(record, sizeof(record), "adapter %d", layer);
    for (int r = TR_ROLE_LORA; r < TR_ROLES; r++)
        if (b->m->lora.targets >> (r - TR_ROLE_LORA) / 2 & 1) {
            block->tensor[r] = add_tensor(b, (enum tr_role)r, layer);
            parts |= 1u << shapes[r].part;
        }
    add_segment(b, record, "params and state");
    for (int part = 0; !b->bad && part < TR_PARTS; part++)
        if (parts >> part & 1)
            add_part_adapter(b, block, part);
}

/* A record of its own and not a part of the head: a tied model has no head to put it in. */
static void add_final_norm(struct builder *b)
{
    struct tr_model *m = b->m;

    m->final_norm = add_tensor(b, TR_ROLE_FINAL_NORM, -1);
    add_segment(b, "final norm", "params");
    m->final_norm_span = add_span(b, TR_SLOTS_NORM);
    add_params(b, m->final_norm);
    m->final_norm_state_span = m->final_norm_parked_span = TR_NONE;
    if (m->has_state && !b->bad && tr_trains(m, m->final_norm)) {
        add_segment(b, "final norm", "state");
        m->final_norm_state_span = add_span(b, TR_SLOTS_NORM_STATE);
        add_state(b, m->final_norm);
    }
    if (b->p->parked && !b->bad && tr_trains(m, m->final_norm)) {
        add_segment(b, "final norm", "gradient");
        m->final_norm_parked_span = add_span(b, TR_SLOTS_NORM_PARKED);
        add_parked(b, m->final_norm);
    }
}

static int too_large(void)
{
    return tr_error(-EFBIG,
                    "config.json: a model too large for a store: it would have more than %u pieces "
                    "of %u MiB",
                    TR_LAYOUT_PIECES, TR_PIECE_BYTES >> 20);
}

int tr_model_open(struct tr_model **out, const struct tr_model_params *p)
{
    struct tr_model *m = tr_alloc(TR_MEM_MISC, sizeof(*m));
    struct builder b = {.m = m, .p = p};

    *out = NULL;
    if (!m)
        return -ENOMEM;
    m->config = *p->config;
    m->dtype = p->dtypes[TR_ROLE_EMBED]; /* what the residual stream starts as */
    m->state = p->state;
    m->master = p->master;
    m->has_state = p->state != TR_STATE_NONE || p->master != TR_MASTER_NONE;
    m->parked = p->parked;
    m->lora = p->lora;
    m->head.tensor = -1;
    m->blocks = tr_alloc_array(TR_MEM_MISC, (size_t)m->config.layers, sizeof(*m->blocks));
    m->freeze = p->freeze ? copy_name(&b, "", p->freeze) : NULL;
    b.bad |= !m->blocks;
    add_table(&b, &m->embed, TR_ROLE_EMBED, "embedding");
    for (int32_t i = 0; !b.bad && i < m->config.layers; i++)
        add_block(&b, i);
    add_final_norm(&b);
    if (!m->config.tied)
        add_table(&b, &m->head, TR_ROLE_HEAD, "head");
    m->n_base = m->n_tensors;
    for (int32_t i = 0; !b.bad && m->lora.rank && i < m->config.layers; i++)
        add_adapters(&b, i);
    if (b.bad) {
        tr_model_close(m);
        return b.full ? too_large() : -ENOMEM;
    }
    *out = m;
    return 0;
}

enum tr_part tr_model_part(enum tr_role role)
{
    return shapes[role].part;
}

void tr_model_types(const struct tr_model *m, enum tr_dtype types[TR_ROLES])
{
    for (int i = 0; i < TR_ROLES; i++)
        types[i] = m->dtype;
    for (int32_t i = 0; i < m->n_tensors; i++)
        types[m->tensors[i].role] = m->tensors[i].dtype;
}

int tr_model_tied_as_head(const struct tr_model *m)
{
    return !strcmp(m->tensors[m->embed.tensor].name, shapes[TR_ROLE_HEAD].name);
}

/* What the table was made of; types is where its list of them is to lie. */
static struct tr_model_params params_of(const struct tr_model *m, enum tr_dtype types[TR_ROLES])
{
    tr_model_types(m, types);
    return (struct tr_model_params){.config = &m->config,
                                    .dtypes = types,
                                    .state = m->state,
                                    .tied_as_head = tr_model_tied_as_head(m),
                                    .freeze = m->freeze,
                                    .parked = m->parked,
                                    .master = m->master,
                                    .lora = m->lora};
}

int tr_model_like(struct tr_model **out, const struct tr_model *m, const struct tr_model_params *p)
{
    enum tr_dtype types[TR_ROLES];
    struct tr_model_params made = params_of(m, types);

    made.state = p->state;
    made.freeze = p->freeze;
    made.master = p->master;
    return tr_model_open(out, &made);
}

int tr_model_park(struct tr_model **out, const struct tr_model *m, enum tr_parked parked)
{
    enum tr_dtype types[TR_ROLES];
    struct tr_model_params p = params_of(m, types);

    p.parked = parked;
    return tr_model_open(out, &p);
}

int tr_model_adapt(struct tr_model **out, const struct tr_model *m, const struct tr_lora *lora)
{
    enum tr_dtype types[TR_ROLES];
    struct tr_model_params p = params_of(m, types);

    p.lora = *lora;
    return tr_model_open(out, &p);
}

int tr_model_keeps(const struct tr_model *m, const struct tr_tensor *t)
{
    return tr_is_adapter(t) ? m->lora.state != TR_STATE_NONE : m->has_state;
}

enum tr_state_kind tr_model_state(const struct tr_model *m, const struct tr_tensor *t)
{
    return tr_is_adapter(t) ? m->lora.state : m->state;
}

enum tr_dtype tr_parked_dtype(enum tr_parked parked)
{
    return parked == TR_PARKED_BF16 ? TR_BF16 : TR_F32;
}

static const char *const parked_names[TR_PARKED_KINDS] = {
    [TR_PARKED_NONE] = "none", [TR_PARKED_F32] = "f32", [TR_PARKED_BF16] = "bf16"};

const char *tr_parked_name(enum tr_parked parked)
{
    return parked_names[parked];
}

int tr_parked_parse(const char *name, enum tr_parked *parked)
{
    for (int i = 0; name && i < TR_PARKED_KINDS; i++)
        if (!strcmp(name, parked_names[i])) {
            *parked = (enum tr_parked)i;
            return 0;
        }
    return -EINVAL;
}

void tr_model_close(struct tr_model *m)
{
    if (!m)
        return;
    for (int32_t i = 0; i < m->n_tensors; i++)
        tr_free(TR_MEM_MISC, m->tensors[i].name);
    tr_layout_free(&m->layout);
    tr_free(TR_MEM_MISC, m->tensors);
    tr_free(TR_MEM_MISC, m->embed.slices);
    tr_free(TR_MEM_MISC, m->head.slices);
    tr_free(TR_MEM_MISC, m->blocks);
    tr_free(TR_MEM_MISC, m->freeze);
    tr_free(TR_MEM_MISC, m);
}

static const struct tr_tensor *find_in(const struct tr_model *m, const int32_t *list, size_t n,
                                       const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (list[i] >= 0 && !strcmp(m->tensors[list[i]].name, name))
            return &m->tensors[list[i]];
    return NULL;
}

const struct tr_tensor *tr_model_find(const struct tr_model *m, const char *name)
{
    static const char prefix[] = "model.layers.";
    int32_t outside[] = {m->embed.tensor, m->final_norm, m->head.tensor};
    long layer;

    if (strncmp(name, prefix, sizeof(prefix) - 1))
        return find_in(m, outside, 3, name);
    layer = strtol(name + sizeof(prefix) - 1, NULL, 10);
    if (layer < 0 || layer >= m->config.layers)
        return NULL;
    return find_in(m, m->blocks[layer].tensor, TR_ROLES, name);
}

const struct tr_table *tr_model_head(const struct tr_model *m)
{
    return m->head.tensor >= 0 ? &m->head : &m->embed;
}
