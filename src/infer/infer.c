/* SPDX-License-Identifier: Apache-2.0
 *
 * Opening a model for forward passes. A run's own store is read where it lies; a model folder is
 * imported into a temporary store (temporary.c) whose files lose their names as soon as they are
 * open.
 */
#include "src/infer/infer.h"

#include <string.h>

#include "src/base/err.h"
#include "src/base/file.h"
#include "src/base/mem.h"
#include "src/options/options.h"

int infer_check_texts(const char *tokenizer, const char *adapter, const char *device,
                      const char *chat_template)
{
    int r;

    if ((r = tr_need_text(tokenizer, "tokenizer")) < 0 ||
        (r = tr_need_text(adapter, "adapter")) < 0 || (r = tr_need_text(device, "device")) < 0)
        return r;
    return tr_need_text(chat_template, "template");
}

static int open_run_store(struct infer *f, const char *folder)
{
    int r = run_settle_folder(folder, NULL);

    if (r < 0 || (r = run_store_open(folder, NULL, TR_STORE_READ, &f->run.store)) < 0 ||
        (r = run_keep_open(folder, f->run.store, &f->run.kept)) < 0)
        return r;
    f->run.model = f->run.kept->model;
    return 0;
}

static int import_folder(struct infer *f, const char *folder, const char *adapter)
{
    struct tr_import_params *p = &f->run.import_params;
    char *store;
    int r;

    *p = (struct tr_import_params){
        .model = folder, .adapter = adapter, .dtype = -1, .generations = 1, .payload = ""};
    if ((r = run_refuse_adapters(folder)) < 0 || (r = tr_import_open(&f->run.import, p)) < 0 ||
        (r = tr_temporary_make(&f->temporary, NULL)) < 0)
        return r;
    f->run.model = tr_import_model(f->run.import);
    p->store = store = tr_folders_below(f->temporary.path, "store");
    r = store ? tr_import_run(f->run.import) : -ENOMEM;
    if (r == 0)
        r = tr_store_open(&f->run.store, store, TR_STORE_READ);
    /* The open files are all that is read from here on: without their names a process that is
     * killed leaves nothing on the disk. */
    if (r == 0)
        r = tr_temporary_remove(&f->temporary);
    tr_free(TR_MEM_MISC, store);
    return r;
}

int infer_tokenizer(const char *model, char **out)
{
    struct tr_train_params options;
    int r = infer_run_options(model, &options);

    *out = NULL;
    if (r == 0) {
        if (options.tokenizer && tr_tokenizer_is_in(options.tokenizer))
            *out = tr_strdup(TR_MEM_MISC, options.tokenizer);
        else
            *out = run_is_folder(model) ? tr_path(model, "source") : tr_strdup(TR_MEM_MISC, model);
        r = *out ? 0 : -ENOMEM;
    }
    tr_options_free(&options);
    return r;
}

/* The tokenizer asked for, or else the model's, if it has one. */
static int open_tokenizer(struct infer *f, const struct infer_params *p)
{
    char *folder = NULL;
    int r;

    if (p->tokenizer)
        return tr_tokenizer_open(&f->run.tokenizer, p->tokenizer);
    r = infer_tokenizer(p->model, &folder);
    if (r == 0 && tr_tokenizer_is_in(folder))
        r = tr_tokenizer_open(&f->run.tokenizer, folder);
    tr_free(TR_MEM_MISC, folder);
    return r;
}

void infer_add_stop(struct infer *f, int64_t id)
{
    if (id >= 0 && id < INT32_MAX && f->n_stops < INFER_STOPS && !infer_stops(f, (int32_t)id))
        f->stops[f->n_stops++] = (int32_t)id;
}

/* eos_token_id of one of the folder's files: a number, or a list. */
static int add_stops(struct infer *f, const char *folder, const char *name)
{
    char *path = tr_path(folder, name), *text = NULL;
    int64_t ids[INFER_STOPS];
    size_t bytes;
    int r = path ? 0 : -ENOMEM, has = r == 0 && tr_folder_has(folder, name);

    if (has)
        r = tr_file_read(path, 1 << 20, &text, &bytes);
    if (has && r == 0)
        r = infer_parse_stops(text, bytes, path, ids);
    for (int i = 0; i < r; i++)
        infer_add_stop(f, ids[i]);
    tr_free(TR_MEM_TEXT, text);
    tr_free(TR_MEM_MISC, path);
    return r < 0 ? r : 0;
}

/* A text ends with the tokenizer's EOS; models for chats name more in generation_config.json. */
static int read_stops(struct infer *f, const struct infer_params *p)
{
    char *keep = tr_path(p->model, "source");
    const char *folder = run_is_folder(p->model) ? keep : p->model;
    int r = keep ? 0 : -ENOMEM;

    if (f->run.tokenizer)
        infer_add_stop(f, tr_tokenizer_eos(f->run.tokenizer));
    if (r == 0 && !p->tokenizer) /* ids of another vocabulary mean nothing */
        r = add_stops(f, folder, "generation_config.json");
    tr_free(TR_MEM_MISC, keep);
    return r;
}

