/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/cuda/shim/order.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/cuda/shim/shim.h"

enum { UNSET = -1, UNREADABLE = -2 };

static int chosen = UNSET; // enum shim_order_kind, once known
static uint64_t seed;

static int parse(const char *text, uint64_t *out)
{
    char *end;

    *out = 0;
    if (!strcmp(text, "ascending"))
        return SHIM_ASCENDING;
    if (!strcmp(text, "descending"))
        return SHIM_DESCENDING;
    if (strncmp(text, "random:", 7) || !isdigit((unsigned char)text[7]))
        return UNREADABLE;
    *out = strtoull(text + 7, &end, 0);
    return *end ? (int)UNREADABLE : (int)SHIM_RANDOM;
}

int tr_shim_set_order(const char *order)
{
    uint64_t value;
    int kind = parse(order, &value);

    if (kind < 0)
        return -EINVAL;
    __atomic_store_n(&seed, value, __ATOMIC_RELAXED);
    __atomic_store_n(&chosen, kind, __ATOMIC_RELEASE);
    return 0;
}

uint64_t shim_order_random(struct shim_order *o)
{
    uint64_t z = o->state += 0x9e3779b97f4a7c15; // splitmix64

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

static uint64_t common_divisor(uint64_t a, uint64_t b)
{
    while (b) {
        uint64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

int shim_order_begin(struct shim_order *o, uint64_t n_blocks)
{
    int kind = __atomic_load_n(&chosen, __ATOMIC_ACQUIRE);

    if (kind == UNSET) {
        const char *text = getenv("TR_SHIM_ORDER");
        if (tr_shim_set_order(text && *text ? text : "ascending"))
            return -EINVAL;
        kind = __atomic_load_n(&chosen, __ATOMIC_ACQUIRE);
    }
    o->kind = (enum shim_order_kind)kind;
    o->state = __atomic_load_n(&seed, __ATOMIC_RELAXED);
    o->first = kind == SHIM_RANDOM ? shim_order_random(o) % n_blocks : 0;
    o->stride = 1;
    if (kind == SHIM_RANDOM && n_blocks > 2)
        do
            o->stride = 1 + shim_order_random(o) % (n_blocks - 1);
        while (common_divisor(o->stride, n_blocks) != 1);
    return 0;
}

uint64_t shim_order_block(const struct shim_order *o, uint64_t i, uint64_t n_blocks)
{
    if (o->kind == SHIM_DESCENDING)
        return n_blocks - 1 - i;
    return (uint64_t)((o->first + (unsigned __int128)i * o->stride) % n_blocks);
}
