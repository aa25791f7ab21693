/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/v16_avx2.h"

#include "cpu/code8_simd.h"
