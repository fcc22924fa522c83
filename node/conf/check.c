/* Options that belong together, each sentence at the line of the one that would be changed. Files
 * are not looked at here: what is in them (certificates, secrets) is the supervisor's to check. */
#include "node/conf/check.h"

#include "node/conf/value.h"

enum { BUS_PORT_LAST = 65535 - 63 }; /* of shard 0: there are at most 64 */

static const struct conf_setting *get(struct conf_draft *d, int row)
{
    return conf_draft_get(d, NULL, row);
}

static str text_of(struct conf_draft *d, int row) { return get(d, row)->values[0]; }

static bool is(struct conf_draft *d, int row, const char *word)
{
    return str_eq(text_of(d, row), str_of(word));
}

static int64_t ms_of(struct conf_draft *d, int row)
{
    union conf_value v;
    must(conf_value_parse(&conf_rows[row], text_of(d, row), &d->arena, &v) == NULL);
    return v.ms;
}

/* Where the one that is set stands, of two that do not fit. */
static struct conf_origin place_of(struct conf_draft *d, int row, int other)
{
    const struct conf_setting *s = get(d, row);
    return s->set ? s->from : get(d, other)->from;
}

static str duration(struct conf_draft *d, int64_t ms)
{
    static const struct {
        int64_t ms;
        const char *name;
    } units[] = {{86400000, "d"}, {3600000, "h"}, {60000, "m"}, {1000, "s"}, {1, "ms"}};
    size_t i = 0;
    while (ms % units[i].ms)
        i++;
    return arena_printf(&d->arena, "%lld%s", (long long)(ms / units[i].ms), units[i].name);
}

/* `row` is at least `times` x `part`. why: what happens else. */
static void check_times(struct conf_draft *d, int row, int times, int part, const char *why)
{
    int64_t least = times * ms_of(d, part);
    if (ms_of(d, row) >= least)
        return;
    conf_draft_problem(d, place_of(d, row, part),
                       "%s = %.*s is shorter than %d x %s (%.*s): %s. Use %.*s or more.",
                       conf_rows[row].path, STR_ARG(text_of(d, row)), times, conf_rows[part].path,
                       STR_ARG(text_of(d, part)), why, STR_ARG(duration(d, least)));
}

static void check_paths_and_hosts(struct conf_draft *d)
{
    static const int absolute[] = {CONF_ROW_node_data_dir, CONF_ROW_node_run_dir};
    for (size_t i = 0; i < array_len(absolute); i++) {
        const struct conf_setting *s = conf_draft_get(d, NULL, absolute[i]);
        if (s->values[0].n == 0 || s->values[0].p[0] != '/')
            conf_draft_problem(d, s->from, "%s = %.*s: an absolute path is wanted",
                               conf_rows[absolute[i]].path, STR_ARG(s->values[0]));
    }
    size_t hosts = 0;
    for (size_t i = 0; i < d->host_count; i++) {
        struct conf_draft_host *h = &d->hosts[i];
        const struct conf_setting *c = conf_draft_get(d, h, CONF_HOST_ROW_certificate_file);
        const struct conf_setting *k = conf_draft_get(d, h, CONF_HOST_ROW_key_file);
        hosts += !h->pattern;
        if ((c->values[0].n == 0) != (k->values[0].n == 0))
            conf_draft_problem(d, c->values[0].n ? c->from : k->from,
                               "host \"%.*s\": certificate_file and key_file are set together",
                               STR_ARG(h->title));
    }
    if (hosts == 0 && d->problem_count == 0)
        conf_draft_problem(d, (struct conf_origin){NULL, 0},
                           "no host section: nobody could log in. Add host \"example.com\" {}");
}

static void check_store(struct conf_draft *d)
{
    const struct conf_setting *kind = conf_draft_get(d, NULL, CONF_ROW_store_kind);
    const struct conf_setting *hosts = conf_draft_get(d, NULL, CONF_ROW_store_postgres_hosts);
    if (str_eq(kind->values[0], STR("postgres")) && hosts->count == 0)
        conf_draft_problem(d, kind->from, "store.kind = postgres: store.postgres.hosts is empty");
}

