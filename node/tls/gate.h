/* gate: finds whole TLS records in a piece of input, before the TLS library sees a byte of it.
 *
 * The library allocates the length that a record's header *announces*: nine bytes of ClientHello
 * cost 21 KB. So only whole records go in, and what is incomplete waits in a buffer as long as the
 * bytes that came. Pure: views in, numbers out. */
#ifndef PEMBERLEY_NODE_TLS_GATE_H
#define PEMBERLEY_NODE_TLS_GATE_H

#include <stddef.h>
#include <stdint.h>

enum {
    GATE_HEADER = 5,                             /* type, version (2), length (2) */
    GATE_RECORD_MAX = GATE_HEADER + 16384 + 256, /* RFC 8446 5.2; AEADs of 1.2 stay below it */
    GATE_HELLO_MAX = 8192,                       /* body of a ClientHello */
};
enum gate_stage {
    GATE_FIRST, /* a server's first record: must begin a ClientHello */
    GATE_OPEN,  /* any record */
};

/* Looks at the record that begins at p. Returns NULL and how many bytes are still missing: 0, the
 * record is whole; else at least so many (a header comes first: read it, then ask again). Or
 * returns why it is refused, which may be known from its first byte. */
const char *gate_missing(const unsigned char *p, size_t n, enum gate_stage stage, size_t *missing);

/* Size of the record at p, header included; gate_missing has said 0 or read its header. */
static inline size_t gate_size(const unsigned char *p)
{
    return GATE_HEADER + ((size_t)p[3] << 8 | p[4]);
}

/* The length of the run of whole records at p (stage is that of the first), and why the record
 * behind it is refused, or NULL. */
const char *gate_run(const unsigned char *p, size_t n, enum gate_stage stage, size_t *whole);

#endif
