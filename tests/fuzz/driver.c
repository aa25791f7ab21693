/* SPDX-License-Identifier: Apache-2.0
 *
 * Runs a libFuzzer target without libFuzzer, so that every build fuzzes a little:
 *     driver SECONDS FILE...
 * Inputs are the files, then mutations of them. A mutation is a function of (seed, number) alone;
 * the seed is printed, and so is the number when the target dies or takes more than SLOW seconds:
 * FUZZ_SEED=S FUZZ_ONLY=N repeats that one input. FUZZ_SECONDS overrides the time.
 */
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define SLOW  30
#define MOST  ((size_t)1 << 20)
#define FILES 64

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
const char *__asan_default_options(void);

struct input {
    uint8_t *v;
    size_t n;
};

static struct input seeds[FILES];
static int n_seeds;
static volatile uint64_t number;
static uint64_t state;

/* Without this a sanitizer's report would end the process past the handler below. */
const char *__asan_default_options(void)
{
    return "abort_on_error=1:handle_abort=0";
}

static uint32_t rnd(uint32_t n)
{
    uint64_t x = state += 0x9E3779B97F4A7C15u;

    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    return (uint32_t)((x ^ x >> 31) >> 32) % n;
}

static void died(int sig)
{
    char text[64];
    int n = snprintf(text, sizeof(text), "%s at input %llu\n", sig == SIGALRM ? "too slow" : "died",
                     (unsigned long long)number);

    if (write(2, text, (size_t)n) < 0)
        _exit(2);
    signal(sig, SIG_DFL);
    raise(sig == SIGALRM ? SIGKILL : sig);
}

static void load(const char *path)
{
    FILE *f = fopen(path, "rb");
    struct input *s = &seeds[n_seeds++];

    if (!f) {
        perror(path);
        exit(2);
    }
    s->v = malloc(MOST);
    s->n = s->v ? fread(s->v, 1, MOST / 4, f) : 0;
    fclose(f);
}

static void insert(struct input *x, size_t at, const void *bytes, size_t n)
{
    if (x->n + n > MOST)
        return;
    memmove(x->v + at + n, x->v + at, x->n - at);
    memcpy(x->v + at, bytes, n);
    x->n += n;
}

static void remove_at(struct input *x, size_t at, size_t n)
{
    n = n < x->n - at ? n : x->n - at;
    memmove(x->v + at, x->v + at + n, x->n - at - n);
    x->n -= n;
}

/* Puts another number where one stands at or behind `at`. */
static void renumber(struct input *x, size_t at)
{
    static const char *const numbers[] = {"-1",         "0",          "1",
                                          "255",        "65536",      "2147483647",
                                          "2147483648", "4294967296", "9223372036854775807",
                                          "1e308",      "0.5",        "-100"};
    const char *s = numbers[rnd(sizeof(numbers) / sizeof(numbers[0]))];
    size_t n = 0;

    while (at < x->n && (x->v[at] < '0' || x->v[at] > '9'))
        at++;
    while (at + n < x->n && x->v[at + n] >= '0' && x->v[at + n] <= '9')
        n++;
    remove_at(x, at, n);
    insert(x, at, s, strlen(s));
}

static void mutate(struct input *x)
{
    static const uint8_t odd[] = "\0\xFF\"{}[],:\\-9eE \n\x80\xC0\xE2\xF0tfn";
    const struct input *other = &seeds[rnd((uint32_t)n_seeds)];
    size_t at = x->n ? rnd((uint32_t)x->n) : 0, n = 1 + rnd(1u << rnd(10)), from;
    uint8_t piece[1024];

    switch (rnd(7)) {
    case 0:
        if (x->n)
            x->v[at] ^= (uint8_t)(1 << rnd(8));
        break;
    case 1:
        if (x->n)
            x->v[at] = odd[rnd(sizeof(odd) - 1)];
        break;
    case 2:
        remove_at(x, at, n);
        break;
    case 3: /* doubles a part of itself */
        n = n < x->n - at ? n : x->n - at;
        n = n < sizeof(piece) ? n : sizeof(piece);
        memcpy(piece, x->v + at, n);
        insert(x, x->n ? rnd((uint32_t)x->n) : 0, piece, n);
        break;
    case 4:
        insert(x, at, &odd[rnd(sizeof(odd) - 1)], 1);
        break;
    case 5: /* a part of another file */
        from = other->n ? rnd((uint32_t)other->n) : 0;
        n = n < other->n - from ? n : other->n - from;
        insert(x, at, other->v + from, n);
        break;
    default:
        renumber(x, at);
        break;
    }
}

static void run(uint64_t seed, struct input *x)
{
    const struct input *s;
    uint8_t *exact;

    state = seed * 0x100000001B3u + number;
    s = &seeds[number < (uint64_t)n_seeds ? (uint32_t)number : rnd((uint32_t)n_seeds)];
    x->n = s->n;
    memcpy(x->v, s->v, s->n);
    for (uint32_t k = number < (uint64_t)n_seeds ? 0 : 1 + rnd(6); k; k--)
        mutate(x);
    exact = malloc(x->n ? x->n : 1); /* so that reading past the end is seen */
    if (!exact)
        exit(2);
    memcpy(exact, x->v, x->n);
    alarm(SLOW);
    LLVMFuzzerTestOneInput(exact, x->n);
    alarm(0);
    free(exact);
}

static uint64_t setting(const char *name, uint64_t otherwise)
{
    const char *s = getenv(name);

    return s ? strtoull(s, NULL, 10) : otherwise;
}

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

int main(int argc, char **argv)
{
    static const int signals[] = {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL, SIGALRM};
    uint64_t seed = setting("FUZZ_SEED", 1);
    struct input x = {malloc(MOST), 0};
    double end;

    if (argc < 3 || argc - 2 > FILES || !x.v) {
        fprintf(stderr, "usage: %s SECONDS FILE...\n", argv[0]);
        return 2;
    }
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
        signal(signals[i], died);
    for (int i = 2; i < argc; i++)
        load(argv[i]);
    number = setting("FUZZ_ONLY", 0);
    end = now() + (double)setting("FUZZ_SECONDS", strtoull(argv[1], NULL, 10));
    printf("seed %llu\n", (unsigned long long)seed);
    do {
        run(seed, &x);
        number++;
    } while (!getenv("FUZZ_ONLY") && now() < end);
    printf("%llu inputs\n", (unsigned long long)number);
    for (int i = 0; i < n_seeds; i++)
        free(seeds[i].v);
    free(x.v);
    return 0;
}
