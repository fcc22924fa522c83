/* fast: see fast.h. */
#include "node/edge/fast.h"

#include "node/edge/admit.h"
#include "node/edge/auth.h"
#include "proto/base/base64.h"
#include "proto/bus/store.pb-c.h"

enum { CLIENTS_MAX = 64 /* of an account; who was not here for longest is forgotten */ };

static const char FAST[] = "urn:xmpp:fast:0";

static int64_t lifetime_us(const struct conn *c)
{
    return c->edge->node->conf->auth_token_lifetime * 1000;
}

static ProtobufCBinaryData bytes_of(str s) { return (ProtobufCBinaryData){s.n, (uint8_t *)s.p}; }
static str str_of_bytes(ProtobufCBinaryData b) { return str_from(b.data, b.len); }

/* ---- what is offered, what is asked for ---- */

/* Mechanisms with tokens, here; 0: none. */
static uint32_t offered(const struct conn *c)
{
    const struct conf *conf = c->edge->node->conf;
    const struct conf_host *host = conf_host_find(conf, stream_host(c));
    bool on = host && (host->auth & (CONF_AUTH_INTERNAL | CONF_AUTH_JWT)) && lifetime_us(c) &&
              !conf_module_off(conf, host, STR("fast"));
    return on ? sasl_token_mechanisms(&c->negotiation->offer) : 0;
}

void fast_put_features(struct conn *c, struct xml_writer *w)
{
    uint32_t set = offered(c);
    if (!set)
        return;
    xml_open_ns(w, "fast", FAST);
    for (int m = 0; m < SASL_MECHANISMS; m++)
        if (set & SASL_BIT(m))
            xml_put_leaf(w, "mechanism", NULL, sasl_mechanism_name((enum sasl_mechanism)m));
    xml_close(w, "fast");
}

static bool read_count(str text, uint64_t *out)
{
    *out = 0;
    for (size_t i = 0; i < text.n; i++) {
        if (i == 10 || text.p[i] < '0' || text.p[i] > '9')
            return false;
        *out = *out * 10 + (uint64_t)(text.p[i] - '0');
    }
    return !text.p || *out > 0;
}

bool fast_read(struct conn *c, const struct xml_el *request)
{
    struct arena *a = c->edge->node->turn;
    struct sasl2 *s = c->negotiation->sasl2;
    struct xml_el el;
    s->wanted = SASL_MECHANISMS;
    if (xml_find(request, FAST, "request-token", &el, a)) {
        enum sasl_mechanism m = sasl_mechanism_find(xml_attr(&el, "mechanism", a));
        if (m < SASL_MECHANISMS && (offered(c) & SASL_BIT(m)))
            s->wanted = m;
    }
    if (!xml_find(request, FAST, "fast", &el, a))
        return true;
    c->negotiation->offer.tokens = offered(c);
    str invalidate = xml_attr(&el, "invalidate", a);
    s->invalidate = str_is(invalidate, "true") || str_is(invalidate, "1");
    return read_count(xml_attr(&el, "count", a), &s->count);
}

/* ---- tokens ---- */

static str make_token(const struct conn *c, str bare, str client, const Store__Token *t)
{
    struct node *node = c->edge->node;
    unsigned char digest[SCRAM_DIGEST_MAX];
    str expiry = arena_printf(node->turn, "%lld", (long long)t->expiry_us);
    str parts[] = {
        STR("pemberley fast token\0"), bare,      STR("\0"), client,    STR("\0"),
        str_of_bytes(t->mechanism),    STR("\0"), expiry,    STR("\0"), str_of_bytes(t->nonce)};
    scram_hmac(SCRAM_SHA256, str_from(node->secret, sizeof node->secret), parts, array_len(parts),
               digest);
    return base64_encode_in(node->turn, str_from(digest, scram_hash_size(SCRAM_SHA256)));
}

/* A new one of this mechanism, from now on. */
static void draw_token(const struct conn *c, enum sasl_mechanism m, Store__Token *t)
{
    struct node *node = c->edge->node;
    char *nonce = arena_alloc(node->turn, FAST_NONCE_N);
    entropy_fill(node->entropy, nonce, FAST_NONCE_N);
    store__token__init(t);
    t->mechanism = bytes_of(sasl_mechanism_name(m));
    t->nonce = (ProtobufCBinaryData){FAST_NONCE_N, (uint8_t *)nonce};
    t->expiry_us = clock_wall_us(node->clock) + lifetime_us(c);
}

/* What <success/> says of it, when the store has it. */
static void keep_token(struct conn *c, str bare, const Store__Token *t)
{
    struct arena *a = c->edge->node->turn;
    struct sasl2 *s = c->negotiation->sasl2;
    struct xml_writer w;
    xml_writer_init(&w, a);
    xml_open_ns(&w, "token", FAST);
    xml_put_attr(&w, "expiry", stanza_stamp(t->expiry_us, a));
    xml_put_attr(&w, "token", make_token(c, bare, sasl2_client(c, bare), t));
    xml_close(&w, "token");
    negotiation_keep(&s->token, xml_written(&w));
}

/* ---- with a token ---- */

/* One that is not there is made all the same, of nothing. */
static struct sasl_token usable(struct conn *c, const Store__Token *t, bool disabled)
{
    const struct negotiation *n = c->negotiation;
    Store__Token none = STORE__TOKEN__INIT;
    none.mechanism = bytes_of(sasl_mechanism_name(n->sasl.mechanism));
    struct sasl_token out = {
        .known = t && str_eq(str_of_bytes(t->mechanism), sasl_mechanism_name(n->sasl.mechanism))};
    if (t && t->expiry_us <= clock_wall_us(c->edge->node->clock))
        out.refused = ERR_SASL_CREDENTIALS_EXPIRED;
    else if (disabled)
        out.refused = ERR_SASL_ACCOUNT_DISABLED;
    str user = n->sasl.user;
    str text = make_token(c, user, sasl2_client(c, user), t ? t : &none);
    must(text.n <= sizeof out.text);
    out.n = (uint8_t)text.n;
    memcpy(out.text, text.p, text.n);
    return out;
}

