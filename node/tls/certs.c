/* certs: a generation of certificates as a shard sees it: the supervisor's sealed memfd, mapped
 * read only, so that a node has one copy whatever its number of shards. A host is parsed at its
 * first hello (30 us, 1 KB): ten thousand hosts do not slow a restart. The certificates' bytes stay
 * in the mapping, so the mapping outlives every handshake that shows them (references).
 *
 * The maker is ours, yet all offsets are checked once: a broken generation must be refused by name,
 * not found by a crash. */
#include <fcntl.h>
#include <openssl/bytestring.h>
#include <openssl/evp.h>
#include <openssl/pool.h>
#include <openssl/sha.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "node/tls/inside.h"

struct tls_certs {
    uint32_t refs;
    uint32_t count;
    const char *map;
    size_t size;
    const struct generation_row *rows;
    struct tls_host **hosts; /* one per row, NULL until asked for */
};

static const struct generation_head *head_of(const struct tls_certs *g)
{
    return (const struct generation_head *)(const void *)g->map;
}

static str row_name(const struct tls_certs *g, long row)
{
    return (str){g->map + g->rows[row].name, g->rows[row].name_n};
}

/* --- reading a generation --- */

static bool range_ok(const struct tls_certs *g, uint32_t at, uint32_t n)
{
    return at <= g->size && n <= g->size - at;
}

static bool rows_ok(const struct tls_certs *g)
{
    for (uint32_t i = 0; i < g->count; i++) {
        const struct generation_row *r = &g->rows[i];
        if (!range_ok(g, r->name, r->name_n) || !range_ok(g, r->chain, r->chain_n) ||
            !range_ok(g, r->key, r->key_n) || !range_ok(g, r->ocsp, r->ocsp_n))
            return false;
        if (r->name_n > 255 || (i > 0 && generation_order(row_name(g, i - 1), row_name(g, i)) >= 0))
            return false;
    }
    return true;
}

static bool generation_ok(struct tls_certs *g)
{
    const struct generation_head *h = head_of(g);

    if (g->size < sizeof *h || h->magic != GENERATION_MAGIC || h->size != g->size)
        return false;
    if (h->count == 0 || h->default_row >= h->count ||
        h->count > (g->size - sizeof *h) / sizeof *g->rows)
        return false;
    g->count = h->count;
    g->rows = (const struct generation_row *)(const void *)(g->map + sizeof *h);
    return rows_ok(g);
}

err tls_certs_map(int fd, struct tls_certs **out)
{
    const int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
    struct stat st;

    if ((fcntl(fd, F_GET_SEALS) & seals) != seals || fstat(fd, &st) < 0 || st.st_size <= 0)
        return ERR_BAD;
    void *map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        return ERR_IO;
    madvise(map, (size_t)st.st_size, MADV_DONTDUMP); /* it holds private keys */
    struct tls_certs *g = calloc(1, sizeof *g);
    must(g);
    g->refs = 1, g->map = map, g->size = (size_t)st.st_size;
    if (!generation_ok(g)) {
        g->count = 0;
        tls_certs_unref(g);
        return ERR_BAD;
    }
    g->hosts = calloc(g->count, sizeof *g->hosts);
    must(g->hosts);
    *out = g;
    return ERR_OK;
}

struct tls_certs *tls_certs_ref(struct tls_certs *g) { return g->refs++, g; }

static void host_free(struct tls_host *h)
{
    for (size_t i = 0; i < h->chain_n; i++)
        CRYPTO_BUFFER_free(h->chain[i]);
    free(h->chain);
    EVP_PKEY_free(h->key);
    identity_unref(h->identity);
    free(h);
}

void tls_certs_unref(struct tls_certs *g)
{
    if (!g || --g->refs > 0)
        return;
    for (uint32_t i = 0; i < g->count; i++)
        if (g->hosts[i])
            host_free(g->hosts[i]);
    free(g->hosts);
    munmap((void *)(uintptr_t)g->map, g->size);
    free(g);
}

/* --- finding a host --- */

