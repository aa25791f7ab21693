/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/cuda/attention/case.h"

#include <math.h>

#include <random>

#define GUARD  64
#define POISON 0xff /* NaN in every dtype */

const char *const result_name[RESULTS] = {"o", "lse", "dq", "dk", "dv"};
const char *const dtype_name[TR_DTYPES] = {"f32", "bf16", "f16"};

size_t case_width(const struct attention_case *c, enum result r)
{
    bool keys = r == RESULT_DK || r == RESULT_DV;
    size_t heads = (size_t)(keys ? c->op.kv_heads : c->op.heads);

    return r == RESULT_LSE ? heads : heads * (size_t)c->op.head_dim;
}

size_t case_elements(const struct attention_case *c, enum result r)
{
    return (size_t)c->op.n * case_width(c, r);
}

enum tr_dtype case_dtype(const struct attention_case *c, enum result r)
{
    return r == RESULT_LSE ? TR_F32 : c->op.dtype;
}

const unsigned char *case_bytes(const struct attention_case *c, enum result r, size_t i)
{
    return c->result[r].data() + GUARD + i * tr_dtype_size(case_dtype(c, r));
}

double case_value(const struct attention_case *c, enum result r, size_t i)
{
    return tr_load_f32(case_bytes(c, r, 0), case_dtype(c, r), i);
}

void case_poison(struct attention_case *c)
{
    unsigned char *at[RESULTS];

    for (int r = 0; r < RESULTS; r++) {
        enum result which = (enum result)r;
        size_t bytes = case_elements(c, which) * tr_dtype_size(case_dtype(c, which));

        c->result[r].assign(bytes + 2 * GUARD, POISON);
        at[r] = c->result[r].data() + GUARD;
    }
    c->delta.assign((size_t)(c->op.n * c->op.heads) * 4 + 2 * GUARD, POISON);
    c->op.o = at[RESULT_O];
    c->op.lse = (float *)(void *)at[RESULT_LSE];
    c->op.dq = at[RESULT_DQ];
    c->op.dk = at[RESULT_DK];
    c->op.dv = at[RESULT_DV];
    c->op.delta = (float *)(void *)(c->delta.data() + GUARD);
}

static bool guards(const std::vector<unsigned char> &v)
{
    for (size_t i = 0; i < GUARD; i++)
        if (v[i] != POISON || v[v.size() - 1 - i] != POISON)
            return false;
    return true;
}

bool case_guards(const struct attention_case *c)
{
    bool whole = guards(c->delta);

    for (int r = 0; r < RESULTS; r++)
        whole = whole && guards(c->result[r]);
    return whole;
}

void case_set(struct attention_case *c, enum input which, size_t from,
              const std::vector<double> &values)
{
    for (size_t i = 0; i < values.size(); i++) {
        tr_store_f32(c->bytes[which].data(), c->op.dtype, from + i, (float)values[i]);
        c->input[which][from + i] = tr_load_f32(c->bytes[which].data(), c->op.dtype, from + i);
    }
}

static void open_documents(struct attention_case *c)
{
    const struct shape *s = &c->shape;

    c->start.assign(1, 0);
    for (int d = 0; d < s->docs; d++) {
        int32_t begin = c->start[(size_t)d], end = begin + s->length[d];

        c->start.push_back(end);
        c->first.insert(c->first.end(), (size_t)s->length[d], begin);
        c->end.insert(c->end.end(), (size_t)s->length[d], end);
    }
    c->op.n = c->start.back();
    c->op.docs = {s->docs, c->start.data()};
    c->op.doc_first = c->first.data();
    c->op.doc_end = c->end.data();
}

void case_open(struct attention_case *c, const struct shape *s, enum tr_dtype dtype, unsigned seed)
{
    std::mt19937 random(seed);
    std::normal_distribution<double> normal;

    *c = {};
    c->shape = *s;
    c->op.dtype = dtype;
    c->op.heads = s->heads;
    c->op.kv_heads = s->kv_heads;
    c->op.head_dim = s->head_dim;
    c->op.window = s->window;
    c->op.scale = (float)s->sharpness / sqrtf((float)s->head_dim);
    open_documents(c);
    for (int i = 0; i < INPUTS; i++) {
        bool keys = i == INPUT_K || i == INPUT_V;
        std::vector<double> values(case_elements(c, keys ? RESULT_DK : RESULT_O));

        for (double &v : values)
            v = normal(random);
        c->bytes[i].resize(values.size() * tr_dtype_size(dtype));
        c->input[i].resize(values.size());
        case_set(c, (enum input)i, 0, values);
    }
    c->op.q = c->bytes[INPUT_Q].data();
    c->op.k = c->bytes[INPUT_K].data();
    c->op.v = c->bytes[INPUT_V].data();
    c->op.d_o = c->bytes[INPUT_DO].data();
    case_poison(c);
}

int case_run(struct attention_case *c, int sm)
{
    struct tr_cuda cuda = {};
    int ret;

    cuda.sm = sm;
    runtime_set_sm(sm);
    ret = tr_cuda_attention(&cuda, &c->op);
    return ret < 0 ? ret : tr_cuda_attention_grad(&cuda, &c->op);
}
