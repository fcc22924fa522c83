/* recent: the last warnings and errors of a process, in its metrics page. The process' log keeps
 * them (log_config.metrics), the supervisor reads them. Fields that hold JIDs or addresses are not
 * kept. */
#ifndef PEMBERLEY_NODE_OS_RECENT_H
#define PEMBERLEY_NODE_OS_RECENT_H

#include "pemberley/metric.h"

struct recent_event {
    int64_t at_us; /* wall time */
    enum log_event event;
    char text[METRIC_RECENT_TEXT]; /* " key=value key=value", cut off */
};

/* By the page's writer only. */
void recent_keep(struct metric_page *m, int64_t at_us, enum log_event e, const struct log_field *f,
                 size_t n);
/* The i-th from the newest, by anybody. False: there is none, or it is being written over. */
bool recent_read(const struct metric_page *m, unsigned i, struct recent_event *out);

#endif
