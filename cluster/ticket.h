/* ticket: a home's open account of one stanza: how many of its effects are not safe yet. When the
 * last one is, the cause is acked (delivery.md 5.1).
 *
 * A ticket starts with one effect, the handling itself, which ticket_close ends; so a handler opens
 * effects as it goes and nothing closes too early. */
#ifndef PEMBERLEY_TICKET_H
#define PEMBERLEY_TICKET_H

#include "cluster/channel.h"
#include "cluster/ring.h"
#include "pemberley/list.h"

struct ticket;
typedef void ticket_done_f(void *ctx, struct ticket *t); /* last call; frees itself afterwards */

/* Calls done first, then acks. origin.number 0: nobody to ack (a cause of the home's own). uid: of
 * the stanza being handled. done may be NULL. */
struct ticket *ticket_new(struct channels *c, struct origin o, struct uid uid, ticket_done_f *done,
                          void *ctx);
void ticket_open(struct ticket *t);  /* one more effect */
void ticket_close(struct ticket *t); /* one less; the last one acks */
struct uid ticket_uid(const struct ticket *t);
/* From done: the ack is the caller's to give (channel_done), later. */
struct origin ticket_defer(struct ticket *t);
/* Its cause was sent before, to somebody who died or by somebody who did: what it causes may have
 * been done already, and says so (FRAME_AGAIN). */
void ticket_set_again(struct ticket *t);
bool ticket_is_again(const struct ticket *t);
/* What its cause says of frames that it leads to: FRAME_AGAIN, FRAME_PATIENT. Of no ticket (NULL):
 * nobody waits. */
uint32_t ticket_flags(const struct ticket *t);
/* Puts t into a list until it ends, where ticket_find looks for its uid: the oldest of those that
 * came before that one (two that wait for each other would wait for ever); NULL. */
void ticket_list(struct ticket *t, struct list *l);
struct ticket *ticket_find(const struct list *l, struct uid uid, const struct ticket *before);
/* `second` is the same stanza once more: it ends no sooner than `first`. */
void ticket_join(struct ticket *first, struct ticket *second);
/* A hold for channel_send: opens an effect that closes when the frame is acked (or lost). */
struct hold ticket_hold(struct ticket *t);
/* A frame with this hold goes to one more: one more effect, with the same hold. */
void ticket_hold_more(struct hold h);
/* The ords of those in such a list that tell `done` of that session, as bits, modulo 256. */
void ticket_ords(const struct list *l, uint64_t sid, ticket_done_f *done, uint64_t bits[4]);
/* Of the tickets in such a list, those of sessions of these slots: who would be told of their end
 * is no more, so done is not called. */
void ticket_orphan_of(const struct list *l, ring_wanted_f *of, const void *ctx);
/* The wiring hands settled holds of HOLD_TICKET here. */
void ticket_settled(struct hold h);

#endif
