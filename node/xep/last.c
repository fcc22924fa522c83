/* XEP-0012: Last Activity. Of the server: how long this shard is up. Of an account: 0 while it is
 * available, else the time since it became unavailable, and the status it left; told only to those
 * who may see its presence (3), others, and askers about nobody, are forbidden. */
#include "node/home/session.h"
#include "node/xep/xep.h"

static void answer(struct iq *q, uint64_t seconds, str status)
{
    struct xml_writer w;
    xml_writer_init(&w, q->arena);
    xml_open_ns(&w, "query", "jabber:iq:last");
    xml_put_attr_u64(&w, "seconds", seconds);
    if (status.n)
        xml_put_text(&w, status);
    xml_close(&w, "query");
    iq_result(q, xml_written(&w));
}

static bool is_available(const struct user *u)
{
    user_each_session(s, (struct user *)u)
        if (session_available(s))
            return true;
    return false;
}

static void get(struct iq *q)
{
    const struct user *u = q->user;
    if (q->entity == IQ_SERVER) {
        answer(q, (loop_now_ms(q->node->loop) - q->node->start_ms) / 1000, STR_NONE);
    } else if (q->entity == IQ_OTHER_ACCOUNT && (!u || !q->subscribed)) {
        iq_error(q, ERR_STANZA_FORBIDDEN);
    } else if (is_available(u)) {
        answer(q, 0, STR_NONE);
    } else {
        int64_t since = u->last ? u->last->us : u->created_us;
        int64_t gone = clock_wall_us(q->node->clock) - since;
        answer(q, gone > 0 ? (uint64_t)gone / 1000000 : 0, str_of(u->last ? u->last->status : ""));
    }
}

static const struct xep_iq iqs[] = {
    {"jabber:iq:last", IQ_SERVER | IQ_OWN_ACCOUNT | IQ_OTHER_ACCOUNT, get, NULL},
    {NULL, 0, NULL, NULL},
};
static const char *const features[] = {"jabber:iq:last", NULL};
const struct xep xep_last = {
    .name = "last", .server = features, .account = features, .contact = features, .iqs = iqs};
