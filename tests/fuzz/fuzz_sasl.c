/* A client's bytes through every mechanism. Input: a byte that chooses mechanism, offer and
 * account, then messages separated by 0xff. Nobody gets in but as ANONYMOUS or with PLAIN's right
 * password: proofs cannot be guessed. The other parsers of the room read the same bytes. */
#include "proto/sasl/sasl.h"
#include "proto/sasl/scram_client.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fill(struct entropy *e, void *out, size_t n) { memset(out, 'x', n); }

static str next_message(str *rest)
{
    const char *end = rest->n ? memchr(rest->p, 0xff, rest->n) : NULL;
    str m = {rest->p, end ? (size_t)(end - rest->p) : rest->n};
    *rest = end ? str_skip(*rest, m.n + 1) : STR("");
    return m;
}

static void login(unsigned choice, str rest, struct arena *a)
{
    struct entropy entropy = {fill};
    struct scram_keys keys;
    for (int h = 0; h < SCRAM_HASHES; h++)
        scram_derive(STR("pencil"), (enum scram_hash)h, STR("salt"), 1, &keys.of[h]);
    struct sasl_offer o = {.tls = choice & 16,
                           .host = STR("example.com"),
                           .iterations = 1,
                           .secret = STR("secret"),
                           .entropy = &entropy};
    o.binding[CB_TLS_EXPORTER].n = o.tls ? 32 : 0;
    o.mechanisms = sasl_offered(&o, UINT32_MAX);
    str mechanism = sasl_mechanism_name((enum sasl_mechanism)(choice % SASL_MECHANISMS));
    str message = next_message(&rest);
    struct sasl s = {0};
    struct sasl_answer r = sasl_begin(&s, mechanism, &o, choice & 32 ? NULL : &message, a);
    while (r.verdict < SASL_SUCCESS) {
        if (r.verdict == SASL_NEED_KEYS) {
            r = sasl_keys(&s, choice & 64 ? NULL : &keys, ERR_OK, a);
        } else if (r.verdict == SASL_NEED_CHECK) {
            struct sasl_check c;
            sasl_check_take(&s, &c);
            r = sasl_checked(&s, sasl_check_run(&c));
        } else {
            r = sasl_step(&s, next_message(&rest), a);
        }
    }
    if (r.verdict == SASL_SUCCESS && s.mechanism != SASL_ANONYMOUS)
        must(s.mechanism == SASL_PLAIN && str_is(s.password, "pencil") && !(choice & 64));
    if (r.verdict == SASL_FAILURE)
        must(err_row(r.reason)->class == ERR_CLASS_SASL);
    sasl_end(&s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    struct arena a;
    arena_init(&a);
    str rest = str_from(data + 1, size - 1), out;
    login(data[0], rest, &a);
    struct scram_keys keys;
    unsigned char blob[SCRAM_BLOB_MAX];
    if (!scram_keys_decode(rest, &keys))
        must(scram_keys_encode(&keys, blob) == rest.n);
    if (!sasl_decode(rest, &a, &out) && out.n)
        must(str_eq(sasl_encode(out, &a), rest));
    if (size < 64) { /* short: the iterations that a server asks of its client cost time */
        struct scram_client c = {
            .hash = SCRAM_SHA1, .user = STR("u"), .password = STR("p"), .nonce = STR("n")};
        scram_client_first(&c, &a);
        if (!memmem(rest.p, rest.n, "0000", 4) && !scram_client_final(&c, rest, &a, &out))
            must(!scram_client_verify(&c, rest));
    }
    arena_close(&a);
    return 0;
}
