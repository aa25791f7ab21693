/* SPDX-License-Identifier: Apache-2.0
 *
 * Options as data: a table row says an option's name, kind, place in a params struct, bounds,
 * default and help line. Command-line parsing, --help, option files and run.yaml all come from the
 * table, so an option is added in one place. tr_train_options is the table of struct
 * tr_train_params; the other commands have small tables of their own over their own structs.
 *
 * Zero (NULL) in the struct means "not set". Texts set through a table are allocated: a struct that
 * is filled here starts zeroed and ends in tr_option_reset / tr_options_free.
 */
#ifndef TR_SRC_OPTIONS_OPTIONS_H
#define TR_SRC_OPTIONS_OPTIONS_H

#include <stddef.h>
#include <stdio.h>

#include "src/tailrace.h"

enum tr_option_kind {
    TR_OPTION_TEXT,   /* const char * */
    TR_OPTION_PATH,   /* const char *; stands in run.yaml as an absolute path where it exists */
    TR_OPTION_SIZE,   /* uint64_t bytes: 24GiB, 512MiB, 4096, 80% of the free memory */
    TR_OPTION_COUNT,  /* int64_t, at least 1 */
    TR_OPTION_SEED,   /* uint64_t, 0 included */
    TR_OPTION_REAL,   /* double, from min to max */
    TR_OPTION_REALS,  /* double[TR_MOST_DRIVES]: such numbers, "7" or "7,3.5", the rest 0 */
    TR_OPTION_CHOICE, /* an enum, by name */
    TR_OPTION_SWITCH, /* int, 0 or 1; no value on the command line, yes or no in a file */
};

enum tr_option_flag {
    TR_OPTION_FIXED = 1,     /* part of a run's identity: may not differ when it is continued */
    TR_OPTION_REQUIRED = 2,  /* this one or its rival must be given */
    TR_OPTION_ABOVE_MIN = 4, /* min itself is refused */
    TR_OPTION_BELOW_MAX = 8, /* max itself is refused */
    TR_OPTION_ZERO_OFF = 16, /* 0 means "off" and is -1 in the struct */
    TR_OPTION_ZERO = 32,     /* zero is a value like any other: always written */
    TR_OPTION_STORED = 64,   /* says what the store holds: cannot change even by force */
    TR_OPTION_AUTO = 128,    /* a real number, or "auto": TR_REAL_AUTO in the struct */
    TR_OPTION_NAME = 256,    /* of a path: a word without a slash is a name that is built in */
};

#define TR_REAL_AUTO (-1.0)

struct tr_choice_name {
    const char *name; /* NULL ends the list; "NAME:N" comes last and takes a number */
    int value;        /* to which it is added */
};
#define TR_CHOICE_MOST 1000000 /* such a number at most */

struct tr_option {
    const char *name;    /* NULL ends the table */
    const char *metavar; /* as --help shows the value */
    enum tr_option_kind kind;
    unsigned flags;
    size_t offset;
    const char *fallback; /* the default in words */
    const char *help;
    const char *section; /* heading, on its first option */
    const struct tr_choice_name *choices;
    const char *rival; /* setting one unsets the other; both at once is an error */
    double min, max;   /* max 0: none */
};

extern const struct tr_option tr_train_options[];
extern const struct tr_choice_name tr_type_choices[]; /* enum tr_type */
extern const struct tr_choice_name tr_task_choices[]; /* enum tr_task */

const struct tr_option *tr_option_find(const struct tr_option *table, const char *name);
/* The closest name in the table, or NULL where none is close. */
const char *tr_option_nearest(const struct tr_option *table, const char *name);

/* Sets one option and unsets its rival. The message says what is wrong with the value and leaves
 * the option's name to the caller. */
int tr_option_set(const struct tr_option *table, const struct tr_option *option, void *params,
                  const char *value);
/* A value that the struct holds, whoever put it there, by the rule that its text is held to; one
 * that is not set is right. The message is like that of tr_option_set. */
int tr_option_check(const struct tr_option *option, const void *params);
/* 1 where the struct holds something other than zero. */
int tr_option_is_set(const struct tr_option *option, const void *params);
void tr_option_reset(const struct tr_option *table, void *params);

/* Options of a run. Unknown keys are errors that name the nearest known one. */
int tr_options_read(const char *path, struct tr_train_params *params);
int tr_options_parse(const char *data, size_t bytes, struct tr_train_params *params);
/* Each option that is set; the message names the first that is wrong. */
int tr_options_check(const struct tr_train_params *params);
/* Everything that is set, usable again as --config; as a file: durable and atomic. */
void tr_options_print(FILE *f, const struct tr_train_params *params);
int tr_options_write(const char *path, const struct tr_train_params *params);
/* That file, which is a run's own: -EBADMSG where it is not as it was written (run_file.c). */
int tr_run_file_check(const char *path);
int tr_run_file_read(const char *path, struct tr_train_params *params);
void tr_options_free(struct tr_train_params *params);
/* How many options with this flag differ; their names, separated by ", ", in names. Compare
 * resolved ones. */
struct tr_option_names {
    char *text;
    size_t size;
};
int tr_options_compare(const struct tr_train_params *a, const struct tr_train_params *b,
                       enum tr_option_flag flag, const struct tr_option_names *names);

#endif
