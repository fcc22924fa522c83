/* notify: what systemd, or whoever set NOTIFY_SOCKET, is told (sd_notify(3)): READY=1, RELOADING=1,
 * STOPPING=1, WATCHDOG=1. Without NOTIFY_SOCKET nothing happens; nothing here fails or waits. */
#ifndef PEMBERLEY_NODE_SUPER_NOTIFY_H
#define PEMBERLEY_NODE_SUPER_NOTIFY_H

#include <stdint.h>

void notify_send(const char *state);
/* A reload begins; READY=1 ends it. */
void notify_reloading(void);
/* How often WATCHDOG=1 is to be sent: half of WATCHDOG_USEC; 0: nobody waits for it from us. */
int64_t notify_watchdog_ms(void);

#endif
