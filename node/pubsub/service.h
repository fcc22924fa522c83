/* service: what the files that answer requests share (pubsub.h). A request is a kept IQ; its
 * payload is looked at when its turn comes, and again when the store has answered: nothing of it is
 * copied.
 */
#ifndef PEMBERLEY_PUBSUB_SERVICE_H
#define PEMBERLEY_PUBSUB_SERVICE_H

#include "node/conf/conf.h"
#include "node/home/inside.h"
#include "node/pubsub/pubsub.h"

/* What is asked, as far as all requests are alike. */
struct ask {
    struct iq *q;
    struct pubsub *p;
    struct arena *arena;
    struct xml_el pubsub, el; /* the payload, and its child that says what */
    str node;                 /* empty: none is named */
    struct leaf *leaf;        /* NULL: there is none of that name */
    struct visitor who;
};

typedef void ask_run_f(struct ask *x);
/* The store has answered a change: e is ERR_OK, or was answered already (then it is not called). */
typedef void ask_done_f(struct ask *x, const Store__Reply *reply);

/* A change: others wait until it is done. done may be called with the leaf gone or new. */
void ask_change(struct ask *x, Store__Request *req, ask_done_f *done);
/* A question: others do not wait. */
void ask_read(struct ask *x, Store__Request *req, iq_store_f *done);
/* The same request once more, from a handler of iq_store's. */
void ask_again(struct iq *kept, struct ask *x, struct arena *a);

/* Answers with an error and, when why is not NULL, its element of pubsub#errors. */
void ask_refuse(struct ask *x, err e, const char *why);
void ask_unsupported(struct ask *x, const char *feature);
/* Answers: payload is what stands in <pubsub xmlns='…'/>; empty: an empty result. */
void ask_result(struct ask *x, const char *ns, str payload);
/* The cause of what is told after the answer: pinned until cause_end. */
struct cause ask_cause(const struct ask *x);
void cause_end(struct cause *c);
/* 0, or the time of the request when it may have been done before (store.proto: again_us). */
int64_t ask_again_us(const struct ask *x);
uint32_t ask_items_max(const struct ask *x, const struct leaf_rules *r);

/* The leaf must be there and (own) its owner's: else answers, false. */
bool ask_wants_leaf(struct ask *x);
bool ask_wants_own(struct ask *x);
bool ask_may_see(struct ask *x);

/* publish.c */
ask_run_f publish_run, retract_run, items_run;
/* subscribe.c */
ask_run_f subscribe_run, unsubscribe_run, subscriptions_run, affiliations_run, options_get_run,
    options_set_run, default_subscription_run;
/* owner.c */
ask_run_f create_run, configure_get_run, configure_set_run, default_run, delete_run, purge_run,
    owner_affiliations_get_run, owner_affiliations_set_run, owner_subscriptions_get_run,
    owner_subscriptions_set_run;
/* The form in <configure/> or <publish-options/>: answers and returns false when it is bad. */
bool owner_read_form(struct ask *x, const struct xml_el *parent, const char *type,
                     struct form *out);

#endif
