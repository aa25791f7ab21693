/* SPDX-License-Identifier: Apache-2.0
 *
 * Tasks: the texts that each is asked with, letter by letter; metrics by examples small enough to
 * be counted by hand; scores that do not depend on how requests are grouped and are those of the
 * logits; and training on a task, whose held-out accuracy is that of `eval`.
 */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "src/base/file.h"
#include "src/base/json.h"
#include "src/infer/infer.h"
#include "src/infer/task_set.h"
#include "tests/device/budget.h"
#include "tests/train/common.h"

static int add_item(void *arg, const struct tr_task_item *item)
{
    char *text = arg;

    sprintf(text + strlen(text), "[%s]", item->context);
    for (int i = 0; i < item->n; i++)
        sprintf(text + strlen(text), "%s<%s%s>", i == item->gold ? "*" : "", item->delimiter,
                item->choices[i]);
    sprintf(text + strlen(text), "%d;", (int)item->group);
    return 0;
}

static int read_record(const char *task, const char *line, char *text)
{
    json_t *o;
    int r = tr_json_parse_nul(line, strlen(line), "file:7", &o);

    assert_int_equal(r, 0);
    *text = 0;
    r = tr_task_read((enum tr_task)tr_task_find(task), o, "file:7", add_item, text);
    json_decref(o);
    return r;
}

static void expect_text(const char *task, const char *line, const char *want)
{
    char text[4096];

    if (read_record(task, line, text) < 0)
        fail_msg("%s", tr_message());
    assert_string_equal(text, want);
}

static void test_texts(void **state)
{
    (void)state;
    expect_text("rte", "{\"premise\": \"A.\", \"hypothesis\": \"B.\", \"label\": \"entailment\"}",
                "[A.\nDoes this mean that \"B.\" is true? Yes or No?\n]*<Yes><No>0;");
    expect_text("rte", "{\"premise\": \"\", \"hypothesis\": \"\", \"label\": \"not_entailment\"}",
                "[\nDoes this mean that \"\" is true? Yes or No?\n]<Yes>*<No>0;");
    expect_text("cb", "{\"premise\": \"A.\", \"hypothesis\": \"B\", \"label\": \"neutral\"}",
                "[Suppose A. Can we infer that \"B\"? Yes, No, or Maybe?\n]<Yes><No>*<Maybe>0;");
    expect_text("boolq", "{\"passage\": \"P.\", \"question\": \"is it so\", \"label\": false}",
                "[P. Is it so?\n]<Yes>*<No>0;");
    expect_text("copa",
                "{\"premise\": \"It rained.\", \"choice1\": \"The man left.\", \"choice2\": \"I "
                "stayed.\", \"question\": \"effect\", \"label\": 1}",
                "[It rained so]< the man left.>*< I stayed.>0;");
    expect_text("copa",
                "{\"premise\": \"It rained.\", \"choice1\": \"It was so.\", \"choice2\": \"B\", "
                "\"question\": \"cause\", \"label\": 0}",
                "[It rained because]*< it was so.>< b>0;");
    expect_text("wic",
                "{\"word\": \"bank\", \"sentence1\": \"A.\", \"sentence2\": \"B.\", \"label\": "
                "true}",
                "[Does the word \"bank\" have the same meaning in these two sentences? Yes, "
                "No?\nA.\nB.\n]*<Yes><No>0;");
    expect_text("wsc",
                "{\"text\": \"Bob met Al; he slept.\", \"target\": {\"span1_text\": \"Al\", "
                "\"span2_text\": \"he\"}, \"label\": true}",
                "[Bob met Al; he slept.\nIn the previous sentence, does the pronoun \"he\" refer "
                "to Al? Yes or No?\n]*<Yes><No>0;");
    expect_text("multirc",
                "{\"passage\": {\"text\": \"P.\", \"questions\": [{\"question\": \"Q?\", "
                "\"answers\": [{\"text\": \"a\", \"label\": 1}]}, {\"question\": \"R?\", "
                "\"answers\": [{\"text\": \"b\", \"label\": 0}]}]}}",
                "[P.\nQuestion: Q?\nI found this answer \"a\". Is that correct? Yes or "
                "No?\n]*<Yes><No>0;[P.\nQuestion: R?\nI found this answer \"b\". Is that correct? "
                "Yes or No?\n]<Yes>*<No>1;");
    expect_text("choice", "{\"context\": \"C\", \"choices\": [\"a\", \"b\", \"c\"], \"answer\": 2}",
                "[C]< a>< b>*< c>0;");
}

