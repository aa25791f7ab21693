/* SPDX-License-Identifier: Apache-2.0
 *
 * What optimizers keep of a tensor: sizes written down here by hand, for a model with grouped
 * queries whose heads are wider than hidden / heads, biases and norms of heads. And that parts lie
 * in their spans without touching each other, also where a table is cut into slices.
 */
#include "tests/model/test.h"

#include "src/model/master.h"

enum { HIDDEN = 24, FFN = 40, HEADS = 4, KV_HEADS = 2, HEAD_DIM = 10, VOCAB = 900 };

static struct tr_model *open_model(enum tr_state_kind kind)
{
    static const struct tr_model_config config = {.hidden = HIDDEN,
                                                  .ffn = FFN,
                                                  .layers = 2,
                                                  .heads = HEADS,
                                                  .kv_heads = KV_HEADS,
                                                  .head_dim = HEAD_DIM,
                                                  .vocab = VOCAB,
                                                  .qkv_bias = 1,
                                                  .qk_norm = 1};
    enum tr_dtype types[TR_ROLES] = {TR_F32};
    struct tr_model *m;

    assert_int_equal(tr_model_open(&m, &(struct tr_model_params){&config, types, kind, 0, NULL}),
                     0);
    return m;
}

/* By role: elements of a block, and how many blocks. */
static const struct {
    const char *tensor;
    int64_t block, count;
} adam_mini[] = {
    {"model.embed_tokens.weight", HIDDEN, VOCAB},
    {"lm_head.weight", HIDDEN, VOCAB},
    {"model.norm.weight", HIDDEN, 1},
    {"model.layers.1.input_layernorm.weight", HIDDEN, 1},
    {"model.layers.1.post_attention_layernorm.weight", HIDDEN, 1},
    {"model.layers.1.self_attn.q_proj.weight", HEAD_DIM *HIDDEN, HEADS},
    {"model.layers.1.self_attn.k_proj.weight", HEAD_DIM *HIDDEN, KV_HEADS},
    {"model.layers.1.self_attn.v_proj.weight", KV_HEADS *HEAD_DIM *HIDDEN, 1},
    {"model.layers.1.self_attn.q_proj.bias", 1, HEADS *HEAD_DIM},
    {"model.layers.1.self_attn.k_proj.bias", 1, KV_HEADS *HEAD_DIM},
    {"model.layers.1.self_attn.v_proj.bias", 1, KV_HEADS *HEAD_DIM},
    {"model.layers.1.self_attn.q_norm.weight", HEAD_DIM, 1},
    {"model.layers.1.self_attn.k_norm.weight", HEAD_DIM, 1},
    {"model.layers.1.self_attn.o_proj.weight", HEADS *HEAD_DIM, HIDDEN},
    {"model.layers.1.mlp.gate_proj.weight", HIDDEN, FFN},
    {"model.layers.1.mlp.up_proj.weight", HIDDEN, FFN},
    {"model.layers.1.mlp.down_proj.weight", FFN, HIDDEN},
};

static void blocks_of_adam_mini(void **state)
{
    struct tr_model *m = open_model(TR_STATE_ADAM_MINI);

    (void)state;
    for (size_t i = 0; i < sizeof(adam_mini) / sizeof(adam_mini[0]); i++) {
        const struct tr_tensor *t = tr_model_find(m, adam_mini[i].tensor);
        struct tr_state_part parts[2];

        assert_non_null(t);
        if (tr_state_block(&m->config, t) != adam_mini[i].block)
            fail_msg("%s: blocks of %lld", t->name, (long long)tr_state_block(&m->config, t));
        tr_state_parts(m->state, &m->config, t, (struct tr_state_rows){0, t->rows}, parts);
        assert_int_equal(parts[0].bytes, adam_mini[i].block * adam_mini[i].count * 4);
        assert_int_equal(parts[1].bytes, adam_mini[i].count * 4);
    }
    tr_model_close(m);
}

static void sizes_of_the_others(void **state)
{
    static const struct {
        enum tr_state_kind kind;
        int64_t m, v; /* bytes of an element */
    } kinds[] = {{TR_STATE_NONE, 0, 0},
                 {TR_STATE_MOMENTUM, 4, 0},
                 {TR_STATE_ADAMW, 4, 4},
                 {TR_STATE_MOMENTUM_BF16, 2, 0},
                 {TR_STATE_ADAMW_BF16, 2, 2}};

    (void)state;
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        struct tr_model *m = open_model(kinds[i].kind);
        const struct tr_tensor *t = tr_model_find(m, "model.layers.0.mlp.up_proj.weight");
        struct tr_state_part parts[2];

        tr_state_parts(m->state, &m->config, t, (struct tr_state_rows){0, FFN}, parts);
        assert_int_equal(parts[0].bytes, kinds[i].m * FFN * HIDDEN);
        assert_int_equal(parts[1].bytes, kinds[i].v * FFN * HIDDEN);
        assert_int_equal(m->has_state, kinds[i].kind != TR_STATE_NONE);
        tr_model_close(m);
    }
}

