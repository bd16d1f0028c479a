/* The cutting scheme of docs/format.md section 5, without Python: keys, the decision, chunk ends.
 *
 * Never here: Python objects, allocation, I/O, the tests themselves (those are in _scan_paths.h).
 * Invariant: no byte outside the run that was handed in is read, whatever its content, even while
 * another thread writes to it: no address is ever computed from data.
 */
#ifndef PACKSTONE_CUTTING_H
#define PACKSTONE_CUTTING_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define WORD 64           /* positions that are tested together: the bits of one uint64_t */
#define DECISION_WINDOW 64
#define KEY_REACH 32      /* bytes on each side of a cut that its key depends on */
#define SECRET_SIZE 64
#define SMALLEST_AVERAGE ((size_t)4 << 10)
#define LARGEST_AVERAGE ((size_t)8 << 20)
#define FOURTH_TEST_FROM ((size_t)32 << 10)

#define UNLIKELY(x) __builtin_expect(!!(x), 0)

struct siphash_key {
    uint64_t k0, k1;
};

struct chunk_scan;

struct cutter {
    uint8_t lo[16], hi[16];       /* S[b] = lo[b & 15] + hi[b >> 4] mod 256 */
    uint8_t substitute[256];      /* S itself, for the portable path */
    struct siphash_key decision_key, window_key;
    size_t average, minimum, maximum, centre;
    uint64_t early_threshold, late_threshold; /* for lengths below and from the centre */
    uint64_t no_fourth_test;      /* all ones when only three tests are asked for */
    uint64_t gear[256];           /* of the second look */
    unsigned early_bits, late_bits; /* zero bits that it asks for, before and from the centre */
    size_t (*scan)(const struct cutter *, const struct chunk_scan *, const uint8_t *, size_t);
    const char *path;
};

/* Where the words that a scan path looks at lie in their chunk. */
struct chunk_scan {
    const uint8_t *chunk; /* the first byte of the chunk */
    size_t first;         /* candidates before this offset in the chunk do not count */
};

static inline uint64_t load_u64(const uint8_t *bytes)
{
    uint64_t value;
    memcpy(&value, bytes, sizeof value);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    value = __builtin_bswap64(value);
#endif
    return value;
}

static inline struct siphash_key siphash_key_from(const uint8_t *bytes)
{
    return (struct siphash_key){load_u64(bytes), load_u64(bytes + 8)};
}

#define ROTATE(x, n) (((x) << (n)) | ((x) >> (64 - (n))))
#define SIPROUND                                                                                   \
    do {                                                                                           \
        v0 += v1; v1 = ROTATE(v1, 13); v1 ^= v0; v0 = ROTATE(v0, 32);                              \
        v2 += v3; v3 = ROTATE(v3, 16); v3 ^= v2;                                                   \
        v0 += v3; v3 = ROTATE(v3, 21); v3 ^= v0;                                                   \
        v2 += v1; v1 = ROTATE(v1, 17); v1 ^= v2; v2 = ROTATE(v2, 32);                              \
    } while (0)

/* SipHash-2-4 (Aumasson and Bernstein, 2012), 64-bit output. */
static uint64_t siphash24(struct siphash_key key, const uint8_t *data, size_t size)
{
    uint64_t v0 = key.k0 ^ 0x736f6d6570736575u, v1 = key.k1 ^ 0x646f72616e646f6du;
    uint64_t v2 = key.k0 ^ 0x6c7967656e657261u, v3 = key.k1 ^ 0x7465646279746573u;
    uint64_t last = (uint64_t)size << 56;
    size_t whole = size & ~(size_t)7;

    for (size_t i = 0; i < whole; i += 8) {
        uint64_t word = load_u64(data + i);
        v3 ^= word;
        SIPROUND;
        SIPROUND;
        v0 ^= word;
    }
    for (size_t i = whole; i < size; i++)
        last |= (uint64_t)data[i] << (8 * (i - whole));
    v3 ^= last;
    SIPROUND;
    SIPROUND;
    v0 ^= last;
    v2 ^= 0xff;
    SIPROUND;
    SIPROUND;
    SIPROUND;
    SIPROUND;
    return v0 ^ v1 ^ v2 ^ v3;
}

/* Return the length of the chunk if one of the candidates cuts it, else 0.
 *
 * Bit k of `candidates` stands for text[k]. Kept out of line: it runs once in 4,096 bytes, and the
 * scan loops need the registers. */
__attribute__((noinline, cold)) static size_t
decide(const struct cutter *cutter, const struct chunk_scan *where, const uint8_t *text,
       uint64_t candidates)
{
    size_t offset = (size_t)(text - where->chunk);

    for (; candidates; candidates &= candidates - 1) {
        size_t last = offset + (size_t)__builtin_ctzll(candidates);
        uint64_t threshold, decision;
        if (last < where->first)
            continue;
        threshold = last + 1 < cutter->centre ? cutter->early_threshold : cutter->late_threshold;
        decision = siphash24(cutter->decision_key, where->chunk + last + 1 - DECISION_WINDOW,
                             DECISION_WINDOW);
        if (decision < threshold)
            return last + 1;
    }
    return 0;
}

/* Return the candidates among 64 positions, given which of them and of the 64 before pass the two
 * tests: a(i), b(i - 5), a(i - 11) and, unless left out, b(i - 17). */
