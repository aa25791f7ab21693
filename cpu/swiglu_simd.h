/* SPDX-License-Identifier: Apache-2.0
 *
 * silu(gate) * up and its gradient in sixteen lanes.
 */
static inline v16 sigmoid(v16 x)
{
    v16 one = v16_set(1.0f), minus = v16_of_bits(v16i_xor(v16_bits(x), v16i_set(0x80000000u)));

    return v16_div(one, v16_add(one, v16_exp(minus)));
}

static inline v16 gated(v16 gate, v16 up)
{
    return v16_mul(v16_mul(gate, sigmoid(gate)), up);
}

static void swiglu(float *out, const float *gate, const float *up, int64_t n)
{
#define BODY(i, count)                                                                             \
    v16_store(out + (i), gated(v16_load(gate + (i), count), v16_load(up + (i), count)), count)
    V16_LOOP(n, BODY);
#undef BODY
}

static inline void gradient(const struct tr_op_swiglu *op, int64_t i, int64_t n)
{
    v16 x = v16_load((const float *)op->gate + i, n), u = v16_load((const float *)op->up + i, n);
    v16 d = v16_load((const float *)op->dout + i, n);
    v16 one = v16_set(1.0f), s = sigmoid(x);
    v16 slope = v16_mul(s, v16_add(one, v16_mul(x, v16_sub(one, s))));

    v16_store((float *)op->dgate + i, v16_mul(v16_mul(d, u), slope), n);
    v16_store((float *)op->dup + i, v16_mul(d, v16_mul(x, s)), n);
}

static void swiglu_grad(const struct tr_op_swiglu *op, int64_t begin, int64_t end)
{
#define BODY(i, count) gradient(op, begin + (i), count)
    V16_LOOP(end - begin, BODY);
#undef BODY
}

void TR_TIER_INIT(swiglu)(struct tr_cpu_kernels *k)
{
    k->swiglu = swiglu;
    k->swiglu_grad = swiglu_grad;
}
