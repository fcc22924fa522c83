/* recent: warnings and errors kept in the process' metrics page, where the supervisor finds them
 * for the status page without asking, also those of a process that has died. Each row has a
 * version, odd while it is written: a reader that meets one in the making leaves it out. Rejected:
 * sending them over the control socket, which a hanging shard does not read or write. */
#include "node/os/recent.h"

#include <stdio.h>

static size_t put_field(char *to, size_t room, const struct log_field *f)
{
    int n = 0;
    if (f->kind == LOG_STR)
        n = snprintf(to, room, " %s=%.*s", f->key, STR_ARG(f->s));
    else if (f->kind == LOG_INT)
        n = snprintf(to, room, " %s=%lld", f->key, (long long)f->i);
    return n < 0 ? 0 : (size_t)n < room ? (size_t)n : room - 1;
}

void recent_keep(struct metric_page *m, int64_t at_us, enum log_event e, const struct log_field *f,
                 size_t n)
{
    uint32_t at = atomic_load_explicit(&m->recent_n, memory_order_relaxed);
    struct metric_recent *r = &m->recent[at % METRIC_RECENT];
    uint32_t version = atomic_load_explicit(&r->version, memory_order_relaxed) | 1;
    atomic_store_explicit(&r->version, version, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
    r->event = e, r->at_us = at_us;
    r->text[0] = 0;
    for (size_t i = 0, used = 0; i < n; i++)
        used += put_field(r->text + used, sizeof r->text - used, &f[i]);
    atomic_store_explicit(&r->version, version + 1, memory_order_release);
    atomic_store_explicit(&m->recent_n, at + 1, memory_order_release);
}

bool recent_read(const struct metric_page *m, unsigned i, struct recent_event *out)
{
    uint32_t n = atomic_load_explicit(&m->recent_n, memory_order_acquire);
    if (i >= n || i >= METRIC_RECENT)
        return false;
    const struct metric_recent *r = &m->recent[(n - 1 - i) % METRIC_RECENT];
    uint32_t version = atomic_load_explicit(&r->version, memory_order_acquire);
    *out = (struct recent_event){.at_us = r->at_us, .event = (enum log_event)r->event};
    memcpy(out->text, r->text, sizeof out->text);
    out->text[sizeof out->text - 1] = 0;
    atomic_thread_fence(memory_order_acquire);
    return !(version & 1) && version == atomic_load_explicit(&r->version, memory_order_relaxed) &&
           out->event < LOG_EVENT_MAX;
}
