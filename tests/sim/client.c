#include "tests/sim/client.h"

#include <stdarg.h>
#include <stdio.h>

#include "node/edge/c2s.h"
#include "node/edge/stream.h"
#include "tests/sim/sim.h"

enum { KERNEL_BYTES = 16384, AGAIN_US = 5000000, LEAVING_US = 1000000 };

/* ---- connections ---- */

static struct sim *sim_of(const struct line *l);

static void chunk_put(struct list *to, uint64_t due_us, const char *p, size_t n)
{
    struct chunk *k = malloc(sizeof *k + n);
    must(k);
    *k = (struct chunk){.due_us = due_us, .n = n};
    memcpy(k->data, p, n);
    list_push_back(to, &k->link);
}

static void chunks_lose(struct list *l)
{
    list_each(k, l, struct chunk, link) {
        list_remove(&k->link);
        free(k);
    }
}

static uint64_t net_due(struct world *w, uint64_t *last)
{
    uint64_t due = w->now_us + 20 + world_random(w, 2000);
    *last = due > *last ? due : *last;
    return *last;
}

static size_t line_write(struct transport *t, const struct iovec *iov, size_t n)
{
    struct line *l = (struct line *)t;
    struct world *w = &sim_of(l)->w;
    for (size_t i = 0; i < n; i++) {
        if (l->client && !l->client_closed)
            chunk_put(&l->down, net_due(w, &l->down_due_us), iov[i].iov_base, iov[i].iov_len);
        l->unread += iov[i].iov_len;
        l->in_flight += iov[i].iov_len;
    }
    l->written_us = w->now_us + world_random(w, 500);
    return l->in_flight;
}
static void line_pause(struct transport *t) { ((struct line *)t)->paused = true; }
static void line_resume(struct transport *t) { ((struct line *)t)->paused = false; }
static void line_close(struct transport *t, bool graceful)
{
    struct line *l = (struct line *)t;
    if (l->closing && graceful)
        return;
    l->closing = true;
    l->close_us = sim_of(l)->w.now_us + (graceful ? world_random(&sim_of(l)->w, 3000) : 0);
}
static void line_free(struct transport *t) { ((struct line *)t)->freed = true; }
static void line_info(const struct transport *t, struct transport_info *out)
{
    *out = (struct transport_info){.address.ss_family = AF_UNIX};
}
static err line_binding(const struct transport *t, enum channel_binding kind, unsigned char out[64],
                        size_t *n)
{
    return ERR_NOT_FOUND;
}
static const struct transport_impl line_impl = {line_write, line_pause, line_resume, line_close,
                                                line_free,  line_info,  line_binding};

struct sim_line {
    struct line line;
    struct sim *sim;
};
static struct sim *sim_of(const struct line *l)
{
    return container_of(l, struct sim_line, line)->sim;
}

static void lose_loose(struct client *c);

static void line_gone(struct line *l)
{
    struct client *c = l->client;
    list_remove(&l->link);
    chunks_lose(&l->up);
    chunks_lose(&l->down);
    if (c && c->line == l) {
        world_say(&c->sim->w, "%s is disconnected", c->full);
        lose_loose(c);
        c->line = NULL, c->state = CLIENT_AWAY;
    }
    free(container_of(l, struct sim_line, line));
}

static struct shard *server_of(const struct line *l)
{
    struct shard *s = sim_of(l)->w.shard[l->shard];
    return s && s->incarnation == l->incarnation ? s : NULL;
}

/* To the server: what is due, unless it does not read. */
static bool line_up(struct line *l, struct shard *server)
{
    bool any = false;
    while (!l->paused && !l->closing && !list_empty(&l->up)) {
        struct chunk *k = list_first(&l->up, struct chunk, link);
        if (k->due_us > sim_of(l)->w.now_us)
            break;
        list_remove(&k->link);
        l->t.sink->bytes(&l->t, k->data, k->n);
        free(k);
        server->stirred = any = true;
    }
    return any;
}

static void excuse(struct client *c);

static void end_for_server(struct line *l, struct shard *server, err reason)
{
    server->stirred = true;
    struct client *c = l->client;
    if (l->loose) /* until now the server has written to nobody */
        excuse(l->loose);
    l->t.sink->closed(&l->t, reason);
    must(l->freed);
    if (!c || list_empty(&l->down))
        line_gone(l);
    else
        l->incarnation = 0; /* what is on its way still arrives */
}

