/* SPDX-License-Identifier: Apache-2.0 */
#define tr_cuda_attention mutant_attention
#include "tests/cuda/attention/mutant.h"

#include "kernels/attention.cu"