static int open_device(struct infer *f, const struct infer_params *p)
{
    struct tr_run *run = &f->run;
    int r = tr_devices_parse(p->device ? p->device : tr_devices_default(), &run->choice);

    run->params.device_memory = p->device_memory;
    if (r < 0 || (r = run_resolve_memory(run)) < 0)
        return r;
    run->params.threads = p->threads;
    run->params.durability = TR_KEEP_STEP;
    return run_open_device(run);
}

/* What would only be found once the model has been imported. */
static int check_early(const struct infer_params *p)
{
    const struct tr_train_params budget = {.device_memory = p->device_memory};
    int r = tr_options_check(&budget);

    return r < 0 ? r : tr_io_check_environment();
}

int infer_open_model(struct infer **out, const struct infer_params *p)
{
    int r = check_early(p);
    struct infer *f = r == 0 ? tr_alloc(TR_MEM_MISC, sizeof(*f)) : NULL;

    if (!f)
        return r < 0 ? r : -ENOMEM;
    f->run.lock = -1;
    f->run.cursor.loss_scale = 1;
    if (run_is_folder(p->model) && p->adapter)
        r = tr_error(-EINVAL,
                     "--adapter: %s is a run, which has its own or none; name the folder "
                     "of a model",
                     p->model);
    else if (run_is_folder(p->model))
        r = open_run_store(f, p->model);
    else
        r = import_folder(f, p->model, p->adapter);
    if (r < 0 || (r = open_tokenizer(f, p)) < 0 || (r = read_stops(f, p)) < 0 ||
        (r = open_device(f, p)) < 0) {
        infer_close(f);
        return r;
    }
    *out = f;
    return 0;
}

/* The most tokens of a grain, as in training: the device's, and the longest sequence came when it
 * was one short. The head's scratch is that of a grain, and a micro-batch may be one. */
static int32_t grain_tokens(const struct infer *f, const struct infer_shape *s)
{
    int64_t most = (int64_t)f->run.device_info.grain_tokens - 1 + s->positions;

    return (int32_t)(most < s->batch_tokens ? most : s->batch_tokens);
}

static struct tr_plan_params plan_params(const struct infer *f, const struct infer_shape *s)
{
    const struct tr_run *run = &f->run;

    return (struct tr_plan_params){.model = run->model,
                                   .batch_tokens = (int32_t)s->batch_tokens,
                                   .grain_tokens = grain_tokens(f, s),
                                   .positions = s->positions,
                                   .compute = run->device_info.compute[run->model->dtype],
                                   .logit_rows = s->logit_rows,
                                   .cache_tokens = s->cache_tokens,
                                   .budget = run->device_info.arena_bytes,
                                   .workspace = run->device_info.workspace_bytes};
}

int infer_fits(const struct infer *f, const struct infer_shape *shape)
{
    struct tr_plan_params p = plan_params(f, shape);
    struct tr_plan plan;

    if (shape->batch_tokens > INT32_MAX / 4 || shape->cache_tokens > INT32_MAX)
        return tr_error(-ENOMEM, "%lld tokens a pass, %lld kept: too many",
                        (long long)shape->batch_tokens, (long long)shape->cache_tokens);
    return tr_plan_make(&plan, &p);
}

int infer_start(struct infer *f, const struct infer_shape *shape)
{
    struct tr_run *run = &f->run;
    struct tr_plan_params p = plan_params(f, shape);
    int r;

    if (shape->positions > tr_config_positions(&run->model->config))
        return tr_error(-EINVAL, "%lld tokens: the model has %lld positions",
                        (long long)shape->positions,
                        (long long)tr_config_positions(&run->model->config));
    if ((r = infer_fits(f, shape)) < 0 || (r = tr_plan_make(&run->plan, &p)) < 0 ||
        (r = run_place(run)) < 0)
        return r;
    return run_start_machine(run);
}

int infer_open(struct infer **out, const struct infer_params *p)
{
    int r = infer_open_model(out, p);

    if (r == 0 && (r = infer_start(*out, &p->shape)) < 0) {
        infer_close(*out);
        *out = NULL;
    }
    return r;
}

void infer_close(struct infer *f)
{
    if (!f)
        return;
    run_stop_machine(&f->run);
    tr_tokenizer_close(f->run.tokenizer);
    tr_store_close(f->run.store);
    tr_import_close(f->run.import);
    tr_keep_close(f->run.kept);
    tr_temporary_remove(&f->temporary); /* of an import that failed */
    tr_free(TR_MEM_MISC, f);
}
