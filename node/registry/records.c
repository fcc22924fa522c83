#include "node/registry/records.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "node/registry/call.h"
#include "pemberley/hash.h"

enum {
    WINDOW = 256, /* commands on their way */
    WINDOW_BYTES =
        1 << 20,       /* that one server's transport has not taken: then the others wait too */
    WRITE_FIELDS = 64, /* in one command; the rest follows in the next ones */
    WRITE_BYTES = 64 << 10, /* … about */
    TOMBSTONES_MAX = 64,    /* removed fields of an entry; then it is written anew */
    TICKS = 64,             /* per refresh */
    SWEEP = 1024,           /* parked entries looked at per tick */
};
_Static_assert(2 * WRITE_FIELDS + 16 <= SERVER_ARGS_MAX, "a write's arguments");

struct field {
    struct hnode node;
    struct list link; /* entry's clean, dirty or flying */
    struct entry *entry;
    bool removed;
    uint32_t name_n, value_n;
    char bytes[]; /* name, value */
};

struct entry {
    struct hnode node;
    struct list link; /* one of the records' lists */
    struct records *records;
    struct call call;
    bool in_flight;
    bool writing;          /* what is in flight is a write */
    bool known;            /* the hash is what we left: its field "" is mark_epoch, stamp */
    bool anew;             /* … but not when the command in flight is answered */
    bool counted;          /* as unsaved */
    bool forgotten;        /* somebody else writes it now: freed with the answer */
    uint32_t looked_round; /* of resyncs */
    uint64_t epoch;        /* of the writer, as far as it has told */
    uint64_t mark_epoch, stamp;
    uint64_t next_epoch, next_stamp; /* with what is in flight */
    uint64_t looked_ms;              /* last written or touched */
    struct list clean, dirty, flying;
    size_t live; /* fields not removed */
    size_t tombstones;
    uint32_t key_n;
    char key[];
};

struct records {
    struct redis *redis;
    struct topology *topology;
    struct hash_key secret;
    struct htable entries, fields;
    size_t bytes;
    struct list saved, dirty, stale, parked, flying;
    size_t in_flight, unsaved;
    size_t resyncing;
    uint32_t round;
    uint64_t stamp;
    bool stopped;
    struct timer timer;
    struct turn_hook hook;
};

static struct loop *loop_of(const struct records *r) { return r->redis->doors.loop; }
static struct metric_page *metrics_of(const struct records *r) { return r->redis->doors.metrics; }
static str key_of(const struct entry *e) { return str_from(e->key, e->key_n); }

/* ---- fields ---------------------------------------------------------------------------------- */

static str name_of(const struct field *f) { return str_from(f->bytes, f->name_n); }
static str value_of(const struct field *f) { return str_from(f->bytes + f->name_n, f->value_n); }

static uint64_t field_hash(const struct records *r, const struct entry *e, str name)
{
    return hash_str(&r->secret, name) ^ hash_u64((uintptr_t)e);
}

static struct field *find_field(const struct records *r, const struct entry *e, str name)
{
    struct hnode *n = htable_find(&r->fields, field_hash(r, e, name));
    for (; n; n = htable_find_next(n)) {
        struct field *f = container_of(n, struct field, node);
        if (f->entry == e && str_eq(name_of(f), name))
            return f;
    }
    return NULL;
}

static void free_field(struct records *r, struct field *f)
{
    struct entry *e = f->entry;
    if (f->removed)
        e->tombstones--;
    else
        e->live--;
    r->bytes -= sizeof *f + f->name_n + f->value_n;
    htable_remove(&r->fields, &f->node);
    list_remove(&f->link);
    free(f);
}

