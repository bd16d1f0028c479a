/* A chunk as pieces of other buffers, so that a chain of deltas copies its bytes once: section 4.
 *
 * Applying a delta to pieces gives pieces again: copies are looked up among the pieces of the
 * bases, literals are pieces of the body. Without Python; relies on what check_body checked.
 */
#ifndef PACKSTONE_DELTA_PIECES_H
#define PACKSTONE_DELTA_PIECES_H

#include "_delta_body.h"

struct piece {
    const unsigned char *start;
    size_t end; /* where it ends in the chunk; it begins where the one before ends */
};

/* The bases of a delta: pieces each, laid end to end. */
struct texts {
    int count;
    size_t size; /* of all together */
    const struct piece *pieces[MAX_BASES];
    size_t counts[MAX_BASES], sizes[MAX_BASES];
};

struct pieces {
    struct piece *list;
    size_t count, most; /* no more than `most` are written */
    size_t size;
};

/* Append a piece, joined to the one before where they are neighbours; -1 if there is no room. */
static int add_piece(struct pieces *to, const unsigned char *start, size_t size)
{
    if (size == 0)
        return 0;
    if (to->count) {
        struct piece *last = &to->list[to->count - 1];
        size_t begin = to->count > 1 ? to->list[to->count - 2].end : 0;
        if (last->start + (last->end - begin) == start) {
            last->end += size;
            to->size += size;
            return 0;
        }
    }
    if (to->count == to->most)
        return -1;
    to->size += size;
    to->list[to->count++] = (struct piece){start, to->size};
    return 0;
}

/* Return the number of the piece that holds a place before the end of a text. */
static size_t find_piece(const struct piece *list, size_t count, size_t at)
{
    size_t low = 0, high = count - 1;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (list[middle].end > at)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

/* Append a range of the base text, which may run from one base into the next. */
static int add_copy(struct pieces *to, const struct texts *texts, size_t from, size_t size)
{
    for (int i = 0; size; i++) {
        const struct piece *list = texts->pieces[i];
        size_t left;
        if (from >= texts->sizes[i]) {
            from -= texts->sizes[i];
            continue;
        }
        left = texts->sizes[i] - from < size ? texts->sizes[i] - from : size;
        size -= left;
        for (size_t at = find_piece(list, texts->counts[i], from); left; at++) {
            size_t begin = at ? list[at - 1].end : 0;
            size_t part = list[at].end - from < left ? list[at].end - from : left;
            if (add_piece(to, list[at].start + (from - begin), part))
                return -1;
            from += part;
            left -= part;
        }
        from = 0;
    }
    return 0;
}

/* Write the pieces of a chunk whose body check_body found to be right; -1 if they are too many. */
static int compose_body(const struct layout *layout, const struct texts *texts, struct pieces *to)
{
    struct reader instructions = layout->instructions;
    const unsigned char *literals = layout->literals.at;
    uint32_t count = 0, number = 0;
    size_t next = 0;

    while (to->size < layout->raw_size) {
        take_number(&instructions, &count);
        if (add_piece(to, literals, count))
            return -1;
        literals += count;
        if (to->size == layout->raw_size)
            break;
        take_number(&instructions, &count);
        take_number(&instructions, &number);
        next = (size_t)unfold(next, number);
        if (add_copy(to, texts, next, count))
            return -1;
        next += count;
    }
    return 0;
}

static void join_pieces(const struct piece *list, size_t count, unsigned char *to)
{
    size_t begin = 0;
    for (size_t i = 0; i < count; i++) {
        memcpy(to + begin, list[i].start, list[i].end - begin);
        begin = list[i].end;
    }
}

#endif
