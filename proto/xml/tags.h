/* tags: reading the tags of bytes that the scanner has accepted; for the files of this room only.
 * It trusts the scanner for the grammar, not for memory: nothing is read beyond the str given. */
#ifndef PEMBERLEY_PROTO_XML_TAGS_H
#define PEMBERLEY_PROTO_XML_TAGS_H

#include "proto/xml/xml.h"

struct tag {
    str all;  /* from '<' to '>' */
    str name; /* qualified */
    bool empty;
};
struct tag_attr {
    str name;  /* qualified */
    str value; /* raw */
};

/* The start tag that bytes begin with. */
struct tag tag_read(str bytes);
/* Walks the attributes: at = tag_attrs(t), then as long as it returns true. */
const char *tag_attrs(const struct tag *t);
bool tag_attr_next(const struct tag *t, const char **at, struct tag_attr *out);
/* The prefix of a declaration ("" for xmlns itself); false: it is an ordinary attribute. */
bool tag_attr_declares(const struct tag_attr *attr, str *prefix);
/* Splits a qualified name. */
str tag_prefix(str name);
str tag_local(str name);

/* One step through content. */
enum tag_part { TAG_END, TAG_TEXT, TAG_CDATA, TAG_ELEMENT };
/* Takes the next part off *rest: text, the inside of a CDATA section, or a whole element. TAG_END
 * at the end of rest or at an end tag. */
enum tag_part tag_next(str *rest, str *part);

/* Resolves references and line ends of raw into out, which has room for raw.n; returns the length.
 */
enum tag_text { TAG_TEXT_CONTENT, TAG_TEXT_CDATA, TAG_TEXT_VALUE };
size_t tag_resolve(str raw, enum tag_text kind, char *out);

#endif
