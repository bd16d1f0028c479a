/* The filter of docs/format.md section 5 on each kind of machine: portable, AVX2, AVX-512, NEON.
 *
 * Never here: which lengths a chunk may have, decisions, Python.
 * Invariant: every path hands the same candidates to decide(). A scan reads text[-128..64 * words)
 * and nothing else, which lies in the chunk because no candidate comes before the minimum (2 KiB).
 *
 * Every path makes f of a whole register of positions in six doubling steps,
 *     x[i] = S[i] + 2 S[i-1],   y[i] = x[i] + 4 x[i-2],   g[i] = y[i] + 16 y[i-4],
 *     u[i] = g[i] + g[i-8],     v[i] = u[i] + u[i-16],    f[i] = v[i] + v[i-32],
 * packs the two tests into the bits of 64-bit words, and combines words. A scan starts two words
 * early: the first fills the registers, the second gives the tests that candidates look back to.
 */
#ifndef PACKSTONE_SCAN_PATHS_H
#define PACKSTONE_SCAN_PATHS_H

#include "_cutting.h"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define HISTORY 63 /* bytes before a position that its f depends on */
#define PORTABLE_BLOCK 1024

/* Plain C. The block is large so that the bytes stored by the first loop have reached the cache
 * before the vectorised loops load them as wider words. */
static size_t scan_portable(const struct cutter *cutter, const struct chunk_scan *where,
                            const uint8_t *text, size_t words)
{
    const uint64_t high_bits = 0x8080808080808080u;
    uint8_t s[PORTABLE_BLOCK + 63], x[PORTABLE_BLOCK + 62], y[PORTABLE_BLOCK + 60];
    uint8_t g[PORTABLE_BLOCK + 56], u[PORTABLE_BLOCK + 48], v[PORTABLE_BLOCK + 32];
    uint8_t f[PORTABLE_BLOCK];
    uint64_t a_before = 0, b_before = 0;
    const uint8_t *stop = text + words * WORD;

    for (const uint8_t *block = text - WORD; block < stop;) {
        size_t size = (size_t)(stop - block) < PORTABLE_BLOCK ? (size_t)(stop - block)
                                                              : PORTABLE_BLOCK;
        const uint8_t *from = block - HISTORY;
        for (size_t i = 0; i < size + HISTORY; i++)
            s[i] = cutter->substitute[from[i]];
        for (size_t i = 0; i < size + 62; i++)
            x[i] = (uint8_t)(s[i + 1] + 2 * s[i]);
        for (size_t i = 0; i < size + 60; i++)
            y[i] = (uint8_t)(x[i + 2] + 4 * x[i]);
        for (size_t i = 0; i < size + 56; i++)
            g[i] = (uint8_t)(y[i + 4] + 16 * y[i]);
        for (size_t i = 0; i < size + 48; i++)
            u[i] = (uint8_t)(g[i + 8] + g[i]);
        for (size_t i = 0; i < size + 32; i++)
            v[i] = (uint8_t)(u[i + 16] + u[i]);
        for (size_t i = 0; i < size; i++)
            f[i] = (uint8_t)(v[i + 32] + v[i]);
        for (size_t i = 0; i < size; i += WORD, block += WORD) {
            uint64_t a = 0, b = 0, candidates;
            for (size_t k = 0; k < WORD; k += 8) {
                uint64_t eight = load_u64(f + i + k);
                uint64_t below_64 = ~(eight | eight << 1) & high_bits, bit_5 = eight << 2;
                /* the multiplication gathers the lowest bits of eight bytes in the highest byte */
                a |= ((below_64 & ~bit_5) >> 7) * 0x0102040810204080u >> 56 << k;
                b |= ((below_64 & bit_5) >> 7) * 0x0102040810204080u >> 56 << k;
            }
            candidates = candidates_of(cutter, a, b, a_before, b_before);
            a_before = a;
            b_before = b;
            if (UNLIKELY(candidates)) { /* decide() passes over those before `text` */
                size_t cut = decide(cutter, where, block, candidates);
                if (cut)
                    return cut;
            }
        }
    }
    return 0;
}

