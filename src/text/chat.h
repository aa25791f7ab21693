/* SPDX-License-Identifier: Apache-2.0
 *
 * Conversations become text by a chat template, and what of the text is learnt is told exactly.
 *
 * What is learnt, where the template has {% generation %} blocks: what those write. Otherwise, for
 * each message of the assistant: what the round of the template's loop over the messages writes
 * for it, from behind the generation prompt (what `add_generation_prompt` adds, and a model never
 * writes itself) to the last character that is no white space, the end-of-turn token included; the
 * last message also gets what the template writes behind the loop. Everything is taken from the
 * one text of the whole conversation. Where the template shows a turn in hindsight otherwise than
 * when it was the last (without its reasoning, say), it is learnt as it stands in hindsight, and
 * counted in `rewritten`. Where none of this can be told, the conversation is refused.
 *
 * No BOS or EOS is added to what the template writes.
 */
#ifndef TR_SRC_TEXT_CHAT_H
#define TR_SRC_TEXT_CHAT_H

#include <jansson.h>
#include <stddef.h>

#include "src/text/jinja.h"
#include "src/text/tokenizer.h"

struct chat {
    struct jinja *template;
    struct jinja *tool_use; /* for conversations with tools; NULL: the same */
    char *bad_tool_use;     /* or why it cannot be used, for the first that has any */
    json_t *tokens;         /* bos_token and its like, as variables */
    char *from;             /* where the template comes from, for people */
};

struct chat_params {
    const char *name;   /* a built-in template or a file; NULL: the folder's own */
    const char *folder; /* of the tokenizer; may be NULL where name is given */
    const struct tr_tokenizer *tokenizer; /* may be NULL */
};

/* -ENOENT, with a message, where nothing is named and the folder has no template. */
int chat_open(struct chat *c, const struct chat_params *p);
void chat_close(struct chat *c);

/* The text of a built-in template; NULL for another name. */
const char *chat_builtin(const char *name);
int chat_is_name(const char *text); /* of such a one, or of none, rather than of a file */
/* The names, separated by '|'. */
const char *chat_builtin_names(void);

struct chat_turn {
    size_t from, to; /* bytes of the text that are learnt */
    int message;     /* of the conversation; -1: a generation block outside of a loop over them */
};

struct chat_text {
    char *text; /* TR_MEM_TEXT */
    size_t bytes;
    struct chat_turn *turn; /* TR_MEM_TEXT, in order, apart from each other */
    size_t n_turns;
    size_t rewritten;
    size_t told; /* bytes of which all turns are told: all, but where `most` has left some out */
};

struct chat_conversation {
    json_t *messages; /* a list of objects, each with a "role" */
    json_t *tools;    /* a list, or NULL */
    /* Turns that begin this many bytes into the text, or later, may be left out; 0: none is. To
     * tell a turn takes renderings of all before it. */
    size_t most;
};

int chat_write(const struct chat *c, const struct chat_conversation *of, struct chat_text *out);
void chat_text_free(struct chat_text *t);

/* The template that writes this conversation. */
static inline const struct jinja *chat_template(const struct chat *c,
                                                const struct chat_conversation *of)
{
    return of->tools && c->tool_use ? c->tool_use : c->template;
}

/* The template's output for the first n messages; prompt: add_generation_prompt. */
int chat_render(const struct chat *c, const struct chat_conversation *of, size_t n, int prompt,
                struct jinja_output *out);

#endif
