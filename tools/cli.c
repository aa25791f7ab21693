/* SPDX-License-Identifier: Apache-2.0
 *
 * Messages, signals and number formats of the commands. Errors go to stderr as "tailrace: message";
 * results go to stdout.
 */
#include "tools/cli.h"

#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

static volatile sig_atomic_t interrupted;

void cli_error(const char *fmt, ...)
{
    va_list ap;

    fflush(stdout);
    fputs("tailrace: ", stderr);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
}

int cli_fail(void)
{
    const char *message = tr_message();

    cli_error("%s", *message ? message : "failed");
    return CLI_FAILED;
}

void cli_print_text(char *text)
{
    size_t n = text ? strlen(text) : 0;

    if (n) {
        fputs(text, stdout);
        if (text[n - 1] != '\n')
            putchar('\n');
    }
    tr_free_text(text);
}

/* Only what a handler may do: a flag, write(), _exit(). The second signal is for those who will not
 * wait: what has been committed stays whole either way. A terminal that goes away is no such wish,
 * though the system and the shell may both tell of it. */
static void on_signal(int number)
{
    static const char line[] = "\ntailrace: stopping in good order; once more stops at once\n";

    if (interrupted && number == SIGHUP)
        return;
    if (interrupted)
        _exit(CLI_INTERRUPTED);
    interrupted = 1;
    if (write(STDERR_FILENO, line, sizeof(line) - 1) < 0)
        return; /* nobody reads: the end comes all the same */
}

void cli_catch_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    struct sigaction hangup;

    signal(SIGPIPE, SIG_IGN); /* Ctrl-C ends `| tee log' first: that is no end in good order */
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    if (sigaction(SIGHUP, NULL, &hangup) == 0 && hangup.sa_handler != SIG_IGN) /* nohup */
        sigaction(SIGHUP, &action, NULL);
}

int cli_interrupted(void)
{
    return interrupted;
}

const char *cli_size(char text[static 32], uint64_t bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    double x = (double)bytes;
    int unit = 0;

    while (x >= 1024 && unit < 5) {
        x /= 1024;
        unit++;
    }
    snprintf(text, 32, "%.*f %s", unit == 0 ? 0 : x < 10 ? 2 : x < 100 ? 1 : 0, x, units[unit]);
    return text;
}

const char *cli_time(char text[static 32], double seconds)
{
    long s = seconds < 1e9 ? lround(seconds) : 1000000000;

    if (seconds < 10)
        snprintf(text, 32, "%.1f s", seconds);
    else if (s < 3600)
        snprintf(text, 32, "%ld:%02ld", s / 60, s % 60);
    else
        snprintf(text, 32, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
    return text;
}

void cli_json_real(FILE *f, const char *key, double x)
{
    if (isfinite(x))
        fprintf(f, "\"%s\": %.9g", key, x);
    else
        fprintf(f, "\"%s\": null", key);
}

/* Bytes of the character that begins there, none of which is below 0x80; 0: it is none of UTF-8. */
static int long_character(const unsigned char *p)
{
    int n = p[0] >= 0xF0 && p[0] <= 0xF4   ? 4
            : p[0] >= 0xE0 && p[0] <= 0xEF ? 3
            : p[0] >= 0xC2 && p[0] <= 0xDF ? 2
                                           : 0;

    for (int i = 1; i < n; i++)
        if ((p[i] & 0xC0) != 0x80)
            return 0;
    if ((p[0] == 0xE0 && p[1] < 0xA0) || (p[0] == 0xED && p[1] > 0x9F) ||
        (p[0] == 0xF0 && p[1] < 0x90) || (p[0] == 0xF4 && p[1] > 0x8F))
        return 0; /* longer than needed, half a pair, or past the last */
    return n;
}

/* A path may have any bytes, JSON has only characters. */
void cli_json_text(FILE *f, const char *key, const char *text)
{
    const unsigned char *p = (const unsigned char *)text;

    fprintf(f, "\"%s\": \"", key);
    while (*p) {
        int n = *p < 0x80 ? 1 : long_character(p);

        if (*p == '"' || *p == '\\')
            fprintf(f, "\\%c", *p);
        else if (*p < 0x20)
            fprintf(f, "\\u%04x", *p);
        else if (n)
            fwrite(p, 1, (size_t)n, f);
        else
            fputs("\\ufffd", f);
        p += n ? n : 1;
    }
    fputc('"', f);
}
