/* blocked: one block of memory per list: a table of places, then the JIDs as the store has them.
 * Accounts with a list are few, lists of thousands fewer: what counts is that a message costs three
 * look-ups and nobody else's costs any. */
#include "node/home/blocked.h"

#include <xxhash.h>

#include "node/home/inside.h"
#include "node/xep/xep.h"

struct blocked {
    uint32_t count, n; /* JIDs; bytes of them */
    uint32_t mask;     /* of the table: a power of two, at least twice as large as count */
    uint32_t place[];  /* 1 + where in the text one begins; 0: free. Behind it the text */
};

static char *text_of(struct blocked *b) { return (char *)(b->place + b->mask + 1); }
static const char *text(const struct blocked *b) { return (const char *)(b->place + b->mask + 1); }

str blocked_next(str *jids)
{
    str jid = str_from(jids->p, strnlen(jids->p, jids->n));
    *jids = str_skip(*jids, jid.n < jids->n ? jid.n + 1 : jid.n);
    return jid;
}

/* Where it is, or would be. */
static uint32_t place_of(const struct blocked *b, str jid)
{
    uint32_t i = (uint32_t)XXH3_64bits(jid.p, jid.n) & b->mask;
    for (; b->place[i]; i = (i + 1) & b->mask) {
        const char *there = text(b) + b->place[i] - 1;
        if (strncmp(there, jid.p, jid.n) == 0 && there[jid.n] == 0)
            break;
    }
    return i;
}

static bool has(const struct blocked *b, str jid) { return b->place[place_of(b, jid)] != 0; }

static void add(struct blocked *b, str jid)
{
    uint32_t i = place_of(b, jid);
    if (b->place[i])
        return;
    memcpy(text_of(b) + b->n, jid.p, jid.n);
    text_of(b)[b->n + jid.n] = 0;
    b->place[i] = b->n + 1;
    b->n += (uint32_t)jid.n + 1;
    b->count++;
}

static uint32_t count_of(str jids)
{
    uint32_t n = 0;
    while (jids.n)
        n += blocked_next(&jids).n > 0;
    return n;
}

static struct blocked *with_room(uint32_t count, size_t bytes)
{
    uint32_t slots = 4;
    while (slots < 2 * count)
        slots *= 2;
    struct blocked *b = calloc(1, sizeof *b + slots * sizeof b->place[0] + bytes + 1);
    must(b);
    b->mask = slots - 1;
    return b;
}

static void add_all(struct blocked *b, str jids, const struct blocked *but_for)
{
    while (jids.n) {
        str jid = blocked_next(&jids);
        if (jid.n && !(but_for && has(but_for, jid)))
            add(b, jid);
    }
}

struct blocked *blocked_new(const struct blocked *of, str jids, bool with)
{
    str old = blocked_jids(of);
    uint32_t given = count_of(jids);
    struct blocked *b = with_room(blocked_count(of) + given, old.n + jids.n), *but_for = NULL;
    if (!with) {
        but_for = with_room(given, jids.n);
        add_all(but_for, jids, NULL);
    }
    add_all(b, old, but_for);
    if (with)
        add_all(b, jids, NULL);
    free(but_for);
    if (b->count)
        return b;
    free(b);
    return NULL;
}

uint32_t blocked_count(const struct blocked *b) { return b ? b->count : 0; }

str blocked_jids(const struct blocked *b) { return b ? str_from(text(b), b->n) : STR_NONE; }

bool blocked_matches(const struct blocked *b, str jid)
{
    struct jid j = jid_parse_prepared(jid);
    return b && (has(b, j.full) || (j.resource.n && has(b, j.bare)) ||
                 (j.full.n != j.domain.n && has(b, j.domain)));
}

const struct blocked *user_blocked(const struct user *u) { return user_extra(u, EXTRA_BLOCKING); }

void user_set_blocked(struct user *u, struct blocked *b)
{
    free(user_extra(u, EXTRA_BLOCKING));
    user_set_extra(u, EXTRA_BLOCKING, b);
}

bool user_blocks_one(const struct user *u, str jid)
{
    const struct blocked *b = user_blocked(u);
    return b && blocked_matches(b, jid) && !str_eq(jid_parse_prepared(jid).bare, user_bare(u)) &&
           xep_active(&xep_blocking, u->home->node->conf, user_host(u));
}
