/* cluster: a PostgreSQL of the test's own, in a directory of its own, on a Unix socket there and,
 * if asked for, on a port of the loopback address. It runs as somebody else than root, and not
 * longer than the test. */
#ifndef TESTS_UNIT_SUPPORT_CLUSTER_H
#define TESTS_UNIT_SUPPORT_CLUSTER_H

#include <glob.h>
#include <libpq-fe.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "node/store/store.h"

struct cluster {
    char dir[48], bin[256], data[80], log[80];
    const char *host; /* dir: of the socket */
    char port[8];     /* "": no TCP */
    pid_t pid;
};

static inline void cluster_must(bool good, const char *what)
{
    if (good)
        return;
    fprintf(stderr, "cluster: %s\n", what);
    abort();
}

static inline void cluster_drop_root(void)
{
    const struct passwd *p = geteuid() == 0 ? getpwnam("postgres") : NULL;
    if (geteuid() == 0)
        cluster_must(p && setgid(p->pw_gid) == 0 && setuid(p->pw_uid) == 0, "no user postgres");
    prctl(PR_SET_PDEATHSIG, SIGQUIT); /* here: a change of user clears it */
}

/* Starts bin/args[0]; what it says goes to the log. */
static inline pid_t cluster_spawn(const struct cluster *c, const char *const *args)
{
    pid_t pid = fork();
    cluster_must(pid >= 0, "fork");
    if (pid > 0)
        return pid;
    char path[320];
    snprintf(path, sizeof path, "%s/%s", c->bin, args[0]);
    cluster_drop_root();
    if (chdir(c->dir) < 0 || !freopen(c->log, "a", stderr))
        _exit(1);
    dup2(2, 1);
    execv(path, (char *const *)(uintptr_t)args);
    _exit(127);
}

static inline void cluster_wait_ready(struct cluster *c)
{
    const char *keys[] = {"host", "port", "dbname", "user", NULL};
    const char *values[] = {c->dir, *c->port ? c->port : "5432", "postgres", "pemberley", NULL};
    for (int i = 0; PQpingParams(keys, values, 0) != PQPING_OK; i++) {
        cluster_must(i < 1500 && waitpid(c->pid, NULL, WNOHANG) == 0,
                     "does not start; see its log");
        poll(NULL, 0, 20);
    }
}

static inline void cluster_start(struct cluster *c)
{
    char listen[64];
    snprintf(listen, sizeof listen, "listen_addresses=%s", *c->port ? "127.0.0.1" : "");
    const char *args[] = {"postgres",
                          "-D",
                          c->data,
                          "-k",
                          c->dir,
                          "-p",
                          *c->port ? c->port : "5432",
                          "-c",
                          listen,
                          "-c",
                          "fsync=off",
                          "-c",
                          "max_connections=40",
                          NULL};
    c->pid = cluster_spawn(c, args);
    cluster_wait_ready(c);
}

/* How it ends: SIGINT at once and tidy, SIGQUIT at once; its workers follow it at any death. */
static inline void cluster_stop(struct cluster *c, int sig)
{
    kill(c->pid, sig);
    waitpid(c->pid, NULL, 0);
    c->pid = 0;
}

static inline void cluster_init(struct cluster *c, const char *port)
{
    *c = (struct cluster){0};
    glob_t g;
    cluster_must(glob("/usr/lib/postgresql/*/bin", 0, NULL, &g) == 0,
                 "PostgreSQL is not installed");
    snprintf(c->bin, sizeof c->bin, "%s", g.gl_pathv[0]);
    globfree(&g);
    strcpy(c->dir, "/tmp/pemberley-pg-XXXXXX");
    cluster_must(mkdtemp(c->dir) != NULL, "no directory");
    const struct passwd *p = geteuid() == 0 ? getpwnam("postgres") : NULL;
    cluster_must(!p || chown(c->dir, p->pw_uid, p->pw_gid) == 0, "chown");
    cluster_must(chmod(c->dir, 0711) == 0, "chmod");
    snprintf(c->data, sizeof c->data, "%s/data", c->dir);
    snprintf(c->log, sizeof c->log, "%s/log", c->dir);
    snprintf(c->port, sizeof c->port, "%s", port);
    c->host = c->dir;
    const char *args[] = {"initdb",      "-N", "-A",        "trust", "-U",    "pemberley",
                          "--no-locale", "-E", "SQL_ASCII", "-D",    c->data, NULL};
    int status;
    cluster_must(waitpid(cluster_spawn(c, args), &status, 0) > 0 && status == 0, "initdb failed");
    cluster_start(c);
}

static inline void cluster_end(struct cluster *c)
{
    char command[80];
    if (c->pid)
        cluster_stop(c, SIGQUIT);
    snprintf(command, sizeof command, "rm -rf %s", c->dir);
    cluster_must(system(command) == 0, "cannot remove its directory");
}

static inline PGconn *cluster_connect(const struct cluster *c)
{
    const char *keys[] = {"host", "port", "dbname", "user", NULL};
    const char *values[] = {c->dir, *c->port ? c->port : "5432", "postgres", "pemberley", NULL};
    PGconn *conn = PQconnectdbParams(keys, values, 0);
    cluster_must(PQstatus(conn) == CONNECTION_OK, PQerrorMessage(conn));
    PQclear(PQexec(conn, "SET client_min_messages = warning"));
    return conn;
}

/* The first column of the first row as a number; -1: none. */
static inline long long cluster_sql(const struct cluster *c, const char *sql)
{
    PGconn *conn = cluster_connect(c);
    PGresult *r = PQexec(conn, sql);
    bool good = PQresultStatus(r) == PGRES_TUPLES_OK || PQresultStatus(r) == PGRES_COMMAND_OK;
    cluster_must(good, PQerrorMessage(conn));
    long long n = PQntuples(r) > 0 ? atoll(PQgetvalue(r, 0, 0)) : -1;
    PQclear(r);
    PQfinish(conn);
    return n;
}

static inline struct store_postgres cluster_options(struct cluster *c, unsigned connections)
{
    return (struct store_postgres){
        .open = store_postgres_open,
        .hosts = &c->host,
        .hosts_n = 1,
        .database = "postgres",
        .user = "pemberley",
        .password_file = "",
        .tls = STORE_TLS_OFF,
        .ca_file = "",
        .connections = connections,
        .node = "n1",
        .timeout_ms = 2000,
    };
}

#endif
