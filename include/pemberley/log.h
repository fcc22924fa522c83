/* log: one line per event, logfmt or JSON, on stderr. Events and their fields are rows of
 * events.def (operator.md 4); no prose, no passwords, no bodies, no stanzas. Values are quoted and
 * escaped, 256 bytes at most, so that nobody injects lines. More than log.event_rate lines of one
 * event are summed up as log_suppressed. */
#ifndef PEMBERLEY_LOG_H
#define PEMBERLEY_LOG_H

#include "pemberley/str.h"

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };
enum log_event {
#define EVENT(name, level, fields) LOG_##name,
#include "pemberley/events.def"
#undef EVENT
    LOG_EVENT_MAX
};

/* What a field holds decides how it is written: JIDs and addresses as log.jids / log.addresses say.
 */
enum log_kind { LOG_STR, LOG_INT, LOG_JID, LOG_ADDRESS };
struct log_field {
    const char *key;
    enum log_kind kind;
    str s;                               /* LOG_STR, LOG_JID */
    int64_t i;                           /* LOG_INT */
    const struct sockaddr_storage *addr; /* LOG_ADDRESS */
};
#define F_STR(key, v) ((struct log_field){key, LOG_STR, v, 0, NULL})
#define F_INT(key, v) ((struct log_field){key, LOG_INT, STR_NONE, (int64_t)(v), NULL})
#define F_JID(key, v) ((struct log_field){key, LOG_JID, v, 0, NULL})
#define F_ADDR(key, v) ((struct log_field){key, LOG_ADDRESS, STR_NONE, 0, v})

struct log {
    void (*write)(struct log *l, enum log_event e, enum log_level level, const struct log_field *f,
                  size_t n);
    enum log_level level; /* events below are not even formatted */
};
extern const enum log_level log_event_level[LOG_EVENT_MAX];
extern const char *const log_event_names[LOG_EVENT_MAX];
/* An event that is at times more than its row says. */
#define LOG_AT(l, at, event, ...) \
    do { \
        struct log *log_ = (l); \
        const enum log_level level_ = (at); \
        if (level_ >= log_->level) { \
            const struct log_field fields_[] = {__VA_ARGS__}; \
            log_->write(log_, LOG_##event, level_, fields_, sizeof fields_ / sizeof fields_[0]); \
        } \
    } while (0)
#define LOG(l, event, ...) LOG_AT(l, log_event_level[LOG_##event], event, __VA_ARGS__)

#endif