static inline uint64_t candidates_of(const struct cutter *cutter, uint64_t a, uint64_t b,
                                     uint64_t a_before, uint64_t b_before)
{
    return a & (b << 5 | b_before >> 59) & (a << 11 | a_before >> 53) &
           (b << 17 | b_before >> 47 | cutter->no_fourth_test);
}

/* Return the length of a chunk of whose first `maximum` bytes no candidate cuts any.
 *
 * Long records with few bytes that vary can leave the filter without candidates. A rolling sum of
 * 64 bits still sees what varies in them, so their cuts follow the content too. Rare and slow. */
__attribute__((noinline, cold)) static size_t
second_look(const struct cutter *cutter, const uint8_t *chunk)
{
    size_t position = cutter->minimum - DECISION_WINDOW;
    uint64_t sum = 0;

    /* Zeros are common and give the same sum everywhere: two looks are enough for them. */
    if (!memcmp(chunk + position, chunk + position + 1, cutter->maximum - position - 1)) {
        sum = 0 - cutter->gear[chunk[position]]; /* each of the 64 terms, modulo 2^64 */
        if (!(sum >> (64 - cutter->early_bits)))
            return cutter->minimum;
        return sum >> (64 - cutter->late_bits) ? cutter->maximum : cutter->centre;
    }
    for (; position < cutter->minimum - 1; position++)
        sum = (sum << 1) + cutter->gear[chunk[position]];
    for (; position < cutter->maximum; position++) {
        sum = (sum << 1) + cutter->gear[chunk[position]];
        if (!(sum >> (64 - (position + 1 < cutter->centre ? cutter->early_bits
                                                          : cutter->late_bits))))
            return position + 1;
    }
    return cutter->maximum;
}

/* Return the length of the first chunk of `size` bytes, or 0 if nothing in them cuts it. */
static size_t first_cut(const struct cutter *cutter, const uint8_t *chunk, size_t size)
{
    size_t first = cutter->minimum - 1; /* the first offset that may be a chunk's last */
    size_t limit = size < cutter->maximum ? size : cutter->maximum;
    struct chunk_scan where = {chunk, first};
    size_t words, cut;

    if (limit < cutter->minimum)
        return 0;
    words = (limit - first) / WORD;
    if (words) {
        cut = cutter->scan(cutter, &where, chunk + first, words);
        if (cut)
            return cut;
        where.first += words * WORD;
    }
    if (where.first < limit) { /* the rest, as the end of a word that overlaps what was seen */
        cut = cutter->scan(cutter, &where, chunk + limit - WORD, 1);
        if (cut)
            return cut;
    }
    return limit == cutter->maximum ? second_look(cutter, chunk) : 0;
}

/* Write the ends of the chunks of data[begin..end) to `ends` and return how many there are.
 *
 * `ends` has room for (end - begin) / minimum + 1. A chunk starts at `begin`. Unless `final`, stop
 * at the last end that no byte from `end` on could change. */
static size_t cut_run(const struct cutter *cutter, const uint8_t *data, size_t begin, size_t end,
                      int final, size_t *ends)
{
    size_t count = 0;

    while (begin < end) {
        size_t length = first_cut(cutter, data + begin, end - begin);
        if (!length) {
            if (final)
                ends[count++] = end;
            break;
        }
        begin += length;
        ends[count++] = begin;
    }
    return count;
}

/* Return the key of the cut at `position` of the run data[begin..end). */
static uint64_t cut_key(const struct cutter *cutter, const uint8_t *data, size_t begin, size_t end,
                        size_t position)
{
    size_t from = position - begin < KEY_REACH ? begin : position - KEY_REACH;
    size_t to = end - position < KEY_REACH ? end : position + KEY_REACH;

    return siphash24(cutter->window_key, data + from, to - from);
}

/* Set everything but the scan path; `average` is a power of two within the limits above. */
static void prepare(struct cutter *cutter, const uint8_t *secret, size_t average)
{
    size_t spacing = average >= FOURTH_TEST_FROM ? 4096 : 512; /* bytes per candidate, D */
    uint64_t threshold = (UINT64_MAX / average + 1) * spacing; /* T = 2^64 D / A, both powers of 2 */

    memcpy(cutter->lo, secret, 16);
    memcpy(cutter->hi, secret + 16, 16);
    for (int b = 0; b < 256; b++)
        cutter->substitute[b] = (uint8_t)(cutter->lo[b & 15] + cutter->hi[b >> 4]);
    cutter->decision_key = siphash_key_from(secret + 32);
    cutter->window_key = siphash_key_from(secret + 48);
    cutter->average = average;
    cutter->minimum = average / 2;
    cutter->maximum = average * 4;
    cutter->centre = average / 16 * 13;
    cutter->early_threshold = threshold / 4;
    cutter->late_threshold = threshold * 4;
    cutter->no_fourth_test = average >= FOURTH_TEST_FROM ? 0 : UINT64_MAX;
    for (int b = 0; b < 256; b++)
        cutter->gear[b] = siphash24(cutter->decision_key, &(uint8_t){(uint8_t)b}, 1);
    cutter->early_bits = (unsigned)__builtin_ctzll(average) + 2;
    cutter->late_bits = (unsigned)__builtin_ctzll(average) - 2;
}

#endif
