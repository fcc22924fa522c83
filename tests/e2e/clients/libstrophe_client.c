/* A client of libstrophe for the test beside it: logs in, becomes available, sends one message and
 * ends when it has received one; prints what happens, a line each. libstrophe_client JID PASSWORD
 * PORT TO BODY [legacy]        (legacy: direct TLS) */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strophe.h>

struct job {
    xmpp_ctx_t *ctx;
    const char *to, *body;
};

static int on_message(xmpp_conn_t *conn, xmpp_stanza_t *stanza, void *data)
{
    char *text = xmpp_message_get_body(stanza);
    if (!text)
        return 1;
    printf("received %s from %s\n", text, xmpp_stanza_get_from(stanza));
    xmpp_free(((struct job *)data)->ctx, text);
    xmpp_disconnect(conn);
    return 1;
}

static void on_connection(xmpp_conn_t *conn, xmpp_conn_event_t event, int error,
                          xmpp_stream_error_t *stream_error, void *data)
{
    struct job *job = data;
    if (event != XMPP_CONN_CONNECT) {
        printf("ended %d\n", error);
        xmpp_stop(job->ctx);
        return;
    }
    printf("connected %s secured %d\n", xmpp_conn_get_bound_jid(conn), xmpp_conn_is_secured(conn));
    fflush(stdout);
    xmpp_handler_add(conn, on_message, NULL, "message", NULL, job);
    xmpp_stanza_t *presence = xmpp_presence_new(job->ctx);
    xmpp_send(conn, presence);
    xmpp_stanza_release(presence);
    xmpp_stanza_t *message = xmpp_message_new(job->ctx, "chat", job->to, "from-strophe");
    xmpp_message_set_body(message, job->body);
    xmpp_send(conn, message);
    xmpp_stanza_release(message);
}

int main(int argc, char **argv)
{
    if (argc < 6)
        return 2;
    xmpp_initialize();
    xmpp_log_t *log = xmpp_get_default_logger(XMPP_LEVEL_WARN);
    struct job job = {xmpp_ctx_new(NULL, log), argv[4], argv[5]};
    xmpp_conn_t *conn = xmpp_conn_new(job.ctx);
    long flags = XMPP_CONN_FLAG_TRUST_TLS;
    flags |= argc > 6 ? XMPP_CONN_FLAG_LEGACY_SSL : XMPP_CONN_FLAG_MANDATORY_TLS;
    xmpp_conn_set_flags(conn, flags);
    xmpp_conn_set_jid(conn, argv[1]);
    xmpp_conn_set_pass(conn, argv[2]);
    if (xmpp_connect_client(conn, "127.0.0.1", (unsigned short)atoi(argv[3]), on_connection,
                            &job) != XMPP_EOK)
        return 1;
    xmpp_run(job.ctx);
    xmpp_conn_release(conn);
    xmpp_ctx_free(job.ctx);
    xmpp_shutdown();
    return 0;
}
