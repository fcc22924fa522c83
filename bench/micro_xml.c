/* micro_xml: the scanner against expat (namespace mode, handlers that count) on what an XMPP server
 * reads, in interleaved rounds: medians of ns per stanza, and their ratio, which is what holds when
 * the machine is busy. Data is in the cache, as it is behind a receive. Usage: bench_xml [rounds]
 */
#include <expat.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "pemberley/arena.h"
#include "proto/xml/xml.h"

#define HEADER \
    "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' " \
    "to='example.com' version='1.0'>"

enum { ROUNDS_MAX = 99, BYTES_PER_ROUND = 4 << 20 };

static str base64(struct arena *a, size_t n)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char *p = arena_alloc(a, n);
    for (size_t i = 0; i < n; i++)
        p[i] = digits[(i * 2654435761u >> 16) & 63];
    return str_from(p, n);
}

static str chat_full(struct arena *a)
{
    return STR(
        "<message to='juliet@example.com/balcony' from='romeo@example.net/orchard' type='chat' "
        "id='5b1e7a3c-0f2d-4f5e'><body>Wherefore art thou, and what is the weather like on the "
        "balcony tonight?</body><active xmlns='http://jabber.org/protocol/chatstates'/>"
        "<origin-id xmlns='urn:xmpp:sid:0' id='5b1e7a3c-0f2d-4f5e'/><request "
        "xmlns='urn:xmpp:receipts'/><markable xmlns='urn:xmpp:chat-markers:0'/></message>");
}

static str chat_short(struct arena *a)
{
    return STR("<message to='juliet@example.com' type='chat' id='a1b2c3d4' xml:lang='en'>"
               "<body>See you at nine, at the usual place. Bring the letter.</body>"
               "<active xmlns='http://jabber.org/protocol/chatstates'/></message>");
}

static str presence(struct arena *a)
{
    return STR("<presence id='p-17' xml:lang='en'><show>away</show><status>In the garden</status>"
               "<priority>5</priority><c xmlns='http://jabber.org/protocol/caps' hash='sha-1' "
               "node='https://example.org/client' ver='q07IKJEyjvHSyhy//CH0CxmKi8w='/>"
               "<x xmlns='vcard-temp:x:update'><photo>b4a2f0c1d8e97a6f5c4b3a29180706f5e4d3c2b1"
               "</photo></x></presence>");
}

static str iq(struct arena *a)
{
    return STR(
        "<iq type='result' id='disco-1' to='juliet@example.com/balcony'><query "
        "xmlns='http://jabber.org/protocol/disco#info'><identity category='client' type='pc' "
        "name='Client'/><feature var='urn:xmpp:ping'/><feature var='urn:xmpp:receipts'/>"
        "<feature var='jabber:iq:version'/><feature var='urn:xmpp:jingle:1'/><feature "
        "var='http://jabber.org/protocol/muc'/></query></iq>");
}

static str omemo_message(struct arena *a)
{
    str parts[32];
    size_t n = 0;
    parts[n++] = STR("<message to='juliet@example.com' type='chat' id='o1'><encrypted "
                     "xmlns='eu.siacs.conversations.axolotl'><header sid='27183'>");
    for (int i = 0; i < 4; i++) {
        parts[n++] = arena_printf(a, "<key rid='%d'>", 31415 + i);
        parts[n++] = base64(a, 172);
        parts[n++] = STR("</key>");
    }
    parts[n++] = STR("<iv>MTIzNDU2Nzg5MDEy</iv></header><payload>");
    parts[n++] = base64(a, 128);
    parts[n++] = STR("</payload></encrypted><encryption xmlns='urn:xmpp:eme:0' "
                     "namespace='eu.siacs.conversations.axolotl' name='OMEMO'/><store "
                     "xmlns='urn:xmpp:hints'/></message>");
    return arena_concat(a, parts, n);
}

