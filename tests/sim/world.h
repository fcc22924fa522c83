/* world: the shards of one node, or of several, in one process, on virtual time: real edges, homes,
 * channels, copies and store clients, and the real store worker. Their doors to the outside are
 * here: a loop that waits for nothing, a clock and entropy from the seed, and a wire in place of
 * the fifos.
 *
 * The wire has a link for each ordered pair of ends (shards, and the store worker): FIFO, each
 * parcel with the time at which it arrives. A process dies between any two parcels: what it had
 * sent still arrives until the receiver is told of the death, what was sent to it is lost; a parcel
 * for an incarnation that its receiver has not met yet waits. All as the supervisor and the fifos
 * have it (node/shard/shard.c, node/super). The dead free nothing.
 *
 * Nothing here decides anything: who dies when, and what is slow, is the caller's. */
#ifndef TESTS_SIM_WORLD_H
#define TESTS_SIM_WORLD_H

#include "node/conf/conf.h"
#include "node/edge/edge.h"
#include "node/home/home.h"
#include "node/os/loop_impl.h"
#include "node/store/store.h"
#include "node/store_client/store_client.h"

enum { WORLD_SHARDS_MAX = 12, WORLD_ENDS = WORLD_SHARDS_MAX + 1 };

struct world;

struct shard {
    struct loop loop;
    struct node node;
    struct metric_page metrics;
    struct arena turn;
    struct home *home;
    struct edge *edge;
    struct store_client *store;
    struct world *world;
    unsigned place; /* among the shards of all nodes; node->shard is that within its own */
    uint32_t incarnation;
    uint32_t met[WORLD_ENDS]; /* incarnations that it is connected with; 0: not */
    bool stirred;             /* something came since its last turn */
    struct peers *peers;      /* of several nodes */
    bool ready;               /* … it lets clients in */
};

struct parcel {
    struct list link;
    uint32_t from_incarnation, to_incarnation;
    uint64_t due_us;
    size_t n;
    char data[];
};

/* The ways to lie on the wire, for the canaries (canary.h). */
struct world_hooks {
    /* A frame is put on the wire; what comes back goes (bytes of the arena, or the same). */
    str (*sending)(struct world *w, unsigned from, unsigned to, str bytes, struct arena *a);
    /* A frame has arrived, before its receiver gets it. */
    void (*arriving)(struct world *w, unsigned from, unsigned to, str bytes);
    /* Before anything arrives. */
    void (*between)(struct world *w);
    /* A frame of an incarnation that is dead, when the receiver has met the next one. */
    void (*stray)(struct world *w, unsigned from, unsigned to, str bytes);
    bool no_barrier;
    bool no_store_fence; /* of a node that is no member any more */
};

struct world {
    unsigned shards;     /* of all nodes */
    unsigned nodes, per; /* nodes: 0: one, without a cluster; per: shards of each */
    struct oracle *oracle;
    struct shard *shard[WORLD_SHARDS_MAX]; /* NULL: dead */
    uint32_t incarnation[WORLD_ENDS];      /* of the last one */
    bool store_up;
    struct store_worker *worker;
    struct store_port port;
    struct conf *conf;
    struct ring *ring;
    struct log log;
    struct clock clock;
    struct entropy entropy;
    struct list wire[WORLD_ENDS][WORLD_ENDS]; /* struct parcel.link, by from and to */
    uint64_t link_due_us[WORLD_ENDS][WORLD_ENDS];
    uint64_t now_us, random;
    uint64_t (*delay_us)(struct world *w, unsigned from, unsigned to); /* NULL: none */
    /* What the store answers instead of doing it; NULL, or false: nothing. */
    bool (*refuse)(struct world *w, unsigned op, int *result);
    const struct world_hooks *hooks;
    bool setting_up, trace;
    void *ctx;
};

/* settings: as conf_test_with. nodes 0: no cluster. All shards are up and have met. */
void world_open(struct world *w, unsigned nodes, unsigned shards, uint64_t seed,
                const char *const *settings);
static inline unsigned world_node(const struct world *w, unsigned shard) { return shard / w->per; }
/* The number by which s knows that shard. */
unsigned world_peer(const struct shard *s, unsigned shard);
/* The home of an account. */
unsigned world_home(const struct world *w, const char *bare);
bool world_same_domain(const struct world *w, unsigned a, unsigned b);
/* Does it take clients? */
bool world_is_ready(const struct world *w, unsigned shard);
/* What is on that link is lost, but for what this incarnation has sent. */
void world_lose(struct world *w, unsigned from, unsigned to, uint32_t but);
static inline unsigned world_store(const struct world *w) { return WORLD_SHARDS_MAX; }
uint64_t world_random(struct world *w, uint64_t below);
/* Is shard a connected with the living incarnation of b? */
bool world_have_met(const struct world *w, unsigned a, unsigned b);

void world_account(struct world *w, const char *bare);
/* Both have each other's presence. */
void world_befriend(struct world *w, const char *bare, const char *const *contacts, unsigned n);

/* Everything in a shard that needs nobody else. */
void world_turn(struct world *w, unsigned shard);
/* When the next parcel can arrive; UINT64_MAX: none. */
uint64_t world_next_us(const struct world *w);
/* All that are due arrive; their receivers' turns. Whether any was. */
bool world_deliver(struct world *w);
/* The first of this link arrives, whatever its time. */
bool world_deliver_one(struct world *w, unsigned from, unsigned to);
bool world_wire_is_empty(const struct world *w);

/* Its memory is never looked at again, and what was sent to it is lost. */
void world_kill(struct world *w, unsigned shard);
void world_start(struct world *w, unsigned shard);
/* `who` is told by the supervisor that `peer`'s process has ended, or that its next one is there.
 */
void world_tell_down(struct world *w, unsigned who, unsigned peer);
void world_tell_up(struct world *w, unsigned who, unsigned peer);
void world_store_kill(struct world *w);
void world_store_start(struct world *w);

/* The sum over the living. */
uint64_t world_metric(const struct world *w, enum metric m);
size_t world_unacked(const struct world *w);
size_t world_copies(const struct world *w);

void world_say(const struct world *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
