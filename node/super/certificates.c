/* Certificates of all hosts into one generation. A host that names no files and has none gets a
 * self-signed one, so that a first start needs nothing; named files must be there. Files are
 * watched by looking at their times: a rename over a symbolic link (how Kubernetes and certbot
 * replace them) would escape inotify on the file itself. */
#include <idn2.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <xxhash.h>

#include "node/super/inside.h"
#include "node/super/super.h"
#include "node/tls/tls.h"

enum { EXPIRING_DAYS = 14, DAY_S = 86400 };

struct pair_files {
    str certificate, key;
    bool named;
};

static struct pair_files files_of(const struct conf *c, const struct conf_host *h, struct arena *a)
{
    str certificate = conf_text(c, h->certificate_file);
    if (certificate.n)
        return (struct pair_files){conf_path(c, h->certificate_file, a),
                                   conf_path(c, h->key_file, a), true};
    str directory = conf_path(c, c->tls_certificate_dir, a), domain = conf_text(c, h->domain);
    return (struct pair_files){arena_printf(a, "%s/%s/fullchain.pem", directory.p, domain.p),
                               arena_printf(a, "%s/%s/privkey.pem", directory.p, domain.p), false};
}

/* The name as a hello and a certificate carry it. */
static str ascii_name(str domain, struct arena *a)
{
    char *ascii = NULL;
    if (idn2_to_ascii_8z(domain.p, &ascii, IDN2_NONTRANSITIONAL) != IDN2_OK)
        return domain; /* an address literal, or ASCII that IDNA does not know */
    str s = arena_dup(a, str_of(ascii));
    idn2_free(ascii);
    return s;
}

static void make_directories(str file, struct arena *a)
{
    char *z = (char *)arena_dup(a, file).p;
    for (char *p = z + 1; *p; p++) {
        if (*p == '/') {
            *p = 0;
            (void)mkdir(z, 0755); /* what is missing shows when the file is written */
            *p = '/';
        }
    }
}

static void ensure(struct super *s, str host, const struct pair_files *f, struct arena *a)
{
    struct stat st;
    if (f->named || stat(f->certificate.p, &st) == 0)
        return;
    make_directories(f->certificate, a);
    str name = ascii_name(host, a);
    if (tls_selfsigned_write(&name, 1, time(NULL), f->certificate.p, f->key.p) != ERR_OK)
        LOG(s->log, certificate_failed, F_STR("host", host), F_STR("file", f->certificate),
            F_STR("problem", STR("cannot write a self-signed one")));
}

static void on_problem(void *ctx, str host, const char *file, const char *problem)
{
    struct super *s = ctx;
    LOG(s->log, certificate_failed, F_STR("host", host), F_STR("file", str_of(file)),
        F_STR("problem", str_of(problem)));
}

static void report(struct super *s, const struct tls_pair *p, const struct conf *c, uint32_t i)
{
    str host = conf_text(c, conf_host_at(c, i)->domain);
    int64_t days = (p->not_after_s - time(NULL)) / DAY_S;
    char until[32] = "";
    time_t t = (time_t)p->not_after_s;
    struct tm tm;
    if (gmtime_r(&t, &tm))
        strftime(until, sizeof until, "%Y-%m-%dT%H:%M:%SZ", &tm);
    LOG(s->log, certificate_loaded, F_STR("host", host), F_STR("until", str_of(until)));
    if (days < EXPIRING_DAYS)
        LOG(s->log, certificate_expiring, F_STR("host", host), F_INT("days", days));
    struct certificate *known = &s->certificates[i];
    snprintf(known->host, sizeof known->host, "%.*s", STR_ARG(host));
    known->end_s = p->not_after_s;
}

static int by_end(const void *a, const void *b)
{
    const struct certificate *x = a, *y = b;
    return (x->end_s > y->end_s) - (x->end_s < y->end_s);
}

static void report_all(struct super *s, const struct tls_pair *pairs, const struct conf *c)
{
    free(s->certificates);
    s->certificates = calloc(c->host_count + 1, sizeof *s->certificates);
    must(s->certificates);
    s->certificate_count = c->host_count;
    for (uint32_t i = 0; i < c->host_count; i++)
        report(s, &pairs[i], c, i);
    qsort(s->certificates, s->certificate_count, sizeof *s->certificates, by_end);
}

