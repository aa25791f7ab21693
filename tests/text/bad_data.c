/* SPDX-License-Identifier: Apache-2.0
 *
 * Data files that cannot be used: each gives one line that names the file, the line and what is
 * wrong (invariant 9), and leaves no memory behind.
 */
#include "tests/text/text_test.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/mem.h"
#include "src/text/data.h"
#include "src/text/data_file.h"

struct bad {
    const char *name, *content, *say;
};

#define TURN(role) "{\"messages\":[{\"content\":\"a\",\"role\":" role "}]}"

static const struct bad cases[] = {
    {"e.txt", "", "e.txt: is empty"},
    {"qa.jsonl.gz", "\x1F\x8B\x08\x08xyz", "qa.jsonl.gz: is not text but packed with gzip"},
    {"table.csv", "question,answer\nq,a\n", "table.csv: tables are not read: make JSON records"},
    {"qa", "\x28\xB5\x2F\xFDxyz", "qa: is not text but packed with zstd"},
    {"qa", "{\"text\":\"a\"}\nb\n", "qa:2: line 1, column"},
    {"qa", "[{\"a\":1}]", "qa:1: no known record: it has \"a\""},
    {"e.jsonl", "", "e.jsonl: holds no record"},
    {"e.jsonl", "\n \n\t\r\n", "e.jsonl: holds no record"},
    {"j.jsonl", "{\"text\":\"a\"}\n\n{\"text\":", "j.jsonl:3: line 1, column"},
    {"j.jsonl", "{\"text\":\"a\"} {\"text\":\"b\"}\n", "j.jsonl:1: "},
    {"j.jsonl", "{\"text\":\"\xFF\"}", "j.jsonl:1: "},
    {"j.jsonl", "[1,2]", "j.jsonl:1: line 1, column"},
    {"j.json", "[\n {\"text\":\"a\"},\n\n {\"text\":\n7}\n]\n", "j.json:4: \"text\" must be"},
    {"j.json", "[\n {\"text\":\"a\"},\n {\"text\":\"b\"", "j.json:3: the list does not end"},
    {"j.json", "[]", "j.json: holds no record"},
    {"j.json", "[\n {\"text\":\"a\"}\n]\n[\n {\"text\":\"b\"}\n]\n",
     "j.json:4: text behind the end of the list"},
    {"qa", "[{\"text\":\"a\"}]]", "qa:1: text behind the end of the list"},
    {"j.jsonl", "3", "j.jsonl:1: "},
    {"j.jsonl", "{\"a\":[]}", "j.jsonl:1: no known record: it has \"a\", and needs \"messages\""},
    {"j.jsonl", "{\"messages\":[]}", "j.jsonl:1: \"messages\" must be a list"},
    {"j.jsonl", TURN("\"user\"") "\n{\"text\":\"a\"}", "j.jsonl:2: \"messages\" must be a list"},
    {"j.jsonl", TURN("7"), "j.jsonl:1: message 0 has no \"role\""},
    {"j.jsonl", "{\"messages\":[{\"role\":\"user\"}]}", "j.jsonl:1: message 0 has no \"content\""},
    {"j.jsonl", TURN("\"assistant\",\"weight\":-1"), "message 0: \"weight\" is no number"},
    {"j.jsonl", TURN("\"assistant\",\"train\":1"), "message 0: \"train\" is neither true nor"},
    {"j.jsonl", TURN("\"user\",\"train\":true"), "message 0: only the assistant's messages"},
    {"j.jsonl", TURN("\"user\",\"train_detail\":[]"),
     "message 0: \"train_detail\" is not supported"},
    {"j.jsonl", TURN("\"user\""), "j.jsonl: nothing to learn: none of 1 samples"},
    {"j.jsonl", "{\"conversations\":[{\"from\":\"x\",\"value\":\"a\"}]}",
     "j.jsonl:1: message 0: \"from\" is x; human, gpt"},
    {"j.jsonl", "{\"conversations\":[{\"from\":\"gpt\",\"value\":1}]}",
     "\"value\" must be a string"},
    {"j.jsonl", "{\"instruction\":\"a\",\"output\":7}",
     "j.jsonl:1: \"instruction\", \"output\" and"},
    {"j.jsonl", "{\"instruction\":\"a\",\"output\":\"b\",\"history\":[[1]]}",
     "j.jsonl:1: history[0] is no pair"},
    {"j.jsonl", "{\"messages\":[{\"role\":\"assistant\",\"content\":\"a\"}],\"tools\":7}",
     "j.jsonl:1: \"tools\" must be a list"},
    {"j.jsonl", "{\"prompt\":\"a\"}", "j.jsonl:1: no known record"},
    {"j.jsonl", "{\"prompt\":\"a\",\"completion\":null}", "j.jsonl:1: no known record"},
    {"j.jsonl", "{\"question\":\"a\"}", "j.jsonl:1: no known record: it has \"question\", and"},
    {"j.jsonl", "{\"question\":\"a\",\"answer\":7}",
     "j.jsonl:1: \"question\" and \"answer\" must be strings"},
    {"j.jsonl", "{\"question\":\"a\",\"answer\":\"b\"}\n{\"question\":null,\"answer\":\"b\"}",
     "j.jsonl:2: \"question\" and \"answer\" must be strings"},
    {"j.jsonl", "{\"question\":\"a\",\"answer\":\"b\"}\n{\"prompt\":\"a\",\"completion\":\"b\"}",
     "j.jsonl:2: \"question\" and \"answer\" must be strings"},
    {"j.jsonl", "{\"text\":\"a\"}\n{\"prompt\":\"a\",\"completion\":\"b\"}",
     "j.jsonl:2: \"text\" must be"},
    {"j.jsonl", "{\"text\":7}", "j.jsonl:1: \"text\" must be a string"},
    {"j.jsonl", "{\"prompt\":[],\"completion\":\"b\"}", "j.jsonl:1: \"prompt\" must be a list"},
    {"j.jsonl", "{\"text\":\"a\",\"text\":\"b\"}", "j.jsonl:1: line 1, column"},
    {"i.jsonl", "{\"input_ids\":7}", "i.jsonl:1: \"input_ids\" must be a list"},
    {"i.jsonl", "{\"input_ids\":[1,2]}\n{\"input_ids\":[1,50]}",
     "i.jsonl:2: input_ids[1] is 50, the model's"},
    {"i.jsonl", "{\"input_ids\":[-1,2]}", "i.jsonl:1: input_ids[0] is -1"},
    {"i.jsonl", "{\"input_ids\":[1,9223372036854775807]}",
     "i.jsonl:1: input_ids[1] is 9223372036854775807"},
    {"i.jsonl", "{\"input_ids\":[1,92233720368547758070]}",
     "i.jsonl:1: input_ids[1] is not a whole number"},
    {"i.jsonl", "{\"input_ids\":[1,-9223372036854775809]}",
     "i.jsonl:1: input_ids[1] is not a whole number"},
    {"j.jsonl", "{\"id\":18446744073709551615,\"text\":\"a\",\"text\":\"b\"}",
     "j.jsonl:1: line 1, column"},
    {"j.jsonl", "{\"id\":1e999,\"text\":\"a\"}", "j.jsonl:1: line 1, column"},
    {"i.jsonl", "{\"input_ids\":[1,2.0]}", "i.jsonl:1: input_ids[1] is not a whole number"},
    {"i.jsonl", "{\"input_ids\":[1,2],\"labels\":[1]}", "i.jsonl:1: 1 labels for 2 input_ids"},
    {"i.jsonl", "{\"input_ids\":[1,2],\"labels\":[1,3]}",
     "i.jsonl:1: labels[1] is 3, neither -100 nor"},
    {"i.jsonl", "{\"input_ids\":[1,2],\"labels\":[1,\"x\"]}",
     "i.jsonl:1: labels[1] is not a whole number"},
    {"i.jsonl", "{\"input_ids\":[1,2],\"attention_mask\":[1,0]}",
     "i.jsonl:1: attention_mask[1] is not 1"},
    {"i.jsonl", "{\"input_ids\":[1,2],\"attention_mask\":[1]}",
     "i.jsonl:1: attention_mask and input_ids"},
    {"i.jsonl", "{\"input_ids\":[1,2,3,4,5,6,7,8,9]}", "i.jsonl:1: 9 input_ids, but a row holds 8"},
    {"i.jsonl", "{\"input_ids\":[1,2],\"labels\":[1,-100]}",
     "i.jsonl: nothing to learn: none of 1 samples"},
    {"i.jsonl", "{\"input_ids\":[]}\n{\"input_ids\":[5]}",
     "i.jsonl: nothing to learn: none of 2 samples"},
};

