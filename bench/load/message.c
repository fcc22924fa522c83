/* message: see message.h. */
#include "bench/load/message.h"

#include <stdio.h>
#include <stdlib.h>

/* <body>PPPPPPPP NNNNNNNNNNNNNNNN TTTTTTTTTTTTTTTT padding</body>, hexadecimal */
enum { HEX = 16, HEAD = 8 + 1 + HEX + 1 + HEX + 1 };

static void put_hex(char *at, uint64_t v)
{
    for (int i = HEX - 1; i >= 0; i--, v >>= 4)
        at[i] = "0123456789abcdef"[v & 15];
}

static bool get_hex(const char *at, uint64_t *v)
{
    *v = 0;
    for (int i = 0; i < HEX; i++) {
        const char *digits = "0123456789abcdef", *d = memchr(digits, at[i], 16);
        if (!d)
            return false;
        *v = *v << 4 | (uint64_t)(d - digits);
    }
    return true;
}

void pair_init(struct pair *p, unsigned index, str to_jid, size_t stanza_bytes)
{
    static const char end[] = "</body></message>";
    p->index = index, p->next = 1;
    p->xml = malloc(stanza_bytes + 512 + to_jid.n);
    must(p->xml);
    int n = sprintf(p->xml, "<message to='%.*s' type='chat' id='load-%08x'><body>%08x ",
                    STR_ARG(to_jid), index, index);
    p->number_at = (size_t)n;
    n += sprintf(p->xml + n, "%016x %016x ", 0, 0);
    for (; (size_t)n + sizeof end - 1 < stanza_bytes; n++)
        p->xml[n] = (char)('a' + n % 26);
    memcpy(p->xml + n, end, sizeof end - 1);
    p->xml_n = (size_t)n + sizeof end - 1;
}

void pair_send(struct pair *p, struct tally *t, uint64_t now_us)
{
    put_hex(p->xml + p->number_at, ++p->sent);
    put_hex(p->xml + p->number_at + HEX + 1, now_us);
    client_put(&p->from, str_from(p->xml, p->xml_n));
    t->sent++;
}

/* ---- in ---- */

void tally_count(struct tally *t, uint64_t us)
{
    unsigned octave = 63 - (unsigned)__builtin_clzll(us | 1);
    uint64_t step = octave < 5 ? us : us >> (octave - 5) & (LATENCY_STEPS - 1);
    t->latency[octave < 5 ? step : (octave - 4) * LATENCY_STEPS + step]++;
}

uint64_t tally_latency_us(const struct tally *t, double share)
{
    uint64_t all = 0, upto = 0;
    for (unsigned i = 0; i < LATENCY_CELLS; i++)
        all += t->latency[i];
    for (unsigned i = 0; i < LATENCY_CELLS; i++)
        if ((double)(upto += t->latency[i]) >= share * (double)all && upto)
            return i < LATENCY_STEPS
                       ? i
                       : (LATENCY_STEPS + i % LATENCY_STEPS) << (i / LATENCY_STEPS - 1);
    return 0;
}

/* Numbers that were skipped may still come, within 64 of the newest. */
static void take_number(struct pair *p, struct tally *t, uint64_t number)
{
    if (number >= p->next) {
        for (; p->next <= number; p->next++) {
            t->lost += p->missing >> 63;
            p->missing = p->missing << 1 | (p->next < number);
        }
        return;
    }
    uint64_t back = p->next - 1 - number;
    if (back < 64 && (p->missing >> back & 1)) {
        p->missing &= ~(1ull << back);
        t->reordered++;
    } else {
        t->duplicated++;
    }
}

static bool is_whole(const struct pair *p, str body)
{
    size_t at = p->number_at - 9; /* where the body's text starts */
    size_t tail = at + HEAD, n = p->xml_n - at - 17;
    return body.n == n && memcmp(body.p, p->xml + at, 9) == 0 &&
           memcmp(body.p + HEAD, p->xml + tail, n - HEAD) == 0;
}

void pair_take(struct pair *p, struct tally *t, str item, const struct xml_index *x,
               uint64_t now_us)
{
    uint64_t number, sent_us;
    str body = x->nchild ? str_from(item.p + x->child[0].off, x->child[0].len) : STR_NONE;
    if (body.n < 13 || !str_starts(body, STR("<body>"))) {
        t->damaged++;
        return;
    }
    body = str_from(body.p + 6, body.n - 13);
    if (!is_whole(p, body) || !get_hex(body.p + 9, &number) ||
        !get_hex(body.p + 9 + HEX + 1, &sent_us) || number == 0 || number > p->sent) {
        t->damaged++;
        return;
    }
    t->received++;
    take_number(p, t, number);
    tally_count(t, now_us > sent_us ? now_us - sent_us : 0);
}

void pair_end(struct pair *p, struct tally *t)
{
    t->lost += (unsigned)__builtin_popcountll(p->missing) + (p->sent + 1 - p->next);
}
