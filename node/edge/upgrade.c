/* upgrade: see upgrade.h.
 *
 *     <continue> ─► <next/> ─► <task-data><salt/> ─► <task-data><hash/> ─► stored ─► next, or done
 *
 * What the client sends is worth as much as the password with that salt; it is under TLS, of
 * somebody who has just shown the password, and replaces nothing. */
#include "node/edge/upgrade.h"

#include "node/edge/auth.h"
#include "proto/base/base64.h"

static const char UPGRADE[] = "urn:xmpp:sasl:upgrade:0", SALT[] = "urn:xmpp:scram-upgrade:0";

static str task_name(enum scram_hash h, struct arena *a)
{
    return arena_printf(a, "UPGR-SCRAM-%s", scram_hash_name(h));
}

/* The hashes of the mechanisms that are offered here. */
static unsigned offered(const struct conn *c)
{
    static const enum sasl_mechanism of[SCRAM_HASHES][2] = {
        [SCRAM_SHA1] = {SASL_SCRAM_SHA_1, SASL_SCRAM_SHA_1_PLUS},
        [SCRAM_SHA256] = {SASL_SCRAM_SHA_256, SASL_SCRAM_SHA_256_PLUS},
        [SCRAM_SHA512] = {SASL_SCRAM_SHA_512, SASL_SCRAM_SHA_512_PLUS},
    };
    unsigned out = 0;
    for (unsigned h = 0; h < SCRAM_HASHES; h++)
        if (c->negotiation->offer.mechanisms & (SASL_BIT(of[h][0]) | SASL_BIT(of[h][1])))
            out |= 1u << h;
    return out;
}

/* The same for everybody, whoever needs one (XEP-0388 7). */
void upgrade_put_features(const struct conn *c, struct xml_writer *w)
{
    for (unsigned h = 0; h < SCRAM_HASHES; h++)
        if (offered(c) >> h & 1)
            xml_put_leaf(w, "upgrade", UPGRADE, task_name((enum scram_hash)h, w->arena));
}

void upgrade_read(struct conn *c, const struct xml_el *request)
{
    struct arena *a = c->edge->node->turn;
    struct xml_el el;
    for (bool more = xml_first(request, &el, a); more; more = xml_next(request, &el, a))
        for (unsigned h = 0; h < SCRAM_HASHES; h++)
            if (xml_is(&el, UPGRADE, "upgrade") && (offered(c) >> h & 1) &&
                str_eq(xml_text(&el, a), task_name((enum scram_hash)h, a)))
                c->negotiation->sasl2->upgrades |= 1u << h;
}

void upgrade_keep_keys(struct negotiation *n, str blob)
{
    if (n->sasl2 && n->sasl2->upgrades)
        negotiation_keep(&n->sasl2->keys, blob);
}

bool upgrade_next(struct conn *c)
{
    struct sasl2 *s = c->negotiation->sasl2;
    struct scram_keys keys;
    if (!s->upgrades || !s->keys.n || scram_keys_decode(s->keys, &keys) != ERR_OK)
        return false;
    for (unsigned h = 0; h < SCRAM_HASHES; h++) /* what it has is not made again */
        if (keys.of[h].iterations)
            s->upgrades &= ~(1u << h);
    scram_wipe(&keys, sizeof keys);
    if (!s->upgrades)
        return false;
    s->task = (enum scram_hash)__builtin_ctz(s->upgrades);
    s->stage = TASK_OFFERED;
    struct xml_writer w;
    xml_writer_init(&w, c->edge->node->turn);
    xml_open_ns(&w, "continue", xml_ns_uri(NS_SASL2).p);
    if (s->additional.n)
        xml_put_leaf(&w, "additional-data", NULL, s->additional);
    xml_open(&w, "tasks");
    xml_put_leaf(&w, "task", NULL, task_name(s->task, w.arena));
    xml_close(&w, "tasks");
    xml_close(&w, "continue");
    conn_put(c, xml_written(&w));
    negotiation_keep(&s->additional, STR(""));
    return true;
}

