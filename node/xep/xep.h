/* xep: one protocol extension, one file, one const struct xep. xep.def lists them; disco shows a
 * feature exactly when its row is active for the host (host.modules_off, modules.off by `name`). */
#ifndef PEMBERLEY_XEP_H
#define PEMBERLEY_XEP_H

#include "node/home/iq.h"

struct xep_iq {
    const char *ns;
    unsigned entities;       /* of enum iq_entity: elsewhere service-unavailable */
    iq_handler_f *get, *set; /* NULL: feature-not-implemented where the entity matches */
};
/* Adds forms to disco#info (XEP-0128). */
typedef void xep_info_f(const struct iq *q, struct xml_writer *w);
/* A disco request about a node, or (node empty) for the items of an entity: answered, or false: it
 * is not of this extension. */
typedef bool xep_node_f(struct iq *q, str node, bool items);
struct xep {
    const char *name;           /* "ping": as in modules_off */
    const char *const *server;  /* features of the domain, NULL at the end; may be NULL */
    const char *const *account; /* of the own account */
    const char *const *contact; /* of an account as a subscribed contact sees it */
    xep_info_f *info;           /* may be NULL */
    xep_node_f *disco_node;     /* may be NULL */
    const struct xep_iq *iqs;   /* ns NULL at the end; may be NULL */
    /* A stream feature shown after login (XEP-0077 has one before: the edge knows it), or NULL. */
};
#define XEP(name) extern const struct xep xep_##name;
#include "node/xep/xep.def"
#undef XEP

/* All of xep.def, NULL at the end. */
extern const struct xep *const xeps[];
bool xep_active(const struct xep *x, const struct conf *conf, const struct conf_host *host);
/* Its place in xep.def, which is that among the labels of metrics. */
unsigned xep_index(const struct xep *x);
/* The row that serves this namespace; NULL: none. */
const struct xep_iq *xep_iq_find(str ns, const struct xep **x);

#endif
