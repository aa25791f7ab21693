/* SPDX-License-Identifier: Apache-2.0
 *
 * Options resolved: after this no field says "default". The choices that may change bits depend on
 * model, data and options alone, never on budgets (invariant 1).
 */
#include "src/run/open.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/base/err.h"
#include "src/base/file.h"
#include "src/base/thread.h"
#include "src/options/options.h"
#include "src/train/lr.h"

#define LORA_RATE    10 /* of the best rates, adapters' over all parameters', nearly everywhere */
#define LORA_ALPHA   8
#define LORA_TARGETS "q_proj,v_proj" /* as PEFT has them by default */

/* run.yaml must name the store's folders for whoever reads it from another folder. */
static int make_store_absolute(const char **store)
{
    char *here = getcwd(NULL, 0), *whole = NULL;
    struct tr_folders f = {.n = 0};
    int r =
        here ? tr_folders_parse(&f, *store) : tr_error(-errno, "%s: %s", *store, strerror(errno));

    if (r == 0 && !(whole = tr_folders_join(&f, here)))
        r = -ENOMEM;
    if (r == 0) {
        tr_free(TR_MEM_MISC, (void *)*store);
        *store = whole;
    }
    tr_folders_free(&f);
    free(here);
    return r;
}

/* The folder itself, or the nearest one above it that exists. */
static char *find_folder(const char *path)
{
    char *part = strdup(path), *real = part ? realpath(part, NULL) : NULL, *slash;

    while (part && !real && (slash = strrchr(part, '/')) && slash != part) {
        *slash = 0;
        real = realpath(part, NULL);
    }
    if (part && !real)
        real = realpath(*part == '/' ? "/" : ".", NULL);
    free(part);
    return real;
}

/* The source folder is never written (invariant 7), nor is anything made in it. */
static int check_outside(const char *option, const char *path, const char *model)
{
    char *source = realpath(model, NULL), *folder = find_folder(path);
    size_t n = source ? strlen(source) : 0;
    int inside = n && folder && !strncmp(folder, source, n) && (!folder[n] || folder[n] == '/');

    free(source);
    free(folder);
    if (!inside)
        return 0;
    return tr_error(-EINVAL, "%s %s: lies in the model folder %s, which is never written", option,
                    path, model);
}

static int check_store_outside(const char *store, const char *model)
{
    struct tr_folders f;
    int r = tr_folders_parse(&f, store);

    for (uint32_t i = 0; i < f.n && r == 0; i++)
        r = check_outside("--store", f.path[i], model);
    tr_folders_free(&f);
    return r;
}

/* The options of the run that is here already; nothing set where there is none. */
static int read_before(const struct tr_run *run, struct tr_train_params *before)
{
    char *path = tr_path(run->params.out, "run.yaml");
    int r = path ? 0 : -ENOMEM;

    if (r == 0 && tr_folder_has(run->params.out, "run.yaml"))
        r = (run->params.force ? tr_options_read : tr_run_file_read)(path, before);
    tr_free(TR_MEM_MISC, path);
    return r;
}

/* A run that exists stays on its device; its bits may differ on another. */
static int choose_device(struct tr_run *run, const struct tr_train_params *before)
{
    struct tr_train_params *p = &run->params;

    if (!p->device)
        p->device = tr_strdup(TR_MEM_MISC, before->device ? before->device : tr_devices_default());
    return p->device ? tr_devices_parse(p->device, &run->choice) : -ENOMEM;
}

/* A run that exists has its store where it was last, so the command that began it finds it there,
 * even if it was moved since by another --store. */
static int choose_store(struct tr_run *run, const struct tr_train_params *before)
{
    struct tr_train_params *p = &run->params;

    if (p->store)
        return make_store_absolute(&p->store);
    p->store =
        before->store ? tr_strdup(TR_MEM_MISC, before->store) : tr_folders_below(p->out, "store");
    return p->store ? 0 : -ENOMEM;
}

static int choose_places(struct tr_run *run)
{
    struct tr_train_params before = {0};
    int r = read_before(run, &before);

    run->before = (struct tr_durable){before.durability, before.checkpoint_every};
    if (r == 0)
        r = choose_store(run, &before);
    if (r == 0)
        r = choose_device(run, &before);
    tr_options_free(&before);
    return r;
}

static int has_adapters(const struct tr_train_params *p)
{
    return p->lora_rank || p->adapter;
}

