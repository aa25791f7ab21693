/* SPDX-License-Identifier: Apache-2.0
 *
 * The model's table: the names and shapes of each family against a list written down independently
 * (make.c), and what the layout promises to the store and to the schedule.
 */
#include "tests/model/test.h"

#include <stdlib.h>

#include "offload/layout.h"
#include "src/base/json.h"
#include "src/model/model.h"

static struct tr_model *open_table(const struct make_folder *f, enum tr_dtype type, int state,
                                   int tied_as_head)
{
    static struct tr_model_config c;
    enum tr_dtype types[TR_ROLES];
    struct tr_model *m;
    json_t *o;

    for (int i = 0; i < TR_ROLES; i++)
        types[i] = type;
    assert_int_equal(tr_json_parse(f->config, strlen(f->config), "config", &o), 0);
    assert_int_equal(tr_config_parse(o, "config", &c), 0);
    json_decref(o);
    assert_int_equal(
        tr_model_open(&m, &(struct tr_model_params){&c, types, state, tied_as_head, NULL}), 0);
    assert_int_equal(tr_layout_check(&m->layout, "layout"), 0);
    return m;
}

static void names_and_shapes_of_each_family(void **state)
{
    static const char *const families[] = {"llama", "qwen2", "qwen3"};

    (void)state;
    for (int i = 0; i < 6; i++) {
        struct make_shape s = make_small;
        struct make_folder f;
        struct tr_model *m;
        uint64_t n = 0;

        s.family = families[i % 3];
        s.tied = i / 3;
        make_table(&f, &s);
        m = open_table(&f, TR_F32, 0, 0);
        assert_int_equal(m->n_tensors, f.n);
        for (int k = 0; k < f.n; k++) {
            const struct tr_tensor *t = tr_model_find(m, f.t[k].name);
            int64_t rows = f.t[k].dims == 2 ? f.t[k].shape[0] : 1;

            if (!t)
                fail_msg("%s: %s is not there", s.family, f.t[k].name);
            assert_int_equal(t->dims, f.t[k].dims);
            assert_int_equal(t->rows, rows);
            assert_int_equal(t->cols, f.t[k].shape[f.t[k].dims - 1]);
            n += (uint64_t)(t->rows * t->cols);
        }
        assert_int_equal(m->n_params, n);
        assert_int_equal(tr_model_head(m) == &m->embed, s.tied);
        tr_model_close(m);
    }
}

static void names_that_are_not_there(void **state)
{
    static const char *const names[] = {"",
                                        "x",
                                        "model.layers.",
                                        "model.layers.0",
                                        "model.layers.2.mlp.up_proj.weight",
                                        "model.layers.-1.mlp.up_proj.weight",
                                        "model.layers.00.mlp.up_proj.weight",
                                        "model.layers.0.mlp.up_proj.bias",
                                        "model.layers.99999999999999999999.x",
                                        "model.layers.1 .mlp.up_proj.weight"};
    struct make_folder f;
    struct tr_model *m;

    (void)state;
    make_table(&f, &make_small);
    m = open_table(&f, TR_F32, 0, 0);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        assert_null(tr_model_find(m, names[i]));
    tr_model_close(m);
}

static void tied_tables_have_either_name(void **state)
{
    struct make_shape s = make_small;
    struct make_folder f;
    struct tr_model *m;

    (void)state;
    s.tied = 1;
    make_table(&f, &s);
    m = open_table(&f, TR_F32, 0, 1);
    assert_non_null(tr_model_find(m, "lm_head.weight"));
    assert_null(tr_model_find(m, "model.embed_tokens.weight"));
    assert_int_equal(tr_model_find(m, "lm_head.weight")->role, TR_ROLE_EMBED);
    assert_true(tr_model_tied_as_head(m));
    tr_model_close(m);
}

