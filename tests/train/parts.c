/* SPDX-License-Identifier: Apache-2.0
 *
 * Blocks that stream part by part, without running them: the order of the visits (invariants 4 and
 * 5), and what the plan makes of budgets around those where its choice changes (invariant 6).
 *
 * The order is held against the rule that a stage needs what the stages before it have left: kv q o
 * up gate down forward, the same without down again in a backward pass unless the activations are
 * kept, then down gate up o q kv backward. That the check can fail is shown by mutants: each list
 * with two neighbours exchanged must be refused.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "src/base/err.h"
#include "src/base/json.h"
#include "src/plan/plan.h"
#include "tests/train/visits.h"

static struct tr_model *open_model(const char *arch, int32_t layers, int state)
{
    static struct tr_model_config c;
    enum tr_dtype types[TR_ROLES];
    enum tr_state_kind kind = state ? TR_STATE_ADAMW : TR_STATE_NONE;
    struct tr_model *m;
    json_t *o;

    for (int i = 0; i < TR_ROLES; i++)
        types[i] = TR_BF16;
    assert_int_equal(tr_config_arch(arch, &o), 0);
    assert_int_equal(tr_config_parse(o, arch, &c), 0);
    json_decref(o);
    if (layers)
        c.layers = layers;
    assert_int_equal(tr_model_open(&m, &(struct tr_model_params){&c, types, kind, 0, NULL}), 0);
    return m;
}

/* --- order ---------------------------------------------------------------------------------- */

/* The parts that a block's visits must name, in order, in one pass; '-' before gradients. */
static const char *expected(enum tr_pass pass, int kept)
{
    if (pass == TR_PASS_FORWARD)
        return "012345";
    return kept ? "-5-4-3-2-1-0" : "01234-5-4-3-2-1-0";
}

/* Behind its parts a visit names the block's input where it is read, and the output, which it makes
 * anew: changed and fresh; and the activations that the block keeps, which its forward visits
 * change and the first of them makes. Returns how many; 9 if they are others. */
static uint32_t count_scratch(const struct tr_unit_visit *u, const struct tr_visit *s,
                              const struct tr_visits_params *p, uint32_t k)
{
    const struct tr_model *m = p->model;
    int32_t frame = u->index - (m->config.layers - p->keep);
    int forward = u->work == TR_WORK_BLOCK;
    int reads =
        u->work != TR_WORK_UPDATE && (u->from == TR_PART_KV || (forward && u->from == TR_PART_O));
    uint32_t n = 0, fresh = 0, input = m->layout.n_spans + (uint32_t)u->index;

    if (reads && (s->changed >> k & 1 || s->span[k + n++] != input))
        return 9;
    if (forward && u->to == TR_PART_DOWN) {
        fresh = 1u << (k + n);
        if (s->span[k + n++] != input + 1)
            return 9;
    }
    if (frame >= 0 && u->work != TR_WORK_UPDATE) {
        if (forward && u->from == TR_PART_KV)
            fresh |= 1u << (k + n);
        if ((int)(s->changed >> (k + n) & 1) != forward)
            return 9;
        if (s->span[k + n++] != m->layout.n_spans + (uint32_t)(m->config.layers + 1 + frame))
            return 9;
    }
    return s->fresh == fresh && (s->changed & fresh) == fresh ? n : 9;
}

static int names_its_spans(const struct tr_visits *v, uint32_t i, const struct tr_visits_params *p)
{
    const struct tr_model *m = p->model;
    const struct tr_unit_visit *u = &v->units[i];
    const struct tr_visit *s = &v->spans[i];
    const struct tr_block *b = &m->blocks[u->index];
    int update = u->pass == TR_PASS_UPDATE && u->work != TR_WORK_BLOCK, state;
    uint32_t n, kept;

    state = update && m->has_state;
    n = 1 + (uint32_t)state;
    kept = (1u << n) - 1;
    return u->from == u->to && s->n_spans == n + count_scratch(u, s, p, n) &&
           s->span[0] == b->params_span[u->from] &&
           (!state || s->span[1] == b->state_span[u->from]) &&
           (s->changed & kept) == (update ? kept : 0);
}

