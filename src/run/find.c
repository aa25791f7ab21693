/* SPDX-License-Identifier: Apache-2.0 */
#include "src/run/find.h"

#include "src/base/err.h"
#include "src/base/file.h"
#include "src/base/mem.h"
#include "src/options/options.h"
#include "src/run/papers.h"

int run_is_folder(const char *folder)
{
    return tr_folder_has(folder, "run.yaml");
}

int run_refuse_adapters(const char *model)
{
    if (tr_folder_has(model, "config.json") || !tr_folder_has(model, "adapter_config.json"))
        return 0;
    return tr_error(-EINVAL,
                    "%s: is a folder of adapters: give the folder of their model as --model and "
                    "this one as --adapter, or name the run",
                    model);
}

int run_refuse_folder(const char *model)
{
    if (!model || tr_folder_has(model, "config.json"))
        return 0;
    if (!run_is_folder(model))
        return run_refuse_adapters(model);
    return tr_error(-EINVAL,
                    "%s: is a run and no model: `tailrace train --resume' continues it, `tailrace "
                    "export' makes a model of it",
                    model);
}

int run_store_path(const char *run, char **out)
{
    char *yaml = tr_path(run, "run.yaml");
    struct tr_train_params options = {0};
    int r = yaml ? 0 : -ENOMEM;

    if (r == 0 && tr_folder_has(run, ".") && !run_is_folder(run))
        r = tr_error(-EINVAL, "%s: is not a run: it has no run.yaml", run);
    if (r == 0)
        r = tr_options_read(yaml, &options);
    if (r == 0) {
        *out =
            options.store ? tr_strdup(TR_MEM_MISC, options.store) : tr_folders_below(run, "store");
        r = *out ? 0 : -ENOMEM;
    }
    tr_options_free(&options);
    tr_free(TR_MEM_MISC, yaml);
    return r;
}

int run_store_open(const char *run, const char *store, enum tr_store_mode mode,
                   struct tr_store **out)
{
    char *path = NULL;
    int r = store ? 0 : run_store_path(run, &path);

    if (r == 0 && (r = tr_store_open(out, store ? store : path, mode)) == 0 &&
        (r = run_check_store(run, *out)) < 0) {
        tr_store_close(*out);
        *out = NULL;
    }
    tr_free(TR_MEM_MISC, path);
    return r;
}

int run_keep_open(const char *run, const struct tr_store *store, struct tr_kept **out)
{
    char *keep = tr_path(run, "source");
    int r = keep ? run_check_store(run, store) : -ENOMEM;

    if (r == 0)
        r = tr_keep_open(out, keep);
    tr_free(TR_MEM_MISC, keep);
    return r < 0 ? r : tr_keep_check_store(*out, store);
}
