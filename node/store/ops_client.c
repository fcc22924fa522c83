/* ops_client: the clients that have shown who they are for an account (XEP-0388 2.3), and the
 * tokens with which they come back (XEP-0484): a current one, and a fresh one that takes its place
 * when it is used. What is kept of a token is a nonce: no token can be made of it without the
 * cluster's secret. */
#include "node/store/ops.h"

static bool client_ok(ProtobufCBinaryData client)
{
    return ops_key_ok(ops_str(client), CLIENT_MAX);
}

static bool token_ok(const Store__Token *t)
{
    return !t || (t->mechanism.len > 0 && t->mechanism.len <= CLIENT_MAX && t->nonce.len > 0 &&
                  t->nonce.len <= UID_MAX && t->expiry_us > 0);
}

/* Of columns mechanism, nonce, expiry; NULL: there is none. */
static Store__Token *token_of(struct ops *x, const struct sql_cell *c)
{
    if (c[0].null || c[1].null)
        return NULL;
    Store__Token *t = arena_alloc(x->arena, sizeof *t);
    store__token__init(t);
    t->mechanism = ops_keep(x, c[0].s), t->nonce = ops_keep(x, c[1].s);
    t->expiry_us = c[2].i;
    return t;
}

static bool on_client(struct ops *x, const struct sql_row *row)
{
    Store__Client *client = x->r.client;
    client->exists = true;
    client->disabled = row->c[0].i != 0;
    client->current = token_of(x, &row->c[1]);
    client->fresh = token_of(x, &row->c[4]);
    return false;
}

err op_client_get(struct ops *x)
{
    ProtobufCBinaryData client = x->q->client_get->client;
    if (!client_ok(client))
        return ERR_BAD;
    x->r.body_case = STORE__REPLY__BODY_CLIENT;
    x->r.client = arena_alloc(x->arena, sizeof *x->r.client);
    store__client__init(x->r.client);
    ops_sql(x, client_get, on_client, A_TEXT(x->owner), A_TEXT(ops_str(client)));
    return ERR_OK;
}

err op_client_put(struct ops *x)
{
    const Store__ClientPut *put = x->q->client_put;
    str client = ops_str(put->client);
    if (!client_ok(put->client) || put->software.len > TEXT_MAX || put->device.len > TEXT_MAX ||
        put->clients_max == 0 || put->time_us < 0 || !token_ok(put->fresh))
        return ERR_BAD;
    ops_sql(x, client_put, NULL, A_TEXT(x->owner), A_TEXT(client), A_BLOB(ops_str(put->software)),
            A_BLOB(ops_str(put->device)), A_INT(put->time_us), A_INT(put->password != 0),
            A_INT(put->time_us - CLIENT_SEEN_US));
    ops_sql(x, client_trim, NULL, A_TEXT(x->owner), A_TEXT(client), A_INT(put->clients_max));
    if (put->fresh)
        ops_sql(x, token_put, NULL, A_TEXT(x->owner), A_TEXT(client),
                A_BLOB(ops_str(put->fresh->mechanism)), A_BLOB(ops_str(put->fresh->nonce)),
                A_INT(put->fresh->expiry_us));
    return ERR_OK;
}

static err is_used(struct ops *x) { return x->stored ? ERR_OK : ERR_NOT_FOUND; }

static bool on_used(struct ops *x, const struct sql_row *row)
{
    x->stored = true;
    return false;
}

/* Each statement is without effect unless the one before it found what it looks for, in this
 * request or in a former execution of it. */
err op_token_use(struct ops *x)
{
    const Store__TokenUse *use = x->q->token_use;
    str client = ops_str(use->client), nonce = ops_str(use->nonce), attempt = ops_str(use->attempt);
    if (!client_ok(use->client) || nonce.n == 0 || nonce.n > UID_MAX || attempt.n == 0 ||
        attempt.n > UID_MAX || use->count > INT64_MAX || !token_ok(use->fresh))
        return ERR_BAD;
    ops_sql(x, token_promote, NULL, A_TEXT(x->owner), A_TEXT(client), A_BLOB(nonce));
    ops_sql(x, token_use, NULL, A_TEXT(x->owner), A_TEXT(client), A_BLOB(nonce), A_INT(use->count),
            A_BLOB(attempt), A_INT(use->time_us));
    ops_sql(x, token_used, on_used, A_TEXT(x->owner), A_TEXT(client), A_BLOB(nonce),
            A_BLOB(attempt));
    if (use->invalidate)
        ops_sql(x, token_drop, NULL, A_TEXT(x->owner), A_TEXT(client), A_BLOB(nonce),
                A_BLOB(attempt));
    if (use->fresh)
        ops_sql(x, token_rotate, NULL, A_TEXT(x->owner), A_TEXT(client), A_BLOB(attempt),
                A_BLOB(ops_str(use->fresh->mechanism)), A_BLOB(ops_str(use->fresh->nonce)),
                A_INT(use->fresh->expiry_us));
    x->done = is_used;
    return ERR_OK;
}

static bool on_listed(struct ops *x, const struct sql_row *row)
{
    Store__ClientPage *page = x->r.clients;
    page->clients = ops_grow(x, page->clients, page->n_clients, sizeof *page->clients);
    Store__Client *c = page->clients[page->n_clients++] = arena_alloc(x->arena, sizeof *c);
    store__client__init(c);
    c->exists = true;
    c->client = ops_keep(x, row->c[0].s);
    c->software = ops_keep(x, row->c[1].s), c->device = ops_keep(x, row->c[2].s);
    c->first_us = row->c[3].i, c->last_us = row->c[4].i;
    c->password = row->c[5].i != 0;
    c->token_until_us = row->c[6].null ? 0 : row->c[6].i;
    if (!row->c[7].null && row->c[7].i > c->token_until_us)
        c->token_until_us = row->c[7].i;
    return true;
}

err op_client_list(struct ops *x)
{
    x->r.body_case = STORE__REPLY__BODY_CLIENTS;
    x->r.clients = arena_alloc(x->arena, sizeof *x->r.clients);
    store__client_page__init(x->r.clients);
    ops_sql(x, client_list, on_listed, A_TEXT(x->owner));
    return ERR_OK;
}

err op_client_revoke(struct ops *x)
{
    if (!client_ok(x->q->client_revoke->client))
        return ERR_BAD;
    ops_sql(x, client_revoke, NULL, A_TEXT(x->owner), A_TEXT(ops_str(x->q->client_revoke->client)));
    return ERR_OK;
}
