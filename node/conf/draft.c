/* Settings over settings, and their comparison. The image is made in build.c. */
#include "node/conf/draft.h"

#include <stdarg.h>
#include <stdlib.h>

#include "node/conf/value.h"
#include "proto/xmpp/jid.h"

struct conf_draft *conf_draft_new(void)
{
    struct conf_draft *d = calloc(1, sizeof *d);
    must(d);
    arena_init(&d->arena);
    d->problems = arena_alloc(&d->arena, CONF_PROBLEMS_MAX * sizeof *d->problems);
    return d;
}

void conf_draft_free(struct conf_draft *d)
{
    if (!d)
        return;
    free(d->hosts);
    free(d->patterns);
    arena_close(&d->arena);
    free(d);
}

void conf_draft_problem(struct conf_draft *d, struct conf_origin at, const char *fmt, ...)
{
    char text[1024], place[512] = "";
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (at.file && at.line > 0)
        snprintf(place, sizeof place, "%s:%d: ", at.file, at.line);
    else if (at.file)
        snprintf(place, sizeof place, "%s: ", at.file);
    if (d->problem_count++ < CONF_PROBLEMS_MAX)
        d->problems[d->problem_count - 1] = arena_printf(&d->arena, "%s%s", place, text);
}

static const struct conf_row *row_of(const struct conf_draft_host *h, int row)
{
    return h ? &conf_host_rows[row] : &conf_rows[row];
}

/* What an operator calls the option. */
static str name_of(struct conf_draft *d, const struct conf_draft_host *h, int row)
{
    if (!h)
        return str_of(conf_rows[row].path);
    return arena_printf(&d->arena, "host \"%.*s\": %s", STR_ARG(h->title),
                        conf_host_rows[row].path);
}

static bool check(struct conf_draft *d, const struct conf_draft_host *h, int row, str text,
                  struct conf_origin from)
{
    union conf_value value;
    const char *problem = conf_value_parse(row_of(h, row), text, &d->arena, &value);
    if (problem)
        conf_draft_problem(d, from, "%s = %.*s: %s", name_of(d, h, row).p, STR_ARG(text),
                           conf_value_complaint(row_of(h, row), text, problem, &d->arena).p);
    return problem == NULL;
}

static void defaults(struct arena *a, const struct conf_row *row, struct conf_setting *out)
{
    *out = (struct conf_setting){0};
    if (conf_kind_is_list(row->kind)) {
        must(conf_members_parse(str_of(row->def), a, &out->values, &out->count) == NULL);
        return;
    }
    out->values = arena_alloc(a, sizeof *out->values);
    out->values[0] = str_of(row->def);
    out->count = 1;
}

void conf_draft_set(struct conf_draft *d, struct conf_draft_host *h, int row, const str *values,
                    size_t n, bool append, struct conf_origin from)
{
    struct conf_setting *s = h ? &h->set[row] : &d->set[row], before = {0};
    for (size_t i = 0; i < n; i++)
        if (!check(d, h, row, values[i], from))
            return;
    if (append && s->set)
        before = *s;
    else if (append)
        defaults(&d->arena, row_of(h, row), &before);
    if (before.count + n > CONF_MEMBERS_MAX) {
        conf_draft_problem(d, from, "%s: too many members", name_of(d, h, row).p);
        return;
    }
    str *all = arena_alloc(&d->arena, (before.count + n + 1) * sizeof *all);
    for (size_t i = 0; i < before.count; i++)
        all[i] = before.values[i];
    for (size_t i = 0; i < n; i++)
        all[before.count + i] = arena_dup(&d->arena, values[i]);
    *s = (struct conf_setting){true, all, before.count + n, from};
}

static bool host_name(struct conf_draft *d, str title, str *domain, bool *pattern)
{
    *pattern = title.n && title.p[0] == '*';
    *domain = *pattern ? arena_dup(&d->arena, str_skip(title, 1)) : title;
    if (*pattern && domain->n == 0)
        return true;
    if (*pattern && domain->p[0] != '.')
        return false;
    str rest = *pattern ? str_skip(*domain, 1) : *domain, prepared;
    if (jid_prepare_domain(rest, &d->arena, &prepared) != ERR_OK ||
        memchr(prepared.p, '/', prepared.n)) /* it becomes a directory's name */
        return false;
    *domain = *pattern ? arena_printf(&d->arena, ".%.*s", STR_ARG(prepared))
                       : arena_dup(&d->arena, prepared);
    return true;
}

