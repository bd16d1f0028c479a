/* What a chunk and its bases have in common. How it is found is no part of the format.
 *
 * The search runs along chunk and base with a wide compare. At a mismatch it looks for the next 32
 * bytes that the base has too: close by first, then in a table of the base's anchors, which are
 * the 32 bytes at every 16th place. So 47 bytes in common are found wherever they were moved from.
 * Before a long search samples tell whether there is anything to find: a base may be the wrong one.
 */
#ifndef PACKSTONE_DELTA_FINDING_H
#define PACKSTONE_DELTA_FINDING_H

#include <stdlib.h>

#include "_delta_body.h"

#define ANCHOR ((size_t)32)
#define STRIDE ((size_t)16)
#define SKIP ((size_t)4096) /* how far to look close by: some rows */
#define SAMPLES ((size_t)16)
#define SAMPLE_SIZE ((size_t)2 << 10)
#define LONG_SEARCH ((size_t)64 << 10)

static const char no_memory[] = "out of memory";

static uint64_t load64(const unsigned char *at)
{
    uint64_t value;
    memcpy(&value, at, 8);
    return value;
}

static int same_anchor(const unsigned char *a, const unsigned char *b)
{
    return load64(a) == load64(b) && memcmp(a + 8, b + 8, ANCHOR - 8) == 0;
}

/* Return how many bytes a and b have in common from their start, at most `limit`. */
static size_t common_prefix(const unsigned char *a, const unsigned char *b, size_t limit)
{
    size_t i = 0;
    while (i + 32 <= limit) {
        uint64_t differ = (load64(a + i) ^ load64(b + i)) | (load64(a + i + 8) ^ load64(b + i + 8)) |
                          (load64(a + i + 16) ^ load64(b + i + 16)) |
                          (load64(a + i + 24) ^ load64(b + i + 24));
        if (differ)
            break;
        i += 32;
    }
    while (i + 8 <= limit && load64(a + i) == load64(b + i))
        i += 8;
    while (i < limit && a[i] == b[i])
        i++;
    return i;
}

/* --- the table of anchors --- */

struct table {
    uint32_t *slots; /* 0: empty, else a tag of 8 bits and 1 + the number of an anchor in 24 */
    int shift;       /* a hash >> shift is a slot, the 8 bits below it are the tag */
};

static uint64_t hash_anchor(const unsigned char *at)
{
    /* odd constants from the digits of pi; the top bits of such a sum depend on all 32 bytes */
    return load64(at) * 0x243f6a8885a308d3u + load64(at + 8) * 0x13198a2e03707345u +
           load64(at + 16) * 0xa4093822299f31d1u + load64(at + 24) * 0x082efa98ec4e6c89u;
}

static uint32_t tag_of(const struct table *table, uint64_t hash)
{
    return (uint32_t)(hash >> (table->shift - 8)) << 24;
}

static const char *build_table(struct table *table, const unsigned char *base, size_t size)
{
    int bits = 8;
    /* At most half full: an anchor that lost its slot to a later one is not found. */
    while (((size_t)1 << bits) < 2 * size / STRIDE)
        bits++;
    table->shift = 64 - bits;
    table->slots = calloc((size_t)1 << bits, sizeof *table->slots);
    if (!table->slots)
        return no_memory;
    for (size_t i = 0; i * STRIDE + ANCHOR <= size; i++) {
        uint64_t hash = hash_anchor(base + i * STRIDE);
        table->slots[hash >> table->shift] = tag_of(table, hash) | (uint32_t)(i + 1);
    }
    return NULL;
}

/* Find an anchor of the base that equals the 32 bytes at `wanted`. */
static int look_up(const struct table *table, const unsigned char *base,
                   const unsigned char *wanted, size_t *from)
{
    uint64_t hash = hash_anchor(wanted);
    uint32_t slot = table->slots[hash >> table->shift];

    if (((slot ^ tag_of(table, hash)) >> 24) || slot == 0) /* a tag may be 0 */
        return 0;
    *from = ((slot & 0xffffff) - 1) * STRIDE;
    return same_anchor(wanted, base + *from);
}

/* --- the search --- */

static const char *add_edit(struct edits *edits, size_t literals, size_t copied, size_t from)
{
    if (edits->count == edits->room) {
        size_t room = edits->room ? 2 * edits->room : 64;
        struct edit *list = realloc(edits->list, room * sizeof *list);
        if (!list)
            return no_memory;
        edits->list = list;
        edits->room = room;
    }
    edits->list[edits->count++] =
        (struct edit){(uint32_t)literals, (uint32_t)copied, (uint32_t)from};
    return NULL;
}

