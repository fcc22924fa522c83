/* stanza: one message, presence or iq in memory, shared by everybody who holds it.
 *
 * One block: this header, the index (its used rows only), the XML bytes, then the prepared JIDs
 * `to` and `from` as they are without XML escapes. Everything inside is an offset, so that the
 * block can be copied into a frame and out of it again with one memcpy (stanza_check looks at what
 * came).
 *
 * The edge makes it once, with all its splices applied (from, to, xml:lang, the header's prefixes),
 * so that the XML stands alone: un-prefixed root in jabber:client, every other prefix declared
 * inside. Nobody changes a stanza after it was made; whoever needs another one makes it
 * (stanza_edited, stanza_make). Refcounted, one thread. */
#ifndef PEMBERLEY_STANZA_H
#define PEMBERLEY_STANZA_H

#include "pemberley/arena.h"
#include "pemberley/err.h"
#include "proto/xml/xml.h"
#include "proto/xmpp/jid.h"

enum stanza_kind { STANZA_MESSAGE, STANZA_PRESENCE, STANZA_IQ };

/* RFC 6121 5.2.2 (an unknown message type is TYPE_NORMAL), 4.7.1; RFC 6120 8.2.3. */
enum stanza_type {
    TYPE_NORMAL,
    TYPE_CHAT,
    TYPE_GROUPCHAT,
    TYPE_HEADLINE, /* message */
    TYPE_AVAILABLE,
    TYPE_UNAVAILABLE,
    TYPE_SUBSCRIBE,
    TYPE_SUBSCRIBED, /* presence */
    TYPE_UNSUBSCRIBE,
    TYPE_UNSUBSCRIBED,
    TYPE_PROBE,
    TYPE_GET,
    TYPE_SET,
    TYPE_RESULT,  /* iq */
    TYPE_ERROR,   /* any kind */
    TYPE_INVALID, /* presence, iq: unknown or missing */
};

/* What the first-level children say (xmpp.md 5). */
enum stanza_flag {
    STANZA_BODY = 1 << 0,           /* a <body/> in jabber:client */
    STANZA_CONTENT = 1 << 1,        /* body, encryption, invitation, receipt, marker, retraction,
                                       reaction, correction, jingle-message: worth keeping */
    STANZA_CHATSTATE = 1 << 2,      /* chat states */
    STANZA_ONLY_TRANSIENT = 1 << 3, /* nothing but chat states, thread, hints, ids (XEP-0160 3) */
    STANZA_HINT_STORE = 1 << 4,     /* XEP-0334 */
    STANZA_HINT_NO_STORE = 1 << 5,
    STANZA_HINT_NO_PERMANENT_STORE = 1 << 6,
    STANZA_HINT_NO_COPY = 1 << 7,
    STANZA_DELAY = 1 << 8, /* a urn:xmpp:delay child */
    STANZA_MUC_USER = 1 << 9,
    STANZA_CAPS = 1 << 10,
};

struct stanza {
    uint32_t refs;
    uint32_t size;                      /* of the whole block, this header included */
    uint8_t kind, type;                 /* enum stanza_kind, enum stanza_type */
    uint16_t to_local_len, to_bare_len; /* of `to`: each home on the way would split it again */
    uint16_t to_fp;                     /* stanza_to_fp */
    uint32_t flags;
    uint32_t fp;                                          /* stanza_fp */
    uint32_t xml_off, to_off, to_len, from_off, from_len; /* from the start of the block */
    struct xml_index index;                               /* its last unused rows are not there */
};

static inline str stanza_xml(const struct stanza *s)
{
    return (str){(const char *)s + s->xml_off, s->index.len};
}
static inline str stanza_to(const struct stanza *s) /* n == 0: none */
{
    return (str){(const char *)s + s->to_off, s->to_len};
}
/* Its parts; without any when there is none. */
static inline struct jid stanza_to_jid(const struct stanza *s)
{
    str full = stanza_to(s), bare = {full.p, s->to_bare_len};
    size_t skip = s->to_local_len ? s->to_local_len + 1u : 0;
    struct jid j = {.full = full, .bare = bare, .domain = str_skip(bare, skip)};
    if (skip)
        j.local = (str){full.p, s->to_local_len};
    if (bare.n < full.n)
        j.resource = str_skip(full, bare.n + 1);
    return j;
}
static inline str stanza_from(const struct stanza *s)
{
    return (str){(const char *)s + s->from_off, s->from_len};
}
/* Raw value of `id` as it stands in the XML (escaped); n == 0: none or empty. */
static inline str stanza_id(const struct stanza *s)
{
    return (str){stanza_xml(s).p + s->index.id.off, s->index.id.off ? s->index.id.len : 0};
}
static inline struct stanza *stanza_ref(struct stanza *s) { return s->refs++, s; }
void stanza_unref(struct stanza *s); /* NULL is fine */

