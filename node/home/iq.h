/* iq: a request to an account or to the server that we answer ourselves (RFC 6120 8.2.3, RFC 6121
 * 8.5; tables in xmpp.md 3). The handler is found by the namespace of the request's only child in
 * xep.def; it answers exactly once, now or later (iq_keep). */
#ifndef PEMBERLEY_IQ_H
#define PEMBERLEY_IQ_H

#include "node/home/home.h"
#include "proto/xmpp/jid.h"
#include "proto/xmpp/stanza.h"

struct user;
struct session;
struct ticket;
struct Store__Request;
struct Store__Reply;

/* Who is asked. */
enum iq_entity {
    IQ_SERVER = 1,        /* the domain itself */
    IQ_OWN_ACCOUNT = 2,   /* no `to`, or the asker's own bare JID */
    IQ_OTHER_ACCOUNT = 4, /* somebody's bare JID; the account may not exist: answer the same */
};

struct iq {
    struct home *home;
    struct node *node;
    enum iq_entity entity;
    struct user *user;       /* the account asked; NULL for the server and missing accounts */
    struct session *session; /* IQ_OWN_ACCOUNT and IQ_SERVER: the asking session. May end while a
                                kept iq waits: then it is NULL again */
    const struct conf_host *host; /* of the entity asked */
    struct jid asker;             /* full JID */
    str asked;       /* prepared JID asked; the asker's bare JID when `to` was absent */
    bool subscribed; /* IQ_OTHER_ACCOUNT: the asker may see the account's presence */
    struct stanza *stanza;
    bool set;              /* else get */
    struct xml_el payload; /* the only child; in the turn's arena: NOT valid in a kept iq */
    struct ticket *ticket;
    struct arena *arena; /* the turn's: replies and scratch */
    int64_t us;          /* wall time at which an edge read it */
};

typedef void iq_handler_f(struct iq *q);

void iq_result(struct iq *q, str payload); /* payload: XML or empty */
void iq_error(struct iq *q, err e);
void iq_error_extra(struct iq *q, err e, str extra);
/* A copy that outlives the turn (own memory, reference to the stanza, effect on the ticket); freed
 * by the answer. The original must not be answered any more. Use iq_payload to look at the child
 * again. */
struct iq *iq_keep(struct iq *q);
struct xml_el iq_payload(const struct iq *q, struct arena *a);
/* Submits a store request for a request that is kept: done gets the kept iq and answers it. An
 * error of the store that done does not want to name itself: iq_store_error answers it (AWAY, FULL,
 * IO -> internal-server-error/wait, DISK_FULL -> resource-constraint/wait, …). */
typedef void iq_store_f(struct iq *kept, err e, const struct Store__Reply *reply);
void iq_store(struct iq *q, struct Store__Request *request, iq_store_f *done);
void iq_store_error(struct iq *kept, err e);

#endif
