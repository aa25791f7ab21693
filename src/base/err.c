/* SPDX-License-Identifier: Apache-2.0 */
#include "src/base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static _Thread_local char message[8192]; /* two paths and what is said of them */

int tr_error(int code, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(message, sizeof(message), fmt, ap);
    va_end(ap);
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
