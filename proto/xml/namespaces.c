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
static const uint8_t folded[(NS_MAX + 15) / 16 * 16] __attribute__((aligned(16))) = {
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

enum xml_ns xml_ns_find(str uri)
{
    if (uri.n < 6)
        return NS_OTHER;
    uint8_t key = FOLD(uri.n, uri.p[uri.n - 1], uri.p[uri.n - 5]);
#ifdef __SSE2__
    const __m128i keys = _mm_set1_epi8((char)key);
    for (unsigned at = 0; at < NS_MAX; at += 16) {
        __m128i rows = _mm_load_si128((const __m128i *)(folded + at));
        unsigned mask = (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(rows, keys));
        for (; mask; mask &= mask - 1)
            if (is_row(at + (unsigned)__builtin_ctz(mask), uri))
                return (enum xml_ns)(at + (unsigned)__builtin_ctz(mask));
    }
#else
    for (unsigned at = 1; at < NS_MAX; at++)
        if (folded[at] == key && is_row(at, uri))
            return (enum xml_ns)at;
#endif
    return NS_OTHER;
}
