/* Arbitrary bytes of a client into a whole edge: before TLS, before login, while the store is
 * asked, bound, with XEP-0198. The first byte says where to begin, the second how the rest is cut;
 * between the pieces homes, store and time do what they do. Nothing may crash, leak or trip a
 * must, and when the client goes, everything of it is gone. */
#include "tests/unit/edge/harness.h"

static void home_answers(size_t *seen)
{
    for (; *seen < w.frame_n; ++*seen) {
        struct sent_frame *f = &w.frames[*seen];
        struct frame answer = {.conn = f->f.conn, .sid = sid_of_juliet(), .gen = 1};
        switch (f->f.kind) {
        case FRAME_BIND:
            answer.kind = FRAME_BOUND, answer.text = STR(JULIET "/x");
            home_sends(&answer);
            home_sends_out(1, "<message><body>welcome</body></message>", FRAME_TO_FULL);
            break;
        case FRAME_RESUME:
            answer.kind = FRAME_FAILED;
            home_sends(&answer);
            break;
        case FRAME_ENABLE:
            answer.kind = FRAME_ENABLED, answer.seq = 1, answer.ms = 1000;
            home_sends(&answer);
            home_sends_out(2, "<message><body>hi</body></message>", FRAME_TO_BARE);
            break;
        case FRAME_IN:
            must(f->f.stanza && f->f.ord);
            if (f->f.ord % 3)
                edge_settled(w.edge, f->hold, false);
            break;
        default: break;
        }
    }
}

static void go_on(size_t *seen)
{
    home_answers(seen);
    turn();
    run_store(ERR_OK);
    turn();
    pass_ms(7);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n < 2 || n > 8192)
        return 0;
    world_open(
        (const char *const[]){"host[localhost].registration=open", "auth.failure_delay=0s", NULL});
    size_t seen = 0, step = (size_t)data[1] % 64 + 1;
    if (data[0] % 5 == 0) {
        client_open(LISTENER_C2S);
    } else if (data[0] % 5 == 1) {
        client_open(LISTENER_C2S_TLS);
    } else if (data[0] % 5 == 2) {
        client_open(LISTENER_C2S_TLS);
        client_sends(HEADER);
    } else {
        client_logs_in();
        if (data[0] % 5 == 4)
            client_enables_sm(0);
    }
    for (size_t i = 2; i < n && w.conn; i += step) {
        client_sends_bytes((const char *)data + i, n - i < step ? n - i : step);
        go_on(&seen);
    }
    world_close();
    return 0;
}