/* Are the visits of the blocks what they must be? */
static int is_right(const struct tr_visits *v, const struct tr_visits_params *p)
{
    int32_t layers = p->model->config.layers;
    uint32_t i = 0;

    for (int pass = TR_PASS_FORWARD; pass <= TR_PASS_UPDATE; pass++)
        for (int32_t k = 0; k < layers; k++) {
            int32_t l = pass == TR_PASS_FORWARD ? k : layers - 1 - k;
            const char *at = expected((enum tr_pass)pass, l >= layers - p->keep);

            for (; *at; at++, i++) {
                int grad = *at == '-';

                at += grad;
                while (i < v->n && v->units[i].place != TR_WORK_BLOCK &&
                       v->units[i].place != TR_WORK_BLOCK_GRAD)
                    i++;
                if (i == v->n || (int)v->units[i].pass != pass || v->units[i].index != l ||
                    v->units[i].place != (grad ? TR_WORK_BLOCK_GRAD : TR_WORK_BLOCK) ||
                    (int)v->units[i].from != *at - '0' || !names_its_spans(v, i, p))
                    return 0;
            }
        }
    return 1;
}

static int is_block(const struct tr_unit_visit *u)
{
    return u->place == TR_WORK_BLOCK || u->place == TR_WORK_BLOCK_GRAD;
}

static void order_of_stages(void **state)
{
    (void)state;
    for (int how = 0; how < 8; how++) {
        struct tr_model *m = open_model("llama-7b", 3, how & 1);
        struct tr_visits_params p = {
            .model = m, .train = 1, .norm_pass = 1, .by_parts = 1, .keep = how >> 1};
        struct tr_visits v;
        int mutants = 0;

        assert_int_equal(tr_visits_make(&v, &p), 0);
        assert_true(is_right(&v, &p));
        for (uint32_t i = 0; i + 1 < v.n; i++) {
            if (!is_block(&v.units[i]) || !is_block(&v.units[i + 1]))
                continue;
            exchange_visits(&v, i);
            mutants++;
            if (is_right(&v, &p))
                fail_msg("visits %u and %u exchanged: not seen", i, i + 1);
            exchange_visits(&v, i);
        }
        assert_true(mutants > 3 * 3 * 5);
        tr_visits_free(&v);
        tr_model_close(m);
    }
}

/* Parked gradients: each part is updated once, and nothing is made again for it. */
static void order_of_parked_updates(void **state)
{
    struct tr_model *m = open_model("llama-7b", 3, 1);
    struct tr_visits_params p = {
        .model = m, .train = 1, .norm_pass = 1, .by_parts = 1, .parked = 1, .keep = 1};
    unsigned char seen[3][TR_PARTS] = {{0}};
    struct tr_visits v;

    (void)state;
    assert_int_equal(tr_visits_make(&v, &p), 0);
    for (uint32_t i = 0; i < v.n; i++) {
        if (v.units[i].pass != TR_PASS_UPDATE || !is_block(&v.units[i]))
            continue;
        assert_int_equal(v.units[i].work, TR_WORK_UPDATE);
        assert_true(names_its_spans(&v, i, &p));
        assert_int_equal(seen[v.units[i].index][v.units[i].from]++, 0);
    }
    for (int i = 0; i < 3 * TR_PARTS; i++)
        assert_int_equal(seen[i / TR_PARTS][i % TR_PARTS], 1);
    tr_visits_free(&v);
    tr_model_close(m);
}

/* Whole blocks are what they were: one visit, all parts, all changed or none. */
static void whole_blocks(void **state)
{
    struct tr_model *m = open_model("llama-7b", 3, 1);
    struct tr_visits_params p = {.model = m, .train = 1, .norm_pass = 1};
    struct tr_visits v;
    int n = 0;

    (void)state;
    assert_int_equal(tr_visits_make(&v, &p), 0);
    for (uint32_t i = 0; i < v.n; i++) {
        int update = v.units[i].pass == TR_PASS_UPDATE;
        uint32_t n_spans;

        if (!is_block(&v.units[i]))
            continue;
        n++;
        n_spans = update ? 2 * TR_PARTS : TR_PARTS;
        assert_int_equal(v.spans[i].n_spans,
                         n_spans + count_scratch(&v.units[i], &v.spans[i], &p, n_spans));
        assert_int_equal(v.spans[i].changed & ~v.spans[i].fresh, update ? (1u << n_spans) - 1 : 0);
    }
    assert_int_equal(n, 3 * 3);
    tr_visits_free(&v);
    tr_model_close(m);
}

/* --- plan ----------------------------------------------------------------------------------- */

static const char says[] = "smallest that would do is ";