/* As the hub's data sets number them. */
static void test_numbered_labels(void **state)
{
    (void)state;
    expect_text("rte", "{\"premise\": \"A\", \"hypothesis\": \"B\", \"label\": 1}",
                "[A\nDoes this mean that \"B\" is true? Yes or No?\n]<Yes>*<No>0;");
    expect_text("cb", "{\"premise\": \"A\", \"hypothesis\": \"B\", \"label\": 2}",
                "[Suppose A Can we infer that \"B\"? Yes, No, or Maybe?\n]<Yes><No>*<Maybe>0;");
    expect_text("boolq", "{\"passage\": \"P\", \"question\": \"q\", \"label\": 1}",
                "[P Q?\n]*<Yes><No>0;");
    expect_text("boolq", "{\"passage\": \"P\", \"question\": \"q\", \"label\": 0}",
                "[P Q?\n]<Yes>*<No>0;");
}

static void test_bad_records(void **state)
{
    static const struct {
        const char *task, *line, *words;
    } bad[] = {
        {"rte", "{\"premise\": \"A\", \"label\": \"entailment\"}", "\"hypothesis\""},
        {"rte", "{\"premise\": \"A\", \"hypothesis\": \"B\", \"label\": \"neutral\"}", "\"label\""},
        {"rte", "{\"premise\": \"A\", \"hypothesis\": \"B\"}", "\"label\" is not there"},
        {"rte", "{\"premise\": \"A\", \"hypothesis\": \"B\\u0000\", \"label\": 1}",
         "a NUL character"},
        {"cb", "[]", "\"premise\""},
        {"boolq", "{\"passage\": \"A\", \"question\": \"B\", \"label\": 2}",
         "\"label\" is 2; this task's are true, false"},
        {"boolq", "{\"passage\": \"A\", \"question\": \"B\", \"label\": -1}", "\"label\" is -1"},
        {"rte", "{\"premise\": \"A\", \"hypothesis\": \"B\", \"label\": 2}",
         "entailment, not_entailment"},
        {"wic", "{\"word\": \"A\", \"sentence1\": \"B\", \"sentence2\": \"C\", \"label\": null}",
         "\"label\" is null"},
        {"cb", "{\"premise\": \"A\", \"hypothesis\": \"B\", \"label\": [1]}", "\"label\" is [1]"},
        {"multirc", "{\"paragraph\": \"A\", \"question\": \"B\"}", "\"passage\""},
        {"copa",
         "{\"premise\": \"A\", \"choice1\": \"\", \"choice2\": \"\", \"question\": \"why\", "
         "\"label\": 0}",
         "\"question\""},
        {"copa",
         "{\"premise\": \"A\", \"choice1\": \"\", \"choice2\": \"\", \"question\": \"cause\", "
         "\"label\": 2}",
         "\"label\""},
        {"wsc", "{\"text\": \"A\", \"target\": 3, \"label\": true}", "\"span1_text\""},
        {"multirc", "{\"passage\": {\"text\": \"A\", \"questions\": []}}", "\"questions\""},
        {"multirc", "{\"passage\": {\"text\": \"A\", \"questions\": [{\"question\": \"B\"}]}}",
         "\"answers\""},
        {"choice", "{\"context\": \"C\", \"choices\": [\"a\"], \"answer\": 0}", "\"choices\""},
        {"choice", "{\"context\": \"C\", \"choices\": [\"a\", 3], \"answer\": 0}", "\"choices\""},
        {"choice", "{\"context\": \"C\", \"choices\": [\"a\", \"b\"], \"answer\": 2}",
         "\"answer\""},
    };
    char text[4096];

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(read_record(bad[i].task, bad[i].line, text), -EINVAL);
        if (!strstr(tr_message(), bad[i].words) || !strstr(tr_message(), "file:7"))
            fail_msg("%s", tr_message());
    }
    assert_int_equal(tr_task_find("none"), -1);
    assert_int_equal(tr_task_find("squad"), -1);
}

