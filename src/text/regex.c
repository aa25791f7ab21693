/* SPDX-License-Identifier: Apache-2.0
 *
 * Compiling and matching. The compiler of PCRE2 makes machine code where it can; a match that
 * outgrows its stack is done again by the interpreter, which has the heap. Limits stop a hostile
 * expression with an error: an expression of a file must never hang or eat the memory. The one of
 * PCRE2 for the heap is 20 GB.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "src/base/err.h"
#include "src/base/mem.h"
#include "src/text/regex.h"
#include "src/text/regex_translate.h"

#define HEAP_MOST_KIB (64 << 10) /* of a search */

struct tr_regex {
    pcre2_code *code;
    pcre2_match_context *limits;
};

static int compile(struct tr_regex *r, const struct tok_buf *pattern)
{
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    PCRE2_SIZE where;
    PCRE2_UCHAR text[128];
    int e;

    if (!context)
        return tr_error(-ENOMEM, "out of memory for an expression");
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    pcre2_set_parens_nest_limit(context, 50);
    r->code = pcre2_compile((PCRE2_SPTR)pattern->v, pattern->n,
                            PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &e, &where, context);
    pcre2_compile_context_free(context);
    if (r->code) {
        pcre2_jit_compile(r->code, PCRE2_JIT_COMPLETE); /* without it, it is only slower */
        return 0;
    }
    pcre2_get_error_message(e, text, sizeof(text));
    return tr_error(-EINVAL, "bad regular expression: %s", (const char *)text);
}

static int set_limits(struct tr_regex *r)
{
    r->limits = pcre2_match_context_create(NULL);
    if (!r->limits)
        return tr_error(-ENOMEM, "out of memory for an expression");
    pcre2_set_heap_limit(r->limits, HEAP_MOST_KIB);
    return 0;
}

int tr_regex_open(struct tr_regex **out, const char *pattern, size_t bytes)
{
    struct tr_regex *r = tr_alloc(TR_MEM_TEXT, sizeof(*r));
    struct tok_buf translated = {0};
    int e = r ? tr_regex_translate(pattern, bytes, &translated) : -ENOMEM;

    if (e == 0)
        e = set_limits(r);
    if (e == 0)
        e = compile(r, &translated);
    tok_buf_free(&translated);
    if (e < 0) {
        tr_regex_close(r);
        return e;
    }
    *out = r;
    return 0;
}

void tr_regex_close(struct tr_regex *r)
{
    if (!r)
        return;
    pcre2_match_context_free(r->limits);
    pcre2_code_free(r->code);
    tr_free(TR_MEM_TEXT, r);
}

int tr_regex_next(const struct tr_regex *r, struct tr_regex_find *f, const char *text, size_t n,
                  size_t at, size_t place[2])
{
    const PCRE2_SIZE *v;
    int e;

    if (!f->match)
        f->match = pcre2_match_data_create(1, NULL);
    if (!f->match)
        return tr_error(-ENOMEM, "out of memory for a search");
    e = pcre2_match(r->code, (PCRE2_SPTR)text, n, at, PCRE2_NO_UTF_CHECK, f->match, r->limits);
    if (e == PCRE2_ERROR_JIT_STACKLIMIT)
        e = pcre2_match(r->code, (PCRE2_SPTR)text, n, at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                        f->match, r->limits);
    if (e == PCRE2_ERROR_NOMATCH)
        return 0;
    if (e < 0)
        return tr_error(-EFBIG, "a regular expression of the tokenizer takes too much (PCRE2 %d)",
                        e);
    v = pcre2_get_ovector_pointer(f->match);
    place[0] = v[0];
    place[1] = v[1];
    return 1;
}

void tr_regex_find_free(struct tr_regex_find *f)
{
    pcre2_match_data_free(f->match);
    f->match = NULL;
}
