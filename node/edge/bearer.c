/* bearer: see bearer.h. */
#include "node/edge/bearer.h"

#include <stdio.h>

#include "node/edge/admit.h"
#include "node/edge/auth.h"

void bearer_load(struct edge *e)
{
    const struct conf *conf = e->node->conf;
    str path = conf_text(conf, conf->auth_jwt_keys_file);
    if (path.n == 0) {
        jwt_keys_free(e->jwt_keys);
        e->jwt_keys = NULL;
        return;
    }
    FILE *f = fopen(arena_printf(e->node->turn, "%.*s", STR_ARG(path)).p, "re");
    char *bytes = f ? malloc(JWT_FILE_MAX + 1) : NULL;
    size_t n = bytes ? fread(bytes, 1, JWT_FILE_MAX + 1, f) : 0;
    struct jwt_keys *keys = jwt_keys_new(str_from(bytes, n));
    if (keys) {
        jwt_keys_free(e->jwt_keys);
        e->jwt_keys = keys;
    } else {
        LOG(e->node->log, jwt_keys_bad, F_STR("path", path));
    }
    free(bytes);
    if (f)
        fclose(f);
}

void bearer_rules(struct edge *e, struct jwt_rules *out)
{
    const struct conf *conf = e->node->conf;
    *out = (struct jwt_rules){
        .keys = e->jwt_keys,
        .issuer = conf_text(conf, conf->auth_jwt_issuer),
        .audience = conf_text(conf, conf->auth_jwt_audience),
        .user_claim = conf_text(conf, conf->auth_jwt_user_claim),
        .now_s = clock_wall_us(e->node->clock) / 1000000,
        .leeway_s = conf->auth_jwt_leeway / 1000,
    };
}

static void go_on(struct conn *c, err refused)
{
    auth_answer(c, sasl_account(&c->negotiation->sasl, refused));
}

static void added(struct conn *c, err e, const struct Store__Reply *reply)
{
    if (e == ERR_OK || e == ERR_EXISTS)
        go_on(c, ERR_OK);
    else if (e == ERR_FULL && reply)
        go_on(c, ERR_SASL_NOT_AUTHORIZED); /* host.users_max */
    else
        admit_defer(c, ADMIT_STORE);
}

static void add(struct conn *c)
{
    const struct conf_host *host = conf_host_find(c->edge->node->conf, stream_host(c));
    Store__Request r = STORE__REQUEST__INIT;
    Store__AccountAdd op = STORE__ACCOUNT_ADD__INIT;
    str user = c->negotiation->sasl.user;
    r.owner = (ProtobufCBinaryData){user.n, (uint8_t *)user.p};
    op.created_us = clock_wall_us(c->edge->node->clock);
    op.host_max = host ? host->users_max : 0;
    r.op_case = STORE__REQUEST__OP_ACCOUNT_ADD, r.account_add = &op;
    auth_ask(c, &r, added);
}

static void got_account(struct conn *c, err e, const struct Store__Reply *reply)
{
    const Store__Account *account =
        reply && reply->body_case == STORE__REPLY__BODY_ACCOUNT ? reply->account : NULL;
    if (e != ERR_OK && e != ERR_NOT_FOUND)
        return admit_defer(c, ADMIT_STORE);
    if (!account || !account->exists)
        return add(c);
    go_on(c, account->disabled ? ERR_SASL_ACCOUNT_DISABLED : ERR_OK);
}

void bearer_fetch(struct conn *c)
{
    Store__Request r = STORE__REQUEST__INIT;
    Store__AccountGet get = STORE__ACCOUNT_GET__INIT;
    str user = c->negotiation->sasl.user;
    r.owner = (ProtobufCBinaryData){user.n, (uint8_t *)user.p};
    r.op_case = STORE__REQUEST__OP_ACCOUNT_GET, r.account_get = &get;
    auth_ask(c, &r, got_account);
}