static struct task_metrics metrics_of(enum tr_task task, const int gold[], const int answer[],
                                      const int group[], int n)
{
    struct task_question q[16] = {0};
    struct task_set s = {.task = task, .question = q, .n_questions = n};
    struct task_metrics m;

    for (int i = 0; i < n; i++) {
        q[i] = (struct task_question){.group = group ? group[i] : i << 16, .n = 3, .gold = gold[i]};
        q[i].answer[0] = q[i].answer[1] = answer[i];
        q[i].answer[2] = gold[i];
    }
    task_set_metrics(&s, &m);
    return m;
}

static void equal(double got, double want)
{
    if (!(fabs(got - want) < 1e-12))
        fail_msg("%.15g, not %.15g", got, want);
}

/* Each end is a true share of which the one measured is 1.96 of its own deviations away. */
static void is_interval(const struct task_metrics *m, double n)
{
    assert_true(m->interval[0] < m->accuracy[0] && m->accuracy[0] < m->interval[1]);
    for (int i = 0; i < 2; i++)
        equal(fabs(m->interval[i] - m->accuracy[0]),
              1.96 * sqrt(m->interval[i] * (1 - m->interval[i]) / n));
}

static void test_metrics(void **state)
{
    struct task_metrics m;

    (void)state;
    m = metrics_of(TR_TASK_RTE, (int[]){0, 0, 0, 1}, (int[]){0, 1, 0, 1}, NULL, 4);
    equal(m.accuracy[0], 0.75);
    equal(m.accuracy[1], 0.75);
    equal(m.accuracy[2], 1);
    equal(m.majority, 0.75);
    is_interval(&m, 4);
    assert_true(isnan(m.f1) && isnan(m.exact));
    /* Class 0: 2 right of 3 said, 2 there; class 1: 1 of 1, 2; class 2: never right. */
    m = metrics_of(TR_TASK_CB, (int[]){0, 0, 1, 1, 2}, (int[]){0, 0, 1, 0, 1}, NULL, 5);
    equal(m.accuracy[0], 0.6);
    is_interval(&m, 5);
    equal(m.f1, (4 / 5.0 + 2 / 4.0 + 0) / 3);
    assert_true(isnan(m.exact));
    /* All right is no certainty. */
    m = metrics_of(TR_TASK_RTE, (int[]){1, 0, 1, 1}, (int[]){1, 0, 1, 1}, NULL, 4);
    equal(m.interval[1], 1);
    equal(m.interval[0], 4 / (4 + 1.96 * 1.96));
    /* Yes: 2 right of 3 said, 3 there. Of three questions the second alone is all right. */
    m = metrics_of(TR_TASK_MULTIRC, (int[]){0, 1, 0, 1, 0, 1}, (int[]){0, 0, 0, 1, 1, 1},
                   (int[]){4 << 16, 4 << 16, 5 << 16, 5 << 16, 9 << 16, 9 << 16}, 6);
    equal(m.f1, 4 / 6.0);
    equal(m.exact, 1 / 3.0);
    equal(m.accuracy[0], 4 / 6.0);
    equal(m.majority, 0.5);
    is_interval(&m, 3); /* as many as there are questions, although their variance is below that */
}

