/* SPDX-License-Identifier: Apache-2.0
 *
 * cmocka with its headers in the order that it wants, and the one check that most tests here make:
 * a call fails with a message that has the expected words in it.
 */
#ifndef TESTS_MODEL_TEST_H
#define TESTS_MODEL_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "src/base/err.h"
#include "tests/model/make.h"

/* r is what the call returned. One line, and it names what it should. */
#define assert_refused(r, words) check_refused((r), (words), __FILE__, __LINE__)

static inline void check_refused(int r, const char *words, const char *file, int line)
{
    const char *message = tr_error_message();

    if (r >= 0)
        printf("%s:%d: accepted, wanted a refusal with: %s\n", file, line, words);
    else if (!strstr(message, words) || strchr(message, '\n'))
        printf("%s:%d: message: %s\n   wanted: %s\n", file, line, message, words);
    if (r >= 0 || !strstr(message, words) || strchr(message, '\n'))
        fail();
    tr_error(0, "nothing");
}

#endif