static void fail(struct conn *c)
{
    auth_put_failure(c, ERR_SASL_MALFORMED_REQUEST, STR_NONE);
    conn_end(c, ERR_STREAM_NOT_AUTHORIZED);
}

static void put_salt(struct conn *c)
{
    struct node *node = c->edge->node;
    struct sasl2 *s = c->negotiation->sasl2;
    struct xml_writer w;
    s->iterations = (uint32_t)node->conf->auth_scram_iterations;
    entropy_fill(node->entropy, s->salt, sizeof s->salt);
    s->stage = TASK_SENT;
    xml_writer_init(&w, node->turn);
    xml_open_ns(&w, "task-data", xml_ns_uri(NS_SASL2).p);
    xml_open_ns(&w, "salt", SALT);
    xml_put_attr_u64(&w, "iterations", s->iterations);
    xml_put_text(&w, base64_encode_in(node->turn, str_from(s->salt, sizeof s->salt)));
    xml_close(&w, "salt");
    xml_close(&w, "task-data");
    conn_put(c, xml_written(&w));
}

static void stored(struct conn *c, err e, const struct Store__Reply *reply)
{
    if (e == ERR_EXISTS || e == ERR_NOT_FOUND) /* it has another password by now, or is gone */
        return conn_end(c, ERR_STREAM_RESET);
    if (e != ERR_OK) /* it is logged in all the same */
        c->negotiation->sasl2->upgrades = 0;
    sasl2_go_on(c);
}

/* salted: SaltedPassword (RFC 5802 3). */
static void store_key(struct conn *c, str salted)
{
    struct sasl2 *s = c->negotiation->sasl2;
    struct scram_keys keys;
    unsigned char blob[SCRAM_BLOB_MAX];
    must(scram_keys_decode(s->keys, &keys) == ERR_OK);
    scram_key_of(salted, s->task, str_from(s->salt, sizeof s->salt), s->iterations,
                 &keys.of[s->task]);
    size_t n = scram_keys_encode(&keys, blob);
    str user = c->negotiation->bare;
    Store__Request r = STORE__REQUEST__INIT;
    Store__AccountSetKeys op = STORE__ACCOUNT_SET_KEYS__INIT;
    r.owner = (ProtobufCBinaryData){user.n, (uint8_t *)user.p};
    op.keys = (ProtobufCBinaryData){n, blob};
    op.former = (ProtobufCBinaryData){s->keys.n, (uint8_t *)s->keys.p};
    op.same_password = true;
    r.op_case = STORE__REQUEST__OP_ACCOUNT_SET_KEYS, r.account_set_keys = &op;
    auth_ask(c, &r, stored);
    negotiation_keep(&s->keys, str_from(blob, n));
    s->stage = TASK_NONE;
    scram_wipe(&keys, sizeof keys);
    scram_wipe(blob, sizeof blob);
}

void upgrade_task(struct conn *c, str item, const struct xml_index *x)
{
    struct arena *a = c->edge->node->turn;
    struct sasl2 *s = c->negotiation->sasl2;
    struct xml_el el = xml_root(item, STR("jabber:client"), a), hash;
    bool next = xml_is(&el, xml_ns_uri(NS_SASL2).p, "next");
    bool data = xml_is(&el, xml_ns_uri(NS_SASL2).p, "task-data");
    str salted;
    if (!next && !data) /* XEP-0388 2.4 */
        return conn_end(c, ERR_STREAM_NOT_AUTHORIZED);
    if (next && s->stage == TASK_OFFERED && str_eq(xml_attr(&el, "task", a), task_name(s->task, a)))
        return put_salt(c);
    if (!data || s->stage != TASK_SENT || !xml_find(&el, SALT, "hash", &hash, a) ||
        sasl_decode(xml_text(&hash, a), a, &salted) || salted.n != scram_hash_size(s->task))
        return fail(c);
    store_key(c, salted);
}