/* Exact match is of whole questions: with some of their answers left out there is none. */
static void test_drawn(void **state)
{
    struct task_question q[4] = {{.group = 1 << 16}, {.group = 1 << 16}, {.group = 2 << 16}};
    struct task_set s = {.task = TR_TASK_MULTIRC, .question = q, .n_questions = 3};
    struct task_metrics m;

    (void)state;
    task_set_metrics(&s, &m);
    equal(m.exact, 1);
    s.drawn = 1;
    task_set_metrics(&s, &m);
    assert_true(isnan(m.exact));
    equal(m.f1, 1);
}

/* Four paragraphs of two questions: where a paragraph is right or wrong as a whole, its questions
 * say little more than one. */
static void test_paragraphs(void **state)
{
    static const int gold[8] = {0}, half[] = {0, 0, 1, 1, 0, 0, 1, 1},
                     mixed[] = {0, 1, 0, 1, 0, 1, 0, 1};
    int apart[8], group[8];
    struct task_metrics m;

    (void)state;
    for (int i = 0; i < 8; i++) {
        group[i] = i / 2 << 16 | i % 2;
        apart[i] = i << 16;
    }
    m = metrics_of(TR_TASK_MULTIRC, gold, half, group, 8);
    equal(m.accuracy[0], 0.5);
    is_interval(&m, 3); /* 1/4 over the variance: 4 x 1^2 x 4/3 over 8^2 */
    m = metrics_of(TR_TASK_MULTIRC, gold, mixed, group, 8);
    is_interval(&m, 4); /* no variance at all */
    m = metrics_of(TR_TASK_RTE, gold, half, apart, 8);
    is_interval(&m, 8);
    m = metrics_of(TR_TASK_MULTIRC, gold, gold, group, 8);
    equal(m.interval[1], 1);
    equal(m.interval[0], 4 / (4 + 1.96 * 1.96));
    m = metrics_of(TR_TASK_MULTIRC, gold, half, group,
                   2); /* one paragraph: as good as one answer */
    equal(m.interval[0], 1 / (1 + 1.96 * 1.96));
}

static char model[4352], choices[4352];
static struct tiny shape = {"llama", 32, 48, 2, 4, 2, 8, 290, 64, ""};

static void make_questions(const char *path, int n)
{
    static const char *const words[] = {"the cat", "a dog", "that mat", "the others sat", "it"};
    FILE *f = fopen(path, "w");

    for (int i = 0; i < n; i++)
        fprintf(f,
                "{\"context\": \"%s on %s%s\", \"choices\": [\"%s\", \"%s %d\", \"%s\"], "
                "\"answer\": %d}\n",
                words[i % 5], words[i / 5 % 5], i % 3 ? "" : "  ", words[(i + 1) % 5],
                words[(i + 2) % 5], i, words[(i + 3) % 5], i % 3);
    fclose(f);
}

static int open_texts(void **state)
{
    const char *text = scratch_path("text.txt");
    char tokenizer[4352];
    FILE *f = fopen(text, "w");

    (void)state;
    fputs("the cat sat on the mat, and then the others sat on that cat; the mat and the hat", f);
    fclose(f);
    snprintf(tokenizer, sizeof(tokenizer), "%s", scratch_path("tokenizer"));
    snprintf(model, sizeof(model), "%s", scratch_path("model"));
    snprintf(choices, sizeof(choices), "%s", scratch_path("choices.jsonl"));
    make_questions(choices, 30);
    if (tr_learn_tokenizer(
            &(struct tr_learn_params){.data = text, .out = tokenizer, .vocab = 290}) < 0)
        fail_msg("%s", tr_message());
    tiny_model(model, &shape, TR_TYPE_F32, 3);
    return tr_keep_copy_tokenizer(tokenizer, model);
}

static struct infer *open_model(int64_t batch_tokens)
{
    struct infer *f;

    if (infer_open(&f, &(struct infer_params){.model = model,
                                              .shape.batch_tokens = batch_tokens,
                                              .shape.positions = 64,
                                              .shape.logit_rows = 64,
                                              .threads = 2,
                                              .device_memory = test_budget(NULL, 64 << 20)}) < 0)
        fail_msg("%s", tr_message());
    return f;
}