static void note_slot(struct fast_slot *slot, const Store__Token *t)
{
    *slot = (struct fast_slot){0};
    if (!t || t->nonce.len != FAST_NONCE_N)
        return;
    memcpy(slot->nonce, t->nonce.data, FAST_NONCE_N);
    slot->expiry_us = t->expiry_us;
}

static void got_tokens(struct conn *c, err e, const struct Store__Reply *reply)
{
    struct sasl2 *s = c->negotiation->sasl2;
    const Store__Client *client =
        reply && reply->body_case == STORE__REPLY__BODY_CLIENT ? reply->client : NULL;
    if (e != ERR_OK && e != ERR_NOT_FOUND)
        return admit_defer(c, ADMIT_STORE);
    const Store__Token *t[2] = {client ? client->fresh : NULL, client ? client->current : NULL};
    struct sasl_token tokens[2];
    for (int i = 0; i < 2; i++) {
        tokens[i] = usable(c, t[i], client && client->disabled);
        note_slot(&s->slot[i], t[i]);
    }
    struct sasl_answer answer =
        sasl_tokens(&c->negotiation->sasl, tokens, 2, c->edge->node->turn, &s->which);
    scram_wipe(tokens, sizeof tokens);
    auth_answer(c, answer);
}

void fast_fetch(struct conn *c)
{
    Store__Request r = STORE__REQUEST__INIT;
    Store__ClientGet get = STORE__CLIENT_GET__INIT;
    str user = c->negotiation->sasl.user;
    r.owner = bytes_of(user);
    get.client = bytes_of(sasl2_client(c, user));
    r.op_case = STORE__REQUEST__OP_CLIENT_GET, r.client_get = &get;
    auth_ask(c, &r, got_tokens);
}

static void used(struct conn *c, err e, const struct Store__Reply *reply)
{
    struct sasl2 *s = c->negotiation->sasl2;
    if (e == ERR_NOT_FOUND) /* revoked meanwhile, or this count was there before */
        return auth_fail(c, ERR_SASL_NOT_AUTHORIZED);
    if (e != ERR_OK)
        return admit_defer(c, ADMIT_STORE);
    auth_succeed(c, s->word);
}

/* Is it to be followed by another: asked for, or in the second half of its life? */
static bool is_due(const struct conn *c)
{
    const struct sasl2 *s = c->negotiation->sasl2;
    int64_t left = s->slot[s->which].expiry_us - clock_wall_us(c->edge->node->clock);
    return s->wanted < SASL_MECHANISMS || (!s->invalidate && left < lifetime_us(c) / 2);
}

void fast_use(struct conn *c, str word)
{
    struct node *node = c->edge->node;
    struct negotiation *n = c->negotiation;
    struct sasl2 *s = n->sasl2;
    Store__Request r = STORE__REQUEST__INIT;
    Store__TokenUse use = STORE__TOKEN_USE__INIT;
    Store__Token fresh;
    unsigned char attempt[FAST_NONCE_N];
    entropy_fill(node->entropy, attempt, sizeof attempt);
    negotiation_keep(&s->word, word);
    r.owner = bytes_of(n->sasl.user);
    use.client = bytes_of(sasl2_client(c, n->sasl.user));
    use.nonce = (ProtobufCBinaryData){FAST_NONCE_N, s->slot[s->which].nonce};
    use.count = s->count;
    use.attempt = (ProtobufCBinaryData){sizeof attempt, attempt};
    use.time_us = clock_wall_us(node->clock);
    use.invalidate = s->invalidate;
    if (is_due(c)) {
        draw_token(c, s->wanted < SASL_MECHANISMS ? s->wanted : n->sasl.mechanism, &fresh);
        keep_token(c, n->sasl.user, &fresh);
        use.fresh = &fresh;
    }
    r.op_case = STORE__REQUEST__OP_TOKEN_USE, r.token_use = &use;
    auth_ask(c, &r, used);
}

/* ---- without one ---- */

static void noted(struct conn *c, err e, const struct Store__Reply *reply)
{
    if (e != ERR_OK) /* it is logged in, without a token */
        negotiation_keep(&c->negotiation->sasl2->token, STR(""));
    sasl2_go_on(c);
}

void fast_note(struct conn *c)
{
    struct node *node = c->edge->node;
    struct negotiation *n = c->negotiation;
    struct sasl2 *s = n->sasl2;
    if (n->anonymous || s->agent.n == 0 || s->word.p) /* by a token all is noted */
        return sasl2_go_on(c);
    Store__Request r = STORE__REQUEST__INIT;
    Store__ClientPut put = STORE__CLIENT_PUT__INIT;
    Store__Token fresh;
    r.owner = bytes_of(n->bare);
    put.client = bytes_of(sasl2_client(c, n->bare));
    put.software = bytes_of(s->software), put.device = bytes_of(s->device);
    put.time_us = clock_wall_us(node->clock);
    put.password = !n->vouched;
    put.clients_max = CLIENTS_MAX;
    if (s->wanted < SASL_MECHANISMS) {
        draw_token(c, s->wanted, &fresh);
        keep_token(c, n->bare, &fresh);
        put.fresh = &fresh;
    }
    r.op_case = STORE__REQUEST__OP_CLIENT_PUT, r.client_put = &put;
    if (put.fresh)
        return auth_ask(c, &r, noted);
    auth_tell(c, &r);
    sasl2_go_on(c);
}
