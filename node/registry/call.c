#include "node/registry/call.h"

#include "node/registry/scripts.h" /* made by CMake: scripts_sha, scripts_text */

static void ignore(struct server_request *q, const struct resp *r) {}

static void submit(struct call *c, struct server *s)
{
    struct server_args a;
    server_args_init(&a);
    c->server = s;
    if (c->asking) {
        server_arg(&a, STR("ASKING"));
        server_send(s, &c->hint, &a);
        server_args_init(&a);
    }
    server_arg(&a, c->whole ? STR("EVAL") : STR("EVALSHA"));
    server_arg(&a, c->whole ? scripts_text[c->script] : scripts_sha[c->script]);
    server_arg_printf(&a, "%u", c->keys);
    c->args(c, &a);
    server_send(s, &c->request, &a);
}

/* ---- answers that are none ------------------------------------------------------------------- */

/* "MOVED 3999 host:port" or "ASK 3999 host:port". Without end they stop here: two servers that
 * each name the other, or a time that is over anyway. */
static err redirect(struct call *c, str rest, bool moved)
{
    unsigned slot = 0;
    size_t i = 0;
    struct redis *x = c->server->redis;
    for (; i < rest.n && i < 5 && rest.p[i] >= '0' && rest.p[i] <= '9'; i++)
        slot = slot * 10 + (unsigned)(rest.p[i] - '0');
    if (i == 0 || i >= rest.n || rest.p[i] != ' ' || slot != c->slot)
        return ERR_REFUSED;
    if (++c->redirections > CALL_REDIRECTIONS_MAX ||
        loop_now_us(x->doors.loop) - c->began_us > (uint64_t)x->settings.timeout_ms * 1000)
        return ERR_AWAY;
    struct server *s =
        topology_redirect(c->topology, c->server, slot, str_skip(rest, i + 1), moved);
    if (!s)
        return ERR_AWAY;
    c->asking = !moved;
    submit(c, s);
    return ERR_OK;
}

/* What a server says of itself, not of the command: it was not executed, and will be another time
 * or elsewhere. */
static bool is_away(str text)
{
    static const char *const words[] = {"LOADING ", "CLUSTERDOWN ", "TRYAGAIN ",
                                        "BUSY ",    "MASTERDOWN ",  "NOREPLICAS "};
    for (size_t i = 0; i < array_len(words); i++)
        if (str_starts(text, str_of(words[i])))
            return true;
    return false;
}

/* ERR_OK: it was sent again. */
static err follow(struct call *c, str text)
{
    if (str_starts(text, STR("NOSCRIPT")) && !c->whole) {
        c->whole = true;
        submit(c, c->server);
        return ERR_OK;
    }
    if (str_starts(text, STR("MOVED ")))
        return redirect(c, str_skip(text, 6), true);
    if (str_starts(text, STR("ASK ")))
        return redirect(c, str_skip(text, 4), false);
    if (str_starts(text, STR("READONLY")) || str_starts(text, STR("NOAUTH"))) {
        server_fail(c->server, text);
        return ERR_AWAY;
    }
    if (!is_away(text))
        return ERR_REFUSED;
    topology_doubt(c->topology);
    return ERR_AWAY;
}

static void count(const struct call *c, const struct resp *r)
{
    const struct registry_doors *d = &c->server->redis->doors;
    enum metric_result k = !r ? RESULT_FAILED : r->kind == RESP_ERROR ? RESULT_REFUSED : RESULT_OK;
    metric_add(d->metrics, METRIC_AT(registry_commands, k, 0), 1);
    if (r)
        metric_observe(d->metrics, HISTOGRAM_registry_command,
                       loop_now_us(d->loop) - c->request.sent_us);
}

static void on_answer(struct server_request *q, const struct resp *r)
{
    struct call *c = container_of(q, struct call, request);
    count(c, r);
    if (!r)
        return c->done(c, ERR_AWAY, NULL);
    if (r->kind != RESP_ERROR)
        return c->done(c, ERR_OK, r);
    err e = follow(c, r->text);
    if (e)
        c->done(c, e, e == ERR_REFUSED ? r : NULL);
}

err call_start(struct call *c, struct topology *t)
{
    struct server *s = topology_server(t, c->slot);
    if (!s)
        return ERR_AWAY;
    c->topology = t;
    c->request.done = on_answer;
    c->hint.done = ignore;
    c->began_us = loop_now_us(s->redis->doors.loop);
    c->redirections = 0;
    c->whole = c->asking = false;
    submit(c, s);
    return ERR_OK;
}
