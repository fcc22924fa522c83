/* json: what the supervisor and the command line say to each other and to programs. Writing goes to
 * a FILE; reading makes a tree in an arena. Small on purpose: our own output is all it reads, but
 * it is bounded all the same (depth, and the size of the text it is given). */
#ifndef PEMBERLEY_NODE_SUPER_JSON_H
#define PEMBERLEY_NODE_SUPER_JSON_H

#include <stdio.h>

#include "pemberley/arena.h"

/* A string in quotes, escaped; bytes that are not UTF-8 are written as they are. */
void json_write(FILE *out, str s);

enum json_kind { JSON_NULL, JSON_BOOL, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT };
struct json {
    enum json_kind kind;
    str key;                   /* of an object's member */
    str text;                  /* string, unescaped; number as written; true or false */
    struct json *first, *next; /* members */
};

/* The tree, or NULL when it is not JSON or deeper than 16. */
struct json *json_parse(str text, struct arena *a);
/* A member by its key; NULL, also when j is NULL or no object. */
const struct json *json_get(const struct json *j, const char *key);
str json_text(const struct json *j, const char *key);      /* "" when it is missing */
double json_number(const struct json *j, const char *key); /* 0 when it is missing */

#endif
