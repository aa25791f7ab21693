/* SPDX-License-Identifier: Apache-2.0
 *
 * One function for each type of value. All go through tr_keys_refuse, which keeps the first error
 * alone: what follows from a bad value (a count that does not divide another) would only hide it.
 */
#include "src/model/config_keys.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "src/base/err.h"
#include "src/base/json.h"

const json_t *tr_keys_get(const struct tr_keys *k, const char *key)
{
    const json_t *v = json_object_get(k->object, key);

    return json_is_null(v) ? NULL : v;
}

int tr_keys_says(const struct tr_keys *k, const char *key)
{
    return tr_json_says(tr_keys_get(k, key));
}

void tr_keys_refuse(struct tr_keys *k, const char *key, const char *need)
{
    const json_t *v = json_object_get(k->object, key);
    char *text = v ? tr_json_text(v, JSON_ENCODE_ANY | JSON_COMPACT) : NULL;

    if (k->r == 0) {
        k->r = -EINVAL;
        if (v)
            tr_error(k->r, "%s: \"%s%s\" is %.60s; %s", k->where, k->prefix, key,
                     text ? text : "unreadable", need);
        else
            tr_error(k->r, "%s: \"%s%s\" is missing; %s", k->where, k->prefix, key, need);
    }
    free(text);
}

/* Some writers have only one kind of number. */
static int is_whole(const json_t *v)
{
    return json_is_integer(v) || (json_is_real(v) && fabs(json_real_value(v)) <= 0x1p53 &&
                                  json_real_value(v) == floor(json_real_value(v)));
}

static int64_t whole(const json_t *v)
{
    return json_is_integer(v) ? json_integer_value(v) : (int64_t)json_real_value(v);
}

/* After an error the least value is returned: in range, so that the caller's own arithmetic holds
 * until it looks at r. */
int64_t tr_keys_int(struct tr_keys *k, const char *key, int64_t min, int64_t max, int64_t fallback)
{
    const json_t *v = tr_keys_get(k, key);
    char need[96];

    if (!v && fallback != TR_KEY_REQUIRED)
        return fallback;
    if (v && is_whole(v) && whole(v) >= min && whole(v) <= max)
        return whole(v);
    snprintf(need, sizeof(need), "an integer from %lld to %lld is needed", (long long)min,
             (long long)max);
    tr_keys_refuse(k, key, need);
    return min;
}

/* A whole number counts as one with a fraction: config.json files write 10000 and 10000.0. */
double tr_keys_real(struct tr_keys *k, const char *key, double min, double max, double fallback)
{
    const json_t *v = tr_keys_get(k, key);
    double x = json_number_value(v);
    char need[96];

    if (!v && !isnan(fallback))
        return fallback;
    if (json_is_number(v) && x >= min && x <= max)
        return x;
    snprintf(need, sizeof(need), "a number from %g to %g is needed", min, max);
    tr_keys_refuse(k, key, need);
    return min;
}

int tr_keys_bool(struct tr_keys *k, const char *key, int fallback)
{
    const json_t *v = tr_keys_get(k, key);

    if (!v)
        return fallback;
    if (!json_is_boolean(v))
        tr_keys_refuse(k, key, "true or false is needed");
    return json_is_true(v);
}

const char *tr_keys_text(struct tr_keys *k, const char *key, const char *fallback)
{
    const json_t *v = tr_keys_get(k, key);

    if (!v)
        return fallback;
    if (!json_is_string(v)) {
        tr_keys_refuse(k, key, "a string is needed");
        return fallback;
    }
    return json_string_value(v);
}