/* Every byte of every tensor lies in exactly one piece, in order; state likewise in f32. */
static void pieces_cover_the_tensors(void **state)
{
    struct make_shape s = make_small;
    struct make_folder f;
    struct tr_model *m;

    (void)state;
    s.hidden = 1024;
    s.ffn = 9000; /* 9.2M elements: three pieces in f32, two in bf16 */
    s.vocab = 9001;
    make_table(&f, &s);
    m = open_table(&f, TR_BF16, 1, 0);
    for (int32_t i = 0; i < m->n_tensors; i++) {
        const struct tr_tensor *t = &m->tensors[i];
        uint64_t at = 0;

        for (uint32_t p = t->first_piece; p < t->first_piece + t->n_pieces; p++) {
            assert_string_equal(m->layout.pieces[p].name, t->name);
            assert_int_equal(m->layout.pieces[p].tensor_offset, at);
            at += m->layout.pieces[p].bytes;
        }
        assert_int_equal(at, t->bytes);
    }
    for (uint32_t p = 0, n = 0; p < m->layout.n_pieces; p++) {
        n += strstr(m->layout.pieces[p].name, " of ") ? m->layout.pieces[p].bytes / 4 : 0;
        assert_true(p + 1 < m->layout.n_pieces || n == 2 * m->n_params);
    }
    assert_int_equal(m->tensors[m->blocks[1].tensor[TR_ROLE_GATE]].n_pieces, 2);
    tr_model_close(m);
}

/* A block's spans lie one after another, each with the tensors of its part; no two overlap. */
static void check_parts(const struct tr_model *m, const struct tr_block *b)
{
    uint64_t end[TR_PARTS] = {0}, state_end[TR_PARTS] = {0};

    for (int part = 0; part < TR_PARTS; part++) {
        assert_int_equal(b->params_span[part], b->params_span[0] + (uint32_t)part);
        assert_int_equal(b->state_span[part], b->state_span[0] + (uint32_t)part);
        assert_int_equal(m->layout.spans[b->params_span[part]].pool, TR_SLOTS_BLOCK + part);
        assert_int_equal(m->layout.spans[b->state_span[part]].pool, TR_SLOTS_BLOCK_STATE + part);
    }
    for (int role = 0; role < TR_ROLES; role++) {
        const struct tr_tensor *t = b->tensor[role] < 0 ? NULL : &m->tensors[b->tensor[role]];
        int part = tr_model_part((enum tr_role)role);
        uint64_t floats = t ? (uint64_t)(t->rows * t->cols) * 4 : 0;
        const struct tr_span *s = t ? &m->layout.spans[b->params_span[part]] : NULL;

        if (!t)
            continue;
        assert_true(t->first_piece >= s->first_piece &&
                    t->first_piece + t->n_pieces <= s->first_piece + s->n_pieces);
        assert_true(t->offset >= end[part] && t->m_offset >= state_end[part] &&
                    t->v_offset >= t->m_offset + floats);
        end[part] = t->offset + t->bytes;
        state_end[part] = t->v_offset + floats;
    }
    for (int part = 0; part < TR_PARTS; part++) {
        assert_true(end[part] > 0);
        assert_int_equal(m->layout.spans[b->params_span[part]].bytes,
                         (end[part] + 4095) & ~4095ull);
        assert_int_equal(m->layout.spans[b->state_span[part]].bytes,
                         (state_end[part] + 4095) & ~4095ull);
    }
}

static void parts_cover_the_blocks(void **state)
{
    static const char *const families[] = {"llama", "qwen2", "qwen3"};

    (void)state;
    for (int i = 0; i < 3; i++) {
        struct make_shape s = make_small;
        struct make_folder f;
        struct tr_model *m;

        s.family = families[i];
        make_table(&f, &s);
        m = open_table(&f, TR_BF16, 1, 0);
        for (int32_t l = 0; l < m->config.layers; l++)
            check_parts(m, &m->blocks[l]);
        tr_model_close(m);
    }
}