static struct task_set *open_set(const struct infer *f, int64_t samples, uint64_t seed)
{
    struct task_set *s;

    if (task_set_open(&s, &(struct task_set_params){.task = TR_TASK_CHOICE,
                                                    .path = choices,
                                                    .tokenizer = f->run.tokenizer,
                                                    .vocab = 290,
                                                    .samples = samples,
                                                    .seed = seed}) < 0)
        fail_msg("%s", tr_message());
    return s;
}

/* White space at a context's end is part of what follows; the ids together are those of the whole
 * text. */
static void test_encode(void **state)
{
    struct infer *f = open_model(64);
    const struct tr_tokenizer *t = f->run.tokenizer;
    struct tr_ids whole = {0}, pair = {0}, spaced = {0}, bare = {0};
    size_t first, spaced_first, bare_first;

    (void)state;
    assert_int_equal(tr_ids_push(&whole, tr_tokenizer_bos(t)), 0);
    assert_int_equal(tr_tokenizer_encode(t, "the cat sat", 11, &whole), 0);
    assert_int_equal(tr_task_encode(t, "the cat", " sat", &pair, &first), 0);
    assert_int_equal(tr_task_encode(t, "the cat ", "sat", &spaced, &spaced_first), 0);
    assert_true(pair.n == whole.n && spaced.n == whole.n);
    assert_memory_equal(pair.v, whole.v, whole.n * sizeof(int32_t));
    assert_memory_equal(spaced.v, whole.v, whole.n * sizeof(int32_t));
    assert_true(first == spaced_first && first < whole.n);
    assert_int_equal(tr_task_encode(t, "", "sat", &bare, &bare_first), 0);
    assert_int_equal(bare_first, 1);
    assert_int_equal(bare.v[0], tr_tokenizer_bos(t));
    tr_ids_free(&whole);
    tr_ids_free(&pair);
    tr_ids_free(&spaced);
    tr_ids_free(&bare);
    infer_close(f);
}

/* The log-likelihood of a request from logits; a request that is too long has lost its start. */
static double from_logits(struct infer *f, const struct score_request *q, int32_t most)
{
    int32_t n = q->n - 1 < most ? q->n - 1 : most, at = q->n - 1 - n;
    int32_t position[64], rows[64], none[64], start[2] = {0, n};
    float *logits = calloc((size_t)n * 290, sizeof(*logits)), weight[64] = {0};
    double sum = 0;

    for (int32_t i = 0; i < n; i++) {
        position[i] = rows[i] = i;
        none[i] = -1;
    }
    assert_int_equal(infer_logits(&f->run,
                                  &(struct tr_batch){.n_tokens = n,
                                                     .n_rows = 1,
                                                     .n_docs = 1,
                                                     .n_grains = 1,
                                                     .ids = q->ids + at,
                                                     .targets = none,
                                                     .weight = weight,
                                                     .position = position,
                                                     .row_start = start,
                                                     .doc_start = start,
                                                     .grain_start = start},
                                  rows, n, logits),
                     0);
    for (int32_t i = 0; i < n; i++) {
        const float *x = logits + (int64_t)i * 290;
        double total = 0;

        for (int32_t v = 0; v < 290; v++)
            total += exp((double)x[v] - x[q->ids[at + i + 1]]);
        sum -= at + i + 1 >= q->first ? log(total) : 0;
    }
    free(logits);
    return sum;
}

