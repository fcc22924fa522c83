/* hosts: which host has which place among the labels of metrics. Children count by the place that
 * stands in the config (conf_host.metric). A place, once given, is that host's until the supervisor
 * ends, also when the host goes and comes back: a counter must never become another host's. Who
 * finds no place (metrics.hosts_max) counts as "other", place 0. */
#ifndef PEMBERLEY_NODE_SUPER_HOSTS_H
#define PEMBERLEY_NODE_SUPER_HOSTS_H

#include "node/conf/conf.h"

struct hosts;

struct hosts *hosts_new(void);
void hosts_free(struct hosts *h);
/* Before a new image is sealed: gives its hosts their places, new ones in the order of their names.
 */
void hosts_place(struct hosts *h, struct conf *c);
unsigned hosts_named(const struct hosts *h); /* places given, "other" among them */
const char *hosts_name(const struct hosts *h, unsigned place);

#endif
