/* fuzz_output: what we send parses with expat to what we meant. The input drives a generator that
 * writes a stanza with the writer and notes the tree it means; then come the edits that a stanza
 * gets on its way (from, to, xml:lang, the header's prefixes), both header styles, the stanza
 * inside another element, and parts of it standing alone. */
#include "pemberley/must.h"
#include "tests/fuzz/oracle.h"

struct gen {
    const uint8_t *p, *end; /* what drives it */
    struct arena *a;
    struct xml_writer w;
    unsigned elements;
};

static unsigned draw(struct gen *g, unsigned below) { return g->p < g->end ? *g->p++ % below : 0; }

/* A text of all sorts of characters as bytes to give to the writer, and what it means. */
static str draw_text(struct gen *g, str *meant)
{
    static const struct {
        const char *bytes;
        bool kept;
    } pieces[] = {
        {"a", true},
        {"plain text, longer than one vector is", true},
        {"<", true},
        {"&", true},
        {">", true},
        {"'", true},
        {"\"", true},
        {"\n", true},
        {"\t", true},
        {"\r", true},
        {"\r\n", true},
        {"]]>", true},
        {"&amp;", true},
        {"\xc3\xa9", true},
        {"\xe2\x82\xac", true},
        {"\xf0\x9f\x98\x80", true},
        {"\xef\xbb\xbf", true},
        {" ", true},
        {"\x01", false},
        {"\xff", false},
        {"\x80", false},
        {"\xed\xa0\x80", false},
        {"\xef\xbf\xbf", false},
        {"\x1f", false},
        {"\xc0\x80", false},
    };
    str given[8], kept[8];
    size_t n = draw(g, 8), m = 0;
    for (size_t i = 0; i < n; i++) {
        unsigned k = draw(g, array_len(pieces));
        given[i] = str_of(pieces[k].bytes);
        if (pieces[k].kept)
            kept[m++] = given[i];
    }
    *meant = arena_concat(g->a, kept, m);
    return arena_concat(g->a, given, n);
}

/* Prefixes and default namespace in force while generating. */
struct scope {
    str ns, p, q; /* "": not declared */
};

static void add_attr(struct node *n, str name, str value)
{
    n->attr[n->nattr++] = name;
    n->attr[n->nattr++] = value;
}

static void draw_attr(struct gen *g, struct node *n, const char *name, str full)
{
    str meant, text = draw_text(g, &meant);
    xml_put_attr(&g->w, name, text);
    add_attr(n, full, meant);
}

static str expanded(struct gen *g, str ns, const char *local)
{
    const str parts[] = {ns, STR("\1"), str_of(local)};
    return arena_concat(g->a, parts, 3);
}

static void draw_declarations(struct gen *g, struct scope *s)
{
    static const char *const uris[] = {"urn:x", "urn:'&<\">", "jabber:client", "urn:y"};
    if (draw(g, 3) == 1)
        xml_put_attr(&g->w, "xmlns:p", s->p = str_of(uris[draw(g, 4)]));
    if (draw(g, 3) == 1)
        xml_put_attr(&g->w, "xmlns:q", s->q = str_of(uris[draw(g, 4)]));
}

static void draw_attrs(struct gen *g, struct node *n, const struct scope *s)
{
    if (draw(g, 2))
        draw_attr(g, n, "to", STR("to"));
    if (draw(g, 2))
        draw_attr(g, n, "from", STR("from"));
    if (draw(g, 3) == 1)
        draw_attr(g, n, "xml:lang", STR("http://www.w3.org/XML/1998/namespace\1lang"));
    if (draw(g, 3) == 1)
        draw_attr(g, n, "id", STR("id"));
    if (s->p.n && draw(g, 2))
        draw_attr(g, n, "p:a", expanded(g, s->p, "a"));
}

static void append_text(struct gen *g, struct node *n, str text)
{
    const str parts[] = {str_from(n->text, n->text_len), text};
    str whole = arena_concat(g->a, parts, 2);
    n->text = (char *)whole.p, n->text_len = whole.n;
}

static struct node *draw_element(struct gen *g, struct scope s, unsigned depth);

static void draw_content(struct gen *g, struct node *n, const struct scope *s, unsigned depth)
{
    for (unsigned parts = draw(g, 5); parts > 0 && g->elements < 60; parts--) {
        str meant;
        if (depth == 4 || draw(g, 3) == 1) {
            str text = draw_text(g, &meant);
            xml_put_text(&g->w, text);
            append_text(g, n, meant);
            continue;
        }
        struct node *child = draw_element(g, *s, depth + 1);
        if (n->last)
            n->last->next = child;
        else
            n->first = child;
        n->last = child;
    }
}

