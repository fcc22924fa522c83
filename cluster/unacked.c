/* unacked: see unacked.h. */
#include "cluster/unacked.h"

#include <stdlib.h>

enum { WINDOW_MIN = 64 };

static struct pend *pend_at(const struct unacked *u, uint64_t number)
{
    return &u->at[number & u->mask];
}

/* ---- late ---- */

static void late_push(struct unacked *u, uint64_t number)
{
    if (u->late_n == u->late_cap) {
        u->late_cap = u->late_cap ? 2 * u->late_cap : 16;
        u->late = realloc(u->late, u->late_cap * sizeof *u->late);
        must(u->late);
    }
    u->late[u->late_n++] = (struct late_pend){number, *pend_at(u, number)};
    u->late_open++;
}

/* The place of the first with that number or a higher one. */
static size_t late_from(const struct unacked *u, uint64_t number)
{
    size_t low = 0, high = u->late_n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (u->late[middle].number < number)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void late_free(struct unacked *u)
{
    free(u->late);
    u->late = NULL;
    u->late_n = u->late_cap = 0;
}

/* Those that are acked go when they are half of all. */
static void late_compact(struct unacked *u)
{
    size_t n = 0;
    if (!u->late_open)
        return late_free(u);
    if (u->late_open * 2 > u->late_n)
        return;
    for (size_t i = 0; i < u->late_n; i++)
        if (!u->late[i].pend.acked)
            u->late[n++] = u->late[i];
    u->late_n = n;
}

/* ---- the window ---- */

static void drop_acked(struct unacked *u)
{
    while (u->base < u->next && pend_at(u, u->base)->acked)
        u->base++;
}

static void move_to_late(struct unacked *u)
{
    for (uint64_t end = u->base + (u->mask + 1) / 2; u->base < end; u->base++) {
        if (pend_at(u, u->base)->acked)
            continue;
        late_push(u, u->base);
        u->open--;
    }
    drop_acked(u);
}

static void grow(struct unacked *u)
{
    size_t cap = u->at ? (u->mask + 1) * 2 : WINDOW_MIN;
    struct pend *bigger = malloc(cap * sizeof *bigger);
    must(bigger);
    for (uint64_t n = u->base; n < u->next; n++)
        bigger[n & (cap - 1)] = *pend_at(u, n);
    free(u->at);
    u->at = bigger, u->mask = cap - 1;
}

static __attribute__((noinline)) void make_room(struct unacked *u)
{
    if (u->at && u->open * 2 <= u->mask)
        move_to_late(u);
    else
        grow(u);
}

uint64_t unacked_push(struct unacked *u, struct pend p)
{
    if (!u->at || u->next - u->base > u->mask)
        make_room(u);
    *pend_at(u, u->next) = p;
    u->open++;
    return u->next++;
}

static struct pend *next_late(const struct unacked *u, uint64_t *number)
{
    for (size_t i = late_from(u, *number); i < u->late_n; i++) {
        if (u->late[i].pend.acked)
            continue;
        *number = u->late[i].number;
        return &u->late[i].pend;
    }
    return NULL;
}

struct pend *unacked_next(const struct unacked *u, uint64_t *number)
{
    if (*number < u->base) {
        struct pend *late = u->late_n ? next_late(u, number) : NULL;
        if (late)
            return late;
        *number = u->base;
    }
    for (; *number < u->next; ++*number)
        if (!pend_at(u, *number)->acked)
            return pend_at(u, *number);
    return NULL;
}

void unacked_ack(struct unacked *u, uint64_t number, struct pend *p)
{
    p->acked = true;
    if (number < u->base) {
        u->late_open--;
        late_compact(u);
    } else {
        u->open--;
        drop_acked(u);
    }
}

/* ---- life ---- */

void unacked_begin(struct unacked *u)
{
    late_free(u);
    u->base = u->next = 1;
    u->open = u->late_open = 0;
}

void unacked_close(struct unacked *u)
{
    free(u->at);
    free(u->late);
    *u = (struct unacked){0};
}
