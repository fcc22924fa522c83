/* pemberley-shard: started by the supervisor only. */
#include <signal.h>
#include <stdio.h>

#include "node/shard/shard.h"
#include "node/super/child.h"

int main(void)
{
    if (!child_has_supervisor()) {
        fputs("pemberley-shard is started by the supervisor: run `pemberley run`\n", stderr);
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    signal(SIGINT, SIG_IGN);  /* a terminal's Ctrl-C goes to all: the supervisor tells us */
    signal(SIGTERM, SIG_IGN); /* the supervisor's death: its socket ends, and we flush first */
    return shard_main();
}