static struct node *draw_element(struct gen *g, struct scope s, unsigned depth)
{
    static const char *const own[] = {"urn:x", "jabber:client", "urn:<'&", ""};
    struct node *n = arena_zalloc(g->a, sizeof *n);
    unsigned kind = depth == 0 ? 0 : draw(g, 4);
    bool p = kind == 2 && s.p.n, q = kind == 3 && s.q.n;
    const char *name = depth == 0 ? "message" : p ? "p:el" : q ? "q:el" : "el";
    g->elements++;
    xml_open(&g->w, name);
    n->name = depth == 0 ? STR("message") : STR("el");
    n->ns = p ? s.p : q ? s.q : STR("");
    if (kind == 1 || (depth == 0 && draw(g, 2)))
        xml_put_attr(&g->w, "xmlns", s.ns = str_of(depth == 0 ? "jabber:client" : own[draw(g, 4)]));
    if (!p && !q) { /* a prefix's own name was chosen in the scope outside */
        n->ns = s.ns;
        draw_declarations(g, &s);
    }
    draw_attrs(g, n, &s);
    draw_content(g, n, &s, depth);
    xml_close(&g->w, name);
    return n;
}

/* ---- comparing two trees; the order of attributes does not count ---- */

static const str *find_attr(const struct node *n, str name)
{
    for (size_t i = 0; i < n->nattr; i += 2)
        if (str_eq(n->attr[i], name))
            return &n->attr[i + 1];
    return NULL;
}

static void check_equal(const struct node *meant, const struct node *got)
{
    CHECK(got && str_eq(meant->name, got->name) && str_eq(meant->ns, got->ns));
    CHECK(meant->nattr == got->nattr);
    for (size_t i = 0; i < meant->nattr; i += 2) {
        const str *value = find_attr(got, meant->attr[i]);
        CHECK(value && str_eq(*value, meant->attr[i + 1]));
    }
    CHECK(str_eq(str_from(meant->text, meant->text_len), str_from(got->text, got->text_len)));
    const struct node *g = got->first;
    for (const struct node *m = meant->first; m; m = m->next, g = g->next)
        check_equal(m, g);
    CHECK(!g);
}

/* Parses open + xml + close; the tree is to be below the outermost element, or it. */
static void check_parses(const char *open, str xml, const char *close, const struct node *meant)
{
    struct oracle o;
    oracle_init(&o);
    CHECK(oracle_feed(&o, str_of(open), false));
    CHECK(oracle_feed(&o, xml, false));
    CHECK(oracle_feed(&o, str_of(close), true));
    check_equal(meant, *open ? o.root.first->first : o.root.first);
    oracle_close(&o);
}

/* ---- the stanza's way ---- */

static const struct {
    const char *open, *close;
} headers[2] = {
    {"<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' "
     "xmlns:p='urn:header' xmlns:q=\"urn:it's\">",
     "</stream:stream>"},
    {"<stream xmlns='http://etherx.jabber.org/streams' xmlns:p='urn:&lt;' xmlns:q='urn:q'>",
     "</stream>"},
};
static const struct scope header_scope[2] = {
    {.ns = {"jabber:client", 13}, .p = {"urn:header", 10}, .q = {"urn:it's", 8}},
    {.ns = {"http://etherx.jabber.org/streams", 32}, .p = {"urn:<", 5}, .q = {"urn:q", 5}},
};
static const struct xml_limits limits = {
    .bytes_max = 1 << 24,
    .depth_max = 64,
    .attributes_max = 64,
    .namespaces_max = 32,
    .name_max = 1024,
    .elements_max = 4096,
    .whitespace_max = 1024,
};

static void scan(struct xml_scan *s, const struct xml_header *h, str bytes, enum xml_expect expect,
                 struct xml_index *x)
{
    enum xml_item what;
    size_t used;
    const struct xml_index *found;
    xml_scan_begin(s, &limits, h);
    CHECK(xml_scan(s, bytes, expect, &what, &used, &found) == ERR_OK && used == bytes.n);
    *x = *found;
}

/* An attribute is replaced: cut out where it was, and put in behind the name. */
static void replace_attr(struct node *n, str name, str value)
{
    for (size_t i = 0; i < n->nattr; i += 2)
        if (str_eq(n->attr[i], name)) {
            n->attr[i + 1] = value;
            return;
        }
    add_attr(n, name, value);
}

