/* SPDX-License-Identifier: Apache-2.0
 *
 * The last part of `bench`: two short runs on the machine as it is, one that only computes and one
 * that waits for the drive most of the time. Ops and transfers that are measured one by one are a
 * little faster than the same in a run, where threads hand each other the work and the drive meets
 * caches that compute has used. What both runs take beside what is predicted for them tells by how
 * much; the figures are corrected by that, and any other run is predicted from them.
 */
#include <stdio.h>
#include <string.h>

#include "src/base/err.h"
#include "src/base/file.h"
#include "src/base/json.h"
#include "src/plan/probe.h"
#include "src/run/open.h"
#include "src/run/temporary.h"

#define STEPS 9 /* the first one of which is not counted: its slots are empty */
#define ROW   128
#define ROWS  4 /* of the run that only computes; the other one has a single row */
#define VOCAB 4000
/* What a rehearsal may find: beyond that something else was at work, and it tells nothing. */
#define LEAST_FACTOR 0.4
#define MOST_FACTOR  2.5

struct rehearsal {
    struct probe *p;
    struct tr_temporary folder;
    struct tr_temporary other[TR_STORE_FOLDERS]; /* from 1: where the other drives are */
    struct tr_run *run;
    struct tr_batch batch; /* of the data of the run */
    double measured;       /* seconds a step */
};

/* About 80 million parameters, of which a step takes a second or so on two cores; quick: two. */
static void write_config(FILE *f, int quick)
{
    fprintf(f,
            "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", "
            "\"hidden_act\": \"silu\", \"hidden_size\": %d, \"intermediate_size\": %d, "
            "\"num_hidden_layers\": %d, \"num_attention_heads\": %d, "
            "\"num_key_value_heads\": %d, \"vocab_size\": %d, "
            "\"max_position_embeddings\": 512, \"rms_norm_eps\": 1e-5, "
            "\"rope_theta\": 10000.0, \"tie_word_embeddings\": false}\n",
            quick ? 128 : 1024, quick ? 352 : 2720, quick ? 4 : 6, quick ? 2 : 16, quick ? 2 : 16,
            VOCAB);
}

static void write_rows(FILE *f)
{
    uint32_t random = 1;

    for (int row = 0; row < STEPS * ROWS; row++) {
        fputs("{\"input_ids\": [1", f);
        for (int i = 1; i < ROW; i++) {
            random = random * 1664525u + 1013904223u;
            fprintf(f, ", %u", (random >> 8) % VOCAB);
        }
        fputs("]}\n", f);
    }
}

static int write_inputs(const struct rehearsal *h, const char *config, const char *data)
{
    FILE *f = fopen(config, "w"), *g = fopen(data, "w");
    int bad = !f || !g;

    if (f)
        write_config(f, h->p->params->quick);
    if (g)
        write_rows(g);
    bad |= f && fclose(f) != 0;
    bad |= g && fclose(g) != 0;
    return bad ? tr_error(-EIO, "%s: the files of a rehearsal cannot be written", h->folder.path)
               : 0;
}

/* Half as much again as the smallest device budget of these options. */
static int little_budget(struct tr_train_params *params)
{
    struct tr_foretell_params f = {.train = params, .json = 1};
    json_t *o = NULL, *least;
    char *text;
    int r = tr_foretell(&f, &text);

    if (r < 0)
        return r;
    r = tr_json_parse(text, strlen(text), "the plan", &o);
    tr_free_text(text);
    least = json_object_get(json_object_get(o, "predicted"), "least_device_bytes");
    params->device_memory = (uint64_t)json_integer_value(least) * 3 / 2;
    if (r == 0 && !params->device_memory)
        r = tr_error(-EINVAL, "the plan has no smallest budget");
    json_decref(o);
    return r;
}

static int time_steps(struct rehearsal *h)
{
    struct tr_step_report report;
    double seconds[STEPS];
    int r = 1;

    for (int i = 0; i < STEPS && r == 1; i++) {
        r = tr_train_step(h->run, &report);
        seconds[i] = report.seconds;
    }
    h->measured = r == 1 ? probe_median(seconds + 1, STEPS - 1) : 0;
    return r < 0 ? r : 0;
}

static void end_run(struct rehearsal *h)
{
    tr_train_close(h->run);
    h->run = NULL;
}

/* A folder on each drive. */
static char *store_on_all(const struct rehearsal *h, const char *name)
{
    struct tr_folders f = {.n = h->p->figures.n_drives};
    char below[64], *list = NULL;
    int bad = 0;

    snprintf(below, sizeof(below), "%s-store", name);
    for (uint32_t k = 0; k < f.n; k++) {
        f.path[k] = tr_path(k ? h->other[k].path : h->folder.path, below);
        bad |= !f.path[k];
    }
    if (!bad)
        list = tr_folders_join(&f, NULL);
    tr_folders_free(&f);
    return list;
}

