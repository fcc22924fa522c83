/* explain NAME: an option, a log event, a metric, a limit or another reason for an end, an alert.
 * All of it comes from the tables that the code is made of, and from the runbook. */
#include <ctype.h>

#include "node/super/cli.h"
#include "node/super/families.h"
#include "pemberley/log.h"

static const char runbook[] = {
#include "node/super/runbook.inc" /* ops/runbook.md, by CMake */
    , 0};

static bool explain_event(str name)
{
    static const struct {
        const char *name;
        enum log_level level;
        const char *fields;
    } events[] = {
#define EVENT(name, level, fields) {#name, level, fields},
#include "pemberley/events.def"
#undef EVENT
    };
    static const char *const levels[] = {"debug", "info", "warn", "error: somebody must act"};
    for (size_t i = 0; i < array_len(events); i++)
        if (str_eq(name, str_of(events[i].name))) {
            printf("%s\n  log event, %s\n  fields: %s\n", events[i].name, levels[events[i].level],
                   events[i].fields);
            return true;
        }
    return false;
}

/* The name as it stands in the exposition, or without the prefix, or without a counter's _total. */
static bool explain_family(str name, const char *family, enum family_kind kind, const char *help)
{
    bool counter = kind == FAMILY_C;
    str rest = str_starts(name, str_of(family)) ? str_skip(name, strlen(family)) : name;
    if (rest.n && !(counter && str_is(rest, "_total")))
        return false;
    printf("pemberley_%s%s\n  %s: %s\n", family, counter ? "_total" : "",
           counter ? "counter" : "gauge", help);
    return true;
}

static bool explain_metric(str name)
{
    if (str_starts(name, STR("pemberley_")))
        name = str_skip(name, 10);
    for (unsigned i = 0; i < families_count; i++)
        if (explain_family(name, families[i].name, families[i].kind, families[i].help))
            return true;
    for (unsigned i = 0; i < OWN_MAX; i++)
        if (explain_family(name, own_families[i].name, own_families[i].kind, own_families[i].help))
            return true;
    for (unsigned i = 0; i < histogram_families_count; i++)
        if (str_eq(name, str_of(histogram_families[i].name))) {
            printf("pemberley_%s\n  histogram: %s\n", histogram_families[i].name,
                   histogram_families[i].help);
            return true;
        }
    return false;
}

/* As in err.def, as in logs and labels, or as the condition that a client sees. */
static bool same_name(str name, const char *other)
{
    if (name.n != strlen(other))
        return false;
    for (size_t i = 0; i < name.n; i++) {
        char a = name.p[i] == '-' ? '_' : (char)tolower((unsigned char)name.p[i]);
        char b = other[i] == '-' ? '_' : (char)tolower((unsigned char)other[i]);
        if (a != b)
            return false;
    }
    return true;
}

static const char *who_meets(const struct err_row *row)
{
    switch (row->class) {
    case ERR_CLASS_STREAM:
        return row->ends_session ? "ends the stream and its session"
                                 : "ends the stream; its session may be resumed (XEP-0198)";
    case ERR_CLASS_STANZA: return "answers a stanza";
    case ERR_CLASS_SASL: return "refuses a login";
    default: return "why a connection or a handshake ended";
    }
}

static void print_reason(const struct err_row *row)
{
    printf("%s\n  %s\n", row->name, who_meets(row));
    if (row->condition[0])
        printf("  the peer sees: %s%s%s\n", row->condition, row->text[0] ? ", " : "", row->text);
    else if (row->text[0])
        printf("  %s\n", row->text);
    if (!strcmp(row->condition, "policy-violation"))
        printf("  a limit: counted in pemberley_limits_hit_total, logged as limit_hit\n");
}

/* Several classes may have a reason of that name. */
static bool explain_reason(str name)
{
    bool any = false;
    for (err e = (err)1; e < ERR_MAX; e++) {
        const struct err_row *row = err_row(e);
        if (same_name(name, row->name) || same_name(name, row->condition))
            print_reason(row), any = true;
    }
    return any;
}

/* A label of limits_hit: most are the last word of an option. */
static bool explain_limit(str name)
{
    const char *near;
    char path[64];
    snprintf(path, sizeof path, "limits.%.*s", STR_ARG(name));
    return conf_explain(str_of(path), stdout, &near);
}

/* An alert is a heading of the runbook: "## NodeDown". */
static bool explain_alert(str name)
{
    for (const char *at = runbook; (at = strstr(at, "\n## "));) {
        at += 4;
        const char *end = strchr(at, '\n'), *next = strstr(at, "\n## ");
        if (!end || !same_name(name, strndupa(at, (size_t)(end - at))))
            continue;
        printf("%.*s\n", (int)((next ? next : at + strlen(at)) - at), at);
        return true;
    }
    return false;
}

int cli_explain(struct cli *c)
{
    const char *near;
    if (c->argc < 1)
        return cli_fail(EXIT_USAGE, "the name of an option, log event, metric, limit, reason or "
                                    "alert is wanted: explain limits.c2s.stanza_max");
    str name = str_of(c->argv[0]);
    bool known = conf_explain(name, stdout, &near);
    known |= explain_limit(name);
    known |= explain_event(name);
    known |= explain_metric(name);
    known |= explain_reason(name);
    known |= explain_alert(name);
    if (known)
        return EXIT_DONE;
    return cli_fail(EXIT_NOT_FOUND, "nothing is called %s%s%s%s", c->argv[0],
                    near ? ". Did you mean " : "", near ? near : "", near ? "?" : "");
}
