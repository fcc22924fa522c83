/* conf: what the operator decided, as one read-only image that every process of the node maps.
 *
 * The supervisor parses the files (node/conf/load.h, the only user of libconfuse), checks every
 * value, and seals the result into a memfd; children map it and read plain fields. The image is
 * position independent (texts and lists are offsets into it), so nothing is parsed, copied or
 * allocated in a shard, and a reload is one new image switched between two turns. Rejected: each
 * process parsing the files, which could read two different states of them.
 *
 * Fields of struct conf are the option's path with dots as underscores (limits.c2s.stanza_max is
 * limits_c2s_stanza_max); their table is options.def. Units: durations are milliseconds, sizes are
 * bytes, rates struct conf_rate. An image is immutable and may be read until conf_unmap. */
#ifndef PEMBERLEY_NODE_CONF_H
#define PEMBERLEY_NODE_CONF_H

#include <sys/socket.h>

#include "pemberley/arena.h"
#include "pemberley/err.h"
#include "pemberley/str.h"

/* Values of options that are one word of a few; the order is that of the words in options.def. */
enum conf_loop { CONF_LOOP_AUTO, CONF_LOOP_IO_URING, CONF_LOOP_EPOLL };
enum conf_registration { CONF_REGISTRATION_OFF, CONF_REGISTRATION_OPEN };
enum conf_bare { CONF_BARE_ALL, CONF_BARE_TOP };
enum conf_strangers { CONF_STRANGERS_DELIVER, CONF_STRANGERS_REFUSE };
enum conf_archive { CONF_ARCHIVE_ALWAYS, CONF_ARCHIVE_ROSTER, CONF_ARCHIVE_NEVER };
enum conf_conflict { CONF_CONFLICT_REPLACE, CONF_CONFLICT_REFUSE, CONF_CONFLICT_RENAME };
enum conf_tls { CONF_TLS_REQUIRED, CONF_TLS_OPTIONAL };
enum conf_version { CONF_VERSION_1_2, CONF_VERSION_1_3 };
enum conf_store { CONF_STORE_SQLITE, CONF_STORE_POSTGRES };
enum conf_store_tls {
    CONF_STORE_TLS_VERIFY_FULL,
    CONF_STORE_TLS_VERIFY_CA,
    CONF_STORE_TLS_REQUIRE,
    CONF_STORE_TLS_OFF
};
enum conf_sync { CONF_SYNC_FULL, CONF_SYNC_NORMAL };
enum conf_registry { CONF_REGISTRY_MEMORY, CONF_REGISTRY_REDIS };
enum conf_redis { CONF_REDIS_SINGLE, CONF_REDIS_SENTINEL, CONF_REDIS_CLUSTER };
enum conf_level { CONF_LEVEL_DEBUG, CONF_LEVEL_INFO, CONF_LEVEL_WARN, CONF_LEVEL_ERROR };
enum conf_format { CONF_FORMAT_LOGFMT, CONF_FORMAT_JSON };
enum conf_jids { CONF_JIDS_FULL, CONF_JIDS_HASH, CONF_JIDS_OFF };
enum conf_addresses { CONF_ADDRESSES_FULL, CONF_ADDRESSES_PREFIX, CONF_ADDRESSES_OFF };
/* Bits of conf_host.auth. */
enum { CONF_AUTH_INTERNAL = 1 << 0, CONF_AUTH_ANONYMOUS = 1 << 1, CONF_AUTH_JWT = 1 << 2 };

/* At most so many registry.redis.servers. */
enum { CONF_SERVERS_MAX = 16 };

struct conf_rate {
    uint64_t count;  /* 0: no limit */
    uint64_t per_ms; /* in so many milliseconds */
};
static inline uint64_t conf_rate_per_second(struct conf_rate r)
{
    return r.count * 1000 / r.per_ms;
}
struct conf_memory {
    uint64_t bytes;   /* 0: percent counts */
    uint64_t percent; /* of machine or cgroup */
};
struct conf_text {
    uint32_t at, n; /* offset in the image (a NUL follows), length */
};
struct conf_list {
    uint32_t at, count; /* offset of an array of struct conf_text, or of struct conf_net (NETS) */
};
struct conf_net {
    unsigned char address[16]; /* IPv4 as ::ffff:a.b.c.d */
    uint32_t bits;             /* of these 128 */
};

