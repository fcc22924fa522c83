/* ping: see ping.h. */
#include "bench/load/ping.h"

void pinger_send(struct pinger *p, struct client *c, unsigned slot, struct tally *t,
                 uint64_t now_us)
{
    client_put(c, arena_printf(&c->rig->turn,
                               "<iq type='get' to='%s' id='ping-%02u'>"
                               "<ping xmlns='urn:xmpp:ping'/></iq>",
                               c->rig->host, slot));
    p->sent_us[slot] = now_us;
    t->sent++;
}

static bool slot_of(str id, unsigned *slot)
{
    if (id.n != 7 || !str_starts(id, STR("ping-")))
        return false;
    *slot = (unsigned)((id.p[5] - '0') * 10 + (id.p[6] - '0'));
    return *slot < MESSAGE_WINDOW_MAX;
}

bool pinger_take(struct pinger *p, struct tally *t, str item, const struct xml_index *x,
                 uint64_t now_us, unsigned *slot)
{
    if (!str_is(str_from(item.p + x->name_off, x->name_len), "iq"))
        return false;
    if (!x->id.off || !slot_of(str_from(item.p + x->id.off, x->id.len), slot) || !x->type.off ||
        !str_is(str_from(item.p + x->type.off, x->type.len), "result")) {
        t->damaged++;
        return false;
    }
    if (!p->sent_us[*slot]) {
        t->duplicated++;
        return false;
    }
    tally_count(t, now_us - p->sent_us[*slot]);
    p->sent_us[*slot] = 0;
    t->received++;
    return true;
}

void pinger_end(struct pinger *p, struct tally *t)
{
    for (unsigned i = 0; i < MESSAGE_WINDOW_MAX; i++)
        t->lost += p->sent_us[i] != 0;
}
