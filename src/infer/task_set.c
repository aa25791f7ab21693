/* SPDX-License-Identifier: Apache-2.0 */
#include "src/infer/task_set.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/err.h"
#include "src/base/json.h"
#include "src/base/mem.h"
#include "src/base/philox.h"
#include "src/text/data_file.h"

#define GROUP_BITS 16 /* of a question in its record */

struct reading {
    struct task_set *s;
    const struct task_set_params *p;
    const char *where;
};

static int grow(void *array, int64_t *room, int64_t need, size_t size)
{
    int64_t more = 2 * *room + 256;
    void **v = array, *p;

    if (need <= *room)
        return 0;
    p = tr_realloc(TR_MEM_TEXT, *v, (size_t)more * size);
    if (!p)
        return -ENOMEM;
    *v = p;
    *room = more;
    return 0;
}

/* The arrays of the requests have one room. */
static int grow_requests(struct task_set *s)
{
    int64_t start = s->room_requests, bytes = start, need = s->n_requests + 1;
    int r = grow(&s->start, &start, need, sizeof(*s->start));

    if (r == 0)
        r = grow(&s->bytes, &bytes, need, sizeof(*s->bytes));
    return r < 0 ? r : grow(&s->request, &s->room_requests, need, sizeof(*s->request));
}

static int check_ids(const struct reading *in, size_t from)
{
    const struct tr_ids *ids = &in->s->ids;

    for (size_t i = from; i < ids->n; i++)
        if (ids->v[i] >= in->p->vocab)
            return tr_error(-ERANGE, "%s: token %d is past the model's vocabulary of %d", in->where,
                            ids->v[i], in->p->vocab);
    return 0;
}

static int add_choice(const struct reading *in, const struct tr_task_item *item, int i)
{
    struct task_set *s = in->s;
    size_t from = s->ids.n, first;
    char *joined;
    int r;

    if ((r = grow_requests(s)) < 0)
        return r;
    if (asprintf(&joined, "%s%s", item->delimiter, item->choices[i]) < 0)
        return tr_error(-ENOMEM, "out of memory");
    r = tr_task_encode(in->p->tokenizer, item->context, joined, &s->ids, &first);
    free(joined);
    if (r < 0)
        return tr_error_prefix(r, "%s", in->where);
    s->start[s->n_requests] = (int64_t)from;
    s->bytes[s->n_requests] = (int32_t)strlen(item->choices[i]);
    s->request[s->n_requests] =
        (struct score_request){.n = (int32_t)(s->ids.n - from), .first = (int32_t)(first - from)};
    if (s->request[s->n_requests].n - 1 > s->longest)
        s->longest = s->request[s->n_requests].n - 1;
    s->n_requests++;
    return check_ids(in, from);
}

static int add_question(void *arg, const struct tr_task_item *item)
{
    struct reading *in = arg;
    struct task_set *s = in->s;
    int r = grow(&s->question, &s->room_questions, s->n_questions + 1, sizeof(*s->question));

    if (r < 0)
        return r;
    s->question[s->n_questions++] =
        (struct task_question){.first = s->n_requests,
                               .group = s->record << GROUP_BITS | item->group,
                               .n = item->n,
                               .gold = item->gold};
    for (int i = 0; i < item->n && r == 0; i++)
        r = add_choice(in, item, i);
    return r;
}

static int read_record(void *owner, const char *where, json_t *record)
{
    struct reading *in = owner;
    int r;

    if (in->p->stop && in->p->stop(in->p->stop_arg))
        return tr_error(-EINTR, "%s: reading it was interrupted", in->p->path);
    in->where = where;
    r = tr_task_read(in->p->task, record, where, add_question, in);
    in->s->record++;
    return r;
}

/* Keeps `want` questions, each set of them equally likely; in their order. */
static void draw(struct task_set *s, int64_t want, uint64_t seed)
{
    int64_t kept = 0;

    for (int64_t i = 0; i < s->n_questions; i++) {
        uint64_t left = (uint64_t)(s->n_questions - i);

        if (tr_philox_below((uint64_t)i, seed, left) < (uint64_t)(want - kept))
            s->question[kept++] = s->question[i];
    }
    s->n_questions = kept;
    s->drawn = 1;
}

/* The requests of the questions that are left, one behind the other. */
static void gather(struct task_set *s)
{
    int64_t n = 0;

    s->longest = 0;
    for (int64_t i = 0; i < s->n_questions; i++) {
        struct task_question *q = &s->question[i];
        int64_t from = q->first;

        q->first = n;
        for (int k = 0; k < q->n; k++, n++) {
            s->request[n] = s->request[from + k];
            s->request[n].ids = s->ids.v + s->start[from + k];
            s->start[n] = s->start[from + k];
            s->bytes[n] = s->bytes[from + k];
            if (s->request[n].n - 1 > s->longest)
                s->longest = s->request[n].n - 1;
        }
    }
    s->n_requests = n;
}

int task_set_open(struct task_set **out, const struct task_set_params *p)
{
    struct task_set *s = tr_alloc(TR_MEM_TEXT, sizeof(*s));
    struct reading in = {s, p, p->path};
    char *path = NULL;
    int r = s ? data_file_find(p->path, 1, &path) : -ENOMEM;

    if (r == 0) {
        s->task = p->task;
        r = data_file_records(path, read_record, &in);
    }
    tr_free(TR_MEM_TEXT, path);
    if (r == 0 && s->n_questions == 0)
        r = tr_error(-ENODATA, "%s: no questions", p->path);
    if (r < 0) {
        task_set_close(s);
        return r;
    }
    if (p->samples && p->samples < s->n_questions)
        draw(s, p->samples, p->seed);
    gather(s);
    *out = s;
    return 0;
}

