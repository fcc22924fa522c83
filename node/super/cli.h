/* cli: the `pemberley` command line. main.c reads the options and finds the command; client.c asks
 * the running node; user.c, node.c and config.c are the commands by theme. Each command returns an
 * exit code of super.h. */
#ifndef PEMBERLEY_NODE_SUPER_CLI_H
#define PEMBERLEY_NODE_SUPER_CLI_H

#include <stdio.h>

#include "node/conf/load.h"
#include "node/super/super.h"
#include "pemberley/arena.h"

enum { CLI_SETS_MAX = 256 };

struct cli {
    struct arena arena; /* lives as long as the command */
    const char *config_file;
    bool json, yes, quiet;
    bool now, watch, print, from_stdin, generate, cancel; /* --now … of their commands */
    const char *rate, *timeout;                           /* as written; NULL: not given */
    const char *like, *after, *limit, *slot, *jid;
    const char *sets[CLI_SETS_MAX];
    size_t set_count;
    int64_t timeout_ms;
    /* What comes before the answer, if somebody wants it: one JSON object each. */
    void (*on_progress)(struct cli *c, str text);
    int shown_tenths; /* cli_drain's, of the progress shown last */
    size_t argc;      /* what is left behind the command's words */
    char **argv;
};

/* "pemberley: " and the sentence, on stderr; returns exit. */
int cli_fail(int exit, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* On stdout, unless --quiet. */
void cli_say(const struct cli *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The config as far as it can be read, NULL after a message. */
struct conf_draft *cli_config(struct cli *c);
/* Asks the node: the answer's exit code; *text is JSON, or a sentence when it is not 0. */
int cli_ask(struct cli *c, size_t argc, const str *argv, str *text);
/* The same, and what is printed in any case: the sentence of a failure, or the JSON with --json.
 * Then *shown is true and nothing is left to print. */
int cli_ask_shown(struct cli *c, size_t argc, const str *argv, str *text, bool *shown);

/* What is destroyed wants its name typed, or --yes. EXIT_DONE, or EXIT_NOT_CONFIRMED. */
int cli_confirm(const struct cli *c, str name, const char *what);

/* Of a drain: its options as words of the command, from the n-th on (how many then); how far it is;
 * that it is over. text: drain_json. */
size_t cli_drain_words(struct cli *c, str *argv, size_t n);
void cli_show_drain(struct cli *c, str text);
int cli_drained(struct cli *c, str text);

int cli_node_list(struct cli *c);
int cli_node_show(struct cli *c);
int cli_node_drain(struct cli *c);
int cli_node_weight(struct cli *c);
int cli_node_ring(struct cli *c);
int cli_node_remove(struct cli *c);
int cli_status(struct cli *c);
int cli_reload(struct cli *c);
int cli_drain(struct cli *c);
int cli_stop(struct cli *c);
int cli_cluster_init(struct cli *c);
int cli_cluster_join_token(struct cli *c);
int cli_cluster_join(struct cli *c);
int cli_user_add(struct cli *c);
int cli_user_passwd(struct cli *c);
int cli_user_remove(struct cli *c);
int cli_user_disable(struct cli *c);
int cli_user_enable(struct cli *c);
int cli_user_show(struct cli *c);
int cli_user_list(struct cli *c);
int cli_user_sessions(struct cli *c);
int cli_user_kick(struct cli *c);
int cli_run(struct cli *c);
int cli_check_config(struct cli *c);
int cli_config_template(struct cli *c);
int cli_explain(struct cli *c);
int cli_version(struct cli *c);

#endif
