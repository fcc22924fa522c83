/* Any bytes as what Redis servers answer, to a registry that is kept asking: no crash, no answer
 * twice, none from inside a request, and an end to everything.
 *
 * Input: the mode; then steps: what to do (low three bits), which connection or how long, bytes. */
#include "tests/unit/registry/fake_redis.h"

static int outstanding;
static bool inside;
static bool silent;

static void on_done(void *ctx, err e, const struct registry_reply *r)
{
    must(!inside && outstanding > 0);
    must((r == NULL) == (e == ERR_AWAY || e == ERR_REFUSED));
    must(e == ERR_OK || e == ERR_AWAY || e == ERR_REFUSED || e == ERR_EXISTS || e == ERR_STALE);
    for (size_t i = 0; r && i < r->lease_count; i++)
        must(r->leases[i].owner || !r->leases[i].revoked || r->leases[i].ttl_ms == 0);
    must(!r || r->view.n <= REGISTRY_VIEW_MAX);
    outstanding--;
}

static const char *greet_only(struct fake *f, struct fake_conn *c, int argc, const str *argv)
{
    return silent ? "" : NULL;
}

static void ask(struct fake *f, unsigned what)
{
    const struct registry_lease a = {.node = STR("a"), .owner = 1, .ttl_ms = 3000};
    const struct registry_lease b = {.node = STR("b"), .owner = 2, .ttl_ms = 3000};
    const str names[] = {STR("a"), STR("b")};
    inside = true;
    outstanding++;
    switch (what % 6) {
    case 0: registry_lease_renew(f->door, a, on_done, f); break;
    case 1: registry_lease_drop(f->door, a, on_done, f); break;
    case 2: registry_lease_revoke(f->door, a, b, on_done, f); break;
    case 3: registry_leases_get(f->door, names, 2, on_done, f); break;
    case 4: registry_view_get(f->door, on_done, f); break;
    default: registry_view_cas(f->door, 1, 2, STR("view"), on_done, f); break;
    }
    inside = false;
}

static void keep(struct fake *f, unsigned what)
{
    const struct registry_record r = {what & 1 ? REGISTRY_ROOM : REGISTRY_USER,
                                      what & 2 ? STR("a@x") : STR("b@x"),
                                      what & 4 ? STR("r") : STR("s"), STR("value"), what >> 4};
    if ((what & 0xf0) == 0xf0)
        registry_record_forget(f->door, r.kind, r.key);
    else if (what & 8)
        registry_record_put(f->door, &r);
    else
        registry_record_remove(f->door, &r);
}

/* One step; how much of the input it took. */
static size_t step(struct fake *f, const uint8_t *p, size_t size)
{
    unsigned arg = size > 1 ? p[1] : 0;
    struct fake_conn *c = &f->conns[arg % 4];
    switch (p[0] & 7) {
    case 0: ask(f, arg); return 2;
    case 1: keep(f, arg); return 2;
    case 2: fake_advance(f, arg); return 2;
    case 3: fake_hang_up(c); break;
    case 4: f->unreachable = arg & 1, silent = arg & 2; return 2;
    case 5: f->chunk = arg; return 2;
    default: {
        size_t n = p[0] >> 3; /* a short piece, or all up to the next NUL */
        const uint8_t *end = size > 2 ? memchr(p + 2, 0, size - 2) : NULL;
        if ((p[0] & 7) == 7)
            n = end ? (size_t)(end - p - 2) : size;
        n = size > 2 && n < size - 2 ? n : size > 2 ? size - 2 : 0;
        if (n)
            fake_say(c, (const char *)p + 2, n);
        fake_run(f);
        return 2 + n;
    }
    }
    fake_run(f);
    return 2;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct fake f;
    if (size < 1)
        return 0;
    outstanding = 0;
    silent = data[0] & 4;
    fake_init(&f, greet_only);
    fake_open(&f, data[0] % 3);
    fake_advance(&f, 20);
    for (size_t at = 1, steps = 0; at < size && steps < 200; steps++)
        at += step(&f, data + at, size - at);
    f.unreachable = true;
    fake_advance(&f, 1200); /* longer than any answer is waited for */
    must(outstanding == 0);
    fake_close(&f);
    return 0;
}
