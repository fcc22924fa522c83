/* xml: the room that reads and writes XML as XMPP uses it (RFC 6120 11, Namespaces in XML 1.0).
 *
 *   scan.c    framing and index in one pass over the received bytes, no allocation. What it
 *             accepts, expat accepts with the same tree; what expat rejects, it rejects
 *             (tests/fuzz).
 *   cursor.c  walking through bytes that the scanner has accepted
 *   writer.c  building new XML with escaping
 *   splice.c  editing accepted bytes without serialising them again
 *
 * Positions are offsets (uint32_t) from the first byte of the item, so that bytes and index can be
 * moved, also into other processes, without repair. */
#ifndef PEMBERLEY_XML_H
#define PEMBERLEY_XML_H

#include "pemberley/arena.h"
#include "pemberley/err.h"
#include "pemberley/str.h"

/* ---- scan ---- */

struct xml_span {
    uint32_t off, len; /* off 0: absent (nothing interesting can stand at the first byte, '<') */
};

struct xml_limits {
    uint32_t bytes_max;      /* of one item */
    uint16_t depth_max;      /* elements within elements, at most XML_DEPTH_MAX */
    uint16_t attributes_max; /* per element, at most XML_ATTRIBUTES_MAX */
    uint16_t namespaces_max; /* declarations per element, at most XML_NAMESPACES_MAX */
    uint16_t name_max;       /* bytes of an element or attribute name */
    uint32_t elements_max;   /* per item */
    uint16_t whitespace_max; /* bytes between items in a row */
};
enum {
    XML_DEPTH_MAX = 256,
    XML_ATTRIBUTES_MAX = 256,
    XML_NAMESPACES_MAX = 128,
    XML_CHILDREN = 16,        /* first-level children the index lists; `children` counts all */
    XML_HEADER_PREFIXES = 16, /* prefixes a stream header may declare besides xmlns */
};

/* Namespaces the index knows by number: rows of proto/xml/namespaces.def. 0 is any other. */
enum xml_ns {
    NS_OTHER,
#define XML_NS(name, uri) NS_##name,
#include "proto/xml/namespaces.def"
#undef XML_NS
    NS_MAX
};
str xml_ns_uri(enum xml_ns ns); /* "" for NS_OTHER */
enum xml_ns xml_ns_find(str uri);

struct xml_child {
    uint32_t off, len; /* the whole element */
    uint32_t name_off; /* local name */
    uint16_t name_len;
    uint16_t ns;            /* enum xml_ns */
    struct xml_span ns_uri; /* as written; absent when it is inherited from outside the item */
};

/* What the scanner says about one top-level element. Attribute values are raw: `entities` tells
 * whether any of them holds a reference (or a tab or line end, which XML reads as a space). */
struct xml_index {
    uint32_t len;      /* bytes of the element */
    uint32_t name_off; /* local name of the root */
    uint16_t name_len;
    uint16_t ns;            /* enum xml_ns of the root */
    struct xml_span ns_uri; /* the root's own xmlns="…" (or xmlns:p) value; absent: inherited */
    uint32_t splice;        /* just behind the root's name: where attributes are put in */
    uint32_t open_len;      /* bytes of the start tag, '>' included */
    /* Values of un-prefixed attributes, and of xml:lang. */
    struct xml_span to, from, id, type, lang;
    /* Where the whole attribute stands, with the white space before it (for cutting it out). */
    struct xml_span to_attr, from_attr;
    bool entities;
    bool root_prefixed;       /* the root's name has a prefix */
    bool empty;               /* <a/>: there is no end tag */
    uint16_t header_prefixes; /* bit i: prefix i of the stream header is used and not redeclared */
    uint16_t children;        /* all child elements */
    uint16_t nchild;          /* those listed */
    struct xml_child child[XML_CHILDREN];
};
/* Bytes of an index that need to travel: unused rows of child[] are left out. */
size_t xml_index_size(const struct xml_index *x);

