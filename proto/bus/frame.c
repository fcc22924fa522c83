/* The codec of frames: [u16 length of the header][Header of bus.proto][block of the stanza], or
 * within a node [u16 0][u64 number][FRAME_HEAD bytes of struct frame][block of the stanza].
 *
 * The header is protobuf, but written and read by hand: protobuf-c walks the table of all its
 * fields three times per frame, and that was a quarter of the instructions of a delivered message
 * (callgrind). Its bytes are those of protobuf-c (tests/unit/bus holds that). Strings of a decoded
 * frame are views into the received bytes; lists lie in the arena. */
#include "proto/bus/frame.h"

#include "proto/bus/wire.h"

/* Between nodes a stanza travels as it lies in memory, so its layout is part of the rails' version
 * (cluster/rail.h): who changes it makes another version, and has the neighbouring one, too. */
_Static_assert(offsetof(struct stanza, index) == 44 && sizeof(struct xml_index) == 480 &&
                   offsetof(struct xml_index, child) == 96 && sizeof(struct xml_child) == 24,
               "the layout of rails' version 1");

enum { PREFIX = 2, HEADER_MAX = UINT16_MAX };

/* Field numbers of bus.proto. */
enum {
    KIND = 1,
    NUMBER,
    FLAGS,
    SID,
    ORD,
    SEQ,
    GEN,
    LANE,
    FP,
    CONN,
    H,
    MS,
    US,
    REASON,
    BARE,
    RESOURCE,
    TEXT,
    PAYLOAD,
    RECIPIENTS,
    ACK_UPTO,
    ACK_RANGES,
    SENT,
    FIELDS
};
static const uint8_t type_of[FIELDS] = {
    [SID] = WIRE_FIXED64,      [LANE] = WIRE_FIXED32,
    [FP] = WIRE_FIXED32,       [BARE] = WIRE_BYTES,
    [RESOURCE] = WIRE_BYTES,   [TEXT] = WIRE_BYTES,
    [PAYLOAD] = WIRE_BYTES,    [RECIPIENTS] = WIRE_BYTES,
    [ACK_RANGES] = WIRE_BYTES, /* the others: WIRE_VARINT */
};

/* ---- encode ---- */

static size_t size_max(const struct frame *f)
{
    size_t n = FIELDS * WIRE_NUMBER_MAX + f->bare.n + f->resource.n + f->text.n + f->payload.n;
    for (size_t i = 0; i < f->recipient_count; i++)
        n += WIRE_NUMBER_MAX + f->recipients[i].n;
    return n + f->ack_range_count * WIRE_VARINT_MAX;
}

static char *put_string(char *p, uint32_t field, str s)
{
    return s.n ? wire_put_bytes(p, field, s) : p;
}

static char *put_ranges(char *p, const struct frame *f)
{
    char packed[WIRE_VARINT_MAX];
    size_t n = 0;
    if (!f->ack_range_count)
        return p;
    for (size_t i = 0; i < f->ack_range_count; i++)
        n += (size_t)(wire_put_varint(packed, f->ack_ranges[i]) - packed);
    p = wire_put_varint(wire_put_tag(p, ACK_RANGES, WIRE_BYTES), n);
    for (size_t i = 0; i < f->ack_range_count; i++)
        p = wire_put_varint(p, f->ack_ranges[i]);
    return p;
}

