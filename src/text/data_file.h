/* SPDX-License-Identifier: Apache-2.0
 *
 * A file of text read through a window: by lines, or by parts that the caller cuts. Owns the
 * window; never holds more than the caller leaves in it, and no line of more than DATA_LINE_MOST
 * bytes.
 */
#ifndef TR_SRC_TEXT_DATA_FILE_H
#define TR_SRC_TEXT_DATA_FILE_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#define DATA_LINE_MOST ((size_t)64 << 20)

struct data_file {
    int fd;
    const char *path; /* the caller's */
    char *v;          /* the window: v[at .. n) is not yet consumed */
    size_t at, n, room;
    uint64_t line; /* number of the line last given out, from 1 */
};

int data_file_open(struct data_file *f, const char *path);
void data_file_close(struct data_file *f);
/* Appends another block to the window. 1, or 0 at the end of the file. */
int data_file_more(struct data_file *f);
/* The next line without its newline, and the first without a byte-order mark, valid until the next
 * call. 1, or 0 at the end. */
int data_file_line(struct data_file *f, const char **line, size_t *bytes);
/* The file that a path means: itself, or of a folder the one with the data to learn, or those that
 * are held out. *out is TR_MEM_TEXT. */
int data_file_find(const char *path, int held_out, char **out);
/* The next element of a JSON list, from behind its "[" on; f->line is where it begins. 1, or 0
 * before the "]". */
int data_file_element(struct data_file *f, const char **text, size_t *bytes);
/* The first byte that is no white space is taken where it is `c`: 1. Lines are counted. */
int data_file_begins(struct data_file *f, char c);
/* The byte at `at` of what is not yet consumed, read as needed; 0 at the end of the file. */
int data_file_byte(struct data_file *f, size_t at);
/* Moves *at to the first byte that is no white space (nor, at 0, a byte-order mark): that byte. */
int data_file_skip(struct data_file *f, size_t *at);
/* The bytes of the value at `from`: to the comma or bracket that is not inside of it. */
int64_t data_file_value(struct data_file *f, size_t from);

/* data_records.c: 1 where the file holds records, by its name or its beginning, of which nothing is
 * consumed; 0 where it is plain text; an error where it is not text at all. */
int data_file_has_records(struct data_file *f);
/* Hands on each record of a JSONL file or a file of one JSON list; `where` names file and line.
 * A text of it may hold a NUL. Anything but 0 ends it, 1 without an error. */
typedef int data_record_fn(void *owner, const char *where, json_t *o);
int data_file_each(struct data_file *f, data_record_fn *fn, void *owner);
int data_file_records(const char *path, data_record_fn *fn, void *owner);

#endif
