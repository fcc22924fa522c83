/* err: what can go wrong, as a value. Every error that a peer may be told is a row of err.def (its
 * class, condition and type on the wire); the rest (LOCAL rows) is between our own rooms. ERR_OK is
 * 0. Fallible functions return err, are nodiscard, and give results by the last parameter. */
#ifndef PEMBERLEY_ERR_H
#define PEMBERLEY_ERR_H

#include "pemberley/must.h"
#include "pemberley/str.h"

typedef enum {
    ERR_OK = 0,
#define ERR_LOCAL(name, text) ERR_##name,
#define ERR_STREAM(name, condition, ends, text) ERR_STREAM_##name,
#define ERR_STANZA(name, condition, type, text) ERR_STANZA_##name,
#define ERR_SASL(name, condition, text) ERR_SASL_##name,
#include "pemberley/err.def"
#undef ERR_LOCAL
#undef ERR_STREAM
#undef ERR_STANZA
#undef ERR_SASL
    ERR_MAX
} err;

enum err_class { ERR_CLASS_LOCAL, ERR_CLASS_STREAM, ERR_CLASS_STANZA, ERR_CLASS_SASL };

struct err_row {
    enum err_class class;
    const char *name;      /* of the row in lower case, for logs and metrics */
    const char *condition; /* the element's name on the wire; "" for LOCAL */
    const char *type;      /* stanza errors: auth cancel continue modify wait; else "" */
    bool ends_session;     /* stream errors: false = resumable afterwards (xmpp.md 6) */
    const char *text;
};
const struct err_row *err_row(err e);

#endif
