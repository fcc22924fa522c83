#include "node/super/recent.h"

#include <stdio.h>

static void keep(struct recent *r, enum log_event e, const struct log_field *f, size_t n)
{
    struct recent_event *to = &r->events[r->n++ % RECENT_EVENTS];
    *to = (struct recent_event){.at_us = clock_wall_us(r->clock), .event = e};
    FILE *out = fmemopen(to->text, sizeof to->text, "w");
    if (!out)
        return;
    for (size_t i = 0; i < n; i++) {
        const char *space = i ? " " : "";
        if (f[i].kind == LOG_STR)
            fprintf(out, "%s%s=%.*s", space, f[i].key, STR_ARG(f[i].s));
        else if (f[i].kind == LOG_INT)
            fprintf(out, "%s%s=%lld", space, f[i].key, (long long)f[i].i);
    }
    fclose(out);
    to->text[sizeof to->text - 1] = 0;
}

static void write_event(struct log *l, enum log_event e, const struct log_field *f, size_t n)
{
    struct recent *r = container_of(l, struct recent, door);
    if (log_event_level[e] >= LOG_WARN)
        keep(r, e, f, n);
    r->sink->write(r->sink, e, f, n);
}

void recent_init(struct recent *r, struct log *sink, struct clock *clock)
{
    *r = (struct recent){.door.write = write_event, .sink = sink, .clock = clock};
    recent_level(r);
}

void recent_level(struct recent *r) { r->door.level = r->sink->level; }

const struct recent_event *recent_at(const struct recent *r, unsigned i)
{
    unsigned kept = r->n < RECENT_EVENTS ? r->n : RECENT_EVENTS;
    return i < kept ? &r->events[(r->n - 1 - i) % RECENT_EVENTS] : NULL;
}

const char *recent_name(enum log_event e)
{
    static const char *const names[LOG_EVENT_MAX] = {
#define EVENT(name, level, fields) [LOG_##name] = #name,
#include "pemberley/events.def"
#undef EVENT
    };
    return names[e];
}