#if defined(__x86_64__)

struct avx2_state {
    __m256i s, x, y, g, u, v; /* of the 32 positions before */
    uint64_t a, b;            /* of the 64 positions before */
};

/* Return `now` moved up by `count` bytes, the highest of `before` coming in below. */
#define AVX2_SHIFT(now, before, count)                                                             \
    _mm256_alignr_epi8(now, _mm256_permute2x128_si256(before, now, 0x21), 16 - (count))

/* Return f + 128 of 32 positions; the 128 comes from the table `lo`. */
__attribute__((target("avx2"), always_inline)) static inline __m256i
avx2_f(struct avx2_state *before, const uint8_t *text, __m256i lo, __m256i hi)
{
    const __m256i nibble = _mm256_set1_epi8(15), high_nibble = _mm256_set1_epi8((char)0xf0);
    __m256i bytes = _mm256_loadu_si256((const __m256i *)(const void *)text);
    __m256i low = _mm256_and_si256(bytes, nibble);
    __m256i high = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), nibble);
    __m256i s = _mm256_add_epi8(_mm256_shuffle_epi8(lo, low), _mm256_shuffle_epi8(hi, high));
    __m256i t = AVX2_SHIFT(s, before->s, 1);
    __m256i x = _mm256_add_epi8(s, _mm256_add_epi8(t, t)), y, g, u, v, f;
    t = AVX2_SHIFT(x, before->x, 2);
    t = _mm256_add_epi8(t, t);
    y = _mm256_add_epi8(x, _mm256_add_epi8(t, t));
    t = AVX2_SHIFT(y, before->y, 4);
    g = _mm256_add_epi8(y, _mm256_and_si256(_mm256_slli_epi16(t, 4), high_nibble));
    u = _mm256_add_epi8(g, AVX2_SHIFT(g, before->g, 8));
    v = _mm256_add_epi8(u, _mm256_permute2x128_si256(before->u, u, 0x21));
    f = _mm256_add_epi8(v, before->v);
    before->s = s;
    before->x = x;
    before->y = y;
    before->g = g;
    before->u = u;
    before->v = v;
    return f;
}

/* Return the candidates among the 64 positions from `text`. */
__attribute__((target("avx2"), always_inline)) static inline uint64_t
avx2_word(const struct cutter *cutter, struct avx2_state *before, const uint8_t *text, __m256i lo,
          __m256i hi)
{
    const __m256i limit_a = _mm256_set1_epi8(32 - 128), limit_b = _mm256_set1_epi8(64 - 128);
    __m256i first = avx2_f(before, text, lo, hi), second = avx2_f(before, text + 32, lo, hi);
    uint64_t a = (uint32_t)_mm256_movemask_epi8(_mm256_cmpgt_epi8(limit_a, first)) |
                 (uint64_t)(uint32_t)_mm256_movemask_epi8(_mm256_cmpgt_epi8(limit_a, second)) << 32;
    uint64_t b = (uint32_t)_mm256_movemask_epi8(_mm256_cmpgt_epi8(limit_b, first)) |
                 (uint64_t)(uint32_t)_mm256_movemask_epi8(_mm256_cmpgt_epi8(limit_b, second)) << 32;
    uint64_t candidates;
    b &= ~a;
    candidates = candidates_of(cutter, a, b, before->a, before->b);
    before->a = a;
    before->b = b;
    return candidates;
}

__attribute__((target("avx2"))) static size_t
scan_avx2(const struct cutter *cutter, const struct chunk_scan *where, const uint8_t *text,
          size_t words)
{
    /* Compares are signed here, so f needs 128 added. Its weights add up to 8 * 255 = -8 mod 256,
     * so 16 added to every S make -128 = 128. */
    __m256i lo = _mm256_add_epi8(
        _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)cutter->lo)),
        _mm256_set1_epi8(16));
    __m256i hi =
        _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)cutter->hi));
    struct avx2_state before = {0};

    avx2_word(cutter, &before, text - 2 * WORD, lo, hi);
    avx2_word(cutter, &before, text - WORD, lo, hi);
    for (const uint8_t *stop = text + words * WORD; text < stop; text += WORD) {
        uint64_t candidates = avx2_word(cutter, &before, text, lo, hi);
        if (UNLIKELY(candidates)) {
            size_t cut = decide(cutter, where, text, candidates);
            if (cut)
                return cut;
        }
    }
    return 0;
}

