/* Anything in any order: clients that ack what they have not read, stop reading, leave and come
 * back, a home that answers, closes and dies, a socket that stalls. Whatever happens, each frame of
 * the home is done with once, h tells what is safe and no more, no room's invariant breaks, and
 * nothing is left in the end (the sanitizers look). Seeds make a storm repeatable. */
#include <setjmp.h>
#include <stdarg.h>

#include "tests/unit/edge/harness.h"

#include <cmocka.h>

enum { WORLDS = 150, EVENTS_OF_A_STORM = 400 };

static struct storm {
    uint64_t seed;
    uint64_t out_seq; /* of the home */
    uint32_t gen;
    size_t sent;    /* frames to the edge */
    size_t settled; /* of w.frames: looked at so far */
    bool enabled, bound;
    bool in_half; /* of a stanza */
} g;

static uint32_t any(uint32_t n) { return (uint32_t)(hash_u64(g.seed++) >> 20) % n; }

static void home_says(struct frame f)
{
    f.sid = f.sid ? f.sid : sid_of_juliet();
    f.gen = g.gen;
    g.sent++;
    home_sends(&f);
}

static void home_answers(const struct sent_frame *s)
{
    switch (s->f.kind) {
    case FRAME_BIND:
        if (any(5) == 0)
            return home_says((struct frame){
                .kind = FRAME_BOUND, .conn = s->f.conn, .reason = ERR_STANZA_CONFLICT});
        g.bound = true, g.enabled = false, g.gen++, g.out_seq = 0;
        return home_says(
            (struct frame){.kind = FRAME_BOUND, .conn = s->f.conn, .text = STR(JULIET "/balcony")});
    case FRAME_ENABLE:
        g.enabled = true;
        return home_says(
            (struct frame){.kind = FRAME_ENABLED, .seq = g.out_seq, .ms = any(2) ? 600000 : 0});
    case FRAME_RESUME:
        if (any(3) == 0 || !g.enabled)
            return home_says((struct frame){.kind = FRAME_FAILED, .conn = s->f.conn});
        g.gen++, g.bound = true;
        struct snap snap = {.sid = sid_of_juliet(),
                            .gen = g.gen,
                            .full = STR(JULIET "/balcony"),
                            .sm = true,
                            .resumable = true,
                            .in_ord = any(9),
                            .out_seq = g.out_seq,
                            .out_acked = g.out_seq};
        return home_says((struct frame){
            .kind = FRAME_RESUMED, .conn = s->f.conn, .payload = snap_encode(&snap, &w.turn)});
    default: return;
    }
}

/* Takes some of the edge's frames that were not looked at; INs become safe or are lost. */
static void home_works(void)
{
    for (uint32_t n = 1 + any(8); n > 0 && g.settled < w.frame_n; n--) {
        struct sent_frame *s = &w.frames[g.settled++];
        if (s->f.kind == FRAME_IN)
            edge_settled(w.edge, s->hold, any(100) == 0);
        else
            home_answers(s);
    }
}

static void home_gives(void)
{
    static char big[9000];
    static const char *const xml[] = {"<message/>", "<presence from='a@b'/>", big,
                                      "<iq type='get' id='1'><x xmlns='y'/></iq>"};
    snprintf(big, sizeof big, "<message><body>%08000d</body></message>", 0);
    if (!g.bound)
        return;
    struct stanza *s = stanza_make(w.node.scan, str_of(xml[any(4)]), &w.turn);
    g.out_seq += any(300) ? 1 : any(3);
    home_says((struct frame){.kind = FRAME_OUT,
                             .seq = g.out_seq,
                             .stanza = s,
                             .us = w.now_us,
                             .flags = any(4) ? FRAME_TO_FULL : FRAME_REPLAY,
                             .h = any(3)});
    stanza_unref(s);
}