/* The smallest budget as the refusal of nothing at all names it. */
static uint64_t smallest(struct tr_plan_params p)
{
    struct tr_plan plan;
    const char *at;

    p.budget = 0;
    assert_int_equal(tr_plan_make(&plan, &p), -ENOMEM);
    at = strstr(tr_error_message(), says);
    assert_non_null(at);
    return strtoull(at + strlen(says), NULL, 10);
}

static int is_by_parts(struct tr_plan_params p, uint64_t budget)
{
    struct tr_plan plan;

    p.budget = budget;
    assert_int_equal(tr_plan_make(&plan, &p), 0);
    assert_true(plan.peak <= budget);
    return plan.by_parts;
}

static struct tr_plan_params shape(const struct tr_model *m, int32_t tokens)
{
    return (struct tr_plan_params){.model = m,
                                   .batch_tokens = tokens,
                                   .grain_tokens = 512,
                                   .positions = 512,
                                   .compute = TR_BF16,
                                   .train = 1,
                                   .norm = 1};
}

/* The smallest budget is exact, and so is the one from which on whole blocks stream. */
static void choices_are_exact(void **state)
{
    (void)state;
    for (int how = 0; how < 4; how++) {
        struct tr_model *m = open_model("tinyllama-1.1b", 0, how & 1);
        struct tr_plan_params p = shape(m, how & 2 ? 1024 : 512);
        uint64_t low = smallest(p), high = low * 8, page = 4096;
        struct tr_plan plan;

        p.budget = low - page;
        assert_int_equal(tr_plan_make(&plan, &p), -ENOMEM);
        assert_int_equal(smallest(p), low);
        assert_true(is_by_parts(p, low));
        assert_false(is_by_parts(p, high));
        while (high - low > page) { /* the least with whole blocks */
            uint64_t middle = (low + high) / 2 / page * page;

            if (is_by_parts(p, middle))
                low = middle;
            else
                high = middle;
        }
        p.budget = high;
        assert_int_equal(tr_plan_make(&plan, &p), 0);
        for (int i = 0; i < TR_PARTS; i++)
            assert_true(plan.slots[TR_SLOTS_BLOCK + i] == 2 &&
                        plan.slots[TR_SLOTS_BLOCK_STATE + i] == (how & 1 ? 2u : 0u));
        assert_true(high - plan.peak < page);
        tr_model_close(m);
    }
}

/* The gradients that live at the same time have places of their own, all within what is laid out.
 */
static void gradients_have_places(const struct tr_plan *plan, int by_parts)
{
    const struct tr_model *m = plan->in.model;
    const struct tr_block *b = &m->blocks[0];

    assert_int_equal(plan->by_parts, by_parts);
    for (int i = 0; i < TR_ROLES; i++)
        for (int j = 0; j < TR_ROLES; j++) {
            uint64_t at, next, bytes;

            if (b->tensor[i] < 0 || b->tensor[j] < 0)
                continue;
            at = tr_plan_grad(plan, b, (enum tr_role)i);
            next = tr_plan_grad(plan, b, (enum tr_role)j);
            bytes = (uint64_t)(m->tensors[b->tensor[i]].rows * m->tensors[b->tensor[i]].cols) * 4;
            assert_true(at + bytes <= plan->grad.bytes);
            if (i < j &&
                (!by_parts || tr_model_part((enum tr_role)i) == tr_model_part((enum tr_role)j)))
                assert_true(at + bytes <= next);
        }
}

/* Invariant 4: whole blocks with several micro-batches have one block's gradients on the device,
 * and not a byte of another's. */
static uint64_t block_gradients(const struct tr_model *m)
{
    uint64_t bytes = 0;

    for (int i = 0; i < TR_ROLES; i++) {
        int32_t t = m->blocks[0].tensor[i];

        if (t >= 0)
            bytes += tr_round_up((uint64_t)(m->tensors[t].rows * m->tensors[t].cols), 16) * 4;
    }
    return bytes;
}

/* The largest shape there is: what has to be on the device at once is one matrix and its gradient
 * where it was a block and, with several micro-batches, all of the block's gradients. */