static void swap(struct tls_pair *a, struct tls_pair *b)
{
    struct tls_pair t = *a;
    *a = *b, *b = t;
}

err certificates_build(struct super *s, const struct conf *c, int *fd)
{
    struct arena a;
    arena_init(&a);
    struct tls_pair *pairs = arena_zalloc(&a, (c->host_count + 1) * sizeof *pairs);
    for (uint32_t i = 0; i < c->host_count; i++) {
        const struct conf_host *h = conf_host_at(c, i);
        struct pair_files f = files_of(c, h, &a);
        ensure(s, conf_text(c, h->domain), &f, &a);
        pairs[i].host = ascii_name(conf_text(c, h->domain), &a);
        pairs[i].certificate_file = f.certificate.p, pairs[i].key_file = f.key.p;
    }
    swap(&pairs[0], &pairs[c->host_first]); /* the first pair is shown to who names no host */
    err e = tls_certs_build(pairs, c->host_count, on_problem, s, fd);
    swap(&pairs[0], &pairs[c->host_first]);
    if (e == ERR_OK)
        report_all(s, pairs, c);
    arena_close(&a);
    return e;
}

/* ---- the bus --------------------------------------------------------------------------------- */

static void on_bus_problem(void *ctx, str host, const char *file, const char *problem)
{
    struct conf_draft *d = ctx;
    const struct conf_setting *name = conf_draft_get(d, NULL, CONF_ROW_cluster_name);
    conf_draft_problem(d, name->from,
                       "cluster.name = %.*s: %s: %s. See: pemberley cluster init, and pemberley "
                       "cluster join",
                       STR_ARG(name->values[0]), file, problem);
}

err certificates_bus(struct conf_draft *d, const struct conf *c, int *fd, int64_t *end_s)
{
    struct arena a;
    struct stat st;
    char node[33];
    err e = ERR_OK;
    *fd = -1, *end_s = 0;
    if (conf_text(c, c->cluster_name).n == 0)
        return ERR_OK;
    arena_init(&a);
    super_node_name(c, node);
    struct tls_bus_files f = {.ca_file = conf_path(c, c->cluster_ca_file, &a).p,
                              .certificate_file = conf_path(c, c->cluster_certificate_file, &a).p,
                              .key_file = conf_path(c, c->cluster_key_file, &a).p,
                              .cluster = conf_text(c, c->cluster_name),
                              .node = str_of(node)};
    if (stat(f.key_file, &st) == 0 && st.st_mode & 0077) {
        on_bus_problem(d, STR(""), f.key_file, "others can read it (chmod 600)");
        e = ERR_BAD;
    } else if ((e = tls_bus_build(&f, time(NULL), on_bus_problem, d, fd)) == ERR_IO) {
        on_bus_problem(d, STR(""), f.certificate_file, "no memory for it");
    }
    *end_s = f.not_after_s;
    arena_close(&a);
    return e;
}

/* ---- changes --------------------------------------------------------------------------------- */

static uint64_t mix(uint64_t seed, const char *path)
{
    struct stat st;
    if (stat(path, &st) < 0)
        return XXH3_64bits_withSeed("", 0, seed);
    const int64_t what[] = {(int64_t)st.st_ino, (int64_t)st.st_size, st.st_mtim.tv_sec,
                            st.st_mtim.tv_nsec};
    return XXH3_64bits_withSeed(what, sizeof what, seed);
}

uint64_t certificates_look(const struct super *s, struct arena *a)
{
    uint64_t seen = 0;
    for (uint32_t i = 0; i < s->conf->host_count; i++) {
        struct pair_files f = files_of(s->conf, conf_host_at(s->conf, i), a);
        seen = mix(mix(seen, f.certificate.p), f.key.p);
    }
    const struct conf *c = s->conf;
    const struct conf_text bus[] = {c->cluster_ca_file, c->cluster_certificate_file,
                                    c->cluster_key_file};
    for (size_t i = 0; s->cluster.owner && i < array_len(bus); i++)
        seen = mix(seen, conf_path(c, bus[i], a).p);
    return seen;
}
