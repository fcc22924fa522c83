/* config: what a leaf is like (XEP-0060 8.2, 16.4.4). One table says which field is which member;
 * it is kept as the form that would set it, so that the same code reads what clients and what the
 * store says. */
#include "node/pubsub/pubsub.h"

#define CONFIG_TYPE NS_PS "#node_config"
#define META_TYPE NS_PS "#meta-data"

enum kind { KIND_BOOL, KIND_LIST, KIND_TEXT, KIND_COUNT, KIND_GROUPS };
struct row {
    const char *var, *label;
    enum kind kind;
    size_t at;
    const char *const *options;
};

static const char *const access_names[] = {"presence",  "open",      "roster",
                                           "authorize", "whitelist", NULL};
static const char *const publish_names[] = {"publishers", "subscribers", "open", NULL};
static const char *const last_names[] = {"never", "on_sub", "on_sub_and_presence", NULL};
static const char *const message_names[] = {"headline", "normal", "chat", NULL};

#define RULE(member) offsetof(struct leaf_config, rules.member)
static const struct row rows[] = {
    {"pubsub#title", "A short name", KIND_TEXT, offsetof(struct leaf_config, title), NULL},
    {"pubsub#description", "A description", KIND_TEXT, offsetof(struct leaf_config, description),
     NULL},
    {"pubsub#type", "The namespace of the payloads", KIND_TEXT, offsetof(struct leaf_config, type),
     NULL},
    {"pubsub#access_model", "Who may subscribe and retrieve items", KIND_LIST, RULE(access),
     access_names},
    {"pubsub#roster_groups_allowed", "Roster groups that may", KIND_GROUPS, 0, NULL},
    {"pubsub#publish_model", "Who may publish", KIND_LIST, RULE(publishing), publish_names},
    {"pubsub#persist_items", "Items are kept", KIND_BOOL, RULE(persist), NULL},
    {"pubsub#max_items", "How many items are kept, or max", KIND_COUNT, RULE(items_max), NULL},
    {"pubsub#send_last_published_item", "When the last item is sent", KIND_LIST, RULE(last),
     last_names},
    {"pubsub#deliver_notifications", "Notifications are sent", KIND_BOOL, RULE(notifications),
     NULL},
    {"pubsub#deliver_payloads", "… with payloads", KIND_BOOL, RULE(payloads), NULL},
    {"pubsub#notify_retract", "… of retracted items", KIND_BOOL, RULE(notify_retract), NULL},
    {"pubsub#notify_delete", "… of the node's removal", KIND_BOOL, RULE(notify_delete), NULL},
    {"pubsub#notify_config", "… of a new configuration", KIND_BOOL, RULE(notify_config), NULL},
    {"pubsub#notification_type", "Type of their messages", KIND_LIST, RULE(message), message_names},
};

const struct leaf_config leaf_config_pep = {
    .rules = {.access = ACCESS_PRESENCE,
              .publishing = PUBLISH_PUBLISHERS,
              .last = LAST_ON_SUB_AND_PRESENCE,
              .persist = true,
              .payloads = true,
              .notifications = true,
              .notify_retract = true,
              .notify_delete = true,
              .items_max = 1},
};

bool config_read_form(const struct xml_el *x, const char *type, struct form *out, struct arena *a)
{
    return form_read(x, a, out) == ERR_OK && (!out->type.n || str_eq(out->type, str_of(type)));
}

static void *member(const struct leaf_config *c, const struct row *r) { return (char *)c + r->at; }

/* ---- from fields ---- */

static err read_bool(str v, bool *out)
{
    *out = str_is(v, "1") || str_is(v, "true");
    return *out || str_is(v, "0") || str_is(v, "false") ? ERR_OK : ERR_BAD;
}

static err read_option(str v, const char *const *options, uint8_t *out)
{
    for (uint8_t i = 0; options[i]; i++)
        if (str_eq(v, str_of(options[i]))) {
            *out = i;
            return ERR_OK;
        }
    return ERR_BAD;
}

static err read_count(str v, uint32_t *out)
{
    uint32_t n = 0;
    if (str_is(v, "max")) {
        *out = UINT32_MAX;
        return ERR_OK;
    }
    if (!v.n || v.n > 9)
        return ERR_BAD;
    for (size_t i = 0; i < v.n; i++) {
        if (v.p[i] < '0' || v.p[i] > '9')
            return ERR_BAD;
        n = n * 10 + (uint32_t)(v.p[i] - '0');
    }
    *out = n;
    return ERR_OK;
}

static err set_groups(struct leaf_config *c, const struct form_field *f)
{
    if (f->n > LEAF_GROUPS_MAX)
        return ERR_BAD;
    for (size_t i = 0; i < f->n; i++)
        if (f->values[i].n > LEAF_TEXT_MAX)
            return ERR_BAD;
    c->groups = f->values, c->groups_n = f->n;
    return ERR_OK;
}

