/* fuzz_scan: the scanner against expat. What we accept, expat accepts with the same tree; what
 * expat rejects, we reject; what we alone reject is one of the restrictions that xml.h lists. And
 * however the bytes are cut into receives, the verdict is the same.
 *
 * Input: one byte of mode, one byte that seeds the cuts, then the document. */
#include "pemberley/must.h"
#include "tests/fuzz/oracle.h"

enum mode { PREFIXED, UNPREFIXED, ALONE, WHOLE, MODES };
static const char *const headers[MODES] = {
    [PREFIXED] = ("<stream:stream xmlns='jabber:client' version='1.0' xmlns:p='urn:p' "
                  "xmlns:stream='http://etherx.jabber.org/streams' xmlns:q='urn:&#113;'>"),
    [UNPREFIXED] = ("<stream xmlns='http://etherx.jabber.org/streams' xmlns:p='urn:p' "
                    "xmlns:c='jabber:client'>"),
    [ALONE] = "",
    [WHOLE] = "",
};
static const struct xml_limits wide = {
    .bytes_max = 1 << 20,
    .depth_max = 64,
    .attributes_max = 64,
    .namespaces_max = 32,
    .name_max = 1024,
    .elements_max = 4096,
    .whitespace_max = 60000,
};
static const struct xml_limits tight = {
    .bytes_max = 60,
    .depth_max = 3,
    .attributes_max = 2,
    .namespaces_max = 2,
    .name_max = 7,
    .elements_max = 4,
    .whitespace_max = 5,
};

/* One scan of all items: what came out of it. */
struct item {
    enum xml_item what;
    size_t off, len;
    struct xml_index index;
};
struct run {
    struct item item[64];
    size_t n;
    err verdict; /* ERR_OK: everything was used; ERR_PARTIAL; or an error */
    size_t off;  /* of the item that is not complete, or bad */
    bool closed;
    bool full; /* there was one item more */
    struct xml_header header;
    bool has_header;
};

static uint32_t next_random(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 16;
}

/* Whitespace may be reported in pieces: so a run is full when another item comes, not before. */
static void add_item(struct run *r, enum xml_item what, size_t off, size_t len,
                     const struct xml_index *x)
{
    struct item *last = r->n ? &r->item[r->n - 1] : NULL;
    if (what == XML_WHITESPACE && last && last->what == XML_WHITESPACE) {
        last->len += len;
        return;
    }
    r->full = r->n == array_len(r->item);
    if (r->full)
        return;
    struct item *i = &r->item[r->n++];
    *i = (struct item){.what = what, .off = off, .len = len};
    if (what == XML_ELEMENT)
        memcpy(&i->index, x, xml_index_size(x));
}

static enum xml_expect expected(const struct run *r, enum mode mode)
{
    if (mode != WHOLE || r->has_header)
        return XML_EXPECT_ELEMENT;
    return r->n == 0 ? XML_EXPECT_START : XML_EXPECT_HEADER;
}

/* Scans data[off…] as far as `have`, which grows by `cut` (0: all at once); between two receives
 * the bytes and the state move. */
struct feed {
    str data;
    enum mode mode;
    const struct xml_limits *limits;
    uint32_t seed;
    bool cuts;
};

static err scan_piece(const struct feed *f, struct run *r, void **saved, size_t have,
                      enum xml_item *what, size_t *used, struct xml_scan *s)
{
    const struct xml_header *h = r->has_header ? &r->header : NULL;
    const struct xml_index *x;
    size_t n = have - r->off;
    char *block = malloc(n ? n : 1);
    CHECK(block);
    if (n)
        memcpy(block, f->data.p + r->off, n);
    if (*saved)
        xml_scan_restore(s, *saved, f->limits, h);
    else
        xml_scan_begin(s, f->limits, h);
    free(*saved);
    *saved = NULL;
    err e = xml_scan(s, str_from(block, n), expected(r, f->mode), what, used, &x);
    if (e == ERR_PARTIAL) {
        *saved = malloc(xml_scan_save_size(s));
        xml_scan_save(s, *saved);
    } else if (e == ERR_OK && *what == XML_HEADER) {
        e = xml_header_read(s, str_from(block, n), &r->header);
        r->has_header = e == ERR_OK;
    }
    if (e == ERR_OK && *what != XML_NONE)
        add_item(r, *what, r->off, *used, x);
    free(block);
    return e;
}