/* The names in one order, and none where they are those by default: a run knows itself again. */
static int order_targets(struct tr_train_params *p)
{
    char text[TR_LORA_TEXT];
    unsigned targets;
    int r = p->lora_targets ? tr_lora_parse_targets(p->lora_targets, &targets) : 0;

    if (r < 0 || !p->lora_targets)
        return r < 0 ? tr_error_prefix(r, "--lora-targets") : 0;
    tr_lora_targets_text(targets, text);
    tr_free(TR_MEM_MISC, (void *)p->lora_targets);
    p->lora_targets = NULL;
    if (!strcmp(text, LORA_TARGETS))
        return 0;
    p->lora_targets = tr_strdup(TR_MEM_MISC, text);
    return p->lora_targets ? 0 : -ENOMEM;
}

/* The strings of the options, which a run has copies of. */
static const size_t strings[] = {
    offsetof(struct tr_train_params, model),     offsetof(struct tr_train_params, arch),
    offsetof(struct tr_train_params, tokenizer), offsetof(struct tr_train_params, data),
    offsetof(struct tr_train_params, valid),     offsetof(struct tr_train_params, out),
    offsetof(struct tr_train_params, store),     offsetof(struct tr_train_params, device),
    offsetof(struct tr_train_params, freeze),    offsetof(struct tr_train_params, chat_template),
    offsetof(struct tr_train_params, adapter),   offsetof(struct tr_train_params, lora_targets),
};

static const char **string_at(struct tr_train_params *p, size_t i)
{
    return (const char **)((char *)p + strings[i]);
}

/* All of them are the run's own from here on, whatever fails. */
static int copy_strings(struct tr_train_params *p)
{
    int r = 0;

    for (size_t i = 0; i < sizeof(strings) / sizeof(strings[0]); i++) {
        const char **s = string_at(p, i), *from = *s;

        *s = from ? tr_strdup(TR_MEM_MISC, from) : NULL;
        if (from && !*s)
            r = -ENOMEM;
    }
    return r;
}

int run_check_source(const struct tr_train_params *p)
{
    if (p->model && p->arch)
        return tr_error(-EINVAL, "--model and --arch exclude each other");
    return p->model || p->arch ? 0 : tr_error(-EINVAL, "--model or --arch is missing");
}

int run_copy_params(struct tr_run *run, const struct tr_train_params *params)
{
    struct tr_train_params *p = &run->params;
    int r;

    *p = *params;
    run->device_asked = p->device_memory;
    run->host_asked = p->host_memory;
    if ((r = copy_strings(p)) < 0 || (r = tr_need(p->data, "data")) < 0 ||
        (r = tr_need(p->out, "out")) < 0 || (r = tr_options_check(p)) < 0)
        return r;
    if (!p->valid && tr_data_has_held_out(p->data) && !(p->valid = tr_strdup(TR_MEM_MISC, p->data)))
        return -ENOMEM;
    if ((r = run_check_source(p)) < 0 || (r = order_targets(p)) < 0 ||
        (r = run_make_absolute(&p->out)) < 0 || (r = run_tell_names(p)) < 0 ||
        (r = choose_places(run)) < 0)
        return r;
    if (p->model && (r = check_outside("--out", p->out, p->model)) == 0)
        r = check_store_outside(p->store, p->model);
    return r;
}

void run_free_params(struct tr_run *run)
{
    for (size_t i = 0; i < sizeof(strings) / sizeof(strings[0]); i++)
        tr_free(TR_MEM_MISC, (void *)*string_at(&run->params, i));
}

/* One pass, hardly any state, and among the best of losses. Adapters are small: what most train
 * them with costs nothing. */
static enum tr_optimizer chosen(const struct tr_train_params *p)
{
    if (p->optimizer != TR_OPT_DEFAULT)
        return p->optimizer;
    return has_adapters(p) && !p->lora_optimizer ? TR_OPT_ADAMW : TR_OPT_ADALOMO;
}

static enum tr_state_kind plain_state(const struct tr_train_params *p, enum tr_optimizer optimizer)
{
    switch (optimizer) {
    case TR_OPT_ADAMW:
        return TR_STATE_ADAMW;
    case TR_OPT_ADAM_MINI:
        return TR_STATE_ADAM_MINI;
    case TR_OPT_ADALOMO:
        return TR_STATE_ADALOMO;
    case TR_OPT_SGD:
        return p->momentum > 0 ? TR_STATE_MOMENTUM : TR_STATE_NONE;
    case TR_OPT_LOMO:
    case TR_OPT_DEFAULT:
        break;
    }
    return TR_STATE_NONE;
}

