#include "tests/sim/canary.h"

#include <stdlib.h>

#include "cluster/copy.h"
#include "node/home/inside.h"
#include "node/shard/rooms.h"

static const struct {
    const char *name, *text;
    unsigned nodes;
} rows[CANARY_COUNT] = {{"none", "", 0},
#define CANARY_ROW(name, nodes, text) {#name, text, nodes},
                        CANARIES(CANARY_ROW)};

const char *canary_name(enum canary c) { return rows[c].name; }
const char *canary_text(enum canary c) { return rows[c].text; }
unsigned canary_nodes(enum canary c) { return rows[c].nodes; }

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
/* Of a copy that nobody has. Its stanza stays, for the next frame may be with the same one. */
static bool unheard(struct frame *f, struct arena *a)
{
    *f = (struct frame){.kind = FRAME_MIRROR, .flags = f->flags & FRAME_SAME, .stanza = f->stanza};
    return true;
}
static bool unless_live(struct frame *f, struct arena *a)
{
    return !(f->flags & FRAME_LIVE) && nothing(f, a);
}
static str no_copies_offered(struct world *w, unsigned from, unsigned to, str bytes,
                             struct arena *a)
{
    return changed(bytes, a, FRAME_ATTACH, unless_live);
}
static str no_copies_ever(struct world *w, unsigned from, unsigned to, str bytes, struct arena *a)
{
    bytes = changed(bytes, a, FRAME_SNAP, nothing);
    return changed(bytes, a, FRAME_MIRROR, unheard);
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

/* ---- marks that are less than exact ---- */

/* The last ord of a sender session that went to a shard, for one account there or for any. Each run
 * has a process of its own, and so all that is static here. */
enum { HIGHEST_MAX = 4096 };
static struct highest {
    uint64_t sid, account, ord;
    unsigned to;
    uint32_t incarnation;
} highest[HIGHEST_MAX];
static size_t highest_n;

static struct highest *highest_of(const struct world *w, unsigned to, uint64_t sid,
                                  uint64_t account)
{
    struct highest new = {sid, account, 0, to, w->incarnation[to]};
    for (struct highest *h = highest; h < highest + highest_n; h++)
        if (h->sid == sid && h->account == account && h->to == to &&
            h->incarnation == new.incarnation)
            return h;
    must(highest_n < HIGHEST_MAX);
    highest[highest_n] = new;
    return &highest[highest_n++];
}

static bool is_below(struct world *w, unsigned to, const struct frame *f, bool per_account)
{
    static const struct hash_key no_key;
    str bare = stanza_to_jid(f->stanza).bare;
    if (f->kind != FRAME_ROUTE || f->recipient_count)
        return false;
    struct highest *h = highest_of(w, to, f->sid, per_account ? hash_str(&no_key, bare) : 0);
    bool below = f->ord <= h->ord && (per_account || (f->flags & FRAME_AGAIN));
    h->ord = f->ord > h->ord ? f->ord : h->ord;
    return below;
}

static str swallow_below(struct world *w, unsigned to, str bytes, struct arena *a, bool per_account)
{
    struct frame f;
    uint64_t number;
    if (frame_decode(bytes.p, bytes.n, a, &f, &number) != ERR_OK || !f.stanza)
        return bytes;
    struct stanza *s = f.stanza;
    if (is_below(w, to, &f, per_account) && unheard(&f, a))
        bytes = frame_bytes(&f, number, a);
    stanza_unref(s);
    return bytes;
}
static str high_water(struct world *w, unsigned from, unsigned to, str bytes, struct arena *a)
{
    return swallow_below(w, to, bytes, a, true);
}
static str per_shard(struct world *w, unsigned from, unsigned to, str bytes, struct arena *a)
{
    return swallow_below(w, to, bytes, a, false);
}

static enum frame_kind kind_of(str bytes)
{
    struct arena a;
    struct frame f;
    uint64_t number;
    arena_init(&a);
    enum frame_kind kind = decode(bytes, &a, &f, &number) ? f.kind : FRAME_KINDS;
    arena_close(&a);
    return kind;
}

static bool everybody(const void *ctx, unsigned slot) { return true; }

static void forget_marks(struct world *w, unsigned from, unsigned to, str bytes)
{
    if (kind_of(bytes) != FRAME_RESUME)
        return;
    for (unsigned i = 0; i < w->shards; i++) {
        struct home *h = w->shard[i] ? w->shard[i]->home : NULL;
        if (h)
            seen_forget(&h->seen, everybody, NULL), mark_set_clear(&h->known);
    }
}

/* ---- frames that are beside the channel ---- */

static void give(struct world *w, unsigned from, unsigned to, const struct frame *f)
{
    struct shard *s = w->shard[to];
    rooms_frame(&s->node, s->edge, s->home, (struct origin){.peer = world_peer(s, from)}, f);
    s->stirred = true;
}

static void obey_the_dead(struct world *w, unsigned from, unsigned to, str bytes)
{
    struct arena a;
    struct frame f;
    uint64_t number;
    arena_init(&a);
    if (frame_decode(bytes.p, bytes.n, &a, &f, &number) == ERR_OK) {
        if ((f.kind == FRAME_OUT && f.stanza) || f.kind == FRAME_CLOSE || f.kind == FRAME_STATE)
            give(w, from, to, &f);
        stanza_unref(f.stanza);
    }
    arena_close(&a);
}

enum { LATE_US = 20000, LATE_MAX = 1024 };
static struct late_route {
    unsigned from, to;
    uint64_t due_us;
    struct arena arena;
    struct frame frame;
} late[LATE_MAX];
static size_t late_n;

static str later(struct world *w, unsigned from, unsigned to, str bytes, struct arena *a)
{
    if (kind_of(bytes) != FRAME_ROUTE || late_n == LATE_MAX)
        return bytes;
    struct late_route *l = &late[late_n];
    uint64_t number;
    arena_init(&l->arena);
    char *p = arena_alloc(&l->arena, bytes.n);
    memcpy(p, bytes.p, bytes.n);
    if (frame_decode(p, bytes.n, &l->arena, &l->frame, &number) != ERR_OK)
        return bytes;
    if (!l->frame.stanza || !(l->frame.flags & FRAME_AGAIN)) {
        stanza_unref(l->frame.stanza);
        return bytes;
    }
    l->from = from, l->to = to, l->due_us = w->now_us + LATE_US;
    late_n++;
    return changed(bytes, a, FRAME_ROUTE, unheard);
}

static void give_late(struct world *w)
{
    for (struct late_route *l = late; l < late + late_n; l++) {
        if (!l->due_us || l->due_us > w->now_us)
            continue;
        l->due_us = 0;
        if (w->shard[l->to] && w->shard[l->from])
            give(w, l->from, l->to, &l->frame);
    }
}

/* ---- zombies ---- */

/* What the dead have asked of the store comes when all have forgotten them. */
enum { ZOMBIE_US = 1500000 };
static void delay_the_dead(struct world *w)
{
    static uint64_t dead_us[WORLD_SHARDS_MAX];
    static uint32_t dead[WORLD_SHARDS_MAX]; /* the last incarnation of which that is known */
    for (unsigned i = 0; i < w->shards; i++) {
        if (!w->shard[i] && dead[i] != w->incarnation[i])
            dead[i] = w->incarnation[i], dead_us[i] = w->now_us;
        list_each(b, &w->wire[i][world_store(w)], struct parcel, link)
            if (b->from_incarnation == dead[i])
                b->due_us = dead_us[i] + ZOMBIE_US;
    }
}

/* ---- a <resume/> that waits for nobody ---- */

enum { ROUTES_MAX = 64 };
static struct {
    uint64_t number[ROUTES_MAX], count;
    uint32_t incarnation; /* of the receiver */
} routes[WORLD_SHARDS_MAX][WORLD_SHARDS_MAX];

static str note_route(struct world *w, unsigned from, unsigned to, str bytes, struct arena *a)
{
    struct frame f;
    uint64_t number;
    if (!decode(bytes, a, &f, &number) || f.kind != FRAME_ROUTE)
        return bytes;
    if (routes[from][to].incarnation != w->incarnation[to])
        routes[from][to].count = 0, routes[from][to].incarnation = w->incarnation[to];
    routes[from][to].number[routes[from][to].count++ % ROUTES_MAX] = number;
    return bytes;
}

static void all_is_safe(struct world *w, unsigned from, unsigned to, str bytes)
{
    if (kind_of(bytes) != FRAME_RESUME)
        return;
    for (unsigned k = 0; k < w->shards; k++)
        for (uint64_t i = 0; i < routes[to][k].count && i < ROUTES_MAX; i++)
            if (routes[to][k].incarnation == w->incarnation[k])
                forge_ack(w, to, k, routes[to][k].number[i]);
}

/* ---- credits ---- */

enum { PAUSE_US = 500 };
static struct {
    uint64_t number; /* of the ROUTE that has arrived and is not acked; 0: none */
    uint32_t incarnation[2];
} credit[WORLD_SHARDS_MAX][WORLD_SHARDS_MAX];

/* The next ROUTE of that link, and all behind it, waits; acks are beside the channel's order. */
static void hold_back(struct world *w, unsigned from, unsigned to)
{
    struct list acks, *wire = &w->wire[from][to];
    bool same = credit[from][to].incarnation[0] == w->incarnation[from] &&
                credit[from][to].incarnation[1] == w->incarnation[to];
    if (!same || !credit[from][to].number)
        return;
    list_init(&acks);
    list_each(b, wire, struct parcel, link)
        if (kind_of(str_from(b->data, b->n)) == FRAME_ACK) {
            list_remove(&b->link);
            list_push_back(&acks, &b->link);
        }
    list_append(&acks, wire);
    list_append(wire, &acks);
    list_each(b, wire, struct parcel, link)
        if (kind_of(str_from(b->data, b->n)) == FRAME_ROUTE) {
            b->due_us = w->now_us + PAUSE_US;
            return;
        }
}

static void hold_all_back(struct world *w)
{
    for (unsigned i = 0; i < w->shards; i++)
        for (unsigned k = 0; k < w->shards; k++)
            hold_back(w, i, k);
}

static void take_credit(struct world *w, unsigned from, unsigned to, str bytes)
{
    struct arena a;
    struct frame f;
    uint64_t number, *open = &credit[to][from].number;
    arena_init(&a);
    bool good = decode(bytes, &a, &f, &number);
    if (good && f.kind == FRAME_ROUTE) {
        credit[from][to].number = number;
        credit[from][to].incarnation[0] = w->incarnation[from];
        credit[from][to].incarnation[1] = w->incarnation[to];
        hold_back(w, from, to);
    } else if (good && f.kind == FRAME_ACK) {
        bool acked = f.ack_upto >= *open;
        for (size_t i = 0; i + 1 < f.ack_range_count; i += 2)
            acked |= f.ack_ranges[i] <= *open && *open <= f.ack_ranges[i + 1];
        *open = acked ? 0 : *open;
    }
    arena_close(&a);
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
        [CANARY_high_water] = {.sending = high_water},
        [CANARY_mark_per_shard] = {.sending = per_shard},
        [CANARY_marks_of_a_minute] = {.arriving = forget_marks},
        [CANARY_successor_is_next_home] = {.sending = no_copies_offered},
        [CANARY_edge_is_enough] = {.sending = no_copies_ever},
        [CANARY_resume_at_once] = {.sending = note_route, .arriving = all_is_safe},
        [CANARY_no_fence] = {.stray = obey_the_dead},
        [CANARY_new_before_old] = {.sending = later, .between = give_late},
        [CANARY_zombie_commits] = {.between = delay_the_dead, .no_store_fence = true},
        [CANARY_credits_on_relays] = {.between = hold_all_back, .arriving = take_credit},
    };
    return c == CANARY_NONE ? NULL : &all[c];
}
