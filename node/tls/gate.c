/* gate: see gate.h. */
#include "node/tls/gate.h"

enum { TYPE_CHANGE_CIPHER = 20, TYPE_HANDSHAKE = 22, TYPE_DATA = 23, CLIENT_HELLO = 1 };
enum { HELLO_HEADER = GATE_HEADER + 4 }; /* message type and length (3): RFC 8446 4 */

static const char *first_byte(unsigned char type, enum gate_stage stage)
{
    if (stage == GATE_FIRST)
        return type == TYPE_HANDSHAKE ? NULL : "not_tls";
    return type >= TYPE_CHANGE_CIPHER && type <= TYPE_DATA ? NULL : "bad_record_type";
}

/* The hello's length counts, not the record's: a hello may span records. */
static const char *first_hello(const unsigned char *p)
{
    if (p[5] != CLIENT_HELLO)
        return "no_client_hello";
    size_t n = (size_t)p[6] << 16 | (size_t)p[7] << 8 | p[8];
    return n > GATE_HELLO_MAX ? "client_hello_too_big" : NULL;
}

const char *gate_missing(const unsigned char *p, size_t n, enum gate_stage stage, size_t *missing)
{
    /* A hello in crumbs of less than its own header is legal and is sent by nobody honest. */
    size_t header = stage == GATE_FIRST ? HELLO_HEADER : GATE_HEADER;
    const char *bad = n > 0 ? first_byte(p[0], stage) : NULL;

    if (!bad && n > 1 && p[1] != 3)
        bad = "bad_record_version";
    if (!bad && n >= GATE_HEADER) {
        size_t size = gate_size(p);
        bad = size > GATE_RECORD_MAX || size < header ? "bad_record_length" : NULL;
        if (!bad && stage == GATE_FIRST && n >= HELLO_HEADER)
            bad = first_hello(p);
    }
    if (bad)
        return bad;
    if (n < header)
        *missing = header - n;
    else
        *missing = gate_size(p) > n ? gate_size(p) - n : 0;
    return NULL;
}

const char *gate_run(const unsigned char *p, size_t n, enum gate_stage stage, size_t *whole)
{
    *whole = 0;
    while (*whole < n) {
        size_t missing = 0;
        const char *bad = gate_missing(p + *whole, n - *whole, stage, &missing);
        if (bad)
            return bad;
        if (missing > 0)
            break;
        *whole += gate_size(p + *whole);
        stage = GATE_OPEN;
    }
    return NULL;
}
