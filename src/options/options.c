/* SPDX-License-Identifier: Apache-2.0
 *
 * The table of training options, and what is done with the whole of it: reading an option file,
 * printing one, comparing two runs. A row appears here only when the trainer obeys it.
 *
 * FIXED marks what decides the bits of the result or what the result is; budgets, engines, threads
 * and reports may change from one continuation of a run to the next (invariant 1).
 */
#include "src/options/options.h"

#include <stdlib.h>
#include <string.h>

#include "build_config.h"
#include "src/base/err.h"
#include "src/base/file.h"
#include "src/base/folders.h"
#include "src/options/option_value.h"

const struct tr_choice_name tr_type_choices[] = {
    {"f32", TR_TYPE_F32}, {"bf16", TR_TYPE_BF16}, {"f16", TR_TYPE_F16}, {NULL, 0}};

static const struct tr_choice_name parked_types[] = {
    {"f32", TR_TYPE_F32}, {"bf16", TR_TYPE_BF16}, {NULL, 0}};
static const struct tr_choice_name state_types[] = {
    {"f32", TR_TYPE_F32}, {"bf16", TR_TYPE_BF16}, {"8bit", TR_TYPE_8BIT}, {NULL, 0}};
static const struct tr_choice_name optimizers[] = {
    {"lomo", TR_OPT_LOMO},           {"sgd", TR_OPT_SGD},     {"adalomo", TR_OPT_ADALOMO},
    {"adam-mini", TR_OPT_ADAM_MINI}, {"adamw", TR_OPT_ADAMW}, {NULL, 0}};
static const struct tr_choice_name clip_methods[] = {{"auto", TR_CLIP_AUTO},
                                                     {"two-pass", TR_CLIP_TWO_PASS},
                                                     {"deferred", TR_CLIP_DEFERRED},
                                                     {"group:N", TR_CLIP_GROUP},
                                                     {NULL, 0}};
static const struct tr_choice_name schedules[] = {
    {"linear", TR_LR_LINEAR}, {"cosine", TR_LR_COSINE}, {"constant", TR_LR_CONSTANT}, {NULL, 0}};
static const struct tr_choice_name on_off[] = {{"on", TR_YES}, {"off", TR_NO}, {NULL, 0}};
static const struct tr_choice_name yes_no[] = {{"yes", TR_YES}, {"no", TR_NO}, {NULL, 0}};
static const struct tr_choice_name recomputes[] = {
    {"auto", TR_RECOMPUTE_AUTO}, {"all", TR_RECOMPUTE_ALL}, {"none", TR_RECOMPUTE_NONE}, {NULL, 0}};
static const struct tr_choice_name streamings[] = {{"auto", TR_STREAMING_AUTO},
                                                   {"blocks", TR_STREAMING_BLOCKS},
                                                   {"matrices", TR_STREAMING_MATRICES},
                                                   {NULL, 0}};
static const struct tr_choice_name roundings[] = {
    {"nearest", TR_ROUNDING_NEAREST}, {"stochastic", TR_ROUNDING_STOCHASTIC}, {NULL, 0}};
static const struct tr_choice_name masters[] = {
    {"none", TR_MASTERS_NONE}, {"split", TR_MASTERS_SPLIT}, {"f32", TR_MASTERS_F32}, {NULL, 0}};
static const struct tr_choice_name durabilities[] = {{"auto", TR_KEEP_AUTO},
                                                     {"step", TR_KEEP_STEP},
                                                     {"checkpoint", TR_KEEP_CHECKPOINT},
                                                     {"none", TR_KEEP_NONE},
                                                     {NULL, 0}};
static const struct tr_choice_name engines[] = {{"auto", TR_ENGINE_AUTO},
                                                {"uring", TR_ENGINE_URING},
                                                {"threads", TR_ENGINE_THREADS},
                                                {NULL, 0}};

static const struct tr_choice_name update_places[] = {
    {"auto", TR_UPDATE_AUTO}, {"device", TR_UPDATE_DEVICE}, {"cpu", TR_UPDATE_CPU}, {NULL, 0}};