enum xml_item {
    XML_NONE,        /* no bytes left */
    XML_DECLARATION, /* <?xml …?>: only as the very first item of a stream */
    XML_HEADER,      /* a stream's start tag, left open: only where one is expected */
    XML_ELEMENT,     /* a complete element at stream level */
    XML_WHITESPACE,  /* between items */
    XML_CLOSE,       /* the end tag of the stream header */
};

/* One header's declarations, which all items of the stream inherit. */
struct xml_header {
    char name[64]; /* qualified name of the root, for the end tag */
    uint8_t name_len;
    uint16_t default_ns; /* enum xml_ns of the default namespace */
    uint8_t prefixes;
    struct {
        char prefix[32];
        uint8_t prefix_len;
        uint16_t ns;   /* enum xml_ns, NS_OTHER: see uri */
        char uri[128]; /* as written, references and all */
        uint8_t uri_len;
    } prefix[XML_HEADER_PREFIXES];
};
/* The state of a scan that is in the middle of an item: about as large as the open elements need.
 * One scratch scanner serves a whole shard; what a conn keeps between two receives of a partial
 * item is a saved state (xml_scan_save), freed when the item is complete. */
struct xml_scan;
struct xml_scan *xml_scan_new(void);
void xml_scan_free(struct xml_scan *s);
/* Starts at the first byte of an item. header is NULL before the stream header was read. */
void xml_scan_begin(struct xml_scan *s, const struct xml_limits *limits,
                    const struct xml_header *header);
size_t xml_scan_save_size(const struct xml_scan *s);
void xml_scan_save(const struct xml_scan *s, void *out);
void xml_scan_restore(struct xml_scan *s, const void *saved, const struct xml_limits *limits,
                      const struct xml_header *header);

/* Scans on in item (all of its bytes so far, from its first one; earlier bytes are not looked at
 * again). ERR_OK: *what is complete, *used its bytes, *index filled for XML_ELEMENT and XML_HEADER
 * (valid until the next begin). ERR_PARTIAL: more bytes are needed. Else the stream error
 * (ERR_STREAM_…) that this deserves. XML_WHITESPACE is reported as far as it reaches, never
 * partial.
 *
 * expect: true and false do where it does not matter that a declaration comes but once. With a NULL
 * header and XML_EXPECT_ELEMENT an element stands alone, as in WebSocket frames (RFC 7395 3.3.3).
 *
 * Rejected though expat accepts it: DTD, comment, PI; an entity but the five; a second declaration,
 * version other than 1.0, encoding other than UTF-8; text, references and CDATA between items, a
 * byte order mark too; an empty header (<stream/>); a second header inside the stream, with its
 * start tag; what is beyond a limit, and these: 256 declarations in force at once, 32 bytes of one
 * reference, 256 of the declaration. */
enum xml_expect {
    XML_EXPECT_ELEMENT = false, /* an item of an open stream, or an element alone */
    XML_EXPECT_START = true,    /* the first bytes of a stream: a declaration or a header */
    XML_EXPECT_HEADER,          /* a header; a declaration (or white space) has been here */
};
nodiscard err xml_scan(struct xml_scan *s, str item, enum xml_expect expect, enum xml_item *what,
                       size_t *used, const struct xml_index **index);
/* The declarations of a header that xml_scan has just returned, whose bytes are item.
 * ERR_STREAM_POLICY_VIOLATION when a prefix, a URI or their number does not fit. */
nodiscard err xml_header_read(const struct xml_scan *s, str item, struct xml_header *out);

/* ---- cursor ---- */

/* Names one element of accepted, self-contained bytes (a stanza as the edge hands it on: prefixes
 * of the stream header are re-declared on it, its default namespace is jabber:client unless
 * declared). A value; 64 bytes or so; valid as long as the bytes are. */
struct xml_el {
    str all;                       /* the whole element */
    str name;                      /* local name */
    str ns;                        /* its namespace URI, references resolved */
    str inner;                     /* between start and end tag; empty for <a/> */
    str start;                     /* the start tag */
    const struct xml_scope *scope; /* declarations in force; in the arena */
};
/* The root. default_ns: what an un-prefixed, un-declared name is in ("jabber:client"). The arena
 * holds scopes and unescaped text; elements without declarations cost it nothing. */
