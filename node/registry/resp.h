/* resp: a Redis server's replies (RESP2) out of its bytes. hiredis' reader does the reading, with
 * object functions of our own: the values lie in an arena, and what a server may announce is
 * bounded before anything is allocated for it (hiredis takes 800 MB for an array header of 10^8). A
 * reply of RESP3, which nobody asked for, is malformed. */
#ifndef NODE_REGISTRY_RESP_H
#define NODE_REGISTRY_RESP_H

#include "pemberley/err.h"

enum {
    RESP_ITEMS_MAX = 65536,   /* values in one reply, whatever their nesting */
    RESP_BYTES_MAX = 4 << 20, /* of one reply */
    RESP_LINE_MAX = 64 << 10, /* of a status, an error, a number */
    RESP_NESTING_MAX = 7,     /* hiredis' own */
};

enum resp_kind { RESP_STRING, RESP_STATUS, RESP_ERROR, RESP_INTEGER, RESP_NIL, RESP_ARRAY };
struct resp {
    enum resp_kind kind;
    str text; /* of a string, status or error */
    int64_t integer;
    size_t n; /* of an array */
    struct resp **items;
};

struct resp_reader;
struct resp_reader *resp_reader_new(void);
void resp_reader_free(struct resp_reader *r);

/* A whole reply, valid until it returns. False: stop, the rest of the bytes is of no interest. */
typedef bool resp_f(void *ctx, const struct resp *r);
/* ERR_BAD: not RESP2. ERR_FULL: a bound is passed. Both are final. Not to be called from on(). */
nodiscard err resp_feed(struct resp_reader *r, const char *p, size_t n, resp_f *on, void *ctx);

#endif