#define AT(member) offsetof(struct tr_train_params, member)
#define FIXED      TR_OPTION_FIXED
#define STORED     TR_OPTION_STORED
#define REQUIRED   TR_OPTION_REQUIRED
#define ABOVE      TR_OPTION_ABOVE_MIN
#define BELOW      TR_OPTION_BELOW_MAX
#define OFF        TR_OPTION_ZERO_OFF
#define ZERO       TR_OPTION_ZERO
#define AUTO       TR_OPTION_AUTO
#define NAME       TR_OPTION_NAME

const struct tr_choice_name tr_task_choices[] = {
    {"none", TR_TASK_NONE},     {"rte", TR_TASK_RTE},
    {"cb", TR_TASK_CB},         {"boolq", TR_TASK_BOOLQ},
    {"copa", TR_TASK_COPA},     {"wic", TR_TASK_WIC},
    {"wsc", TR_TASK_WSC},       {"multirc", TR_TASK_MULTIRC},
    {"choice", TR_TASK_CHOICE}, {NULL, 0}};

/* clang-format off */
const struct tr_option tr_train_options[] = {
    {"model", "DIR", TR_OPTION_PATH, FIXED | REQUIRED, AT(model), NULL,
     "Hugging Face folder to start from; it is never written",
     .section = "What is trained on what:", .rival = "arch"},
    {"arch", "NAME|FILE", TR_OPTION_PATH, FIXED | NAME, AT(arch), NULL,
     "start from random parameters of this shape (a name such as llama-7b, or a config.json)",
     .rival = "model"},
    {"tokenizer", "DIR", TR_OPTION_PATH, FIXED, AT(tokenizer), "the model's",
     "folder with tokenizer.json"},
    {"data", "FILE|DIR", TR_OPTION_PATH, FIXED | REQUIRED, AT(data), NULL,
     "text, or JSON records (a line each, or one list) with messages, conversations, instruction +"
     " output, prompt + completion, question + answer, text, or input_ids; or a folder with "
     "train.jsonl"},
    {"template", "NAME|FILE", TR_OPTION_PATH, FIXED | NAME, AT(chat_template),
     "the tokenizer folder's",
     "chat template: llama2, llama3, chatml, mistral, alpaca, zephyr, phi3, gemma, or a file"},
    {"valid", "FILE|DIR", TR_OPTION_PATH, 0, AT(valid), "valid.jsonl of a data folder",
     "held-out data of the same kind; its loss is reported"},
    {"task", "NAME", TR_OPTION_CHOICE, FIXED, AT(task), "none",
     "--data and --valid are JSONL of this task (rte, cb, boolq, copa, wic, wsc, multirc, choice): "
     "its questions, whose right answers are learnt; --valid gives an accuracy too",
     .choices = tr_task_choices},
    {"samples", "N", TR_OPTION_COUNT, FIXED, AT(samples), "all",
     "train on so many samples of --data, drawn by --seed"},
    {"out", "DIR", TR_OPTION_PATH, REQUIRED, AT(out), NULL,
     "run folder: absent or empty for a new run, or the same run to continue it"},
    {"store", "DIR[:DIR...]", TR_OPTION_PATH, 0, AT(store), "OUT/store",
     "folder for the parameters on disk, or several on several drives"},

    {"steps", "N", TR_OPTION_COUNT, 0, AT(steps), NULL,
     "optimizer steps in all", .section = "Length and batches:", .rival = "epochs"},
    {"epochs", "E", TR_OPTION_REAL, ABOVE, AT(epochs), "3",
     "passes over the data", .rival = "steps"},
    {"batch-size", "N", TR_OPTION_COUNT, FIXED, AT(batch_size), "8", "rows of a step"},
    {"micro-batch", "N", TR_OPTION_COUNT, 0, AT(micro_batch), "as the budget allows",
     "rows computed at once; changes memory and time, never the result"},
    {"seq-len", "N", TR_OPTION_COUNT, FIXED, AT(seq_len), "min(2048, the model's)",
     "tokens of a row at most"},
    {"packing", "on|off", TR_OPTION_CHOICE, FIXED, AT(packing), "on",
     "several samples in a row, kept apart; off: one sample a row", .choices = on_off},

    {"optimizer", "NAME", TR_OPTION_CHOICE, FIXED | STORED, AT(optimizer), "adalomo",
     "state on disk: lomo and sgd none (sgd with --momentum 4 bytes a parameter), adalomo hardly"
     " any, adam-mini 4, adamw 8",
     .section = "Optimizer:", .choices = optimizers},
    {"lr", "X|auto", TR_OPTION_REAL, FIXED | ABOVE | AUTO, AT(lr), "by optimizer and model size",
     "peak learning rate, or auto: found by a test of up to 40 steps, which is undone; default from"
     " 7B to 10M parameters: lomo 0.03 to 1, sgd the same times 1 - momentum, adalomo 1e-3 to"
     " 3e-2, adam-mini and adamw 1e-5 to 1e-3"},
    {"schedule", "NAME", TR_OPTION_CHOICE, FIXED, AT(schedule), "linear",
     "linear, cosine or constant, after the warm-up", .choices = schedules},
    {"warmup", "X", TR_OPTION_REAL, FIXED | OFF, AT(warmup), "0.03",
     "share of all steps (below 1) or number of steps; 0: none"},
    {"weight-decay", "X", TR_OPTION_REAL, FIXED | ZERO, AT(weight_decay), "0",
     "decoupled weight decay"},
    {"clip-norm", "X", TR_OPTION_REAL, FIXED | OFF, AT(clip_norm), "1; sgd: 0; adalomo: 0, f16: 1",
     "bound of the gradient's global norm, exact; 0: off"},
    {"clip-method", "NAME|group:N", TR_OPTION_CHOICE, FIXED | STORED, AT(clip_method), "auto",
     "how all gradients wait for their norm: two-pass (a second backward, or none on a large"
     " device), deferred (on disk until the next step's forward pass), auto: the faster of the two"
     " that the disk has room for, their bits are the same; or group:N, an approximation: of head,"
     " blocks and embedding each N neighbours are clipped by their own norm, without an extra pass",
     .choices = clip_methods},
    {"parked-dtype", "TYPE", TR_OPTION_CHOICE, FIXED | STORED, AT(parked_dtype), "f32",
     "deferred: of gradients that wait; f32 has the bits of two-pass, bf16 half the bytes",
     .choices = parked_types},
    {"clip-value", "X", TR_OPTION_REAL, FIXED | ZERO, AT(clip_value), "0",
     "bound of every gradient element; 0: off"},
    {"momentum", "X", TR_OPTION_REAL, FIXED | STORED | ZERO | BELOW, AT(momentum), "0",
     "sgd: share of the last step's direction that is kept; 0: none, and no state", .max = 1},
    {"fused-gemm", NULL, TR_OPTION_SWITCH, FIXED, AT(fused_gemm), NULL,
     "sgd, f32: the products that would be gradients are added to the parameters: no memory for"
     " gradients, no norm of them, and a step is one micro-batch"},
    {"beta1", "X", TR_OPTION_REAL, FIXED | ABOVE | BELOW, AT(beta1), "0.9",
     "adam-mini, adamw: decay of the first moment", .max = 1},
    {"beta2", "X", TR_OPTION_REAL, FIXED | ABOVE | BELOW, AT(beta2), "0.999",
     "adam-mini, adamw: decay of the second moment", .max = 1},
    {"eps", "X", TR_OPTION_REAL, FIXED | ABOVE, AT(eps), "1e-8",
     "adam-mini, adamw: added to the root of the second moment"},
    {"state-dtype", "TYPE", TR_OPTION_CHOICE, FIXED | STORED, AT(state_dtype), "f32",
     "of optimizer state with a value for each element: f32, or, rounded stochastically, bf16 or"
     " 8bit: 65 bytes for 64 values, of which each 256 share a scale",
     .choices = state_types},
    {"freeze", "PATTERN,...", TR_OPTION_TEXT, FIXED | STORED, AT(freeze), "nothing",
     "tensors that stay as they are, by name: '*embed_tokens*,model.layers.[0-9].*'"},
    {"lora-rank", "R", TR_OPTION_COUNT, FIXED | STORED, AT(lora_rank), "no adapters",
     "train low-rank adapters, the model itself stays as it is: OUT/model is then a folder that"
     " PEFT loads; the optimizer is adamw by default, its rate ten times that of the model"},
    {"lora-alpha", "A", TR_OPTION_REAL, FIXED | STORED | ABOVE, AT(lora_alpha), "8",
     "what adapters add is multiplied by alpha / rank"},
    {"lora-dropout", "P", TR_OPTION_REAL, FIXED | OFF | BELOW, AT(lora_dropout), "0",
     "share of an adapter's inputs that is left out in training", .max = 1},
    {"lora-targets", "NAME,...", TR_OPTION_TEXT, FIXED | STORED, AT(lora_targets), "q_proj,v_proj",
     "matrices that get one: q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj, or "
     "all-linear"},
    {"lora-optimizer", "NAME", TR_OPTION_CHOICE, FIXED | STORED, AT(lora_optimizer),
     "the model stays",
     "train the model as well: it with --optimizer, --lr and --clip-norm, adapters with this one",
     .choices = optimizers},
    {"lora-lr", "X", TR_OPTION_REAL, FIXED | ABOVE, AT(lora_lr), "by optimizer and model size",
     "with --lora-optimizer: the adapters' peak rate"},
    {"lora-clip-norm", "X", TR_OPTION_REAL, FIXED | OFF, AT(lora_clip_norm),
     "1; sgd, adalomo: 0; without --clip-norm: 0",
     "with --lora-optimizer: bound of the norm of the adapters' gradient; 0: off"},
    {"adapter", "DIR", TR_OPTION_PATH, FIXED, AT(adapter), "new ones",
     "adapters of a PEFT folder, or of a run's OUT/model, to go on with; rank, alpha and targets "
     "are theirs"},
    {"seed", "N", TR_OPTION_SEED, FIXED | ZERO, AT(seed), "0",
     "decides shuffling, rounding, random parameters, new adapters and their dropout"},

    {"dtype", "TYPE", TR_OPTION_CHOICE, FIXED | STORED, AT(dtype), "as the source",
     "storage: f32, bf16 or f16", .section = "Numbers:", .choices = tr_type_choices},
    {"rounding", "NAME", TR_OPTION_CHOICE, FIXED, AT(rounding),
     "stochastic for bf16 without a master",
     "of updated parameters: nearest or stochastic", .choices = roundings},
    {"master", "NAME", TR_OPTION_CHOICE, FIXED | STORED, AT(master), "none",
     "what parameters keep of an f32 value, so that no update is lost: split (the 16 bits that bf16"
     " lacks) or f32 (bf16: with the same result; f16)", .choices = masters},
    {"loss-scale", "X", TR_OPTION_REAL, FIXED | ABOVE, AT(loss_scale), "65536",
     "f16 only: to begin with; doubled after 1000 clean steps, halved when a gradient overflows"},

    {"device", "NAME", TR_OPTION_TEXT, FIXED, AT(device), "the first GPU, else the cpu",
     "what computes: cpu, cuda or cuda:N", .section = "Memory, disk and speed:"},
    {"device-memory", "SIZE", TR_OPTION_SIZE, 0, AT(device_memory), "80%; cuda: 90%",
     "budget of device memory: 24GiB, 512MiB, or a share of what is free"},
    {"host-memory", "SIZE", TR_OPTION_SIZE, 0, AT(host_memory), "80%; cpu: of the rest",
     "budget of host memory for buffers, and for parameters that stay beside the device"},
    {"threads", "N", TR_OPTION_COUNT, 0, AT(threads), "the cores of this process",
     "threads that compute"},
    {"prefetch", "N", TR_OPTION_COUNT, 0, AT(prefetch), "as slots allow",
     "loads in flight ahead at most"},
    {"io", "ENGINE", TR_OPTION_CHOICE, 0, AT(io), "auto",
     "uring, threads, or auto: uring where the system allows it", .choices = engines},
    {"streaming", "NAME", TR_OPTION_CHOICE, 0, AT(streaming), "auto",
     "what moves at once: blocks, matrices, or auto: blocks where two fit", .choices = streamings},
    {"recompute", "NAME", TR_OPTION_CHOICE, 0, AT(recompute), "auto",
     "activations of blocks in the backward pass: all again, none, or auto: by predicted time",
     .choices = recomputes},
    {"update-on", "NAME", TR_OPTION_CHOICE, 0, AT(update_on), "auto",
     "with a GPU, what updates parameters: device; cpu, next to optimizer state, which then stays"
     " in host memory and on disk; or auto: the faster of the two, which have the same bits",
     .choices = update_places},
    {"durability", "NAME", TR_OPTION_CHOICE, 0, AT(durability), "auto",
     "what a crash may cost: step (one step), checkpoint, none (the run), or auto",
     .choices = durabilities},
    {"checkpoint-every", "N", TR_OPTION_COUNT, 0, AT(checkpoint_every), "100",
     "steps between commits with --durability checkpoint"},
    {"serial", NULL, TR_OPTION_SWITCH, 0, AT(serial), NULL,
     "for measuring: reading, computing and writing take turns"},

    {"eval-every", "N", TR_OPTION_COUNT, 0, AT(eval_every), "only at the end",
     "steps between losses on --valid", .section = "Results:"},
    {"export", "yes|no", TR_OPTION_CHOICE, 0, AT(export_model), "yes",
     "write OUT/model, a Hugging Face folder, when all steps are done", .choices = yes_no},
    {NULL},
};
/* clang-format on */

