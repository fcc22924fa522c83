/* c2s: the edge's half of a bound full JID on its connection (delivery.md): numbers what the client
 * sends, knows what of it is safe, queues what the home sends, and speaks XEP-0198.
 *
 *   c2s.c   bind and resume, stanzas in
 *   sm.c    acks: <r/>, <a/>, <enable/>, the idle ping
 *   out.c   stanzas out: the queue, what the transport and the client took
 *
 * Life: BOUND or RESUMED … c2s_lost or CLOSE, always within its conn's. What of it must survive the
 * connection lies at the home, and as a copy here (cluster/copy.h). */
#ifndef PEMBERLEY_EDGE_C2S_H
#define PEMBERLEY_EDGE_C2S_H

#include "cluster/copy.h"
#include "node/edge/conn.h"

/* A session that is idle, as nearly all are at any moment, has none of these. */
struct asked_ack;  /* sm.c */
struct held;       /* out.c */
struct taken_rows; /* out.c */

struct c2s {
    struct conn *conn;
    union {
        struct hnode by_sid;
        struct {
            struct hnode *next_;
            uint64_t sid; /* random, so it is its own hash */
        };
    };

    /* in */
    uint64_t in_ord;  /* last stanza received */
    uint64_t in_base; /* in_ord at <enable/> */
    struct window window;
    struct asked_ack *asked_ack; /* an <a/> is due; NULL: none asked for */

    /* out: [acked | taken by the transport | written to the conn | waiting] in seq order */
    struct outs *outs;
    uint64_t acked, taken, put; /* seqs: the ends of these parts, but for the last */
    uint64_t out_base;          /* seq at <enabled/> */
    uint64_t asked;             /* last seq put when our <r/> went */
    struct held *held;          /* frames that wait until the client has caught up */
    struct taken_rows *rows;    /* of the offline store, since the last CACK */
    struct buf *state;          /* what the home told of it last, should that die; or NULL */
    uint32_t gen;
    uint32_t max_s; /* for <enabled/> */

    uint16_t to_n, full_n, bare_n; /* of names */
    bool sm : 1, resumable : 1;
    bool enabling : 1;     /* <enable/> was sent on */
    bool enabled_due : 1;  /* <enabled/> is to be written behind seq out_base */
    bool request_open : 1; /* our <r/> is not answered yet */
    bool ack_now : 1;      /* an <a/> goes with the next flush */
    bool cack_due : 1;
    bool inactive : 1;  /* its client has said so */
    bool cack_soon : 1; /* the home waits for it */
    uint8_t host;       /* conf_host.metric */
    char names[]; /* ` to='…'` with the full JID; that again without escapes, where it has some */
};

_Static_assert(offsetof(struct c2s, sid) == offsetof(struct c2s, by_sid.hash), "one field");

/* The last seq that the home has sent. */
static inline uint64_t c2s_last(const struct c2s *s) { return s->acked + outs_count(s->outs); }

enum { C2S_TO_N = sizeof " to='" - 1 };
static inline str c2s_full(const struct c2s *s)
{
    bool escaped = s->to_n != C2S_TO_N + s->full_n + 1;
    return str_from(s->names + (escaped ? s->to_n : C2S_TO_N), s->full_n);
}
static inline str c2s_bare(const struct c2s *s) /* no character of it needs an escape */
{
    return str_from(s->names + C2S_TO_N, s->bare_n);
}
static inline str c2s_to_full(const struct c2s *s) { return str_from(s->names, s->to_n); }
/* Without the closing quote. */
static inline str c2s_to_bare(const struct c2s *s)
{
    return str_from(s->names, (size_t)C2S_TO_N + s->bare_n);
}

/* ---- c2s.c ---- */

struct c2s *c2s_new(struct conn *c, uint64_t sid, uint32_t gen, str full);
/* A stanza of n bytes, in the metrics of its user's host. */
void c2s_count_host(const struct c2s *s, enum metric_way way, enum stanza_kind kind, size_t n);
struct c2s *c2s_find(struct edge *e, uint64_t sid, uint32_t gen);
unsigned c2s_home(const struct c2s *s);
/* A frame to the home of s, without a hold. */
void c2s_tell(struct c2s *s, struct frame *f, bool keep);
/* The bind request (one child, in jabber:client's bind namespace). */
void c2s_bind(struct conn *c, str item);
void c2s_resume(struct conn *c, str item);
/* The same by XEP-0386: <bind/>, the whole resource; client: its last part is one client's alone.
 */
void c2s_bind2(struct conn *c, const struct xml_el *bind, str resource, bool client);
/* The conn that waits for the answer to this BIND or RESUME; NULL: it has gone. */
struct conn *c2s_waiting_conn(struct edge *e, const struct frame *f);
void c2s_on_bound(struct edge *e, struct origin from, const struct frame *f);
void c2s_on_resumed(struct edge *e, struct origin from, const struct frame *f);
void c2s_on_failed(struct edge *e, const struct frame *f);
void c2s_on_close(struct edge *e, const struct frame *f);
void c2s_stanza(struct c2s *s, str item, const struct xml_index *x);
void c2s_csi(struct c2s *s, bool inactive); /* XEP-0352 4.2 */
/* A FRAME_IN is safe at the home, or lost with it. */
void c2s_settled(struct edge *e, struct hold h);
/* It is safe. */
void c2s_safe(struct edge *e, struct hold h);
/* Is there something in the conn's output whose fate only the transport knows? Without XEP-0198 the
 * home must not hear of the end before, or it would store what is being written. */
bool c2s_is_draining(const struct c2s *s);
/* The conn goes: the home is told (DETACH or END, as reason and XEP-0198 say), s is freed. */
void c2s_lost(struct c2s *s, err reason);
/* The same without telling: the home knows. */
void c2s_free(struct c2s *s);
/* Its home is a new one: it is told all that we hold. */
void c2s_attach(struct c2s *s);

/* ---- sm.c ---- */

void c2s_enable(struct c2s *s, str item);
/* What <enable/> wishes: FRAME_WANT_RESUME or 0, and for how long at most. */
uint32_t c2s_enable_wish(const struct conn *c, const struct xml_el *enable, uint64_t *ms);
void c2s_on_enabled(struct c2s *s, const struct frame *f);
void c2s_request(struct c2s *s);       /* <r/> */
void c2s_ack(struct c2s *s, str item); /* <a/> */
void c2s_check_ack(struct c2s *s);     /* `safe` has moved: is an <a/> due? */
void c2s_put_ack(struct c2s *s);       /* <a/> now */
void c2s_put_enabled(struct c2s *s);
/* On since it was bound, for max_ms (0: it cannot be resumed). <enabled/>, in the turn's arena. */
str c2s_begin_sm(struct c2s *s, uint64_t max_ms);
void c2s_put_request(struct c2s *s); /* <r/>, if the end of a batch needs one */
void c2s_ack_free(struct c2s *s);
void c2s_ping(struct c2s *s);
uint32_t c2s_h(const struct c2s *s);

/* ---- out.c ---- */

void c2s_on_out(struct c2s *s, struct origin from, const struct frame *f);
/* Moves what waits into the conn's output, as far as that has room. */
void c2s_pump(struct c2s *s);
/* CACK, if one is due. */
void c2s_tell_acked(struct c2s *s);
/* Once per turn: CACK, <a/>. */
void c2s_turn_end(struct c2s *s);
/* n more stanzas were taken by the transport. */
void c2s_taken(struct c2s *s, uint32_t n);
/* All up to seq is with the client. */
void c2s_out_acked(struct c2s *s, uint64_t seq);
void c2s_out_free(struct c2s *s);

#endif