static void test_scores(void **state)
{
    static const int32_t most[] = {64, 9};
    struct infer *large = open_model(1024), *small = open_model(40);
    struct task_set *a = open_set(large, 0, 0), *b = open_set(small, 0, 0);

    (void)state;
    assert_int_equal(a->n_questions, 30);
    assert_false(a->drawn);
    assert_true(a->longest > 9); /* so that something is cut */
    for (int k = 0; k < 2; k++) {
        if (task_set_answer(&large->run, a, most[k]) < 0 ||
            task_set_answer(&small->run, b, most[k]) < 0)
            fail_msg("%s", tr_message());
        for (int64_t i = 0; i < a->n_requests; i++) {
            double want = from_logits(small, &b->request[i], most[k]);

            assert_true(fabs(a->request[i].sum - b->request[i].sum) < 1e-5);
            if (!(fabs(a->request[i].sum - want) < 1e-4))
                fail_msg("request %d: %.7f, from logits %.7f", (int)i, a->request[i].sum, want);
        }
    }
    task_set_close(a);
    task_set_close(b);
    infer_close(large);
    infer_close(small);
}

/* As many as asked for, the same for the same seed, in the order of the file. */
static void test_samples(void **state)
{
    struct infer *f = open_model(64);
    struct task_set *a = open_set(f, 12, 5), *b = open_set(f, 12, 5), *c = open_set(f, 12, 6);
    int differ = 0;

    (void)state;
    assert_true(a->n_questions == 12 && b->n_questions == 12 && c->n_questions == 12);
    assert_int_equal(a->n_requests, 36);
    assert_true(a->drawn);
    for (int i = 0; i < 12; i++) {
        assert_int_equal(a->question[i].group, b->question[i].group);
        assert_int_equal(a->question[i].first, 3 * i);
        assert_true(i == 0 || a->question[i].group > a->question[i - 1].group);
        differ |= a->question[i].group != c->question[i].group;
    }
    assert_true(differ);
    task_set_close(a);
    task_set_close(b);
    task_set_close(c);
    infer_close(f);
}

static struct tr_train_params job(const char *out)
{
    return (struct tr_train_params){.model = model,
                                    .data = choices,
                                    .valid = choices,
                                    .task = TR_TASK_CHOICE,
                                    .out = out,
                                    .epochs = 30,
                                    .batch_size = 8,
                                    .seq_len = 48,
                                    .lr = 0.01,
                                    .optimizer = TR_OPT_ADAMW,
                                    .threads = 2,
                                    .device_memory = test_budget(NULL, 64 << 20)};
}

/* What is learnt by heart is answered; eval of the run says the same as the run did. */
static void test_training(void **state)
{
    char run[4352];
    struct tr_train_params p = job(run);
    struct tr_eval_params e = {.model = run,
                               .data = choices,
                               .task = TR_TASK_CHOICE,
                               .seq_len = 48,
                               .threads = 2,
                               .device_memory = test_budget(NULL, 64 << 20)};
    struct tr_eval_report before, after;
    struct tr_step_report last;

    (void)state;
    snprintf(run, sizeof(run), "%s", scratch_path("run"));
    e.model = model;
    if (tr_eval_data(&e, &before) < 0 || train(&p, &last) < 0)
        fail_msg("%s", tr_message());
    e.model = run;
    if (tr_eval_data(&e, &after) < 0)
        fail_msg("%s", tr_message());
    assert_int_equal(after.samples, 30);
    equal(after.accuracy[0], last.eval_accuracy);
    printf("accuracy %.2f before, %.2f after\n", before.accuracy[0], after.accuracy[0]);
    assert_true(after.accuracy[0] > before.accuracy[0] && after.accuracy[0] > 0.9);
}

static int third_time(void *arg)
{
    return ++*(int *)arg == 3;
}

/* Who wants the run to stop need not wait for all questions to be read; nothing is made. */
static void test_stopped_questions(void **state)
{
    struct tr_train_params p = job(scratch_path("stopped"));
    int asked = 0;
    tr_run *run;

    (void)state;
    p.stop = third_time;
    p.stop_arg = &asked;
    assert_int_equal(tr_train_open(&run, &p), -EINTR);
    assert_int_equal(asked, 3);
    assert_non_null(strstr(tr_message(), "choices.jsonl: reading it was interrupted"));
    assert_int_equal(tr_folder_is_empty(p.out), -ENOENT);
}