static void largest_shape(void **state)
{
    struct tr_model *m = open_model("llama-3.1-405b", 0, 0);
    struct tr_plan_params p = shape(m, 1024);
    uint64_t matrix = 53248ull * 16384, parts, blocks;
    struct tr_plan plan;

    (void)state;
    p.micro_tokens = 512;
    p.streams = TR_STREAMS_PARTS;
    p.budget = parts = smallest(p);
    assert_int_equal(tr_plan_make(&plan, &p), 0);
    assert_int_equal(plan.pool[TR_SLOTS_BLOCK].bytes, matrix * 2 + 16384 * 2);
    assert_int_equal(plan.grad.bytes, matrix * 4 + 16384 * 4);
    gradients_have_places(&plan, 1);
    p.streams = TR_STREAMS_BLOCKS;
    p.budget = blocks = smallest(p);
    assert_int_equal(tr_plan_make(&plan, &p), 0);
    gradients_have_places(&plan, 0);
    assert_int_equal(plan.grad.bytes, block_gradients(m));
    assert_true(2 * parts < blocks);
    p.streams = TR_STREAMS_AUTO;
    assert_int_equal(smallest(p), parts);
    print_message("llama-3.1-405b, 1024 tokens: %.2f GiB by parts, %.2f GiB by blocks\n",
                  (double)parts / (1 << 30), (double)blocks / (1 << 30));
    tr_model_close(m);
}

/* Part by part, gradients of a normed input grow over those of gate: never over what is still to be
 * read, whatever the widths, and with no byte to spare. From token a on a micro-batch's lie from
 * dxn + a * row to dxn + b * row; its own tokens of gate begin at a * width, and so do the next
 * one's. */
static void gradient_grows_over_gate(const struct tr_plan *plan)
{
    const struct tr_model_config *c = &plan->in.model->config;
    const struct tr_frame *f = &plan->shared_frame;
    uint64_t n = (uint64_t)plan->in.batch_tokens, m = (uint64_t)plan->micro_tokens;
    uint64_t row = (uint64_t)c->hidden * 4;
    uint64_t width = (uint64_t)c->ffn * tr_dtype_size(plan->in.compute), closest = UINT64_MAX;

    assert_true(plan->by_parts && m <= n);
    for (uint64_t a = 0; a < n; a++) {
        uint64_t b = a + m < n ? a + m : n, end = f->dxn + b * row, gate = f->gate + a * width;

        assert_true(end <= gate && end <= f->up);
        closest = gate - end < closest ? gate - end : closest;
    }
    assert_true(closest < 64);
    assert_true(f->rstd2 + n * 4 <= f->dxn);
    assert_true(f->dxn + n * row <= f->dq && f->dq < f->dk && f->dk < f->dv && f->dv < f->bytes);
    assert_true(plan->act.bytes >= m * row / 4 * tr_dtype_size(plan->in.compute)); /* xn2 */
    assert_true(plan->mlp_out.bytes >= m * row);
}

static void gradients_of_inputs(void **state)
{
    static const int32_t widths[] = {64, 4096, 5632, 16384};

    (void)state;
    for (size_t i = 0; i < 4 * 4; i++) {
        struct tr_model *m = open_model("tinyllama-1.1b", 2, 0);
        struct tr_plan_params p = shape(m, 1024);
        struct tr_plan plan;

        ((struct tr_model_config *)&m->config)->ffn = widths[i / 4]; /* 2048 are its hidden */
        p.compute = i & 1 ? TR_F32 : TR_BF16;
        p.micro_tokens = i & 2 ? 512 : 1024;
        p.streams = TR_STREAMS_PARTS;
        p.budget = UINT64_MAX / 2;
        assert_int_equal(tr_plan_make(&plan, &p), 0);
        gradient_grows_over_gate(&plan);
        tr_model_close(m);
    }
}

/* 16 rows of 2048 tokens in nine tenths of 24 GiB, of which the device takes 640 MiB for itself. */
static void largest_shape_on_24_gib(void **state)
{
    struct tr_model *m = open_model("llama-3.1-405b", 0, 0);
    struct tr_plan_params p = shape(m, 16 * 2048);
    struct tr_plan plan;

    (void)state;
    p.grain_tokens = 2 * 2048 - 1;
    p.positions = 2048;
    p.budget = (uint64_t)(0.9 * 24 * 1024) * 1048576 - 640ull * 1048576;
    if (tr_plan_make(&plan, &p) < 0)
        fail_msg("%s", tr_error_message());
    assert_true(plan.peak <= p.budget);
    tr_model_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(order_of_stages),
        cmocka_unit_test(order_of_parked_updates),
        cmocka_unit_test(whole_blocks),
        cmocka_unit_test(choices_are_exact),
        cmocka_unit_test(largest_shape),
        cmocka_unit_test(gradients_of_inputs),
        cmocka_unit_test(largest_shape_on_24_gib),
    };

    return cmocka_run_group_tests_name("parts of blocks", tests, NULL, NULL);
}
