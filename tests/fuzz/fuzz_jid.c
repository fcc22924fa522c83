/* Addresses from a peer: whatever is accepted is a fixed point, within the bounds, valid UTF-8, and
 * its views are its parts. */
#include "proto/base/utf8.h"
#include "proto/xmpp/jid.h"
#include "proto/xmpp/precis.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void within(str part, str whole)
{
    must(part.n == 0 || (part.p >= whole.p && part.p + part.n <= whole.p + whole.n));
}

static void check_jid(str raw, struct arena *a)
{
    struct jid parsed = jid_parse_prepared(raw), j, again;
    within(parsed.local, raw), within(parsed.domain, raw), within(parsed.resource, raw);
    if (jid_prepare(raw, a, &j))
        return;
    must(j.full.n <= JID_MAX && utf8_valid(j.full));
    must(j.local.n <= JID_PART_MAX && j.resource.n <= JID_PART_MAX);
    must(j.domain.n > 0 && j.domain.n <= JID_PART_MAX);
    must(jid_prepare(j.full, a, &again) == ERR_OK && str_eq(again.full, j.full));
    must(str_eq(again.local, j.local) && str_eq(again.domain, j.domain));
    must(str_eq(jid_join(a, j.local, j.domain, j.resource).full, j.full));
    parsed = jid_parse_prepared(j.full);
    must(str_eq(parsed.local, j.local) && str_eq(parsed.domain, j.domain));
    must(str_eq(parsed.resource, j.resource) && str_eq(parsed.bare, j.bare));
}

static void check_profile(err (*prepare)(str, struct arena *, str *), str raw, struct arena *a)
{
    str out, again;
    if (prepare(raw, a, &out))
        return;
    must(out.n > 0 && out.n <= PRECIS_MAX && utf8_valid(out));
    must(prepare(out, a, &again) == ERR_OK && str_eq(again, out));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena a;
    arena_init(&a);
    str raw = str_from(data, size);
    check_jid(raw, &a);
    check_profile(precis_username, raw, &a);
    check_profile(precis_opaque, raw, &a);
    check_profile(jid_prepare_domain, raw, &a);
    arena_close(&a);
    return 0;
}
