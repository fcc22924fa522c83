/* The codec of frames: [u16 length of the header][header in protobuf][block of the stanza]. The arena
 * serves protobuf-c's allocations; bytes fields of a decoded header are copies in the arena. */
#include "proto/bus/frame.h"

#include "proto/bus/bus.pb-c.h"

static ProtobufCBinaryData bytes_of(str s)
{
    return (ProtobufCBinaryData){.len = s.n, .data = (uint8_t *)s.p};
}

static str str_of_bytes(ProtobufCBinaryData b) { return (str){(const char *)b.data, b.len}; }

enum { PREFIX = 2, HEADER_MAX = UINT16_MAX };

static void header_fill(const struct frame *f, uint64_t number, struct arena *a, Bus__Header *h)
{
    h->kind = f->kind, h->number = number, h->flags = f->flags;
    h->sid = f->sid, h->ord = f->ord, h->seq = f->seq;
    h->gen = f->gen, h->lane = f->lane, h->fp = f->fp, h->conn = f->conn;
    h->h = f->h, h->ms = f->ms, h->us = f->us, h->reason = f->reason;
    h->bare = bytes_of(f->bare), h->resource = bytes_of(f->resource);
    h->text = bytes_of(f->text), h->payload = bytes_of(f->payload);
    if (f->recipient_count) {
        h->n_recipients = f->recipient_count;
        h->recipients = arena_alloc(a, f->recipient_count * sizeof *h->recipients);
        for (size_t i = 0; i < f->recipient_count; i++)
            h->recipients[i] = bytes_of(f->recipients[i]);
    }
    h->ack_upto = f->ack_upto;
    h->n_ack_ranges = f->ack_range_count;
    h->ack_ranges = (uint64_t *)f->ack_ranges;
}

str frame_encode(const struct frame *f, uint64_t number, struct arena *a)
{
    Bus__Header h = BUS__HEADER__INIT;
    header_fill(f, number, a, &h);
    size_t header = bus__header__get_packed_size(&h), block = 0;
    must(header <= HEADER_MAX); /* senders keep FRAME_RECIPIENTS_BYTES and _ACK_RANGES */
    const void *stanza = f->stanza ? stanza_block(f->stanza, &block) : NULL;
    char *p = arena_alloc(a, PREFIX + header + block);
    p[0] = (char)(header & 0xff), p[1] = (char)(header >> 8);
    bus__header__pack(&h, (uint8_t *)p + PREFIX);
    if (stanza)
        memcpy(p + PREFIX + header, stanza, block);
    return (str){p, PREFIX + header + block};
}

static void *from_arena(void *arena, size_t n) { return arena_alloc(arena, n); }
static void leave(void *arena, void *p) { (void)arena, (void)p; }

static void frame_fill(const Bus__Header *h, struct arena *a, struct frame *f)
{
    *f = (struct frame){
        .kind = h->kind, .flags = h->flags, .sid = h->sid, .ord = h->ord, .seq = h->seq,
        .gen = h->gen, .lane = h->lane, .fp = h->fp, .conn = h->conn, .h = h->h, .ms = h->ms,
        .us = h->us, .reason = h->reason, .bare = str_of_bytes(h->bare),
        .resource = str_of_bytes(h->resource), .text = str_of_bytes(h->text),
        .payload = str_of_bytes(h->payload), .recipient_count = h->n_recipients,
        .ack_upto = h->ack_upto, .ack_ranges = h->ack_ranges,
        .ack_range_count = h->n_ack_ranges,
    };
    str *recipients = arena_alloc(a, h->n_recipients * sizeof *recipients);
    for (size_t i = 0; i < h->n_recipients; i++)
        recipients[i] = str_of_bytes(h->recipients[i]);
    f->recipients = recipients;
}

err frame_decode(const char *p, size_t n, struct arena *a, struct frame *out, uint64_t *number)
{
    if (n < PREFIX)
        return ERR_BAD;
    size_t header = (uint8_t)p[0] | (size_t)(uint8_t)p[1] << 8;
    if (n - PREFIX < header)
        return ERR_BAD;
    ProtobufCAllocator allocator = {.alloc = from_arena, .free = leave, .allocator_data = a};
    Bus__Header *h = bus__header__unpack(&allocator, header, (const uint8_t *)p + PREFIX);
    if (!h || h->kind == FRAME_NONE || h->kind >= FRAME_KINDS || h->reason >= ERR_MAX)
        return ERR_BAD;
    frame_fill(h, a, out);
    *number = h->number;
    size_t used = PREFIX + header;
    return used == n ? ERR_OK : stanza_from_block(p + used, n - used, &out->stanza);
}