static str omemo_bundle(struct arena *a)
{
    str parts[320];
    size_t n = 0;
    parts[n++] =
        STR("<iq type='set' id='b'><pubsub xmlns='http://jabber.org/protocol/pubsub'><publish "
            "node='eu.siacs.conversations.axolotl.bundles:27183'><item id='current'><bundle "
            "xmlns='eu.siacs.conversations.axolotl'><prekeys>");
    for (int i = 0; i < 100; i++) {
        parts[n++] = arena_printf(a, "<preKeyPublic preKeyId='%d'>", i + 1);
        parts[n++] = base64(a, 44);
        parts[n++] = STR("</preKeyPublic>");
    }
    parts[n++] = STR("</prekeys></bundle></item></publish></pubsub></iq>");
    return arena_concat(a, parts, n);
}

static str avatar(struct arena *a)
{
    const str parts[] = {
        STR("<iq type='set' id='av'><pubsub xmlns='http://jabber.org/protocol/pubsub'><publish "
            "node='urn:xmpp:avatar:data'><item id='111f4b3c50d7b0df'><data "
            "xmlns='urn:xmpp:avatar:data'>"),
        base64(a, 10700), STR("</data></item></publish></pubsub></iq>")};
    return arena_concat(a, parts, 3);
}

static str mam_result(struct arena *a)
{
    return STR("<message to='juliet@example.com/balcony' from='juliet@example.com'><result "
               "xmlns='urn:xmpp:mam:2' queryid='f27' id='28482-98726-73623'><forwarded "
               "xmlns='urn:xmpp:forward:0'><delay xmlns='urn:xmpp:delay' "
               "stamp='2010-07-10T23:08:25Z'/><message xmlns='jabber:client' "
               "to='juliet@example.com/balcony' from='romeo@example.net/orchard' type='chat' "
               "id='5b1e7a3c'><body>Call me but love, and I'll be new baptized; Henceforth I never "
               "will be Romeo.</body><active xmlns='http://jabber.org/protocol/chatstates'/>"
               "<origin-id xmlns='urn:xmpp:sid:0' id='5b1e7a3c'/><stanza-id xmlns='urn:xmpp:sid:0' "
               "id='28482' by='juliet@example.com'/></message></forwarded></result></message>");
}

static str sm_ack(struct arena *a) { return STR("<a xmlns='urn:xmpp:sm:3' h='12'/>"); }

static str cyrillic(struct arena *a)
{
    return STR(
        "<message to='juliet@example.com' type='chat' id='a1b2c3d4'><body>Дорогая Джульетта, "
        "увидимся сегодня вечером у балкона, как всегда, в девять часов; принеси письмо"
        "</body><active xmlns='http://jabber.org/protocol/chatstates'/></message>");
}

static const struct kind {
    const char *name;
    str (*make)(struct arena *a);
    unsigned in_mix; /* of 204 */
} kinds[] = {
    {"chat full", chat_full, 60},
    {"chat short", chat_short, 40},
    {"presence", presence, 40},
    {"iq", iq, 20},
    {"OMEMO message", omemo_message, 18},
    {"OMEMO bundle", omemo_bundle, 1},
    {"avatar", avatar, 1},
    {"MAM result", mam_result, 4},
    {"SM ack", sm_ack, 20},
    {"Cyrillic chat", cyrillic, 0},
};

/* ---- the two of them ---- */

static double cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void die(const char *what)
{
    fprintf(stderr, "bench_xml: %s\n", what);
    exit(1);
}

static const struct xml_limits limits = {
    .bytes_max = 256 << 10,
    .depth_max = 64,
    .attributes_max = 64,
    .namespaces_max = 32,
    .name_max = 1024,
    .elements_max = 4096,
    .whitespace_max = 1024,
};

static uint64_t checksum;

static void scan_once(struct xml_scan *s, const struct xml_header *h, str stanza)
{
    enum xml_item what;
    size_t used;
    const struct xml_index *x;
    xml_scan_begin(s, &limits, h);
    if (xml_scan(s, stanza, XML_EXPECT_ELEMENT, &what, &used, &x) != ERR_OK || used != stanza.n)
        die("the scanner rejects a stanza");
    checksum += x->children;
}

static void on_start(void *data, const char *name, const char **atts) { checksum++; }
static void on_end(void *data, const char *name) { checksum++; }
static void on_text(void *data, const char *text, int n) { checksum += (uint64_t)n; }

struct contest {
    struct xml_scan *scan;
    struct xml_header header;
    XML_Parser parser;
};