static struct tr_data_params params(const char *path, const struct tr_tokenizer *t)
{
    return (struct tr_data_params){.path = path,
                                   .tokenizer = t,
                                   .vocab = 50,
                                   .seq_len = 8,
                                   .batch_size = 1,
                                   .grain_tokens = 1,
                                   .packing = 1};
}

static void expect(const struct tr_data_params *p, const char *say)
{
    struct tr_data *d = NULL;

    TEXT_ERROR(tr_data_open(&d, p), say);
    assert_null(d);
}

static void every_bad_file_is_named(void **state)
{
    struct tr_tokenizer *t = text_toy(NULL, NULL);

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct bad *c = &cases[i];
        struct tr_data_params p = params(text_file(c->name, c->content, strlen(c->content)), t);

        p.template_name = "chatml";
        p.vocab = strncmp(c->name, "i.", 2) ? tr_tokenizer_vocab(t) : 50;
        expect(&p, c->say);
    }
    tr_tokenizer_close(t);
}

static void an_id_past_the_vocabulary_has_a_line(void **state)
{
    struct tr_tokenizer *t = text_toy(NULL, NULL);
    static const char text[] = "\n\n\nx x\nabche\n",
                      record[] = "{\"text\":\"x\"}\n{\"text\":\"ab\"}\n";
    struct tr_data_params p = params(text_file("v.txt", text, strlen(text)), t);

    (void)state;
    p.vocab = 273; /* the letters and the bytes, but no merged piece */
    expect(&p, "v.txt:5: token 27");
    p.path = text_file("v.jsonl", record, strlen(record));
    expect(&p, "v.jsonl:2: token 27");
    tr_tokenizer_close(t);
}

