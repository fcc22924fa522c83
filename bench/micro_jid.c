/* micro_jid: what an address costs to prepare: the ordinary ones, and the worst that a peer can
 * send, with their length and whether they are refused. */
#include "bench/micro.h"

#include <stdio.h>

#include "pemberley/must.h"
#include "proto/xmpp/jid.h"

static struct bench {
    size_t n;
    struct arena raw, turn; /* raw: the addresses and the cases' names */
    str addresses[MICRO_CASES_MAX];
    struct micro_case cases[MICRO_CASES_MAX];
} bench;

static double prepared(void *ctx, size_t times)
{
    str raw = *(const str *)ctx;
    double from = micro_ns();
    for (size_t i = 0; i < times; i++) {
        struct jid j;
        __asm__ volatile("" : "+g"(raw.p) : : "memory");
        micro_use(jid_prepare(raw, &bench.turn, &j));
        arena_reset(&bench.turn);
    }
    return micro_ns() - from;
}

static void measure(const char *what, str raw)
{
    struct jid j;
    must(bench.n < MICRO_CASES_MAX);
    const char *fate = jid_prepare(raw, &bench.turn, &j) == ERR_OK ? "" : ", refused";
    str name = arena_printf(&bench.raw, "%s (%zu%s)", what, raw.n, fate);
    bench.addresses[bench.n] = arena_dup(&bench.raw, raw);
    bench.cases[bench.n] = (struct micro_case){name.p, prepared, &bench.addresses[bench.n], 0};
    bench.n++;
}

/* unit repeated up to max bytes, behind what is there. */
static size_t repeat(char *out, size_t n, const char *unit, size_t max)
{
    size_t size = strlen(unit), end = n + max;
    while (size && n + size <= end) {
        memcpy(out + n, unit, size);
        n += size;
    }
    return n;
}

/* As local and as resource of one address, 1,023 bytes each. */
static void hostile(const char *what, const char *unit, const char *domain)
{
    char raw[JID_MAX + 1];
    size_t n = repeat(raw, 0, unit, JID_PART_MAX);
    raw[n++] = '@';
    n = repeat(raw, n, domain, strlen(domain));
    raw[n++] = '/';
    n = repeat(raw, n, unit, JID_PART_MAX);
    measure(what, (str){raw, n});
}

int main(int argc, char **argv)
{
    arena_init(&bench.raw);
    arena_init(&bench.turn);
    measure("full JID", STR("alice@example.com/laptop.8f3c"));
    measure("bare JID", STR("alice@example.com"));
    measure("long full JID", STR("alexandra.longname@chat.example.com/gajim.3f2504e04f8911d39a0c"));
    measure("hyphen in the domain", STR("alice@chat-1.example.com/laptop"));
    measure("capitals", STR("Alice@Example.com/Laptop"));
    measure("Latin-1", STR("j\u00fcrgen@example.com/b\u00fcro"));
    measure("IDN", STR("alice@m\u00fcnchen.example/laptop"));
    measure("A-label", STR("alice@xn--mnchen-3ya.example/laptop"));
    char idn[1024] = "", ace[1024] = "";
    for (int i = 0; i < 31; i++) {
        strcat(idn, i ? ".\u00fc" : "\u00fc");
        strcat(ace, i ? ".xn--tda" : "xn--tda");
    }
    hostile("worst: ASCII", "a", "example.com");
    hostile("worst: capitals with two marks", "\u01fa", idn);
    hostile("worst: letters and marks", "a\u0323\u0307", idn);
    hostile("worst: marks in wrong order", "\u0301\u0316", ace);
    hostile("worst: Katakana and dots", "\u30a2\u30fb", ace);
    hostile("worst: Hebrew", "\u05d0", ace);
    hostile("worst: joiners", "\u0628\u200c\u0628", ace);
    hostile("worst: Hangul", "\uac01", idn);
    hostile("worst: half width", "\uff76", idn);
    char part[JID_PART_MAX];
    size_t n = repeat(part, 0, "\u01fa", JID_PART_MAX);
    measure("worst: one label of 1,023 bytes", (str){part, n});
    n = repeat(part, 0, "\u1100\u1161\u11a8", JID_PART_MAX);
    measure("worst: one label of Jamo", (str){part, n});
    n = 0;
    for (int i = 0; i < 3; i++) {
        n = repeat(part, n, i ? "." : "", 1);
        n = repeat(part, n, "\u30fb", 3 * 55);
        n = repeat(part, n, "\u30a2", 3);
    }
    measure("worst: Katakana labels", (str){part, n});
    n = repeat(part, 0, "\u0628\u200c\u0628", 252);
    measure("worst: one label of joiners", (str){part, n});
    measure("worst: 31 U-labels", str_of(idn));
    measure("worst: 31 A-labels", str_of(ace));
    micro_run(bench.cases, bench.n, argc, argv);
    arena_close(&bench.raw);
    arena_close(&bench.turn);
    return 0;
}
