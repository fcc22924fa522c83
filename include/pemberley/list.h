/* list: an intrusive, circular, doubly linked list. A link that is in no list points to itself, so
 * that list_remove of it is harmless; list_init every link before its first use. */
#ifndef PEMBERLEY_LIST_H
#define PEMBERLEY_LIST_H

#include <stdbool.h>
#include <stddef.h>

#include "pemberley/must.h"

struct list {
    struct list *next, *prev;
};

static inline void list_init(struct list *l) { l->next = l->prev = l; }
static inline bool list_empty(const struct list *l) { return l->next == l; }
static inline void list_insert_between(struct list *l, struct list *prev, struct list *next)
{
    l->prev = prev, l->next = next;
    prev->next = l, next->prev = l;
}
static inline void list_push_back(struct list *head, struct list *l)
{
    list_insert_between(l, head->prev, head);
}
static inline void list_push_front(struct list *head, struct list *l)
{
    list_insert_between(l, head, head->next);
}
static inline void list_remove(struct list *l)
{
    l->prev->next = l->next, l->next->prev = l->prev;
    list_init(l);
}
/* Moves everything of `from` behind what `to` holds. */
static inline void list_append(struct list *to, struct list *from)
{
    if (list_empty(from))
        return;
    from->next->prev = to->prev, to->prev->next = from->next;
    from->prev->next = to, to->prev = from->prev;
    list_init(from);
}

/* A ring is a list without a head, for what is nearly always empty: a pointer to its first link,
 * NULL when it has none. */
static inline void ring_push_back(struct list **ring, struct list *l)
{
    if (*ring)
        list_insert_between(l, (*ring)->prev, *ring);
    else
        list_init(*ring = l);
}
/* l is in this ring. */
static inline void ring_remove(struct list **ring, struct list *l)
{
    if (*ring == l)
        *ring = l->next == l ? NULL : l->next;
    list_remove(l);
}

#define list_entry(link, type, member) container_of(link, type, member)
#define list_first(head, type, member) list_entry((head)->next, type, member)
/* The loop's body may remove `it` (and only `it`). */
#define list_each(it, head, type, member) \
    for (type *it = list_first(head, type, member), \
              *it##_next = list_entry(it->member.next, type, member); \
         &it->member != (head); \
         it = it##_next, it##_next = list_entry(it##_next->member.next, type, member))

#endif
