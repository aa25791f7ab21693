/* SPDX-License-Identifier: Apache-2.0 */
#include "src/base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static _Thread_local char message[8192]; /* two paths and what is said of them */

/* Bytes of the control character at c; 0: it is none. Those past ASCII move a cursor, too. */
static int control_bytes(const char *c)
{
    unsigned char first = (unsigned char)c[0], second = first ? (unsigned char)c[1] : 0;

    if (first < 0x20 || first == 0x7f)
        return 1;
    return first == 0xc2 && second >= 0x80 && second < 0xa0 ? 2 : 0;
}

/* What is quoted in it, a path or a value of a file, may have ends of lines and whatever else moves
 * a terminal's cursor: they are spelt out. */
static void keep_to_one_line(void)
{
    char old[sizeof(message)];
    size_t at = 0, plain = 0;

    while (message[plain] && !control_bytes(message + plain))
        plain++;
    if (!message[plain])
        return;
    memcpy(old, message, sizeof(old));
    for (const char *c = old; *c && at < sizeof(message); c++) {
        int bytes = control_bytes(c);

        c += bytes > 1;
        at += (size_t)snprintf(message + at, sizeof(message) - at,
                               !bytes       ? "%c"
                               : *c == '\n' ? "\\n"
                                            : "\\x%02x",
                               (unsigned char)*c);
    }
}

int tr_error(int code, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(message, sizeof(message), fmt, ap);
    va_end(ap);
    keep_to_one_line();
    return code;
}

int tr_error_prefix(int code, const char *fmt, ...)
{
    char old[sizeof(message)];
    va_list ap;
    int n;

    memcpy(old, message, sizeof(old));
    va_start(ap, fmt);
    n = vsnprintf(message, sizeof(message), fmt, ap);
    va_end(ap);
    if (n >= 0 && (size_t)n < sizeof(message))
        snprintf(message + n, sizeof(message) - n, ": %s", old);
    keep_to_one_line();
    return code;
}

int tr_need(const char *value, const char *option)
{
    return value && *value ? 0 : tr_error(-EINVAL, "--%s is missing", option);
}

int tr_need_count(int64_t value, const char *option)
{
    return value >= 0 ? 0
                      : tr_error(-EINVAL, "--%s: %lld is less than 1", option, (long long)value);
}

int tr_need_text(const char *value, const char *option)
{
    return !value || *value ? 0 : tr_error(-EINVAL, "--%s: is empty", option);
}

int tr_need_threads(int64_t value)
{
    return value <= TR_MOST_THREADS ? tr_need_count(value, "threads")
                                    : tr_error(-EINVAL, "--threads: %lld is more than %d",
                                               (long long)value, TR_MOST_THREADS);
}

const char *tr_error_message(void)
{
    return message;
}