/* Of 960 and 24 elements, each 256 of which have four bytes more. */
static void blocks_of_bytes(void **state)
{
    static const struct {
        enum tr_state_kind kind;
        const char *tensor;
        int64_t m, v; /* bytes */
    } sizes[] = {{TR_STATE_ADAMW_8BIT, "model.layers.0.mlp.up_proj.weight", 960 + 16, 960 + 16},
                 {TR_STATE_ADAMW_8BIT, "model.norm.weight", 24 + 4, 24 + 4},
                 {TR_STATE_MOMENTUM_8BIT, "model.layers.0.mlp.up_proj.weight", 960 + 16, 0},
                 {TR_STATE_ADAM_MINI_8BIT, "model.layers.0.mlp.up_proj.weight", 960 + 16, FFN * 4}};

    (void)state;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct tr_model *m = open_model(sizes[i].kind);
        const struct tr_tensor *t = tr_model_find(m, sizes[i].tensor);
        struct tr_state_part parts[2];

        tr_state_parts(m->state, &m->config, t, (struct tr_state_rows){0, t->rows}, parts);
        assert_int_equal(parts[0].bytes, sizes[i].m);
        assert_int_equal(parts[1].bytes, sizes[i].v);
        tr_model_close(m);
    }
}

/* A slice of a table begins where a block does. */
static void slices_are_whole_blocks(void **state)
{
    struct tr_model *m = open_model(TR_STATE_ADAMW_8BIT);

    (void)state;
    for (int32_t i = 0; i < m->embed.n_slices; i++)
        assert_int_equal(m->embed.slices[i].row0 * HIDDEN % 256, 0);
    tr_model_close(m);
}

/* Rows and columns of matrices, elements of vectors. */
static void factors_of_adalomo(void **state)
{
    static const struct {
        const char *tensor;
        int64_t r, c;
    } sizes[] = {{"model.embed_tokens.weight", VOCAB, HIDDEN},
                 {"model.layers.0.mlp.down_proj.weight", HIDDEN, FFN},
                 {"model.layers.0.self_attn.k_proj.weight", KV_HEADS * HEAD_DIM, HIDDEN},
                 {"model.layers.0.self_attn.k_proj.bias", 0, KV_HEADS * HEAD_DIM},
                 {"model.norm.weight", 0, HIDDEN}};
    struct tr_model *m = open_model(TR_STATE_ADALOMO);

    (void)state;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        const struct tr_tensor *t = tr_model_find(m, sizes[i].tensor);
        struct tr_state_part parts[2];

        tr_state_parts(m->state, &m->config, t, (struct tr_state_rows){0, t->rows}, parts);
        assert_int_equal(parts[0].bytes, sizes[i].r * 4);
        assert_int_equal(parts[1].bytes, sizes[i].c * 4);
    }
    tr_model_close(m);
}

static void within(const struct tr_model *m, uint32_t span, uint64_t at, uint64_t bytes)
{
    assert_true(at + bytes <= m->layout.spans[span].bytes);
    assert_int_equal(at % TR_STORE_ALIGN, 0);
}

static void check_block(const struct tr_model *m, enum tr_state_kind kind)
{
    uint64_t end[TR_PARTS] = {0};

    for (int r = 0; r < TR_ROLES; r++) {
        int32_t index = m->blocks[1].tensor[r];
        const struct tr_tensor *t = index < 0 ? NULL : &m->tensors[index];
        enum tr_part of = tr_model_part((enum tr_role)r);
        struct tr_state_part parts[2];

        if (!t)
            continue;
        tr_state_parts(kind, &m->config, t, (struct tr_state_rows){0, t->rows}, parts);
        assert_true(t->m_offset >= end[of]);
        assert_true(t->v_offset >= t->m_offset + parts[0].bytes);
        end[of] = t->v_offset + parts[1].bytes;
        within(m, m->blocks[1].state_span[of], t->v_offset, parts[1].bytes);
    }
}