static void scan_all(struct feed *f, struct run *r)
{
    struct xml_scan *s = xml_scan_new();
    void *saved = NULL;
    size_t have = 0;
    for (;;) {
        enum xml_item what;
        size_t used;
        if (have < f->data.n && (r->verdict == ERR_PARTIAL || have == r->off)) {
            size_t more = f->cuts ? 1 + next_random(&f->seed) % 7 : f->data.n;
            have = have + more < f->data.n ? have + more : f->data.n;
        }
        r->verdict = scan_piece(f, r, &saved, have, &what, &used, s);
        if (r->full)
            break;
        if (r->verdict == ERR_OK)
            r->off += used;
        if (r->verdict == ERR_PARTIAL && have < f->data.n)
            continue;
        r->closed = r->verdict == ERR_OK && what == XML_CLOSE;
        bool alone = f->mode == ALONE && r->verdict == ERR_OK && what == XML_ELEMENT;
        if (r->verdict != ERR_OK || r->closed || alone || (what == XML_NONE && have == f->data.n))
            break;
    }
    free(saved);
    xml_scan_free(s);
}

static void check_runs_agree(const struct run *a, const struct run *b)
{
    if (a->verdict == ERR_STREAM_WHITESPACE_FLOOD) /* between receives its caller counts */
        return;
    CHECK(a->verdict == b->verdict && a->n == b->n && a->off == b->off && a->closed == b->closed);
    for (size_t i = 0; i < a->n; i++) {
        const struct item *x = &a->item[i], *y = &b->item[i];
        CHECK(x->what == y->what && x->off == y->off && x->len == y->len);
        CHECK(x->what != XML_ELEMENT ||
              memcmp(&x->index, &y->index, xml_index_size(&x->index)) == 0);
    }
}

/* ---- against expat ---- */

static void check_span(str item, struct xml_span s, str expect, struct arena *a)
{
    CHECK((s.off != 0) == (expect.p != NULL));
    CHECK(s.off == 0 || str_eq(xml_unescape(str_from(item.p + s.off, s.len), true, a), expect));
}

/* The index against what the cursor, already compared with expat, sees. */
static void check_index(const struct xml_index *x, str item, const struct xml_el *el,
                        struct arena *a)
{
    CHECK(x->len == item.n && str_eq(el->name, str_from(item.p + x->name_off, x->name_len)));
    CHECK(x->ns == NS_OTHER || str_eq(xml_ns_uri(x->ns), el->ns));
    CHECK(x->ns != NS_OTHER || xml_ns_find(el->ns) == NS_OTHER);
    check_span(item, x->to, xml_attr(el, "to", a), a);
    check_span(item, x->from, xml_attr(el, "from", a), a);
    check_span(item, x->id, xml_attr(el, "id", a), a);
    check_span(item, x->type, xml_attr(el, "type", a), a);
    check_span(item, x->lang, xml_attr(el, "xml:lang", a), a);
    CHECK(item.p[x->open_len - 1] == '>');
    struct xml_el child;
    bool more = xml_first(el, &child, a);
    for (unsigned i = 0; i < x->children; i++, more = xml_next(el, &child, a)) {
        CHECK(more);
        if (i >= x->nchild)
            continue;
        const struct xml_child *c = &x->child[i];
        CHECK(str_eq(str_from(item.p + c->name_off, c->name_len), child.name));
        CHECK(child.all.n == c->len);
        CHECK(str_eq(child.all, str_from(item.p + c->off, c->len)));
        CHECK(c->ns == NS_OTHER ? xml_ns_find(child.ns) == NS_OTHER
                                : str_eq(xml_ns_uri(c->ns), child.ns));
    }
    CHECK(!more);
}