/* In the order of their numbers. */
static char *put_header(char *p, const struct frame *f, uint64_t number)
{
    p = wire_put_number(p, KIND, f->kind);
    p = wire_put_number(p, NUMBER, number);
    p = wire_put_number(p, FLAGS, f->flags);
    p = wire_put_word(p, WIRE_FIXED64, SID, f->sid);
    p = wire_put_number(p, ORD, f->ord);
    p = wire_put_number(p, SEQ, f->seq);
    p = wire_put_number(p, GEN, f->gen);
    p = wire_put_word(p, WIRE_FIXED32, LANE, f->lane);
    p = wire_put_word(p, WIRE_FIXED32, FP, f->fp);
    p = wire_put_number(p, CONN, f->conn);
    p = wire_put_number(p, H, f->h);
    p = wire_put_number(p, MS, f->ms);
    p = wire_put_number(p, US, f->us);
    p = wire_put_number(p, REASON, f->reason);
    p = put_string(p, BARE, f->bare);
    p = put_string(p, RESOURCE, f->resource);
    p = put_string(p, TEXT, f->text);
    p = put_string(p, PAYLOAD, f->payload);
    for (size_t i = 0; i < f->recipient_count; i++) /* empty ones count too */
        p = wire_put_bytes(p, RECIPIENTS, f->recipients[i]);
    p = wire_put_number(p, ACK_UPTO, f->ack_upto);
    p = put_ranges(p, f);
    return wire_put_number(p, SENT, f->sent);
}

size_t frame_encode(const struct frame *f, uint64_t number, struct arena *a,
                    struct iovec out[FRAME_PARTS])
{
    char *p = arena_alloc(a, PREFIX + size_max(f));
    char *end = put_header(p + PREFIX, f, number);
    size_t header = (size_t)(end - p) - PREFIX, block;
    must(header <= HEADER_MAX); /* senders keep FRAME_RECIPIENTS_BYTES and _ACK_RANGES */
    p[0] = (char)(header & 0xff), p[1] = (char)(header >> 8);
    out[0] = (struct iovec){p, PREFIX + header};
    if (!f->stanza)
        return 1;
    const void *stanza = stanza_block(f->stanza, &block);
    out[1] = (struct iovec){(void *)stanza, block};
    return 2;
}

size_t frame_encode_plain(const struct frame *f, uint64_t number, char head[FRAME_PLAIN],
                          struct iovec out[FRAME_PARTS])
{
    size_t block;
    memset(head, 0, PREFIX);
    memcpy(head + PREFIX, &number, sizeof number);
    memcpy(head + PREFIX + sizeof number, f, FRAME_HEAD);
    out[0] = (struct iovec){head, FRAME_PLAIN};
    if (!f->stanza)
        return 1;
    const void *stanza = stanza_block(f->stanza, &block);
    out[1] = (struct iovec){(void *)stanza, block};
    return 2;
}

str frame_bytes(const struct frame *f, uint64_t number, struct arena *a)
{
    struct iovec v[FRAME_PARTS];
    str parts[FRAME_PARTS];
    size_t n = frame_encode(f, number, a, v);
    for (size_t i = 0; i < n; i++)
        parts[i] = str_from(v[i].iov_base, v[i].iov_len);
    return arena_concat(a, parts, n);
}

/* ---- decode ---- */

struct reader {
    struct arena *arena;
    struct frame *frame;
    uint64_t number;
    str *recipients;
    uint64_t *ranges;
    size_t recipient_cap, range_cap;
};

/* Room for one more in an array of the arena. */
static void *grown(struct arena *a, void *old, size_t count, size_t *cap, size_t size)
{
    if (count < *cap)
        return old;
    *cap = *cap ? 2 * *cap : 8;
    void *more = arena_alloc(a, *cap * size);
    if (count)
        memcpy(more, old, count * size);
    return more;
}

static void add_range(struct reader *r, uint64_t v)
{
    struct frame *f = r->frame;
    r->ranges = grown(r->arena, r->ranges, f->ack_range_count, &r->range_cap, sizeof *r->ranges);
    r->ranges[f->ack_range_count++] = v;
    f->ack_ranges = r->ranges;
}

static bool add_ranges(struct reader *r, str packed)
{
    for (uint64_t v; packed.n;) {
        if (!wire_take_varint(&packed, &v))
            return false;
        add_range(r, v);
    }
    return true;
}

static void add_recipient(struct reader *r, str to)
{
    struct frame *f = r->frame;
    r->recipients = grown(r->arena, r->recipients, f->recipient_count, &r->recipient_cap,
                          sizeof *r->recipients);
    r->recipients[f->recipient_count++] = to;
    f->recipients = r->recipients;
}