const struct tr_option *tr_option_find(const struct tr_option *table, const char *name)
{
    for (const struct tr_option *o = table; o->name; o++)
        if (strcmp(o->name, name) == 0)
            return o;
    return NULL;
}

/* Levenshtein distance in one row; '_' and '-' are the same. Names longer than the row are far. */
static int distance(const char *a, const char *b)
{
    int row[64], n = (int)strlen(b);

    if (n >= 64)
        return n;
    for (int j = 0; j <= n; j++)
        row[j] = j;
    for (int i = 0; a[i]; i++) {
        int diagonal = row[0];

        row[0] = i + 1;
        for (int j = 0; j < n; j++) {
            int same = a[i] == b[j] || (a[i] == '_' && b[j] == '-');
            int least = row[j] < row[j + 1] ? row[j] + 1 : row[j + 1] + 1;

            if (diagonal + !same < least)
                least = diagonal + !same;
            diagonal = row[j + 1];
            row[j + 1] = least;
        }
    }
    return row[n];
}

const char *tr_option_nearest(const struct tr_option *table, const char *name)
{
    int limit = strlen(name) > 8 ? 4 : 3;
    const char *nearest = NULL;

    for (const struct tr_option *o = table; o->name; o++) {
        int d = distance(name, o->name);

        if (d < limit && d < (int)strlen(o->name)) {
            nearest = o->name;
            limit = d;
        }
    }
    return nearest;
}