static struct conf_draft_host *host_find(const struct conf_draft *d, str domain, bool pattern)
{
    for (size_t i = 0; i < d->host_count; i++)
        if (d->hosts[i].pattern == pattern && str_eq(d->hosts[i].domain, domain))
            return &d->hosts[i];
    return NULL;
}

struct conf_draft_host *conf_draft_host(struct conf_draft *d, str title, struct conf_origin from)
{
    str domain;
    bool pattern;
    if (!host_name(d, title, &domain, &pattern)) {
        conf_draft_problem(d, from, "host \"%.*s\" is not a domain", STR_ARG(title));
        return NULL;
    }
    if (host_find(d, domain, pattern)) {
        conf_draft_problem(d, from, "host \"%.*s\" stands there twice", STR_ARG(title));
        return NULL;
    }
    if (d->host_count == CONF_HOSTS_MAX)
        return NULL;
    if (d->host_count == d->host_cap) {
        d->host_cap = d->host_cap ? 2 * d->host_cap : 16;
        d->hosts = realloc(d->hosts, d->host_cap * sizeof *d->hosts);
        must(d->hosts);
    }
    struct conf_draft_host *h = &d->hosts[d->host_count++];
    *h = (struct conf_draft_host){
        .title = arena_dup(&d->arena, title), .domain = domain, .pattern = pattern, .from = from};
    if (pattern) {
        d->patterns = realloc(d->patterns, (d->pattern_count + 1) * sizeof *d->patterns);
        must(d->patterns);
        d->patterns[d->pattern_count++] = d->host_count - 1;
    }
    return h;
}

/* host[x.org].registration: the host, and its option's name. */
static bool assign_host(struct conf_draft *d, str path, struct conf_draft_host **h, str *option)
{
    const struct conf_origin from = {"--set", 0};
    str rest = str_skip(path, 5);
    const char *end = memchr(rest.p, ']', rest.n);
    if (!end || end + 1 >= rest.p + rest.n || end[1] != '.') {
        conf_draft_problem(d, from, "%.*s: write host[example.com].option=value", STR_ARG(path));
        return false;
    }
    str title = {rest.p, (size_t)(end - rest.p)}, domain;
    bool pattern;
    *option = str_skip(rest, title.n + 2);
    *h = host_name(d, title, &domain, &pattern) ? host_find(d, domain, pattern) : NULL;
    if (!*h)
        conf_draft_problem(d, from, "no host \"%.*s\"", STR_ARG(title));
    return *h != NULL;
}

static void unknown_option(struct conf_draft *d, const struct conf_draft_host *h, str name)
{
    const char *near = h ? conf_host_row_near(name) : conf_row_near(name, STR_NONE);
    conf_draft_problem(d, (struct conf_origin){"--set", 0}, "no option \"%.*s\"%s%s%s",
                       STR_ARG(name), near ? ". Did you mean \"" : "", near ? near : "",
                       near ? "\"?" : "");
}

void conf_draft_assign(struct conf_draft *d, str assignment)
{
    const struct conf_origin from = {"--set", 0};
    const char *equals = assignment.n ? memchr(assignment.p, '=', assignment.n) : NULL;
    if (!equals || equals == assignment.p) {
        conf_draft_problem(d, from, "%.*s: write section.option=value", STR_ARG(assignment));
        return;
    }
    str path = {assignment.p, (size_t)(equals - assignment.p)};
    str text = str_skip(assignment, path.n + 1), option;
    bool append = path.p[path.n - 1] == '+';
    path.n -= append;
    option = path;
    struct conf_draft_host *h = NULL;
    if (str_starts(path, STR("host[")) && !assign_host(d, path, &h, &option))
        return;
    int row = h ? conf_host_row_find(option) : conf_row_find(option);
    if (row < 0) {
        unknown_option(d, h, option);
        return;
    }
    bool list = conf_kind_is_list(row_of(h, row)->kind);
    str *members = &text;
    size_t n = 1;
    const char *problem = list ? conf_members_parse(text, &d->arena, &members, &n) : NULL;
    if (append && !list)
        problem = "only a list is appended to";
    if (problem)
        conf_draft_problem(d, from, "%.*s: %s", STR_ARG(assignment), problem);
    else
        conf_draft_set(d, h, row, members, n, append, from);
}

