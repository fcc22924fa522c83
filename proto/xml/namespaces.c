/* namespaces: URIs by number and numbers by URI. */
#include "proto/xml/xml.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

static const str uris[NS_MAX] = {
    {"", 0},
#define XML_NS(name, uri) {uri, sizeof(uri) - 1},
#include "proto/xml/namespaces.def"
#undef XML_NS
};

/* A search compares one byte of each row, the length and the two last bytes folded together: that
 * leaves one candidate in nearly every case, so that a miss or a hit costs about a memcmp. */
#define FOLD(n, last, before) (uint8_t)((n) + 7 * (uint8_t)(last) + 31 * (uint8_t)(before))
static const uint8_t folded[(NS_MAX + 63) / 64 * 64] __attribute__((aligned(16))) = {
    0,
#define XML_NS(name, uri) FOLD(sizeof(uri) - 1, uri[sizeof(uri) - 2], uri[sizeof(uri) - 6]),
#include "proto/xml/namespaces.def"
#undef XML_NS
};

str xml_ns_uri(enum xml_ns ns) { return uris[ns]; }

static bool is_row(unsigned row, str uri)
{
    return row > 0 && row < NS_MAX && str_eq(uris[row], uri);
}

/* Bit i: row i has this key. Without a branch, since where the row stands cannot be predicted. */
static uint64_t rows_with(uint8_t key, const uint8_t *keys)
{
    uint64_t rows = 0;
#ifdef __SSE2__
    const __m128i wanted = _mm_set1_epi8((char)key);
    for (unsigned i = 0; i < 64; i += 16) {
        __m128i equal = _mm_cmpeq_epi8(_mm_load_si128((const __m128i *)(keys + i)), wanted);
        rows |= (uint64_t)(unsigned)_mm_movemask_epi8(equal) << i;
    }
#else
    for (unsigned i = 0; i < 64; i++)
        rows |= (uint64_t)(keys[i] == key) << i;
#endif
    return rows;
}

enum xml_ns xml_ns_find(str uri)
{
    if (uri.n < 6)
        return NS_OTHER;
    uint8_t key = FOLD(uri.n, uri.p[uri.n - 1], uri.p[uri.n - 5]);
    for (unsigned at = 0; at < NS_MAX; at += 64)
        for (uint64_t rows = rows_with(key, folded + at); rows; rows &= rows - 1) {
            unsigned row = at + (unsigned)__builtin_ctzll(rows);
            if (is_row(row, uri))
                return (enum xml_ns)row;
        }
    return NS_OTHER;
}
