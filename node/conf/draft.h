/* draft: the settings as they were written, before they are an image: which options are set, to
 * which texts, and where. Files, conf.d and --set are laid over one another here; what is wrong is
 * collected (all of it, up to a bound), and a draft without problems is built into an image.
 *
 * Kept by the supervisor as long as its image is in force: a reload compares two drafts, and
 * check-config --print shows one. Everything lives in the draft's arena. */
#ifndef PEMBERLEY_NODE_CONF_DRAFT_H
#define PEMBERLEY_NODE_CONF_DRAFT_H

#include <stdio.h>

#include "node/conf/table.h"
#include "pemberley/arena.h"

struct conf_origin {
    const char *file; /* "--set" for the command line, NULL for the default */
    int line;         /* 0: not known */
};
struct conf_setting {
    bool set;
    str *values; /* one, or the members of a list */
    size_t count;
    struct conf_origin from;
};
struct conf_draft_host {
    str title;  /* as written */
    str domain; /* prepared; of a pattern what follows the *; */
    bool pattern;
    struct conf_origin from;
    struct conf_setting set[CONF_HOST_ROWS];
};
struct conf_draft {
    struct arena arena;
    struct conf_setting set[CONF_ROWS];
    struct conf_draft_host *hosts;
    size_t host_count, host_cap;
    size_t *patterns; /* indexes of the hosts that are patterns: few among many */
    size_t pattern_count;
    str *problems;        /* "file:line: sentence" */
    size_t problem_count; /* all of them; the array keeps the first CONF_PROBLEMS_MAX */
    unsigned files;
};
enum { CONF_PROBLEMS_MAX = 100, CONF_HOSTS_MAX = 100000 };

struct conf_draft *conf_draft_new(void);
void conf_draft_free(struct conf_draft *d);

void conf_draft_problem(struct conf_draft *d, struct conf_origin at, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Sets option `row`, of a host when h is not NULL; append: after what is set (or the default). The
 * values are checked now, so that the problem names the place. */
void conf_draft_set(struct conf_draft *d, struct conf_draft_host *h, int row, const str *values,
                    size_t n, bool append, struct conf_origin from);
/* A host section; NULL after a problem (a second one, not a domain). Valid until the next one. */
struct conf_draft_host *conf_draft_host(struct conf_draft *d, str title, struct conf_origin from);
/* "limits.c2s.stanza_max=10k", "listen.c2s.address+=10.0.0.1:5222",
 * "host[x.org].registration=open". */
void conf_draft_assign(struct conf_draft *d, str assignment);

/* The texts in force: what is set, for hosts else the longest pattern's, else the default. */
const struct conf_setting *conf_draft_get(struct conf_draft *d, const struct conf_draft_host *h,
                                          int row);
/* As it would stand in a file: 10m, {a, "b c"}. In the arena. */
str conf_setting_text(struct arena *a, const struct conf_row *row, const struct conf_setting *s);

/* The image (malloc; conf_seal or free it), or NULL when there are problems. */
struct conf *conf_draft_build(struct conf_draft *d);
/* A sealed memfd of the image, or -1 (errno). */
nodiscard int conf_seal(const struct conf *c);

/* Calls on_change for each option that differs. h: the new draft's host; NULL for a plain option. A
 * host that came or went is a change with row NULL, and h of the draft that has it.
 * Options of class R are then put back to the running value, so that the new draft can be taken. */
typedef void conf_change_f(void *ctx, const struct conf_draft_host *h, const struct conf_row *row,
                           str from, str to);
void conf_draft_compare(struct conf_draft *running, struct conf_draft *next,
                        conf_change_f *on_change, void *ctx);

#endif
