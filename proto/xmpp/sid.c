#include "proto/xmpp/sid.h"

#define OPEN "<stanza-id xmlns='"
#define NS "urn:xmpp:sid:0"

static bool may_have(const struct stanza *s)
{
    if (s->index.children != s->index.nchild)
        return true;
    for (unsigned i = 0; i < s->index.nchild; i++)
        if (s->index.child[i].ns == NS_SID)
            return true;
    return false;
}

static bool is_by(const struct xml_el *el, str bare, struct arena *a)
{
    struct jid j;
    if (!xml_is(el, NS, "stanza-id"))
        return false;
    str by = xml_attr(el, "by", a);
    return by.n && jid_prepare(by, a, &j) == ERR_OK && str_eq(j.full, bare);
}

/* Cuts of those by this bare JID. */
static struct xml_edit *cuts_of(const struct stanza *s, str by, struct arena *a, size_t *n)
{
    struct xml_edit *cuts = NULL;
    struct xml_el root, el;
    *n = 0;
    if (!may_have(s))
        return NULL;
    root = stanza_root(s, a);
    for (bool more = xml_first(&root, &el, a); more; more = xml_next(&root, &el, a)) {
        if (!is_by(&el, by, a))
            continue;
        if (!cuts)
            cuts = arena_alloc(a, s->index.children * sizeof *cuts);
        cuts[(*n)++] =
            (struct xml_edit){(uint32_t)(el.all.p - stanza_xml(s).p), (uint32_t)el.all.n, STR_NONE};
    }
    return cuts;
}

static str element(str by, str id, struct arena *a)
{
    return arena_concat(
        a, (str[]){STR(OPEN NS "'"), xml_attr_text("by", by, a), STR(" id='"), id, STR("'/>")}, 5);
}

static str without(const struct stanza *s, const struct xml_edit *cuts, size_t n, struct arena *a)
{
    str xml = stanza_xml(s);
    if (!n)
        return xml;
    char *out = arena_alloc(a, xml_splice_size(xml.n, cuts, n));
    xml_splice(xml, cuts, n, out);
    return str_from(out, xml_splice_size(xml.n, cuts, n));
}

struct stanza *sid_put(const struct stanza *s, str by, str id, struct arena *a, str *kept)
{
    size_t n;
    struct xml_edit *cuts = cuts_of(s, by, a, &n);
    if (kept)
        *kept = without(s, cuts, n, a);
    if (!id.n && !n)
        return NULL;
    struct xml_child child = {.name_off = 1,
                              .name_len = sizeof "stanza-id" - 1,
                              .ns = NS_SID,
                              .ns_uri = {sizeof OPEN - 1, sizeof NS - 1}};
    return stanza_with_last(s, cuts, n, id.n ? element(by, id, a) : STR_NONE, &child, a);
}

str sid_find(const struct stanza *s, str by, struct arena *a)
{
    struct xml_el root, el;
    if (!may_have(s))
        return STR_NONE;
    root = stanza_root(s, a);
    for (bool more = xml_first(&root, &el, a); more; more = xml_next(&root, &el, a))
        if (is_by(&el, by, a))
            return xml_attr(&el, "id", a);
    return STR_NONE;
}

str sid_into(str xml, str by, str id, struct arena *a)
{
    size_t end = xml.n;
    while (end > 0 && xml.p[--end] != '<')
        ;
    return arena_concat(a, (str[]){str_from(xml.p, end), element(by, id, a), str_skip(xml, end)},
                        3);
}
