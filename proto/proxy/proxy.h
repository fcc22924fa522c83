/* proxy: the PROXY protocol's header, versions 1 and 2 (HAProxy's doc/proxy-protocol.txt): the line
 * or block with which a balancer says for whom it has connected. A room of its own because it is
 * nobody's part: it stands before TLS, XMPP and HTTP alike and knows none of them.
 *
 *   v1   PROXY TCP4 192.0.2.1 10.0.0.1 40000 5222\r\n            at most 107 bytes
 *   v2   \r\n\r\n\0\r\nQUIT\n | version, command | family | length (2) | addresses | TLVs
 *
 * Of v2's extensions (TLVs) nothing is read: they are skipped within the bound. */
#ifndef PEMBERLEY_PROTO_PROXY_H
#define PEMBERLEY_PROTO_PROXY_H

#include <sys/socket.h>

#include "pemberley/err.h"
#include "pemberley/str.h"

/* What the protocol promises to fit into the first segment of any TCP connection. */
enum { PROXY_HEADER_MAX = 536, PROXY_LINE_MAX = 107 };

struct proxy_header {
    bool claims; /* false: nobody is named (LOCAL, UNKNOWN, a unix socket's peer) */
    struct sockaddr_storage source; /* AF_INET or AF_INET6 with port; zero if nobody is named */
};

/* Reads the header at the start of in. ERR_OK: *used of in's bytes were it, the rest is the
 * client's. ERR_PARTIAL: a header as far as it goes; never for PROXY_HEADER_MAX bytes or more.
 * ERR_BAD: no header, said at the first byte that cannot be one's. ERR_FULL: one that is longer
 * than the bound. */
nodiscard err proxy_parse(str in, struct proxy_header *out, size_t *used);

#endif
