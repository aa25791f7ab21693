/* SPDX-License-Identifier: Apache-2.0
 *
 * libyaml's event stream, walked by hand: the expected order is stream, document, mapping, pairs of
 * scalars, and the three ends. Knows nothing of options; the file is read whole (at most 1 MiB)
 * before the parser sees it.
 */
#include "src/option_yaml.h"

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

int tr_yaml_read(const char *path, tr_yaml_fn *fn, void *arg)
{
    struct reader r = {.path = path};
    size_t bytes;
    char *text;
    int rc = tr_file_read(path, YAML_LIMIT, &text, &bytes);

    if (rc < 0)
        return rc;
    if (!yaml_parser_initialize(&r.parser)) {
        rc = tr_error(-ENOMEM, "%s: out of memory", path);
        goto fail_parser;
    }
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, bytes);
    rc = read_document(&r, fn, arg);
    yaml_event_delete(&r.event);
    yaml_parser_delete(&r.parser);
fail_parser:
    tr_free(TR_MEM_TEXT, text);
    return rc;
}

/* Always in double quotes: a path that is "no", "1e3" or "~" stays the text it is. */
void tr_yaml_print_quoted(FILE *f, const char *text)
{
    fputc('"', f);
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;

        if (c == '"' || c == '\\')
            fprintf(f, "\\%c", c);
        else if (c < 0x20 || c == 0x7f)
            fprintf(f, "\\x%02X", c);
        else
            fputc(c, f);
    }
    fputc('"', f);
}