/* In place of the former one, among what is to be written. */
static void set_field(struct records *r, struct entry *e, str name, str value, bool removed)
{
    struct field *f = find_field(r, e, name);
    if (f)
        free_field(r, f);
    f = malloc(sizeof *f + name.n + value.n);
    must(f);
    *f = (struct field){.entry = e, .removed = removed};
    f->name_n = (uint32_t)name.n, f->value_n = (uint32_t)value.n;
    memcpy(f->bytes, name.p, name.n);
    if (value.n)
        memcpy(f->bytes + name.n, value.p, value.n);
    htable_insert(&r->fields, &f->node, field_hash(r, e, name));
    list_push_back(&e->dirty, &f->link);
    r->bytes += sizeof *f + name.n + value.n;
    if (removed)
        e->tombstones++;
    else
        e->live++;
}

/* ---- entries --------------------------------------------------------------------------------- */

static void write_args(struct call *c, struct server_args *a);
static void on_answer(struct call *c, err error, const struct resp *answer);

static void move(struct entry *e, struct list *to)
{
    list_remove(&e->link);
    list_push_back(to, &e->link);
}

static bool is_unsaved(const struct entry *e)
{
    return !e->known || !list_empty(&e->dirty) || !list_empty(&e->flying);
}

static void recount(struct entry *e, bool unsaved)
{
    struct records *r = e->records;
    r->unsaved += (size_t)unsaved - (size_t)e->counted;
    e->counted = unsaved;
    metric_set(metrics_of(r), METRIC_registry_unsaved, r->unsaved);
}

static void looked_at(struct entry *e)
{
    if (e->looked_round != e->records->round)
        e->records->resyncing--;
    e->looked_round = e->records->round;
    e->looked_ms = loop_now_ms(loop_of(e->records));
}

static void free_fields(struct entry *e)
{
    struct list *const lists[] = {&e->clean, &e->dirty, &e->flying};
    for (size_t i = 0; i < array_len(lists); i++)
        list_each(f, lists[i], struct field, link)
            free_field(e->records, f);
}

static void free_entry(struct entry *e)
{
    struct records *r = e->records;
    free_fields(e);
    looked_at(e);
    recount(e, false);
    r->bytes -= sizeof *e + e->key_n;
    htable_remove(&r->entries, &e->node);
    list_remove(&e->link);
    free(e);
}

static struct entry *find_entry(const struct records *r, str key)
{
    struct hnode *n = htable_find(&r->entries, hash_str(&r->secret, key));
    for (; n; n = htable_find_next(n)) {
        struct entry *e = container_of(n, struct entry, node);
        if (str_eq(key_of(e), key))
            return e;
    }
    return NULL;
}

static struct entry *new_entry(struct records *r, str key)
{
    struct entry *e = calloc(1, sizeof *e + key.n);
    must(e);
    e->records = r;
    e->looked_round = r->round;
    e->key_n = (uint32_t)key.n;
    memcpy(e->key, key.p, key.n);
    e->call.keys = 1;
    e->call.slot = topology_slot(key_of(e));
    e->call.script = SCRIPT_record_write;
    e->call.args = write_args;
    e->call.done = on_answer;
    list_init(&e->link);
    list_init(&e->clean);
    list_init(&e->dirty);
    list_init(&e->flying);
    htable_insert(&r->entries, &e->node, hash_str(&r->secret, key));
    r->bytes += sizeof *e + key.n;
    return e;
}

/* Nobody knows what the hash is: everything is to be written, and nothing to be removed. */
static void write_anew(struct entry *e)
{
    e->known = e->anew = false;
    list_append(&e->dirty, &e->clean);
    list_each(f, &e->dirty, struct field, link)
        if (f->removed)
            free_field(e->records, f);
}

/* ---- commands -------------------------------------------------------------------------------- */

static void add_mark(struct server_args *a, uint64_t epoch, uint64_t stamp)
{
    server_arg_printf(a, "%020" PRIu64 " %016" PRIx64, epoch, stamp);
}

