/* value: one option's text to its value, with the sentence that says what is wrong with it. Units
 * are never guessed (operator.md 2): 10m is ten minutes or ten mebibytes by the option's kind, and
 * a bare 10 is an error. */
#ifndef PEMBERLEY_NODE_CONF_VALUE_H
#define PEMBERLEY_NODE_CONF_VALUE_H

#include "node/conf/table.h"
#include "pemberley/arena.h"

/* One value of any kind but the lists, which are made of these. */
union conf_value {
    uint64_t count; /* COUNT, COUNT_AUTO (0 auto), SIZE, WORD (index), SWITCH */
    int64_t ms;
    struct conf_rate rate;
    struct conf_memory memory;
    struct conf_net net;
    str text; /* in the arena, or the input itself */
};

/* NULL and *out, or what is wrong with it: "a size needs a unit (b, k, m, g)". In the arena. For
 * list kinds: one member. */
const char *conf_value_parse(const struct conf_row *row, str text, struct arena *a,
                             union conf_value *out);
/* The whole sentence: problem, what is allowed, the default, and a guess at what was meant. */
str conf_value_complaint(const struct conf_row *row, str text, const char *problem,
                         struct arena *a);

/* "{a, "b c"}" or a single word to its members. NULL, or what is wrong. */
enum { CONF_MEMBERS_MAX = 4096 };
const char *conf_members_parse(str text, struct arena *a, str **members, size_t *n);

/* The socket address of ":5222", "10.0.0.1:5222" or "[::1]:5222". The first is every address of
 * both families. false: none of these. */
bool conf_address_parse(str text, struct sockaddr_storage *out, socklen_t *len);

/* "10.0.0.1:5275", "[2001:db8::1]:5275", "b.example.net:5275": the host, without brackets, and the
 * port. false: none of these, or an address that means every one of a machine. */
bool conf_endpoint_parse(str text, str *host, uint16_t *port);

#endif
