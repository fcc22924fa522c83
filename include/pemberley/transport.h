/* transport: bytes to and from one peer, with the name that the peer has proven. A plain socket
 * (node/os/sock.c), TLS on top of any other transport (node/tls), the simulator's link.
 *
 * Reading: sink->bytes(p, n) with views valid until it returns; pause() stops it (a turn's budget
 * may still come), resume() goes on.
 * Writing: one write in flight. write() takes iov (all of it, or as much as one TLS record holds:
 * 16 KiB), returns the bytes taken, and sink->written() says that the socket has them; until then
 * the bytes of a *plain* transport must rest (TLS has copied them). Never called while one is in
 * flight (must).
 * Closing: close(graceful) sends what TLS has to say (close_notify) and FIN, reads on until the
 * peer closes or the transport's owner calls close(false), which ends it now. sink->closed(reason)
 * is the last call ever: all ops rest, the fd is closed, and the owner frees the transport with
 * free(). */
#ifndef PEMBERLEY_TRANSPORT_H
#define PEMBERLEY_TRANSPORT_H

#include <sys/socket.h>
#include <sys/uio.h>

#include "pemberley/err.h"
#include "pemberley/str.h"

struct transport;

struct transport_sink {
    void (*opened)(struct transport *t); /* TLS: the handshake is done. Plain: never called. */
    void (*bytes)(struct transport *t, const char *p, size_t n);
    void (*written)(struct transport *t);
    void (*ended)(struct transport *t); /* the peer will send no more (FIN or close_notify) */
    void (*closed)(struct transport *t, err reason); /* ERR_OK, _CLOSED, _IO, _TLS, _TIMEOUT */
};

struct transport_info {
    bool tls;
    bool resumed;         /* a TLS session ticket was used */
    uint16_t tls_version; /* 0x0303, 0x0304; 0 plain */
    str sni;              /* host of the certificate shown; empty if the hello named none */
    str alpn;
    str peer;    /* the name that the peer has proven by its certificate; empty: none */
    str failure; /* a word or two why it failed, after closed(ERR_TLS); else empty */
    struct sockaddr_storage address; /* of the peer */
};

enum channel_binding { CB_TLS_EXPORTER, CB_TLS_SERVER_END_POINT };

struct transport_impl {
    size_t (*write)(struct transport *t, const struct iovec *iov, size_t n);
    void (*pause)(struct transport *t);
    void (*resume)(struct transport *t);
    void (*close)(struct transport *t, bool graceful);
    void (*free)(struct transport *t); /* only after sink->closed */
    void (*info)(const struct transport *t, struct transport_info *out);
    /* RFC 9266 (TLS 1.3, or 1.2 with RFC 7627) and RFC 5929 4; at most 64 bytes. ERR_NOT_FOUND
     * where there is none. */
    err (*channel_binding)(const struct transport *t, enum channel_binding kind,
                           unsigned char out[64], size_t *n);
};

struct transport {
    const struct transport_impl *impl;
    const struct transport_sink *sink; /* set by the owner before the first byte can come */
    void *owner;
};

static inline size_t transport_write(struct transport *t, const struct iovec *iov, size_t n)
{
    return t->impl->write(t, iov, n);
}
static inline void transport_pause(struct transport *t) { t->impl->pause(t); }
static inline void transport_resume(struct transport *t) { t->impl->resume(t); }
static inline void transport_close(struct transport *t, bool graceful)
{
    t->impl->close(t, graceful);
}
static inline void transport_free(struct transport *t) { t->impl->free(t); }
static inline void transport_info(const struct transport *t, struct transport_info *out)
{
    t->impl->info(t, out);
}
static inline err transport_channel_binding(const struct transport *t, enum channel_binding kind,
                                            unsigned char out[64], size_t *n)
{
    return t->impl->channel_binding(t, kind, out, n);
}

#endif