static bool server_turn(struct line *l)
{
    struct world *w = &sim_of(l)->w;
    struct shard *server = server_of(l);
    if (!server)
        return false;
    bool any = line_up(l, server);
    bool reads = !l->client || !l->client->slow || l->client_closed || l->unread < KERNEL_BYTES;
    if (l->in_flight && reads && l->written_us <= w->now_us) {
        l->in_flight = 0;
        server->stirred = any = true;
        l->t.sink->written(&l->t);
    }
    if (l->closing && l->close_us <= w->now_us)
        return end_for_server(l, server, ERR_OK), true;
    if (l->client_closed && l->close_us <= w->now_us && (list_empty(&l->up) || l->paused))
        return end_for_server(l, server, ERR_CLOSED), true;
    return any;
}

/* Whoever's server is no more and who has read all. */
static bool orphan_turn(struct line *l)
{
    if (server_of(l) || (l->client && !list_empty(&l->down)))
        return false;
    line_gone(l);
    return true;
}

bool lines_turn(struct sim *s)
{
    bool any = false;
    list_each(l, &s->lines, struct line, link)
        any |= server_turn(l);
    list_each(l, &s->lines, struct line, link)
        any |= orphan_turn(l);
    return any;
}

static uint64_t sooner(uint64_t a, uint64_t b) { return a < b ? a : b; }

uint64_t lines_next_us(const struct sim *s)
{
    uint64_t next = UINT64_MAX;
    list_each(l, &s->lines, struct line, link) {
        if (!list_empty(&l->down) && l->client && !l->client->slow)
            next = sooner(next, list_first(&l->down, struct chunk, link)->due_us);
        if (!server_of(l))
            continue;
        if (!list_empty(&l->up) && !l->paused && !l->closing)
            next = sooner(next, list_first(&l->up, struct chunk, link)->due_us);
        if (l->in_flight && (!l->client || !l->client->slow || l->unread < KERNEL_BYTES))
            next = sooner(next, l->written_us);
        if (l->closing || l->client_closed)
            next = sooner(next, l->close_us);
    }
    return next;
}

void lines_shard_died(struct sim *s, unsigned shard)
{
    s->died_us = s->w.now_us;
    list_each(l, &s->lines, struct line, link)
        if (l->shard == shard) {
            if (l->loose)
                excuse(l->loose);
            l->incarnation = 0, l->in_flight = 0, l->closing = l->client_closed = false;
        }
}

/* ---- a client speaks ---- */

static void say(struct client *c, const char *fmt, ...)
{
    char text[1024];
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    must(n > 0 && (size_t)n < sizeof text);
    struct line *l = c->line;
    if (!l || l->client_closed)
        return;
    world_say(&c->sim->w, "%s: %s", c->full, text);
    chunk_put(&l->up, net_due(&c->sim->w, &l->up_due_us), text, (size_t)n);
}

struct client *client_new(struct sim *s, unsigned index, unsigned account)
{
    struct client *c = calloc(1, sizeof *c);
    must(c);
    c->sim = s, c->index = index, c->account = account;
    c->in = malloc(TEXT_MAX), c->sent = malloc(SENT_MAX * sizeof *c->sent);
    must(c->in && c->sent);
    snprintf(c->bare, sizeof c->bare, "%s", s->bare[account]);
    snprintf(c->resource, sizeof c->resource, "r%u", index);
    snprintf(c->full, sizeof c->full, "%s/%s", c->bare, c->resource);
    return c;
}

/* Logged in already: SASL is another test's. */
void client_dial(struct client *c, unsigned shard)
{
    struct sim_line *sl = calloc(1, sizeof *sl);
    must(sl && !c->line);
    struct line *l = &sl->line;
    sl->sim = c->sim;
    l->t.impl = &line_impl, l->client = c, l->shard = shard;
    l->incarnation = c->sim->w.shard[shard]->incarnation;
    list_init(&l->up);
    list_init(&l->down);
    list_push_back(&c->sim->lines, &l->link);
    world_say(&c->sim->w, "%s dials %u", c->full, shard);
    c->line = l, c->in_n = 0, c->state = CLIENT_DIALED;
    struct conn *k = conn_open(c->sim->w.shard[shard]->edge, &l->t, LISTENER_C2S);
    conn_authenticated(k);
    k->secured = true;
    negotiation_keep(&k->negotiation->host, STR("localhost"));
    negotiation_keep(&k->negotiation->bare, str_of(c->bare));
    c->sim->w.shard[shard]->stirred = true;
    say(c, "<stream:stream to='localhost' version='1.0' xmlns='jabber:client' "
           "xmlns:stream='http://etherx.jabber.org/streams'>");
}

