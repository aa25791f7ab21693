/* SPDX-License-Identifier: Apache-2.0 */
#include "src/model/freeze.h"

#include <fnmatch.h>
#include <string.h>

#include "offload/offload.h"
#include "src/base/err.h"

#define PATTERN_CHARS 256

/* Copies the first pattern of the list; returns what comes after it, NULL at the end. One that is
 * too long for any tensor's name is cut and matches none. */
static const char *next_pattern(const char *list, char pattern[PATTERN_CHARS])
{
    size_t n = strcspn(list, ","), kept = n < PATTERN_CHARS ? n : PATTERN_CHARS - 1;

    memcpy(pattern, list, kept);
    pattern[kept] = 0;
    return list[n] ? list + n + 1 : NULL;
}

int tr_freeze_matches(const char *patterns, const char *name)
{
    char pattern[PATTERN_CHARS];

    while (patterns) {
        patterns = next_pattern(patterns, pattern);
        if (fnmatch(pattern, name, 0) == 0)
            return 1;
    }
    return 0;
}

static int matches_any(const struct tr_model *m, const char *pattern)
{
    for (int32_t i = 0; i < m->n_tensors; i++)
        if (fnmatch(pattern, m->tensors[i].name, 0) == 0)
            return 1;
    return 0;
}

int tr_freeze_check(const struct tr_model *m, const char *patterns)
{
    char pattern[PATTERN_CHARS];
    const char *rest = patterns;
    int32_t left = 0;

    while (rest) {
        rest = next_pattern(rest, pattern);
        if (!matches_any(m, pattern))
            return tr_error(-EINVAL,
                            "--freeze: '%s' matches no tensor of the model; they have names such "
                            "as %s and %s",
                            pattern, m->tensors[m->embed.tensor].name, m->tensors[1].name);
    }
    for (int32_t i = 0; i < m->n_tensors; i++)
        left += !tr_freeze_matches(patterns, m->tensors[i].name);
    if (!left)
        return tr_error(-EINVAL, "--freeze %s: nothing is left to train", patterns);
    return 0;
}

int tr_trains_part(const struct tr_model *m, int32_t layer, enum tr_part part)
{
    int trains = 0;

    for (int r = 0; r < TR_ROLES_BASE; r++)
        if (tr_model_part((enum tr_role)r) == part)
            trains |= tr_trains(m, m->blocks[layer].tensor[r]);
    return trains;
}

int tr_trains_role(const struct tr_model *m, enum tr_role role)
{
    int trains = 0;

    for (int32_t i = 0; i < m->config.layers; i++)
        trains |= tr_trains(m, m->blocks[i].tensor[role]);
    return trains;
}

int tr_trains_table(const struct tr_model *m)
{
    return tr_trains(m, m->embed.tensor) || tr_trains(m, m->head.tensor);
}

int tr_trains_tied(const struct tr_model *m)
{
    return m->head.tensor < 0 && tr_trains(m, m->embed.tensor);
}

struct tr_lowest tr_lowest(const struct tr_model *m)
{
    struct tr_lowest low = {.layer = -1};

    if (tr_trains(m, m->embed.tensor))
        return low;
    for (low.layer = 0; low.layer < m->config.layers; low.layer++)
        for (int part = 0; part < TR_PARTS; part++)
            if (tr_trains_part(m, low.layer, (enum tr_part)part) ||
                m->blocks[low.layer].adapter_span[part] != TR_NONE) {
                low.part = (enum tr_part)part;
                return low;
            }
    return low;
}

int tr_needs_head_dx(const struct tr_model *m)
{
    return tr_trains(m, m->final_norm) || tr_lowest(m).layer < m->config.layers;
}
