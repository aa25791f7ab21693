/* SPDX-License-Identifier: Apache-2.0
 *
 * speed FOLDER FILE: encodes the file in one call, best of three, and prints seconds of the
 * processor and ids. The
 * other half of speed.py.
 */
#include <stdio.h>
#include <time.h>

#include "src/base/err.h"
#include "src/base/file.h"
#include "src/base/mem.h"
#include "src/text/tokenizer.h"

static double seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int main(int argc, char **argv)
{
    struct tr_tokenizer *t = NULL;
    struct tr_ids ids = {0};
    double best = 1e9;
    char *text = NULL;
    size_t n = 0;
    int r = argc == 3 ? tr_tokenizer_open(&t, argv[1]) : -EINVAL;

    if (r == 0)
        r = tr_file_read(argv[2], (size_t)1 << 30, &text, &n);
    for (int i = 0; r == 0 && i < 3; i++) {
        double start = seconds();

        ids.n = 0;
        r = tr_tokenizer_encode(t, text, n, &ids);
        best = seconds() - start < best ? seconds() - start : best;
    }
    if (r < 0)
        fprintf(stderr, "%s\n", argc == 3 ? tr_error_message() : "usage: speed FOLDER FILE");
    else
        printf("%.6f %zu\n", best, ids.n);
    tr_ids_free(&ids);
    tr_free(TR_MEM_TEXT, text);
    tr_tokenizer_close(t);
    return r < 0;
}