void tr_option_reset(const struct tr_option *table, void *params)
{
    for (const struct tr_option *o = table; o->name; o++)
        tr_option_unset(o, params);
}

void tr_options_free(struct tr_train_params *params)
{
    tr_option_reset(tr_train_options, params);
}

struct option_file {
    struct tr_train_params *params;
    unsigned char seen[sizeof(tr_train_options) / sizeof(*tr_train_options)];
};

/* What a flag may override a file may not contradict: twice the same key, or two that exclude each
 * other, is a slip in one hand. */
static int read_option(void *arg, const char *key, const char *value)
{
    struct option_file *file = arg;
    const struct tr_option *o = tr_option_find(tr_train_options, key), *rival;
    const char *nearest = tr_option_nearest(tr_train_options, key);
    int rc;

    if (!o)
        return tr_error(-EINVAL, "unknown option '%s'%s%s%s", key,
                        nearest ? "; did you mean '" : "", nearest ? nearest : "",
                        nearest ? "'?" : "");
    if (file->seen[o - tr_train_options]++)
        return tr_error(-EINVAL, "'%s' is given twice", key);
    rival = o->rival ? tr_option_find(tr_train_options, o->rival) : NULL;
    if (rival && file->seen[rival - tr_train_options])
        return tr_error(-EINVAL, "'%s' and '%s' exclude each other", key, o->rival);
    rc = tr_option_set(tr_train_options, o, file->params, value);
    return rc < 0 ? tr_error_prefix(rc, "%s", key) : 0;
}

