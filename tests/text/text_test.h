/* SPDX-License-Identifier: Apache-2.0
 *
 * What the tests of tokenizer and data share: golden.json, real files where they are at hand, a
 * folder for files, and memory that must be given back.
 */
#ifndef TR_TESTS_TEXT_TEST_H
#define TR_TESTS_TEXT_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>

#include "src/base/err.h"
#include "src/text/data.h"
#include "src/text/tokenizer.h"

/* golden.json, read once. */
json_t *text_golden(void);
/* A path below ../shared/data in a static buffer; NULL (said aloud) where it is absent. */
const char *text_shared(const char *name);
/* Writes a file into the test's own folder; the path lives in one of 16 buffers taken in turn. */
const char *text_file(const char *name, const char *content, size_t bytes);
const char *text_path(const char *name);
/* The toy tokenizer of golden.json with a patch (NULL: none), and a config (NULL: none). */
struct tr_tokenizer *text_toy(json_t *patch, const char *config);
/* The toy with <s> (1) before a text, and </s> as its end. */
struct tr_tokenizer *text_toy_marked(void);
struct tr_data *text_open_data(const struct tr_data_params *p);
/* Deterministic random numbers for test inputs. */
uint32_t text_random(uint32_t *state);
double text_seconds(void);

/* The cases of llama.cpp's NAME.inp have the ids of NAME.out. */
void text_compare_vectors(const struct tr_tokenizer *t, const char *name);
/* Fails where parts have other ids than the whole, and adds the cuts to *cuts. Returns how often
 * careless cuts changed the ids: the check must be able to fail. */
int text_compare_parts(const struct tr_tokenizer *t, const char *text, size_t n, int *cuts);

/* The same of recorded texts, eight of them in a row. */
void text_compare_joined(const struct tr_tokenizer *t, json_t *texts);

/* Group fixtures: make and remove the folder; the second fails where memory was not given back. */
int text_setup(void **state);
int text_teardown(void **state);

/* Fails unless r is an error whose message has all of the parts (a NULL ends the list). */
void text_expect_error(int r, const char *const *parts);
#define TEXT_ERROR(r, ...) text_expect_error((r), (const char *const[]){__VA_ARGS__, NULL})

/* CRC-32 of bytes behind others. */
uint32_t text_crc32(uint32_t crc, const void *bytes, size_t n);
/* A text of texts.json, for free(): a string, or hex digits where it is no UTF-8. */
char *text_bytes(json_t *v, size_t *n);
/* How many texts have other ids, or decode to another text, than recorded: 8 hex digits each, the
 * CRC-32 of both; "--------" where nothing is recorded. */
int text_compare_crcs(const struct tr_tokenizer *t, const char *name, json_t *texts,
                      const char *crcs);

#endif