struct avx512_state {
    __m512i s, x, y, g, u, v; /* of the 64 positions before, like the rest */
    uint64_t a, b;
};

#define AVX512_SHIFT(now, before, count)                                                           \
    _mm512_alignr_epi8(now, _mm512_alignr_epi64(now, before, 6), 16 - (count))

__attribute__((target("avx512f,avx512bw"), always_inline)) static inline uint64_t
avx512_word(const struct cutter *cutter, struct avx512_state *before, const uint8_t *text,
            __m512i lo, __m512i hi)
{
    const __m512i nibble = _mm512_set1_epi8(15), high_nibble = _mm512_set1_epi8((char)0xf0);
    __m512i bytes = _mm512_loadu_si512((const void *)text);
    __m512i low = _mm512_and_si512(bytes, nibble);
    __m512i high = _mm512_and_si512(_mm512_srli_epi16(bytes, 4), nibble);
    __m512i s = _mm512_add_epi8(_mm512_shuffle_epi8(lo, low), _mm512_shuffle_epi8(hi, high));
    __m512i t = AVX512_SHIFT(s, before->s, 1);
    __m512i x = _mm512_add_epi8(s, _mm512_add_epi8(t, t)), y, g, u, v, f;
    uint64_t a, b, candidates;
    t = AVX512_SHIFT(x, before->x, 2);
    t = _mm512_add_epi8(t, t);
    y = _mm512_add_epi8(x, _mm512_add_epi8(t, t));
    t = AVX512_SHIFT(y, before->y, 4);
    g = _mm512_add_epi8(y, _mm512_and_si512(_mm512_slli_epi16(t, 4), high_nibble));
    u = _mm512_add_epi8(g, _mm512_alignr_epi64(g, before->g, 7));
    v = _mm512_add_epi8(u, _mm512_alignr_epi64(u, before->u, 6));
    f = _mm512_add_epi8(v, _mm512_alignr_epi64(v, before->v, 4));
    a = _mm512_cmplt_epu8_mask(f, _mm512_set1_epi8(32));
    b = _mm512_cmplt_epu8_mask(f, _mm512_set1_epi8(64)) & ~a;
    candidates = candidates_of(cutter, a, b, before->a, before->b);
    *before = (struct avx512_state){s, x, y, g, u, v, a, b};
    return candidates;
}

__attribute__((target("avx512f,avx512bw"))) static size_t
scan_avx512(const struct cutter *cutter, const struct chunk_scan *where, const uint8_t *text,
            size_t words)
{
    __m512i lo = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(const void *)cutter->lo));
    __m512i hi = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(const void *)cutter->hi));
    struct avx512_state before = {0};

    avx512_word(cutter, &before, text - 2 * WORD, lo, hi);
    avx512_word(cutter, &before, text - WORD, lo, hi);
    for (const uint8_t *stop = text + words * WORD; text < stop; text += WORD) {
        uint64_t candidates = avx512_word(cutter, &before, text, lo, hi);
        if (UNLIKELY(candidates)) {
            size_t cut = decide(cutter, where, text, candidates);
            if (cut)
                return cut;
        }
    }
    return 0;
}

#elif defined(__aarch64__)

struct neon_state {
    uint8x16_t s, x, y, g, u; /* of the 16 positions before */
    uint8x16_t v[2];          /* of the 32 positions before */
    uint64_t a, b;            /* of the 64 positions before */
};

