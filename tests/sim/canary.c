#include "tests/sim/canary.h"

#include <stdlib.h>

#include "cluster/copy.h"

static const struct {
    const char *name, *text;
} rows[CANARY_COUNT] = {{"none", ""},
#define CANARY_ROW(name, text) {#name, text},
                        CANARIES(CANARY_ROW)};

const char *canary_name(enum canary c) { return rows[c].name; }
const char *canary_text(enum canary c) { return rows[c].text; }

enum canary canary_named(const char *name)
{
    for (enum canary c = 1; c < CANARY_COUNT; c++)
        if (!strcmp(name, rows[c].name))
            return c;
    return CANARY_NONE;
}

/* ---- an ack that nobody gave ---- */

/* The sender gets it as the receiver's; the true one comes later and is nothing new. */
static void forge_ack(struct world *w, unsigned from, unsigned to, uint64_t number)
{
    struct shard *sender = w->shard[from];
    struct arena a;
    arena_init(&a);
    uint64_t range[2] = {number, number};
    struct frame f = {.kind = FRAME_ACK, .ack_ranges = range, .ack_range_count = 2};
    str bytes = frame_bytes(&f, 0, &a);
    if (sender && sender->met[to]) {
        err e = channel_receive(sender->node.channels, world_peer(sender, to), bytes);
        must(e == ERR_OK);
        sender->stirred = true;
    }
    arena_close(&a);
}

static bool decode(str bytes, struct arena *a, struct frame *f, uint64_t *number)
{
    if (frame_decode(bytes.p, bytes.n, a, f, number) != ERR_OK)
        return false;
    stanza_unref(f->stanza);
    return true;
}

static void ack_kind(struct world *w, unsigned from, unsigned to, str bytes, enum frame_kind kind)
{
    struct arena a;
    struct frame f;
    uint64_t number;
    arena_init(&a);
    if (decode(bytes, &a, &f, &number) && f.kind == kind)
        forge_ack(w, from, to, number);
    arena_close(&a);
}

static void ack_route(struct world *w, unsigned from, unsigned to, str bytes)
{
    ack_kind(w, from, to, bytes, FRAME_ROUTE);
}

/* Too early: at the arrival of anything on that link, all that is behind it is acked. */
static void ack_coming(struct world *w, unsigned from, unsigned to, enum frame_kind kind)
{
    list_each(b, &w->wire[from][to], struct parcel, link)
        ack_kind(w, from, to, str_from(b->data, b->n), kind);
}
static void ack_coming_mirrors(struct world *w)
{
    for (unsigned i = 0; i < w->shards; i++)
        for (unsigned k = 0; k < w->shards; k++)
            ack_coming(w, i, k, FRAME_MIRROR);
}
static void ack_coming_notes(struct world *w)
{
    for (unsigned i = 0; i < w->shards; i++)
        for (unsigned k = 0; k < w->shards; k++)
            ack_coming(w, i, k, FRAME_NOTE);
}
static void ack_coming_outs(struct world *w)
{
    for (unsigned i = 0; i < w->shards; i++)
        for (unsigned k = 0; k < w->shards; k++)
            ack_coming(w, i, k, FRAME_OUT);
}

/* ---- another frame than was sent ---- */

static str changed(str bytes, struct arena *a, enum frame_kind kind,
                   bool (*change)(struct frame *f, struct arena *a))
{
    struct frame f;
    uint64_t number;
    if (frame_decode(bytes.p, bytes.n, a, &f, &number) != ERR_OK)
        return bytes;
    struct stanza *s = f.stanza;
    if (f.kind == kind && change(&f, a))
        bytes = frame_bytes(&f, number, a);
    stanza_unref(s);
    return bytes;
}

static bool not_again(struct frame *f, struct arena *a)
{
    f->flags &= ~(uint32_t)FRAME_AGAIN;
    return true;
}
static str no_seen(struct world *w, unsigned from, unsigned to, str bytes, struct arena *a)
{
    return changed(bytes, a, FRAME_ROUTE, not_again);
}

static bool without_payload(struct frame *f, struct arena *a)
{
    f->payload = STR_NONE;
    return true;
}
static str no_marks(struct world *w, unsigned from, unsigned to, str bytes, struct arena *a)
{
    return changed(bytes, a, FRAME_KNOWN, without_payload);
}

static bool nothing(struct frame *f, struct arena *a)
{
    *f = (struct frame){.kind = FRAME_NOTE};
    return true;
}
static bool somebody_died(const struct world *w)
{
    for (unsigned i = 0; i < w->shards; i++)
        if (w->incarnation[i] > 1 || !w->shard[i])
            return true;
    return false;
}
static str no_copies(struct world *w, unsigned from, unsigned to, str bytes, struct arena *a)
{
    return somebody_died(w) ? changed(bytes, a, FRAME_SNAP, nothing) : bytes;
}

enum { LATER_GENS = 4 };

/* Each DROP once more for the attachments that follow. */
static bool drop_later(struct frame *f, struct arena *a)
{
    size_t n = f->payload.n / NOTE_BYTES, out = 0;
    char *p = arena_alloc(a, n * NOTE_BYTES * (LATER_GENS + 1) + 1);
    for (size_t i = 0; i < n; i++) {
        const char *from = f->payload.p + i * NOTE_BYTES;
        unsigned times = from[NOTE_BYTES - 1] == NOTE_DROP ? LATER_GENS : 0;
        for (unsigned k = 0; k <= times; k++) {
            memcpy(p + out, from, NOTE_BYTES);
            p[out + 15] = (char)(p[out + 15] + k); /* the value's low byte */
            out += NOTE_BYTES;
        }
    }
    f->payload = str_from(p, out);
    return true;
}
static str drop_without_gen(struct world *w, unsigned from, unsigned to, str bytes, struct arena *a)
{
    return changed(bytes, a, FRAME_NOTE, drop_later);
}

/* A RESUMED is the sign that there was a former holder: the copies of its session go, wherever. */
static bool drop_here(struct world *w, const struct frame *f)
{
    for (unsigned i = 0; i < w->shards; i++)
        for (uint32_t gen = 1; w->shard[i] && gen < f->gen; gen++) {
            char note[NOTE_BYTES];
            note_encode((struct copy_note){f->sid, gen, NOTE_DROP}, note);
            struct frame drop = {.kind = FRAME_NOTE, .payload = str_from(note, NOTE_BYTES)};
            copies_frame(w->shard[i]->node.copies, &drop);
        }
    return false;
}
static str break_first(struct world *w, unsigned from, unsigned to, str bytes, struct arena *a)
{
    struct frame f;
    uint64_t number;
    if (decode(bytes, a, &f, &number) && (f.kind == FRAME_RESUMED || f.kind == FRAME_SNAP))
        drop_here(w, &f);
    return bytes;
}

const struct world_hooks *canary_hooks(enum canary c)
{
    static const struct world_hooks all[CANARY_COUNT] = {
        [CANARY_ack_when_read] = {.arriving = ack_route},
        [CANARY_no_barrier] = {.no_barrier = true},
        [CANARY_out_before_mirror] = {.between = ack_coming_mirrors},
        [CANARY_ack_before_note] = {.between = ack_coming_notes},
        [CANARY_no_seen] = {.sending = no_seen},
        [CANARY_drop_without_gen] = {.sending = drop_without_gen},
        [CANARY_no_marks] = {.sending = no_marks},
        [CANARY_copies_not_remade] = {.sending = no_copies},
        [CANARY_held_early] = {.between = ack_coming_outs},
        [CANARY_break_before_make] = {.sending = break_first},
    };
    return c == CANARY_NONE ? NULL : &all[c];
}