static void client_says(void)
{
    static const char *const words[] = {
        "<message to='romeo@localhost'/>",
        "<presence/>",
        "<r " SM "/>",
        "<r " SM "/><r " SM "/>",
        "<iq type='get' id='1'><ping xmlns='urn:xmpp:ping'/></iq>",
        "<enable " SM " resume='1'/>",
        "<enable " SM "/>",
        " ",
        BIND,
        "<iq type='set' id='s'><session xmlns='urn:ietf:params:xml:ns:xmpp-session'/></iq>",
        "<iq type='result' id='pemberley-ping-1'/>",
        "<message to='@'/>",
        "<presence/><presence/>",
    };
    static const char *const ends[] = {"</stream:stream>", "<what/>", "<message><!--",
                                       "<a " SM "/>"};
    char text[64];
    if (g.in_half) {
        client_sends_bytes("dy>x</body></message>", 21);
        g.in_half = false;
    } else if (any(8) == 0) {
        client_sends_bytes("<message to='romeo@localhost'><bo", 33);
        g.in_half = true;
    } else if (any(3) == 0) {
        const struct c2s *s = w.conn ? w.conn->session : NULL;
        snprintf(text, sizeof text, "<a " SM " h='%u'/>",
                 s ? (uint32_t)(s->put - s->out_base - any(3) + (any(50) == 0)) : 0);
        client_sends_bytes(text, strlen(text));
    } else {
        const char *said = any(200) ? words[any(array_len(words))] : ends[any(array_len(ends))];
        client_sends_bytes(said, strlen(said));
    }
}

static void client_comes_back(void)
{
    char text[128];
    if (w.transport && w.transport->closing)
        w.transport->closed = true, w.transport->stalled = false, turn();
    if (w.conn)
        return;
    g.in_half = false;
    client_open(LISTENER_C2S_TLS);
    client_authenticates();
    client_sends(HEADER);
    snprintf(text, sizeof text, "<resume " SM " h='%u' previd='%016llx-x'/>", (uint32_t)g.out_seq,
             (unsigned long long)sid_of_juliet());
    client_sends(any(2) ? text : BIND);
}

static void socket_does(void)
{
    struct fake_transport *t = w.transport;
    if (!t)
        return;
    switch (any(12)) {
    case 0:
    case 1:
    case 2:
    case 3: t->stalled = !t->stalled; return;
    case 4:
    case 5:
    case 6:
    case 7:
    case 8:
        if (t->in_flight && !t->closed)
            t->in_flight = 0, t->t.sink->written(&t->t);
        return;
    case 9:
    case 10:
        t->out_n = 0; /* the harness' buffer has an end */
        return;
    default:
        if (any(4) == 0 && !t->closing)
            t->t.sink->ended(&t->t);
    }
}

static void step(void)
{
    switch (any(11)) {
    case 0:
    case 1:
    case 2:
    case 3: client_says(); break;
    case 4:
    case 5: home_works(); break;
    case 6:
    case 7: home_gives(); break;
    case 8: socket_does(); break;
    case 9: client_comes_back(); break;
    default:
        switch (any(12)) {
        case 0: pass_ms(any(400000)); break;
        case 1: edge_attach(w.edge, ring_home(w.node.ring, STR(JULIET))); break;
        case 2: home_says((struct frame){.kind = FRAME_CLOSE, .reason = ERR_STREAM_KICKED}); break;
        default: pass_ms(any(1200));
        }
    }
    if (any(3))
        turn();
}

static void check(void)
{
    struct c2s *s = w.conn ? w.conn->session : NULL;
    if (!s)
        return;
    assert_true(s->window.safe <= s->in_ord);
    assert_true(s->acked <= c2s_last(s) && s->put <= c2s_last(s) && s->taken <= s->put);
    assert_true((s->outs == NULL) == (outs_count(s->outs) == 0));
}

static void storm(uint64_t seed)
{
    static const char *const narrow[] = {"limits.unsafe_max=8", "limits.unacked_max=16",
                                         "limits.output_max=64k", NULL};
    g = (struct storm){.seed = seed << 32, .gen = 1};
    world_open(any(2) ? narrow : NULL);
    client_logs_in();
    if (any(2))
        client_enables_sm(0), g.enabled = true;
    g.bound = true, w.done_n = 0;
    for (int i = 0; i < EVENTS_OF_A_STORM; i++)
        step(), check();
    if (w.transport)
        w.transport->out_n = 0;
    world_close();
    assert_int_equal(w.done_n, g.sent);
}

static void nothing_breaks_whatever_the_order(void **state)
{
    for (uint64_t seed = 1; seed <= WORLDS; seed++)
        storm(seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(nothing_breaks_whatever_the_order)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
