/* scan.h: the scanner's state, shared by scan.c (which walks), element.h (which knows what a tag
 * means: attributes, namespaces, index), state.c (its life) and header.c. For these files only.
 *
 * A saved state is the head of struct xml_scan up to `index`, then the used parts of the index and
 * of the three stacks, one after another. */
#ifndef PEMBERLEY_PROTO_XML_SCAN_H
#define PEMBERLEY_PROTO_XML_SCAN_H

#include "proto/xml/xml.h"

enum scan_state {
    SCAN_ITEM,
    SCAN_DECLARATION,
    SCAN_TEXT,
    SCAN_LT, /* behind '<' */
    SCAN_NAME,
    SCAN_TAG,
    SCAN_ATTR_NAME,
    SCAN_EQUALS,
    SCAN_QUOTE,
    SCAN_VALUE,
    SCAN_EMPTY, /* behind the '/' of <a/> */
    SCAN_BANG,  /* behind "<!" */
    SCAN_CDATA,
    SCAN_END_NAME,
    SCAN_END_SPACE,
    SCAN_DONE,
};

enum {
    SCAN_ATTRS = XML_ATTRIBUTES_MAX + XML_NAMESPACES_MAX,
    SCAN_BINDINGS = 256, /* declarations in force at one place: bounds the search for a prefix */
    SCAN_DECLARATION_MAX = 256,
};

/* An open element. */
struct scan_open {
    uint32_t name;
    uint16_t name_len, prefix_len;
    uint16_t bindings;   /* how many were in force outside of it */
    uint16_t default_ns; /* and which was the default one */
};
struct scan_attr {
    uint32_t name;
    uint16_t name_len, prefix_len;
};
/* xmlns or xmlns:prefix. */
struct scan_binding {
    uint32_t prefix, uri, uri_len;
    uint16_t prefix_len; /* 0: the default namespace */
    bool special;        /* the URI as written is not what it means */
};

struct xml_scan {
    uint32_t pos;
    uint32_t token; /* where the name, value or markup that pos is in began */
    uint32_t colon; /* where it stands in that name; 0: no prefix */
    uint32_t gap;   /* in a tag: the end of the name or attribute before */
    uint32_t elements;
    uint64_t seen; /* a bit for each kind of attribute name in this tag (see is_duplicate) */
    /* Not bit-fields: clang loads neighbours at once, and behind narrow stores that stalls (a fifth
     * of the scan). */
    enum scan_state state;
    enum xml_expect expect;
    enum xml_item what;
    unsigned char quote;
    bool special;  /* the value has references or white space to normalise */
    bool declares; /* the attribute is xmlns or xmlns:prefix */
    bool prefixed; /* the tag has an attribute with a prefix that needs looking up */
    /* Small numbers, but of 32 bits: loaded in pairs behind 16-bit stores they would stall (a tenth
     * of the scan). */
    uint32_t depth, nbinding, nattr;
    uint32_t declared;   /* declarations of this tag */
    uint32_t default_ns; /* 1 + the default one's binding; 0: from outside of the item */

    struct xml_index index;
    const struct xml_limits *limits;
    const struct xml_header *header;
    uint16_t depth_max, attributes_max, namespaces_max, name_max; /* no higher than the stacks */
    struct scan_open open[XML_DEPTH_MAX]; /* [depth]: the element whose start tag this is */
    struct scan_binding binding[SCAN_BINDINGS];
    struct scan_attr attr[SCAN_ATTRS];
};

/* header.c. What a URI as written is by number (enum xml_ns); what the header's prefix i means. */
uint16_t scan_uri_number(str raw, bool special);
str xml_header_uri(const struct xml_header *h, unsigned i);

/* declaration.c: <?xml version='1.0' …?> at the beginning of bytes. */
nodiscard err scan_declaration(str bytes, uint32_t *used);

#endif
