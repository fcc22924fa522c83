/* fuzz_proxy: arbitrary bytes as a PROXY header. Checked beside the sanitizers: a verdict once
 * given stays whatever follows, what is partial stays open to the end of the bytes there are, the
 * bounds hold, and a claimed address is one of the two families. */
#include <stdlib.h>

#include "pemberley/must.h"
#include "proto/proxy/proxy.h"

static void check(const struct proxy_header *h, err e, size_t used, size_t n)
{
    must(e == ERR_OK || e == ERR_PARTIAL || e == ERR_BAD || e == ERR_FULL);
    must(e != ERR_OK || (used > 0 && used <= n && used <= PROXY_HEADER_MAX));
    must(e != ERR_PARTIAL || n < PROXY_HEADER_MAX);
    must(!h->claims ||
         (e == ERR_OK && (h->source.ss_family == AF_INET || h->source.ss_family == AF_INET6)));
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    struct proxy_header whole, part;
    size_t used, k;
    err verdict = proxy_parse(str_from(p, n), &whole, &used);

    check(&whole, verdict, used, n);
    for (size_t i = 0; i <= n && i <= PROXY_HEADER_MAX; i++) {
        char *exact = malloc(i ? i : 1);
        must(exact);
        if (i)
            memcpy(exact, p, i);
        err e = proxy_parse(str_from(exact, i), &part, &k);
        free(exact);
        check(&part, e, k, i);
        must(e == ERR_PARTIAL || e == verdict);
        must(e != ERR_OK || (k == used && memcmp(&part, &whole, sizeof part) == 0));
    }
    return 0;
}
