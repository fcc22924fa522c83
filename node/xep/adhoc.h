/* adhoc: Ad-Hoc Commands (XEP-0050) of the domain. Nothing is remembered between two stages: the
 * second says by its form what it is about, and who may send it is asked again. */
#ifndef PEMBERLEY_XEP_ADHOC_H
#define PEMBERLEY_XEP_ADHOC_H

#include "node/home/iq.h"
#include "proto/xmpp/form.h"

#define ADHOC_NS "http://jabber.org/protocol/commands"

struct adhoc_command;
/* A stage of one. */
struct adhoc {
    struct iq *iq; /* who answers later keeps it (iq_keep), and a copy of this with it */
    const struct adhoc_command *command;
    char session[65];
    bool submitted; /* with a form: */
    struct xml_el form;
};
struct adhoc_command {
    const char *node, *name;
    bool (*may)(const struct iq *q);    /* else it is not listed, and forbidden */
    void (*run)(const struct adhoc *r); /* answers once */
};

/* Answers, each once. form: an <x/>; payload: what there is to tell, may be empty. */
void adhoc_ask(const struct adhoc *r, str form);
void adhoc_done(const struct adhoc *r, str payload);
void adhoc_failed(const struct adhoc *r, str why); /* completed, with a note */
void adhoc_bad_payload(const struct adhoc *r);

/* NULL-named at the end (service_admin.c). */
extern const struct adhoc_command service_admin_commands[];

#endif
