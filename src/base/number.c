/* SPDX-License-Identifier: Apache-2.0 */
#include "src/base/number.h"

#include <locale.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static locale_t plain;

static void make_plain(void)
{
    plain = newlocale(LC_NUMERIC_MASK, "C", (locale_t)0);
}

/* The thread's locale, to be restored; 0 where there was no memory for another. */
static locale_t enter(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, make_plain);
    return plain ? uselocale(plain) : (locale_t)0;
}

static void leave(locale_t before)
{
    if (before)
        uselocale(before);
}

double tr_number_read(const char *text, char **end)
{
    locale_t before = enter();
    double x = strtod(text, end);

    leave(before);
    return x;
}

int tr_number_print(char *text, size_t room, const char *fmt, ...)
{
    locale_t before = enter();
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(text, room, fmt, ap);
    va_end(ap);
    leave(before);
    return n;
}
