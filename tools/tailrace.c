/* SPDX-License-Identifier: Apache-2.0
 *
 * The program: picks the command and hands the line to it. Exit codes: 0 done, 1 failed, 2 wrong
 * usage, 130 interrupted.
 */
#include <argp.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "tools/cli.h"

static const struct cli_command *const commands[] = {
    &cmd_init,    &cmd_plan,      &cmd_train,   &cmd_eval,   &cmd_generate, &cmd_export,
    &cmd_preview, &cmd_tokenizer, &cmd_inspect, &cmd_verify, &cmd_bench,
};
#define N_COMMANDS (sizeof(commands) / sizeof(*commands))

static void print_version(FILE *f, struct argp_state *state)
{
    (void)state;
    fprintf(f, "tailrace %s\n", tr_version());
}

static int print_help(FILE *f)
{
    fputs("Usage: tailrace COMMAND [OPTION...]\n"
          "Fine-tunes LLaMA-family models far larger than memory: parameters stay on disk and "
          "stream\n"
          "layer by layer through a small device budget.\n\n",
          f);
    for (size_t i = 0; i < N_COMMANDS; i++)
        fprintf(f, "  %-10s %s\n", commands[i]->name, commands[i]->brief);
    fputs("\n`tailrace COMMAND --help' shows the options of a command. The whole job is:\n"
          "  tailrace train --model DIR --data FILE --out RUN\n",
          f);
    return CLI_DONE;
}

static const struct cli_command *find_command(const char *name)
{
    for (size_t i = 0; i < N_COMMANDS; i++)
        if (strcmp(commands[i]->name, name) == 0)
            return commands[i];
    return NULL;
}

static int refuse_command(const char *name)
{
    struct tr_option names[N_COMMANDS + 1] = {0};
    const char *nearest;

    for (size_t i = 0; i < N_COMMANDS; i++)
        names[i].name = commands[i]->name;
    nearest = tr_option_nearest(names, name);
    cli_error("unknown command '%s'%s%s%s", name, nearest ? "; did you mean '" : "",
              nearest ? nearest : "", nearest ? "'?" : "");
    fputs("Try `tailrace --help' for the commands.\n", stderr);
    return CLI_USAGE;
}

/* A result that could not be written is none: who asks for it in a script must be told. */
static int close_output(int code)
{
    if ((fflush(stdout) == 0 && !ferror(stdout)) || code != CLI_DONE)
        return code;
    cli_error("standard output: cannot write all of it");
    return CLI_FAILED;
}

/* The number of one that is closed would be that of the next file which is opened, and a line for
 * people would be written into the parameters. Opened the wrong way round, reading and writing
 * still fail. */
static int fill_closed_streams(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 &&
            open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd)
            return -1;
    return 0;
}

int main(int argc, char **argv)
{
    const struct cli_command *command;
    char name[64];

    if (fill_closed_streams() < 0)
        return CLI_FAILED;
    signal(SIGXFSZ, SIG_IGN); /* past a limit on the size of files writing is an error, no end */
    argp_program_version_hook = print_version;
    argp_err_exit_status = CLI_USAGE;
    if (argc < 2) {
        cli_error("a command is missing");
        print_help(stderr);
        return CLI_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "help") == 0)
        return close_output(print_help(stdout));
    if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0) {
        print_version(stdout, NULL);
        return close_output(CLI_DONE);
    }
    command = find_command(argv[1]);
    if (!command)
        return refuse_command(argv[1]);
    snprintf(name, sizeof(name), "tailrace %s", command->name);
    argv[1] = name; /* what argp calls the program in its messages */
    return close_output(cli_run(command, argc - 1, argv + 1));
}
