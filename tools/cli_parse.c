/* SPDX-License-Identifier: Apache-2.0
 *
 * A command's option tables as an argp parser. Options are collected first and set afterwards, so
 * that a flag beats the option file wherever it stands on the line. Of an option given twice the
 * last one counts.
 */
#include <argp.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tools/cli.h"

#define FIRST_KEY   0x1000
#define MAX_OPTIONS 128 /* of a command; a program with more stops at once */

struct given {
    const struct cli_command *command;
    int n_options;
    const struct tr_option *option[MAX_OPTIONS];
    const char *value[MAX_OPTIONS]; /* NULL: not given */
    const char *argument;
    struct argp_option argp_options[2 * MAX_OPTIONS]; /* with the headings */
    char *docs[MAX_OPTIONS];
};

static char *option_doc(const struct tr_option *o)
{
    char *doc = NULL;
    int n;

    if (o->fallback)
        n = asprintf(&doc, "%s (default: %s)", o->help, o->fallback);
    else
        n = asprintf(&doc, "%s", o->help);
    return n < 0 ? NULL : doc;
}

static void collect_options(struct given *g)
{
    struct argp_option *out = g->argp_options;
    int group = 1;

    for (int t = 0; t < 2; t++) {
        const struct tr_option *o = g->command->options[t];

        for (; o && o->name; o++) {
            int i = g->n_options++;

            if (i == MAX_OPTIONS)
                abort();
            if (o->section)
                *out++ = (struct argp_option){.doc = o->section, .group = ++group};
            g->option[i] = o;
            g->docs[i] = option_doc(o);
            *out++ = (struct argp_option){.name = o->name,
                                          .key = FIRST_KEY + i,
                                          .arg = o->metavar,
                                          .doc = g->docs[i],
                                          .group = group};
        }
    }
}

static int is_optional(const struct cli_command *command, const char *name)
{
    for (size_t i = 0; i < sizeof(command->optional) / sizeof(*command->optional); i++)
        if (command->optional[i] && strcmp(command->optional[i], name) == 0)
            return 1;
    return 0;
}

/* Asked after the option file has been read: what is required may stand there. */
static void require_options(const struct given *g, const void *params, struct argp_state *state)
{
    for (int i = 0; i < g->n_options; i++) {
        const struct tr_option *o = g->option[i];
        const struct tr_option *rival = NULL;

        if (!(o->flags & TR_OPTION_REQUIRED) || tr_option_is_set(o, params) ||
            is_optional(g->command, o->name))
            continue;
        if (o->rival)
            rival = tr_option_find(g->command->options[0], o->rival);
        if (!rival)
            argp_error(state, "--%s is missing", o->name);
        else if (!tr_option_is_set(rival, params))
            argp_error(state, "--%s or --%s is missing", o->name, rival->name);
    }
}

/* Both of two rivals on one line is a slip; one in the file and one on the line is an override. */
static void refuse_rivals(const struct given *g, int i, struct argp_state *state)
{
    for (int j = 0; j < i; j++)
        if (g->value[j] && g->option[i]->rival &&
            strcmp(g->option[j]->name, g->option[i]->rival) == 0)
            argp_error(state, "--%s and --%s exclude each other", g->option[j]->name,
                       g->option[i]->name);
}

static void set_options(const struct given *g, const struct tr_option *table, void *params,
                        struct argp_state *state)
{
    for (int i = 0; i < g->n_options; i++) {
        const struct tr_option *o = g->option[i];

        if (!g->value[i] || tr_option_find(table, o->name) != o)
            continue;
        refuse_rivals(g, i, state);
        if (tr_option_set(table, o, params, g->value[i]) < 0)
            argp_error(state, "--%s: %s", o->name, tr_message());
    }
}

static void set_argument(const struct given *g, void *params, struct argp_state *state)
{
    const struct tr_option *o = g->command->argument;

    if (!o)
        return;
    if (!g->argument)
        argp_error(state, "%s is missing", o->metavar);
    else if (tr_option_set(o, o, params, g->argument) < 0)
        argp_error(state, "%s: %s", o->metavar, tr_message());
}

struct parse {
    struct given given;
    void *params;
    int rc; /* of prepare */
};

/* The order is the precedence: the command's own options say which file, the file fills the struct,
 * the flags overwrite it, and then it is seen what is still missing. */
static void set_all(struct parse *p, struct argp_state *state)
{
    const struct cli_command *command = p->given.command;

    set_argument(&p->given, p->params, state);
    if (command->options[1])
        set_options(&p->given, command->options[1], p->params, state);
    p->rc = command->prepare ? command->prepare(p->params) : 0;
    if (p->rc < 0)
        return;
    set_options(&p->given, command->options[0], p->params, state);
    require_options(&p->given, p->params, state);
}

static error_t parse_one(int key, char *arg, struct argp_state *state)
{
    struct parse *p = state->input;

    if (key >= FIRST_KEY && key < FIRST_KEY + p->given.n_options) {
        p->given.value[key - FIRST_KEY] = arg ? arg : "yes";
        return 0;
    }
    if (key == ARGP_KEY_ARG) {
        if (!p->given.command->argument || p->given.argument)
            argp_error(state, "unexpected argument '%s'", arg);
        p->given.argument = arg;
        return 0;
    }
    if (key == ARGP_KEY_END) {
        set_all(p, state);
        return 0;
    }
    return ARGP_ERR_UNKNOWN;
}

/* argp exits by itself on wrong usage (2) and on --help (0); what returns is a line that parsed. */
static int run_parsed(const struct cli_command *command, struct parse *p, int argc, char **argv)
{
    struct argp argp = {.options = p->given.argp_options,
                        .parser = parse_one,
                        .args_doc = command->argument ? command->argument->metavar : NULL,
                        .doc = command->doc};
    int rc;

    rc = argp_parse(&argp, argc, argv, 0, NULL, p);
    if (rc) {
        cli_error("%s", strerror(rc));
        return CLI_FAILED;
    }
    return p->rc < 0 ? cli_fail() : command->run(p->params);
}

int cli_run(const struct cli_command *command, int argc, char **argv)
{
    struct parse *p = calloc(1, sizeof(*p));
    int code = CLI_FAILED;

    if (p)
        p->params = calloc(1, command->params_size);
    if (!p || !p->params) {
        cli_error("out of memory");
        goto out;
    }
    p->given.command = command;
    collect_options(&p->given);
    code = run_parsed(command, p, argc, argv);
    for (int i = 0; i < p->given.n_options; i++)
        free(p->given.docs[i]);
    for (int t = 0; t < 2; t++)
        if (command->options[t])
            tr_option_reset(command->options[t], p->params);
    if (command->argument)
        tr_option_reset(command->argument, p->params);
out:
    if (p)
        free(p->params);
    free(p);
    return code;
}
