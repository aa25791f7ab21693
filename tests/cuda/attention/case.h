/* SPDX-License-Identifier: Apache-2.0
 *
 * One attention problem: its op with inputs of the op's dtype, poisoned outputs between guards, and
 * what comes out of it in double.
 */
#ifndef TR_TESTS_CUDA_ATTENTION_CASE_H
#define TR_TESTS_CUDA_ATTENTION_CASE_H

#include <vector>

#include "kernels/cuda.h"

#define SHAPE_DOCS 8

struct shape {
    int heads, kv_heads, head_dim, window, docs, length[SHAPE_DOCS];
    int sharpness = 1; /* scores this many times as large, so that maxima grow */
};

/* o, dq: (n, heads, head_dim); dk, dv: (n, kv_heads, head_dim); lse: (n, heads). */
enum result { RESULT_O, RESULT_LSE, RESULT_DQ, RESULT_DK, RESULT_DV, RESULTS };

extern const char *const result_name[RESULTS], *const dtype_name[TR_DTYPES];

enum input { INPUT_Q, INPUT_K, INPUT_V, INPUT_DO, INPUTS };

struct attention_case {
    struct shape shape;
    struct tr_op_attention op;
    std::vector<double> input[INPUTS]; /* exactly the values that the op gets */
    std::vector<unsigned char> bytes[INPUTS], result[RESULTS], delta;
    std::vector<int32_t> start, first, end;
};

/* Values of a normal distribution from the seed, rounded to dtype; a larger seed, other values. */
void case_open(struct attention_case *c, const struct shape *s, enum tr_dtype dtype, unsigned seed);
/* Values [from, from + its size) of one input; rounded. */
void case_set(struct attention_case *c, enum input which, size_t from,
              const std::vector<double> &values);
/* Poisons the results. */
void case_poison(struct attention_case *c);
/* Elements of a result, of one token, and one of them as it is in memory and as a number. */
size_t case_elements(const struct attention_case *c, enum result r);
size_t case_width(const struct attention_case *c, enum result r);
enum tr_dtype case_dtype(const struct attention_case *c, enum result r);
const unsigned char *case_bytes(const struct attention_case *c, enum result r, size_t i);
double case_value(const struct attention_case *c, enum result r, size_t i);
/* Whether all guards are as they were. */
bool case_guards(const struct attention_case *c);

/* Runs forward and backward on a device of that compute capability; 0 or negative errno. */
int case_run(struct attention_case *c, int sm);

/* The textbook: values, and for each the size of the errors that its dtype and f32 allow. */
struct reference {
    std::vector<double> value[RESULTS], allowed[RESULTS];
};

void reference_run(struct reference *r, const struct attention_case *c);

/* bits.cc: a document's bits do not depend on what stands around it; returns the failures. */
int bits_check(void);

void runtime_set_sm(int sm);
int runtime_launches(void); /* so far */
int mutant_attention(const struct tr_cuda *cuda, const struct tr_op_attention *op);
int mutant_attention_grad(const struct tr_cuda *cuda, const struct tr_op_attention *op);

#endif
