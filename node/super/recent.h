/* recent: the supervisor's log, which also keeps the last warnings and errors for the status page.
 * No JID and no address is kept. Events of the other processes go to stderr without passing here;
 * what befalls these processes is the supervisor's to say. */
#ifndef PEMBERLEY_NODE_SUPER_RECENT_H
#define PEMBERLEY_NODE_SUPER_RECENT_H

#include "node/os/os.h"

enum { RECENT_EVENTS = 10, RECENT_TEXT_MAX = 240 };

struct recent {
    struct log door; /* what everybody writes to */
    struct log *sink;
    struct clock *clock;
    struct recent_event {
        int64_t at_us; /* wall time */
        enum log_event event;
        char text[RECENT_TEXT_MAX]; /* "key=value key=value", cut off */
    } events[RECENT_EVENTS];        /* a circular array */
    unsigned n;                     /* ever kept */
};

/* sink: as log_open made it; lent. */
void recent_init(struct recent *r, struct log *sink, struct clock *clock);
void recent_level(struct recent *r); /* the sink's has changed */
/* The i-th from the newest; NULL: there is none. */
const struct recent_event *recent_at(const struct recent *r, unsigned i);
const char *recent_name(enum log_event e);

#endif
