/* SPDX-License-Identifier: Apache-2.0
 *
 * A prediction for people and for machines.
 */
#include <math.h>
#include <string.h>

#include "src/base/json.h"
#include "src/plan/predict.h"

/* What compute waits for: its key in JSON, its name as what limits a step, and its line in a table.
 * [COMPUTE]: nothing that moves bytes. */
static const struct {
    const char *key, *limit, *line;
} waits[TR_SERVERS] = {
    [TR_SERVE_COMPUTE] = {"commit", "commits and latencies",
                          "compute waits for commits and latencies"},
    [TR_SERVE_DRIVE] = {"drive", "the drive", "compute waits for the drive"},
    [TR_SERVE_HASH] = {"checksums", "checksums (one core)", "compute waits for checksums"},
    [TR_SERVE_IN] = {"copy_in", "copies to the device", "compute waits for copies to the device"},
    [TR_SERVE_OUT] = {"copy_out", "copies from the device",
                      "compute waits for copies from the device"},
    [TR_SERVE_CPU] = {"updates", "updates on the cpu", "compute waits for updates on the cpu"},
};
static const char *const passes[TR_SIM_PASSES] = {"forward", "norm", "update"};

/* So much more is waited for the one drive than for any other that limits alone. */
#define MORE 1.1

/* Of several drives the one that is waited for, or all. */
static void name_drive(struct tr_prediction *p)
{
    uint32_t most = 0, rivals = 0;

    for (uint32_t d = 0; d < p->sim.n_drives; d++)
        most = p->sim.drive[d].waited > p->sim.drive[most].waited ? d : most;
    for (uint32_t d = 0; d < p->sim.n_drives; d++)
        rivals += p->sim.drive[d].waited * MORE > p->sim.drive[most].waited;
    if (p->sim.n_drives < 2)
        snprintf(p->limit, sizeof(p->limit), "the drive");
    else if (rivals == p->sim.n_drives)
        snprintf(p->limit, sizeof(p->limit), "the drives");
    else
        snprintf(p->limit, sizeof(p->limit), "the drive (%s)", p->drive[most]);
}

/* Less than one part in thirty waited: nothing but more arithmetic would help. */
void tr_prediction_name_limit(struct tr_prediction *p)
{
    int most = 0;
    double idle = 0;

    for (int i = 0; i < TR_SERVERS; i++) {
        idle += p->sim.idle[i];
        if (p->sim.idle[i] > p->sim.idle[most])
            most = i;
    }
    if (idle >= p->sim.seconds / 30 && most == TR_SERVE_DRIVE)
        name_drive(p);
    else
        snprintf(p->limit, sizeof(p->limit), "%s",
                 idle < p->sim.seconds / 30 ? "arithmetic" : waits[most].limit);
}

static json_t *seconds_json(const struct tr_prediction *p)
{
    json_t *o = json_pack("{s:f}", "all", p->sim.seconds);

    for (int i = 0; i < TR_SIM_PASSES; i++)
        tr_json_add(&o, passes[i], json_real(p->sim.pass[i]));
    tr_json_add(&o, "commit", json_real(p->sim.commit));
    if (p->after_commit > 0)
        tr_json_add(&o, "after_commit", json_real(p->after_commit));
    tr_json_add(&o, "mean", json_real(tr_prediction_seconds(p)));
    return o;
}

static json_t *idle_json(const struct tr_prediction *p)
{
    json_t *o = json_pack("{s:f}", "compute", p->sim.busy[TR_SERVE_COMPUTE]);

    for (int i = 0; i < TR_SERVERS; i++)
        tr_json_add(&o, waits[i].key, json_real(p->sim.idle[i]));
    return o;
}

static void add(json_t **o, const char *key, uint64_t bytes)
{
    tr_json_add(o, key, json_integer((json_int_t)bytes));
}

static json_t *drives_json(const struct tr_prediction *p, const double *life)
{
    json_t *list = json_array();

    for (uint32_t d = 0; d < p->sim.n_drives; d++) {
        const struct tr_sim_drive *v = &p->sim.drive[d];
        double wear = tr_prediction_drive_wear(p, d), own = life ? life[life[1] > 0 ? d : 0] : 0;
        json_t *o = json_pack("{s:s, s:f, s:f}", "folder", p->drive[d], "busy", v->busy, "waited",
                              v->waited);

        add(&o, "read_bytes", v->read_bytes);
        add(&o, "written_bytes", v->written_bytes);
        add(&o, "commit_written_bytes", v->kept_bytes);
        if (own > 0 && wear > 0)
            tr_json_add(&o, "life_steps", json_real(own / wear));
        tr_json_append(&list, o);
    }
    return list;
}

