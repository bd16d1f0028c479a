/* The kernel's scan paths against docs/format.md section 5 written out naively, for sanitizers.
 *
 * With -DSTANDALONE: runs seeded random inputs, argv[1] of them. Otherwise: a libFuzzer target.
 * Each run lies in an allocation of exactly its size, so an access outside it is seen.
 */
#include <stdio.h>
#include <stdlib.h>

#include "_scan_paths.h"

#define LARGEST_RUN ((size_t)200 << 10)

static uint8_t filter_value(const struct cutter *c, const uint8_t *run, size_t i)
{
    unsigned f = 0;
    for (size_t j = 0; j < 64; j++)
        f += (unsigned)(c->lo[run[i - j] & 15] + c->hi[run[i - j] >> 4]) << j % 8;
    return (uint8_t)f;
}

static int test_a(const struct cutter *c, const uint8_t *run, size_t i)
{
    return filter_value(c, run, i) < 32;
}

static int test_b(const struct cutter *c, const uint8_t *run, size_t i)
{
    uint8_t f = filter_value(c, run, i);
    return f >= 32 && f < 64;
}

/* The 64 terms anew at every position, not rolled. */
static size_t naive_second_look(const struct cutter *c, const uint8_t *run)
{
    uint64_t gear[256];
    unsigned bits = 0;
    for (int b = 0; b < 256; b++)
        gear[b] = siphash24(c->decision_key, &(uint8_t){(uint8_t)b}, 1);
    while ((size_t)1 << bits < c->average)
        bits++;
    for (size_t length = c->average / 2; length <= 4 * c->average; length++) {
        unsigned zeros = length < c->average * 13 / 16 ? bits + 2 : bits - 2;
        uint64_t sum = 0;
        for (size_t j = 0; j < 64; j++)
            sum += gear[run[length - 1 - j]] << j;
        if (sum >> (64 - zeros) == 0)
            return length;
    }
    return 4 * c->average;
}

static size_t naive_cut(const struct cutter *c, const uint8_t *run, size_t size, int final)
{
    uint64_t threshold = (c->average >= 32768 ? (uint64_t)4096 : 512) * (UINT64_MAX / c->average + 1);
    for (size_t length = c->average / 2; length <= size && length <= 4 * c->average; length++) {
        size_t i = length - 1;
        if (test_a(c, run, i) && test_b(c, run, i - 5) && test_a(c, run, i - 11) &&
            (c->average < 32768 || test_b(c, run, i - 17)) &&
            siphash24(c->decision_key, run + i - 63, 64) <
                (length < c->average * 13 / 16 ? threshold / 4 : threshold * 4))
            return length;
    }
    if (size >= 4 * c->average)
        return naive_second_look(c, run);
    return final ? size : 0;
}

static void require(int condition, const char *what, const char *path, size_t at)
{
    if (condition)
        return;
    fprintf(stderr, "%s: path %s, at %zu\n", what, path, at);
    abort();
}

/* Cut run[begin..size) on every path and compare with the naive way. */
static void compare(struct cutter *c, const uint8_t *run, size_t begin, size_t size, int final)
{
    struct scan_path paths[3];
    int path_count = usable_paths(paths);
    size_t room = (size - begin) / c->minimum + 2;
    size_t *expected = malloc(room * sizeof *expected), *ends = malloc(room * sizeof *ends);
    size_t expected_count = 0, length;

    for (size_t at = begin; at < size; at += length) {
        length = naive_cut(c, run + at, size - at, final);
        if (!length)
            break;
        expected[expected_count++] = at + length;
    }
    for (int k = 0; k < path_count; k++) {
        size_t count;
        c->scan = paths[k].scan;
        count = cut_run(c, run, begin, size, final, ends);
        require(count == expected_count, "another number of chunks", paths[k].name, count);
        for (size_t i = 0; i < count; i++)
            require(ends[i] == expected[i], "another end", paths[k].name, ends[i]);
    }
    for (size_t i = 0; i <= expected_count; i++)
        cut_key(c, run, begin, size, i < expected_count ? expected[i] : begin);
    free(expected);
    free(ends);
}

/* Input: secret (64), average (1), final and begin (1), then pieces: count (1), size (1), bytes. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cutter cutter;
    uint8_t *large, *run;
    size_t length = 0, begin;

    if (size < 68)
        return 0;
    prepare(&cutter, data, (size_t)4096 << data[64] % 4);
    large = malloc(LARGEST_RUN);
    for (size_t at = 66; at + 2 <= size;) {
        size_t count = data[at] * 8u + 1, piece = data[at + 1] + 1u;
        at += 2;
        if (piece > size - at)
            piece = size - at;
        for (; count && piece && length + piece <= LARGEST_RUN; count--, length += piece)
            memcpy(large + length, data + at, piece);
        at += piece;
    }
    run = malloc(length ? length : 1);
    memcpy(run, large, length);
    free(large);
    begin = data[65] >> 1 < length ? data[65] >> 1 : 0;
    compare(&cutter, run, begin, length, data[65] & 1);
    free(run);
    return 0;
}

#ifdef STANDALONE
static uint64_t next(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    return *state ^= *state << 17;
}

int main(int count_of_arguments, char **arguments)
{
    uint64_t state = 88172645463325252u;
    long rounds = count_of_arguments > 1 ? atol(arguments[1]) : 1000;
    struct scan_path paths[3];
    int path_count = usable_paths(paths);

    for (long round = 0; round < rounds; round++) {
        struct cutter cutter;
        uint8_t secret[64], *run, alphabet = (uint8_t)(next(&state) | 1);
        size_t average = (size_t)4096 << next(&state) % 4;
        size_t size = next(&state) % (average * 9), letters = next(&state) % 4;
        for (int i = 0; i < 64; i++)
            secret[i] = (uint8_t)(next(&state) >> 20);
        prepare(&cutter, secret, average);
        run = malloc(size ? size : 1);
        for (size_t i = 0; i < size; i++) {
            uint8_t byte = (uint8_t)(next(&state) >> 30);
            run[i] = letters == 0 ? byte : letters == 1 ? byte & 15 : letters == 2 ? byte % 3 : alphabet;
        }
        compare(&cutter, run, size ? next(&state) % size : 0, size, 1);
        compare(&cutter, run, 0, size, (int)(next(&state) & 1));
        free(run);
    }
    printf("%ld rounds equal on:", rounds);
    for (int k = 0; k < path_count; k++)
        printf(" %s", paths[k].name);
    printf("\n");
    return 0;
}
#endif
