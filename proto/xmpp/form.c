#include "proto/xmpp/form.h"

#define NS "jabber:x:data"

static err read_field(const struct xml_el *el, struct arena *a, struct form_field *f)
{
    struct xml_el value;
    str *values = NULL;
    size_t n = 0;
    for (bool more = xml_first(el, &value, a); more; more = xml_next(el, &value, a)) {
        if (!xml_is(&value, NS, "value"))
            continue;
        if (n == FORM_VALUES_MAX)
            return ERR_BAD;
        if ((n & (n - 1)) == 0) { /* full at each power of two */
            str *bigger = arena_alloc(a, (n ? 2 * n : 1) * sizeof *bigger);
            if (n)
                memcpy(bigger, values, n * sizeof *values);
            values = bigger;
        }
        values[n++] = xml_text(&value, a);
    }
    *f = (struct form_field){xml_attr(el, "var", a), values, n};
    return ERR_OK;
}

err form_read(const struct xml_el *x, struct arena *a, struct form *out)
{
    if (!xml_is(x, NS, "x"))
        return ERR_BAD;
    str type = xml_attr(x, "type", a);
    *out = (struct form){.cancel = str_is(type, "cancel")};
    if (out->cancel)
        return ERR_OK;
    if (!str_is(type, "submit"))
        return ERR_BAD;
    out->fields = arena_alloc(a, FORM_FIELDS_MAX * sizeof *out->fields);
    struct xml_el el;
    for (bool more = xml_first(x, &el, a); more; more = xml_next(x, &el, a)) {
        struct form_field f;
        if (!xml_is(&el, NS, "field"))
            continue;
        if (out->n == FORM_FIELDS_MAX || read_field(&el, a, &f))
            return ERR_BAD;
        if (!str_is(f.var, "FORM_TYPE"))
            out->fields[out->n++] = f;
        else if (f.n == 1 && !out->type.n)
            out->type = f.values[0];
        else
            return ERR_BAD;
    }
    return ERR_OK;
}

const struct form_field *form_find(const struct form *f, const char *var)
{
    for (size_t i = 0; i < f->n; i++)
        if (str_eq(f->fields[i].var, str_of(var)))
            return &f->fields[i];
    return NULL;
}

str form_value(const struct form *f, const char *var)
{
    const struct form_field *field = form_find(f, var);
    return field && field->n ? field->values[0] : STR_NONE;
}

void form_open(struct xml_writer *w, const char *type, const char *title, const char *form_type)
{
    xml_open_ns(w, "x", NS);
    xml_put_attr(w, "type", str_of(type));
    if (title)
        xml_put_leaf(w, "title", NULL, str_of(title));
    xml_open(w, "field");
    xml_put_attr(w, "var", STR("FORM_TYPE"));
    xml_put_attr(w, "type", STR("hidden"));
    xml_put_leaf(w, "value", NULL, str_of(form_type));
    xml_close(w, "field");
}

void form_put(struct xml_writer *w, const char *var, const str *values, size_t n)
{
    xml_open(w, "field");
    xml_put_attr(w, "var", str_of(var));
    for (size_t i = 0; i < n; i++)
        xml_put_leaf(w, "value", NULL, values[i]);
    xml_close(w, "field");
}

void form_put_one(struct xml_writer *w, const char *var, str value) { form_put(w, var, &value, 1); }

void form_close(struct xml_writer *w) { xml_close(w, "x"); }
