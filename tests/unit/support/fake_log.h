/* fake_log: the tables of log.h and a log that remembers its last lines, for programs that link no
 * node/os. Include it once per program. */
#ifndef PEMBERLEY_TEST_FAKE_LOG_H
#define PEMBERLEY_TEST_FAKE_LOG_H

#include <stdio.h>

#include "pemberley/log.h"

const enum log_level log_event_level[LOG_EVENT_MAX] = {
#define EVENT(name, level, fields) [LOG_##name] = level,
#include "pemberley/events.def"
#undef EVENT
};
const char *const log_event_names[LOG_EVENT_MAX] = {
#define EVENT(name, level, fields) [LOG_##name] = #name,
#include "pemberley/events.def"
#undef EVENT
};

struct fake_log {
    struct log log;
    char text[8192]; /* "event key=value …\n", the texts among the fields only */
};

static inline void fake_log_write(struct log *l, enum log_event e, enum log_level level,
                                  const struct log_field *f, size_t n)
{
    char *text = ((struct fake_log *)l)->text;
    size_t max = sizeof((struct fake_log *)l)->text, at = strlen(text);
    if (at > max - 512)
        at = 0;
    at += (size_t)snprintf(text + at, max - at, "%s", log_event_names[e]);
    for (size_t i = 0; i < n; i++)
        if (f[i].kind == LOG_STR)
            at += (size_t)snprintf(text + at, max - at, " %s=%.*s", f[i].key,
                                   (int)(f[i].s.n < 64 ? f[i].s.n : 64), f[i].s.p);
    snprintf(text + at, max - at, "\n");
}
static inline void fake_log_init(struct fake_log *l)
{
    l->log = (struct log){fake_log_write, LOG_DEBUG};
    l->text[0] = 0;
}

#endif
