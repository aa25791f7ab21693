/* SPDX-License-Identifier: Apache-2.0 */
#include "src/model/lora.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "src/base/err.h"
#include "src/base/philox.h"
#include "src/model/model.h"

#define DOMAIN 0x4c6f5241u /* keeps these words apart from those of a random model */

static const char *const names[TR_LORA_TARGETS] = {
    [TR_LORA_Q] = "q_proj",       [TR_LORA_K] = "k_proj",       [TR_LORA_V] = "v_proj",
    [TR_LORA_O] = "o_proj",       [TR_LORA_GATE] = "gate_proj", [TR_LORA_UP] = "up_proj",
    [TR_LORA_DOWN] = "down_proj",
};

int tr_lora_target_of(int role)
{
    static const enum tr_role roles[TR_LORA_TARGETS] = {
        [TR_LORA_Q] = TR_ROLE_Q,       [TR_LORA_K] = TR_ROLE_K,       [TR_LORA_V] = TR_ROLE_V,
        [TR_LORA_O] = TR_ROLE_O,       [TR_LORA_GATE] = TR_ROLE_GATE, [TR_LORA_UP] = TR_ROLE_UP,
        [TR_LORA_DOWN] = TR_ROLE_DOWN,
    };

    for (int t = 0; t < TR_LORA_TARGETS; t++)
        if ((int)roles[t] == role)
            return t;
    return -1;
}

const char *tr_lora_target_name(enum tr_lora_target t)
{
    return names[t];
}

void tr_lora_targets_text(unsigned targets, char text[TR_LORA_TEXT])
{
    size_t n = 0;

    text[0] = 0;
    for (int t = 0; t < TR_LORA_TARGETS; t++)
        if (targets >> t & 1)
            n += (size_t)snprintf(text + n, TR_LORA_TEXT - n, "%s%s", n ? "," : "", names[t]);
}

static int find_target(const char *name, size_t n)
{
    for (int t = 0; t < TR_LORA_TARGETS; t++)
        if (strlen(names[t]) == n && !memcmp(names[t], name, n))
            return t;
    return -EINVAL;
}

int tr_lora_parse_targets(const char *list, unsigned *targets)
{
    *targets = 0;
    if (!strcmp(list, "all-linear")) {
        *targets = (1u << TR_LORA_TARGETS) - 1;
        return 0;
    }
    for (;;) {
        size_t n = strcspn(list, ",");
        int t = find_target(list, n);

        if (t < 0)
            return tr_error(-EINVAL,
                            "'%.*s': no such target; there are q_proj, k_proj, v_proj, o_proj, "
                            "gate_proj, up_proj and down_proj, or all of them: all-linear",
                            n > 64 ? 64 : (int)n, list);
        *targets |= 1u << t;
        if (!list[n])
            return 0;
        list += n + 1;
    }
}

/* Four words of a call, each a value of 24 bits, so that it is exact in f32. */
void tr_lora_fill(uint64_t seed, const struct tr_tensor *t, uint64_t from, size_t n, float *buf)
{
    float bound = (float)(1 / sqrt((double)t->cols));
    uint32_t name = (uint32_t)XXH3_64bits(t->name, strlen(t->name));
    int is_b = (t->role - TR_ROLE_LORA) % 2;
    struct tr_philox r = {{0}};

    for (size_t i = 0; i < n; i++) {
        uint64_t at = from + i;

        if (i == 0 || at % 4 == 0)
            r = tr_philox4x32((struct tr_philox){{(uint32_t)(at / 4), (uint32_t)(at / 4 >> 32),
                                                  (uint32_t)(seed >> 32), DOMAIN}},
                              (uint32_t)seed, name);
        buf[i] = is_b ? 0 : ((float)(r.v[at % 4] >> 8) * 0x1p-23f - 1) * bound;
    }
}