/* --samples leaves so many in an epoch: steps, tokens and targets are theirs. */
static void test_training_samples(void **state)
{
    struct tr_train_params p = job(scratch_path("few"));
    struct tr_step_report last;

    (void)state;
    p.valid = NULL;
    p.packing = TR_NO;
    p.samples = 9;
    p.epochs = 2;
    if (train(&p, &last) < 0)
        fail_msg("%s", tr_message());
    assert_int_equal(last.steps, 4);
    assert_true(isnan(last.eval_accuracy));
    p.out = scratch_path("none");
    p.task = TR_TASK_NONE;
    assert_int_equal(train(&p, &last), -EINVAL); /* no record of the usual kinds */
    p.task = TR_TASK_CHOICE;
    p.chat_template = "chatml";
    assert_int_equal(train(&p, &last), -EINVAL);
    assert_non_null(strstr(tr_message(), "--task and --template exclude each other"));
}

/* By the message that every count has; a text that came instead is freed. */
static int refuses_count(int r, char **text)
{
    if (r >= 0 && text)
        tr_free_text(*text);
    return r == -EINVAL && strstr(tr_message(), "-3 is less than 1");
}

/* What a caller of the library may pass and the command line cannot. */
static void test_bad_numbers(void **state)
{
    struct tr_preview_data_params p = {.data = choices, .model = model};
    struct tr_eval_params e = {.model = model, .data = choices};
    struct tr_generate_params g = {.model = model, .prompt = "a"};
    struct tr_eval_report report;
    int64_t *const counts[] = {&p.samples, &p.seq_len,    &e.batch_size, &e.seq_len, &e.samples,
                               &e.threads, &e.max_tokens, &g.max_tokens, &g.threads};
    static const int tasks[] = {99, TR_TASKS, -1};
    char *text;

    (void)state;
    for (size_t i = 0; i < sizeof(tasks) / sizeof(*tasks); i++) {
        p.task = e.task = (enum tr_task)tasks[i];
        assert_int_equal(tr_preview_data(&p, &text), -EINVAL);
        assert_non_null(strstr(tr_message(), "--task"));
        assert_int_equal(tr_eval_data(&e, &report), -EINVAL);
        assert_non_null(strstr(tr_message(), "--task"));
    }
    e.device_memory = g.device_memory = TR_SHARE(101);
    p.task = e.task = TR_TASK_CHOICE;
    assert_int_equal(tr_eval_data(&e, &report), -EINVAL);
    assert_non_null(strstr(tr_message(), "--device-memory: a share of"));
    assert_int_equal(tr_generate_text(&g, &text), -EINVAL);
    assert_non_null(strstr(tr_message(), "--device-memory: a share of"));
    e.device_memory = g.device_memory = 0;
    for (size_t i = 0; i < sizeof(counts) / sizeof(*counts); i++) {
        int r = 0;

        *counts[i] = -3;
        r += refuses_count(tr_preview_data(&p, &text), &text);
        r += refuses_count(tr_eval_data(&e, &report), NULL);
        r += refuses_count(tr_generate_text(&g, &text), &text);
        *counts[i] = 1; /* less text than a question takes, perhaps, but no such message */
        if (r != 1)
            fail_msg("count %zu: %d refusals, %s", i, r, tr_message());
    }
}

/* Questions whose contexts have lost their beginning are counted: their answers may mean nothing.
 */
static void test_cut(void **state)
{
    struct infer *f = open_model(1024);
    struct task_set *s = open_set(f, 0, 0);
    struct tr_eval_params e = {.model = model,
                               .data = choices,
                               .task = TR_TASK_CHOICE,
                               .threads = 2,
                               .device_memory = test_budget(NULL, 64 << 20)};
    struct tr_eval_report report;

    (void)state;
    for (e.seq_len = 1; e.seq_len <= s->longest; e.seq_len++) {
        int64_t cut = 0;

        for (int64_t i = 0; i < 30; i++) {
            int32_t n[3];

            for (int k = 0; k < 3; k++)
                n[k] = s->request[3 * i + k].n - 1;
            cut += n[0] > e.seq_len || n[1] > e.seq_len || n[2] > e.seq_len;
        }
        if (tr_eval_data(&e, &report) < 0)
            fail_msg("%s", tr_message());
        assert_int_equal(report.truncated, cut);
    }
    assert_int_equal(report.truncated, 0);
    task_set_close(s);
    infer_close(f);
}

