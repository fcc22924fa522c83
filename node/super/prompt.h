/* prompt: what is asked of a person at the terminal. Passwords come from here or from stdin, never
 * from the arguments, which every process of the machine can read. */
#ifndef PEMBERLEY_NODE_SUPER_PROMPT_H
#define PEMBERLEY_NODE_SUPER_PROMPT_H

#include "pemberley/str.h"

enum { PROMPT_MAX = 1100 };

bool prompt_possible(void); /* stdin and stderr are a terminal */
/* One line without its newline; false at the end of input or when it is too long. */
bool prompt_line(char out[PROMPT_MAX]);
bool prompt_secret(const char *question, char out[PROMPT_MAX]); /* not shown while typed */
/* Twenty characters of [a-zA-Z0-9]: 119 bits. */
void prompt_generate(char out[PROMPT_MAX]);

#endif
