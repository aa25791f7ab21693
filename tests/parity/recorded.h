/* SPDX-License-Identifier: Apache-2.0
 *
 * What record.py has written, for the tests that compare with it (record.py says what stands
 * where). A file that is missing or odd fails the test at hand: the data belong to the sources.
 */
#ifndef TR_TESTS_PARITY_RECORDED_H
#define TR_TESTS_PARITY_RECORDED_H

#include <jansson.h>
#include <limits.h>
#include <stdint.h>

#include "src/checkpoint/safetensors.h"

/* PATH_MAX bytes: data/ and the formatted rest. Returns the buffer. */
char *recorded_path(char *buf, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* 1 where there is such a file. */
int recorded_exists(const char *path);

/* New reference. */
json_t *recorded_json(const char *path);
double recorded_number(const json_t *object, const char *key); /* null and absent: 0 */
/* Element i of an array of numbers that has it. */
double recorded_at(const json_t *object, const char *key, size_t i);

/* Elements of a tensor as f32 (from f32 or bf16), freed with free(); *n of them. */
float *recorded_tensor(struct tr_safetensors *s, const char *name, int64_t *n);
/* The raw 16-bit elements of a bf16 tensor. */
uint16_t *recorded_bits(struct tr_safetensors *s, const char *name, int64_t *n);

/* All final weights of a file or folder beside recorded ones: norm of the difference over the norm
 * of `want`, for each tensor of `want`. */
typedef void recorded_distance_fn(void *arg, const char *tensor, double distance);
void recorded_distances(struct tr_safetensors *got, struct tr_safetensors *want,
                        recorded_distance_fn *fn, void *arg);

/* The larger one; NaN is worst of all. */
double recorded_worse(double worst, double x);

/* A fresh folder under the system's place for temporary files; PATH_MAX bytes. */
char *recorded_temporary(char *buf);

/* The models (folders of data/ with a file of that name), sorted; at most RECORDED_MODELS. */
#define RECORDED_MODELS 32
int recorded_models(char names[RECORDED_MODELS][64], const char *with);

#endif
