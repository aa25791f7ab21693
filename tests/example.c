/* SPDX-License-Identifier: Apache-2.0
 *
 * Trains from C: MODEL is a Hugging Face folder, DATA a text or JSONL file, OUT a folder that is
 * absent or empty. Build: cc example.c $(pkg-config --cflags --libs tailrace)
 */
#include <stdio.h>
#include <tailrace.h>

static void say(void *arg, const char *line)
{
    (void)arg;
    printf("# %s\n", line);
}

int main(int argc, char **argv)
{
    struct tr_step_report report;
    tr_run *run = NULL;
    int rc;

    if (argc != 4) {
        fprintf(stderr, "usage: example MODEL DATA OUT\n");
        return 2;
    }
    rc = tr_train_open(&run, &(struct tr_train_params){
                                 .model = argv[1],
                                 .data = argv[2],
                                 .out = argv[3],
                                 .steps = 4,
                                 .log = say,
                             });
    while (rc >= 0 && (rc = tr_train_step(run, &report)) == 1)
        printf("step %d of %d: loss %.4f\n", (int)report.step, (int)report.steps, report.loss);
    if (rc >= 0)
        rc = tr_train_finish(run);
    if (rc < 0)
        fprintf(stderr, "example: %s\n", tr_message());
    tr_train_close(run);
    return rc < 0;
}
