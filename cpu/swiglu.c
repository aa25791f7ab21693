/* SPDX-License-Identifier: Apache-2.0
 *
 * out = silu(gate) * up and its gradient, silu(x) = x / (1 + exp(-x)). Each step is rounded, exp is
 * that of cpu/exp.h: an element has the same bits on every tier and at every place.
 */
#include "cpu/cpu.h"

#include "cpu/exp.h"
#include "cpu/kernels.h"
#include "cpu/split.h"

struct job {
    const struct tr_cpu_kernels *k;
    const struct tr_op_swiglu *op;
};

static void swiglu(float *out, const float *gate, const float *up, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        out[i] = gate[i] * (1.0f / (1.0f + tr_exp(-gate[i]))) * up[i];
}

static void swiglu_grad(const struct tr_op_swiglu *op, int64_t begin, int64_t end)
{
    const float *gate = op->gate, *up = op->up, *dout = op->dout;
    float *dgate = op->dgate, *dup = op->dup;

    for (int64_t i = begin; i < end; i++) {
        float x = gate[i], u = up[i], d = dout[i];
        float s = 1.0f / (1.0f + tr_exp(-x));

        dgate[i] = d * u * (s * (1.0f + x * (1.0f - s)));
        dup[i] = d * (x * s);
    }
}

void tr_swiglu_init_c(struct tr_cpu_kernels *k)
{
    k->swiglu = swiglu;
    k->swiglu_grad = swiglu_grad;
}

static void forward(void *arg, int64_t begin, int64_t end, int worker)
{
    const struct job *j = arg;
    const struct tr_op_swiglu *op = j->op;

    (void)worker;
    j->k->swiglu((float *)op->out + begin, (const float *)op->gate + begin,
                 (const float *)op->up + begin, end - begin);
}

static void backward(void *arg, int64_t begin, int64_t end, int worker)
{
    const struct job *j = arg;

    (void)worker;
    j->k->swiglu_grad(j->op, begin, end);
}

int tr_cpu_swiglu(const struct tr_cpu *cpu, const struct tr_op_swiglu *op)
{
    struct job j = {cpu->kernels, op};

    tr_pool_run(cpu->pool, op->n, tr_split_grain(4), forward, &j);
    return 0;
}

int tr_cpu_swiglu_grad(const struct tr_cpu *cpu, const struct tr_op_swiglu *op)
{
    struct job j = {cpu->kernels, op};

    tr_pool_run(cpu->pool, op->n, tr_split_grain(4), backward, &j);
    return 0;
}
