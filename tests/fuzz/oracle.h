/* oracle: expat's view of a document, as a tree, and a check that our cursor sees the same. Names
 * are "uri\1local" as expat makes them with that separator, which no document can contain. */
#ifndef PEMBERLEY_TESTS_FUZZ_ORACLE_H
#define PEMBERLEY_TESTS_FUZZ_ORACLE_H

#include <expat.h>
#include <stdio.h>
#include <stdlib.h>

#include "pemberley/arena.h"
#include "proto/xml/tags.h"
#include "proto/xml/xml.h"

struct node {
    str ns, name;
    struct node *up, *first, *last, *next;
    str attr[2 * (XML_ATTRIBUTES_MAX + 1)]; /* name, value */
    size_t nattr;
    char *text;
    size_t text_len, text_cap;
};

struct oracle {
    XML_Parser parser;
    struct arena arena;
    struct node root; /* above the document element */
    struct node *at;
    str default_ns; /* of the document element's own declaration */
};

#define CHECK(x) \
    do { \
        if (!(x)) { \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #x); \
            abort(); \
        } \
    } while (0)

static inline void split_name(str full, str *ns, str *name)
{
    const char *sep = memchr(full.p, 1, full.n);
    *ns = sep ? str_from(full.p, (size_t)(sep - full.p)) : STR("");
    *name = sep ? str_skip(full, ns->n + 1) : full;
}

static inline void on_start(void *data, const char *name, const char **atts)
{
    struct oracle *o = data;
    struct node *n = arena_zalloc(&o->arena, sizeof *n);
    split_name(arena_dup(&o->arena, str_of(name)), &n->ns, &n->name);
    for (; *atts; atts++)
        if (n->nattr < array_len(n->attr))
            n->attr[n->nattr++] = arena_dup(&o->arena, str_of(*atts));
    n->up = o->at;
    if (o->at->last)
        o->at->last->next = n;
    else
        o->at->first = n;
    o->at->last = n;
    o->at = n;
}

static inline void on_end(void *data, const char *name)
{
    struct oracle *o = data;
    o->at = o->at->up;
}

static inline void on_text(void *data, const char *text, int len)
{
    struct oracle *o = data;
    struct node *n = o->at;
    if (n->text_cap - n->text_len < (size_t)len) {
        n->text_cap = n->text_cap * 2 + (size_t)len + 64;
        char *grown = arena_alloc(&o->arena, n->text_cap);
        if (n->text_len)
            memcpy(grown, n->text, n->text_len);
        n->text = grown;
    }
    memcpy(n->text + n->text_len, text, (size_t)len);
    n->text_len += (size_t)len;
}

static inline void on_namespace(void *data, const char *prefix, const char *uri)
{
    struct oracle *o = data;
    if (!prefix && o->at == &o->root)
        o->default_ns = arena_dup(&o->arena, str_of(uri));
}

static inline void oracle_init(struct oracle *o)
{
    memset(o, 0, sizeof *o);
    arena_init(&o->arena);
    o->at = &o->root;
    o->default_ns = STR("");
    o->parser = XML_ParserCreateNS("UTF-8", 1);
    XML_SetUserData(o->parser, o);
    XML_SetElementHandler(o->parser, on_start, on_end);
    XML_SetCharacterDataHandler(o->parser, on_text);
    XML_SetStartNamespaceDeclHandler(o->parser, on_namespace);
}

static inline void oracle_close(struct oracle *o)
{
    XML_ParserFree(o->parser);
    arena_close(&o->arena);
}

static inline bool oracle_feed(struct oracle *o, str bytes, bool final)
{
    return XML_Parse(o->parser, bytes.p, (int)bytes.n, final) == XML_STATUS_OK;
}

static inline size_t count_attrs(const struct xml_el *el)
{
    struct tag t = tag_read(el->start);
    struct tag_attr attr;
    str prefix;
    size_t n = 0;
    for (const char *at = tag_attrs(&t); tag_attr_next(&t, &at, &attr);)
        n += !tag_attr_declares(&attr, &prefix);
    return n;
}

static inline void check_same(const struct node *n, const struct xml_el *el, struct arena *a)
{
    CHECK(str_eq(n->name, el->name));
    CHECK(str_eq(n->ns, el->ns));
    CHECK(n->nattr == 2 * count_attrs(el));
    for (size_t i = 0; i < n->nattr; i += 2) {
        str ns, name;
        split_name(n->attr[i], &ns, &name);
        const char *local = arena_dup(a, name).p;
        str value = ns.n ? xml_attr_ns(el, arena_dup(a, ns).p, local, a) : xml_attr(el, local, a);
        CHECK(value.p && str_eq(value, n->attr[i + 1]));
    }
    CHECK(str_eq(str_from(n->text, n->text_len), xml_text(el, a)));
    struct xml_el child;
    bool more = xml_first(el, &child, a);
    for (const struct node *c = n->first; c; c = c->next) {
        CHECK(more);
        check_same(c, &child, a);
        more = xml_next(el, &child, a);
    }
    CHECK(!more);
}

#endif
