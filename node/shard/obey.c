/* obey: see obey.h. */
#include "node/shard/obey.h"

#include <endian.h>
#include <stdlib.h>

#include "cluster/copy.h"

struct doubt {
    struct list link;
    struct origin from;
    size_t n;
    char bytes[]; /* the frame, encoded */
};

struct doubts {
    struct list list;
};

static struct doubts *doubts_of(struct node *n)
{
    if (!n->doubts) {
        n->doubts = malloc(sizeof *n->doubts);
        must(n->doubts);
        list_init(&n->doubts->list);
    }
    return n->doubts;
}

static void keep(struct node *n, struct origin from, const struct frame *f)
{
    str bytes = frame_bytes(f, 1, n->turn);
    struct doubt *d = malloc(sizeof *d + bytes.n);
    must(d);
    d->from = from, d->n = bytes.n;
    memcpy(d->bytes, bytes.p, bytes.n);
    list_push_back(&doubts_of(n)->list, &d->link);
}

static bool any_of(const struct node *n, unsigned peer)
{
    if (n->doubts)
        list_each(d, &n->doubts->list, struct doubt, link)
            if (d->from.peer == peer)
                return true;
    return false;
}

/* ---- judging ---- */

enum verdict { OBEY, WAIT, DROP };

static enum verdict judge(const struct node *n, unsigned peer, uint64_t sid)
{
    unsigned slot = (unsigned)(sid >> 50);
    uint64_t by = channel_epoch(n->channels, peer);
    bool owner = ring_home_of_slot(n->ring, slot) == peer;
    if (owner && by >= ring_surely_since(n->ring, slot))
        return OBEY;
    return by < n->epoch ? WAIT : DROP;
}

/* What of a NOTE is of that verdict, in order. */
static str notes_of(const struct node *n, unsigned peer, str payload, enum verdict v)
{
    char *p = arena_alloc(n->turn, payload.n + 1);
    size_t count = 0;
    for (; payload.n >= NOTE_BYTES; payload = str_skip(payload, NOTE_BYTES)) {
        uint64_t sid;
        memcpy(&sid, payload.p, sizeof sid);
        if (judge(n, peer, be64toh(sid)) == v)
            memcpy(p + NOTE_BYTES * count++, payload.p, NOTE_BYTES);
    }
    return str_from(p, NOTE_BYTES * count);
}

/* One without notes says that all before it has come: it waits behind what does. */
static bool obey_notes(struct node *n, struct origin from, const struct frame *f)
{
    struct frame part = *f;
    if (!f->payload.n && any_of(n, from.peer)) {
        keep(n, from, f);
        return false;
    }
    str waits = notes_of(n, from.peer, f->payload, WAIT);
    part.payload = notes_of(n, from.peer, f->payload, OBEY);
    if (part.payload.n)
        copies_frame(n->copies, &part);
    part.payload = waits;
    if (waits.n)
        keep(n, from, &part);
    else
        channel_done(n->channels, from);
    return false;
}

static void drop(struct node *n, struct edge *e, struct origin from, const struct frame *f)
{
    metric_add(n->metrics, METRIC_AT(cluster_frames_refused, FRAMES_EPOCH, 0), 1);
    if (f->kind == FRAME_CLOSE)
        edge_former_close(e, f);
    channel_done(n->channels, from);
}

bool obey(struct node *n, struct edge *e, struct origin from, const struct frame *f)
{
    if (f->kind == FRAME_NOTE)
        return obey_notes(n, from, f);
    switch (judge(n, from.peer, f->sid)) {
    case OBEY: return true;
    case WAIT: keep(n, from, f); return false;
    case DROP: drop(n, e, from, f); return false;
    }
    return false;
}

/* ---- the other one's epoch ---- */

static bool is_in(str bits, uint64_t sid)
{
    unsigned slot = (unsigned)(sid >> 50);
    return slot / 8 < bits.n && (unsigned char)bits.p[slot / 8] >> slot % 8 & 1;
}

static str without(const struct node *n, str payload, str lost)
{
    char *p = arena_alloc(n->turn, payload.n + 1);
    size_t count = 0;
    for (; payload.n >= NOTE_BYTES; payload = str_skip(payload, NOTE_BYTES)) {
        uint64_t sid;
        memcpy(&sid, payload.p, sizeof sid);
        if (!is_in(lost, be64toh(sid)))
            memcpy(p + NOTE_BYTES * count++, payload.p, NOTE_BYTES);
    }
    return str_from(p, NOTE_BYTES * count);
}

/* d is in no list. What it says of slots that its sender has lost is nothing any more. */
static void judge_again(struct node *n, struct edge *e, struct doubt *d, str lost, obey_run_f *run)
{
    struct frame f;
    uint64_t number;
    err bad = frame_decode(d->bytes, d->n, n->turn, &f, &number);
    must(!bad); /* we have encoded it */
    bool notes = f.kind == FRAME_NOTE && f.payload.n > 0;
    if (notes)
        f.payload = without(n, f.payload, lost);
    if (notes ? !f.payload.n : f.kind != FRAME_NOTE && is_in(lost, f.sid))
        drop(n, e, d->from, &f);
    else if (obey(n, e, d->from, &f))
        run(n, e, d->from, &f);
    stanza_unref(f.stanza);
    free(d);
}

void obey_epoch(struct node *n, struct edge *e, struct origin from, const struct frame *f,
                obey_run_f *run)
{
    struct list now;
    list_init(&now);
    if (!n->doubts)
        return;
    list_each(d, &n->doubts->list, struct doubt, link)
        if (d->from.peer == from.peer) {
            list_remove(&d->link);
            list_push_back(&now, &d->link);
        }
    list_each(d, &now, struct doubt, link) {
        list_remove(&d->link);
        judge_again(n, e, d, f->payload, run);
    }
}

void obey_peer_down(struct node *n, unsigned peer)
{
    if (!n->doubts)
        return;
    list_each(d, &n->doubts->list, struct doubt, link)
        if (d->from.peer == peer) {
            list_remove(&d->link);
            free(d);
        }
}
