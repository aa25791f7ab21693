/* SPDX-License-Identifier: Apache-2.0
 *
 * Typed reading of a JSON object that is not trusted: every value is asked for with its range, the
 * first one that does not fit leaves a message naming file and key, and all later calls only return
 * their fallbacks. So a reader is a straight list of keys with one test of `r` at its end.
 */
#ifndef TR_SRC_MODEL_CONFIG_KEYS_H
#define TR_SRC_MODEL_CONFIG_KEYS_H

#include <jansson.h>
#include <stdint.h>

struct tr_keys {
    const json_t *object;
    const char *where;  /* the file */
    const char *prefix; /* "" or "rope_scaling." */
    int r;              /* 0, or the first error */
};

#define TR_KEY_REQUIRED INT64_MIN

/* A missing key and null give the fallback. */
int64_t tr_keys_int(struct tr_keys *k, const char *key, int64_t min, int64_t max, int64_t fallback);
double tr_keys_real(struct tr_keys *k, const char *key, double min, double max, double fallback);
int tr_keys_bool(struct tr_keys *k, const char *key, int fallback);
const char *tr_keys_text(struct tr_keys *k, const char *key, const char *fallback);

/* NULL where the key is missing or null. */
const json_t *tr_keys_get(const struct tr_keys *k, const char *key);
/* 0 also where it is false, 0 or empty. */
int tr_keys_says(const struct tr_keys *k, const char *key);

/* Keeps the message "FILE: \"KEY\" is VALUE; NEED" unless an error stands already. */
void tr_keys_refuse(struct tr_keys *k, const char *key, const char *need);

#endif
