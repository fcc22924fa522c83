/* form: data forms (XEP-0004), read and written. What is read are views into the arena. */
#ifndef PEMBERLEY_FORM_H
#define PEMBERLEY_FORM_H

#include "pemberley/arena.h"
#include "pemberley/err.h"
#include "proto/xml/xml.h"

enum { FORM_FIELDS_MAX = 64, FORM_VALUES_MAX = 256 };

struct form_field {
    str var;
    const str *values;
    size_t n;
};
struct form {
    struct form_field *fields; /* without FORM_TYPE */
    size_t n;
    str type; /* FORM_TYPE; empty: it names none */
    bool cancel;
};

/* An <x/> of type submit or cancel. ERR_BAD: it is none, or has more than the bounds allow. */
nodiscard err form_read(const struct xml_el *x, struct arena *a, struct form *out);
const struct form_field *form_find(const struct form *f, const char *var); /* NULL: missing */
str form_value(const struct form *f, const char *var);                     /* the first; empty */

/* <x xmlns='jabber:x:data' type='…'> with a title (may be NULL) and FORM_TYPE; form_close ends it.
 */
void form_open(struct xml_writer *w, const char *type, const char *title, const char *form_type);
void form_put(struct xml_writer *w, const char *var, const str *values, size_t n);
void form_put_one(struct xml_writer *w, const char *var, str value);
void form_close(struct xml_writer *w);

#endif
