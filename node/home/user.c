/* user: one bare JID in memory. Why accounts that do not exist are remembered too: whoever sends to
 * invented names must not make the store look for each of them again and again. */
#include "node/home/user.h"

#include "node/home/inside.h"

const struct conf_host *user_host(const struct user *u)
{
    return conf_host_find(u->home->node->conf, jid_parse_prepared(user_bare(u)).domain);
}

struct user *user_find(struct home *h, str bare)
{
    uint64_t hash = hash_str(&h->node->key, bare);
    for (struct hnode *n = htable_find(&h->users, hash); n; n = htable_find_next(n)) {
        struct user *u = container_of(n, struct user, node);
        if (str_eq(user_bare(u), bare))
            return u;
    }
    return NULL;
}

/* Everybody is born LOADING. */
static void set_state(struct user *u, enum user_state state)
{
    home_count(u->home, METRIC_parked_users, (state == USER_LOADING) - (u->state == USER_LOADING));
    u->state = state;
}

static struct user *user_new(struct home *h, str bare)
{
    must(bare.n && bare.n <= JID_MAX);
    size_t size = offsetof(struct user, bare) + bare.n;
    struct user *u = calloc(1, size > sizeof *u ? size : sizeof *u);
    must(u);
    u->home = h;
    list_init(&u->rest);
    u->bare_len = (uint16_t)bare.n;
    u->host_metric = (uint8_t)conf_host_metric(h->node->conf, jid_parse_prepared(bare).domain);
    memcpy(u->bare, bare.p, bare.n);
    u->slot = (uint16_t)ring_slot(h->node->ring, bare);
    htable_insert(&h->users, &u->node, hash_str(&h->node->key, bare));
    home_count(h, METRIC_users_loaded, 1);
    home_count(h, METRIC_parked_users, 1);
    return u;
}

struct user *user_anonymous(struct home *h, str bare)
{
    struct user *u = user_new(h, bare);
    set_state(u, USER_READY);
    u->exists = u->anonymous = true;
    return u;
}

void user_count_session(struct user *u, int n)
{
    int alone = u->sessions ? 0 : n;
    home_count(u->home, METRIC_users_online, alone);
    home_count(u->home, METRIC_AT(host_users, u->host_metric, 0), alone);
    home_count(u->home, METRIC_AT(host_sessions, u->host_metric, 0), n);
}

struct extras {
    void *of[EXTRAS];
};

void *user_extra(const struct user *u, enum user_extra which)
{
    return u->extras ? u->extras->of[which] : NULL;
}

void user_set_extra(struct user *u, enum user_extra which, void *p)
{
    if (!u->extras && p) {
        u->extras = calloc(1, sizeof *u->extras);
        must(u->extras);
    }
    if (u->extras)
        u->extras->of[which] = p;
}

static void forget(struct user *u)
{
    chain_forgotten(u);
    free(u->extras);
    u->extras = NULL;
    roster_free(u);
    free(u->last);
    u->last = NULL;
    u->offline_count = 0, u->astray = 0;
}

void user_set_last(struct user *u, int64_t us, str status)
{
    free(u->last);
    u->last = malloc(sizeof *u->last + status.n + 1);
    must(u->last);
    u->last->us = us;
    if (status.n)
        memcpy(u->last->status, status.p, status.n);
    u->last->status[status.n] = '\0';
}

static void unrest(struct user *u)
{
    if (list_empty(&u->rest))
        return;
    list_remove(&u->rest);
    if (u->state == USER_READY)
        u->home->resting_count--;
}

static struct work *next_parked(struct user *u)
{
    struct work *w = list_entry(u->parked, struct work, link);
    ring_remove(&u->parked, &w->link);
    return w;
}

static void destroy(struct user *u)
{
    must(!u->parked && !u->giving && !u->changes && !u->sessions);
    forget(u);
    free(u);
}

/* Everything must have left it; at the home's own end what waits is given up. */
void user_free(struct user *u)
{
    struct home *h = u->home;
    user_each_session(s, u)
        session_end(s, ERR_STREAM_SYSTEM_SHUTDOWN, false);
    offline_free(u);
    while (u->parked) {
        struct work *w = next_parked(u);
        w->run(w, NULL);
    }
    unrest(u);
    htable_remove(&h->users, &u->node);
    home_count(h, METRIC_users_loaded, -1);
    home_count(h, METRIC_parked_users, -(u->state == USER_LOADING));
    destroy(u);
}

static bool needed(const struct user *u)
{
    return u->left || u->state == USER_LOADING || u->pins || u->sessions || u->parked ||
           u->changes || u->giving;
}

void user_touch(struct user *u)
{
    struct home *h = u->home;
    unrest(u);
    if (u->left && !u->pins)
        return destroy(u);
    if (needed(u))
        return;
    u->since_ms = loop_now_ms(h->node->loop);
    list_push_back(&h->resting, &u->rest);
    h->resting_count++;
}

void user_pin(struct user *u)
{
    u->pins++;
    unrest(u);
}

void user_unpin(struct user *u)
{
    must(u->pins);
    u->pins--;
    user_touch(u);
}

/* ---- loading ---- */

static void take(struct user *u, const Store__User *from)
{
    forget(u);
    u->exists = from->exists, u->disabled = from->disabled;
    u->created_us = from->created_us;
    u->offline_count = from->offline_count;
    u->astray = u->offline_count ? UINT64_MAX : 0; /* whose they are the store knows */
    if (!u->exists)
        return;
    roster_load(u, from);
    if (from->last)
        user_set_last(u, from->last->time_us, home_str(from->last->status));
    chain_loaded(u, from);
}

