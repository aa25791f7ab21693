/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/train/common.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include <cmocka.h>

#include "src/base/file.h"
#include "src/base/mem.h"
#include "src/base/philox.h"
#include "src/checkpoint/safetensors.h"
#include "src/run/devices.h"

static char folder[4096];

int on_cuda(void)
{
    return !strncmp(tr_devices_default(), "cuda", 4);
}

static void sweep(void)
{
    tr_remove_tree(folder);
}

const char *scratch(void)
{
    const char *base = getenv("TMPDIR");

    if (!folder[0]) {
        snprintf(folder, sizeof(folder), "%s/tailrace-test-XXXXXX", base ? base : "/var/tmp");
        assert_non_null(mkdtemp(folder));
        atexit(sweep);
    }
    return folder;
}

void scratch_borrow(const char *of)
{
    snprintf(folder, sizeof(folder), "%s", of);
}

const char *scratch_path(const char *fmt, ...)
{
    static char ring[8][4352];
    static int next;
    char *p = ring[next++ % 8];
    va_list ap;
    int n = snprintf(p, sizeof(ring[0]), "%s/", scratch());

    va_start(ap, fmt);
    vsnprintf(p + n, sizeof(ring[0]) - (size_t)n, fmt, ap);
    va_end(ap);
    return p;
}

static const char *architecture(const char *family)
{
    if (!strcmp(family, "mistral"))
        return "MistralForCausalLM";
    if (!strcmp(family, "qwen2"))
        return "Qwen2ForCausalLM";
    return !strcmp(family, "qwen3") ? "Qwen3ForCausalLM" : "LlamaForCausalLM";
}

void tiny_config(const char *path, const struct tiny *t)
{
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    fprintf(
        f,
        "{\"architectures\": [\"%s\"], \"model_type\": \"%s\", \"hidden_size\": %d, "
        "\"intermediate_size\": %d, \"num_hidden_layers\": %d, \"num_attention_heads\": %d, "
        "\"num_key_value_heads\": %d, \"head_dim\": %d, \"vocab_size\": %d, "
        "\"max_position_embeddings\": %d, \"rms_norm_eps\": 1e-5, \"rope_theta\": 10000.0, "
        "\"hidden_act\": \"silu\", \"initializer_range\": 0.1, \"tie_word_embeddings\": %s%s%s}\n",
        architecture(t->family), strncmp(t->family, "llama", 5) ? t->family : "llama", t->hidden,
        t->ffn, t->layers, t->heads, t->kv_heads, t->head_dim, t->vocab, t->positions,
        strstr(t->family, "tied") ? "true" : "false", t->extra && *t->extra ? ", " : "",
        t->extra ? t->extra : "");
    fclose(f);
}

void tiny_model(const char *out, const struct tiny *t, enum tr_type dtype, uint64_t seed)
{
    char config[4352];

    snprintf(config, sizeof(config), "%s.config.json", out);
    tiny_config(config, t);
    if (tr_init_model(
            &(struct tr_init_params){.arch = config, .out = out, .seed = seed, .dtype = dtype}) < 0)
        fail_msg("init: %s", tr_message());
}

void break_model(const char *path)
{
    char file[4352], *data;
    uint64_t header;
    size_t bytes;

    snprintf(file, sizeof(file), "%s/model.safetensors", path);
    assert_int_equal(tr_file_read(file, 64 << 20, &data, &bytes), 0);
    memcpy(&header, data, sizeof(header));
    memset(data + sizeof(header) + header, 0xff, bytes - sizeof(header) - header);
    assert_int_equal(tr_file_write(file, data, bytes), 0);
    tr_free(TR_MEM_TEXT, data);
}

void tiny_tokenizer(char text[4352], char tokenizer[4352])
{
    snprintf(text, 4352, "%s", scratch_path("text.txt"));
    snprintf(tokenizer, 4352, "%s", scratch_path("tokenizer"));
    assert_int_equal(tr_file_write(text, "the cat sat on the mat, the cat ran", 35), 0);
    if (tr_learn_tokenizer(
            &(struct tr_learn_params){.data = text, .out = tokenizer, .vocab = 262}) < 0)
        fail_msg("%s", tr_message());
}

