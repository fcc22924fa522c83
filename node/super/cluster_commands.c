/* pemberley cluster init | join-token | join: who belongs to a cluster. The authority's key stays
 * on the node that made the cluster; a token, which holds another node's key, goes through a pipe
 * and is never shown. Nobody enrols over the network. */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "node/super/cli.h"
#include "node/super/identity.h"
#include "node/super/inside.h"
#include "node/super/json.h"
#include "proto/base/hex.h"
#include "proto/base/name.h"

/* What each of the commands begins with. */
struct cluster {
    struct cli *cli;
    struct identity_place place;
    struct identity there;
    char node[NODE_NAME_MAX + 1]; /* ours */
    str name;                     /* of the cluster that we are in; empty: none */
    int64_t now_s;
};

static int problem(struct cluster *k)
{
    return cli_fail(EXIT_FAILED, "%.*s", STR_ARG(k->place.problem));
}

static int look(struct cluster *k)
{
    struct tls_identity_names names;
    if (identity_read(&k->place, &k->there) != ERR_OK)
        return problem(k);
    str ca = k->there.authority.certificate;
    if (!ca.n)
        return EXIT_DONE;
    if (tls_identity_read(ca, &k->cli->arena, &names) != ERR_OK || names.node.n)
        return cli_fail(EXIT_FAILED, "%s/cluster/ca.pem is not the certificate of a cluster",
                        k->place.data_dir.p);
    k->name = names.cluster;
    return EXIT_DONE;
}

/* EXIT_DONE: identity_close is due. */
static int start(struct cluster *k, struct cli *c)
{
    *k = (struct cluster){.cli = c, .now_s = time(NULL)};
    struct conf_draft *d = cli_config(c);
    if (!d)
        return EXIT_CONFIG;
    struct conf *conf = conf_draft_build(d);
    err e = ERR_BAD;
    if (conf) {
        super_node_name(conf, k->node);
        e = identity_open(&k->place, conf, &c->arena);
    }
    free(conf);
    conf_draft_free(d);
    if (!conf)
        return cli_fail(EXIT_CONFIG, "the config is not complete. See: pemberley check-config");
    if (e)
        return problem(k);
    int exit = look(k);
    if (exit)
        identity_close(&k->place);
    return exit;
}

/* The first argument, a name. */
static int take_name(struct cli *c, const char *what, str *name)
{
    *name = str_of(c->argc ? c->argv[0] : "");
    if (node_name_is_good(*name))
        return EXIT_DONE;
    return cli_fail(EXIT_USAGE, "the name of a %s is wanted: 1 to %d of a-z, 0-9 and -", what,
                    NODE_NAME_MAX);
}

static str day(struct arena *a, int64_t at_s)
{
    time_t t = (time_t)at_s;
    struct tm tm;
    char text[32] = "?";
    if (gmtime_r(&t, &tm))
        strftime(text, sizeof text, "%Y-%m-%d", &tm);
    return arena_dup(a, str_of(text));
}

/* The object of --json: the node's identity as it is now. */
static bool say_json(struct cluster *k, str cluster, str until)
{
    if (!k->cli->json)
        return false;
    printf("{\"v\":1,\"node\":");
    json_write(stdout, str_of(k->node));
    printf(",\"cluster\":");
    json_write(stdout, cluster);
    printf(",\"valid_to\":");
    json_write(stdout, until);
    printf("}\n");
    return true;
}

/* ---- init ------------------------------------------------------------------------------------ */

static str new_secret(struct arena *a)
{
    unsigned char bytes[IDENTITY_SECRET / 2];
    struct entropy_real e;
    char *hex = arena_alloc(a, IDENTITY_SECRET);
    entropy_real_init(&e);
    entropy_fill(&e.entropy, bytes, sizeof bytes);
    hex_encode(hex, str_from(bytes, sizeof bytes));
    return (str){hex, IDENTITY_SECRET};
}