/* Runs what has waited. Work may make more wait (a change in flight): that stands elsewhere. */
static void wake(struct user *u)
{
    user_pin(u);
    while (u->state == USER_READY && u->parked) {
        struct work *w = next_parked(u);
        u->home->parked_bytes -= w->bytes;
        w->run(w, u);
    }
    user_unpin(u);
}

static void give_up(struct user *u)
{
    while (u->parked) {
        struct work *w = next_parked(u);
        u->home->parked_bytes -= w->bytes;
        w->run(w, NULL);
    }
    user_free(u);
}

static void on_loaded(struct home *h, void *ctx, err e, const Store__Reply *reply)
{
    struct user *u = ctx;
    if (u->left)
        return user_unpin(u);
    u->pins--;
    if (e == ERR_OK && reply && reply->body_case == STORE__REPLY__BODY_USER) {
        take(u, reply->user);
        set_state(u, USER_READY);
        wake(u);
    } else if (e == ERR_NOT_FOUND) {
        forget(u);
        u->exists = false;
        set_state(u, USER_READY);
        wake(u);
    } else {
        list_push_back(&h->again, &u->rest); /* the sweep asks again, or gives up */
    }
}

static void load(struct user *u)
{
    Store__Request req = STORE__REQUEST__INIT;
    Store__UserLoad op = STORE__USER_LOAD__INIT;
    req.op_case = STORE__REQUEST__OP_USER_LOAD, req.user_load = &op;
    u->pins++;
    home_store(u->home, user_bare(u), &req, on_loaded, u);
}

void user_reload(struct user *u)
{
    must(u->state == USER_READY && !u->sessions);
    if (u->pins || u->changes || u->giving)
        return; /* somebody is at work with what we know */
    unrest(u);
    set_state(u, USER_LOADING);
    u->since_ms = loop_now_ms(u->home->node->loop);
    load(u);
}

void user_with(struct home *h, str bare, struct work *w)
{
    struct user *u = user_find(h, bare);
    if (u && u->state == USER_READY) {
        user_pin(u);
        w->run(w, u);
        user_unpin(u);
        return;
    }
    if (h->parked_bytes + w->bytes > h->node->conf->limits_park_max) {
        home_count(h, METRIC_limit_park, 1);
        w->run(w, NULL);
        return;
    }
    h->parked_bytes += w->bytes;
    if (!u) {
        u = user_new(h, bare);
        u->since_ms = loop_now_ms(h->node->loop);
        ring_push_back(&u->parked, &w->link);
        load(u);
        return;
    }
    ring_push_back(&u->parked, &w->link);
}

/* Once a second: users that nobody needed for a while go; loads that failed are tried again; what
 * has waited too long gets its error. */
void user_sweep(struct home *h)
{
    uint64_t now = loop_now_ms(h->node->loop);
    while (!list_empty(&h->resting)) {
        struct user *u = list_first(&h->resting, struct user, rest);
        if (now - u->since_ms < USER_REST_MS && h->resting_count <= USERS_RESTING_MAX)
            break;
        user_free(u);
    }
    offline_sweep(h, now);
    struct list again;
    list_init(&again);
    list_append(&again, &h->again);
    while (!list_empty(&again)) {
        struct user *u = list_first(&again, struct user, rest);
        list_remove(&u->rest);
        if (now - u->since_ms >= USER_WAIT_MS)
            give_up(u);
        else
            load(u);
    }
}

/* ---- to another home ---- */

void work_drop(struct work *w)
{
    if (w->drop)
        w->drop(w);
    else
        w->run(w, NULL);
}

void user_leave(struct user *u)
{
    struct home *h = u->home;
    user_pin(u);
    record_leave(u);
    user_each_session(s, u)
        session_leave(s);
    offline_leave(u);
    ended_leave(u);
    while (u->parked) {
        struct work *w = next_parked(u);
        h->parked_bytes -= w->bytes;
        work_drop(w);
    }
    htable_remove(&h->users, &u->node);
    home_count(h, METRIC_users_loaded, -1);
    home_count(h, METRIC_parked_users, -(u->state == USER_LOADING));
    u->state = USER_READY, u->left = true;
    user_unpin(u);
}

/* ---- what others do to an account ---- */

void user_end_sessions(struct user *u, err reason, struct session *except)
{
    user_each_session(s, u)
        if (s != except)
            session_doom(s, reason);
}

static void cancel_one(const struct item *i, void *ctx)
{
    struct user *u = ctx;
    if (i->subscription & SUB_FROM)
        presence_hide(u, item_contact(i), NULL);
    subscription_cancel(u, item_contact(i), i, roster_pending(u, item_contact(i)) != NULL, NULL);
}

void user_cancel_subscriptions(struct user *u)
{
    user_roster_each(u, cancel_one, u);
    if (!u->roster)
        return;
    list_each(p, &u->roster->pending, struct pending, link) {
        str contact = str_from(p->contact, p->contact_len);
        if (!roster_find(u, contact))
            subscription_cancel(u, contact, NULL, true, NULL);
    }
}

void user_account_changed(struct user *u, bool exists, bool disabled)
{
    bool made = exists && !u->exists;
    u->exists = exists, u->disabled = disabled;
    if (!exists || disabled)
        user_end_sessions(u, ERR_STREAM_ACCOUNT_GONE, NULL);
    if (!exists || made)
        forget(u);
    if (made && !u->sessions)
        user_reload(u);
    user_touch(u);
}
