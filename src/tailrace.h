/* SPDX-License-Identifier: Apache-2.0
 *
 * libtailrace: fine-tunes LLaMA-family models far larger than the device's memory. Parameters live
 * in a store on disk and stream layer by layer through the device; each layer is updated inside the
 * backward pass and written back; each step is durable, or every so many.
 *
 * Calls return 0 (or what they say) or a negative errno; tr_message() then has one line for a
 * person. The library never exits, prints or installs signal handlers; OpenBLAS it sets to one
 * thread, for the whole process, and its environment while it is loaded. In params zero (NULL) is
 * the default; strings are copied where they are kept. Objects are not thread-safe; different
 * objects may be used from different threads, once the first run or model has been opened. Memory
 * budgets and peaks count what all of them hold: they are meant for one run at a time. */
#ifndef TAILRACE_H
#define TAILRACE_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TR_API __attribute__((visibility("default")))

TR_API const char *tr_version(void);
/* What went wrong in this thread's last failed call; valid until its next call. */
TR_API const char *tr_message(void);

/* Notices ("no prediction: ...", "host memory: not locked: ..."), a line each without newline. */
typedef void tr_log_fn(void *arg, const char *line);
/* How far an import is; non-zero stops it: -EINTR, and nothing of it stays on the disk. */
typedef int tr_import_fn(void *arg, uint64_t done_bytes, uint64_t total_bytes);
/* Asked in long calls. Non-zero: only the last validation is made; reading, range test: -EINTR. */
typedef int tr_stop_fn(void *arg);

enum tr_optimizer { TR_OPT_DEFAULT, TR_OPT_LOMO, TR_OPT_SGD, TR_OPT_ADAMW, TR_OPT_ADAM_MINI,
    TR_OPT_ADALOMO };
enum tr_lr_schedule { TR_LR_DEFAULT, TR_LR_LINEAR, TR_LR_COSINE, TR_LR_CONSTANT };
enum tr_choice { TR_AUTO, TR_YES, TR_NO };
enum tr_clip { TR_CLIP_AUTO, TR_CLIP_TWO_PASS, TR_CLIP_DEFERRED, TR_CLIP_GROUP /* + layers */ };
enum tr_recompute { TR_RECOMPUTE_AUTO, TR_RECOMPUTE_ALL, TR_RECOMPUTE_NONE };
enum tr_streaming { TR_STREAMING_AUTO, TR_STREAMING_BLOCKS, TR_STREAMING_MATRICES };
enum tr_rounding_choice { TR_ROUNDING_AUTO, TR_ROUNDING_NEAREST, TR_ROUNDING_STOCHASTIC };
enum tr_master_choice { TR_MASTERS_AUTO, TR_MASTERS_NONE, TR_MASTERS_SPLIT, TR_MASTERS_F32 };
enum tr_keep { TR_KEEP_AUTO, TR_KEEP_STEP, TR_KEEP_CHECKPOINT, TR_KEEP_NONE }; /* --durability */
enum tr_update_on { TR_UPDATE_AUTO, TR_UPDATE_DEVICE, TR_UPDATE_CPU };
enum tr_engine { TR_ENGINE_AUTO, TR_ENGINE_URING, TR_ENGINE_THREADS };
enum tr_task { TR_TASK_NONE, TR_TASK_RTE, TR_TASK_CB, TR_TASK_BOOLQ, TR_TASK_COPA, TR_TASK_WIC,
    TR_TASK_WSC, TR_TASK_MULTIRC, TR_TASK_CHOICE, TR_TASKS };
enum tr_type { TR_TYPE_SOURCE, TR_TYPE_F32, TR_TYPE_BF16, TR_TYPE_F16, TR_TYPE_8BIT /* state */ };

/* A memory budget as a share of what is free when the object is opened: TR_SHARE(80). */
#define TR_SHARE(percent) (1ull << 63 | (uint64_t)((percent) * 1000))

/* ---- training ------------------------------------------------------------------------------- */