/* The item with the header's declarations on it is what the rest of the house walks through. */
static void check_item(const struct run *r, const struct item *i, str data, const struct node *n,
                       str default_ns)
{
    struct arena a;
    arena_init(&a);
    str raw = str_from(data.p + i->off, i->len);
    str add = r->has_header ? xml_header_declarations(&r->header, &i->index, &a) : STR("");
    const struct xml_edit e = {i->index.splice, 0, add};
    str item = str_from(arena_alloc(&a, raw.n + add.n), xml_splice_size(raw.n, &e, 1));
    xml_splice(raw, &e, 1, (char *)item.p);
    struct xml_index x = i->index;
    xml_index_splice(&x, &e, 1);
    struct xml_el el = xml_root(item, default_ns, &a);
    check_same(n, &el, &a);
    check_index(&x, item, &el, &a);
    arena_close(&a);
}

static void check_tree(const struct run *r, const struct feed *f, const struct oracle *o)
{
    const struct node *n = f->mode == ALONE ? o->root.first : o->root.first->first;
    for (size_t i = 0; i < r->n; i++) {
        if (r->item[i].what != XML_ELEMENT)
            continue;
        CHECK(n);
        check_item(r, &r->item[i], f->data, n, f->mode == ALONE ? STR("") : o->default_ns);
        n = n->next;
    }
    CHECK(!n);
}

static bool contains(str s, const char *what) { return memmem(s.p, s.n, what, strlen(what)); }

/* What we reject for a reason of ours. */
static bool is_restriction(const struct run *r, const struct feed *f)
{
    str rest = str_skip(f->data, r->off);
    switch (r->verdict) {
    case ERR_STREAM_RESTRICTED_XML:
        CHECK(contains(rest, "<?") || contains(rest, "<!") || contains(rest, "&"));
        return true;
    case ERR_STREAM_BAD_FORMAT:
        CHECK(rest.p[0] != '<' || str_starts(rest, STR("<![")) || contains(rest, "/>") ||
              (r->has_header && contains(rest, "stream")));
        return true;
    case ERR_STREAM_NOT_WELL_FORMED:
        return str_starts(rest, STR("\xef\xbb\xbf")) ||
               (r->off == 0 && f->mode == WHOLE && str_starts(rest, STR("<?xml")));
    default: return true; /* a limit */
    }
}

static void compare(const struct run *r, const struct feed *f)
{
    struct oracle o;
    oracle_init(&o);
    str used = str_from(f->data.p, r->off);
    bool ok = oracle_feed(&o, str_of(headers[f->mode]), false);
    CHECK(ok || f->mode >= ALONE);
    if (r->verdict == ERR_OK) {
        bool open = f->mode != ALONE && r->has_header && !r->closed;
        char end[80];
        snprintf(end, sizeof end, "</%.*s>", r->header.name_len, r->header.name);
        bool none = f->mode >= ALONE && (r->n == 0 || r->item[r->n - 1].what <= XML_DECLARATION ||
                                         o.root.first == NULL);
        ok = oracle_feed(&o, used, false) && oracle_feed(&o, open ? str_of(end) : STR(""), false);
        CHECK(ok);
        none = none && o.root.first == NULL;
        CHECK(none || oracle_feed(&o, STR(""), true));
        if (!none)
            check_tree(r, f, &o);
    } else if (r->verdict == ERR_PARTIAL) {
        CHECK(oracle_feed(&o, f->data, false));
    } else if (!is_restriction(r, f)) {
        char end[80] = "";
        if (r->has_header)
            snprintf(end, sizeof end, "</%.*s>", r->header.name_len, r->header.name);
        CHECK(!oracle_feed(&o, f->data, false) || !oracle_feed(&o, str_of(end), true));
    }
    oracle_close(&o);
}

