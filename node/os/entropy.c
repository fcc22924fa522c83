/* entropy: getrandom(2) through a small pool, since most of what is asked for is 8 or 16 bytes.
 * What was handed out is wiped: a memory disclosure later does not tell earlier tokens. A process
 * that gets no random bytes cannot go on (must). Not to be used on both sides of a fork. */
#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "node/os/os.h"

static void from_kernel(unsigned char *p, size_t n)
{
    while (n) {
        ssize_t r = getrandom(p, n, 0);
        must(r > 0 || errno == EINTR);
        if (r > 0)
            p += r, n -= (size_t)r;
    }
}

static void fill(struct entropy *entropy, void *out, size_t n)
{
    struct entropy_real *e = container_of(entropy, struct entropy_real, entropy);
    if (n > sizeof e->pool / 4) {
        from_kernel(out, n);
        return;
    }
    if (e->left < n) {
        from_kernel(e->pool, sizeof e->pool);
        e->left = sizeof e->pool;
    }
    unsigned char *p = e->pool + sizeof e->pool - e->left;
    memcpy(out, p, n);
    explicit_bzero(p, n);
    e->left -= n;
}

void entropy_real_init(struct entropy_real *e)
{
    e->entropy.fill = fill;
    e->left = 0;
}