struct xml_el xml_root(str element, str default_ns, struct arena *a);
/* Child elements in order. first: *child of el; false when there is none. */
bool xml_first(const struct xml_el *el, struct xml_el *child, struct arena *a);
bool xml_next(const struct xml_el *parent, struct xml_el *child, struct arena *a);
/* The first child of that name and namespace. ns "" matches any namespace, name "" any name. */
bool xml_find(const struct xml_el *el, const char *ns, const char *name, struct xml_el *child,
              struct arena *a);
bool xml_is(const struct xml_el *el, const char *ns, const char *name);
/* Value of an un-prefixed attribute, references resolved (in the arena when there are any).
 * p == NULL: absent. xml_attr_ns: a prefixed one, by namespace URI. */
str xml_attr(const struct xml_el *el, const char *name, struct arena *a);
str xml_attr_ns(const struct xml_el *el, const char *ns, const char *name, struct arena *a);
/* The character data directly inside el, references and CDATA resolved. */
str xml_text(const struct xml_el *el, struct arena *a);
/* el as bytes that can stand under any parent whose default namespace is default_ns: its inherited
 * declarations (default and prefixes in use) are put on its start tag when they are missing. */
str xml_standalone(const struct xml_el *el, str default_ns, struct arena *a);
/* Resolves references in raw accepted bytes (attribute values: white space is normalised too). */
str xml_unescape(str raw, bool attribute, struct arena *a);

/* ---- writer ---- */

/* Builds XML in an arena. Errors do not exist: it grows. Attributes go before text and children. */
struct xml_writer {
    struct arena *arena;
    char *p;
    size_t len, cap;
    bool open; /* a start tag has not got its '>' yet */
};
void xml_writer_init(struct xml_writer *w, struct arena *a);
void xml_open(struct xml_writer *w, const char *name);                    /* <name */
void xml_open_ns(struct xml_writer *w, const char *name, const char *ns); /* <name xmlns='ns' */
void xml_put_attr(struct xml_writer *w, const char *name, str value);     /* escaped */
void xml_put_attr_u64(struct xml_writer *w, const char *name, uint64_t value);
void xml_put_text(struct xml_writer *w, str text);      /* escaped */
void xml_put_raw(struct xml_writer *w, str xml);        /* accepted XML, as it is */
void xml_close(struct xml_writer *w, const char *name); /* /> or </name> */
/* An element with nothing but text; ns NULL: inherited. */
void xml_put_leaf(struct xml_writer *w, const char *name, const char *ns, str text);
str xml_written(const struct xml_writer *w);
/* Text for an attribute or element: & < > ' " escaped; bytes XML cannot hold are left out. */
str xml_escape(str s, struct arena *a);

/* ---- splice ---- */

/* One edit: at off, del bytes go and ins comes. Edits are in ascending order and do not overlap. */
struct xml_edit {
    uint32_t off, del;
    str ins;
};
/* Bytes after the edits; out has room for xml_splice_size. */
size_t xml_splice_size(size_t len, const struct xml_edit *e, size_t n);
void xml_splice(str xml, const struct xml_edit *e, size_t n, char *out);
/* Moves the offsets of an index to where they are after the edits. A span whose bytes were deleted
 * becomes absent; one that was replaced as a whole is what replaced it. */
void xml_index_splice(struct xml_index *x, const struct xml_edit *e, size_t n);
/* ` name='escaped value'`, for an edit at index->splice. */
str xml_attr_text(const char *name, str value, struct arena *a);
/* ` xmlns:p='…'` for the header's prefixes in index->header_prefixes; "" when there are none. */
str xml_header_declarations(const struct xml_header *h, const struct xml_index *x, struct arena *a);
/* element with xmlns='ns' put on its start tag unless one is there: for moving a stanza into
 * another element or onto WebSocket. */
str xml_with_default_ns(str element, const char *ns, struct arena *a);

#endif
