/* ping: a session that asks the server whether it is there (XEP-0199), a window of questions at a
 * time. The id of a question is its slot, so that every answer is that of one question. */
#ifndef PEMBERLEY_BENCH_PING_H
#define PEMBERLEY_BENCH_PING_H

#include "bench/load/message.h"

struct pinger {
    uint64_t sent_us[MESSAGE_WINDOW_MAX]; /* by slot; 0: nothing is asked */
};

void pinger_send(struct pinger *p, struct client *c, unsigned slot, struct tally *t,
                 uint64_t now_us);
/* A stanza has come. True: it is the answer of *slot, which is free again. */
bool pinger_take(struct pinger *p, struct tally *t, str item, const struct xml_index *x,
                 uint64_t now_us, unsigned *slot);
/* What is still open is lost. */
void pinger_end(struct pinger *p, struct tally *t);

#endif