/* The node's own certificate, made anew, and all of it written. */
static int write_own(struct cluster *k, struct identity *i, str *until)
{
    struct arena *a = &k->cli->arena;
    struct tls_identity_names names;
    if (tls_node_make(&i->authority, str_of(k->node), k->now_s, a, &i->node) != ERR_OK)
        return cli_fail(EXIT_FAILED, "%s/cluster/ca.key is not the key of ca.pem beside it",
                        k->place.data_dir.p);
    if (identity_write(&k->place, i) != ERR_OK)
        return problem(k);
    must(tls_identity_read(i->node.certificate, a, &names) == ERR_OK);
    *until = day(a, names.not_after_s);
    return EXIT_DONE;
}

static int create(struct cluster *k, str name)
{
    struct arena *a = &k->cli->arena;
    struct identity i = {.secret = k->there.secret.n ? STR_NONE : new_secret(a)};
    str until;
    tls_authority_make(name, k->now_s, a, &i.authority);
    int exit = write_own(k, &i, &until);
    if (exit == EXIT_DONE && !say_json(k, name, until))
        cli_say(k->cli,
                "created cluster \"%.*s\". Next, for each further node:  "
                "pemberley cluster join-token b | ssh b pemberley cluster join\n",
                STR_ARG(name));
    return exit;
}

static int renew(struct cluster *k)
{
    struct identity i = {.authority = k->there.authority};
    str until;
    int exit = write_own(k, &i, &until);
    if (exit == EXIT_DONE && !say_json(k, k->name, until))
        cli_say(k->cli,
                "%s: renewed the identity of node \"%s\" in cluster \"%.*s\" (valid to "
                "%.*s)\n",
                k->node, k->node, STR_ARG(k->name), STR_ARG(until));
    return exit;
}

static int init(struct cluster *k, str name)
{
    if (!k->name.n)
        return create(k, name);
    if (!str_eq(k->name, name))
        return cli_fail(EXIT_EXISTS,
                        "node \"%s\" is in cluster \"%.*s\" already. To leave it for good, stop "
                        "the node and remove %s/cluster",
                        k->node, STR_ARG(k->name), k->place.data_dir.p);
    if (!k->there.authority.key.n)
        return cli_fail(EXIT_EXISTS,
                        "cluster \"%.*s\" was made on another node, which has its key. To renew, "
                        "there:  pemberley cluster join-token %s | ssh %s pemberley cluster join",
                        STR_ARG(k->name), k->node, k->node);
    return renew(k);
}

int cli_cluster_init(struct cli *c)
{
    struct cluster k;
    str name;
    int exit = take_name(c, "cluster", &name);
    if (!exit)
        exit = start(&k, c);
    if (exit)
        return exit;
    exit = init(&k, name);
    identity_close(&k.place);
    return exit;
}

/* ---- join-token ------------------------------------------------------------------------------ */

static int token(struct cluster *k, str node)
{
    struct arena *a = &k->cli->arena;
    struct identity i = {.authority = k->there.authority, .secret = k->there.secret};
    if (!k->name.n)
        return cli_fail(EXIT_NOT_FOUND, "this node is in no cluster. See: pemberley cluster init");
    if (!i.authority.key.n)
        return cli_fail(EXIT_NOT_FOUND,
                        "the key of cluster \"%.*s\" is not here: ask the node on which `cluster "
                        "init` was run",
                        STR_ARG(k->name));
    if (str_eq(node, str_of(k->node)))
        return cli_fail(EXIT_EXISTS,
                        "\"%s\" is this node. To renew its identity:  pemberley cluster init %.*s",
                        k->node, STR_ARG(k->name));
    if (i.secret.n != IDENTITY_SECRET)
        return cli_fail(EXIT_FAILED, "%s: %d hexadecimal digits are wanted", k->place.secret_file.p,
                        IDENTITY_SECRET);
    if (tls_node_make(&i.authority, node, k->now_s, a, &i.node) != ERR_OK)
        return cli_fail(EXIT_FAILED, "%s/cluster/ca.key is not the key of ca.pem beside it",
                        k->place.data_dir.p);
    str text = identity_token(&i, a);
    if (fwrite(text.p, 1, text.n, stdout) == text.n && putchar('\n') == '\n' && fflush(stdout) == 0)
        return EXIT_DONE;
    return cli_fail(EXIT_FAILED, "the token could not be written");
}