static enum tr_dtype state_dtype(const struct tr_train_params *p)
{
    return p->state_dtype == TR_TYPE_8BIT   ? TR_8BIT
           : p->state_dtype == TR_TYPE_BF16 ? TR_BF16
                                            : TR_F32;
}

static enum tr_state_kind state_kind(const struct tr_train_params *p, enum tr_optimizer optimizer)
{
    return tr_state_as(plain_state(p, optimizer), state_dtype(p));
}

enum tr_master run_master(const struct tr_train_params *p)
{
    return p->master == TR_MASTERS_SPLIT ? TR_MASTER_SPLIT
           : p->master == TR_MASTERS_F32 ? TR_MASTER_F32
                                         : TR_MASTER_NONE;
}

enum tr_state_kind run_state_kind(const struct tr_train_params *p)
{
    return state_kind(p, chosen(p));
}

/* AdaLomo bounds its own updates, but an overflow of f16 must be seen before the first of them. */
static double default_clip(enum tr_optimizer optimizer, const struct tr_model *m)
{
    if (optimizer == TR_OPT_ADALOMO)
        return m->dtype == TR_F16 ? 1 : -1;
    return optimizer == TR_OPT_SGD ? -1 : 1;
}

static double default_rate(const struct tr_train_params *p, enum tr_optimizer optimizer,
                           const struct tr_model *m, int adapters)
{
    double rate = tr_lr_default(optimizer, m->n_params);

    if (adapters && (optimizer == TR_OPT_ADAMW || optimizer == TR_OPT_ADAM_MINI))
        return rate * LORA_RATE;
    return optimizer == TR_OPT_SGD ? rate * (1 - p->momentum) : rate;
}

double run_default_rate(const struct tr_run *run)
{
    const struct tr_train_params *p = &run->params;

    return default_rate(p, p->optimizer, run->model, tr_lora_freezes(&run->model->lora));
}

/* What does not go with adapters, or not without. */
static int check_adapters(const struct tr_train_params *p)
{
    if (!has_adapters(p))
        return p->lora_alpha || p->lora_targets || p->lora_dropout > 0 || p->lora_optimizer ||
                       p->lora_lr || p->lora_clip_norm > 0
                   ? tr_error(-EINVAL, "--lora-alpha, --lora-dropout, --lora-targets, "
                                       "--lora-optimizer, --lora-lr and --lora-clip-norm: there "
                                       "are no adapters without --lora-rank or --adapter")
                   : 0;
    if (p->adapter && (p->lora_rank || p->lora_alpha || p->lora_targets))
        return tr_error(-EINVAL, "--adapter: the folder says rank, alpha and targets; --lora-rank, "
                                 "--lora-alpha and --lora-targets are for new adapters");
    if (p->lora_rank > TR_LORA_MAX_RANK)
        return tr_error(-EINVAL, "--lora-rank %lld: at most %d", (long long)p->lora_rank,
                        TR_LORA_MAX_RANK);
    if (!p->lora_optimizer && (p->lora_lr || p->lora_clip_norm))
        return tr_error(-EINVAL, "--lora-lr, --lora-clip-norm: --lr and --clip-norm are the "
                                 "adapters' unless --lora-optimizer trains the model as well");
    if (p->lora_optimizer && p->lr == TR_REAL_AUTO)
        return tr_error(-EINVAL, "--lr auto: finds one rate, --lora-optimizer needs two");
    if (p->freeze && !p->lora_optimizer)
        return tr_error(-EINVAL, "--freeze: with adapters the whole model stays as it is");
    if (p->fused_gemm)
        return tr_error(-EINVAL, "--fused-gemm: is not for adapters");
    if (p->master > TR_MASTERS_NONE && !p->lora_optimizer)
        return tr_error(-EINVAL, "--master: adapters are f32 and lose nothing of an update; the "
                                 "model is trained beside them with --lora-optimizer alone");
    if (p->update_on == TR_UPDATE_CPU && !p->lora_optimizer)
        return tr_error(-EINVAL, "--update-on cpu: adapters and their state stay on the device; "
                                 "the model is trained beside them with --lora-optimizer alone");
    return 0;
}

