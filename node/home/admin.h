/* admin: commands of the control socket at a home, inside. admin.c: accounts, their sessions;
 * admin_host.c: what concerns a host's accounts here, and what else XEP-0133 asks for. */
#ifndef PEMBERLEY_HOME_ADMIN_H
#define PEMBERLEY_HOME_ADMIN_H

#include "node/home/inside.h"

enum { EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_NO_SUCH = 4, EXIT_THERE_ALREADY = 5, ARGS_MAX = 6 };

struct command {
    struct work work; /* waits for the user */
    struct home *home;
    home_answer_f *answer;
    void *ctx;
    void (*run)(struct command *c, struct user *u);
    struct user *user; /* stays in memory, as it is, while the store changes the account */
    str jid, arg[ARGS_MAX];
    size_t argc;
    char text[];
};

/* The answer; c is gone. */
void admin_answer(struct command *c, int code, str text);
void admin_no_such_user(struct command *c);
void admin_store_failed(struct command *c, err e);
/* {"items": [{"jid": …}]}, and the log says so. */
void admin_answer_account(struct command *c, const char *what);
/* The user stays as it is while the store changes its account, until admin_let_go. */
void admin_keep(struct command *c, struct user *u);
void admin_let_go(struct command *c);

/* ---- admin_host.c ---- */

void admin_disable(struct command *c, struct user *u);
void admin_enable(struct command *c, struct user *u);
void admin_roster(struct command *c, struct user *u);
void admin_users_online(struct command *c);
void admin_announce(struct command *c);

#endif