int cli_cluster_join_token(struct cli *c)
{
    struct cluster k;
    str node;
    int exit = take_name(c, "node", &node);
    if (!exit && isatty(STDOUT_FILENO))
        exit = cli_fail(EXIT_USAGE,
                        "a token holds a key and is not shown on a terminal. Give it to a pipe:  "
                        "pemberley cluster join-token %.*s | ssh %.*s pemberley cluster join",
                        STR_ARG(node), STR_ARG(node));
    if (!exit)
        exit = start(&k, c);
    if (exit)
        return exit;
    exit = token(&k, node);
    identity_close(&k.place);
    return exit;
}

/* ---- join ------------------------------------------------------------------------------------ */

static bool read_token(struct cli *c, str *out)
{
    char *text = arena_alloc(&c->arena, IDENTITY_TOKEN_MAX + 1);
    size_t n = 0;
    for (ssize_t got; n <= IDENTITY_TOKEN_MAX; n += (size_t)got)
        if ((got = read(STDIN_FILENO, text + n, IDENTITY_TOKEN_MAX + 1 - n)) <= 0)
            break;
    *out = (str){text, n};
    return n > 0 && n <= IDENTITY_TOKEN_MAX;
}

/* Whether what the token says may become this node's. */
static int check(struct cluster *k, const struct identity *i, const struct tls_identity_names *n)
{
    const char *why = tls_identity_check(i->authority.certificate, &i->node, k->now_s);
    str node = str_of(k->node);
    if (why)
        return cli_fail(EXIT_FAILED, "the token is no good: %s", why);
    if (!str_eq(n->node, node))
        return cli_fail(EXIT_EXISTS,
                        "the token is for node \"%.*s\", and this is node \"%s\" (node.name)",
                        STR_ARG(n->node), k->node);
    if (k->there.authority.key.n)
        return cli_fail(EXIT_EXISTS,
                        "this node has the key of cluster \"%.*s\". To renew its identity:  "
                        "pemberley cluster init %.*s",
                        STR_ARG(k->name), STR_ARG(k->name));
    if (k->name.n && !str_eq(k->there.authority.certificate, i->authority.certificate))
        return cli_fail(EXIT_EXISTS,
                        "node \"%s\" is in another cluster \"%.*s\". To leave it for good, stop "
                        "the node and remove %s/cluster",
                        k->node, STR_ARG(k->name), k->place.data_dir.p);
    return EXIT_DONE;
}

static int join(struct cluster *k, str text)
{
    struct arena *a = &k->cli->arena;
    struct identity i;
    struct tls_identity_names names;
    if (identity_from_token(text, a, &i) != ERR_OK ||
        tls_identity_read(i.node.certificate, a, &names) != ERR_OK)
        return cli_fail(EXIT_USAGE, "that is no token, or not the whole of one");
    int exit = check(k, &i, &names);
    if (exit)
        return exit;
    if (identity_write(&k->place, &i) != ERR_OK)
        return problem(k);
    str until = day(a, names.not_after_s);
    if (!say_json(k, names.cluster, until))
        cli_say(k->cli,
                "%s: wrote identity of node \"%s\" in cluster \"%.*s\" (valid to %.*s). Start it: "
                " systemctl start pemberley\n",
                k->node, k->node, STR_ARG(names.cluster), STR_ARG(until));
    return EXIT_DONE;
}

int cli_cluster_join(struct cli *c)
{
    struct cluster k;
    str text;
    if (isatty(STDIN_FILENO))
        return cli_fail(EXIT_USAGE,
                        "a token is wanted on standard input:  pemberley cluster join-token NODE "
                        "| ssh NODE pemberley cluster join");
    if (!read_token(c, &text))
        return cli_fail(EXIT_USAGE, "that is no token, or not the whole of one");
    int exit = start(&k, c);
    if (exit)
        return exit;
    exit = join(&k, text);
    identity_close(&k.place);
    return exit;
}
