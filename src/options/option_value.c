/* SPDX-License-Identifier: Apache-2.0
 *
 * One option's value: from text into a params struct and back. Works on any table of struct
 * tr_option; knows no particular option. Parsing is strict: the whole text must be the value.
 */
#include "src/options/option_value.h"

#include <ctype.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/err.h"
#include "src/base/mem.h"
#include "src/base/number.h"
#include "src/base/utf8.h"
#include "src/tailrace.h"

#define REAL_TEXT 40

static const struct {
    const char *name;
    unsigned shift;
} units[] = {{"B", 0},  {"KiB", 10}, {"MiB", 20}, {"GiB", 30}, {"TiB", 40},
             {"K", 10}, {"M", 20},   {"G", 30},   {"T", 40}};

static int check_percent(double value)
{
    if (!(value > 0 && value <= 100))
        return tr_error(-EINVAL, "a share of the free memory lies above 0%% and up to 100%%");
    return 0;
}

/* Of which memory is known later, with the device. */
static int parse_percent(double value, uint64_t *out)
{
    int r = check_percent(value);

    if (r == 0)
        *out = TR_SHARE(value);
    return r;
}

/* Through double, for "1.5GiB"; the text itself must begin with a digit, which leaves out the
 * signs, hexadecimals, "inf" and "nan" that strtod would take. */
static int parse_size(const char *text, uint64_t *out)
{
    double value, bytes = -1;
    char *end;

    errno = 0;
    value = tr_number_read(text, &end);
    if (isdigit((unsigned char)text[0]) && strspn(text, "0123456789.") == (size_t)(end - text)) {
        if (strcmp(end, "%") == 0)
            return parse_percent(value, out);
        if (!*end)
            bytes = value;
        for (size_t i = 0; i < sizeof(units) / sizeof(*units); i++)
            if (strcmp(end, units[i].name) == 0)
                bytes = ldexp(value, (int)units[i].shift);
    }
    if (!(bytes >= 1 && bytes < 0x1p63))
        return tr_error(-EINVAL, "'%s' is not a size such as 24GiB, 512MiB or 80%%", text);
    *out = (uint64_t)bytes;
    return 0;
}

static int check_count(int64_t n)
{
    return n >= 1 ? 0 : tr_error(-EINVAL, "%lld is less than 1", (long long)n);
}

static int parse_count(const char *text, int64_t *out)
{
    char *end;

    errno = 0;
    *out = strtoll(text, &end, 10);
    if (isspace((unsigned char)*text) || end == text || *end || errno)
        return tr_error(-EINVAL, "'%s' is not a whole number", text);
    return check_count(*out);
}

static int parse_seed(const char *text, uint64_t *out)
{
    char *end;

    errno = 0;
    *out = strtoull(text, &end, 10);
    if (!isdigit((unsigned char)*text) || *end || errno)
        return tr_error(-EINVAL, "'%s' is not a whole number, 0 or more", text);
    return 0;
}

/* The shortest of 15 to 17 digits that reads back as the same double. */
static const char *real_text(double x, char text[REAL_TEXT])
{
    for (int digits = 15; digits <= 17; digits++) {
        tr_number_print(text, REAL_TEXT, "%.*g", digits, x);
        if (tr_number_read(text, NULL) == x)
            break;
    }
    return text;
}

static int check_real(const struct tr_option *o, double x)
{
    char text[REAL_TEXT];

    real_text(x, text);
    if (!isfinite(x))
        return tr_error(-EINVAL, "'%s' is not a number", text);
    if (x < o->min || (x == o->min && (o->flags & TR_OPTION_ABOVE_MIN)))
        return tr_error(-EINVAL, "%s is too small: it must be %s %g", text,
                        o->flags & TR_OPTION_ABOVE_MIN ? "above" : "at least", o->min);
    if (o->max && (x > o->max || (x == o->max && (o->flags & TR_OPTION_BELOW_MAX))))
        return tr_error(-EINVAL, "%s is too large: it must be %s %g", text,
                        o->flags & TR_OPTION_BELOW_MAX ? "below" : "at most", o->max);
    return 0;
}