static void check_table(const struct tr_model *m, enum tr_state_kind kind)
{
    const struct tr_tensor *t = &m->tensors[m->head.tensor];
    uint64_t sum[2] = {0}, whole[2];
    struct tr_state_part parts[2];

    assert_true(m->head.n_slices >= 3);
    for (int32_t i = 0; i < m->head.n_slices; i++) {
        const struct tr_slice *s = &m->head.slices[i];

        tr_state_parts(kind, &m->config, t, (struct tr_state_rows){s->row0, s->rows}, parts);
        assert_true(s->v_offset >= parts[0].bytes);
        assert_true(kind != TR_STATE_ADALOMO || parts[0].bytes == (uint64_t)s->rows * 4);
        within(m, s->state_span, s->v_offset, parts[1].bytes);
        sum[0] += parts[0].bytes;
        sum[1] += parts[1].bytes;
    }
    tr_state_parts(kind, &m->config, t, (struct tr_state_rows){0, t->rows}, parts);
    whole[0] = parts[0].bytes;
    whole[1] = parts[1].bytes;
    assert_memory_equal(sum, whole, sizeof(sum));
}

static void parts_lie_apart(void **state)
{
    (void)state;
    for (enum tr_state_kind kind = TR_STATE_ADAMW; kind < TR_STATE_KINDS; kind++) {
        struct tr_model *m = open_model(kind);

        check_block(m, kind);
        check_table(m, kind);
        tr_model_close(m);
    }
}

/* Behind the optimizer's own parts, in pieces that the tensor's bytes lead to; alone, where it
 * keeps none. */
static void check_master(const struct tr_model *m, enum tr_master kind)
{
    uint64_t size = tr_master_size(kind), row = (uint64_t)HIDDEN * size;
    const struct tr_tensor *down = tr_model_find(m, "model.layers.1.mlp.down_proj.weight");
    const struct tr_tensor *head = &m->tensors[m->head.tensor];

    assert_true(m->has_state);
    assert_int_equal(m->layout.pieces[tr_master_piece(m, down, 0)].offset, down->master_offset);
    assert_string_equal(m->layout.pieces[tr_master_piece(m, down, 0)].name,
                        "master of model.layers.1.mlp.down_proj.weight");
    within(m, m->blocks[1].state_span[TR_PART_DOWN], down->master_offset,
           (uint64_t)HIDDEN * FFN * size);
    for (int32_t i = 0; i < m->head.n_slices; i++) {
        const struct tr_slice *s = &m->head.slices[i];
        uint64_t first = (uint64_t)s->row0 * row, bytes = (uint64_t)s->rows * row;
        uint32_t piece = tr_master_piece(m, head, first + bytes - 1);

        assert_int_equal(piece, tr_master_piece(m, head, first));
        assert_int_equal(m->layout.pieces[piece].tensor_offset, first);
        assert_int_equal(m->layout.pieces[piece].bytes, bytes);
        assert_int_equal(m->layout.pieces[piece].offset, s->master_offset);
        assert_true(s->master_offset >= s->v_offset);
        within(m, s->state_span, s->master_offset, bytes);
    }
}

static void masters_lie_behind(void **state)
{
    (void)state;
    for (enum tr_master k = TR_MASTER_SPLIT; k < TR_MASTER_KINDS; k++)
        for (int kind = TR_STATE_NONE; kind <= TR_STATE_ADAMW; kind++) {
            struct tr_model *m, *none = open_model((enum tr_state_kind)kind);

            assert_int_equal(tr_model_like(&m, none,
                                           &(struct tr_model_params){
                                               .state = (enum tr_state_kind)kind, .master = k}),
                             0);
            check_master(m, k);
            assert_true(tr_layout_bytes(&m->layout) >=
                        tr_layout_bytes(&none->layout) + m->n_params * tr_master_size(k));
            tr_model_close(m);
            tr_model_close(none);
        }
}

static void names_are_read_back(void **state)
{
    enum tr_state_kind found;

    (void)state;
    for (enum tr_state_kind kind = TR_STATE_NONE; kind < TR_STATE_KINDS; kind++) {
        assert_int_equal(tr_state_parse(tr_state_name(kind), &found), 0);
        assert_int_equal(found, kind);
    }
    assert_true(tr_state_parse("adam", &found) < 0);
    assert_true(tr_state_parse(NULL, &found) < 0);
    for (enum tr_master kind = TR_MASTER_NONE; kind < TR_MASTER_KINDS; kind++) {
        enum tr_master read;

        assert_int_equal(tr_master_parse(tr_master_name(kind), &read), 0);
        assert_int_equal(read, kind);
        assert_true(tr_master_parse("whole", &read) < 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_of_adam_mini),     cmocka_unit_test(factors_of_adalomo),
        cmocka_unit_test(sizes_of_the_others),     cmocka_unit_test(parts_lie_apart),
        cmocka_unit_test(names_are_read_back),     cmocka_unit_test(blocks_of_bytes),
        cmocka_unit_test(slices_are_whole_blocks), cmocka_unit_test(masters_lie_behind),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
