/* state: the life of a scan's state: new, begun, saved between two receives, restored. What is
 * saved is only what is in use, since every connection in the middle of an item holds one (scan.h).
 */
#include <stdlib.h>

#include "pemberley/must.h"
#include "proto/xml/scan.h"

struct xml_scan *xml_scan_new(void)
{
    struct xml_scan *s = calloc(1, sizeof *s);
    must(s);
    return s;
}

void xml_scan_free(struct xml_scan *s) { free(s); }

static uint16_t at_most(uint16_t limit, uint16_t room) { return limit < room ? limit : room; }

static void set_limits(struct xml_scan *s, const struct xml_limits *limits,
                       const struct xml_header *header)
{
    s->limits = limits, s->header = header;
    s->depth_max = at_most(limits->depth_max, XML_DEPTH_MAX);
    s->attributes_max = at_most(limits->attributes_max, XML_ATTRIBUTES_MAX);
    s->namespaces_max = at_most(limits->namespaces_max, XML_NAMESPACES_MAX);
    s->name_max = limits->name_max;
}

void xml_scan_begin(struct xml_scan *s, const struct xml_limits *limits,
                    const struct xml_header *header)
{
    /* Field by field: gcc makes "rep stos" of a memset this size, which is slower. */
    s->pos = s->token = s->colon = s->gap = s->elements = 0;
    s->state = SCAN_ITEM, s->expect = XML_EXPECT_ELEMENT, s->what = XML_NONE;
    s->seen = 0, s->quote = 0, s->special = s->declares = s->prefixed = false;
    s->depth = s->nbinding = s->nattr = s->declared = s->default_ns = 0;
    const struct xml_span none = {0};
    struct xml_index *x = &s->index;
    x->len = x->name_off = x->splice = x->open_len = 0;
    x->name_len = x->ns = x->header_prefixes = x->children = x->nchild = 0;
    x->ns_uri = x->to = x->from = x->id = x->type = x->lang = x->to_attr = x->from_attr = none;
    x->entities = x->root_prefixed = x->empty = false;
    set_limits(s, limits, header);
}

/* A saved state, piece by piece. */
enum { PIECES = 4 };
static void saved_pieces(const struct xml_scan *s, str pieces[PIECES])
{
    pieces[0] = str_from(s, offsetof(struct xml_scan, index) + xml_index_size(&s->index));
    bool in_tag = s->state >= SCAN_NAME && s->state <= SCAN_EMPTY;
    pieces[1] = str_from(s->open, (s->depth + in_tag) * sizeof s->open[0]);
    pieces[2] = str_from(s->binding, s->nbinding * sizeof s->binding[0]);
    pieces[3] = str_from(s->attr, in_tag ? s->nattr * sizeof s->attr[0] : 0);
}

size_t xml_scan_save_size(const struct xml_scan *s)
{
    str pieces[PIECES];
    size_t size = 0;
    saved_pieces(s, pieces);
    for (size_t i = 0; i < PIECES; i++)
        size += pieces[i].n;
    return size;
}

void xml_scan_save(const struct xml_scan *s, void *out)
{
    str pieces[PIECES];
    char *at = out;
    saved_pieces(s, pieces);
    for (size_t i = 0; i < PIECES; i++) {
        memcpy(at, pieces[i].p, pieces[i].n);
        at += pieces[i].n;
    }
}

void xml_scan_restore(struct xml_scan *s, const void *saved, const struct xml_limits *limits,
                      const struct xml_header *header)
{
    /* The head comes first, because it says how long the other pieces are. */
    size_t fixed = offsetof(struct xml_scan, index.child);
    const char *at = saved;
    str pieces[PIECES];
    memcpy(s, at, fixed);
    saved_pieces(s, pieces);
    for (size_t i = 0; i < PIECES; i++) {
        memcpy((char *)pieces[i].p, at, pieces[i].n);
        at += pieces[i].n;
    }
    set_limits(s, limits, header);
}