json_t *tr_prediction_json(const struct tr_prediction *p, const double *life)
{
    double steps = tr_prediction_life(p, life);
    json_t *o = json_object();

    add(&o, "tokens", (uint64_t)p->tokens);
    add(&o, "device_bytes", p->device_bytes);
    add(&o, "staging_bytes", p->staging_bytes);
    add(&o, "tier_bytes", p->tier_bytes);
    add(&o, "buffer_bytes", p->buffer_bytes);
    tr_json_add(&o, "update_on", json_string(p->apart ? "cpu" : "device"));
    add(&o, "update_bytes", p->apart_bytes);
    add(&o, "disk_bytes", p->disk_bytes);
    add(&o, "spill_host_bytes", p->spill_host_bytes);
    add(&o, "parked_disk_bytes", p->parked_disk_bytes);
    add(&o, "spill_disk_bytes", p->spill_disk_bytes);
    add(&o, "spilled_bytes", p->sim.spilled_bytes);
    add(&o, "read_bytes", p->sim.read_bytes);
    add(&o, "written_bytes", p->sim.written_bytes);
    add(&o, "commit_written_bytes", p->sim.kept_bytes);
    add(&o, "host_tier_bytes", p->sim.host_bytes);
    add(&o, "loads", p->sim.loads);
    add(&o, "least_host_bytes", p->least_host);
    if (p->least_device)
        add(&o, "least_device_bytes", p->least_device);
    if (steps > 0)
        tr_json_add(&o, "drive_life_steps", json_real(steps));
    if (!p->timed)
        return o;
    tr_json_add(&o, "drives", drives_json(p, life));
    tr_json_add(&o, "machine", json_string(p->machine));
    tr_json_add(&o, "seconds", seconds_json(p));
    tr_json_add(&o, "spent", idle_json(p));
    tr_json_add(&o, "arithmetic", json_real(p->arithmetic));
    tr_json_add(&o, "tokens_per_s", json_real((double)p->tokens / tr_prediction_seconds(p)));
    tr_json_add(&o, "limited_by", json_string(p->limit));
    if (p->hides_from > 0) {
        tr_json_add(&o, "hides_from_tokens", json_real(round(p->hides_from)));
        tr_json_add(&o, "hides_from_tokens_fit", json_boolean(p->hides_fits));
    }
    return o;
}

const char *tr_prediction_line(const struct tr_prediction *p, char *text, size_t room)
{
    char commit[64] = "";

    *text = 0;
    if (p->after_commit > 0)
        snprintf(commit, sizeof(commit), " (%.3g s after a commit)", p->after_commit);
    if (p->timed)
        snprintf(text, room,
                 "predicted: %.3g s a step%s, %.4g tokens/s, limited by %s; %.4g MB read, %.4g MB "
                 "written a step\n",
                 p->sim.seconds, commit, (double)p->tokens / tr_prediction_seconds(p), p->limit,
                 (double)p->sim.read_bytes * 1e-6, (double)p->sim.written_bytes * 1e-6);
    return text;
}

static void print_gb(FILE *f, const char *what, uint64_t bytes)
{
    fprintf(f, "  %-52s %14llu  %9.3f GB\n", what, (unsigned long long)bytes, (double)bytes * 1e-9);
}

static void print_time(FILE *f, const char *what, double seconds, double all)
{
    fprintf(f, "  %-52s %9.3f s  %5.1f %%\n", what, seconds, 100 * seconds / all);
}

