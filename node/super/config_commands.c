/* Commands that need no node: check-config, config-template, version; and run. */
#include <stdlib.h>

#include "node/super/cli.h"

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

int cli_version(struct cli *c)
{
    printf("pemberley " PEMBERLEY_VERSION "\n");
    return EXIT_DONE;
}
