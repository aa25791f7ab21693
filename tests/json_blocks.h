/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory of jansson's that lacks one block: what is written then is whole, or is not written.
 */
#ifndef TR_TESTS_JSON_BLOCKS_H
#define TR_TESTS_JSON_BLOCKS_H

#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include "src/base/err.h"
#include "src/base/file.h"
#include "src/base/json.h"
#include "src/base/mem.h"

static int blocks_left = -1; /* until jansson does not get one; -1: it gets all */
static int blocks_asked;     /* since blocks_lack() */

static inline void *blocks_take(size_t n)
{
    int fails = blocks_left == 0;

    blocks_left -= blocks_left >= 0;
    blocks_asked++;
    return fails ? NULL : malloc(n);
}

/* From here on jansson gets all blocks but the one behind so many; -1: all. */
static inline void blocks_lack(int behind)
{
    blocks_left = behind;
    blocks_asked = behind < 0 ? blocks_asked : 0;
    json_set_alloc_funcs(behind < 0 ? malloc : blocks_take, free);
}

/* For make() below: the text of what the function under test has made, where it says 0. It takes
 * the value over. */
static inline char *blocks_text(int r, json_t *made)
{
    char *text;

    blocks_lack(-1);
    text = r < 0 ? NULL : tr_json_text(made, 0);
    json_decref(made);
    return text;
}

/* The same of a file that it has written. */
static inline char *blocks_file(int r, const char *path)
{
    char *text = NULL, *copy = NULL;
    size_t bytes;

    if (r == 0 && tr_file_read(path, 1 << 20, &text, &bytes) == 0)
        copy = strndup(text, bytes);
    tr_free(TR_MEM_TEXT, text);
    return copy;
}

/* Whichever of the last blocks (0: of all) that make() takes is missing: it gives the text that it
 * gives without that, for free(), or NULL. Returns how often it was NULL. What is read comes
 * before: a reader of jansson's that gets no block may leave out a character. What comes behind the
 * function under test needs none where make() calls blocks_lack(-1) first. */
static inline int blocks_whole(char *(*make)(void *arg), void *arg, int last)
{
    char *whole, *text;
    int none = 0, lacked = 1, blocks;

    blocks_lack(INT_MAX);
    whole = make(arg);
    blocks_lack(-1);
    blocks = blocks_asked;
    if (!whole)
        fail_msg("nothing: %s", tr_error_message());
    assert_true(blocks >= last);
    for (blocks = last ? blocks - last : 0; lacked; blocks++) {
        blocks_lack(blocks);
        text = make(arg);
        blocks_lack(-1);
        lacked = blocks_asked > blocks;
        if (text ? strcmp(text, whole) != 0 : !lacked)
            fail_msg("without block %d: %s", blocks, text ? text : "nothing");
        none += !text;
        free(text);
    }
    free(whole);
    return none;
}

#endif
