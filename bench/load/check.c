/* check: see check.h. */
#include "bench/load/check.h"

#include <stdio.h>
#include <stdlib.h>

#include "pemberley/must.h"

/* RRRRRRRR SSSSSSSS NNNNNNNNNNNNNNNN TTTTTTTTTTTTTTTT padding, hexadecimal */
enum {
    RUN = 8,
    SENDER = RUN + 1 + 8,
    HEX = 16,
    NUMBER_AT = SENDER + 1,
    TIME_AT = NUMBER_AT + HEX + 1,
    MARK = TIME_AT + HEX + 1,
};

void faults_add(struct faults *f, const struct faults *more)
{
    f->lost += more->lost;
    f->duplicated += more->duplicated;
    f->reordered += more->reordered;
    f->damaged += more->damaged;
    f->stale += more->stale;
}

/* ---- marks ----------------------------------------------------------------------------------- */

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

void form_init(struct form *f, str head, str tail, uint32_t run, uint32_t sender, size_t bytes)
{
    size_t least = head.n + MARK + tail.n;
    size_t padding = bytes > least ? bytes - least : 0;
    f->xml_n = least + padding;
    f->text = head.n, f->text_n = MARK + padding;
    f->xml = malloc(f->xml_n + 1);
    must(f->xml);
    memcpy(f->xml, head.p, head.n);
    sprintf(f->xml + head.n, "%08x %08x %016x %016x ", run, sender, 0, 0);
    for (size_t i = 0; i < padding; i++)
        f->xml[head.n + MARK + i] = (char)('a' + i % 26);
    memcpy(f->xml + f->xml_n - tail.n, tail.p, tail.n);
}

void form_free(struct form *f)
{
    free(f->xml);
    *f = (struct form){.xml = NULL};
}

str form_fill(struct form *f, uint64_t number, uint64_t time_us)
{
    put_hex(f->xml + f->text + NUMBER_AT, number);
    put_hex(f->xml + f->text + TIME_AT, time_us);
    return str_from(f->xml, f->xml_n);
}

enum verdict form_read(const struct form *f, str text, struct mark *out)
{
    const char *own = f->xml + f->text;
    if (text.n < MARK)
        return MARK_DAMAGED;
    if (memcmp(text.p, own, RUN) != 0)
        return MARK_STALE;
    if (text.n != f->text_n || memcmp(text.p, own, NUMBER_AT) != 0 || text.p[TIME_AT - 1] != ' ' ||
        text.p[MARK - 1] != ' ' || memcmp(text.p + MARK, own + MARK, text.n - MARK) != 0 ||
        !get_hex(text.p + NUMBER_AT, &out->number) || !get_hex(text.p + TIME_AT, &out->time_us))
        return MARK_DAMAGED;
    return MARK_WHOLE;
}

/* ---- numbers --------------------------------------------------------------------------------- */

static void advance(struct sequence *s, uint64_t number, struct faults *f)
{
    if (number - s->newest > 65) { /* more than can be remembered */
        f->lost += (unsigned)__builtin_popcountll(s->missing) + (number - 65 - s->newest);
        s->newest = number - 65, s->missing = 0;
    }
    for (; s->newest < number; s->newest++) {
        f->lost += s->missing >> 63;
        s->missing = s->missing << 1 | (s->newest + 1 < number);
    }
}

void sequence_take(struct sequence *s, uint64_t number, struct faults *f)
{
    if (number > s->newest) {
        advance(s, number, f);
        return;
    }
    uint64_t back = s->newest - number;
    if (back < 64 && (s->missing >> back & 1)) {
        s->missing &= ~(1ull << back);
        f->reordered++;
    } else {
        f->duplicated++;
    }
}

void sequence_end(struct sequence *s, uint64_t sent, struct faults *f)
{
    f->lost += (unsigned)__builtin_popcountll(s->missing);
    if (sent > s->newest)
        f->lost += sent - s->newest;
    *s = (struct sequence){.newest = sent};
}