/* Runs it and leaves it open, for what is predicted for it. */
static int play(struct rehearsal *h, const char *name, int drive)
{
    char *config = tr_path(h->folder.path, "config.json");
    char *data = tr_path(h->folder.path, "data.jsonl"), *out = tr_path(h->folder.path, name);
    char *store = store_on_all(h, name);
    struct tr_train_params params = {.arch = config,
                                     .data = data,
                                     .out = out,
                                     .store = store,
                                     .device = "cpu",
                                     .threads = h->p->params->threads,
                                     .dtype = TR_TYPE_F32,
                                     .optimizer = TR_OPT_SGD,
                                     .clip_norm = -1,
                                     .lr = 1e-4,
                                     .steps = STEPS,
                                     .seq_len = ROW,
                                     .batch_size = drive ? 1 : ROWS,
                                     .durability = drive ? TR_KEEP_STEP : TR_KEEP_NONE,
                                     .export_model = TR_NO};
    int r = config && data && out && store ? write_inputs(h, config, data) : -ENOMEM;

    if (r == 0 && drive)
        r = little_budget(&params);
    if (r == 0 && (r = tr_train_open(&h->run, &params)) == 0 && (r = time_steps(h)) == 0)
        r = tr_data_batch(h->run->data, 0, 0, &h->batch);
    tr_free(TR_MEM_MISC, config);
    tr_free(TR_MEM_MISC, data);
    tr_free(TR_MEM_MISC, out);
    tr_free(TR_MEM_MISC, store);
    return r;
}

/* Seconds of a step by the probe's figures, the drive's multiplied by a factor. */
static int predicted(struct rehearsal *h, double drive, double *seconds)
{
    struct tr_figures *f = tr_alloc(TR_MEM_MISC, sizeof(*f));
    struct tr_prediction out = {0};
    int r;

    if (!f)
        return -ENOMEM;
    *f = h->p->figures;
    tr_figures_scale_drives(f, drive);
    r = run_predict(h->run, f, &h->batch, &out);
    *seconds = out.sim.seconds;
    tr_free(TR_MEM_MISC, f);
    return r;
}

static int rehearse_compute(struct rehearsal *h)
{
    double seconds = 0, *cost = &h->p->figures.cost[0][0][0], factor;
    int r = play(h, "compute", 0);

    if (r == 0)
        r = predicted(h, 1, &seconds);
    end_run(h);
    factor = seconds > 0 ? h->measured / seconds : 0;
    if (r < 0 || !(factor > LEAST_FACTOR && factor < MOST_FACTOR))
        return r;
    for (size_t i = 0; i < sizeof(h->p->figures.cost) / sizeof(*cost); i++)
        cost[i] *= factor;
    h->p->compute_factor = factor;
    return 0;
}

/* The faster the drive, the fewer seconds: halved until the factor stands. */
static int rehearse_drive(struct rehearsal *h)
{
    double low = LEAST_FACTOR, high = MOST_FACTOR, seconds = 0;
    struct tr_figures *f = &h->p->figures;
    int r = play(h, "drive", 1);

    while (r == 0 && high - low > 0.005) {
        double middle = (low + high) / 2;

        r = predicted(h, middle, &seconds);
        if (seconds > h->measured)
            low = middle;
        else
            high = middle;
    }
    end_run(h);
    if (r < 0 || low == LEAST_FACTOR || high == MOST_FACTOR)
        return r;
    h->p->drive_factor = (low + high) / 2;
    tr_figures_scale_drives(f, h->p->drive_factor);
    return 0;
}

/* That there is no room for a run, say, is no reason to have no figures. */
void probe_rehearse(struct probe *p)
{
    struct rehearsal h = {.p = p};
    int r;

    p->compute_factor = p->drive_factor = 1;
    if (p->choice.cuda) /* not tried on one yet */
        return;
    run_all_drives(&p->figures);
    probe_log(p, "rehearsals: a run that computes, one that waits for the drive");
    r = tr_temporary_make(&h.folder, p->figures.drive[0].folder);
    for (uint32_t k = 1; k < p->figures.n_drives && r == 0; k++)
        r = tr_temporary_make(&h.other[k], p->figures.drive[k].folder);
    if (r == 0 && (r = rehearse_compute(&h)) == 0)
        r = rehearse_drive(&h);
    if (r < 0)
        probe_log(p, "no rehearsal: %s", tr_error_message());
    for (uint32_t k = 1; k < p->figures.n_drives; k++)
        tr_temporary_remove(&h.other[k]);
    tr_temporary_remove(&h.folder);
}