int run_lora(const struct tr_train_params *p, struct tr_lora *lora)
{
    int r = check_adapters(p);

    *lora = (struct tr_lora){.rank = 0};
    if (r < 0 || !has_adapters(p))
        return r;
    *lora =
        (struct tr_lora){.rank = (int32_t)p->lora_rank,
                         .alpha = p->lora_alpha > 0 ? p->lora_alpha : LORA_ALPHA,
                         .dropout = p->lora_dropout > 0              ? p->lora_dropout
                                    : p->lora_dropout || !p->adapter ? 0
                                                                     : -1,
                         .trains_base = p->lora_optimizer != TR_OPT_DEFAULT,
                         .state = state_kind(p, p->lora_optimizer ? p->lora_optimizer : chosen(p))};
    if (!p->adapter &&
        tr_lora_parse_targets(p->lora_targets ? p->lora_targets : LORA_TARGETS, &lora->targets) < 0)
        return tr_error_prefix(-EINVAL, "--lora-targets");
    return 0;
}

/* With a folder, rank, alpha and targets stay its own. */
static void resolve_adapters(struct tr_train_params *p, const struct tr_model *m)
{
    if (m->lora.rank && p->lora_dropout == 0)
        p->lora_dropout = m->lora.dropout > 0 ? m->lora.dropout : -1;
    if (m->lora.rank && !p->adapter && p->lora_alpha == 0)
        p->lora_alpha = m->lora.alpha;
    if (p->lora_optimizer && p->lora_lr == 0)
        p->lora_lr = default_rate(p, p->lora_optimizer, m, 1);
}

/* Their norm costs what the model's does, a second backward pass at worst: it is not measured for
 * them alone unless that is asked for. */
static void resolve_adapters_clip(struct tr_train_params *p, const struct tr_model *m)
{
    if (p->lora_optimizer && p->lora_clip_norm == 0)
        p->lora_clip_norm = p->clip_norm > 0 ? default_clip(p->lora_optimizer, m) : -1;
}

static void resolve_training(struct tr_train_params *p, const struct tr_model *m)
{
    p->optimizer = chosen(p);
    if (p->schedule == TR_LR_DEFAULT)
        p->schedule = TR_LR_LINEAR;
    if (p->lr == 0)
        p->lr = default_rate(p, p->optimizer, m, tr_lora_freezes(&m->lora));
    if (p->warmup == 0)
        p->warmup = 0.03;
    if (p->clip_norm == 0)
        p->clip_norm = default_clip(p->optimizer, m);
    if (p->beta1 == 0)
        p->beta1 = 0.9;
    if (p->beta2 == 0)
        p->beta2 = 0.999;
    if (p->eps == 0)
        p->eps = 1e-8;
    if (p->rounding == TR_ROUNDING_AUTO)
        p->rounding =
            m->dtype == TR_BF16 && !m->master ? TR_ROUNDING_STOCHASTIC : TR_ROUNDING_NEAREST;
    if (p->master == TR_MASTERS_AUTO)
        p->master = TR_MASTERS_NONE;
    if (p->state_dtype == TR_TYPE_SOURCE)
        p->state_dtype = TR_TYPE_F32;
    if (p->loss_scale == 0 || m->dtype != TR_F16)
        p->loss_scale = m->dtype == TR_F16 ? 65536 : 1;
}

static void resolve_data(struct tr_train_params *p, const struct tr_model *m)
{
    if (p->steps == 0 && p->epochs == 0)
        p->epochs = 3;
    if (p->batch_size == 0)
        p->batch_size = 8;
    if (p->micro_batch > p->batch_size)
        p->micro_batch = p->batch_size;
    if (p->seq_len == 0)
        p->seq_len = tr_config_row_tokens(&m->config);
}

/* A run that exists goes on as it began. */
static void resolve_durability(struct tr_run *run)
{
    struct tr_train_params *p = &run->params;

    if (p->durability == TR_KEEP_AUTO && !run->import) {
        p->durability = run->before.durability;
        if (p->checkpoint_every == 0)
            p->checkpoint_every = run->before.every;
    }
    run->durability_auto = p->durability == TR_KEEP_AUTO;
    if (p->durability == TR_KEEP_AUTO)
        p->durability = TR_KEEP_STEP;
    if (p->checkpoint_every == 0)
        p->checkpoint_every = 100;
}

static int resolve_machine(struct tr_run *run)
{
    struct tr_train_params *p = &run->params;
    int r = run_resolve_memory(run);

    if (r < 0)
        return r;
    if (p->threads == 0)
        p->threads = tr_thread_cores();
    resolve_durability(run);
    return 0;
}

