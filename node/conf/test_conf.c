/* Images for the unit tests of other rooms. */
#include <stdlib.h>

#include "node/conf/draft.h"

struct conf *conf_test_with(const char *const *settings)
{
    struct conf_draft *d = conf_draft_new();
    const struct conf_origin here = {"test", 0};
    must(conf_draft_host(d, STR("localhost"), here));
    must(conf_draft_host(d, STR("example.org"), here));
    for (size_t i = 0; settings && settings[i]; i++)
        conf_draft_assign(d, str_of(settings[i]));
    struct conf *c = conf_draft_build(d);
    if (!c)
        fprintf(stderr, "%.*s\n", STR_ARG(d->problems[0]));
    must(c);
    conf_draft_free(d);
    return c;
}

struct conf *conf_test_default(void) { return conf_test_with(NULL); }
