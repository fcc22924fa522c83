/* helper: one thread for jobs that would hold up the loop (PBKDF2: 0.4-4 ms each). It starts at the
 * first job, because a process of one thread has cheaper file descriptor look-ups. The job's run()
 * happens on the thread and touches nothing but the job; its done() happens on the loop, in the
 * order the jobs were submitted. The thread never touches the loop, but for writing its wake fd. */
#ifndef PEMBERLEY_NODE_TLS_HELPER_H
#define PEMBERLEY_NODE_TLS_HELPER_H

#include "pemberley/err.h"
#include "pemberley/list.h"
#include "pemberley/loop.h"

enum { HELPER_JOBS_MAX = 64 }; /* submitted and not yet done */

struct helper;
struct helper_job {
    struct list link;                   /* the helper's */
    void (*run)(struct helper_job *j);  /* on the thread */
    void (*done)(struct helper_job *j); /* on the loop; may free the job and submit others */
};

struct helper *helper_new(struct loop *l);
/* The job rests until its done(). ERR_FULL: HELPER_JOBS_MAX are under way (RFC 6120 6.5.10:
 * temporary-auth-failure); ERR_AWAY: the thread cannot be made. Never calls done(). */
err helper_submit(struct helper *h, struct helper_job *j) nodiscard;
/* Waits for all jobs (64 x 4 ms at most), calls their done()s, which must submit nothing. */
void helper_free(struct helper *h);

#endif