static long find(const struct tls_certs *g, str name)
{
    long low = 0, high = (long)g->count - 1;

    while (low <= high) {
        long mid = low + (high - low) / 2;
        int c = generation_order(name, row_name(g, mid));
        if (c == 0)
            return mid;
        if (c < 0)
            high = mid - 1;
        else
            low = mid + 1;
    }
    return -1;
}

long tls_certs_find(const struct tls_certs *g, str domain)
{
    char name[256];

    if (domain.n > 0 && domain.p[domain.n - 1] == '.')
        domain.n--;
    if (domain.n == 0 || domain.n > 255 || domain.p[0] == '*')
        return -1;
    for (size_t i = 0; i < domain.n; i++)
        name[i] = (char)(domain.p[i] >= 'A' && domain.p[i] <= 'Z' ? domain.p[i] + 32 : domain.p[i]);
    long row = find(g, (str){name, domain.n});
    const char *dot = memchr(name, '.', domain.n);
    if (row >= 0 || !dot || dot == name)
        return row;
    size_t label = (size_t)(dot - name); /* a wildcard stands for one label, RFC 6125 6.4.3 */
    name[label - 1] = '*';
    return find(g, (str){name + label - 1, domain.n - label + 1});
}

long tls_certs_default(const struct tls_certs *g) { return head_of(g)->default_row; }

/* --- parsing a host --- */

void identity_unref(struct tls_identity *id)
{
    if (id && --id->refs == 0)
        free(id);
}

/* The session id context names the host, so that a ticket of one is nothing at another (client
 * certificates!), and the certificate: a resumed handshake shows none, and tls-server-end-point
 * must mean the same one to both sides, also when it was renewed in between. */
static struct tls_identity *identity_new(str name, str leaf)
{
    struct tls_identity *id = malloc(sizeof *id + name.n);
    SHA256_CTX sha;

    must(id);
    id->refs = 1;
    id->name_n = (uint16_t)name.n;
    memcpy(id->name, name.p, name.n);
    id->binding_n = (uint8_t)binding_end_point(leaf, id->binding);
    SHA256_Init(&sha);
    SHA256_Update(&sha, name.p, name.n);
    SHA256_Update(&sha, "", 1);
    SHA256_Update(&sha, leaf.p, leaf.n);
    SHA256_Final(id->session, &sha);
    return id;
}

static bool chain_parse(struct tls_host *h, str bytes)
{
    CBS in, der;
    size_t n = 0;

    CBS_init(&in, (const uint8_t *)bytes.p, bytes.n);
    for (CBS count = in; CBS_len(&count) > 0; n++)
        if (!CBS_get_u24_length_prefixed(&count, &der))
            return false;
    if (n == 0)
        return false;
    h->chain = calloc(n, sizeof *h->chain);
    must(h->chain);
    while (h->chain_n < n && CBS_get_u24_length_prefixed(&in, &der)) {
        CRYPTO_BUFFER *b =
            CRYPTO_BUFFER_new_from_static_data_unsafe(CBS_data(&der), CBS_len(&der), NULL);
        must(b);
        h->chain[h->chain_n++] = b;
    }
    return true;
}

const struct tls_host *tls_certs_host(struct tls_certs *g, long row)
{
    must(row >= 0 && row < (long)g->count);
    if (g->hosts[row])
        return g->hosts[row];
    const struct generation_row *r = &g->rows[row];
    struct tls_host *h = calloc(1, sizeof *h);
    CBS key;

    must(h);
    CBS_init(&key, (const uint8_t *)g->map + r->key, r->key_n);
    h->key = EVP_parse_private_key(&key);
    if (!h->key || !chain_parse(h, (str){g->map + r->chain, r->chain_n})) {
        host_free(h);
        return NULL;
    }
    h->ocsp = (str){g->map + r->ocsp, r->ocsp_n};
    h->ocsp_until_s = r->ocsp_until_s;
    h->identity = identity_new(row_name(g, row), str_from(CRYPTO_BUFFER_data(h->chain[0]),
                                                          CRYPTO_BUFFER_len(h->chain[0])));
    return g->hosts[row] = h;
}
