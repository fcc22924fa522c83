/* pairs: see pairs.h. */
#include "bench/load/pairs.h"

#include <stdlib.h>

struct pair *pairs_new(struct worker *w, bool bare)
{
    struct pair *pairs = calloc(w->units ? w->units : 1, sizeof *pairs);
    must(pairs);
    for (unsigned i = 0; i < w->units; i++) {
        struct pair *p = &pairs[i];
        p->from = worker_client(w, i, 0), p->to = worker_client(w, i, 1);
        str jid = client_jid(p->to, &w->rig.turn);
        const char *slash = memchr(jid.p, '/', jid.n);
        if (bare)
            jid.n = (size_t)(slash - jid.p);
        str head =
            arena_printf(&w->rig.turn, "<message to='%.*s' type='chat' id='load-%08x'><body>",
                         STR_ARG(jid), w->first + i);
        form_init(&p->form, head, STR("</body></message>"), w->plan->run, w->first + i,
                  w->plan->stanza_bytes);
    }
    arena_reset(&w->rig.turn);
    return pairs;
}

void pair_send(struct worker *w, struct pair *p, uint64_t time_us)
{
    client_send(p->from, form_fill(&p->form, ++p->sent, time_us));
    w->tally->sent++;
}

str child_text(str item, const struct xml_index *x, str name)
{
    for (unsigned i = 0; i < x->nchild; i++) {
        const struct xml_child *child = &x->child[i];
        if (!str_eq(str_from(item.p + child->name_off, child->name_len), name))
            continue;
        str all = str_from(item.p + child->off, child->len);
        const char *begin = memchr(all.p, '>', all.n), *end = memrchr(all.p, '<', all.n);
        if (begin && end > begin)
            return str_from(begin + 1, (size_t)(end - begin - 1));
    }
    return STR_NONE;
}

bool pair_take(struct worker *w, struct pair *p, const struct client *c, str item,
               const struct xml_index *x, struct mark *out)
{
    struct tally *t = w->tally;
    if (!str_is(str_from(item.p + x->name_off, x->name_len), "message"))
        return false;
    if (c == p->from && x->type.off &&
        str_is(str_from(item.p + x->type.off, x->type.len), "error")) {
        tally_error(t, "a message came back as an error", 1);
        return false;
    }
    enum verdict v = form_read(&p->form, child_text(item, x, STR("body")), out);
    if (v == MARK_STALE) {
        t->faults.stale++;
        return false;
    }
    if (v == MARK_DAMAGED || c != p->to || out->number == 0 || out->number > p->sent) {
        t->faults.damaged++;
        return false;
    }
    t->received++;
    sequence_take(&p->seen, out->number, &t->faults);
    return true;
}

bool pairs_are_whole(const struct worker *w, const struct pair *pairs)
{
    for (unsigned i = 0; i < w->units; i++)
        if (!pair_is_whole(&pairs[i]))
            return false;
    return true;
}

void pairs_end(struct worker *w, struct pair *pairs)
{
    for (unsigned i = 0; i < w->units; i++)
        sequence_end(&pairs[i].seen, pairs[i].sent, &w->tally->faults);
}