static void put_number(struct client *c, uint32_t number)
{
    struct message *m = &c->sim->message[number];
    struct client *to = c->sim->client[m->to];
    must(c->sent_n < SENT_MAX);
    c->sent[c->sent_n++] = number;
    say(c, "<message to='%s' type='chat' id='%u'><body>%u</body></message>",
        m->full ? to->full : to->bare, number, number);
}

void client_message(struct client *c, unsigned to, bool full)
{
    struct sim *s = c->sim;
    if (c->state != CLIENT_BOUND || !c->line || s->messages + 1 >= MESSAGES_MAX ||
        c->sent_n + 1 >= SENT_MAX)
        return;
    uint32_t number = ++s->messages;
    s->message[number] = (struct message){
        .from = c->index, .session = c->session, .to = to, .full = full, .sent_us = s->w.now_us};
    put_number(c, number);
}

static void put_presence(struct client *c)
{
    must(c->sent_n < SENT_MAX);
    c->sent[c->sent_n++] = 0;
    if (c->status)
        say(c, "<presence><status>%u</status></presence>", c->status);
    else
        say(c, "<presence type='unavailable'/>");
}

void client_presence(struct client *c, bool available)
{
    static const unsigned step = 1;
    if (c->state != CLIENT_BOUND || !c->line || c->sent_n + 1 >= SENT_MAX)
        return;
    c->status = available ? c->sim->w.now_us / 1000 % 1000000000 + step : 0;
    put_presence(c);
}

void client_request(struct client *c)
{
    if (c->counting && c->state == CLIENT_BOUND)
        say(c, "<r xmlns='urn:xmpp:sm:3'/>");
}

void client_ack(struct client *c)
{
    if (!c->counting || c->state != CLIENT_BOUND)
        return;
    c->told = c->received;
    say(c, "<a xmlns='urn:xmpp:sm:3' h='%u'/>", c->received);
}

/* What it holds of a session that it gives up may come again: nobody was told that it came. */
static void forget_heard(struct client *c, uint64_t since_us)
{
    struct sim *s = c->sim;
    for (unsigned n = 1; n <= s->messages; n++)
        if (s->message[n].sent_us + since_us >= s->w.now_us &&
            (s->message[n].heard >> c->index & 1))
            s->message[n].may_again |= 1u << c->index;
}

/* Without XEP-0198 what was on its way is lost, what came just now may come again. */
static void excuse(struct client *c)
{
    struct sim *s = c->sim;
    for (unsigned n = 1; n <= s->messages; n++)
        if (s->client[s->message[n].to]->account == c->account)
            s->message[n].excused = true;
}

static void lose_loose(struct client *c)
{
    if (c->counting)
        return;
    forget_heard(c, AGAIN_US);
    excuse(c);
}

static void let_go(struct client *c, uint64_t after_us)
{
    struct line *l = c->line;
    chunks_lose(&l->down);
    l->client_closed = true, l->client = NULL;
    l->loose = c->counting ? NULL : c;
    l->close_us = c->sim->w.now_us + after_us;
    c->line = NULL, c->state = CLIENT_AWAY;
}

void client_leave(struct client *c)
{
    if (!c->line)
        return;
    client_ack(c);
    c->left = true, c->ended_us = c->sim->w.now_us + LEAVING_US;
    say(c, "</stream:stream>");
    lose_loose(c); /* it does not read what still comes */
    let_go(c, 500000);
}

void client_cut(struct client *c, uint64_t after_us)
{
    if (!c->line)
        return;
    world_say(&c->sim->w, "%s is cut", c->full);
    lose_loose(c);
    let_go(c, after_us);
}

/* ---- and hears ---- */

static void count(struct client *c, uint32_t h, const char *where)
{
    if (h < c->acked || h > c->sent_n)
        sim_fail(c->sim, "%s: %s says h %u, was told %u, has sent %u", c->full, where, h, c->acked,
                 c->sent_n);
    for (; c->acked < h; c->acked++)
        if (c->sent[c->acked])
            c->sim->message[c->sent[c->acked]].confirmed = true;
}

static void begin(struct client *c)
{
    if (c->previd[0] && c->manner.forgets)
        forget_heard(c, UINT64_MAX / 2);
    c->previd[0] = 0, c->counting = c->enabling = false;
    c->sent_n = c->acked = c->received = c->told = 0;
    c->session++;
    if (!c->left)
        c->ended_us = c->sim->w.now_us;
    c->left = false;
    c->shown = false;
    memset(c->seen, 0, sizeof c->seen);
    say(c,
        "<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>"
        "<resource>%s</resource></bind></iq>",
        c->resource);
}

