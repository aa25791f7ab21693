/* SPDX-License-Identifier: Apache-2.0
 *
 * libyaml's event stream, walked by hand: the expected order is stream, document, mapping, pairs of
 * scalars, and the three ends. Knows nothing of options; the file is read whole (at most 1 MiB)
 * before the parser sees it.
 */
#include "src/options/option_yaml.h"

#include <string.h>
#include <yaml.h>

#include "src/base/err.h"
#include "src/base/file.h"
#include "src/base/mem.h"

#define YAML_LIMIT (1 << 20)

struct reader {
    const char *path;
    yaml_parser_t parser;
    yaml_event_t event; /* the last one taken; empty after its delete */
};

static int line_of(const struct reader *r)
{
    return (int)r->event.start_mark.line + 1;
}

static int next_event(struct reader *r)
{
    yaml_event_delete(&r->event);
    if (yaml_parser_parse(&r->parser, &r->event))
        return 0;
    return tr_error(r->parser.error == YAML_MEMORY_ERROR ? -ENOMEM : -EINVAL, "%s:%d: %s", r->path,
                    (int)r->parser.problem_mark.line + 1,
                    r->parser.problem ? r->parser.problem : "not YAML");
}

static int expect_event(struct reader *r, yaml_event_type_t type, const char *what)
{
    int rc = next_event(r);

    if (rc == 0 && r->event.type != type)
        rc = tr_error(-EINVAL, "%s:%d: %s expected", r->path, line_of(r), what);
    return rc;
}

/* The scalar of the current event, copied. */
/* Tags and aliases are refused: "!!int 3" is YAML's business, options have types of their own. */
static int take_scalar(struct reader *r, const char *what, char **out)
{
    const char *text = (const char *)r->event.data.scalar.value;

    if (r->event.type != YAML_SCALAR_EVENT || r->event.data.scalar.tag)
        return tr_error(-EINVAL, "%s:%d: %s must be one plain value", r->path, line_of(r), what);
    if (strlen(text) != r->event.data.scalar.length)
        return tr_error(-EINVAL, "%s:%d: NUL character in %s", r->path, line_of(r), what);
    *out = tr_strdup(TR_MEM_MISC, text);
    return *out ? 0 : -ENOMEM;
}

static int read_pair(struct reader *r, tr_yaml_fn *fn, void *arg)
{
    char *key = NULL, *value = NULL;
    int line = line_of(r), rc = take_scalar(r, "a key", &key);

    if (rc == 0)
        rc = next_event(r);
    if (rc == 0)
        rc = take_scalar(r, key, &value);
    if (rc == 0) {
        rc = fn(arg, key, value);
        if (rc < 0)
            tr_error_prefix(rc, "%s:%d", r->path, line);
    }
    tr_free(TR_MEM_MISC, key);
    tr_free(TR_MEM_MISC, value);
    return rc;
}

static int read_document(struct reader *r, tr_yaml_fn *fn, void *arg)
{
    int rc = expect_event(r, YAML_STREAM_START_EVENT, "a YAML stream");

    if (rc == 0)
        rc = next_event(r);
    if (rc == 0 && r->event.type == YAML_STREAM_END_EVENT)
        return 0; /* nothing but comments: no option is set */
    if (rc == 0)
        rc = expect_event(r, YAML_MAPPING_START_EVENT, "'key: value' lines");
    while (rc == 0) {
        rc = next_event(r);
        if (rc < 0 || r->event.type == YAML_MAPPING_END_EVENT)
            break;
        rc = read_pair(r, fn, arg);
    }
    if (rc == 0)
        rc = expect_event(r, YAML_DOCUMENT_END_EVENT, "the end");
    if (rc == 0)
        rc = expect_event(r, YAML_STREAM_END_EVENT, "the end (one document only)");
    return rc;
}

int tr_yaml_parse(const struct tr_yaml_text *text, tr_yaml_fn *fn, void *arg)
{
    struct reader r = {.path = text->where};
    int rc;

    if (!yaml_parser_initialize(&r.parser))
        return tr_error(-ENOMEM, "%s: out of memory", r.path);
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)text->data, text->bytes);
    rc = read_document(&r, fn, arg);
    yaml_event_delete(&r.event);
    yaml_parser_delete(&r.parser);
    return rc;
}

int tr_yaml_read(const char *path, tr_yaml_fn *fn, void *arg)
{
    struct tr_yaml_text text = {.where = path};
    char *data;
    int rc = tr_file_read(path, YAML_LIMIT, &data, &text.bytes);

    if (rc < 0)
        return rc;
    text.data = data;
    rc = tr_yaml_parse(&text, fn, arg);
    tr_free(TR_MEM_TEXT, data);
    return rc;
}

/* The character here, if YAML does not allow it as it is or takes it for the end of a line: control
 * characters, line and paragraph separators, byte order marks. Else 0. */
static unsigned special(const unsigned char *c, int *bytes)
{
    unsigned wide =
        c[0] && c[1] && c[2] ? (c[0] & 15u) << 12 | (c[1] & 63u) << 6 | (c[2] & 63u) : 0;

    *bytes = c[0] < 0x80 ? 1 : c[0] == 0xc2 ? 2 : 3;
    if (*bytes == 1)
        return c[0] < 0x20 || c[0] == 0x7f ? c[0] : 0;
    if (*bytes == 2)
        return c[1] >= 0x80 && c[1] < 0xa0 ? c[1] : 0;
    if (c[0] >> 4 != 14)
        return 0;
    return wide == 0x2028 || wide == 0x2029 || wide == 0xfeff || wide >= 0xfffe ? wide : 0;
}

/* Always in double quotes: a path that is "no", "1e3" or "~" stays the text it is. */
void tr_yaml_print_quoted(FILE *f, const char *text)
{
    const unsigned char *c = (const unsigned char *)text;

    fputc('"', f);
    while (*c) {
        int bytes;
        unsigned code = special(c, &bytes);

        if (code)
            fprintf(f, code < 0x100 ? "\\x%02X" : "\\u%04X", code);
        else if (*c == '"' || *c == '\\')
            fprintf(f, "\\%c", *c);
        else
            fputc(*c, f);
        c += code ? bytes : 1;
    }
    fputc('"', f);
}
