/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/plan/foretold.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

json_t *foretold(const struct tr_foretell_params *p)
{
    json_t *o;
    char *text;

    if (tr_foretell(p, &text) < 0)
        fail_msg("plan: %s", tr_message());
    o = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(o);
    tr_free_text(text);
    return o;
}

uint64_t told_number(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);

    if (!json_is_integer(v))
        fail_msg("%s is no integer", key);
    return (uint64_t)json_integer_value(v);
}

void told_table_sums(const json_t *plan)
{
    const json_t *rows = json_object_get(plan, "device_memory");
    uint64_t sum = 0;

    for (size_t i = 0; i < json_array_size(rows); i++)
        sum += told_number(json_array_get(rows, i), "bytes");
    assert_int_equal(sum, told_number(json_object_get(plan, "predicted"), "device_bytes"));
}
