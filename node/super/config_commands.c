/* Commands that need no node: check-config, config-template, explain, version; and run. */
#include <stdlib.h>

#include "node/super/cli.h"
#include "node/super/families.h"
#include "pemberley/log.h"

int cli_run(struct cli *c) { return super_run(c->config_file, c->sets, c->set_count); }

int cli_check_config(struct cli *c)
{
    struct conf_draft *d = conf_draft_new();
    conf_load(d, c->config_file);
    for (size_t i = 0; i < c->set_count; i++)
        conf_draft_assign(d, str_of(c->sets[i]));
    struct conf *conf = conf_draft_build(d);
    for (size_t i = 0; i < d->problem_count && i < CONF_PROBLEMS_MAX; i++)
        fprintf(stderr, "%.*s\n", STR_ARG(d->problems[i]));
    if (!conf)
        fprintf(stderr, "%zu error%s.\n", d->problem_count, d->problem_count == 1 ? "" : "s");
    else if (c->print)
        conf_print(d, stdout);
    else
        cli_say(c, "%s: ok, %u host%s, config %08llx\n", c->config_file, conf->host_count,
                conf->host_count == 1 ? "" : "s", (unsigned long long)conf->hash >> 32);
    int exit = conf ? EXIT_DONE : EXIT_CONFIG;
    free(conf);
    conf_draft_free(d);
    return exit;
}

int cli_config_template(struct cli *c)
{
    conf_template(stdout);
    return EXIT_DONE;
}

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

/* As it stands in the exposition, or without the prefix, or without a counter's _total. */
static bool explain_metric(str name)
{
    if (str_starts(name, STR("pemberley_")))
        name = str_skip(name, 10);
    for (unsigned i = 0; i < families_count; i++) {
        str family = str_of(families[i].name);
        bool counter = families[i].kind == FAMILY_C;
        str rest = str_starts(name, family) ? str_skip(name, family.n) : name;
        if (rest.n && !(counter && str_is(rest, "_total")))
            continue;
        printf("pemberley_%s%s\n  %s: %s\n", families[i].name, counter ? "_total" : "",
               counter ? "counter" : "gauge", families[i].help);
        return true;
    }
    for (unsigned i = 0; i < histogram_families_count; i++)
        if (str_eq(name, str_of(histogram_families[i].name))) {
            printf("pemberley_%s\n  histogram: %s\n", histogram_families[i].name,
                   histogram_families[i].help);
            return true;
        }
    return false;
}

int cli_explain(struct cli *c)
{
    const char *near;
    if (c->argc < 1)
        return cli_fail(EXIT_USAGE, "the name of an option, log event or metric is wanted: "
                                    "explain limits.c2s.stanza_max");
    str name = str_of(c->argv[0]);
    if (conf_explain(name, stdout, &near) || explain_event(name) || explain_metric(name))
        return EXIT_DONE;
    return cli_fail(EXIT_NOT_FOUND, "nothing is called %s%s%s%s", c->argv[0],
                    near ? ". Did you mean " : "", near ? near : "", near ? "?" : "");
}

int cli_version(struct cli *c)
{
    printf("pemberley " PEMBERLEY_VERSION "\n");
    return EXIT_DONE;
}