void token_data(const char *path, int rows, int shortest, int longest, int vocab)
{
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    for (int r = 0; r < rows; r++) {
        struct tr_philox c = {{(uint32_t)r, 0, 0, 1}};
        int n = shortest + (int)(tr_philox4x32(c, 7, 7).v[0] % (uint32_t)(longest - shortest + 1));

        fprintf(f, "{\"input_ids\": [");
        for (int i = 0; i < n; i++) {
            c.v[1] =
                (uint32_t)i + 1; /* a skewed distribution, so that there is something to learn */
            fprintf(f, "%s%u", i ? ", " : "",
                    tr_philox4x32(c, 7, 7).v[1] %
                        (tr_philox4x32(c, 7, 7).v[2] % (uint32_t)vocab + 1));
        }
        fprintf(f, "]}\n");
    }
    fclose(f);
}

struct tr_train_params tiny_job(const char *out, enum tr_optimizer optimizer, enum tr_keep keep,
                                int64_t steps)
{
    static char model[4352], data[4352];

    snprintf(model, sizeof(model), "%s", scratch_path("model"));
    snprintf(data, sizeof(data), "%s", scratch_path("data.jsonl"));
    return (struct tr_train_params){.model = model,
                                    .data = data,
                                    .out = out,
                                    .steps = steps,
                                    .batch_size = 4,
                                    .seq_len = 64,
                                    .optimizer = optimizer,
                                    .durability = keep,
                                    .checkpoint_every = 3,
                                    .threads = 1,
                                    .device_memory = 32 << 20};
}

struct tr_train_params own_job(const char *name)
{
    static const struct tiny shape = {"llama", 64, 96, 3, 4, 2, 16, 300, 256, ""};
    static char model[4352], data[4352], out[4352];

    snprintf(model, sizeof(model), "%s", scratch_path("%s-model", name));
    snprintf(data, sizeof(data), "%s", scratch_path("%s.jsonl", name));
    snprintf(out, sizeof(out), "%s", scratch_path("%s-run", name));
    tiny_model(model, &shape, TR_TYPE_F32, 1);
    token_data(data, 12, 20, 50, 300);
    return (struct tr_train_params){.model = model,
                                    .data = data,
                                    .out = out,
                                    .steps = 4,
                                    .batch_size = 4,
                                    .seq_len = 64,
                                    .durability = TR_KEEP_STEP,
                                    .threads = 1,
                                    .device_memory = 32 << 20};
}

int metrics_lines(const char *out, int *validated)
{
    char path[4400], line[1024];
    FILE *f;
    int n = 0;

    snprintf(path, sizeof(path), "%s/metrics.jsonl", out);
    f = fopen(path, "r");
    *validated = 0;
    for (; f && fgets(line, sizeof(line), f); n++)
        *validated += strstr(line, "\"eval_loss\": ") != NULL;
    if (f)
        fclose(f);
    return n;
}

int train_rest(tr_run *run, struct tr_step_report *last)
{
    struct tr_step_report report;
    int r;

    while ((r = tr_train_step(run, &report)) == 1)
        if (last)
            *last = report;
    if (r == 0)
        r = tr_train_finish(run);
    tr_train_close(run);
    return r;
}

int train(const struct tr_train_params *p, struct tr_step_report *last)
{
    tr_run *run;
    int r = tr_train_open(&run, p);

    return r < 0 ? r : train_rest(run, last);
}

void train_anew(struct tr_train_params p, const char *name, struct tr_step_report *last)
{
    char out[4352];

    snprintf(out, sizeof(out), "%s", scratch_path("%s", name));
    if (tr_folder_is_empty(out) >= 0)
        assert_int_equal(tr_remove_tree(out), 0);
    p.out = out;
    if (train(&p, last) < 0)
        fail_msg("%s", tr_message());
}

void expect_refused(const struct tr_train_params *p, const char *words)
{
    tr_run *run = NULL;

    assert_true(tr_train_open(&run, p) < 0);
    if (!strstr(tr_message(), words))
        fail_msg("'%s' is not in: %s", words, tr_message());
}

int train_part(const struct tr_train_params *p, int steps)
{
    struct tr_step_report report;
    tr_run *run;
    int r = tr_train_open(&run, p);

    if (r < 0)
        return r;
    for (int i = 0; i < steps && r >= 0; i++)
        r = tr_train_step(run, &report);
    if (r >= 0)
        r = tr_train_finish(run);
    tr_train_close(run);
    return r;
}

