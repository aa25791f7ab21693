/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory of jansson's that lacks one block: what is written then is whole, or is not written.
 */
#ifndef TR_TESTS_JSON_BLOCKS_H
#define TR_TESTS_JSON_BLOCKS_H

#include <stdlib.h>

#include <jansson.h>

static int blocks_left = -1; /* until jansson does not get one; -1: it gets all */

static inline void *blocks_take(size_t n)
{
    int fails = blocks_left == 0;

    blocks_left -= blocks_left >= 0;
    return fails ? NULL : malloc(n);
}

/* From here on jansson gets all blocks but the one behind so many; -1: all. */
static inline void blocks_lack(int behind)
{
    blocks_left = behind;
    json_set_alloc_funcs(behind < 0 ? malloc : blocks_take, free);
}

#endif
