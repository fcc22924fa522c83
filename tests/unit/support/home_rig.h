/* home_rig: two shards' homes in one process, with edges that only take notes, one store in memory
 * and time that stands still until a test moves it. rig_run lets everything happen that can. */
#ifndef TESTS_SUPPORT_HOME_RIG_H
#define TESTS_SUPPORT_HOME_RIG_H

#include "node/conf/conf.h"
#include "node/home/home.h"
#include "proto/bus/frame.h"
#include "tests/unit/support/fake_store.h"

enum { RIG_SHARDS = 2 };

struct rig;
struct client {
    struct rig *rig;
    unsigned edge;
    uint64_t conn, sid, ord, safe; /* safe: last ord that is done */
    uint32_t gen;
    char bare[256], full[300];
    size_t seen; /* of the rig's notes */
    uint64_t out_seq;
};
/* A frame from a home to an edge. */
struct note {
    unsigned edge;
    struct frame frame;
    char *xml, *text;
};

/* settings as in conf_test_with; NULL: none */
struct rig *rig_open(const char *const *settings);
void rig_close(struct rig *r);
struct conf *rig_conf(struct rig *r);
struct fake_store *rig_store(struct rig *r);
struct home *rig_home(struct rig *r, unsigned shard);
struct node *rig_node(struct rig *r, unsigned shard);
unsigned rig_home_of(struct rig *r, const char *bare);
void rig_user(struct rig *r, const char *bare); /* an account */
void rig_run(struct rig *r);
void rig_pass(struct rig *r, uint64_t ms); /* time */
void rig_hold_out(struct rig *r, bool on); /* edges do not say that they hold what they get */
unsigned rig_drops(const struct rig *r);   /* how often a holder was told to forget a session */
/* A stanza with from and to, as another home would send it. Does not run. */
void rig_inject(struct rig *r, const char *xml, struct uid uid, uint32_t flags);
/* ROUTE frames so far with presence of this type from this JID. */
unsigned rig_routed(struct rig *r, const char *from, enum stanza_type type);
void rig_edge_died(struct rig *r, unsigned edge); /* the homes are told; its process goes on */

/* Binds (runs): the BOUND's reason; ERR_OK fills c. */
err rig_bind(struct rig *r, struct client *c, unsigned edge, const char *bare, const char *wish);
void rig_enable(struct client *c, uint64_t max_ms); /* XEP-0198 with resumption */
void rig_csi(struct client *c, bool inactive);
void rig_detach(struct client *c);
void rig_end(struct client *c);
void rig_cack(struct client *c, uint64_t seq);
/* FRAME_RESUME on another edge; the answer is the client's next note. */
void rig_resume(struct client *c, unsigned edge, uint32_t h);
/* A stanza as its client would send it; `from` is stamped. Does not run. */
void rig_send(struct client *c, const char *xml);
void rig_send_bad(struct client *c, const char *xml, err reason);

/* The client's next note of any kind, NULL: none. */
const struct note *rig_next(struct client *c);
/* The next stanza, which must be there (fails the test). */
const char *rig_stanza(struct client *c);
/* Runs; the next stanza must hold all of these parts. */
void rig_expect(struct client *c, const char *part);
void rig_expect_nothing(struct client *c);
void rig_forget(struct client *c); /* what has come so far */
/* Available with this priority, and everything that comes of it forgotten. */
void rig_online(struct client *c, int priority);

#endif
