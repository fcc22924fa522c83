/* namespaces: URIs by number and numbers by URI. */
#include "proto/xml/chars.h"
#include "proto/xml/xml.h"

enum {
    ROWS = (NS_MAX + 63) / 64 * 64, /* those that are no namespace have no length */
    URI_MIN = 8,
};
static const str uris[ROWS] = {
    {"", 0},
#define XML_NS(name, uri) {uri, sizeof(uri) - 1},
#include "proto/xml/namespaces.def"
#undef XML_NS
};

/* A search compares one byte of each row, the length and the two last bytes folded together: that
 * leaves one candidate in nearly every case, so that a miss or a hit costs about a memcmp. */
#define FOLD(n, last, before) (uint8_t)((n) + 7 * (uint8_t)(last) + 31 * (uint8_t)(before))
static const uint8_t folded[ROWS] __attribute__((aligned(16))) = {
    0,
#define XML_NS(name, uri) FOLD(sizeof(uri) - 1, uri[sizeof(uri) - 2], uri[sizeof(uri) - 6]),
#include "proto/xml/namespaces.def"
#undef XML_NS
};

str xml_ns_uri(enum xml_ns ns) { return uris[ns]; }

/* Bit i: keys[i] is key. */
static uint64_t where_16(const uint8_t *keys, uint8_t key)
{
#ifdef __SSE2__
    __m128i equal = _mm_cmpeq_epi8(_mm_load_si128((const __m128i *)keys), _mm_set1_epi8((char)key));
    return (unsigned)_mm_movemask_epi8(equal);
#else
    uint64_t rows = 0;
    for (unsigned i = 0; i < 16; i++)
        rows |= (uint64_t)(keys[i] == key) << i;
    return rows;
#endif
}

/* Without a branch, since where the row stands cannot be predicted. */
static uint64_t rows_with(uint8_t key, const uint8_t *keys)
{
    return where_16(keys, key) | where_16(keys + 16, key) << 16 | where_16(keys + 32, key) << 32 |
           where_16(keys + 48, key) << 48;
}

enum xml_ns xml_ns_find(str uri)
{
    if (uri.n < URI_MIN)
        return NS_OTHER;
    uint8_t key = FOLD(uri.n, uri.p[uri.n - 1], uri.p[uri.n - 5]);
    for (unsigned at = 0; at < ROWS; at += 64)
        for (uint64_t rows = rows_with(key, folded + at); rows; rows &= rows - 1) {
            unsigned row = at + (unsigned)__builtin_ctzll(rows);
            if (uris[row].n == uri.n && same_bytes(uris[row].p, uri.p, uri.n))
                return (enum xml_ns)row;
        }
    return NS_OTHER;
}
