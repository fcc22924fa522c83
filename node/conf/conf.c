/* The reading side of the image: mapping and views. Everything here trusts the image, which our own
 * supervisor has built and sealed; the magic number catches a child of another build. */
#include "node/conf/conf.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "node/conf/image.h"

err conf_map(int fd, const struct conf **out)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return ERR_IO;
    if ((size_t)st.st_size < sizeof(struct conf))
        return ERR_BAD;
    struct conf *c = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
    if (c == MAP_FAILED)
        return ERR_IO;
    if (c->magic != CONF_MAGIC || c->size != (uint64_t)st.st_size) {
        munmap(c, (size_t)st.st_size);
        return ERR_BAD;
    }
    *out = c;
    return ERR_OK;
}

void conf_unmap(const struct conf *c)
{
    if (c)
        munmap((void *)(uintptr_t)c, c->size);
}

str conf_text(const struct conf *c, struct conf_text t)
{
    return (str){(const char *)c + t.at, t.n};
}

str conf_list_at(const struct conf *c, struct conf_list l, uint32_t i)
{
    must(i < l.count);
    const struct conf_text *t = (const void *)((const char *)c + l.at);
    return conf_text(c, t[i]);
}

bool conf_list_has(const struct conf *c, struct conf_list l, str word)
{
    for (uint32_t i = 0; i < l.count; i++)
        if (str_eq(conf_list_at(c, l, i), word))
            return true;
    return false;
}

str conf_path(const struct conf *c, struct conf_text t, struct arena *a)
{
    str path = conf_text(c, t);
    if (path.n == 0 || path.p[0] == '/')
        return path;
    return arena_printf(a, "%s/%s", conf_text(c, c->node_data_dir).p, path.p);
}

static bool as_v6(const struct sockaddr *address, unsigned char out[16])
{
    if (address->sa_family == AF_INET6) {
        memcpy(out, &((const struct sockaddr_in6 *)(const void *)address)->sin6_addr, 16);
        return true;
    }
    if (address->sa_family != AF_INET)
        return false;
    memset(out, 0, 10);
    memset(out + 10, 0xff, 2);
    memcpy(out + 12, &((const struct sockaddr_in *)(const void *)address)->sin_addr, 4);
    return true;
}

static bool net_covers(const struct conf_net *n, const unsigned char a[16])
{
    uint32_t bytes = n->bits / 8, rest = n->bits % 8;
    if (memcmp(n->address, a, bytes) != 0)
        return false;
    return rest == 0 || ((n->address[bytes] ^ a[bytes]) & (0xff00u >> rest) & 0xff) == 0;
}

bool conf_net_contains(const struct conf *c, struct conf_list nets, const struct sockaddr *address)
{
    unsigned char a[16];
    if (nets.count == 0 || !as_v6(address, a))
        return false;
    const struct conf_net *n = (const void *)((const char *)c + nets.at);
    for (uint32_t i = 0; i < nets.count; i++)
        if (net_covers(&n[i], a))
            return true;
    return false;
}

static int str_compare(str a, str b)
{
    int r = memcmp(a.p, b.p, a.n < b.n ? a.n : b.n);
    return r ? r : (a.n > b.n) - (a.n < b.n);
}

const struct conf_host *conf_host_at(const struct conf *c, uint32_t i)
{
    must(i < c->host_count);
    return (const struct conf_host *)(const void *)((const char *)c + c->hosts_at) + i;
}

const struct conf_host *conf_host_find(const struct conf *c, str domain)
{
    uint32_t low = 0, high = c->host_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        const struct conf_host *h = conf_host_at(c, middle);
        int r = str_compare(domain, conf_text(c, h->domain));
        if (r == 0)
            return h;
        if (r < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

unsigned conf_host_metric(const struct conf *c, str domain)
{
    const struct conf_host *h = conf_host_find(c, domain);
    return h ? h->metric : 0;
}

bool conf_host_is_admin(const struct conf *c, const struct conf_host *h, str bare_jid)
{
    return conf_list_has(c, h->admins, bare_jid);
}

bool conf_module_off(const struct conf *c, const struct conf_host *h, str module)
{
    return conf_list_has(c, c->modules_off, module) ||
           (h && conf_list_has(c, h->modules_off, module));
}
