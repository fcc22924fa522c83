/* check: did everything arrive, once, in order and as it was sent? Each message or presence carries
 * a *mark* as its text: run, sender, number, time and padding, all of which must come back byte by
 * byte. A *form* is a stanza with the place of its mark; a *sequence* is what one receiver has seen
 * of one sender's numbers; *faults* are what is wrong.
 *
 * A mark of another run (a queue that an earlier run left behind) is stale: it is no fault and no
 * delivery. */
#ifndef PEMBERLEY_BENCH_CHECK_H
#define PEMBERLEY_BENCH_CHECK_H

#include "pemberley/str.h"

struct faults {
    uint64_t lost, duplicated, reordered, damaged, stale;
};
void faults_add(struct faults *f, const struct faults *more);

/* ---- marks ---- */

struct form {
    char *xml;
    size_t xml_n, text, text_n; /* the mark: where it starts, and its bytes with the padding */
};
struct mark {
    uint64_t number, time_us;
};
enum verdict { MARK_WHOLE, MARK_STALE, MARK_DAMAGED };

/* <head>mark and padding<tail>, about `bytes` in all (head, mark and tail at the least). */
void form_init(struct form *f, str head, str tail, uint32_t run, uint32_t sender, size_t bytes);
void form_free(struct form *f);
/* The stanza with this number and time; valid until the next call. */
str form_fill(struct form *f, uint64_t number, uint64_t time_us);
/* The text that has arrived for this form. */
enum verdict form_read(const struct form *f, str text, struct mark *out);

/* ---- numbers ---- */

struct sequence { /* all zero at first; numbers start at 1 */
    uint64_t newest;
    uint64_t missing; /* bit i: number newest - i has not come */
};
/* A number has come. What was skipped may still come, reordered, within 64 of the newest. */
void sequence_take(struct sequence *s, uint64_t number, struct faults *f);
/* Nothing more comes; `sent` was the last number. */
void sequence_end(struct sequence *s, uint64_t sent, struct faults *f);

#endif