static void set_number(struct reader *r, uint64_t field, uint64_t v)
{
    struct frame *f = r->frame;
    switch (field) {
    case KIND: f->kind = (uint32_t)v; return;
    case NUMBER: r->number = v; return;
    case FLAGS: f->flags = (uint32_t)v; return;
    case SID: f->sid = v; return;
    case ORD: f->ord = v; return;
    case SEQ: f->seq = v; return;
    case GEN: f->gen = (uint32_t)v; return;
    case LANE: f->lane = (uint32_t)v; return;
    case FP: f->fp = (uint32_t)v; return;
    case CONN: f->conn = v; return;
    case H: f->h = v; return;
    case MS: f->ms = v; return;
    case US: f->us = v; return;
    case REASON: f->reason = (uint32_t)v; return;
    case ACK_UPTO: f->ack_upto = v; return;
    case SENT: f->sent = v; return;
    default: return; /* of a later version */
    }
}

static bool set_bytes(struct reader *r, uint64_t field, str s)
{
    struct frame *f = r->frame;
    switch (field) {
    case BARE: f->bare = s; return true;
    case RESOURCE: f->resource = s; return true;
    case TEXT: f->text = s; return true;
    case PAYLOAD: f->payload = s; return true;
    case RECIPIENTS: add_recipient(r, s); return true;
    case ACK_RANGES: return add_ranges(r, s);
    default: return true;
    }
}

static bool take_field(struct reader *r, str *in)
{
    uint64_t tag, v;
    str s;
    if (!wire_take_varint(in, &tag) || (tag >> 3 < FIELDS && type_of[tag >> 3] != (tag & 7)))
        return false;
    switch (tag & 7) {
    case WIRE_BYTES: return wire_take_bytes(in, &s) && set_bytes(r, tag >> 3, s);
    case WIRE_VARINT:
        if (!wire_take_varint(in, &v))
            return false;
        break;
    case WIRE_FIXED64:
    case WIRE_FIXED32:
        if (!wire_take_word(in, (tag & 7) == WIRE_FIXED64 ? 8 : 4, &v))
            return false;
        break;
    default: return false;
    }
    set_number(r, tag >> 3, v);
    return true;
}

/* *used: its bytes. */
static err decode_header(const char *p, size_t n, struct arena *a, struct frame *out,
                         uint64_t *number, size_t *used)
{
    size_t header = (uint8_t)p[0] | (size_t)(uint8_t)p[1] << 8;
    if (n - PREFIX < header)
        return ERR_BAD;
    struct reader r = {.arena = a, .frame = out};
    for (str in = {p + PREFIX, header}; in.n;)
        if (!take_field(&r, &in))
            return ERR_BAD;
    *number = r.number;
    *used = PREFIX + header;
    return ERR_OK;
}

static err decode_plain(const char *p, size_t n, struct frame *out, uint64_t *number, size_t *used)
{
    if (n < FRAME_PLAIN)
        return ERR_BAD;
    memcpy(number, p + PREFIX, sizeof *number);
    memcpy(out, p + PREFIX + sizeof *number, FRAME_HEAD);
    *used = FRAME_PLAIN;
    return ERR_OK;
}

err frame_decode(const char *p, size_t n, struct arena *a, struct frame *out, uint64_t *number)
{
    size_t used;
    if (n < PREFIX)
        return ERR_BAD;
    *out = (struct frame){.kind = FRAME_NONE};
    bool plain = p[0] == 0 && p[1] == 0; /* a header has its kind at least */
    err e =
        plain ? decode_plain(p, n, out, number, &used) : decode_header(p, n, a, out, number, &used);
    if (e)
        return e;
    if (out->kind == FRAME_NONE || out->kind >= FRAME_KINDS || out->reason >= ERR_MAX)
        return ERR_BAD;
    return used == n ? ERR_OK : stanza_from_block(p + used, n - used, &out->stanza);
}