struct tr_train_params { /* of each value the command line's bounds hold here, too */
    const char *model;     /* HF folder; or arch */
    const char *arch;      /* a name or a config.json: random start from seed; needs tokenizer */
    const char *tokenizer; /* folder with tokenizer.json; default: the model's */
    const char *data;      /* text, JSONL or a JSON list, or a folder with train.* and valid.* */
    const char *chat_template; /* built in, or a file; default: the tokenizer folder's own */
    const char *valid;     /* like data: loss measured every eval_every steps and at the end */
    enum tr_task task;     /* data and valid are its JSONL */
    int64_t samples;       /* of data, drawn by seed; default all */
    const char *out;       /* run folder: absent, empty, or the same run to be continued */
    const char *store;     /* folders for the store, DIR[:DIR...]; default OUT/store */
    const char *device;    /* "cpu", "cuda", "cuda:N"; default: the first GPU, else the cpu */
    int64_t steps;         /* or: */
    double epochs;         /* default 3 */
    int64_t batch_size;    /* rows a step, default 8 */
    int64_t micro_batch;   /* rows a micro-batch, in whole grains; default: as budget allows */
    int64_t seq_len;       /* default min(2048, the model's) */
    enum tr_choice packing; /* default yes */
    enum tr_optimizer optimizer; /* default adalomo */
    enum tr_lr_schedule schedule; /* default linear */
    double lr;             /* default by optimizer and model size; -1: by a range test, undone */
    double warmup;         /* below 1: a share of all steps; default 0.03; negative: none */
    double weight_decay, clip_value;
    double clip_norm;      /* default 1 (sgd, adalomo but for f16: off); negative: off */
    enum tr_clip clip_method; /* how the norm is known first; default: the faster exact way */
    enum tr_type parked_dtype; /* deferred: f32 (exact, the default) or bf16 */
    double momentum;       /* sgd: of the last update's direction; default 0 */
    int fused_gemm;        /* sgd, f32: the update is the product itself, without a gradient */
    double beta1, beta2, eps; /* adamw, adam-mini: 0.9, 0.999, 1e-8 */
    enum tr_type state_dtype; /* of what an optimizer keeps of an element: f32, bf16, 8bit */
    const char *freeze;    /* tensors that stay: shell patterns, by commas; default none */
    const char *lora_targets, *adapter; /* default q_proj,v_proj; a PEFT folder to begin with */
    int64_t lora_rank; double lora_alpha, lora_dropout; /* adapters train, the model stays, but: */
    enum tr_optimizer lora_optimizer; double lora_lr, lora_clip_norm; /* both train */
    double loss_scale;     /* f16 only, at the start; default 65536 */
    uint64_t seed;         /* 0 is a seed like any other; default 0 */
    enum tr_type dtype;    /* of storage; default: as the source */
    enum tr_rounding_choice rounding; /* default: stochastic for bf16, else nearest */
    enum tr_master_choice master; /* what 16-bit parameters have beside them; default none */
    enum tr_recompute recompute; enum tr_keep durability;
    enum tr_streaming streaming; /* what moves at once; default: blocks where two of them fit */
    enum tr_update_on update_on; /* of a GPU's run: default the faster; the bits are the same */
    int64_t checkpoint_every; /* steps between commits with durability checkpoint; default 100 */
    uint64_t device_memory, host_memory; /* bytes or TR_SHARE; default 80 % (GPU: 90) of free */
    int64_t threads, prefetch; /* default: the cores of this process; as slots allow */
    enum tr_engine io; /* what reads and writes the store */
    int64_t eval_every;       /* steps; default: only at the end */
    enum tr_choice export_model; /* write OUT/model at the end; default yes */
    int force;                /* continue a run although what decides its bits has changed */
    int serial; unsigned delay_seed; /* measurement: nothing overlaps; test: streams pause */
    tr_log_fn *log; void *log_arg; tr_stop_fn *stop; void *stop_arg;
    tr_import_fn *importing; void *importing_arg;
};