static void write_args(struct call *c, struct server_args *a)
{
    const struct entry *e = container_of(c, struct entry, call);
    unsigned removed = 0;
    list_each(f, &e->flying, struct field, link)
        removed += f->removed;
    server_arg(a, key_of(e));
    server_arg_printf(a, "%020" PRIu64, e->next_epoch);
    add_mark(a, e->next_epoch, e->next_stamp);
    if (e->known)
        add_mark(a, e->mark_epoch, e->stamp);
    else
        server_arg(a, STR("*"));
    server_arg_printf(a, "%u", e->records->redis->settings.record_lifetime_ms);
    server_arg_printf(a, "%u", removed);
    list_each(f, &e->flying, struct field, link)
        if (f->removed)
            server_arg(a, name_of(f));
    list_each(f, &e->flying, struct field, link)
        if (!f->removed)
            server_arg(a, name_of(f)), server_arg(a, value_of(f));
}

static void load_write(struct entry *e)
{
    struct records *r = e->records;
    size_t fields = 0, bytes = 0;
    while (!list_empty(&e->dirty) && fields < WRITE_FIELDS && bytes < WRITE_BYTES) {
        struct field *f = list_first(&e->dirty, struct field, link);
        list_remove(&f->link);
        list_push_back(&e->flying, &f->link);
        fields++, bytes += f->name_n + f->value_n;
    }
    e->next_epoch = e->epoch;
    e->next_stamp = ++r->stamp;
}

/* Nothing is written, and the mark stays: the hash lives on. */
static void load_touch(struct entry *e)
{
    e->next_epoch = e->mark_epoch;
    e->next_stamp = e->stamp;
}

/* What was loaded and has not been put again meanwhile. */
static void unload(struct entry *e)
{
    list_append(&e->flying, &e->dirty);
    list_append(&e->dirty, &e->flying);
}

static void send_entry(struct entry *e)
{
    struct records *r = e->records;
    e->writing = is_unsaved(e);
    if (e->writing)
        load_write(e);
    else
        load_touch(e);
    if (call_start(&e->call, r->topology) != ERR_OK) {
        unload(e);
        move(e, &r->parked);
        return;
    }
    e->in_flight = true;
    r->in_flight++;
    move(e, &r->flying);
}

static struct entry *next_entry(struct records *r)
{
    struct list *l = list_empty(&r->dirty) ? &r->stale : &r->dirty;
    return list_empty(l) ? NULL : list_first(l, struct entry, link);
}

static void pump(struct turn_hook *h)
{
    struct records *r = container_of(h, struct records, hook);
    struct entry *e;
    while (!r->stopped && r->in_flight < WINDOW && (e = next_entry(r))) {
        const struct server *s = topology_server(r->topology, e->call.slot);
        if (s && server_unsent(s) > WINDOW_BYTES)
            return; /* an answer of its comes, or its end */
        send_entry(e);
    }
}

/* ---- answers --------------------------------------------------------------------------------- */

static void refused(struct entry *e, enum metric_registry_refusal reason, str text)
{
    struct records *r = e->records;
    metric_add(metrics_of(r), METRIC_AT(registry_refused, reason, 0), 1);
    LOG(r->redis->doors.log, registry_refused, F_JID("key", key_of(e)), F_STR("reason", text));
}

/* What it has to do next. */
static void go_on(struct entry *e)
{
    struct records *r = e->records;
    recount(e, is_unsaved(e));
    if (!list_empty(&e->dirty) || !e->known)
        move(e, &r->dirty);
    else if (e->live == 0)
        free_entry(e);
    else
        move(e, &r->saved);
}

static void on_saved(struct entry *e)
{
    looked_at(e);
    e->known = true;
    e->mark_epoch = e->next_epoch, e->stamp = e->next_stamp;
    list_each(f, &e->flying, struct field, link)
        if (f->removed)
            free_field(e->records, f);
    list_append(&e->clean, &e->flying);
    if (e->anew)
        write_anew(e);
    go_on(e);
}

/* A write whose answer never came may have been done: then the hash has a stamp that we do not
 * know to be there. */
static void on_away(struct entry *e)
{
    if (e->writing || e->anew)
        write_anew(e);
    recount(e, is_unsaved(e));
    move(e, &e->records->parked);
}