static void check_registry(struct conf_draft *d)
{
    const struct conf_setting *kind = get(d, CONF_ROW_registry_kind);
    const struct conf_setting *servers = get(d, CONF_ROW_registry_redis_servers);
    const struct conf_setting *master = get(d, CONF_ROW_registry_redis_master);
    bool redis = is(d, CONF_ROW_registry_kind, "redis");
    bool sentinel = is(d, CONF_ROW_registry_redis_mode, "sentinel");
    if (redis && servers->count == 0)
        conf_draft_problem(d, kind->from, "registry.kind = redis: registry.redis.servers is empty");
    if (servers->count > CONF_SERVERS_MAX)
        conf_draft_problem(d, servers->from, "registry.redis.servers: %d at most",
                           CONF_SERVERS_MAX);
    if (redis && sentinel != (master->values[0].n > 0))
        conf_draft_problem(
            d, place_of(d, CONF_ROW_registry_redis_mode, CONF_ROW_registry_redis_master),
            "registry.redis.mode = sentinel and registry.redis.master are set "
            "together");
    check_times(d, CONF_ROW_registry_record_lifetime, 3, CONF_ROW_registry_refresh,
                "records of people who are online would vanish");
}

/* What a cluster cannot be without. */
static void check_needs(struct conf_draft *d)
{
    static const struct {
        int row;
        const char *value, *what;
    } needs[] = {
        {CONF_ROW_registry_kind, "redis",
         "registry.kind = redis (and registry.redis.servers): "
         "there its nodes agree on who is a member"},
        {CONF_ROW_store_kind, "postgres",
         "store.kind = postgres: an account may be at home on "
         "any of its nodes"},
    };
    const struct conf_setting *name = get(d, CONF_ROW_cluster_name);
    for (size_t i = 0; i < array_len(needs); i++)
        if (!is(d, needs[i].row, needs[i].value))
            conf_draft_problem(d, name->from, "cluster.name = %.*s needs %s",
                               STR_ARG(name->values[0]), needs[i].what);
    if (text_of(d, CONF_ROW_listen_bus_address).n == 0)
        conf_draft_problem(d, name->from,
                           "cluster.name = %.*s needs listen.bus.address: one address of this "
                           "machine that the other nodes can reach, e.g. 10.0.0.1:5275",
                           STR_ARG(name->values[0]));
}

/* What is for a cluster only, while there is none. */
static void check_needless(struct conf_draft *d)
{
    const struct conf_setting *bus = get(d, CONF_ROW_listen_bus_address);
    if (bus->values[0].n)
        conf_draft_problem(d, bus->from,
                           "listen.bus.address = %.*s: cluster.name is empty. Name the cluster "
                           "that `pemberley cluster init` made, or leave the address out",
                           STR_ARG(bus->values[0]));
    if (is(d, CONF_ROW_registry_kind, "redis"))
        conf_draft_problem(d, get(d, CONF_ROW_registry_kind)->from,
                           "registry.kind = redis: cluster.name is empty. Name the cluster, or "
                           "use registry.kind = memory: a single node needs no Redis");
}

static void check_cluster(struct conf_draft *d)
{
    str bus = text_of(d, CONF_ROW_listen_bus_address), host;
    uint16_t port = 0;
    if (text_of(d, CONF_ROW_cluster_name).n)
        check_needs(d);
    else
        check_needless(d);
    if (bus.n && conf_endpoint_parse(bus, &host, &port) && port > BUS_PORT_LAST)
        conf_draft_problem(d, get(d, CONF_ROW_listen_bus_address)->from,
                           "listen.bus.address = %.*s: shard i listens on port + i, so %d is the "
                           "last that may be given",
                           STR_ARG(bus), BUS_PORT_LAST);
    check_times(d, CONF_ROW_cluster_lease, 3, CONF_ROW_cluster_heartbeat,
                "a late heartbeat would cost the node its users");
    check_times(d, CONF_ROW_cluster_rail_timeout, 2, CONF_ROW_cluster_rail_ping,
                "one late answer would make a node suspect");
}

void conf_check(struct conf_draft *d)
{
    check_paths_and_hosts(d);
    check_store(d);
    check_registry(d);
    check_cluster(d);
}