struct tr_step_report {
    int64_t step, steps;        /* 1-based, of this line; in all */
    double loss, lr, grad_norm; /* grad_norm: NaN with fused_gemm; 0 where not measured */
    int64_t tokens, targets;    /* in the batch; those with a loss */
    int skipped;        /* loss or gradient was not finite: nothing was updated */
    double seconds, tokens_per_s, wait_load_s, wait_commit_s; /* waits: of the caller */
    uint64_t read_bytes, written_bytes, spilled_bytes; /* spilled: activations, to host or disk */
    uint64_t device_peak_bytes, host_peak_bytes; /* device: as planned; the outcome has measured */
    double eval_loss, eval_accuracy; /* NaN where this step measured none */
};

/* The memory table, for printing: what the plan has placed. */
struct tr_memory_row { const char *kind; uint64_t bytes; }; /* "block slots (3 x 88.1 MiB)" */

typedef struct tr_run tr_run;
/* Imports (or continues) and plans. On failure *out is NULL, nothing half-made is left behind. */
TR_API int tr_train_open(tr_run **out, const struct tr_train_params *params);
/* One step. 1: done, 0: no more steps (all is durable), -EINTR: stopped, or an error. Then step and
 * finish return that error for good, commit and export nothing; opened anew, the run goes on. */
TR_API int tr_train_step(tr_run *run, struct tr_step_report *report);
/* Commits; where all steps are done and export is on exports OUT/model, or, if that is of another
 * step, OUT/model-STEP. After an error of the export (a full disk) another call tries again. */
TR_API int tr_train_finish(tr_run *run);
TR_API void tr_train_close(tr_run *run); /* NULL is allowed; all committed steps stay */
/* Rows of the memory table; returns how many, fills at most n. Strings live as long as the run. */
TR_API int tr_train_memory(const tr_run *run, struct tr_memory_row *rows, int n);
/* A text of "key: value" lines: what will be done with what (resolved options, sizes). */
TR_API const char *tr_train_summary(const tr_run *run);
/* After finish: predicted beside measured, or "". Lives as long as the run. */
TR_API const char *tr_train_outcome(const tr_run *run);
TR_API void tr_train_moved(const tr_run *run, uint64_t *read, uint64_t *written); /* disk, bytes */

/* ---- before training ------------------------------------------------------------------------ */

/* What the machine can do, measured once (30 to 60 seconds) and kept for predictions. */
struct tr_bench_params {
    const char *device; /* default: as for training */
    const char *store;  /* folders on the drives to be measured; default: the current one */
    const char *out;    /* file; default $XDG_CACHE_HOME/tailrace/machine.json, else ~/.cache/... */
    int64_t threads; int quick; /* quick, for tests: seconds, and figures that mean little */
    int json;           /* the text is the file's content, not a table */
    tr_log_fn *log; void *log_arg;
};
TR_API int tr_bench_machine(const struct tr_bench_params *params, char **out); /* tr_free_text */

#define TR_MOST_DRIVES 8 /* of a store; lists of less end with 0, and one number stands for all */
/* What a run with these options would take: memory by kind, seconds by phase, bytes, wear, and what
 * limits it. Writes nothing and needs neither data nor out: a step is batch_size full rows. */
struct tr_foretell_params {
    const struct tr_train_params *train;
    const char *machine; /* a name (rtx-3090, ...) or a file of figures; default: this machine */
    double pcie, drive_read[TR_MOST_DRIVES], drive_write[TR_MOST_DRIVES]; /* of a named one, B/s */
    int64_t drives; uint64_t machine_memory; /* likewise: how many; bytes. 0: as the table says */
    double drive_life[TR_MOST_DRIVES]; /* bytes that may be written to each; 0: not asked */
    int json;
};
TR_API int tr_foretell(const struct tr_foretell_params *params, char **out);

/* ---- everything else ------------------------------------------------------------------------ */