err config_set(struct leaf_config *c, const struct form_field *f)
{
    const struct row *r = NULL;
    for (size_t i = 0; i < array_len(rows); i++)
        if (str_eq(f->var, str_of(rows[i].var)))
            r = &rows[i];
    if (!r)
        return ERR_NOT_FOUND;
    if (r->kind == KIND_GROUPS)
        return set_groups(c, f);
    str v = f->n ? f->values[0] : STR_NONE;
    if (f->n > 1 || v.n > LEAF_TEXT_MAX)
        return ERR_BAD;
    switch (r->kind) {
    case KIND_BOOL: return read_bool(v, member(c, r));
    case KIND_LIST: return read_option(v, r->options, member(c, r));
    case KIND_COUNT: return read_count(v, member(c, r));
    default: *(str *)member(c, r) = v; return ERR_OK;
    }
}

err config_set_all(struct leaf_config *c, const struct form *f)
{
    for (size_t i = 0; i < f->n; i++)
        if (config_set(c, &f->fields[i]) == ERR_BAD)
            return ERR_BAD;
    return ERR_OK;
}

bool config_is(const struct leaf_config *c, const struct form_field *f, struct arena *a)
{
    struct leaf_config wished = *c;
    return config_set(&wished, f) == ERR_OK &&
           str_eq(config_encode(&wished, a), config_encode(c, a));
}

/* ---- to fields ---- */

static void put_value(struct xml_writer *w, str v) { xml_put_leaf(w, "value", NULL, v); }

static void put_values(struct xml_writer *w, const struct leaf_config *c, const struct row *r)
{
    const void *m = member(c, r);
    uint32_t count;
    switch (r->kind) {
    case KIND_BOOL: put_value(w, *(const bool *)m ? STR("1") : STR("0")); return;
    case KIND_LIST: put_value(w, str_of(r->options[*(const uint8_t *)m])); return;
    case KIND_COUNT:
        count = *(const uint32_t *)m;
        put_value(w, count == UINT32_MAX ? STR("max") : arena_printf(w->arena, "%u", count));
        return;
    case KIND_TEXT:
        if (((const str *)m)->n)
            put_value(w, *(const str *)m);
        return;
    case KIND_GROUPS:
        for (size_t i = 0; i < c->groups_n; i++)
            put_value(w, c->groups[i]);
    }
}

static void put_options(struct xml_writer *w, const struct row *r)
{
    for (const char *const *o = r->options; o && *o; o++) {
        xml_open(w, "option");
        put_value(w, str_of(*o));
        xml_close(w, "option");
    }
}

static void put_field(struct xml_writer *w, const struct leaf_config *c, const struct row *r)
{
    static const char *const types[] = {[KIND_BOOL] = "boolean",
                                        [KIND_LIST] = "list-single",
                                        [KIND_TEXT] = "text-single",
                                        [KIND_COUNT] = "text-single",
                                        [KIND_GROUPS] = "text-multi"};
    xml_open(w, "field");
    xml_put_attr(w, "var", str_of(r->var));
    xml_put_attr(w, "type", str_of(types[r->kind]));
    xml_put_attr(w, "label", str_of(r->label));
    put_values(w, c, r);
    put_options(w, r);
    xml_close(w, "field");
}

static bool is_meta_data(const struct row *r)
{
    return r->kind == KIND_TEXT || str_is(str_of(r->var), "pubsub#access_model") ||
           str_is(str_of(r->var), "pubsub#publish_model") ||
           str_is(str_of(r->var), "pubsub#max_items");
}

void config_put_form(struct xml_writer *w, const struct leaf_config *c, bool meta_data)
{
    form_open(w, meta_data ? "result" : "form", NULL, meta_data ? META_TYPE : CONFIG_TYPE);
    for (size_t i = 0; i < array_len(rows); i++)
        if (!meta_data || is_meta_data(&rows[i]))
            put_field(w, c, &rows[i]);
    form_close(w);
}

str config_encode(const struct leaf_config *c, struct arena *a)
{
    struct xml_writer w;
    xml_writer_init(&w, a);
    form_open(&w, "submit", NULL, CONFIG_TYPE);
    for (size_t i = 0; i < array_len(rows); i++) {
        xml_open(&w, "field");
        xml_put_attr(&w, "var", str_of(rows[i].var));
        put_values(&w, c, &rows[i]);
        xml_close(&w, "field");
    }
    form_close(&w);
    return xml_written(&w);
}

void config_decode(str kept, struct leaf_config *out, struct arena *a)
{
    struct form f;
    struct xml_el x = xml_root(kept, STR_NONE, a);
    *out = leaf_config_pep;
    /* A field that a later version has written, and this one does not know, is passed over. */
    if (config_read_form(&x, CONFIG_TYPE, &f, a))
        for (size_t i = 0; i < f.n; i++)
            if (config_set(out, &f.fields[i]) != ERR_OK)
                continue;
}