int tr_options_parse(const char *data, size_t bytes, struct tr_train_params *params)
{
    struct option_file file = {.params = params};

    return tr_yaml_parse(&(struct tr_yaml_text){data, bytes, "options"}, read_option, &file);
}

int tr_options_read(const char *path, struct tr_train_params *params)
{
    struct option_file file = {.params = params};

    return tr_yaml_read(path, read_option, &file);
}

int tr_options_check(const struct tr_train_params *params)
{
    for (const struct tr_option *o = tr_train_options; o->name; o++)
        if (tr_option_check(o, params) < 0)
            return tr_error_prefix(-EINVAL, "--%s", o->name);
    return 0;
}

/* Only one of two rivals is written: the file must be readable again. */
static int is_shadowed(const struct tr_option *o, const struct tr_train_params *params)
{
    const struct tr_option *rival = o->rival ? tr_option_find(tr_train_options, o->rival) : NULL;

    return rival && rival < o && tr_option_is_set(rival, params);
}

/* OUT/store goes without saying: so the file serves another --out too. */
static int goes_without_saying(const struct tr_option *o, const struct tr_train_params *params)
{
    int asked = o->offset == AT(store) && params->out && params->store;
    char *below = asked ? tr_folders_below(params->out, "store") : NULL;
    int same = below && !strcmp(below, params->store);

    tr_free(TR_MEM_MISC, below);
    return same;
}