/* What the search for the next copy needs to know. */
struct search {
    const unsigned char *chunk, *base;
    size_t size, base_size;
    size_t run;  /* where the literals start that are not written yet */
    size_t next; /* where the last copy ended in the base */
    struct table table;
};

/* Find the next copy near where the last one ended: after a few bytes that were replaced, or after
 * bytes of the base that the chunk lacks. Most chunks of an edited table need nothing else. What
 * is passed over in the base is passed once, and one failure ends these searches: linear time.
 */
static int find_near(const struct search *search, size_t *place, size_t *from)
{
    const unsigned char *chunk = search->chunk + search->run, *base = search->base + search->next;
    size_t left = search->size - search->run, base_left = search->base_size - search->next;

    for (size_t i = 0; i <= ANCHOR && i + ANCHOR <= left && i + ANCHOR <= base_left; i++) {
        if (same_anchor(chunk + i, base + i)) {
            *place = search->run + i;
            *from = search->next + i;
            return 1;
        }
    }
    for (size_t i = 1; left >= ANCHOR && i <= SKIP && i + ANCHOR <= base_left; i++) {
        if (same_anchor(chunk, base + i)) {
            *place = search->run;
            *from = search->next + i;
            return 1;
        }
    }
    return 0;
}

/* Return whether samples of what is left of the chunk, if that is much, are anywhere in the base.
 * Where half of it is, they miss that once in 65,536 times; where less is, a delta is of no use.
 */
static int promising(const struct search *search)
{
    size_t left = search->size - search->run, from;

    if (left < LONG_SEARCH)
        return 1;
    for (size_t i = 0; i < SAMPLES; i++) {
        const unsigned char *sample = search->chunk + search->run + left / SAMPLES * i;
        for (size_t at = 0; at < SAMPLE_SIZE; at++) {
            if (look_up(&search->table, search->base, sample + at, &from))
                return 1;
        }
    }
    return 0;
}

/* Find the next copy anywhere; bytes replaced in place come first. */
static int find_anywhere(const struct search *search, size_t *place, size_t *from)
{
    for (size_t at = search->run; at + ANCHOR <= search->size; at++) {
        const unsigned char *wanted = search->chunk + at;
        size_t along = search->next + (at - search->run);

        *place = at;
        *from = along;
        if (along + ANCHOR <= search->base_size && same_anchor(wanted, search->base + along))
            return 1;
        if (look_up(&search->table, search->base, wanted, from))
            return 1;
    }
    return 0;
}

/* Find the edits with all bases in one piece of memory; give up on no bytes, only on no memory. */
static const char *find_in_one(const unsigned char *chunk, size_t size, const unsigned char *base,
                               size_t base_size, struct edits *edits)
{
    struct search search = {chunk, base, size, base_size, 0, 0, {NULL, 0}};
    const char *problem = NULL;
    size_t place, from, copied, limit;

    while (!problem && search.run < size) {
        if (search.table.slots || !find_near(&search, &place, &from)) {
            if (!search.table.slots) {
                problem = build_table(&search.table, base, base_size);
                if (problem || !promising(&search))
                    break;
            }
            if (!find_anywhere(&search, &place, &from))
                break;
        }
        while (place > search.run && from > 0 && chunk[place - 1] == base[from - 1]) {
            place--;
            from--;
        }
        limit = size - place < base_size - from ? size - place : base_size - from;
        copied = common_prefix(chunk + place, base + from, limit);
        problem = add_edit(edits, place - search.run, copied, from);
        search.run = place + copied;
        search.next = from + copied;
    }
    free(search.table.slots);
    if (!problem && search.run < size)
        problem = add_edit(edits, size - search.run, 0, 0);
    return problem;
}

static const char *find_edits(const unsigned char *chunk, size_t size, const struct bases *bases,
                              struct edits *edits)
{
    unsigned char *joined;
    const char *problem;
    size_t filled = 0;

    if (bases->count == 1)
        return find_in_one(chunk, size, bases->start[0], bases->size, edits);
    joined = malloc(bases->size + 1);
    if (!joined)
        return no_memory;
    for (int i = 0; i < bases->count; i++) {
        if (bases->length[i])
            memcpy(joined + filled, bases->start[i], bases->length[i]);
        filled += bases->length[i];
    }
    problem = find_in_one(chunk, size, joined, bases->size, edits);
    free(joined);
    return problem;
}

#endif