static void a_text_needs_a_tokenizer(void **state)
{
    struct tr_data_params p = params(text_file("n.txt", "a", 1), NULL);

    (void)state;
    expect(&p, "n.txt: a plain text, but the model has no tokenizer.json; give --tok");
    p.path = text_file("n.jsonl", "{\"text\":\"a\"}", 12);
    expect(&p, "n.jsonl:1: a text record, but the model has no tokenizer.json");
    p.path = text_path("absent.jsonl");
    expect(&p, "absent.jsonl: cannot open the data");
    p.path = "/tmp";
    expect(&p, "/tmp: is a folder");
}

static void a_text_has_no_nul(void **state)
{
    struct tr_tokenizer *t = text_toy(NULL, NULL);
    struct tr_data_params p = params(text_file("weights.bin", "ab\0c", 4), t);

    (void)state;
    expect(&p, "weights.bin: is not text: byte 2 is NUL");
    tr_tokenizer_close(t);
}

static void a_line_has_a_longest_length(void **state)
{
    size_t n = DATA_LINE_MOST + (8 << 20);
    char *text = malloc(n);
    struct tr_data_params p = params(NULL, NULL);

    (void)state;
    memset(text, ' ', n);
    text[0] = '\n';
    p.path = text_file("line.jsonl", text, n);
    expect(&p, "line.jsonl:2: a line of more than 64 MiB");
    free(text);
}

/* What the file would take is known only as it is read: the bound holds on the way. */
static void a_file_may_be_larger_than_memory(void **state)
{
    struct tr_tokenizer *t = text_toy(NULL, NULL);
    size_t bytes = 1 << 20;
    char *text = malloc(bytes);
    struct tr_data *d = NULL;
    struct tr_data_params p;

    (void)state;
    for (size_t i = 0; i < bytes; i++)
        text[i] = "ab \n"[i * 7 % 11 % 4];
    p = params(text_file("large.txt", text, bytes), t);
    p.host_bytes = tr_mem_host_peak() + (16 << 20);
    p.vocab = tr_tokenizer_vocab(t);
    assert_int_equal(tr_data_open(&d, &p), 0);
    tr_data_close(d);
    p.host_bytes = tr_mem_host_peak() + 1000;
    expect(&p, "large.txt: takes more than the budget of");
    for (size_t i = 0; i + 18 <= bytes; i += 18)
        memcpy(text + i, "{\"input_ids\":[3]}\n", 18);
    p = params(text_file("large.jsonl", text, bytes / 18 * 18), t);
    p.host_bytes = tr_mem_host_peak() + 1000;
    expect(&p, "large.jsonl: takes more than the budget of");
    free(text);
    tr_tokenizer_close(t);
}

static void a_device_has_no_end(void **state)
{
    struct tr_tokenizer *t = text_toy(NULL, NULL);
    struct tr_data_params p = params("/dev/zero", t);

    (void)state;
    expect(&p, "/dev/zero: is a device, data is one text or JSONL file");
    p.path = "/tmp";
    expect(&p, "/tmp: is a folder without train.jsonl");
    tr_tokenizer_close(t);
}

static void there_is_no_step_past_the_end(void **state)
{
    static const char ids[] = "{\"input_ids\":[1,2]}\n";
    struct tr_data_params p = params(text_file("s.jsonl", ids, strlen(ids)), NULL);
    struct tr_data *d = NULL;
    struct tr_batch b;

    (void)state;
    assert_int_equal(tr_data_open(&d, &p), 0);
    assert_int_equal(tr_data_batch(d, 0, 0, &b), 0);
    TEXT_ERROR(tr_data_batch(d, 0, 1, &b), "there is no step 1 in epoch 0");
    TEXT_ERROR(tr_data_batch(d, 0, -1, &b), "there is no step -1");
    TEXT_ERROR(tr_data_batch(d, -1, 0, &b), "in epoch -1");
    tr_data_close(d);
    p.batch_size = 0;
    expect(&p, "batch size 0");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_bad_file_is_named),
        cmocka_unit_test(an_id_past_the_vocabulary_has_a_line),
        cmocka_unit_test(a_text_needs_a_tokenizer),
        cmocka_unit_test(a_text_has_no_nul),
        cmocka_unit_test(a_line_has_a_longest_length),
        cmocka_unit_test(a_file_may_be_larger_than_memory),
        cmocka_unit_test(a_device_has_no_end),
        cmocka_unit_test(there_is_no_step_past_the_end),
    };

    return cmocka_run_group_tests(tests, text_setup, text_teardown);
}