/* What the device needs for itself, where the budget does not reach for that: bytes, or MiB of a
 * GPU, which are rounded. */
static uint64_t device_least(const char *message)
{
    static const char says[] = "itself needs ";
    const char *at = strstr(message, says);
    char *end;
    double n = at ? strtod(at + strlen(says), &end) : 0;

    if (!at)
        return 0;
    return strncmp(end, " MiB", 4) ? (uint64_t)n : (uint64_t)((n + 0.1) * 1048576);
}

/* The budget that the message of a refusal names. */
static uint64_t named_budget(void)
{
    static const char says[] = "smallest that would do is ";
    const char *at = strstr(tr_message(), says);

    if (!at)
        fail_msg("no smallest budget in: %s", tr_message());
    return strtoull(at + strlen(says), NULL, 10);
}

uint64_t smallest_budget_of(struct tr_train_params p)
{
    int r, there = access(p.out, F_OK);
    uint64_t least;
    tr_run *run;

    p.device_memory = 1 << 20; /* less than any device takes for itself and a model beside */
    r = tr_train_open(&run, &p);
    if (r == -EINVAL && device_least(tr_message())) {
        p.device_memory = device_least(tr_message());
        r = tr_train_open(&run, &p);
    }
    assert_int_equal(r, -ENOMEM);
    least = named_budget();
    p.device_memory = least - 4096; /* one page less is as little as nothing */
    assert_int_equal(tr_train_open(&run, &p), -ENOMEM);
    assert_int_equal(named_budget(), least);
    assert_int_equal(access(p.out, F_OK), there);
    return least;
}

uint64_t smallest_budget(struct tr_train_params p)
{
    p.out = scratch_path("never-made");
    return smallest_budget_of(p);
}

/* As the refusal of this one names it; 0 where the data alone are refused. */
static uint64_t host_least(struct tr_train_params *p, uint64_t budget)
{
    static const char says[] = "buffers is ";
    int there = access(p->out, F_OK);
    const char *at;
    tr_run *run;

    p->host_memory = budget;
    assert_int_equal(tr_train_open(&run, p), -ENOMEM);
    assert_int_equal(access(p->out, F_OK), there);
    at = strstr(tr_message(), says);
    return at ? strtoull(at + strlen(says), NULL, 10) : 0;
}

uint64_t smallest_host_budget(struct tr_train_params p)
{
    uint64_t budget, least = 0;

    for (budget = 1 << 20; !least; budget += 256 << 10) { /* at most what goes beside the data */
        least = host_least(&p, budget);
        if (budget > 1 << 30)
            fail_msg("no smallest host budget in: %s", tr_message());
    }
    assert_int_equal(host_least(&p, least - 4096), least);
    return least;
}

uint64_t file_hash(const char *path)
{
    size_t bytes;
    uint64_t h;
    char *data;

    if (tr_file_read(path, 1u << 30, &data, &bytes) < 0)
        fail_msg("%s", tr_message());
    h = XXH3_64bits(data, bytes);
    tr_free(TR_MEM_TEXT, data);
    return h;
}

float *read_tensor(const char *dir, const char *name, size_t *n)
{
    const struct tr_st_tensor *t;
    struct tr_safetensors *s;
    float *x;
    char *raw;

    if (tr_safetensors_open_folder(&s, dir) < 0)
        fail_msg("%s", tr_message());
    t = tr_safetensors_find(s, name);
    if (!t)
        fail_msg("%s: no tensor %s", dir, name);
    *n = t->bytes / tr_dtype_size((enum tr_dtype)t->dtype);
    raw = malloc(t->bytes);
    x = malloc(*n * sizeof(float));
    assert_int_equal(tr_safetensors_read(s, t, 0, raw, t->bytes), 0);
    for (size_t i = 0; i < *n; i++)
        x[i] = tr_load_f32(raw, (enum tr_dtype)t->dtype, i);
    free(raw);
    tr_safetensors_close(s);
    return x;
}

char notices[4096];

void take_notice(void *arg, const char *line)
{
    size_t n = strlen(notices);

    (void)arg;
    snprintf(notices + n, sizeof(notices) - n, "%s\n", line);
}