/* A later epoch has written: the user's home is elsewhere now. Unless ours has moved on too. */
static void on_fenced(struct entry *e)
{
    refused(e, REFUSED_EPOCH, STR("epoch"));
    if (e->epoch == e->next_epoch) {
        free_entry(e);
        return;
    }
    write_anew(e);
    go_on(e);
}

static void on_lost(struct entry *e)
{
    metric_add(metrics_of(e->records), METRIC_AT(registry_resyncs, RESYNC_LOST, 0), 1);
    write_anew(e);
    go_on(e);
}

/* An error, or a hash that is none of ours. Tried again when its refresh is due. */
static void on_refused(struct entry *e, str text)
{
    refused(e, REFUSED_FORM, text);
    looked_at(e);
    write_anew(e);
    recount(e, true);
    move(e, &e->records->saved);
}

static void on_answer(struct call *c, err error, const struct resp *answer)
{
    struct entry *e = container_of(c, struct entry, call);
    struct records *r = e->records;
    e->in_flight = false;
    r->in_flight--;
    loop_at_turn_end(loop_of(r), &r->hook);
    if (e->forgotten)
        return free_entry(e);
    int64_t code = error == ERR_OK && answer->kind == RESP_INTEGER ? answer->integer : -1;
    if (code == 0)
        return on_saved(e);
    unload(e);
    if (error == ERR_AWAY)
        on_away(e);
    else if (code == 1)
        on_fenced(e);
    else if (code == 2 && e->known)
        on_lost(e);
    else
        on_refused(e, error ? answer->text : STR("a hash that is none of ours"));
}

/* ---- what is put ----------------------------------------------------------------------------- */

static str full_key(const struct records *r, enum registry_kind kind, str key, char *out,
                    size_t size)
{
    int n = snprintf(out, size, "pemberley:%.*s:%s:{", STR_ARG(r->redis->settings.cluster),
                     kind == REGISTRY_USER ? "u" : "room");
    must(n > 0 && (size_t)n + key.n + 1 <= size);
    memcpy(out + n, key.p, key.n);
    out[(size_t)n + key.n] = '}';
    return str_from(out, (size_t)n + key.n + 1);
}

static void changed(struct entry *e, uint64_t epoch)
{
    struct records *r = e->records;
    if (e->epoch < epoch)
        e->epoch = epoch;
    e->forgotten = false;
    if (e->tombstones > TOMBSTONES_MAX && e->in_flight)
        e->anew = true;
    else if (e->tombstones > TOMBSTONES_MAX)
        write_anew(e);
    recount(e, true);
    if (!e->in_flight)
        move(e, &r->dirty);
    loop_at_turn_end(loop_of(r), &r->hook);
}

enum { KEY_MAX = REGISTRY_RECORD_KEY_MAX + 128 };

/* Not more than the bounds say; what is not taken is only not seen by others. */
static bool has_room(const struct records *r, const struct registry_record *record)
{
    const struct registry_settings *c = &r->redis->settings;
    size_t bytes = sizeof(struct entry) + sizeof(struct field) + KEY_MAX + record->value.n;
    return r->fields.count < c->records_max && r->bytes + bytes < c->records_bytes_max;
}

void records_put(struct records *r, const struct registry_record *record)
{
    char buffer[KEY_MAX];
    str key = full_key(r, record->kind, record->key, buffer, sizeof buffer);
    struct entry *e = find_entry(r, key);
    if (!has_room(r, record) && !(e && find_field(r, e, record->field))) {
        metric_add(metrics_of(r), METRIC_AT(registry_refused, REFUSED_FULL, 0), 1);
        return;
    }
    if (!e)
        e = new_entry(r, key);
    set_field(r, e, record->field, record->value, false);
    changed(e, record->epoch);
}

void records_remove(struct records *r, const struct registry_record *record)
{
    char buffer[KEY_MAX];
    struct entry *e = find_entry(r, full_key(r, record->kind, record->key, buffer, sizeof buffer));
    const struct field *f = e ? find_field(r, e, record->field) : NULL;
    if (!f || f->removed)
        return; /* what may be there of an earlier writer runs out */
    set_field(r, e, record->field, STR_NONE, true);
    if (e->live == 0 && !e->known && !e->in_flight)
        free_entry(e); /* never written */
    else
        changed(e, record->epoch);
}

