/* sasl: the server's side of SASL as RFC 6120 6 profiles it: SCRAM-SHA-1, -256, -512 and their
 * -PLUS forms (RFC 5802, RFC 7677, RFC 9266, RFC 5929 4), PLAIN (RFC 4616), ANONYMOUS (RFC 4505,
 * XEP-0175); the lists behind XEP-0440, XEP-0474's hash of
 * them, and the version of TLS beside it (XEP-0515).
 *
 * A struct sasl is a pure state machine: bytes in, a verdict out; no clock, no I/O. One attempt:
 *
 *     sasl_begin ─► CONTINUE ─► sasl_step ─► ... NEED_KEYS ─► sasl_keys ─► CONTINUE ─► sasl_step
 *                                                  (PLAIN)        └► NEED_CHECK ─► sasl_checked
 *     every path ends in SUCCESS or FAILURE
 *
 * While NEED_KEYS or NEED_CHECK is open the owner reads nothing more from the client. The owner
 * counts tries, delays failures, answers <abort/> and a store that is away by itself (and calls
 * sasl_end); base64 and the XML around it are the owner's, with sasl_decode and sasl_encode.
 *
 * What a stranger can learn: nothing about which accounts exist. A user who is unknown (or has no
 * keys for this hash) gets a salt that is HMAC(cluster's secret, JID, hash), the same after a
 * restart and on every shard, the usual iteration count, the same steps and computations, and fails
 * where a wrong password does. */
#ifndef PEMBERLEY_SASL_H
#define PEMBERLEY_SASL_H

#include "pemberley/arena.h"
#include "pemberley/entropy.h"
#include "pemberley/err.h"
#include "pemberley/str.h"
#include "pemberley/transport.h" /* enum channel_binding */
#include "proto/sasl/scram.h"

enum sasl_mechanism {
#define SASL_MECHANISM(name, wire, kind, hash, plus) SASL_##name,
#include "proto/sasl/mechanisms.def"
#undef SASL_MECHANISM
    SASL_MECHANISMS
};
str sasl_mechanism_name(enum sasl_mechanism m);
/* SASL_MECHANISMS when there is no such name. Names are compared exactly (RFC 4422 3.1). */
enum sasl_mechanism sasl_mechanism_find(str name);
#define SASL_BIT(m) (1u << (m))

enum { SASL_BINDINGS = CB_TLS_SERVER_END_POINT + 1, SASL_MESSAGE_MAX = 6144 /* bytes, decoded */ };
str sasl_binding_name(enum channel_binding b); /* "tls-exporter" (XEP-0440) */

/* What this stream advertises, and what a verdict needs to know about its surroundings. It must be
 * the truth that the client was shown (XEP-0474 hashes it), and live as long as the attempt. */
struct jwt_rules;
struct sasl_offer {
    uint32_t mechanisms; /* bits of enum sasl_mechanism, from sasl_offered() */
    uint32_t tokens;     /* the same, from sasl_token_mechanisms(): good for this attempt too */
    bool tls;
    uint16_t tls_version; /* 0x0304; 0: none */
    struct {
        uint8_t n; /* 0: this type is not offered */
        unsigned char data[64];
    } binding[SASL_BINDINGS]; /* by enum channel_binding, from transport_channel_binding */
    str host;                 /* the stream's domain, prepared */
    str from;                 /* who the stream's header says it is, prepared; or empty */
    uint32_t iterations;      /* scram_iterations, for users that do not exist */
    str secret;               /* the cluster's */
    struct entropy *entropy;
    const struct jwt_rules *jwt; /* for OAUTHBEARER */
};
/* Which of the configured mechanisms this stream can offer: -PLUS with a binding, PLAIN under TLS.
 * Reads tls and binding of the offer. */
uint32_t sasl_offered(const struct sasl_offer *o, uint32_t configured);

/* Those with tokens (HT-SHA-256-*): under TLS, with the bindings that there are. */
uint32_t sasl_token_mechanisms(const struct sasl_offer *o);