/* `from` is always stamped, `to` sometimes, xml:lang when it is missing, prefixes when used. */
static str edit(struct gen *g, str xml, struct xml_index *x, const struct xml_header *h,
                struct node *meant)
{
    str meant_from, from = draw_text(g, &meant_from), put[4];
    struct xml_edit e[3];
    size_t n = 1, puts = 0;
    bool new_to = draw(g, 2);
    put[puts++] = xml_attr_text("from", from, g->a);
    if (new_to)
        put[puts++] = xml_attr_text("to", STR("j@e.org"), g->a);
    if (x->lang.off == 0)
        put[puts++] = xml_attr_text("xml:lang", STR("en"), g->a);
    put[puts++] = xml_header_declarations(h, x, g->a);
    struct xml_span cut[2] = {x->from_attr, new_to ? x->to_attr : (struct xml_span){0}};
    if (cut[1].off && (!cut[0].off || cut[1].off < cut[0].off)) {
        struct xml_span held = cut[0];
        cut[0] = cut[1], cut[1] = held;
    }
    e[0] = (struct xml_edit){x->splice, 0, arena_concat(g->a, put, puts)};
    for (size_t i = 0; i < 2; i++)
        if (cut[i].off)
            e[n++] = (struct xml_edit){cut[i].off, cut[i].len, STR("")};
    char *out = arena_alloc(g->a, xml_splice_size(xml.n, e, n));
    xml_splice(xml, e, n, out);
    str edited = str_from(out, xml_splice_size(xml.n, e, n));
    xml_index_splice(x, e, n);
    if (x->lang.off == 0)
        replace_attr(meant, STR("http://www.w3.org/XML/1998/namespace\1lang"), STR("en"));
    replace_attr(meant, STR("from"), meant_from);
    if (new_to)
        replace_attr(meant, STR("to"), STR("j@e.org"));
    CHECK(x->from.off == 0 && (!new_to || x->to.off == 0));
    return edited;
}

/* The index that was moved, against that of a scan of the edited bytes. */
static void check_moved(const struct xml_index *moved, const struct xml_index *fresh)
{
    CHECK(moved->len == fresh->len && moved->name_off == fresh->name_off);
    CHECK(moved->open_len == fresh->open_len && moved->splice == fresh->splice);
    CHECK(moved->id.off == fresh->id.off && moved->id.len == fresh->id.len);
    CHECK(!moved->to.off || (moved->to.off == fresh->to.off && moved->to.len == fresh->to.len));
    CHECK(moved->nchild == fresh->nchild && moved->children == fresh->children);
    for (unsigned i = 0; i < moved->nchild; i++) {
        const struct xml_child *m = &moved->child[i], *f = &fresh->child[i];
        CHECK(m->off == f->off && m->len == f->len && m->name_off == f->name_off);
        CHECK(m->ns_uri.off == 0 ||
              (m->ns_uri.off == f->ns_uri.off && m->ns_uri.len == f->ns_uri.len));
    }
}

/* Some element of the stanza as it can stand anywhere. */
static void check_standalone(struct gen *g, str xml, str default_ns, const struct node *meant)
{
    struct xml_el el = xml_root(xml, default_ns, g->a), child;
    check_same(meant, &el, g->a);
    while (meant->first && draw(g, 3)) {
        CHECK(xml_first(&el, &child, g->a));
        for (meant = meant->first; meant->next && draw(g, 2); meant = meant->next)
            CHECK(xml_next(&el, &child, g->a));
        el = child;
    }
    check_parses("<x xmlns='jabber:client'>", xml_standalone(&el, STR("jabber:client"), g->a),
                 "</x>", meant);
}

static void travel(struct gen *g, struct xml_scan *s, unsigned style)
{
    struct xml_index header_index, x, fresh;
    struct xml_header h;
    str open = str_of(headers[style].open);
    scan(s, NULL, open, XML_EXPECT_START, &header_index);
    CHECK(xml_header_read(s, open, &h) == ERR_OK);
    struct node *meant = draw_element(g, header_scope[style], 0);
    str xml = xml_written(&g->w);
    check_parses(headers[style].open, xml, headers[style].close, meant);
    scan(s, &h, xml, XML_EXPECT_ELEMENT, &x);
    str edited = edit(g, xml, &x, &h, meant);
    scan(s, NULL, edited, XML_EXPECT_ELEMENT, &fresh);
    check_moved(&x, &fresh);
    str whole = xml_with_default_ns(edited, xml_ns_uri(h.default_ns).p, g->a);
    check_parses(headers[1 - style].open, whole, headers[1 - style].close, meant);
    check_parses("", whole, "", meant);
    check_standalone(g, edited, xml_ns_uri(h.default_ns), meant);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct arena a;
    arena_init(&a);
    struct gen g = {.p = data, .end = data + n, .a = &a};
    struct xml_scan *s = xml_scan_new();
    xml_writer_init(&g.w, &a);
    travel(&g, s, draw(&g, 2));
    xml_scan_free(s);
    arena_close(&a);
    return 0;
}
