/* load: files into a draft, by libconfuse (in the supervisor only), and what is shown of a draft.
 */
#ifndef PEMBERLEY_NODE_CONF_LOAD_H
#define PEMBERLEY_NODE_CONF_LOAD_H

#include "node/conf/draft.h"

/* Reads the file, then conf.d/NAME.conf beside it in name order. What is wrong are problems of the
 * draft, with file and line; a syntax error or unknown option ends the reading. Not re-entrant:
 * libconfuse's lexer is global. */
void conf_load(struct conf_draft *d, const char *file);

/* Every option in force, and where its value comes from. */
void conf_print(struct conf_draft *d, FILE *out);
/* The shipped pemberley.conf, made of options.def. */
void conf_template(FILE *out);
/* One option, or all of a section; false: no such name (near: the closest one, or NULL). */
bool conf_explain(str name, FILE *out, const char **near);

#endif