/* kind and type of an indexed element: ERR_NOT_FOUND if it is none of the three (by name; the
 * caller has looked at the namespace). */
nodiscard err stanza_classify(str xml, const struct xml_index *x, enum stanza_kind *kind,
                              enum stanza_type *type);

/* What who makes one knows of it already. to, from: prepared, without escapes. */
struct stanza_head {
    enum stanza_kind kind;
    enum stanza_type type;
    struct jid to;
    str from;
};
/* A stanza of xml (indexed by x) with edits applied. */
struct stanza *stanza_edited(str xml, const struct xml_index *x, const struct xml_edit *e, size_t n,
                             const struct stanza_head *head);
/* A stanza of XML that we have written ourselves (must be one well-formed stanza; it is scanned
 * with `scan`, the shard's scratch scanner). to and from are read from its attributes. */
struct stanza *stanza_make(struct xml_scan *scan, str xml, struct arena *a);
/* A stanza of the XML of one that was kept in the store. ERR_BAD: that is none. */
nodiscard err stanza_of_kept(struct xml_scan *scan, str xml, struct arena *a, struct stanza **out);
/* s with `child` (XML) put in as its last child. */
struct stanza *stanza_with_child(struct xml_scan *scan, const struct stanza *s, str child,
                                 struct arena *a);
/* s after these cuts, each of a child, with `child` (XML; empty: none) as its last one: what index
 * says of that is in `row`, from the child's first byte. Nothing is scanned. s must have children
 * where one is put in.
 */
struct stanza *stanza_with_last(const struct stanza *s, const struct xml_edit *cuts, size_t n,
                                str child, const struct xml_child *row, struct arena *a);
/* The root for the cursor. */
struct xml_el stanza_root(const struct stanza *s, struct arena *a);

/* <delay xmlns='urn:xmpp:delay' from='…' stamp='…'/> (XEP-0203); stamp in UTC, XEP-0082. */
str stanza_delay(str from, int64_t wall_us, struct arena *a);
/* s with that delay, or s itself when it has it already; one reference is the caller's. A sender
 * may put in what it likes: only the delay that we would put there is taken for ours. */
struct stanza *stanza_with_delay(struct xml_scan *scan, struct stanza *s, str from, int64_t wall_us,
                                 struct arena *a);
str stanza_stamp(int64_t wall_us, struct arena *a); /* 2026-11-22T10:00:00.214Z */

/* An error answer to s (RFC 6120 8.3): kind and id of s, from = what s was sent to (absent if it
 * had no `to`; the sender's bare JID if that is malformed), to = its sender, the original children
 * left out above 8 KiB and for jabber:iq:register. by: who says so when that is not the addressed
 * one; may be empty. extra: an application-specific element or empty. NULL when s must not be
 * answered (error, iq result). */
struct stanza *stanza_error(struct xml_scan *scan, const struct stanza *s, err e, str by, str extra,
                            struct arena *a);
/* The condition of an error stanza's bytes as XML: <error type=…><…/></error>. */
str stanza_error_element(err e, str by, str extra, struct arena *a);

/* Bytes of the block for a frame: from the address returned, *n bytes. */
static inline const void *stanza_block(const struct stanza *s, size_t *n)
{
    return *n = s->size, (const void *)s;
}
/* A stanza of a block that came in a frame. ERR_BAD when an offset leaves the block. */
nodiscard err stanza_from_block(const void *p, size_t n, struct stanza **out);

/* 32-bit fingerprint of (kind, to, type, id), of presence without an id its bytes: a uid that comes
 * again with another one is another stanza (delivery.md 2). */
static inline uint32_t stanza_fp(const struct stanza *s) { return s->fp; }
/* The same of (kind, to, type), 16-bit. */
static inline uint16_t stanza_to_fp(const struct stanza *s) { return s->to_fp; }

#endif
