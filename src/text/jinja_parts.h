/* SPDX-License-Identifier: Apache-2.0
 *
 * Shared by jinja*.c: tokens, the node tree, values. Tokens and nodes live in one arena that ends
 * with the template; values made while rendering are kept in a pool that ends with the rendering.
 *
 * Values are jansson's, plus what JSON does not have: undefined, namespaces, macros, the loop
 * variable, functions. Those cannot be put into a list or mapping. Every call of the evaluator
 * returns a value; the first error is kept in eval.r, and from then on nothing more is done.
 */
#ifndef TR_SRC_TEXT_JINJA_PARTS_H
#define TR_SRC_TEXT_JINJA_PARTS_H

#include <stdint.h>

#include "src/text/bpe_map.h"
#include "src/text/jinja.h"

enum jinja_token_kind {
    TOKEN_END, /* of the template */
    TOKEN_DATA,
    TOKEN_PRINT_OPEN,
    TOKEN_PRINT_CLOSE,
    TOKEN_BLOCK_OPEN,
    TOKEN_BLOCK_CLOSE,
    TOKEN_NAME,
    TOKEN_STRING,
    TOKEN_INT,
    TOKEN_FLOAT,
    TOKEN_OP,
};

struct jinja_token {
    enum jinja_token_kind kind;
    int line;
    const char *text; /* data, name, operator, number as written; a string with escapes undone */
    size_t bytes;
};

enum jinja_kind {
    NODE_DATA,
    NODE_PRINT,      /* a */
    NODE_IF,         /* a; b then; c otherwise */
    NODE_FOR,        /* target a, over b, filter d; body c, else e */
    NODE_SET,        /* target a = b, or the block c */
    NODE_MACRO,      /* text; parameters a (KWARG or NAME); body b */
    NODE_GENERATION, /* a */
    NODE_BREAK,
    NODE_CONTINUE,
    NODE_LITERAL,
    NODE_NAME,
    NODE_LIST,    /* items a; as a target: names */
    NODE_TUPLE,   /* the same, written otherwise */
    NODE_DICT,    /* key, value, key, ... from a */
    NODE_ATTR,    /* a.text */
    NODE_ITEM,    /* a[b] */
    NODE_SLICE,   /* a[b:c:d], NULL where left out */
    NODE_CALL,    /* a(b...) */
    NODE_KWARG,   /* text = a */
    NODE_FILTER,  /* a | text(b...) */
    NODE_TEST,    /* a is text(b...) */
    NODE_NOT,     /* a */
    NODE_NEGATE,  /* a */
    NODE_AND,     /* a, b */
    NODE_OR,      /* a, b */
    NODE_COND,    /* a if b else c */
    NODE_COMPARE, /* a op b */
    NODE_MATH,    /* a op b */
};

struct jinja_node {
    enum jinja_kind kind;
    int line;
    const char *text; /* NUL-terminated; operator, name, data */
    size_t bytes;
    json_t *literal;
    struct jinja_node *a, *b, *c, *d, *e;
    struct jinja_node *next; /* in a list of statements, items, arguments */
};

struct jinja_chunk {
    struct jinja_chunk *before;
    size_t used, room;
    char v[];
};

struct jinja {
    char *where;
    struct jinja_chunk *arena;
    json_t *literals; /* a list that owns them */
    struct jinja_token *token;
    size_t n_tokens, tokens_room;
    struct jinja_node *body;
};

/* Zeroed memory that ends with the template; NULL where there is none. */
void *jinja_alloc(struct jinja *j, size_t bytes);
int jinja_lex(struct jinja *j, const char *text, size_t bytes);
int jinja_parse(struct jinja *j);

enum jinja_value_kind {
    VALUE_UNDEFINED,
    VALUE_JSON,
    VALUE_NAMESPACE, /* json: its attributes */
    VALUE_MACRO,
    VALUE_LOOP,
    VALUE_FUNCTION,
};

struct jinja_loop {
    json_t *items;
    size_t at;
};

struct jinja_value {
    enum jinja_value_kind kind;
    json_t *json;
    const struct jinja_node *macro;
    const struct jinja_loop *loop;
    const char *name; /* of a function; of what is undefined, where known */
};

struct jinja_variable {
    const char *name;
    struct jinja_value value;
    int depth; /* of the scope that it belongs to */
};

struct jinja_message {
    const json_t *json;
    int index; /* in input.messages */
};

struct jinja_eval {
    const struct jinja *j;
    const struct jinja_input *in;
    struct jinja_output *output;
    struct tok_buf *out; /* output->text, or what a block or macro writes */
    json_t **pool;
    size_t n_pool, pool_room;
    struct bpe_map tuples;           /* addresses of the lists that are written as tuples */
    struct jinja_variable *variable; /* innermost last */
    size_t n_variables, variables_room;
    size_t n_global;  /* how many of them a macro sees */
    size_t hidden;    /* variables from n_global up to here belong to the caller of a macro */
    int scope, depth; /* nesting of scopes; of evaluation */
    struct jinja_message *message; /* (n_messages) by address; NULL before the first loop */
    size_t n_messages;
    uint64_t steps, bytes;
    int leave; /* 0, NODE_BREAK or NODE_CONTINUE: on the way out of a loop's body */
    int line;  /* of the node at work, for messages */
    int r;
};

