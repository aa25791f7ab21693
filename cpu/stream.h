/* SPDX-License-Identifier: Apache-2.0
 *
 * One stream: a bounded ring of commands and the thread that does them in order. Any host thread
 * may push. A point in a stream is a count of pushed commands, reached when as many are finished;
 * an event is nothing but the stream and point of its last record, so a wait captures both when it
 * is pushed, always refers to commands pushed before it, and can never deadlock.
 */
#ifndef TR_CPU_STREAM_H
#define TR_CPU_STREAM_H

#include <stddef.h>
#include <stdint.h>

#include "src/base/device.h"

struct tr_cpu_stream;

enum tr_cpu_command_kind {
    TR_COMMAND_OP,
    TR_COMMAND_COPY,
    TR_COMMAND_FILL,
    TR_COMMAND_CALL,
    TR_COMMAND_WAIT
};

struct tr_cpu_command {
    enum tr_cpu_command_kind kind;
    union {
        struct tr_op op;
        struct {
            void *to;
            const void *from; /* COPY */
            int byte;         /* FILL */
            size_t bytes;
        } move;
        struct {
            void (*fn)(void *arg);
            void *arg;
        } call;
        struct {
            struct tr_cpu_stream *stream;
            uint64_t point;
        } wait;
    };
};

struct tr_cpu_stream_params {
    const char *name;
    uint64_t delay_seed; /* 0: no delays; else 0 to 200 us before each command, from this seed */
    void (*run_op)(void *arg, const struct tr_op *op); /* on the stream's thread */
    void *arg;
};

int tr_cpu_stream_open(struct tr_cpu_stream **out, const struct tr_cpu_stream_params *p);
/* Finishes what is queued and ends the thread; the object lives on, as other streams may still look
 * at its points. */
void tr_cpu_stream_stop(struct tr_cpu_stream *s);
void tr_cpu_stream_close(struct tr_cpu_stream *s); /* after all are stopped; NULL is allowed */

/* Queues a command, waiting while the ring is full. */
void tr_cpu_stream_push(struct tr_cpu_stream *s, const struct tr_cpu_command *command);
uint64_t tr_cpu_stream_point(struct tr_cpu_stream *s); /* what has been pushed so far */
void tr_cpu_stream_await(struct tr_cpu_stream *s, uint64_t point);

#endif