static int parse_real(const struct tr_option *o, const char *text, double *out)
{
    char *end;
    double x = tr_number_read(text, &end);
    int r;

    if ((o->flags & TR_OPTION_AUTO) && strcmp(text, "auto") == 0) {
        *out = TR_REAL_AUTO;
        return 0;
    }
    if (isspace((unsigned char)*text) || end == text || *end)
        return tr_error(-EINVAL, "'%s' is not a number", text);
    if ((r = check_real(o, x)) < 0)
        return r;
    *out = x == 0 && (o->flags & TR_OPTION_ZERO_OFF) ? -1 : x;
    return 0;
}

static int parse_reals(const struct tr_option *o, const char *text, double out[TR_MOST_DRIVES])
{
    double list[TR_MOST_DRIVES] = {0};
    char one[64];
    int r = 0;

    for (int n = 0; r == 0 && text; n++) {
        const char *comma = strchr(text, ',');
        size_t bytes = comma ? (size_t)(comma - text) : strlen(text);

        if (n == TR_MOST_DRIVES)
            return tr_error(-EINVAL, "more than %d numbers", TR_MOST_DRIVES);
        snprintf(one, sizeof(one), "%.*s", (int)(bytes < sizeof(one) ? bytes : sizeof(one)), text);
        r = parse_real(o, one, &list[n]);
        text = comma ? comma + 1 : NULL;
    }
    if (r == 0)
        memcpy(out, list, sizeof(list));
    return r;
}

/* Of "NAME:N": how long NAME: is; 0: a name without a number. */
static size_t counted(const struct tr_choice_name *c)
{
    size_t n = strlen(c->name);

    return n > 2 && !strcmp(c->name + n - 2, ":N") ? n - 1 : 0;
}

static int parse_counted(const struct tr_choice_name *c, const char *text, int *out)
{
    size_t n = counted(c);
    char *end;
    long count;

    if (!n || strncmp(text, c->name, n) || text[n] < '1' || text[n] > '9')
        return 0;
    count = strtol(text + n, &end, 10);
    if (*end || count > TR_CHOICE_MOST)
        return 0;
    *out = c->value + (int)count;
    return 1;
}

/* The message lists what could have been said: the shortest help there is. */
static int none_of(const struct tr_choice_name *choices, const char *text)
{
    char names[256] = "";

    for (const struct tr_choice_name *c = choices; c->name; c++) {
        if (c != choices)
            strncat(names, ", ", sizeof(names) - strlen(names) - 1);
        strncat(names, c->name, sizeof(names) - strlen(names) - 1);
    }
    return tr_error(-EINVAL, "'%s' is none of: %s", text, names);
}

static int parse_choice(const struct tr_choice_name *choices, const char *text, int *out)
{
    for (const struct tr_choice_name *c = choices; c->name; c++) {
        if (parse_counted(c, text, out))
            return 0;
        if (strcmp(c->name, text) == 0 && !counted(c)) {
            *out = c->value;
            return 0;
        }
    }
    return none_of(choices, text);
}

static const char *choice_name(const struct tr_option *o, int value)
{
    for (const struct tr_choice_name *c = o->choices; c->name; c++)
        if (counted(c) ? value > c->value && value - c->value <= TR_CHOICE_MOST : c->value == value)
            return c->name;
    return NULL;
}

static int check_choice(const struct tr_option *o, int value)
{
    char text[16];

    snprintf(text, sizeof(text), "%d", value);
    return choice_name(o, value) ? 0 : none_of(o->choices, text);
}

static int parse_switch(const char *text, int *out)
{
    static const struct tr_choice_name words[] = {{"yes", 1}, {"no", 0}, {NULL, 0}};

    return parse_choice(words, text, out);
}

static int check_text(const char *text)
{
    return *text ? 0 : tr_error(-EINVAL, "the value is empty");
}

/* Copied, as values come from a command line, from a file's buffer, or from another struct. */
static int set_text(const char *text, char **place)
{
    char *copy;

    if (check_text(text) < 0)
        return -EINVAL;
    copy = tr_strdup(TR_MEM_MISC, text);
    if (!copy)
        return -ENOMEM;
    tr_free(TR_MEM_MISC, *place);
    *place = copy;
    return 0;
}

static size_t value_bytes(enum tr_option_kind kind)
{
    switch (kind) {
    case TR_OPTION_TEXT:
    case TR_OPTION_PATH:
        return sizeof(char *);
    case TR_OPTION_CHOICE:
    case TR_OPTION_SWITCH:
        return sizeof(int);
    case TR_OPTION_REALS:
        return TR_MOST_DRIVES * sizeof(double);
    default:
        return 8;
    }
}