static void slices_cover_the_tables(void **state)
{
    static const struct {
        int hidden, vocab, rows;
    } cases[] = {{24, 40001, 4096},  {1024, 40001, 4096}, {4096, 40001, 4096}, {16384, 9001, 1024},
                 {65536, 9001, 256}, {24, 9001, 1280},    {192, 2048, 256},    {8, 31, 256}};

    (void)state;
    for (int i = 0; i < 8; i++) {
        int vocab = cases[i].vocab, hidden = cases[i].hidden, rows = cases[i].rows;
        struct make_shape s = {.family = "llama",
                               .layers = 1,
                               .hidden = hidden,
                               .ffn = 8,
                               .heads = 1,
                               .kv_heads = 1,
                               .head_dim = 8,
                               .vocab = vocab};
        struct make_folder f;
        struct tr_model *m;
        int64_t row = 0;

        make_table(&f, &s);
        m = open_table(&f, i % 2 ? TR_BF16 : TR_F32, 1, 0); /* the type makes no difference */
        for (int32_t k = 0; k < m->embed.n_slices; k++) {
            const struct tr_slice *slice = &m->embed.slices[k];
            const struct tr_span *state_span = &m->layout.spans[slice->state_span];

            assert_int_equal(slice->row0, row);
            assert_int_equal(slice->rows, vocab - row < rows ? vocab - row : rows);
            assert_int_equal(m->layout.spans[slice->params_span].pool, TR_SLOTS_TABLE);
            assert_int_equal(state_span->pool, TR_SLOTS_TABLE_STATE);
            assert_true(slice->v_offset >= (uint64_t)(slice->rows * hidden) * 4);
            assert_true(state_span->bytes >=
                        slice->v_offset + (uint64_t)(slice->rows * hidden) * 4);
            row += slice->rows;
        }
        assert_int_equal(row, vocab);
        tr_model_close(m);
    }
}

static void disk_order_is_that_of_the_units(void **state)
{
    static const char *const order[] = {"embedding params",  "embedding state",  "block 0 params",
                                        "block 0 state",     "block 1 params",   "block 1 state",
                                        "final norm params", "final norm state", "head params",
                                        "head state"};
    struct make_folder f;
    struct tr_model *m;

    (void)state;
    make_table(&f, &make_small);
    m = open_table(&f, TR_F32, 1, 0);
    assert_int_equal(m->layout.n_segments, 10);
    for (uint32_t i = 0; i < 10; i++) {
        char text[64];

        snprintf(text, sizeof(text), "%s %s", m->layout.segments[i].record,
                 m->layout.segments[i].kind);
        assert_string_equal(text, order[i]);
    }
    tr_model_close(m);
}

/* Each value is one that config.c lets pass; the tables of all of them would take gigabytes. */
static void a_model_of_too_many_pieces_is_refused(void **state)
{
    static struct tr_model_config c = {.hidden = 1 << 16,
                                       .ffn = 1 << 19,
                                       .layers = 200, /* of 24576 pieces and more */
                                       .heads = 512,
                                       .kv_heads = 512,
                                       .head_dim = 128,
                                       .vocab = 1000};
    enum tr_dtype types[TR_ROLES];
    struct tr_model *m;

    (void)state;
    for (int i = 0; i < TR_ROLES; i++)
        types[i] = TR_F32;
    assert_refused(tr_model_open(&m, &(struct tr_model_params){&c, types, 0, 0, NULL}),
                   "too large for a store");
    assert_null(m);
    c.layers = 8;
    assert_int_equal(tr_model_open(&m, &(struct tr_model_params){&c, types, 0, 0, NULL}), 0);
    tr_model_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_and_shapes_of_each_family),
        cmocka_unit_test(names_that_are_not_there),
        cmocka_unit_test(tied_tables_have_either_name),
        cmocka_unit_test(pieces_cover_the_tensors),
        cmocka_unit_test(parts_cover_the_blocks),
        cmocka_unit_test(slices_cover_the_tables),
        cmocka_unit_test(disk_order_is_that_of_the_units),
        cmocka_unit_test(a_model_of_too_many_pieces_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
