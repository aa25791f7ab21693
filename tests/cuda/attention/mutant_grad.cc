/* SPDX-License-Identifier: Apache-2.0 */
#define tr_cuda_attention_grad mutant_attention_grad
#include "tests/cuda/attention/mutant.h"

#include "kernels/attention_grad.cu"
