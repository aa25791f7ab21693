/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/v16_avx512.h"

#include "cpu/dropout_simd.h"