/* Whatever has to see a gradient, or more than one micro-batch, cannot be had with it. */
static int check_fused(const struct tr_run *run)
{
    const struct tr_train_params *p = &run->params;
    const struct {
        int asked;
        const char *option;
    } bad[] = {{p->optimizer != TR_OPT_SGD, "another optimizer than --optimizer sgd"},
               {p->momentum > 0, "--momentum"},
               {p->weight_decay > 0, "--weight-decay"},
               {p->clip_norm > 0, "--clip-norm"},
               {p->clip_value > 0, "--clip-value"},
               {p->update_on == TR_UPDATE_CPU, "--update-on cpu"},
               {p->micro_batch > 0 && p->micro_batch < p->batch_size, "--micro-batch"}};

    for (size_t i = 0; p->fused_gemm && i < sizeof(bad) / sizeof(bad[0]); i++)
        if (bad[i].asked)
            return tr_error(-EINVAL,
                            "--fused-gemm: goes without %s: there is no gradient, and a "
                            "step is one micro-batch",
                            bad[i].option);
    for (int32_t i = 0; p->fused_gemm && i < run->model->n_tensors; i++)
        if (run->model->tensors[i].dtype != TR_F32)
            return tr_error(-EINVAL, "--fused-gemm: needs --dtype f32, %s is %s",
                            run->model->tensors[i].name,
                            tr_dtype_name(run->model->tensors[i].dtype));
    return 0;
}

static int check(const struct tr_run *run)
{
    const struct tr_train_params *p = &run->params;
    const struct tr_model *m = run->model;

    if (p->seq_len > tr_config_positions(&m->config))
        return tr_error(-EINVAL, "--seq-len %lld: the model has %lld positions",
                        (long long)p->seq_len, (long long)tr_config_positions(&m->config));
    if (p->rounding == TR_ROUNDING_STOCHASTIC && m->dtype != TR_BF16)
        return tr_error(-EINVAL, "--rounding stochastic: only bf16 storage has it, this is %s",
                        tr_dtype_name(m->dtype));
    if (tr_state_dtype(run_state_kind(p)) != state_dtype(p))
        return tr_error(-EINVAL,
                        "--state-dtype %s: this optimizer keeps nothing of an element; "
                        "adamw, adam-mini and sgd with --momentum do",
                        tr_dtype_name(state_dtype(p)));
    if (p->momentum > 0 && p->optimizer != TR_OPT_SGD && p->lora_optimizer != TR_OPT_SGD)
        return tr_error(-EINVAL, "--momentum: only --optimizer sgd has it");
    if (m->master && p->rounding == TR_ROUNDING_STOCHASTIC)
        return tr_error(-EINVAL,
                        "--master %s: goes without --rounding stochastic: nothing of an "
                        "update is lost that chance could make up for",
                        tr_master_name(m->master));
    if (m->dtype == TR_F16 && !(p->clip_norm > 0))
        return tr_error(-EINVAL,
                        "f16 storage needs --clip-norm: an overflow must be seen before the "
                        "first update");
    if (p->lr == TR_REAL_AUTO && p->durability == TR_KEEP_NONE)
        return tr_error(-EINVAL, "--lr auto: its test is undone through the second generation, "
                                 "which --durability none has not");
    if (p->seed > UINT32_MAX)
        return tr_error(-EINVAL, "--seed %llu: at most %u", (unsigned long long)p->seed,
                        UINT32_MAX);
    if (p->batch_size > INT32_MAX / 2 / p->seq_len)
        return tr_error(-EINVAL, "--batch-size %lld of --seq-len %lld: too many tokens a step",
                        (long long)p->batch_size, (long long)p->seq_len);
    return tr_need_threads(p->threads);
}

int run_resolve(struct tr_run *run)
{
    int r;

    resolve_adapters(&run->params, run->model);
    resolve_training(&run->params, run->model);
    resolve_adapters_clip(&run->params, run->model);
    resolve_data(&run->params, run->model);
    run->cursor.loss_scale = run->params.loss_scale;
    r = resolve_machine(run);
    if (r < 0 || (r = check_fused(run)) < 0 || (r = run_resolve_clip(run)) < 0)
        return r;
    r = tr_master_check(run->model, run->model->master);
    return r < 0 ? r : check(run);
}
