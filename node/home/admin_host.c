/* What a service administrator asks of a home beyond accounts and sessions (XEP-0133). Answers that
 * no operator reads are no JSON: a line per account, XML. */
#include "node/home/admin.h"

/* ---- an account ---- */

static void changed(struct command *c, err e, bool disabled)
{
    struct user *u = c->user;
    if (e) {
        admin_let_go(c);
        admin_store_failed(c, e);
        return;
    }
    user_account_changed(u, true, disabled);
    admin_let_go(c);
    admin_answer_account(c, disabled ? "disabled" : "enabled");
}

static void disabled(struct home *h, void *ctx, err e, const Store__Reply *reply)
{
    changed(ctx, e, true);
}

static void enabled(struct home *h, void *ctx, err e, const Store__Reply *reply)
{
    changed(ctx, e, false);
}

static void set_disabled(struct command *c, struct user *u, bool value)
{
    Store__AccountSetDisabled op = STORE__ACCOUNT_SET_DISABLED__INIT;
    Store__Request r = STORE__REQUEST__INIT;
    if (!u->exists || u->anonymous) {
        admin_no_such_user(c);
        return;
    }
    op.disabled = value;
    r.op_case = STORE__REQUEST__OP_ACCOUNT_SET_DISABLED, r.account_set_disabled = &op;
    admin_keep(c, u);
    home_store(c->home, c->jid, &r, value ? disabled : enabled, c);
}

void admin_disable(struct command *c, struct user *u) { set_disabled(c, u, true); }
void admin_enable(struct command *c, struct user *u) { set_disabled(c, u, false); }

void admin_roster(struct command *c, struct user *u)
{
    if (!u->exists)
        admin_no_such_user(c);
    else
        admin_answer(c, 0, roster_xml(u, home_arena(c->home)));
}

/* ---- all of a host here ---- */

static bool is_of(const struct user *u, str host)
{
    return u->sessions && str_eq(jid_parse_prepared(user_bare(u)).domain, host);
}

/* Is somebody there who says so? Available, and neither away nor extended away. */
static bool is_active(struct user *u)
{
    user_each_session(s, u)
        if (s->shown && !s->detached && presence_is_here(s))
            return true;
    return false;
}

/* A line per account: "+" active, "-" idle, and its bare JID. */
void admin_users_online(struct command *c)
{
    struct home *h = c->home;
    struct xml_writer w; /* as text */
    xml_writer_init(&w, home_arena(h));
    htable_each(it, &h->users) {
        struct user *u = container_of(it, struct user, node);
        if (!is_of(u, c->jid))
            continue;
        xml_put_raw(&w, is_active(u) ? STR("+") : STR("-"));
        xml_put_raw(&w, user_bare(u));
        xml_put_raw(&w, STR("\n"));
    }
    admin_answer(c, 0, xml_written(&w));
}

static struct stanza *announcement(struct command *c)
{
    struct arena *a = home_arena(c->home);
    struct xml_writer w;
    xml_writer_init(&w, a);
    xml_open(&w, "message");
    xml_put_attr(&w, "from", c->jid);
    xml_put_attr(&w, "type", STR("headline"));
    if (c->argc > 1)
        xml_put_leaf(&w, "subject", NULL, c->arg[1]);
    xml_put_leaf(&w, "body", NULL, c->arg[0]);
    xml_close(&w, "message");
    return stanza_make(c->home->node->scan, xml_written(&w), a);
}

/* To each available session; how many accounts had one. */
void admin_announce(struct command *c)
{
    struct home *h = c->home;
    struct stanza *s = announcement(c);
    unsigned told = 0;
    htable_each(it, &h->users) {
        struct user *u = container_of(it, struct user, node);
        if (!is_of(u, c->jid))
            continue;
        told++;
        user_each_session(to, u)
            if (session_available(to))
                session_send(to, s, (struct uid){0, 0, 0}, FRAME_TO_FULL, home_wall_us(h), NULL);
    }
    stanza_unref(s);
    admin_answer(c, 0, arena_printf(home_arena(h), "%u\n", told));
}