#define CONF_T_NAME struct conf_text
#define CONF_T_TEXT struct conf_text
#define CONF_T_ENDPOINT struct conf_text
#define CONF_T_COUNT uint64_t
#define CONF_T_COUNT_AUTO uint64_t /* 0: auto */
#define CONF_T_SIZE uint64_t
#define CONF_T_DURATION int64_t
#define CONF_T_RATE struct conf_rate
#define CONF_T_RATE_AUTO struct conf_rate /* count 0: auto */
#define CONF_T_BYTE_RATE struct conf_rate
#define CONF_T_MEMORY struct conf_memory
#define CONF_T_SWITCH bool
#define CONF_T_FLAGS uint32_t /* bit i: word i */
#define CONF_T_WORDS struct conf_list
#define CONF_T_LIST struct conf_list
#define CONF_T_JIDS struct conf_list
#define CONF_T_ADDRESSES struct conf_list
#define CONF_T_ENDPOINTS struct conf_list
#define CONF_T_NETS struct conf_list
#define CONF_T_URIS struct conf_list
#define CONF_T_SERVICES struct conf_list
#define CONF_T_WORD_LOOP enum conf_loop
#define CONF_T_WORD_REGISTRATION enum conf_registration
#define CONF_T_WORD_BARE enum conf_bare
#define CONF_T_WORD_STRANGERS enum conf_strangers
#define CONF_T_WORD_ARCHIVE enum conf_archive
#define CONF_T_WORD_CONFLICT enum conf_conflict
#define CONF_T_WORD_TLS enum conf_tls
#define CONF_T_WORD_VERSION enum conf_version
#define CONF_T_WORD_STORE enum conf_store
#define CONF_T_WORD_STORE_TLS enum conf_store_tls
#define CONF_T_WORD_SYNC enum conf_sync
#define CONF_T_WORD_REGISTRY enum conf_registry
#define CONF_T_WORD_REDIS enum conf_redis
#define CONF_T_WORD_LEVEL enum conf_level
#define CONF_T_WORD_FORMAT enum conf_format
#define CONF_T_WORD_JIDS enum conf_jids
#define CONF_T_WORD_ADDRESSES enum conf_addresses

/* One domain served. */
struct conf_host {
    struct conf_text domain; /* prepared: lower case, U-labels */
    uint32_t metric;         /* its place among the labels of metrics; 0: "other" */
#define HOST_OPT(field, name, kind, def, min, max, class, sentence) CONF_T_##kind field;
#include "node/conf/options.def"
};

struct conf {
    uint64_t magic;
    uint64_t size; /* bytes of the whole image */
    uint64_t hash; /* of all values: same settings, same hash */
    uint32_t hosts_at, host_count;
    uint32_t host_first; /* stands first in the file: its certificate is for who names no host */
    bool all_modules;    /* none is switched off, for no host */
#define OPT(field, path, kind, def, min, max, class, sentence) CONF_T_##kind field;
#include "node/conf/options.def"
};

/* Maps the image in fd (which may be closed afterwards). ERR_IO, or ERR_BAD when it is not an image
 * of this build. */
nodiscard err conf_map(int fd, const struct conf **out);
void conf_unmap(const struct conf *c);

/* Views into the image, valid as long as it is mapped; followed by a NUL. */
str conf_text(const struct conf *c, struct conf_text t);
str conf_list_at(const struct conf *c, struct conf_list l, uint32_t i); /* i < l.count */
bool conf_list_has(const struct conf *c, struct conf_list l, str word);
/* A file's path: as it is when absolute or empty, else under node.data_dir. Followed by a NUL. */
str conf_path(const struct conf *c, struct conf_text t, struct arena *a);
/* Is the address (AF_INET, AF_INET6; v4-mapped counts as IPv4) in one of the networks? Anything
 * else (a unix socket's peer) is in none. */
bool conf_net_contains(const struct conf *c, struct conf_list nets, const struct sockaddr *address);

/* Hosts, in byte order of their domain. find takes a prepared domainpart; NULL: not served here. */
const struct conf_host *conf_host_find(const struct conf *c, str domain);
unsigned conf_host_metric(const struct conf *c, str domain); /* 0 also for one not served */
const struct conf_host *conf_host_at(const struct conf *c, uint32_t i); /* i < host_count */
bool conf_host_is_admin(const struct conf *c, const struct conf_host *h, str bare_jid);
/* Is the feature switched off for this host, or for all (modules.off)? */
bool conf_module_off(const struct conf *c, const struct conf_host *h, str module);

/* A member of host.services, an URI of RFC 7064 or 7065: turn:turn.example.org:3478?transport=udp.
 * Views into it; transport is empty where it says nothing. false: it is none. */
struct conf_service {
    str type; /* stun, stuns, turn, turns */
    str host; /* IPv6 without brackets */
    uint16_t port;
    str transport; /* udp, tcp */
};
bool conf_service_parse(str uri, struct conf_service *out);

/* For unit tests: all defaults and the hosts "localhost" and "example.org", without any file. The
 * second form applies settings as `run --set` does ("limits.c2s.stanza_max=10k",
 * "host[localhost].registration=open"; the list ends with NULL) and must succeed. The test may
 * change plain fields, and frees the image with free(). */
struct conf *conf_test_default(void);
struct conf *conf_test_with(const char *const *settings);

#endif
