/* sasl2: XEP-0388 on a stream that has TLS: one request says who it is and what the session is to
 * be, and one answer says all of that is done. The exchange within is auth.c's; here is what comes
 * with it: XEP-0198 resumed inline, else Bind 2 (XEP-0386) with what it switches on; <success/> is
 * told when the home has answered. */
#ifndef PEMBERLEY_EDGE_SASL2_H
#define PEMBERLEY_EDGE_SASL2_H

#include "node/edge/stream.h"

enum {
    SASL2_TEXT_MAX = 256, /* bytes of what a client says of itself; more is not looked at */
    SASL2_CLIENT_N = 16,  /* characters by which a client is known (XEP-0386 4.2) */
    FAST_NONCE_N = 16,    /* bytes, of a token (fast.h) and of a use of it */
};

/* One <authenticate/>, from then until it has failed or the session is bound. Text is own memory.
 */
struct sasl2 {
    str additional;              /* the mechanism's last word, in base64 */
    str agent, software, device; /* of <user-agent/>; agent: its id */
    str resume;                  /* <resume/>; p NULL: none */
    str bind;                    /* <bind/>; p NULL: none */
    str failed;                  /* what became of <resume/>, if it failed */
    /* fast.h */
    str word, token;            /* the mechanism's last word meanwhile; <token/> */
    enum sasl_mechanism wanted; /* of the token that is asked for; SASL_MECHANISMS: none is */
    uint64_t count;
    bool invalidate, noted;
    size_t which;
    struct fast_slot {
        unsigned char nonce[FAST_NONCE_N];
        int64_t expiry_us;
    } slot[2];
    /* upgrade.h */
    unsigned upgrades; /* bits of enum scram_hash that are asked for */
    str keys;          /* the account's, in the store's form */
    enum { TASK_NONE, TASK_OFFERED, TASK_SENT } stage;
    enum scram_hash task;
    uint32_t iterations;
    unsigned char salt[SCRAM_SALT_BYTES];
};

/* <authentication/>, where it is offered. */
void sasl2_put_features(struct conn *c, struct xml_writer *w);
/* XEP-0509: what names all of the features that are in w so far. */
void sasl2_put_version(struct conn *c, struct xml_writer *w);
/* <authenticate/>. */
void sasl2_begin(struct conn *c, str item, const struct xml_index *x);
void sasl2_free(struct negotiation *n); /* harmless where there is none */

/* It is who it says: what else was asked for is done. additional: not base64 yet, may be empty. */
void sasl2_authenticated(struct conn *c, str additional);
/* What else was asked for beside the login, from where it was left. */
void sasl2_go_on(struct conn *c);
/* By which the account `bare` knows this client: SASL2_CLIENT_N characters, in the turn's arena.
 * Who has not named itself is new each time. */
str sasl2_client(const struct conn *c, str bare);
/* Answers of the home, in that order: <resume/> has failed, was answered with that element; a
 * session is there again, resumed is that element; BOUND. */
void sasl2_resume_failed(struct conn *c, str failed);
void sasl2_resumed(struct conn *c, str full, str resumed);
void sasl2_bound(struct conn *c, const struct frame *f);

#endif