/* The setting of the longest pattern that covers the host and sets the option. */
static const struct conf_setting *from_pattern(const struct conf_draft *d,
                                               const struct conf_draft_host *h, int row)
{
    const struct conf_draft_host *best = NULL;
    for (size_t i = 0; i < d->pattern_count; i++) {
        const struct conf_draft_host *p = &d->hosts[d->patterns[i]];
        if (!p->set[row].set || h->domain.n < p->domain.n ||
            !str_eq(str_skip(h->domain, h->domain.n - p->domain.n), p->domain))
            continue;
        if (!best || p->domain.n > best->domain.n)
            best = p;
    }
    return best ? &best->set[row] : NULL;
}

const struct conf_setting *conf_draft_get(struct conf_draft *d, const struct conf_draft_host *h,
                                          int row)
{
    const struct conf_setting *s = h ? &h->set[row] : &d->set[row];
    if (s->set)
        return s;
    const struct conf_setting *pattern = h && !h->pattern ? from_pattern(d, h, row) : NULL;
    if (pattern)
        return pattern;
    struct conf_setting *fallback = arena_alloc(&d->arena, sizeof *fallback);
    defaults(&d->arena, row_of(h, row), fallback);
    return fallback;
}

/* Whether libconfuse's lexer takes the word as it is. */
static bool plain(str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (strchr(" #\"'\t\n\r={}()+,*[]\\", s.p[i]) ||
            (s.p[i] == ':' && i == 0 && s.n > 1 && s.p[1] == ':'))
            return false;
    return s.n > 0;
}

static str quoted(struct arena *a, str s)
{
    return plain(s) ? s : arena_printf(a, "\"%.*s\"", STR_ARG(s));
}

str conf_setting_text(struct arena *a, const struct conf_row *row, const struct conf_setting *s)
{
    if (!conf_kind_is_list(row->kind))
        return quoted(a, s->values[0]);
    str *parts = arena_alloc(a, (2 * s->count + 2) * sizeof *parts);
    size_t n = 0;
    parts[n++] = STR("{");
    for (size_t i = 0; i < s->count; i++) {
        if (i)
            parts[n++] = STR(", ");
        parts[n++] = quoted(a, s->values[i]);
    }
    parts[n++] = STR("}");
    return arena_concat(a, parts, n);
}

struct compared {
    struct conf_draft *running, *next;
    conf_change_f *on_change;
    void *ctx;
};

static void compare_row(const struct compared *c, const struct conf_draft_host *old,
                        struct conf_draft_host *new, int i)
{
    const struct conf_row *row = row_of(new, i);
    const struct conf_setting *was = conf_draft_get(c->running, old, i);
    str from = conf_setting_text(&c->next->arena, row, was);
    str to = conf_setting_text(&c->next->arena, row, conf_draft_get(c->next, new, i));
    if (str_eq(from, to))
        return;
    from = arena_dup(&c->next->arena, from);
    c->on_change(c->ctx, new, row, from, to);
    if (row->class != 'R')
        return;
    str *values = arena_alloc(&c->next->arena, was->count * sizeof *values + 1);
    for (size_t k = 0; k < was->count; k++)
        values[k] = arena_dup(&c->next->arena, was->values[k]);
    struct conf_setting *s = new ? &new->set[i] : &c->next->set[i];
    *s = (struct conf_setting){true, values, was->count, {NULL, 0}};
}

void conf_draft_compare(struct conf_draft *running, struct conf_draft *next,
                        conf_change_f *on_change, void *ctx)
{
    const struct compared c = {running, next, on_change, ctx};
    for (int i = 0; i < CONF_ROWS; i++)
        compare_row(&c, NULL, NULL, i);
    for (size_t k = 0; k < next->host_count; k++) {
        struct conf_draft_host *h = &next->hosts[k];
        const struct conf_draft_host *old = host_find(running, h->domain, h->pattern);
        if (!old)
            on_change(ctx, h, NULL, STR(""), h->title);
        for (int i = 0; old && i < CONF_HOST_ROWS; i++)
            compare_row(&c, old, h, i);
    }
    for (size_t k = 0; k < running->host_count; k++) {
        struct conf_draft_host *old = &running->hosts[k];
        if (!host_find(next, old->domain, old->pattern))
            on_change(ctx, old, NULL, old->title, STR(""));
    }
}