static inline uint8x16_t neon_f(struct neon_state *before, const uint8_t *text, uint8x16_t lo,
                                uint8x16_t hi)
{
    uint8x16_t bytes = vld1q_u8(text);
    uint8x16_t s = vaddq_u8(vqtbl1q_u8(lo, vandq_u8(bytes, vdupq_n_u8(15))),
                            vqtbl1q_u8(hi, vshrq_n_u8(bytes, 4)));
    uint8x16_t x = vaddq_u8(s, vshlq_n_u8(vextq_u8(before->s, s, 15), 1));
    uint8x16_t y = vaddq_u8(x, vshlq_n_u8(vextq_u8(before->x, x, 14), 2));
    uint8x16_t g = vaddq_u8(y, vshlq_n_u8(vextq_u8(before->y, y, 12), 4));
    uint8x16_t u = vaddq_u8(g, vextq_u8(before->g, g, 8));
    uint8x16_t v = vaddq_u8(u, before->u);
    uint8x16_t f = vaddq_u8(v, before->v[0]);
    before->s = s;
    before->x = x;
    before->y = y;
    before->g = g;
    before->u = u;
    before->v[0] = before->v[1];
    before->v[1] = v;
    return f;
}

/* Return one bit for each byte of four masks of zeros and ones, the first byte's bit lowest. */
static inline uint64_t neon_bits(const uint8x16_t masks[4])
{
    static const uint8_t weights[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    uint8x16_t weight = vld1q_u8(weights);
    uint8x16_t low = vpaddq_u8(vandq_u8(masks[0], weight), vandq_u8(masks[1], weight));
    uint8x16_t high = vpaddq_u8(vandq_u8(masks[2], weight), vandq_u8(masks[3], weight));
    uint8x16_t sums = vpaddq_u8(low, high);
    return vgetq_lane_u64(vreinterpretq_u64_u8(vpaddq_u8(sums, sums)), 0);
}

static inline uint64_t neon_word(const struct cutter *cutter, struct neon_state *before,
                                 const uint8_t *text, uint8x16_t lo, uint8x16_t hi)
{
    uint8x16_t below_32[4], below_64[4];
    uint64_t a, b, candidates;
    for (int k = 0; k < 4; k++) {
        uint8x16_t f = neon_f(before, text + 16 * k, lo, hi);
        below_32[k] = vcltq_u8(f, vdupq_n_u8(32));
        below_64[k] = vcltq_u8(f, vdupq_n_u8(64));
    }
    a = neon_bits(below_32);
    b = neon_bits(below_64) & ~a;
    candidates = candidates_of(cutter, a, b, before->a, before->b);
    before->a = a;
    before->b = b;
    return candidates;
}

static size_t scan_neon(const struct cutter *cutter, const struct chunk_scan *where,
                        const uint8_t *text, size_t words)
{
    uint8x16_t lo = vld1q_u8(cutter->lo), hi = vld1q_u8(cutter->hi), zero = vdupq_n_u8(0);
    struct neon_state before = {zero, zero, zero, zero, zero, {zero, zero}, 0, 0};

    neon_word(cutter, &before, text - 2 * WORD, lo, hi);
    neon_word(cutter, &before, text - WORD, lo, hi);
    for (const uint8_t *stop = text + words * WORD; text < stop; text += WORD) {
        uint64_t candidates = neon_word(cutter, &before, text, lo, hi);
        if (UNLIKELY(candidates)) {
            size_t cut = decide(cutter, where, text, candidates);
            if (cut)
                return cut;
        }
    }
    return 0;
}

#endif

struct scan_path {
    const char *name;
    size_t (*scan)(const struct cutter *, const struct chunk_scan *, const uint8_t *, size_t);
};

/* Write the paths that this machine can take, best first, and return their number (at most 3). */
static int usable_paths(struct scan_path paths[3])
{
    int count = 0;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw"))
        paths[count++] = (struct scan_path){"avx512", scan_avx512};
    if (__builtin_cpu_supports("avx2"))
        paths[count++] = (struct scan_path){"avx2", scan_avx2};
#elif defined(__aarch64__)
    paths[count++] = (struct scan_path){"neon", scan_neon};
#endif
    paths[count++] = (struct scan_path){"portable", scan_portable};
    return count;
}

#endif