void tr_option_unset(const struct tr_option *o, void *params)
{
    char *place = (char *)params + o->offset;

    if (o->kind == TR_OPTION_TEXT || o->kind == TR_OPTION_PATH)
        tr_free(TR_MEM_MISC, *(char **)place);
    memset(place, 0, value_bytes(o->kind));
}

int tr_option_set(const struct tr_option *table, const struct tr_option *o, void *params,
                  const char *value)
{
    void *place = (char *)params + o->offset;
    int rc = -EINVAL;

    switch (o->kind) {
    case TR_OPTION_TEXT:
    case TR_OPTION_PATH:
        rc = set_text(value, place);
        break;
    case TR_OPTION_SIZE:
        rc = parse_size(value, place);
        break;
    case TR_OPTION_COUNT:
        rc = parse_count(value, place);
        break;
    case TR_OPTION_SEED:
        rc = parse_seed(value, place);
        break;
    case TR_OPTION_REAL:
        rc = parse_real(o, value, place);
        break;
    case TR_OPTION_REALS:
        rc = parse_reals(o, value, place);
        break;
    case TR_OPTION_CHOICE:
        rc = parse_choice(o->choices, value, place);
        break;
    case TR_OPTION_SWITCH:
        rc = parse_switch(value, place);
        break;
    }
    if (rc == 0 && o->rival)
        tr_option_unset(tr_option_find(table, o->rival), params);
    return rc;
}

/* Zero is "not given" throughout. Where 0 switches something off TR_OPTION_ZERO_OFF stores -1 for
 * it; where it is a value like any other (a seed) it is also the default. */
int tr_option_is_set(const struct tr_option *o, const void *params)
{
    static const char zero[TR_MOST_DRIVES * sizeof(double)];

    return memcmp((const char *)params + o->offset, zero, value_bytes(o->kind)) != 0;
}

static int check_in_struct(const struct tr_option *o, double x)
{
    if ((x < 0 && (o->flags & TR_OPTION_ZERO_OFF)) ||
        (x == TR_REAL_AUTO && (o->flags & TR_OPTION_AUTO)))
        return 0;
    return check_real(o, x);
}

static int check_reals(const struct tr_option *o, const double list[TR_MOST_DRIVES])
{
    int r = 0;

    for (int n = 0; n < TR_MOST_DRIVES && r == 0; n++)
        r = list[n] != 0 ? check_real(o, list[n]) : 0;
    return r;
}

/* Absolute, also where nothing is there yet, or any more: what there is of it, and the rest. So a
 * path is the same before and after. */
static char *whole_path(const char *text)
{
    size_t n = strlen(text), at;
    char *part, *base = NULL, *path = NULL;

    while (n > 1 && text[n - 1] == '/')
        n--;
    part = n && n < PATH_MAX ? strndup(text, n) : NULL;
    for (at = n; part && at && !(base = realpath(part, NULL)); part[at] = 0)
        while (--at && part[at] != '/')
            ;
    if (part && !base)
        base = realpath(*text == '/' ? "/" : ".", NULL);
    free(part);
    while (at < n && text[at] == '/')
        at++;
    if (base && asprintf(&path, "%s%s%.*s", base, at < n && base[1] ? "/" : "",
                         at < n ? (int)(n - at) : 0, text + at) < 0)
        path = NULL;
    free(base);
    return path;
}

/* YAML is, and so is JSON: what is not could be written and never read again. */
static int is_utf8(const char *text)
{
    size_t n = strlen(text);

    return tr_utf8_valid(text, n) == n;
}

static int check_whole_text(const char *text)
{
    if (check_text(text) < 0)
        return -EINVAL;
    return is_utf8(text) ? 0 : tr_error(-EINVAL, "the value is not UTF-8");
}

/* With what it leads to, and the current folder where that is a part of it. */
static int check_path(const char *text)
{
    char *whole = whole_path(text);
    int r = check_text(text);

    if (r == 0 && (!is_utf8(text) || (whole && !is_utf8(whole))))
        r = tr_error(-EINVAL, "'%s' is not UTF-8", is_utf8(text) ? whole : text);
    free(whole);
    return r;
}