/* The header of the modes that have a fixed one. */
static void read_header(struct run *r, enum mode mode)
{
    str bytes = str_of(headers[mode]);
    if (bytes.n == 0)
        return;
    struct xml_scan *s = xml_scan_new();
    enum xml_item what;
    size_t used;
    const struct xml_index *x;
    xml_scan_begin(s, &wide, NULL);
    CHECK(xml_scan(s, bytes, XML_EXPECT_START, &what, &used, &x) == ERR_OK);
    CHECK(what == XML_HEADER && used == bytes.n);
    CHECK(xml_header_read(s, bytes, &r->header) == ERR_OK);
    r->has_header = true;
    xml_scan_free(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static struct run whole, cut;
    if (n < 2)
        return 0;
    struct feed f = {
        .data = str_from(data + 2, n - 2),
        .mode = data[0] % MODES,
        .limits = data[0] & 0x80 ? &tight : &wide,
        .seed = data[1],
    };
    memset(&whole, 0, sizeof whole);
    memset(&cut, 0, sizeof cut);
    read_header(&whole, f.mode);
    read_header(&cut, f.mode);
    scan_all(&f, &whole);
    f.cuts = true;
    scan_all(&f, &cut);
    check_runs_agree(&whole, &cut);
    compare(&whole, &f);
    return 0;
}

/* ---- mutation: the grammar's pieces, so that inputs stay close to well-formed ---- */

static const char *const words[] = {
    "<a>",
    "</a>",
    "<a/>",
    "<a b='c'/>",
    "<p:a p:b='c'>",
    "</p:a>",
    "<q:a/>",
    " xmlns='urn:x'",
    " xmlns:p='urn:p'",
    " xmlns:r='urn:p'",
    " xmlns:p=''",
    " xmlns=''",
    " p:x='1'",
    " r:x='2'",
    " x='1'",
    " xml:lang='en'",
    " xmlns:xml='http://www.w3.org/XML/1998/namespace'",
    " xmlns:xml='urn:x'",
    " xmlns:y='http://www.w3.org/XML/1998/namespace'",
    " xmlns:xmlns='urn:x'",
    " xmlns='http://www.w3.org/2000/xmlns/'",
    " xmlns:r='urn&#58;p'",
    "xmlns",
    "xml",
    ":",
    "&amp;",
    "&lt;",
    "&#x41;",
    "&#0;",
    "&#xD800;",
    "&#xFFFE;",
    "&#x10FFFF;",
    "&#x110000;",
    "&nbsp;",
    "&",
    "]]>",
    "]]",
    "<![CDATA[",
    "<![CDATA[x]]>",
    "<!--",
    "-->",
    "<?x y?>",
    "<!DOCTYPE a>",
    "<?xml version='1.0'?>",
    "<?xml version=\"1.0\" encoding='UTF-8' standalone='yes'?>",
    "<message to='a' from='b' id='c' type='d'>",
    "<body>",
    "</body>",
    "</message>",
    "\r\n",
    "\t",
    "\xc3\xa9",
    "\xe2\x82\xac",
    "\xf0\x9f\x98\x80",
    "\xef\xbf\xbe",
    "\xed\xa0\x80",
    "\xc0\x80",
    "\xef\xbb\xbf",
    "\xcc\x81",
    "</stream:stream>",
    "</stream>",
    "/>",
    ">",
    "'",
    "\"",
    "=",
    " ",
    "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>",
};

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed)
{
    uint32_t random = seed;
    uint32_t choice = next_random(&random) % 4;
    size_t at = size ? next_random(&random) % size : 0;
    const char *word = words[next_random(&random) % array_len(words)];
    size_t len = strlen(word);
    if (choice == 0 || size < 3)
        return LLVMFuzzerMutate(data, size, max);
    at = at < 2 ? 2 : at;
    if (choice == 1) { /* a piece of it again, somewhere else */
        size_t from = 2 + next_random(&random) % (size - 2);
        len = 1 + next_random(&random) % 40;
        len = len < size - from ? len : size - from;
        char piece[40];
        memcpy(piece, data + from, len);
        if (size + len > max)
            return size;
        memmove(data + at + len, data + at, size - at);
        memcpy(data + at, piece, len);
        return size + len;
    }
    if (size + len > max)
        return size;
    memmove(data + at + len, data + at, size - at);
    memcpy(data + at, word, len);
    return size + len;
}
