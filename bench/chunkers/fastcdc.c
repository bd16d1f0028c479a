/* Keyed FastCDC with normalised chunking (Xia et al., 2016 and 2020), for comparison only.
 *
 * The published masks are replaced by thresholds on the whole 64-bit gear hash: a mask of n high
 * bits is the threshold 2^(64 - n), and thresholds can be tuned to any mean size. The gear table
 * comes from the caller's key. compare.py compiles this on the fly.
 */
#include <stddef.h>
#include <stdint.h>

size_t fastcdc_cut(const uint64_t gear[256], const uint8_t *data, size_t size, size_t minimum,
                   size_t centre, size_t maximum, uint64_t early, uint64_t late, size_t *ends)
{
    size_t count = 0;

    for (size_t begin = 0; begin < size;) {
        size_t limit = size - begin < maximum ? size : begin + maximum;
        size_t middle = begin + centre < limit ? begin + centre : limit;
        size_t i = begin + minimum;
        uint64_t hash = 0;
        if (i > limit)
            i = limit;
        for (; i < middle; i++) {
            hash = (hash << 1) + gear[data[i]];
            if (hash < early)
                goto found;
        }
        for (; i < limit; i++) {
            hash = (hash << 1) + gear[data[i]];
            if (hash < late)
                goto found;
        }
        i = limit - 1;
    found:
        begin = i + 1;
        ends[count++] = begin;
    }
    return count;
}
