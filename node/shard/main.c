/* pemberley-shard: started by the supervisor only. */
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>

#include "node/shard/shard.h"
#include "node/super/child.h"

static bool started_by_supervisor(void)
{
    int type;
    socklen_t n = sizeof type;
    return !getsockopt(CHILD_FD, SOL_SOCKET, SO_TYPE, &type, &n) && type == SOCK_SEQPACKET;
}

int main(void)
{
    if (!started_by_supervisor()) {
        fputs("pemberley-shard is started by the supervisor: run `pemberley run`\n", stderr);
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    signal(SIGINT, SIG_IGN);  /* a terminal's Ctrl-C goes to all: the supervisor tells us */
    signal(SIGTERM, SIG_IGN); /* the supervisor's death: its socket ends, and we flush first */
    return shard_main();
}