/* Arguments of a call, a filter or a test. */
#define JINJA_ARGUMENTS 8
struct jinja_arguments {
    struct jinja_value v[JINJA_ARGUMENTS];
    const char *name[JINJA_ARGUMENTS]; /* NULL: by place */
    int n;
};

/* jinja_eval.c */
struct jinja_value jinja_eval_node(struct jinja_eval *e, const struct jinja_node *n);
/* The first error wins; its text gets the template's name and line. Returns undefined. */
struct jinja_value jinja_fail(struct jinja_eval *e, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Counts a step and `bytes` that are about to be made; 0, or the error. */
int jinja_spend(struct jinja_eval *e, size_t bytes);
/* Counts steps for `bytes` that are about to be looked at, but not made into anything. */
int jinja_look(struct jinja_eval *e, size_t bytes);
/* The same for as many names that are walked over. */
void jinja_walk(struct jinja_eval *e, size_t names);
/* Takes over the reference (NULL: out of memory). */
struct jinja_value jinja_keep(struct jinja_eval *e, json_t *json);
struct jinja_value jinja_text(struct jinja_eval *e, const char *text, size_t bytes);
/* jinja_run.c: statements. */
void jinja_run(struct jinja_eval *e, const struct jinja_node *n);
struct jinja_value jinja_call_macro(struct jinja_eval *e, const struct jinja_node *macro,
                                    const struct jinja_arguments *a);
int jinja_assign(struct jinja_eval *e, const char *name, struct jinja_value v);
/* jinja_call.c: operators and calls. */
struct jinja_value jinja_call(struct jinja_eval *e, const struct jinja_node *n);
struct jinja_value jinja_attribute(struct jinja_eval *e, struct jinja_value v, const char *name);
struct jinja_value jinja_item(struct jinja_eval *e, struct jinja_value v, struct jinja_value key);
void jinja_read_arguments(struct jinja_eval *e, const struct jinja_node *list,
                          struct jinja_arguments *a);
/* jinja_math.c */
struct jinja_value jinja_math(struct jinja_eval *e, const char *op, struct jinja_value a,
                              struct jinja_value b);
int jinja_compare(struct jinja_eval *e, const char *op, struct jinja_value a, struct jinja_value b);
struct jinja_value jinja_slice(struct jinja_eval *e, struct jinja_value v,
                               const struct jinja_value part[3]);
/* jinja_filters.c, jinja_tests.c, jinja_methods.c: 0 (or undefined with eval.r) for a bad name. */
struct jinja_value jinja_filter(struct jinja_eval *e, const char *name, struct jinja_value v,
                                const struct jinja_arguments *a);
int jinja_test(struct jinja_eval *e, const char *name, struct jinja_value v,
               const struct jinja_arguments *a);
struct jinja_value jinja_method(struct jinja_eval *e, struct jinja_value v, const char *name,
                                const struct jinja_arguments *a);
/* jinja_value.c */
int jinja_true(struct jinja_value v);
struct jinja_value jinja_json(json_t *json); /* borrowed */
struct jinja_value jinja_bool(int truth);
struct jinja_value jinja_int(struct jinja_eval *e, int64_t i);
/* As str() would: strings as they are. */
void jinja_write(struct jinja_eval *e, struct tok_buf *b, struct jinja_value v);
void jinja_add(struct jinja_eval *e, struct tok_buf *b, const char *text, size_t bytes);
/* Gives the buffer's text as a value and empties it. */
struct jinja_value jinja_take(struct jinja_eval *e, struct tok_buf *b);
struct jinja_json_form {
    int indent, sorted, ascii;
    int repr; /* as repr has it: quotes, True, None */
    const char *comma, *colon;
};
void jinja_write_json(struct jinja_eval *e, struct tok_buf *b, json_t *v,
                      const struct jinja_json_form *form, int depth);
/* What a loop or a filter goes through, as a list; undefined is empty. NULL with eval.r. */
json_t *jinja_items(struct jinja_eval *e, struct jinja_value v);
void jinja_append(struct jinja_eval *e, json_t *list, struct jinja_value v);
/* A list of the pool that is a tuple: it differs from others only where it is written as text. */
struct jinja_value jinja_tuple(struct jinja_eval *e, struct jinja_value list);
int jinja_is_tuple(const struct jinja_eval *e, const json_t *v);
/* jinja_argument: by place or by name; undefined where it is not given. */
struct jinja_value jinja_argument(const struct jinja_arguments *a, int place, const char *name);

/* jinja_string.c: text by code points. */
size_t jinja_points(const char *s, size_t bytes);
/* The byte where code point `at` begins. */
size_t jinja_offset(const char *s, size_t bytes, size_t at);
enum jinja_side { SIDE_LEFT = 1, SIDE_RIGHT = 2, SIDE_BOTH = 3 };
/* Without white space, or without the code points of `chars`, at the sides. */
struct jinja_value jinja_strip(struct jinja_eval *e, json_t *s, enum jinja_side side,
                               struct jinja_value chars);
enum jinja_case { CASE_UPPER, CASE_LOWER, CASE_TITLE, CASE_WORDS, CASE_CAPITAL };
struct jinja_value jinja_recase(struct jinja_eval *e, json_t *s, enum jinja_case to);
struct jinja_value jinja_replace(struct jinja_eval *e, json_t *s, json_t *from, json_t *to,
                                 int64_t most);
struct jinja_value jinja_split(struct jinja_eval *e, json_t *s, struct jinja_value separator,
                               int64_t most);

#endif
