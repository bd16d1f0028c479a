/* The delta coder for sanitizers: what it makes comes back, and no body makes it leave its bounds.
 *
 * With -DSTANDALONE: runs seeded random inputs, argv[1] of them. Otherwise: a libFuzzer target.
 * Every buffer is an allocation of exactly its size, so an access outside it is seen.
 */
#include <stdio.h>
#include <stdlib.h>

#include "_delta_finding.h"
#include "_delta_pieces.h"

static unsigned char *exactly(const unsigned char *data, size_t size)
{
    unsigned char *copy = malloc(size ? size : 1);
    if (!copy)
        abort();
    if (size)
        memcpy(copy, data, size);
    return copy;
}

static void require(int condition, const char *what)
{
    if (!condition) {
        fprintf(stderr, "failed: %s\n", what);
        abort();
    }
}

/* Require that the chunk in pieces is the chunk, with bases whole and with bases in pieces. */
static void compose(const struct layout *layout, const struct bases *bases,
                    const unsigned char *chunk)
{
    struct piece halves[MAX_BASES][2], whole[MAX_BASES];
    unsigned char *joined = malloc(layout->raw_size + 1), *first[MAX_BASES], *second[MAX_BASES];
    for (int parted = 0; parted < 2; parted++) {
        struct texts texts = {bases->count, bases->size, {NULL}, {0}, {0}};
        struct pieces made = {malloc(2 * (layout->raw_size + 1) * sizeof(struct piece)), 0,
                              2 * (layout->raw_size + 1), 0};
        for (int i = 0; i < bases->count; i++) {
            size_t size = bases->length[i], half = size / 2;
            whole[i] = (struct piece){bases->start[i], size};
            first[i] = exactly(bases->start[i], half); /* apart: nothing may run over */
            second[i] = exactly(bases->start[i] + half, size - half);
            halves[i][0] = (struct piece){first[i], half};
            halves[i][1] = (struct piece){second[i], size};
            texts.pieces[i] = parted && half ? halves[i] : &whole[i];
            texts.counts[i] = parted && half ? 2 : 1;
            texts.sizes[i] = size;
        }
        require(joined && made.list, "memory");
        require(compose_body(layout, &texts, &made) == 0, "too many pieces");
        require(made.size == layout->raw_size, "pieces of another size");
        join_pieces(made.list, made.count, joined);
        require(memcmp(joined, chunk, layout->raw_size) == 0, "pieces of another chunk");
        free(made.list);
        for (int i = 0; i < bases->count; i++) {
            free(first[i]);
            free(second[i]);
        }
    }
    free(joined);
}

/* Decode if the body is good; return whether it is. */
static int decode(const unsigned char *body, size_t size, const struct bases *bases,
                  size_t raw_size, unsigned char **result)
{
    struct layout layout;
    if (check_body(body, size, bases->size, raw_size, &layout))
        return 0;
    *result = malloc(raw_size ? raw_size : 1);
    require(*result != NULL, "memory");
    apply_body(&layout, bases, *result);
    compose(&layout, bases, *result);
    return 1;
}

/* The first bytes say how the rest is parted into up to three bases, chunk and a hostile body. */
static void one_input(const unsigned char *data, size_t size)
{
    struct bases bases = {0, 0, {NULL}, {0}};
    struct edits edits = {NULL, 0, 0};
    unsigned char *pieces[5], *body, *result;
    size_t lengths[5], left, made, copied = 0, literals = 0;

    if (size < 8)
        return;
    bases.count = 1 + data[0] % MAX_BASES;
    left = size - 8;
    for (int i = 0; i < 5; i++) {
        lengths[i] = i == 4 ? left : left * data[1 + i] / 256;
        pieces[i] = exactly(data + size - left, lengths[i]);
        left -= lengths[i];
    }
    for (int i = 0; i < bases.count; i++) {
        bases.start[i] = pieces[i];
        bases.length[i] = lengths[i];
        bases.size += lengths[i];
    }

    require(find_edits(pieces[3], lengths[3], &bases, &edits) == NULL, "memory");
    made = body_size(&edits);
    body = malloc(made);
    require(body != NULL, "memory");
    write_body(&edits, pieces[3], body);
    require(decode(body, made, &bases, lengths[3], &result), "own body refused");
    require(memcmp(result, pieces[3], lengths[3]) == 0, "own body gives other bytes");
    for (int i = 0; i < bases.count; i++)
        copied += copied_from(&edits, &bases, i);
    for (size_t i = 0; i < edits.count; i++)
        literals += edits.list[i].literals;
    require(copied + literals == lengths[3], "sums");
    free(result);

    /* the same body damaged in one place, and a body out of nothing */
    body[(data[5] | data[6] << 8) % made] ^= data[7];
    if (decode(body, made, &bases, lengths[3], &result))
        free(result);
    if (decode(pieces[4], lengths[4], &bases, data[6], &result))
        free(result);
    free(body);
    free(edits.list);
    for (int i = 0; i < 5; i++)
        free(pieces[i]);
}

#ifdef STANDALONE
static uint64_t state = 88172645463325252u;

static uint64_t next_random(void) /* xorshift64 */
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

int main(int argc, char **argv)
{
    static unsigned char data[40000];
    long rounds = argc > 1 ? atol(argv[1]) : 1000;
    for (long round = 0; round < rounds; round++) {
        size_t size = next_random() % sizeof data, period = 1 + next_random() % 3000;
        unsigned mask = round % 3 ? 3 : 255;
        for (size_t i = 0; i < size; i++) {
            int repeat = i >= 8 + period && round % 4 && next_random() % 500;
            data[i] = repeat ? data[i - period] : (unsigned char)(next_random() & mask);
        }
        for (int i = 0; i < 8; i++) /* how it is parted */
            data[i] = (unsigned char)next_random();
        one_input(data, size);
    }
    printf("%ld random inputs\n", rounds);
    return 0;
}
#else
int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    one_input(data, size);
    return 0;
}
#endif