static void print_seconds(FILE *f, const struct tr_prediction *p)
{
    static const char *const names[TR_SIM_PASSES] = {"forward", "norm pass", "backward and update"};
    double all = p->sim.seconds;

    fprintf(f, "seconds a step, on %s\n", p->machine);
    for (int i = 0; i < TR_SIM_PASSES; i++)
        if (p->sim.pass[i] > 0)
            print_time(f, names[i], p->sim.pass[i], all);
    print_time(f, "commit, waited for", p->sim.commit, all);
    print_time(f, "all", all, all);
    print_time(f, "of it: compute at work", p->sim.busy[TR_SERVE_COMPUTE], all);
    for (int i = 0; i < TR_SERVERS; i++)
        if (p->sim.idle[i] > all * 1e-4)
            print_time(f, waits[i].line, p->sim.idle[i], all);
    if (p->after_commit > 0)
        fprintf(f,
                "commits   one in %lld steps follows a commit: %.3f s; on average %.3f s a step\n",
                (long long)p->commit_every, p->after_commit, tr_prediction_seconds(p));
    fprintf(f, "speed     %.4g tokens/s; limited by %s\n",
            (double)p->tokens / tr_prediction_seconds(p), p->limit);
    if (p->hides_from > 0)
        fprintf(f, "hides     arithmetic hides the rest from about %.3g tokens a step%s\n",
                p->hides_from, p->hides_fits ? "" : ", which the device has no room for");
    else if (p->least_device) /* limits have been asked for */
        fprintf(f, "hides     never: of more tokens, more activations are saved and read again\n");
}

/* What each drive has to do, where there are several. */
static void print_drives(FILE *f, const struct tr_prediction *p)
{
    if (p->strangers)
        fputs("drives    taken for one: not all drives of the store's folders have been measured "
              "(tailrace bench --store)\n",
              f);
    if (p->sim.n_drives < 2)
        return;
    fputs(
        "drives, a step                                              GB read   written      busy, "
        "s\n",
        f);
    for (uint32_t d = 0; d < p->sim.n_drives; d++)
        fprintf(f, "  %-52s %11.3f %9.3f %12.3f\n", p->drive[d],
                (double)p->sim.drive[d].read_bytes * 1e-9, tr_prediction_drive_wear(p, d) * 1e-9,
                p->sim.drive[d].busy);
}

static void print_life(FILE *f, const struct tr_prediction *p, const double *life)
{
    double steps = tr_prediction_life(p, life);

    if (!(steps > 0))
        return;
    fprintf(f, "life      %.4g TB written", life[0] * 1e-12);
    for (uint32_t d = 1; d < p->sim.n_drives && life[1] > 0; d++)
        fprintf(f, ", %.4g", life[d] * 1e-12);
    fprintf(f, "%s are %.4g steps, %.4g tokens\n",
            p->sim.n_drives > 1 ? " by a drive, until the first is worn out," : "", steps,
            steps * (double)p->tokens);
}

void tr_prediction_print(FILE *f, const struct tr_prediction *p, const double *life)
{
    fputs("host memory, pinned\n", f);
    print_gb(f, "staging buffers", p->staging_bytes);
    print_gb(f, "parameters and state beside the device", p->tier_bytes - p->spill_host_bytes);
    print_gb(f, "activations, spilled", p->spill_host_bytes);
    if (p->apart)
        print_gb(f, "updates on the cpu: slots of state, gradients, weights", p->apart_bytes);
    print_gb(f, "losses and norms read back", p->buffer_bytes);
    fputs("disk\n", f);
    print_gb(f, "store", p->disk_bytes - p->spill_disk_bytes);
    print_gb(f, "of it: gradients that wait for the next step", p->parked_disk_bytes);
    print_gb(f, "activations, spilled", p->spill_disk_bytes);
    fputs("moved a step\n", f);
    print_gb(f, "read from disk", p->sim.read_bytes);
    print_gb(f, "written to disk", p->sim.written_bytes);
    if (p->sim.kept_bytes)
        print_gb(f, p->commit_every ? "and by a commit" : "and once, at the end",
                 p->sim.kept_bytes);
    print_gb(f, "loaded from host memory", p->sim.host_bytes);
    print_gb(f, "activations saved (what went to disk is above, too)", p->sim.spilled_bytes);
    if (p->timed)
        print_seconds(f, p);
    if (p->timed)
        print_drives(f, p);
    print_life(f, p, life);
    if (p->least_device)
        fprintf(f, "smallest  --device-memory %llu (%.1f MiB) would do",
                (unsigned long long)p->least_device, (double)p->least_device / 1048576);
    if (p->least_device && p->least_host)
        fprintf(f, ", and --host-memory %llu (%.1f MiB) beside the data",
                (unsigned long long)p->least_host, (double)p->least_host / 1048576);
    if (p->least_device)
        fputc('\n', f);
}