struct tr_init_params {
    const char *arch, *tokenizer, *out; /* tokenizer: copied, or NULL; out: absent or empty */
    uint64_t seed; enum tr_type dtype; /* default 0; f32 */
};
TR_API int tr_init_model(const struct tr_init_params *params);

struct tr_export_run_params {
    const char *run, *store; /* store: default as run.yaml says */
    const char *out, *gguf;  /* a folder, or a file in the format of llama.cpp */
    enum tr_type dtype; int merge; /* default: as stored; adapters become part of the model */
};
/* Exports the newest whole commit; *step is the step it was made at (may be NULL). */
TR_API int tr_export_run(const struct tr_export_run_params *params, int64_t *step);

struct tr_learn_params { const char *data, *out; int64_t vocab; }; /* at least 261 */
TR_API int tr_learn_tokenizer(const struct tr_learn_params *params);

/* Texts returned through `out` are freed with tr_free_text (NULL is allowed). After an error *out
 * is NULL, but for tr_verify_run's: what it had found by then. */
TR_API void tr_free_text(char *text);
TR_API int tr_inspect_path(const char *path, int json, char **out);
/* Number of damaged pieces or commits (0: whole), each named in the text; or an error. */
TR_API int64_t tr_verify_run(const char *run, const char *store, char **out);
/* Goes back one commit, for good, where bytes that the newest one names are damaged; returns the
 * step that the run stands at then. Without a change: -EINVAL: they are whole; -ENODATA: there is
 * no commit before; -EBADMSG: it is damaged as well, or written over. */
TR_API int64_t tr_fall_back_run(const char *run, const char *store);

struct tr_preview_data_params {
    const char *data, *model, *tokenizer, *chat_template;
    int64_t samples, seq_len; /* default 4, min(2048, the model's) */
    enum tr_task task; int json;
};
TR_API int tr_preview_data(const struct tr_preview_data_params *params, char **out);

/* Continuation and loss, streamed layer by layer like training; model: HF folder or run. */
struct tr_eval_params {
    const char *model, *tokenizer, *data, *device, *chat_template, *adapter; /* adapter: PEFT's */
    int64_t batch_size, seq_len, samples, max_tokens, threads; /* max_tokens: 1.5 x the answers' */
    uint64_t device_memory;
    enum tr_task task; /* data: its official JSONL; choices by log-likelihood */
    int exact_match; /* prompt/completion data: generate and compare with the completion */
    tr_log_fn *log; void *log_arg; /* exact_match: "prompt -> answer (expected ...)" lines */
};
struct tr_eval_report {
    double loss, perplexity, bits_per_byte; /* over all targets; 0 where bytes are not known: cut */
    int64_t samples, tokens, targets, matched, truncated; /* truncated: samples cut to seq_len */
    double accuracy[3]; /* task: by sum, per token, per byte of a choice */
    double interval[2]; /* 95 % of the first, by Wilson: never empty, even if all are right */
    double majority, f1, exact; /* commonest answer; cb and multirc; its questions, all; or NaN */
};
TR_API int tr_eval_data(const struct tr_eval_params *params, struct tr_eval_report *report);

struct tr_generate_params { /* prompt; or prompts: a file of lines or JSONL: out is JSONL then */
    const char *model, *adapter, *tokenizer, *prompt, *prompts, *device;
    const char *chat_template; /* prompts are turns of the user, by this template; or: */
    int chat;                  /* by the run's, or the tokenizer folder's */
    const char *(*ask)(void *arg); void *ask_arg; /* chat: next turn, or NULL; answers: piece */
    int64_t max_tokens, threads; /* default of the first: 64, of an answer to ask 512 */
    uint64_t device_memory, seed;
    double temperature, top_p; /* 0: the likeliest token; of all */
    enum tr_choice kv_cache;   /* keys and values stay; default: where they fit */
    tr_log_fn *piece; void *piece_arg; /* of `prompt`: the text as it grows, whole characters */
};
TR_API int tr_generate_text(const struct tr_generate_params *params, char **out);

#ifdef __cplusplus
}
#endif

#endif
