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
