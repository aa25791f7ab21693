/* SPDX-License-Identifier: Apache-2.0
 *
 * A split master gives back every f32 pattern, NaN's payload and the sign of zero too, on every
 * tier. By default the patterns around each rounding and one in 257 of the others; --all: all 2^32.
 * Rounding to even instead of up is the defect that is seen: some remainders would need a 17th bit.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/kernels.h"
#include "tests/tiers.h"

#define N (1 << 16)

static float x[N], back[N];
static uint16_t w[N];
static int16_t rest[N];

/* With the upper half `high`: all lower halves, or so many of them. */
static int draw(uint32_t high, int all)
{
    static const uint16_t edges[] = {0, 1, 0x7fff, 0x8000, 0x8001, 0xfffe, 0xffff};
    int n = 0;

    for (uint32_t low = all ? 0 : high % 257; low < N; low += all ? 1 : 257)
        x[n++] = tr_bits_f32(high << 16 | low);
    for (size_t i = 0; !all && i < sizeof(edges) / sizeof(edges[0]); i++)
        x[n++] = tr_bits_f32(high << 16 | edges[i]);
    return n;
}

static void split_to_even(int n)
{
    for (int i = 0; i < n; i++) {
        w[i] = tr_f32_bf16(x[i]);
        rest[i] = (int16_t)(uint16_t)(tr_f32_bits(x[i]) - ((uint32_t)w[i] << 16));
    }
}

/* Patterns of all that are drawn which do not come back, or whose weight is another than C's. */
static int64_t count_lost(const struct tr_cpu_kernels *k, int all, int even)
{
    int64_t lost = 0;

    for (uint32_t high = 0; high < N; high++) {
        int n = draw(high, all);

        if (even)
            split_to_even(n);
        else
            k->master_split(w, rest, x, n);
        k->master_join(back, w, rest, n);
        lost += memcmp(x, back, (size_t)n * sizeof(*x)) != 0;
        for (int i = 0; i < n && !even; i++) {
            int16_t same;

            lost += w[i] != tr_master_split(x[i], &same) || rest[i] != same;
        }
    }
    return lost;
}

int main(int argc, char **argv)
{
    int all = argc > 1 && !strcmp(argv[1], "--all"), bad = 0;
    struct tr_cpu_kernels k;

    for (int tier = 0; tier <= (int)tr_cpu_tier_best(); tier++) {
        int64_t lost;

        tr_cpu_kernels_init(&k, (enum tr_cpu_tier)tier);
        lost = count_lost(&k, all, 0);
        printf("%s: %lld lost\n", tr_cpu_tier_name((enum tr_cpu_tier)tier), (long long)lost);
        bad |= lost != 0;
    }
    say_missing_tiers();
    if (count_lost(&k, 0, 1) == 0) {
        printf("rounding to even is not seen\n");
        bad = 1;
    }
    return bad;
}
