#include "node/tls/new_keys.h"

#include <stdlib.h>

#include "proto/sasl/scram.h"

struct drawn {
    struct entropy entropy;
    unsigned char bytes[SCRAM_HASHES * SCRAM_SALT_BYTES];
    size_t used;
};

struct derivation {
    struct helper_job job;
    struct drawn salts;
    uint32_t iterations;
    struct scram_keys keys;
    new_keys_f *done;
    void *ctx;
    size_t password_n;
    char password[SCRAM_PASSWORD_MAX];
};

static void draw(struct entropy *e, void *out, size_t n)
{
    struct drawn *d = container_of(e, struct drawn, entropy);
    must(n <= sizeof d->bytes - d->used);
    memcpy(out, d->bytes + d->used, n);
    d->used += n;
}

static void derive(struct helper_job *j)
{
    struct derivation *d = container_of(j, struct derivation, job);
    scram_keys_make((str){d->password, d->password_n}, d->iterations, &d->salts.entropy, &d->keys);
}

static void forget(struct derivation *d)
{
    scram_wipe(d, sizeof *d);
    free(d);
}

static void derived(struct helper_job *j)
{
    struct derivation *d = container_of(j, struct derivation, job);
    unsigned char blob[SCRAM_BLOB_MAX];
    size_t n = scram_keys_encode(&d->keys, blob);
    d->done(d->ctx, str_from(blob, n));
    scram_wipe(blob, sizeof blob);
    forget(d);
}

err new_keys(struct helper *h, struct entropy *e, str password, uint32_t iterations,
             new_keys_f *done, void *ctx)
{
    struct derivation *d = calloc(1, sizeof *d);
    must(d && password.n <= sizeof d->password);
    list_init(&d->job.link);
    d->job.run = derive, d->job.done = derived;
    d->iterations = iterations;
    d->done = done, d->ctx = ctx;
    d->salts.entropy.fill = draw;
    entropy_fill(e, d->salts.bytes, sizeof d->salts.bytes);
    d->password_n = password.n;
    memcpy(d->password, password.p, password.n);
    err full = helper_submit(h, &d->job);
    if (full)
        forget(d);
    return full;
}