void tr_options_print(FILE *f, const struct tr_train_params *params)
{
    fputs("# tailrace " TR_VERSION ": every option of this run; usable again with --config\n", f);
    for (const struct tr_option *o = tr_train_options; o->name; o++) {
        if (o->section)
            fprintf(f, "\n# %s\n", o->section);
        if (is_shadowed(o, params))
            continue;
        if ((goes_without_saying(o, params) || !tr_option_print(o, params, f)) && o->fallback)
            fprintf(f, "# %s: %s\n", o->name, o->fallback);
    }
}

/* Equal when both would be written the same way: paths by where they lead, reals by value. */
static int is_same(const struct tr_option *o, const void *a, const void *b)
{
    char text[2][8192] = {"", ""};

    for (int i = 0; i < 2; i++) {
        FILE *f = fmemopen(text[i], sizeof(text[i]) - 1, "w");

        if (!f)
            return 0;
        tr_option_print(o, i ? b : a, f);
        fclose(f);
    }
    return strcmp(text[0], text[1]) == 0;
}

/* The names of what differs go into the message: "other settings" alone would send one to diff. */
int tr_options_compare(const struct tr_train_params *a, const struct tr_train_params *b,
                       enum tr_option_flag flag, const struct tr_option_names *names)
{
    size_t used = 0;
    int n = 0;

    if (names->size)
        names->text[0] = 0;
    for (const struct tr_option *o = tr_train_options; o->name; o++) {
        if (!(o->flags & flag) || is_same(o, a, b))
            continue;
        if (used < names->size)
            used += (size_t)snprintf(names->text + used, names->size - used, "%s%s", n ? ", " : "",
                                     o->name);
        n++;
    }
    return n;
}
