#include "node/super/hosts.h"

#include <stdlib.h>

#include "pemberley/metric.h"

struct hosts {
    char *name[METRIC_SIZE_HOST];
    unsigned n;
};

static unsigned find(const struct hosts *h, str domain)
{
    for (unsigned i = 1; i < h->n; i++)
        if (str_eq(str_of(h->name[i]), domain))
            return i;
    return 0;
}

static unsigned add(struct hosts *h, str domain)
{
    h->name[h->n] = strndup(domain.p, domain.n);
    must(h->name[h->n]);
    return h->n++;
}

struct hosts *hosts_new(void)
{
    struct hosts *h = calloc(1, sizeof *h);
    must(h);
    add(h, STR("other"));
    return h;
}

void hosts_free(struct hosts *h)
{
    for (unsigned i = 0; h && i < h->n; i++)
        free(h->name[i]);
    free(h);
}

void hosts_place(struct hosts *h, struct conf *c)
{
    for (uint32_t i = 0; i < c->host_count; i++) {
        struct conf_host *host = (struct conf_host *)(uintptr_t)conf_host_at(c, i);
        str domain = conf_text(c, host->domain);
        host->metric = find(h, domain);
        if (!host->metric && h->n <= c->metrics_hosts_max && h->n < METRIC_SIZE_HOST)
            host->metric = add(h, domain);
    }
}

unsigned hosts_named(const struct hosts *h) { return h->n; }
const char *hosts_name(const struct hosts *h, unsigned place) { return h->name[place]; }