/* What a batch can be trained in its loss can be measured in: the head's scratch is a grain's. */
static void test_memory(void **state)
{
    static const struct tiny wide = {"llama", 32, 48, 2, 4, 2, 8, 4096, 64, ""};
    const char *folder = scratch_path("wide");
    struct tr_train_params p = {.model = folder,
                                .data = scratch_path("wide.jsonl"),
                                .out = scratch_path("wide-run"),
                                .steps = 1,
                                .batch_size = 96,
                                .seq_len = 48,
                                .threads = 2,
                                .device = "cpu"};
    struct tr_eval_report report;

    (void)state;
    tiny_model(folder, &wide, TR_TYPE_F32, 3);
    token_data(p.data, 96, 48, 48, 4096);
    if (tr_eval_data(&(struct tr_eval_params){.model = folder,
                                              .data = p.data,
                                              .batch_size = p.batch_size,
                                              .seq_len = p.seq_len,
                                              .threads = p.threads,
                                              .device = p.device,
                                              .device_memory = smallest_budget(p)},
                     &report) < 0)
        fail_msg("%s", tr_message());
    assert_int_equal(report.targets, 96 * 47);
}

/* A model of no numbers has no answers: it is not right where the first choice is. */
static void test_no_numbers(void **state)
{
    struct tr_eval_params e = {.model = scratch_path("broken"),
                               .tokenizer = model,
                               .data = choices,
                               .task = TR_TASK_CHOICE,
                               .seq_len = 48,
                               .threads = 2,
                               .device_memory = test_budget(NULL, 64 << 20)};
    struct tr_eval_report report;

    (void)state;
    tiny_model(e.model, &shape, TR_TYPE_F32, 3);
    break_model(e.model);
    if (tr_eval_data(&e, &report) < 0)
        fail_msg("%s", tr_message());
    for (int way = 0; way < 3; way++)
        equal(report.accuracy[way], 0);
}

/* What is only beside a model says so. */
static void test_adapters_alone(void **state)
{
    char folder[4352];
    struct tr_eval_params e = {.model = folder, .data = choices};
    struct tr_generate_params g = {.model = folder, .prompt = "a"};
    struct tr_eval_report report;
    char *text;

    (void)state;
    snprintf(folder, sizeof(folder), "%s", scratch_path("adapters"));
    assert_int_equal(tr_make_folder(folder), 0);
    assert_int_equal(tr_file_write(scratch_path("adapters/adapter_config.json"), "{}", 2), 0);
    assert_int_equal(tr_eval_data(&e, &report), -EINVAL);
    assert_non_null(strstr(tr_message(), "adapters: is a folder of adapters"));
    assert_int_equal(tr_generate_text(&g, &text), -EINVAL);
    assert_non_null(strstr(tr_message(), "adapters: is a folder of adapters"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_texts),
        cmocka_unit_test(test_numbered_labels),
        cmocka_unit_test(test_bad_records),
        cmocka_unit_test(test_metrics),
        cmocka_unit_test(test_paragraphs),
        cmocka_unit_test(test_encode),
        cmocka_unit_test(test_scores),
        cmocka_unit_test(test_samples),
        cmocka_unit_test(test_bad_numbers),
        cmocka_unit_test(test_adapters_alone),
        cmocka_unit_test(test_training),
        cmocka_unit_test(test_stopped_questions),
        cmocka_unit_test(test_training_samples),
        cmocka_unit_test(test_no_numbers),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_cut),
        cmocka_unit_test(test_drawn),
    };

    scratch();
    return cmocka_run_group_tests_name("task", tests, open_texts, NULL);
}