static void contest_start(struct contest *c)
{
    str bytes = STR(HEADER);
    enum xml_item what;
    size_t used;
    const struct xml_index *x;
    c->scan = xml_scan_new();
    xml_scan_begin(c->scan, &limits, NULL);
    if (xml_scan(c->scan, bytes, XML_EXPECT_START, &what, &used, &x) != ERR_OK ||
        xml_header_read(c->scan, bytes, &c->header) != ERR_OK)
        die("the scanner rejects the header");
    c->parser = XML_ParserCreateNS("UTF-8", '|');
    XML_SetElementHandler(c->parser, on_start, on_end);
    XML_SetCharacterDataHandler(c->parser, on_text);
    if (!XML_Parse(c->parser, bytes.p, (int)bytes.n, 0))
        die("expat rejects the header");
}

static void contest_end(struct contest *c)
{
    xml_scan_free(c->scan);
    XML_ParserFree(c->parser);
}

static double time_scan(struct contest *c, const str *stanzas, size_t n, size_t times)
{
    double from = cpu_ns();
    for (size_t t = 0; t < times; t++)
        for (size_t i = 0; i < n; i++)
            scan_once(c->scan, &c->header, stanzas[i]);
    return (cpu_ns() - from) / (double)(n * times);
}

static double time_expat(struct contest *c, const str *stanzas, size_t n, size_t times)
{
    double from = cpu_ns();
    for (size_t t = 0; t < times; t++)
        for (size_t i = 0; i < n; i++)
            if (!XML_Parse(c->parser, stanzas[i].p, (int)stanzas[i].n, 0))
                die("expat rejects a stanza");
    return (cpu_ns() - from) / (double)(n * times);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v, size_t n)
{
    qsort(v, n, sizeof *v, by_value);
    return v[n / 2];
}

static double run(const char *name, const str *stanzas, size_t n, size_t rounds)
{
    double scan[ROUNDS_MAX], expat[ROUNDS_MAX], ratio[ROUNDS_MAX];
    struct contest c;
    size_t bytes = 0;
    for (size_t i = 0; i < n; i++)
        bytes += stanzas[i].n;
    size_t times = BYTES_PER_ROUND / bytes + 1;
    contest_start(&c);
    for (size_t r = 0; r < rounds; r++) {
        scan[r] = time_scan(&c, stanzas, n, times);
        expat[r] = time_expat(&c, stanzas, n, times / 8 + 1);
        ratio[r] = expat[r] / scan[r];
    }
    contest_end(&c);
    double size = (double)bytes / (double)n, ns = median(scan, rounds),
           times_faster = median(ratio, rounds);
    printf("%-14s %7.0f B  scanner %7.1f ns (%5.2f GB/s)  expat %8.1f ns  ratio %5.1f\n", name,
           size, ns, size / ns, median(expat, rounds), times_faster);
    return times_faster;
}

/* The kinds in one order that has no pattern to predict. */
static size_t mix(struct arena *a, str *out)
{
    size_t n = 0;
    for (size_t k = 0; k < array_len(kinds); k++)
        for (unsigned i = 0; i < kinds[k].in_mix; i++)
            out[n++] = arena_dup(a, kinds[k].make(a));
    uint32_t random = 1;
    for (size_t i = n - 1; i > 0; i--) {
        random = random * 1664525u + 1013904223u;
        size_t k = (random >> 8) % (i + 1);
        str held = out[i];
        out[i] = out[k], out[k] = held;
    }
    return n;
}

int main(int argc, char **argv)
{
    struct arena a;
    static str mixed[1024];
    size_t rounds = argc > 1 ? (size_t)atoi(argv[1]) : 9;
    if (rounds < 1 || rounds > ROUNDS_MAX)
        die("usage: bench_xml [rounds, 99 at most]");
    arena_init(&a);
    double ratio = run("mix", mixed, mix(&a, mixed), rounds);
    for (size_t k = 0; k < array_len(kinds); k++) {
        str one = arena_dup(&a, kinds[k].make(&a));
        run(kinds[k].name, &one, 1, rounds);
    }
    printf("mix: %.1f times as fast as expat (%llu)\n", ratio, (unsigned long long)checksum);
    arena_close(&a);
    return 0;
}
