/* The layout of a delta's body: docs/format.md section 4, without Python.
 *
 * Edits become a body with body_size and write_body; a body becomes the chunk again with
 * check_body, which trusts nothing, and apply_body, which relies on what was checked.
 */
#ifndef PACKSTONE_DELTA_BODY_H
#define PACKSTONE_DELTA_BODY_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define MAX_BASES 3
/* Of a chunk or a base; as MAX_RAW_SIZE of compression.py. Three bases have fewer than 2**24
 * anchors, and a folded distance fits in 32 bits. */
#define MAX_SIZE ((size_t)64 << 20)

struct bases {
    int count;
    size_t size; /* of all together */
    const unsigned char *start[MAX_BASES];
    size_t length[MAX_BASES];
};

/* Literals of the chunk, then a copy out of the bases laid end to end. */
struct edit {
    uint32_t literals, copied, from;
};

struct edits {
    struct edit *list;
    size_t count, room;
};

/* Return how many bytes of the chunk come from one base. */
static size_t copied_from(const struct edits *edits, const struct bases *bases, int number)
{
    size_t begin = 0, end, sum = 0;
    for (int i = 0; i < number; i++)
        begin += bases->length[i];
    end = begin + bases->length[number];
    for (size_t i = 0; i < edits->count; i++) {
        size_t from = edits->list[i].from, to = from + edits->list[i].copied;
        from = from > begin ? from : begin;
        to = to < end ? to : end;
        sum += to > from ? to - from : 0;
    }
    return sum;
}

/* --- edits to a body --- */

/* Write a number at `to`, or only count if that is NULL; return how many bytes it takes. */
static size_t put_number(unsigned char *to, uint32_t number)
{
    size_t size = 0;
    do {
        if (to)
            to[size] = (unsigned char)((number & 127) | (number > 127 ? 128 : 0));
        number >>= 7;
        size++;
    } while (number);
    return size;
}

/* Fold the signed distance to - from into a number: 0, -1, 1, -2 ... are 0, 1, 2, 3 ... */
static uint32_t fold(uint32_t from, uint32_t to)
{
    return to >= from ? 2 * (to - from) : 2 * (from - to) - 1;
}

static size_t put_edits(const struct edits *edits, unsigned char *to)
{
    uint32_t next = 0;
    size_t size = 0;
    for (size_t i = 0; i < edits->count; i++) {
        struct edit edit = edits->list[i];
        size += put_number(to ? to + size : NULL, edit.literals);
        if (edit.copied == 0)
            break; /* only the last one */
        size += put_number(to ? to + size : NULL, edit.copied);
        size += put_number(to ? to + size : NULL, fold(next, edit.from));
        next = edit.from + edit.copied;
    }
    return size;
}

static size_t body_size(const struct edits *edits)
{
    size_t instructions = put_edits(edits, NULL);
    size_t size = put_number(NULL, (uint32_t)instructions) + instructions;
    for (size_t i = 0; i < edits->count; i++)
        size += edits->list[i].literals;
    return size;
}

static void write_body(const struct edits *edits, const unsigned char *chunk, unsigned char *to)
{
    to += put_number(to, (uint32_t)put_edits(edits, NULL));
    to += put_edits(edits, to);
    for (size_t i = 0; i < edits->count; i++) {
        struct edit edit = edits->list[i];
        memcpy(to, chunk, edit.literals);
        to += edit.literals;
        chunk += (size_t)edit.literals + edit.copied;
    }
}

/* --- a body to the chunk --- */

struct reader {
    const unsigned char *at, *end;
};

/* Where the parts of a body are that check_body found to be right. */
struct layout {
    struct reader instructions, literals;
    size_t raw_size;
};

/* Take a number of at most five bytes and 32 bits; return 0, or -1 if there is none. */
static int take_number(struct reader *reader, uint32_t *number)
{
    uint64_t value = 0;
    for (int shift = 0; shift < 35 && reader->at < reader->end; shift += 7) {
        unsigned char byte = *reader->at++;
        value |= (uint64_t)(byte & 127) << shift;
        if (byte < 128) {
            *number = (uint32_t)value;
            return value <= UINT32_MAX ? 0 : -1;
        }
    }
    return -1;
}

/* Return where a folded distance leads from `next`, negative where that is before the bases. */
static int64_t unfold(size_t next, uint32_t number)
{
    return number & 1 ? (int64_t)next - 1 - (number >> 1) : (int64_t)next + (number >> 1);
}

static const char *check_body(const unsigned char *body, size_t size, size_t base_size,
                              size_t raw_size, struct layout *layout)
{
    struct reader all = {body, body + size}, instructions;
    size_t made = 0, literals = 0, next = 0;
    uint32_t count, number;

    if (take_number(&all, &count) || count > (size_t)(all.end - all.at))
        return "the delta is shorter than its instructions";
    instructions = (struct reader){all.at, all.at + count};
    all.at += count;
    layout->instructions = instructions;
    layout->literals = all;
    layout->raw_size = raw_size;
    while (made < raw_size) {
        int64_t from;
        if (take_number(&instructions, &count))
            return "an instruction of the delta is cut off";
        if (count > raw_size - made || count > (size_t)(all.end - all.at) - literals)
            return "the delta inserts more than there is";
        made += count;
        literals += count;
        if (made == raw_size)
            break;
        if (take_number(&instructions, &count) || take_number(&instructions, &number))
            return "an instruction of the delta is cut off";
        from = unfold(next, number);
        if (count == 0 || count > raw_size - made || from < 0 || (uint64_t)from > base_size ||
            count > base_size - (size_t)from)
            return "the delta copies what is not in its bases";
        made += count;
        next = (size_t)from + count;
    }
    if (instructions.at != instructions.end || literals != (size_t)(all.end - all.at))
        return "the delta has bytes left over";
    return NULL;
}

/* Make the chunk of a body that check_body found to be right. */
static void apply_body(const struct layout *layout, const struct bases *bases, unsigned char *to)
{
    struct reader instructions = layout->instructions;
    const unsigned char *literals = layout->literals.at, *end = to + layout->raw_size;
    uint32_t count = 0, number = 0;
    size_t next = 0;

    while (to < end) {
        size_t from;
        take_number(&instructions, &count);
        memcpy(to, literals, count);
        literals += count;
        to += count;
        if (to == end)
            break;
        take_number(&instructions, &count);
        take_number(&instructions, &number);
        from = (size_t)unfold(next, number);
        next = from + count;
        for (int i = 0; count; i++) { /* a copy may run from one base into the next */
            size_t have = bases->length[i];
            if (from < have) {
                size_t part = have - from < count ? have - from : count;
                memcpy(to, bases->start[i] + from, part);
                to += part;
                count -= (uint32_t)part;
                from = have;
            }
            from -= have;
        }
    }
}

#endif
