/* SPDX-License-Identifier: Apache-2.0
 *
 * What the commands share: a command described as data, its parsing through argp, messages in the
 * GNU style, interruption, and numbers as people and as JSON read them. The program stands on
 * src/tailrace.h and the option tables alone.
 */
#ifndef TR_TOOLS_CLI_H
#define TR_TOOLS_CLI_H

#include <stddef.h>
#include <stdio.h>

#include "src/options/options.h"

enum cli_exit { CLI_DONE = 0, CLI_FAILED = 1, CLI_USAGE = 2, CLI_INTERRUPTED = 130 };

struct cli_command {
    const char *name;
    const char *brief; /* one line of `tailrace --help` */
    const char *doc;   /* the rest of the command's own --help */
    /* options[0] is set after options[1] and prepare: that is where --config is read. Both tables
     * have their offsets in the same struct. */
    const struct tr_option *options[2];
    const char *optional[2];          /* required ones that this command does without */
    const struct tr_option *argument; /* a one-row table: the bare argument; NULL: none */
    size_t params_size;
    int (*prepare)(void *params); /* 0 or a negative errno with its message; may be NULL */
    int (*run)(void *params);     /* returns an exit code */
};

/* Parses, runs and cleans up; returns the exit code. Wrong usage exits at once with CLI_USAGE. */
int cli_run(const struct cli_command *command, int argc, char **argv);

void cli_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Says what the library's last call left as its message; CLI_FAILED. */
int cli_fail(void);
/* Prints a text of the library, ends its last line and frees it. */
void cli_print_text(char *text);

/* From now on SIGINT and SIGTERM ask for an end after the current step; a second one ends at once.
 * Nobody need listen to the end: where a pipe's reader has gone, what would be said is lost. */
void cli_catch_signals(void);
int cli_interrupted(void);

/* "1.23 GiB" into text; returns text. */
const char *cli_size(char text[static 32], uint64_t bytes);
/* "1:02:03", "2:03" or "4.5 s". */
const char *cli_time(char text[static 32], double seconds);
/* JSON has no NaN or infinity: those become null. */
void cli_json_real(FILE *f, const char *key, double x);
void cli_json_text(FILE *f, const char *key, const char *text);

extern const struct cli_command cmd_init, cmd_train, cmd_export, cmd_inspect, cmd_verify,
    cmd_preview, cmd_tokenizer, cmd_generate, cmd_eval, cmd_plan, cmd_bench;

#endif
