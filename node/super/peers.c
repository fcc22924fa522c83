#include "node/super/peers.h"

#include "node/super/inside.h"

static unsigned place(struct peers *p, const char *name)
{
    for (unsigned i = 1; i < p->n; i++)
        if (strncmp(p->name[i], name, METRIC_PEER_BYTES) == 0)
            return i;
    if (p->n == METRIC_SIZE_PEER)
        return 0;
    snprintf(p->name[p->n], METRIC_PEER_BYTES, "%.*s", METRIC_PEER_BYTES - 1, name);
    return p->n++;
}

void peers_collect(struct peers *p, const struct super *s)
{
    memset(p, 0, sizeof *p);
    snprintf(p->name[0], METRIC_PEER_BYTES, "other");
    p->n = 1;
    for (unsigned i = 0; i < s->shards; i++) {
        const struct metric_page *m = s->process[i].page;
        unsigned named = atomic_load_explicit(&m->peers, memory_order_acquire);
        for (unsigned k = 1; k <= named && k < METRIC_SIZE_PEER; k++)
            p->of[i][k] = (unsigned char)place(p, m->peer[k]);
    }
}
