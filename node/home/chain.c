/* The chains of chains.def, each a table of its hooks. */
#include "node/home/chain.h"

#include "node/home/inside.h"
#include "node/xep/xep.h"

#define SENT(xep, hook) chain_sent_f hook;
#define RECEIVED(xep, hook) chain_received_f hook;
#define KNOWN(xep, hook) chain_known_f hook;
#define GIVEN(xep, hook) chain_given_f hook;
#define BOUND(xep, hook) chain_bound_f hook;
#define SHOWN(xep, hook) chain_shown_f hook;
#define LOADED(xep, hook) chain_loaded_f hook;
#define FORGOTTEN(xep, hook) chain_forgotten_f hook;
#include "node/xep/chains.def"

/* Rows of one place, an empty one at the end. */
#define ROW(row_xep, row_hook) {&xep_##row_xep, row_hook},
#define TABLE(f) \
    static const struct { \
        const struct xep *xep; \
        f *hook; \
    }
TABLE(chain_sent_f)
sent_hooks[] = {
#define SENT ROW
#include "node/xep/chains.def"
    {NULL, NULL}};
TABLE(chain_received_f)
received_hooks[] = {
#define RECEIVED ROW
#include "node/xep/chains.def"
    {NULL, NULL}};
TABLE(chain_known_f)
known_hooks[] = {
#define KNOWN ROW
#include "node/xep/chains.def"
    {NULL, NULL}};
TABLE(chain_given_f)
given_hooks[] = {
#define GIVEN ROW
#include "node/xep/chains.def"
    {NULL, NULL}};
TABLE(chain_bound_f)
bound_hooks[] = {
#define BOUND ROW
#include "node/xep/chains.def"
    {NULL, NULL}};
TABLE(chain_shown_f)
shown_hooks[] = {
#define SHOWN ROW
#include "node/xep/chains.def"
    {NULL, NULL}};
TABLE(chain_loaded_f)
loaded_hooks[] = {
#define LOADED ROW
#include "node/xep/chains.def"
    {NULL, NULL}};
TABLE(chain_forgotten_f)
forgotten_hooks[] = {
#define FORGOTTEN ROW
#include "node/xep/chains.def"
    {NULL, NULL}};

/* Of an account's host: looked for once, and only when something is switched off anywhere. */
struct at {
    const struct conf *conf;
    const struct conf_host *host;
};

static struct at at_host_of(const struct user *u)
{
    const struct conf *c = u->home->node->conf;
    return (struct at){c, c->all_modules ? NULL : user_host(u)};
}

static bool active(const struct at *at, const struct xep *x)
{
    return at->conf->all_modules || xep_active(x, at->conf, at->host);
}

void sent_replace(struct sent *m, struct stanza *with)
{
    stanza_unref(m->made);
    m->stanza = m->made = with;
}

bool chain_sent(struct session *s, struct sent *m)
{
    const struct at at = at_host_of(s->user);
    for (size_t i = 0; sent_hooks[i].hook; i++)
        if (active(&at, sent_hooks[i].xep) && !sent_hooks[i].hook(s, m))
            return false;
    return true;
}

bool chain_received(struct user *u, struct route *r)
{
    const struct at at = at_host_of(u);
    for (size_t i = 0; received_hooks[i].hook; i++)
        if (active(&at, received_hooks[i].xep) && !received_hooks[i].hook(u, r))
            return false;
    return true;
}

void chain_known(struct user *u, struct route *r)
{
    const struct at at = at_host_of(u);
    for (size_t i = 0; known_hooks[i].hook; i++)
        if (active(&at, known_hooks[i].xep))
            known_hooks[i].hook(u, r);
}

void chain_given(struct user *u, struct route *r)
{
    const struct at at = at_host_of(u);
    for (size_t i = 0; given_hooks[i].hook; i++)
        if (active(&at, given_hooks[i].xep))
            given_hooks[i].hook(u, r);
}

void chain_bound(struct session *s, struct binding *b)
{
    const struct at at = at_host_of(s->user);
    for (size_t i = 0; bound_hooks[i].hook; i++)
        if (active(&at, bound_hooks[i].xep))
            bound_hooks[i].hook(s, b);
}

void chain_shown(struct session *s, enum shown_change change, struct ticket *t)
{
    const struct at at = at_host_of(s->user);
    for (size_t i = 0; shown_hooks[i].hook; i++)
        if (active(&at, shown_hooks[i].xep))
            shown_hooks[i].hook(s, change, t);
}

void chain_loaded(struct user *u, const struct Store__User *from)
{
    for (size_t i = 0; loaded_hooks[i].hook; i++)
        loaded_hooks[i].hook(u, from);
}

void chain_forgotten(struct user *u)
{
    for (size_t i = 0; forgotten_hooks[i].hook; i++)
        forgotten_hooks[i].hook(u);
}