void task_set_close(struct task_set *s)
{
    if (!s)
        return;
    tr_free(TR_MEM_TEXT, s->question);
    tr_free(TR_MEM_TEXT, s->request);
    tr_free(TR_MEM_TEXT, s->start);
    tr_free(TR_MEM_TEXT, s->bytes);
    tr_ids_free(&s->ids);
    tr_free(TR_MEM_TEXT, s);
}

/* The first of the highest, by one of the three ways; -1, which is never right, where none of them
 * is a number: what is not finite has no opinion. */
static int best(const struct task_set *s, const struct task_question *q, int way)
{
    double most = -INFINITY;
    int found = -1;

    for (int i = 0; i < q->n; i++) {
        const struct score_request *c = &s->request[q->first + i];
        int32_t bytes = s->bytes[q->first + i];
        double by = way == 0 ? 1 : way == 1 ? c->n - c->first : bytes > 1 ? bytes : 1;
        double sum = c->sum / by;

        if (sum > most || (found < 0 && !isnan(sum))) {
            most = sum;
            found = i;
        }
    }
    return found;
}

int task_set_answer(struct tr_run *run, struct task_set *s, int32_t most)
{
    int r = score_requests(run, s->request, s->n_requests, most);

    for (int64_t i = 0; i < s->n_questions && r == 0; i++)
        for (int way = 0; way < 3; way++)
            s->question[i].answer[way] = best(s, &s->question[i], way);
    return r;
}

int64_t task_set_cut(const struct task_set *s, int32_t most)
{
    int64_t cut = 0;

    for (int64_t i = 0; i < s->n_questions; i++) {
        const struct task_question *q = &s->question[i];
        int longer = 0;

        for (int k = 0; k < q->n; k++)
            longer |= s->request[q->first + k].n - 1 > most;
        cut += longer;
    }
    return cut;
}

/* F1 of one answer: harmonic mean of precision and recall; 0 where it is never right. */
static double f1_of(const struct task_set *s, int answer)
{
    int64_t right = 0, said = 0, is = 0;

    for (int64_t i = 0; i < s->n_questions; i++) {
        const struct task_question *q = &s->question[i];

        right += q->answer[0] == answer && q->gold == answer;
        said += q->answer[0] == answer;
        is += q->gold == answer;
    }
    return right ? 2.0 * (double)right / (double)(said + is) : 0;
}

/* Questions whose answers stand together, and are all judged right. */
static double exact_groups(const struct task_set *s)
{
    int64_t groups = 0, right = 0;

    for (int64_t i = 0; i < s->n_questions;) {
        int64_t group = s->question[i].group;
        int all = 1;

        for (; i < s->n_questions && s->question[i].group == group; i++)
            all &= s->question[i].answer[0] == s->question[i].gold;
        groups++;
        right += all;
    }
    return (double)right / (double)groups;
}

static double majority(const struct task_set *s)
{
    int64_t count[TR_TASK_CHOICES] = {0}, most = 0;

    for (int64_t i = 0; i < s->n_questions; i++)
        if (++count[s->question[i].gold] > most)
            most = count[s->question[i].gold];
    return (double)most / (double)s->n_questions;
}

/* Of how many independent answers the share says as much. Answers to one question are not, and what
 * a model makes of a paragraph shows in all its questions: the variance is that of a ratio of sums
 * over paragraphs, which are. It can be small by chance, so the questions are the most. Where
 * nothing varies the paragraphs are counted. */
static double independent_answers(const struct task_set *s, double share)
{
    double n = (double)s->n_questions, records = 0, groups = 0, squares = 0, answers;

    for (int64_t i = 0; i < s->n_questions; records++) {
        int64_t record = s->question[i].group >> GROUP_BITS, group = -1;
        double off = 0;

        for (; i < s->n_questions && s->question[i].group >> GROUP_BITS == record; i++) {
            groups += s->question[i].group != group;
            group = s->question[i].group;
            off += (s->question[i].answer[0] == s->question[i].gold) - share;
        }
        squares += off * off;
    }
    if (records == n || records == 1)
        return records;
    answers = share * (1 - share) * n * n * (records - 1) / (records * squares);
    return squares > 0 ? fmin(answers, groups) : records;
}

/* By Wilson, and not the share plus or minus its deviation: that says nothing where all or none is
 * right, and too little of a few questions. */
static void find_interval(double share, double n, double interval[static 2])
{
    double z = 1.96, whole = 1 + z * z / n;
    double middle = (share + z * z / (2 * n)) / whole;
    double half = z / whole * sqrt(share * (1 - share) / n + z * z / (4 * n * n));

    interval[0] = fmax(0, middle - half);
    interval[1] = fmin(1, middle + half);
}

void task_set_metrics(const struct task_set *s, struct task_metrics *m)
{
    double n = (double)s->n_questions;

    for (int way = 0; way < 3; way++) {
        int64_t right = 0;

        for (int64_t i = 0; i < s->n_questions; i++)
            right += s->question[i].answer[way] == s->question[i].gold;
        m->accuracy[way] = (double)right / n;
    }
    m->majority = majority(s);
    find_interval(m->accuracy[0], independent_answers(s, m->accuracy[0]), m->interval);
    m->f1 = m->exact = NAN;
    if (s->task == TR_TASK_CB)
        m->f1 = (f1_of(s, 0) + f1_of(s, 1) + f1_of(s, 2)) / 3;
    if (s->task == TR_TASK_MULTIRC) {
        m->f1 = f1_of(s, 0);
        if (!s->drawn) /* of a part of its answers a question would be right far more often */
            m->exact = exact_groups(s);
    }
}