static void bound(struct client *c)
{
    c->sent_n = c->acked = 0; /* the request is not counted */
    if (c->manner.sm) {
        c->enabling = true;
        say(c, "<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
        return;
    }
    c->state = CLIENT_BOUND;
    client_presence(c, true);
}

static void enabled(struct client *c, const char *xml)
{
    const char *id = strstr(xml, "id='");
    must(id);
    sscanf(id, "id='%63[^']", c->previd);
    c->counting = true, c->enabling = false, c->received = 0, c->state = CLIENT_BOUND;
    client_presence(c, true);
}

static void resumed(struct client *c, uint32_t h)
{
    uint32_t n = c->sent_n;
    count(c, h, "<resumed/>");
    c->sent_n = h, c->state = CLIENT_BOUND;
    for (uint32_t i = h; i < n; i++)
        if (!c->sent[i])
            put_presence(c); /* what is so now */
        else if (c->manner.resends)
            put_number(c, c->sent[i]);
}

static long number_after(const char *xml, const char *what)
{
    const char *at = strstr(xml, what);
    return at ? strtol(at + strlen(what), NULL, 10) : -1;
}

static bool starts(const char *xml, const char *what) { return !strncmp(xml, what, strlen(what)); }

static struct client *client_in(struct client *c, const char *xml, const char *attribute)
{
    struct sim *s = c->sim;
    const char *at = strstr(xml, attribute);
    for (unsigned i = 0; at && i < s->clients; i++) {
        size_t n = strlen(s->client[i]->full);
        if (!strncmp(at + strlen(attribute), s->client[i]->full, n) &&
            at[strlen(attribute) + n] == '\'')
            return s->client[i];
    }
    return NULL;
}

static bool is_alone(const struct client *c)
{
    for (unsigned i = 0; i < c->sim->clients; i++)
        if (c->sim->client[i] != c && c->sim->client[i]->account == c->account)
            return false;
    return true;
}

/* May an older one come behind it, although both are of one session and to one address?
 *
 *   - before its initial presence: what is stored waits for that, what comes to the full JID does
 *     not (RFC 6121 8.5.3.1: a connected resource gets it)
 *   - delayed, and it has other resources: it was in the queue of one that ended, and meanwhile
 *     others came (delivery.md 6, "End of session")
 *   - delayed, and in the queue of its own former session: what came while that was unavailable,
 *     or lost while others were stored, was stored at once, the queue at its end (the same)
 *   - delayed, and the store fails: it refuses one and takes the next, and where its answers do not
 *     come either, the first one is put there again, behind (node/home/offline.c)
 *   - to the bare JID, and handled again after a death, when it was not there the first time: the
 *     new home chooses among those who are (delivery.md 8: "unknown: new"), whether it was the
 *     sender's edge or home that sent it again or, when both died, its client */
static bool may_be_late(const struct client *c, const struct message *m, bool delayed)
{
    bool queued = m->sent_us < c->ended_us;
    return !c->shown || (delayed && (queued || !is_alone(c) || c->sim->store_fails)) ||
           (!m->full && m->sent_us < c->shown_us && m->sent_us < c->sim->died_us) ||
           c->sim->overlapped;
}

/* delayed: it has been elsewhere before, stored or in a queue. */
static void hear(struct client *c, uint32_t number, bool delayed)
{
    struct sim *s = c->sim;
    if (!number || number > s->messages)
        sim_fail(s, "%s got a message that nobody sent", c->full);
    struct message *m = &s->message[number];
    uint32_t bit = 1u << c->index;
    if (s->client[m->to]->account != c->account)
        sim_fail(s, "%s got %u, which was for %s", c->full, number, s->client[m->to]->full);
    bool again = m->heard & bit;
    bool row_stayed = delayed && s->store_fails; /* it could not be removed */
    if (again && !(m->may_again & bit) && !row_stayed && !s->overlapped)
        sim_fail(s, "%s got %u twice", c->full, number);
    m->heard |= bit;
    if (!c->counting && c->enabling)
        m->may_again |= bit, m->excused = true; /* before <enabled/> (delivery.md 9, 2) */
    if (again || may_be_late(c, m, delayed))
        return;
    uint32_t *last = &c->last[m->from][m->full];
    if (c->last_session[m->from][m->full] != m->session)
        c->last_session[m->from][m->full] = m->session, *last = 0;
    if (number < *last && s->message[*last].to == m->to && !(m->may_again & bit))
        sim_fail(s, "%s got %u after %u", c->full, number, *last);
    *last = number > *last ? number : *last;
}

static void message(struct client *c, const char *xml)
{
    long number = number_after(xml, "<body>");
    if (!strstr(xml, "type='error'")) {
        hear(c, (uint32_t)number, strstr(xml, "<delay"));
        return;
    }
    number = number_after(xml, " id='");
    struct sim *s = c->sim;
    if (number <= 0 || (unsigned)number > s->messages)
        sim_fail(s, "%s got an error about nothing: %s", c->full, xml);
    if (!s->store_fails)
        sim_fail(s, "%s got an error about %ld: %s", c->full, number, xml);
    s->message[number].bounced = true;
}

static void presence(struct client *c, const char *xml)
{
    struct client *from = client_in(c, xml, "from='");
    if (!from)
        return;
    long status = strstr(xml, "type='") ? 0 : number_after(xml, "<status>");
    if (from == c && (status <= 0 || !c->shown)) /* it is told of nobody any more; it begins anew */
        memset(c->seen, 0, sizeof c->seen);
    c->seen[from->index] = status > 0 ? (unsigned)status : 0;
    if (from == c && status > 0 && !c->shown)
        c->shown_us = c->sim->w.now_us;
    if (from == c)
        c->shown = status > 0;
}

static void element(struct client *c, const char *xml)
{
    bool stanza = starts(xml, "<message") || starts(xml, "<presence") || starts(xml, "<iq");
    world_say(&c->sim->w, "%s hears %s", c->full, xml);
    c->received += stanza && c->counting;
    if (starts(xml, "<message")) {
        message(c, xml);
    } else if (starts(xml, "<presence")) {
        presence(c, xml);
    } else if (starts(xml, "<stream:features")) {
        if (c->previd[0] && !c->manner.forgets)
            say(c, "<resume xmlns='urn:xmpp:sm:3' previd='%s' h='%u'/>", c->previd, c->received);
        else
            begin(c);
    } else if (starts(xml, "<iq") && strstr(xml, "id='bind'")) {
        if (strstr(xml, "type='result'"))
            bound(c);
        else
            client_cut(c, 1000);
    } else if (starts(xml, "<enabled")) {
        enabled(c, xml);
    } else if (starts(xml, "<resumed")) {
        resumed(c, (uint32_t)number_after(xml, " h='"));
    } else if (starts(xml, "<failed")) {
        if (number_after(xml, " h='") >= 0)
            count(c, (uint32_t)number_after(xml, " h='"), "<failed/>");
        begin(c);
    } else if (starts(xml, "<a ")) {
        count(c, (uint32_t)number_after(xml, " h='"), "<a/>");
    } else if (starts(xml, "<r ") &&
               (!c->manner.lazy || c->quiet || !world_random(&c->sim->w, 8))) {
        client_ack(c);
    } else if (starts(xml, "<stream:error") && !strstr(xml, "system-shutdown")) {
        world_say(&c->sim->w, "%s: stream error", c->full);
    }
}

/* The end of the first element at stream level in text, or 0. */
static size_t element_end(const char *text, size_t n)
{
    const char *close = memchr(text, '>', n);
    char name[40] = "</";
    if (!close)
        return 0;
    if (close[-1] == '/' || starts(text, "<?xml") || starts(text, "<stream:stream") ||
        starts(text, "</"))
        return (size_t)(close + 1 - text);
    sscanf(text, "<%30[^ />]", name + 2);
    strcat(name, ">");
    const char *end = memmem(text, n, name, strlen(name));
    return end ? (size_t)(end - text) + strlen(name) : 0;
}

static void read_elements(struct client *c)
{
    size_t n, at = 0;
    struct line *l = c->line;
    while (c->line == l && at < c->in_n && (n = element_end(c->in + at, c->in_n - at))) {
        char xml[4096];
        must(n < sizeof xml);
        memcpy(xml, c->in + at, n);
        xml[n] = 0;
        at += n;
        element(c, xml);
    }
    memmove(c->in, c->in + at, c->in_n - at);
    c->in_n -= at;
}

bool client_turn(struct client *c)
{
    struct line *l = c->line;
    bool any = false;
    while (l && c->line == l && !c->slow && !list_empty(&l->down)) {
        struct chunk *k = list_first(&l->down, struct chunk, link);
        if (k->due_us > c->sim->w.now_us)
            break;
        list_remove(&k->link);
        must(c->in_n + k->n < TEXT_MAX);
        memcpy(c->in + c->in_n, k->data, k->n);
        c->in_n += k->n;
        l->unread -= k->n;
        free(k);
        any = true;
        read_elements(c);
    }
    return any;
}
