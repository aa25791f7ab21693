/* SPDX-License-Identifier: Apache-2.0
 *
 * The description of inspect.c as lines of text: scalars as "key: value", lists of objects as
 * tables with a row each.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/json.h"
#include "src/run/inspect.h"

static void write_bytes(FILE *out, json_int_t n)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double x = (double)n;
    int u = 0;

    while (x >= 1024 && u < 4) {
        x /= 1024;
        u++;
    }
    fprintf(out, u ? "%.1f %s" : "%.0f %s", x, units[u]);
}

static int is_bytes(const char *key)
{
    size_t n = strlen(key);

    return n >= 5 && !strcmp(key + n - 5, "bytes");
}

static void write_value(FILE *out, const char *key, const json_t *v)
{
    char *s;

    if (json_is_string(v)) {
        fputs(json_string_value(v), out);
    } else if (json_is_integer(v) && is_bytes(key)) {
        write_bytes(out, json_integer_value(v));
    } else if (json_is_real(v)) {
        fprintf(out, "%g", json_real_value(v));
    } else if (json_is_boolean(v)) {
        fputs(json_is_true(v) ? "yes" : "no", out);
    } else {
        s = tr_json_text(v, JSON_ENCODE_ANY | JSON_COMPACT);
        fputs(s ? s : "?", out);
        free(s);
    }
}

static void write_rows(FILE *out, const json_t *list, int indent)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *key, *gap = "";
        json_t *v;

        fprintf(out, "%*s", indent, "");
        json_object_foreach(json_array_get(list, i), key, v) {
            fputs(gap, out);
            write_value(out, key, v);
            if (json_is_integer(v) && !is_bytes(key))
                fprintf(out, " %s", key);
            gap = "  ";
        }
        fputc('\n', out);
    }
}

static void write_object(FILE *out, const json_t *o, int indent)
{
    const char *key;
    json_t *v;

    json_object_foreach((json_t *)(uintptr_t)o, key, v) {
        int table = json_is_array(v) && json_is_object(json_array_get(v, 0));

        if (json_is_null(v))
            continue;
        fprintf(out, "%*s%s:", indent, "", key);
        if (table || json_is_object(v))
            fputc('\n', out);
        else
            fputc(' ', out);
        if (table)
            write_rows(out, v, indent + 2);
        else if (json_is_object(v))
            write_object(out, v, indent + 2);
        else
            write_value(out, key, v);
        if (!table && !json_is_object(v))
            fputc('\n', out);
    }
}

char *tr_inspect_text(const json_t *found)
{
    char *text = NULL;
    size_t n;
    FILE *out = open_memstream(&text, &n);

    if (!out)
        return NULL;
    write_object(out, found, 0);
    if (fclose(out) == 0)
        return text;
    free(text);
    return NULL;
}