/* What is on its way goes on; if it is put again before that is answered, it is written anew. */
void records_forget(struct records *r, enum registry_kind kind, str key)
{
    char buffer[KEY_MAX];
    struct entry *e = find_entry(r, full_key(r, kind, key, buffer, sizeof buffer));
    if (!e)
        return;
    if (!e->in_flight)
        return free_entry(e);
    free_fields(e);
    recount(e, false);
    e->forgotten = e->anew = true;
}

/* ---- time ------------------------------------------------------------------------------------ */

/* At most twice the even share per tick, so that a resync does not come back as a burst in every
 * refresh. */
static void refresh(struct records *r, uint64_t now)
{
    size_t most = r->entries.count / (TICKS / 2) + WINDOW;
    while (most-- > 0 && !list_empty(&r->saved)) {
        struct entry *e = list_first(&r->saved, struct entry, link);
        if (e->looked_ms + r->redis->settings.refresh_ms > now)
            return;
        move(e, &r->stale);
    }
}

/* Parked entries are tried again; those without fields that must have run out are forgotten. */
static void sweep(struct records *r, uint64_t now)
{
    for (size_t i = 0; i < SWEEP && !list_empty(&r->parked); i++) {
        struct entry *e = list_first(&r->parked, struct entry, link);
        if (e->live == 0 && e->looked_ms + r->redis->settings.record_lifetime_ms < now)
            free_entry(e);
        else
            move(e, &r->dirty);
    }
}

static void on_tick(struct timer *t)
{
    struct records *r = container_of(t, struct records, timer);
    uint64_t now = loop_now_ms(loop_of(r));
    refresh(r, now);
    sweep(r, now);
    loop_at_turn_end(loop_of(r), &r->hook);
    loop_timer_set(loop_of(r), t, r->redis->settings.refresh_ms / TICKS + 1);
}

void records_resync(struct records *r)
{
    r->round++;
    r->resyncing = r->entries.count;
    metric_add(metrics_of(r), METRIC_AT(registry_resyncs, RESYNC_RECONNECTED, 0), 1);
    list_append(&r->stale, &r->saved);
    records_retry(r);
}

void records_retry(struct records *r)
{
    list_append(&r->dirty, &r->parked);
    loop_at_turn_end(loop_of(r), &r->hook);
}

size_t records_resyncing(const struct records *r) { return r->resyncing; }
size_t records_unsaved(const struct records *r) { return r->unsaved; }

/* ---- life ------------------------------------------------------------------------------------ */

struct records *records_new(struct redis *x, struct topology *t)
{
    struct records *r = calloc(1, sizeof *r);
    must(r);
    r->redis = x, r->topology = t;
    entropy_fill(x->doors.entropy, &r->secret, sizeof r->secret);
    r->stamp = entropy_u64(x->doors.entropy);
    htable_init(&r->entries);
    htable_init(&r->fields);
    list_init(&r->saved);
    list_init(&r->dirty);
    list_init(&r->stale);
    list_init(&r->parked);
    list_init(&r->flying);
    r->hook = (struct turn_hook){.fn = pump};
    list_init(&r->hook.link);
    timer_init(&r->timer, on_tick);
    loop_timer_set(x->doors.loop, &r->timer, x->settings.refresh_ms / TICKS + 1);
    return r;
}

void records_stop(struct records *r)
{
    r->stopped = true;
    loop_timer_stop(loop_of(r), &r->timer);
}

void records_free(struct records *r)
{
    must(r->stopped && r->in_flight == 0);
    htable_each(n, &r->entries)
        free_entry(container_of(n, struct entry, node));
    htable_close(&r->entries);
    htable_close(&r->fields);
    list_remove(&r->hook.link);
    free(r);
}
