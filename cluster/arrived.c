/* arrived: see arrived.h. */
#include "cluster/arrived.h"

#include <stdlib.h>

enum state { OPEN, DONE, TOLD };
enum { WINDOW_MIN = 64 };

struct late_state {
    uint64_t number;
    enum state state; /* OPEN, DONE */
};

static uint8_t *state_at(const struct arrived *a, uint64_t number)
{
    return &a->state[number & a->mask];
}

/* ---- late ---- */

static void late_push(struct arrived *a, uint64_t number, enum state state)
{
    if (a->late_n == a->late_cap) {
        a->late_cap = a->late_cap ? 2 * a->late_cap : 16;
        a->late = realloc(a->late, a->late_cap * sizeof *a->late);
        must(a->late);
    }
    a->late[a->late_n++] = (struct late_state){number, state};
    a->late_done += state == DONE;
}

static struct late_state *late_find(const struct arrived *a, uint64_t number)
{
    size_t low = 0, high = a->late_n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (a->late[middle].number < number)
            low = middle + 1;
        else
            high = middle;
    }
    must(low < a->late_n && a->late[low].number == number);
    return &a->late[low];
}

/* Keeps those that are open. */
static void late_keep_open(struct arrived *a)
{
    size_t n = 0;
    for (size_t i = 0; i < a->late_n; i++)
        if (a->late[i].state == OPEN)
            a->late[n++] = a->late[i];
    a->late_n = n, a->late_done = 0;
    if (n)
        return;
    free(a->late);
    a->late = NULL, a->late_cap = 0;
}

static uint64_t first_open_late(const struct arrived *a)
{
    for (size_t i = 0; i < a->late_n; i++)
        if (a->late[i].state == OPEN)
            return a->late[i].number;
    return 0;
}

/* ---- the window ---- */

static void grow(struct arrived *a)
{
    size_t cap = a->state ? (a->mask + 1) * 2 : WINDOW_MIN;
    uint8_t *bigger = malloc(cap);
    must(bigger);
    for (uint64_t n = a->low + 1; n <= a->received; n++)
        bigger[n & (cap - 1)] = *state_at(a, n);
    free(a->state);
    a->state = bigger, a->mask = cap - 1;
}

static void move_to_late(struct arrived *a)
{
    for (uint64_t end = a->low + (a->mask + 1) / 2; a->low < end; a->low++) {
        enum state state = *state_at(a, a->low + 1);
        if (state != TOLD)
            late_push(a, a->low + 1, state);
        a->open -= state == OPEN;
    }
}

static __attribute__((noinline)) void make_room(struct arrived *a)
{
    if (a->state && a->open * 2 <= a->mask)
        move_to_late(a);
    else
        grow(a);
}

void arrived_push(struct arrived *a)
{
    if (!a->state || a->received - a->low > a->mask)
        make_room(a);
    *state_at(a, ++a->received) = OPEN;
    a->open++;
}

void arrived_done(struct arrived *a, uint64_t number)
{
    must(number > a->upto && number <= a->received);
    if (number <= a->low) {
        struct late_state *late = late_find(a, number);
        must(late->state == OPEN);
        late->state = DONE;
        a->late_done++;
        return;
    }
    uint8_t *s = state_at(a, number);
    must(*s == OPEN);
    *s = DONE;
    a->open--;
    bool none = a->due_first > a->due_last;
    if (none || number < a->due_first)
        a->due_first = number;
    if (none || number > a->due_last)
        a->due_last = number;
}

/* ---- telling ---- */

/* All up to `upto` is told by that number. */
static void advance(struct arrived *a)
{
    uint64_t open = a->late_n ? first_open_late(a) : 0;
    if (open) {
        a->upto = open - 1;
        return;
    }
    if (a->late_n)
        late_keep_open(a);
    while (a->low < a->received && *state_at(a, a->low + 1) != OPEN)
        a->low++;
    a->upto = a->low;
}

struct list_of {
    uint64_t *ranges;
    size_t n, max;
};

static bool put(struct list_of *l, uint64_t first, uint64_t last)
{
    if (l->n && l->ranges[l->n - 1] == first - 1) {
        l->ranges[l->n - 1] = last;
        return true;
    }
    if (l->n == l->max)
        return false;
    l->ranges[l->n++] = first, l->ranges[l->n++] = last;
    return true;
}

/* Of the numbers up to low all but the open ones, once more. */
static void tell_all_late(struct arrived *a, struct list_of *l)
{
    if (a->again <= a->upto)
        a->again = a->upto + 1;
    for (size_t i = 0; i < a->late_n; i++) {
        uint64_t open = a->late[i].number;
        if (a->late[i].state != OPEN || open < a->again)
            continue;
        if (open > a->again && !put(l, a->again, open - 1))
            return;
        a->again = open + 1;
    }
    if (a->again <= a->low && !put(l, a->again, a->low))
        return;
    a->again = 0;
    late_keep_open(a);
}

static void tell_late(struct arrived *a, struct list_of *l)
{
    size_t i = 0, n = 0;
    for (; i < a->late_n; i++) {
        if (a->late[i].state == DONE && !put(l, a->late[i].number, a->late[i].number))
            break;
        a->late_done -= a->late[i].state == DONE;
        if (a->late[i].state == OPEN)
            a->late[n++] = a->late[i];
    }
    for (; i < a->late_n; i++)
        a->late[n++] = a->late[i];
    a->late_n = n;
}

static void tell_window(struct arrived *a, struct list_of *l)
{
    uint64_t i = a->due_first > a->low ? a->due_first : a->low + 1;
    for (; i <= a->due_last; i++) {
        if (*state_at(a, i) != DONE)
            continue;
        if (!put(l, i, i))
            break;
        *state_at(a, i) = TOLD;
    }
    a->due_first = i;
}

size_t arrived_tell(struct arrived *a, uint64_t *ranges, size_t max)
{
    struct list_of l = {ranges, 0, max};
    advance(a);
    if (a->again)
        tell_all_late(a, &l);
    else if (a->late_done)
        tell_late(a, &l);
    tell_window(a, &l);
    return l.n;
}

bool arrived_has_more(const struct arrived *a)
{
    return a->again || a->late_done || a->due_first <= a->due_last;
}

void arrived_tell_again(struct arrived *a)
{
    for (uint64_t n = a->low + 1; n <= a->received; n++)
        if (*state_at(a, n) == TOLD)
            *state_at(a, n) = DONE;
    a->due_first = a->low + 1, a->due_last = a->received;
    a->again = a->low > a->upto ? a->upto + 1 : 0;
}

/* ---- life ---- */

void arrived_begin(struct arrived *a)
{
    free(a->late);
    a->late = NULL;
    a->late_n = a->late_done = a->late_cap = 0;
    a->upto = a->low = a->received = a->due_last = a->again = 0;
    a->open = 0;
    a->due_first = 1;
}

void arrived_close(struct arrived *a)
{
    free(a->state);
    free(a->late);
    *a = (struct arrived){0};
}
