/* SPDX-License-Identifier: Apache-2.0
 *
 * Holds signatures.h against the headers that it is compiled with: once ours, once NVIDIA's where
 * Meson finds a toolkit. A difference does not compile. Only the plain C interface is included; the
 * typed overloads of cuda_runtime.h would hide a wrong signature.
 */
#ifdef TR_NO_TOOLKIT

#include <stdio.h>

int main(void)
{
    puts("no CUDA toolkit here: its headers are not compared");
    return 77;
}

#else

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <stdio.h>
#include <type_traits>

#include "tests/cuda/runtime/signatures.h"

#define FUNCTION(result, name, parameters)                                                         \
    static_assert(std::is_same<decltype(name), result parameters>::value, #name);
SIGNATURES_FUNCTIONS(FUNCTION)

#define CONSTANT(name, value) static_assert((long)(name) == (value), #name);
SIGNATURES_CONSTANTS(CONSTANT)

#define FIELD(structure, field, type)                                                              \
    static_assert(std::is_same<decltype(std::declval<structure>().field), type>::value, #field);
SIGNATURES_FIELDS(FIELD)

static_assert(sizeof(cublasLtMatmulAlgo_t) == 64, "cublasLtMatmulAlgo_t");
static_assert(CUDART_VERSION >= 12000, "CUDA 12 or newer");

#define ONE(...) +1

int main(void)
{
    printf("CUDA %d: %d functions, %d constants, %d fields are as expected\n", CUDART_VERSION,
           0 SIGNATURES_FUNCTIONS(ONE), 0 SIGNATURES_CONSTANTS(ONE), 0 SIGNATURES_FIELDS(ONE));
    return 0;
}

#endif