enum sasl_verdict {
    SASL_CONTINUE,     /* send bytes as <challenge/>; the response goes to sasl_step */
    SASL_NEED_KEYS,    /* fetch the keys of s->user, then sasl_keys */
    SASL_NEED_ACCOUNT, /* somebody vouches for s->user: look for the account, then sasl_account */
    SASL_NEED_TOKENS,  /* fetch the tokens of s->user and of its client, then sasl_tokens */
    SASL_NEED_CHECK,   /* sasl_check_take, sasl_check_run on a helper thread, then sasl_checked */
    SASL_SUCCESS,      /* s->user is who it is; send bytes as additional data if there are any */
    SASL_FAILURE,      /* reason says which; an ERR_SASL_ row */
};
struct sasl_answer {
    enum sasl_verdict verdict;
    str bytes;  /* not base64 yet; in the arena */
    err reason; /* FAILURE only */
};

enum sasl_state { SASL_IDLE, SASL_FIRST, SASL_KEYS, SASL_FINAL, SASL_CHECK, SASL_DONE };

/* All zeroes is a good idle one. user and mechanism may be read at any time between begin and end;
 * the rest is the room's. About 340 bytes, and one heap block while an attempt is under way. */
struct sasl {
    enum sasl_mechanism mechanism;
    enum scram_hash hash;
    str user; /* bare JID, prepared; empty until known, or when the name does not prepare */
    enum sasl_state state;
    const struct sasl_offer *offer;
    char *heap; /* user, messages, password: wiped at the end */
    size_t heap_n, heap_cap;
    str gs2;      /* the client's GS2 header */
    str auth;     /* client-first-message-bare "," server-first-message */
    str nonce;    /* client's and ours, within auth */
    str password; /* PLAIN, prepared */
    str proof;    /* of a token */
    struct scram_key key;
    uint8_t binding; /* enum channel_binding + 1; 0: none in use */
    bool known;      /* the keys are an account's, not made up */
    bool hopeless;   /* the password does not prepare: fails at the last step */
    err refused;     /* what a right password is told */
};

/* Starts an attempt (an older one is ended). initial NULL: the <auth/> carried no initial response;
 * an empty one is "=" on the wire (RFC 6120 6.4.2). */
nodiscard struct sasl_answer sasl_begin(struct sasl *s, str mechanism,
                                        const struct sasl_offer *offer, const str *initial,
                                        struct arena *a);
/* The client's response. Only after CONTINUE. */
nodiscard struct sasl_answer sasl_step(struct sasl *s, str response, struct arena *a);
/* Only after NEED_KEYS. keys NULL: no such account. refused: what the right password is answered
 * with: ERR_OK, ERR_SASL_ACCOUNT_DISABLED, ERR_SASL_CREDENTIALS_EXPIRED. */
nodiscard struct sasl_answer sasl_keys(struct sasl *s, const struct scram_keys *keys, err refused,
                                       struct arena *a);
/* Only after NEED_TOKENS: n of them (one that is not there: known false, and some text), *which was
 * right, if the verdict is SUCCESS or `refused` of it. */
struct sasl_token {
    bool known;
    err refused; /* what the right one is told: ERR_OK, _CREDENTIALS_EXPIRED, _ACCOUNT_DISABLED */
    uint8_t n;
    char text[64];
};
nodiscard struct sasl_answer sasl_tokens(struct sasl *s, const struct sasl_token *tokens, size_t n,
                                         struct arena *a, size_t *which);
/* Only after NEED_ACCOUNT. refused: ERR_OK, or what is told instead. */
nodiscard struct sasl_answer sasl_account(struct sasl *s, err refused);
/* Frees and wipes; harmless when idle. After SUCCESS copy user first. */
void sasl_end(struct sasl *s);

/* PLAIN's derivation, as data that a helper thread may hold: it points to nothing. It holds the
 * password: scram_wipe it when it has run. */
struct sasl_check {
    enum scram_hash hash;
    struct scram_key key;
    uint16_t password_n;
    char password[SCRAM_PASSWORD_MAX];
};
void sasl_check_take(const struct sasl *s, struct sasl_check *out); /* only after NEED_CHECK */
nodiscard bool sasl_check_run(const struct sasl_check *c);          /* any thread; 1 ms */
nodiscard struct sasl_answer sasl_checked(struct sasl *s, bool right);

/* The text of <auth/>, <response/>, <challenge/>, <success/>: base64, "=" for nothing (RFC 6120
 * 6.4.2). decode: ERR_SASL_INCORRECT_ENCODING; above SASL_MESSAGE_MAX ERR_SASL_MALFORMED_REQUEST.
 */
nodiscard err sasl_decode(str text, struct arena *a, str *out);
str sasl_encode(str bytes, struct arena *a);

#endif