/* Of a number of bytes none is out of bounds, of a seed and a switch no value. */
int tr_option_check(const struct tr_option *o, const void *params)
{
    const void *place = (const char *)params + o->offset;
    uint64_t size;

    if (!tr_option_is_set(o, params))
        return 0;
    switch (o->kind) {
    case TR_OPTION_TEXT:
        return check_whole_text(*(const char *const *)place);
    case TR_OPTION_PATH:
        return check_path(*(const char *const *)place);
    case TR_OPTION_SIZE:
        size = *(const uint64_t *)place;
        return size & TR_SHARE(0) ? check_percent((double)(size & ~TR_SHARE(0)) / 1000) : 0;
    case TR_OPTION_COUNT:
        return check_count(*(const int64_t *)place);
    case TR_OPTION_REAL:
        return check_in_struct(o, *(const double *)place);
    case TR_OPTION_REALS:
        return check_reals(o, place);
    case TR_OPTION_CHOICE:
        return check_choice(o, *(const int *)place);
    case TR_OPTION_SEED:
    case TR_OPTION_SWITCH:
        break;
    }
    return 0;
}

/* The largest unit that divides it: what is printed is the same number again. */
static void print_size(FILE *f, uint64_t bytes)
{
    char percent[REAL_TEXT];
    size_t best = 0;

    if (bytes & TR_SHARE(0)) {
        tr_number_print(percent, sizeof(percent), "%g", (double)(bytes & ~TR_SHARE(0)) / 1000);
        fprintf(f, "%s%%", percent);
        return;
    }
    for (size_t i = 1; i < 5; i++)
        if (bytes % (1ull << units[i].shift) == 0)
            best = i;
    fprintf(f, "%llu%s", (unsigned long long)(bytes >> units[best].shift), units[best].name);
}

static void print_real(FILE *f, double x)
{
    char text[REAL_TEXT];

    fputs(real_text(x, text), f);
}

static void print_reals(FILE *f, const double list[TR_MOST_DRIVES])
{
    for (int n = 0; n < TR_MOST_DRIVES && (n == 0 || list[n] > 0); n++) {
        fputs(n ? "," : "", f);
        print_real(f, list[n]);
    }
}

static void print_text(FILE *f, const struct tr_option *o, const char *text)
{
    int name = (o->flags & TR_OPTION_NAME) && !strchr(text, '/');
    char *whole = o->kind == TR_OPTION_PATH && !name ? whole_path(text) : NULL;

    tr_yaml_print_quoted(f, whole ? whole : text);
    free(whole);
}

static void print_choice(const struct tr_option *o, const char *name, int value, FILE *f)
{
    const struct tr_choice_name *c = o->choices;

    while (c->name != name)
        c++;
    if (counted(c))
        fprintf(f, "%.*s%d", (int)counted(c), name, value - c->value);
    else
        fputs(name, f);
}

int tr_option_print(const struct tr_option *o, const void *params, FILE *f)
{
    const void *place = (const char *)params + o->offset;
    const char *name = o->kind == TR_OPTION_CHOICE ? choice_name(o, *(const int *)place) : NULL;

    if (o->kind == TR_OPTION_CHOICE ? !name
                                    : !tr_option_is_set(o, params) && !(o->flags & TR_OPTION_ZERO))
        return 0;
    fprintf(f, "%s: ", o->name);
    switch (o->kind) {
    case TR_OPTION_TEXT:
    case TR_OPTION_PATH:
        print_text(f, o, *(const char *const *)place);
        break;
    case TR_OPTION_SIZE:
        print_size(f, *(const uint64_t *)place);
        break;
    case TR_OPTION_COUNT:
        fprintf(f, "%lld", (long long)*(const int64_t *)place);
        break;
    case TR_OPTION_SEED:
        fprintf(f, "%llu", (unsigned long long)*(const uint64_t *)place);
        break;
    case TR_OPTION_REAL:
        if (*(const double *)place < 0 && (o->flags & TR_OPTION_AUTO))
            fputs("auto", f);
        else
            print_real(f, *(const double *)place < 0 ? 0 : *(const double *)place);
        break;
    case TR_OPTION_REALS:
        print_reals(f, place);
        break;
    case TR_OPTION_CHOICE:
        print_choice(o, name, *(const int *)place, f);
        break;
    case TR_OPTION_SWITCH:
        fputs(*(const int *)place ? "yes" : "no", f);
        break;
    }
    fputc('\n', f);
    return 1;
}
