#include <expat.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "pemberley/must.h"
#include "proto/xml/xml.h"

#define HEADER \
    "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' " \
    "xmlns:p='urn:p' xmlns:q='urn:q' to='example.com' version='1.0'>"

static const struct xml_limits limits = {
    .bytes_max = 300,
    .depth_max = 4,
    .attributes_max = 4,
    .namespaces_max = 4,
    .name_max = 16,
    .elements_max = 8,
    .whitespace_max = 8,
};

struct verdict {
    err e;
    enum xml_item what;
    size_t used;
    struct xml_index index;
};

/* Feeds bytes by `step` (0: at once), each time from a fresh block of exactly their size. */
static struct verdict feed(str bytes, size_t step, const struct xml_header *h,
                           enum xml_expect expect)
{
    struct xml_scan *s = xml_scan_new();
    struct verdict v = {.e = ERR_PARTIAL};
    const struct xml_index *x;
    void *saved = NULL;
    for (size_t have = step ? step : bytes.n; v.e == ERR_PARTIAL; have += step) {
        have = have < bytes.n ? have : bytes.n;
        char *block = malloc(have ? have : 1);
        memcpy(block, bytes.p, have);
        if (saved)
            xml_scan_restore(s, saved, &limits, h);
        else
            xml_scan_begin(s, &limits, h);
        free(saved);
        v.e = xml_scan(s, str_from(block, have), expect, &v.what, &v.used, &x);
        saved = malloc(xml_scan_save_size(s));
        xml_scan_save(s, saved);
        v.index = *x;
        free(block);
        if (have == bytes.n)
            break;
    }
    free(saved);
    xml_scan_free(s);
    return v;
}

static struct xml_header read_header(const char *bytes)
{
    struct xml_scan *s = xml_scan_new();
    struct xml_header h;
    enum xml_item what;
    size_t used;
    const struct xml_index *x;
    xml_scan_begin(s, &limits, NULL);
    assert_int_equal(xml_scan(s, str_of(bytes), XML_EXPECT_START, &what, &used, &x), ERR_OK);
    assert_int_equal(what, XML_HEADER);
    assert_int_equal(xml_header_read(s, str_of(bytes), &h), ERR_OK);
    xml_scan_free(s);
    return h;
}

struct row {
    const char *xml;
    err e;
};

static void check_row(const struct row *r, const struct xml_header *h, enum xml_expect expect)
{
    for (size_t step = 0; step <= 3; step++) {
        struct verdict v = feed(str_of(r->xml), step, h, expect);
        if (v.e != r->e)
            fail_msg("by %zu: %s\n is %s, not %s", step, r->xml, err_row(v.e)->name,
                     err_row(r->e)->name);
        assert_true(v.e != ERR_OK || v.used == strlen(r->xml));
    }
}

static void check_rows(const struct row *rows, size_t n, const char *header, enum xml_expect expect)
{
    struct xml_header h;
    if (header)
        h = read_header(header);
    for (size_t i = 0; i < n; i++)
        check_row(&rows[i], header ? &h : NULL, expect);
}

#define NWF ERR_STREAM_NOT_WELL_FORMED
#define RESTRICTED ERR_STREAM_RESTRICTED_XML

static void well_formed_elements_are_accepted(void **state)
{
    static const struct row rows[] = {
        {"<a/>", ERR_OK},
        {"<a  />", ERR_OK},
        {"<a\t\r\n></a\n>", ERR_OK},
        {"<a b = \"c'd\" e\n=\n'f\"g>'/>", ERR_OK},
        {"<a>&lt;&gt;&amp;&apos;&quot;&#65;&#x1F600;&#x0000041;</a>", ERR_OK},
        {"<a>]] > ]&#93;> ]]&gt; ></a>", ERR_OK},
        {"<a><![CDATA[]]></a>", ERR_OK},
        {"<a><![CDATA[<b>&nbsp;]]]]]><![CDATA[>]]></a>", ERR_OK},
        {"<a>\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\x7f\xef\xbb\xbf</a>", ERR_OK},
        {"<\xc3\xa9l\xc3\xa9ment \xc3\xa0='1'/>", ERR_OK},
        {"<_a.b-c1 _='1'/>", ERR_OK},
        {"<p:a q:b='1' p:b='2' b='3'/>", ERR_OK},
        {"<a xmlns:r='urn:p' r:b='1' q:b='2'/>", ERR_OK},
        {"<a xmlns='' xml:lang='en'><b xmlns='urn:b'/></a>", ERR_OK},
        {"<xml:a xmlns:xml='http://www.w3.org/XML/1998/namespace'/>", ERR_OK},
        {"</stream:stream>", ERR_OK},
        {"</stream:stream \n>", ERR_OK},
    };
    check_rows(rows, array_len(rows), HEADER, XML_EXPECT_ELEMENT);
}

static void what_is_not_well_formed_is_rejected(void **state)
{
    static const struct row rows[] = {
        {"<a></b>", NWF},
        {"<a></ a>", NWF},
        {"<a><b></a></b>", NWF},
        {"< a/>", NWF},
        {"<1/>", NWF},
        {"<-a/>", NWF},
        {"<a/ >", NWF},
        {"<a//>", NWF},
        {"<a b/>", NWF},
        {"<a b=c/>", NWF},
        {"<a b='1'c='2'/>", NWF},
        {"<a b='<'/>", NWF},
        {"<a 'b'/>", NWF},
        {"<a b='1' b='2'/>", NWF},
        {"<a =''/>", NWF},
        {"<a b='&'/>", NWF},
        {"<a>&lt</a>", NWF},
        {"<a>& </a>", NWF},
        {"<a>&;</a>", NWF},
        {"<a>&#;</a>", NWF},
        {"<a>&#x;</a>", NWF},
        {"<a>&#xG;</a>", NWF},
        {"<a>&#X41;</a>", NWF},
        {"<a>&#0;</a>", NWF},
        {"<a>&#x1F;</a>", NWF},
        {"<a>&#xD800;</a>", NWF},
        {"<a>&#xFFFE;</a>", NWF},
        {"<a>&#x110000;</a>", NWF},
        {"<a>]]></a>", NWF},
        {"<a>]]]></a>", NWF},
        {"<a><![CDATX[]]></a>", NWF},
        {"<a><!></a>", NWF},
        {"<a>\x01</a>", NWF},
        {"<a>\x0c</a>", NWF},
        {"<a b='\x1f'/>", NWF},
        {"<a>\xc0\x80</a>", NWF},
        {"<a>\xe0\x81\x81</a>", NWF},
        {"<a>\xf0\x80\x81\x81</a>", NWF},
        {"<a>\xed\xa0\x80</a>", NWF},
        {"<a>\xef\xbf\xbe</a>", NWF},
        {"<a>\xef\xbf\xbf</a>", NWF},
        {"<a>\xf4\x90\x80\x80</a>", NWF},
        {"<a>\xf5\x80\x80\x80</a>", NWF},
        {"<a>\x80</a>", NWF},
        {"<a>\xff</a>", NWF},
        {"<a>\xc3(</a>", NWF},
        {"<a\xc3\x97/>", NWF},
        {"<\xcc\x81/>", NWF},
        {"<a:/>", NWF},
        {"<:a/>", NWF},
        {"<p:a:b/>", NWF},
        {"<p:1/>", NWF},
        {"<p::a/>", NWF},
        {"<r:a/>", NWF},
        {"<a r:b='1'/>", NWF},
        {"<a><b xmlns:r='urn:r'/><r:c/></a>", NWF},
        {"<a xmlns:r='urn:p' r:b='1' p:b='2'/>", NWF},
        {"<a xmlns:r='urn&#58;p' r:b='1' p:b='2'/>", NWF},
        {"<a xmlns:r=''/>", NWF},
        {"<a xmlns:='urn:r'/>", NWF},
        {"<xmlns:a/>", NWF},
        {"<a xmlns:xmlns='urn:r'/>", NWF},
        {"<a xmlns:xml='urn:r'/>", NWF},
        {"<a xmlns='http://www.w3.org/2000/xmlns/'/>", NWF},
        {"<a xmlns='http://www.w3.org/XML/1998/namespace'/>", NWF},
        {"<a xmlns:r='http://www.w3.org/XML/1998/namesp&#97;ce'/>", NWF},
        {"<a xmlns='urn:a' xmlns='urn:a'/>", NWF},
        {"</stream>", NWF},
        {"</stream:streams>", NWF},
        {"\xef\xbb\xbf<a/>", NWF},
        {"\x02", NWF},
    };
    check_rows(rows, array_len(rows), HEADER, XML_EXPECT_ELEMENT);
    struct xml_header h = read_header(HEADER);
    const str nul = {"<a>\0</a>", 8};
    assert_int_equal(feed(nul, 0, &h, XML_EXPECT_ELEMENT).e, NWF);
}

static void what_rfc_6120_forbids_is_rejected_by_its_name(void **state)
{
    static const struct row rows[] = {
        {"<!-- comment -->", RESTRICTED},
        {"<a><!-- comment --></a>", RESTRICTED},
        {"<?pi x?>", RESTRICTED},
        {"<a><?pi x?></a>", RESTRICTED},
        {"<?xml version='1.0'?>", RESTRICTED},
        {"<!DOCTYPE a>", RESTRICTED},
        {"<a><!ENTITY b 'c'></a>", RESTRICTED},
        {"<a>&nbsp;</a>", RESTRICTED},
        {"<a b='&c;'/>", RESTRICTED},
        {"<a>&\xc3\xa9;</a>", RESTRICTED},
        {"<a>&anentitywhosenameislongerthanthirtytwobytes;</a>", RESTRICTED},
        {"text", ERR_STREAM_BAD_FORMAT},
        {"&lt;", ERR_STREAM_BAD_FORMAT},
        {"<![CDATA[x]]>", ERR_STREAM_BAD_FORMAT},
        {"\xc3\xa9", ERR_STREAM_BAD_FORMAT},
    };
    check_rows(rows, array_len(rows), HEADER, XML_EXPECT_ELEMENT);
}

static void a_header_inside_the_stream_is_refused_with_its_start_tag(void **state)
{
#define STREAMS "'http://etherx.jabber.org/streams'"
    static const struct row refused[] = {
        {"<stream:stream>", ERR_STREAM_BAD_FORMAT},
        {"<stream:stream to='a' version='1.0' xmlns='jabber:client'>", ERR_STREAM_BAD_FORMAT},
        {"<stream:stream/>", ERR_STREAM_BAD_FORMAT},
        {"<s:stream xmlns:s=" STREAMS ">", ERR_STREAM_BAD_FORMAT},
        {"<stream xmlns=" STREAMS ">", ERR_STREAM_BAD_FORMAT},
        {"<stream xmlns='http://etherx.jabber.org/stream&#115;'>", ERR_STREAM_BAD_FORMAT},
    };
    check_rows(refused, array_len(refused), HEADER, XML_EXPECT_ELEMENT);
    static const struct row others[] = {
        {"<stream:error/>", ERR_OK},
        {"<stream/>", ERR_OK},
        {"<p:stream/>", ERR_OK},
        {"<stream:stream xmlns:stream='urn:s'/>", ERR_OK},
        {"<a><stream:stream/></a>", ERR_OK},
    };
    check_rows(others, array_len(others), HEADER, XML_EXPECT_ELEMENT);
    static const struct row alone[] = {{"<stream xmlns=" STREAMS "/>", ERR_OK}};
    check_rows(alone, array_len(alone), NULL, XML_EXPECT_ELEMENT);
}

/* What takes the short way through a tag must see what the long way sees, wherever it is cut. */
static void an_attribute_is_the_same_by_the_short_way_and_the_long(void **state)
{
    static const char *const xmls[] = {
        "<m to='a' from=\"b\"/>",
        "<m  to='a'  from='b'/>",
        "<m to ='a' from= 'b'/>",
        "<m\tto='a'\nfrom='b' />",
        "<m to='a' from='b'\n></m>",
        "<m to='a>' from='b'>t</m>",
        "<m to='\"' from=\"'\"/>",
        "<m to='&gt;' from='\xc3\xa9'/>",
        "<m x:to='' to='a'/>",
        "<m xmlns:x='urn:x' x:a='1' to=''><x:to to='b'/></m>",
        "<m to='' to=''/>",
        "<m tx='' ux='' to='1' uo='2'/>",
        "<m to='a'from='b'/>",
        "<m to=a/>",
        "<m to='<'/>",
        "<m xmlns='' to='0123456789abcdefghijklmnopqrstuvwxyz'/>",
        "<m xmlns:xml='urn:x'/>",
        "<m xmlns='http://www.w3.org/XML/1998/namespace'/>",
        "<m xmlns:xmlns='urn:x'/>",
        "<m xmlns='http://www.w3.org/2000/xmlns/'/>",
        "<m xmlns:p=''/>",
        "<m:n xmlns:m='urn:m'/>",
    };
    struct xml_header h = read_header(HEADER);
    for (size_t i = 0; i < array_len(xmls); i++) {
        struct verdict long_way = feed(str_of(xmls[i]), 1, &h, XML_EXPECT_ELEMENT);
        for (size_t step = 0; step < 20; step++) {
            struct verdict v = feed(str_of(xmls[i]), step, &h, XML_EXPECT_ELEMENT);
            if (v.e != long_way.e)
                fail_msg("%s by %zu: %s", xmls[i], step, err_row(v.e)->name);
            if (v.e == ERR_OK)
                assert_memory_equal(&v.index, &long_way.index, xml_index_size(&v.index));
        }
    }
}

static void limits_are_held_while_scanning(void **state)
{
    static const struct row rows[] = {
        {"<a><b><c><d/></c></b></a>", ERR_OK},
        {"<a><b><c><d><e/></d></c></b></a>", ERR_STREAM_TOO_DEEP},
        {"<a b='' c='' d='' e=''/>", ERR_OK},
        {"<a b='' c='' d='' e='' f=''/>", ERR_STREAM_TOO_MANY_ATTRIBUTES},
        {"<a xmlns='urn:a' xmlns:b='urn:b' xmlns:c='urn:c' b='' c='' d='' e=''/>", ERR_OK},
        {"<a xmlns='urn:a' xmlns:b='urn:b' xmlns:c='urn:c' xmlns:d='urn:d' xmlns:e='urn:e'/>",
         ERR_STREAM_TOO_MANY_NAMESPACES},
        {"<abcdefghijklmnop/>", ERR_OK},
        {"<abcdefghijklmnopq/>", ERR_STREAM_NAME_TOO_LONG},
        {"<a abcdefghijklmnopq='1'/>", ERR_STREAM_NAME_TOO_LONG},
        {"<a><b/><b/><b/><b/><b/><b/><b/></a>", ERR_OK},
        {"<a><b/><b/><b/><b/><b/><b/><b/><b/></a>", ERR_STREAM_TOO_MANY_ELEMENTS},
        {"<a>&#00000000000000000000000000000000000000000065;</a>", ERR_STREAM_POLICY_VIOLATION},
    };
    check_rows(rows, array_len(rows), HEADER, XML_EXPECT_ELEMENT);
    struct xml_header h = read_header(HEADER);
    assert_int_equal(feed(STR("         <a/>"), 0, &h, XML_EXPECT_ELEMENT).e,
                     ERR_STREAM_WHITESPACE_FLOOD);
}

static void an_item_may_have_all_the_bytes_and_not_one_more(void **state)
{
    char bytes[400];
    memset(bytes, 'x', sizeof bytes);
    memcpy(bytes, "<a>", 3);
    memcpy(bytes + 296, "</a>", 4);
    struct row fits = {bytes, ERR_OK}, over = {bytes, ERR_STREAM_STANZA_TOO_BIG};
    bytes[300] = 0;
    check_row(&fits, NULL, XML_EXPECT_ELEMENT);
    memcpy(bytes + 296, "x</a>", 6);
    check_row(&over, NULL, XML_EXPECT_ELEMENT);
}

static void every_proper_prefix_is_partial(void **state)
{
    const str xml = STR("<p:m to = 'a&amp;b' xmlns:r=\"urn:r\"><b r:c='\xc3\xa9'>t&#65;\xe2\x82\xac"
                        "<![CDATA[x]]></b><c /></p:m >");
    struct xml_header h = read_header(HEADER);
    for (size_t n = 1; n < xml.n; n++)
        assert_int_equal(feed(str_from(xml.p, n), 0, &h, XML_EXPECT_ELEMENT).e, ERR_PARTIAL);
    assert_int_equal(feed(xml, 0, &h, XML_EXPECT_ELEMENT).e, ERR_OK);
}

static void a_stream_starts_with_a_declaration_or_a_header(void **state)
{
    static const struct row start[] = {
        {HEADER, ERR_OK},
        {"<?xml version='1.0'?>", ERR_OK},
        {"<?xml version=\"1.0\" encoding='utf-8' standalone='yes' ?>", ERR_OK},
        {"<?xml version = '1.0'\n?>", ERR_OK},
        {"<?xml version='1.0' encoding='ISO-8859-1'?>", ERR_STREAM_UNSUPPORTED_ENCODING},
        {"<?xml version='1.0' encoding='UTF-16'?>", ERR_STREAM_UNSUPPORTED_ENCODING},
        {"<?xml version='1.0' encoding='-'?>", NWF},
        {"<?xml version='1.1'?>", NWF},
        {"<?xml?>", NWF},
        {"<?xml encoding='UTF-8'?>", NWF},
        {"<?xml version='1.0' x='y'?>", NWF},
        {"<?xml version='1.0'encoding='UTF-8'?>", NWF},
        {"<?xml version='1.0' standalone='1'?>", NWF},
        {"<?xml version='1.0' <", NWF},
        {"<?xml-stylesheet x?>", RESTRICTED},
        {"<?php x?>", RESTRICTED},
        {"<!DOCTYPE a>", RESTRICTED},
        {"\xef\xbb\xbf<a>", NWF},
        {"GET / HTTP/1.1", NWF},
        {"\x16\x03\x01", NWF},
        {"</a>", NWF},
        {"<a/>", ERR_STREAM_BAD_FORMAT},
        {"<p:a>", NWF},
    };
    check_rows(start, array_len(start), NULL, XML_EXPECT_START);
    static const struct row after[] = {{HEADER, ERR_OK}, {"<?xml version='1.0'?>", RESTRICTED}};
    check_rows(after, array_len(after), NULL, XML_EXPECT_HEADER);
}

static void an_element_may_stand_alone(void **state)
{
    static const struct row rows[] = {
        {"<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='example.com'/>", ERR_OK},
        {"<p:a/>", NWF},
        {"</a>", NWF},
        {"text", NWF},
        {"<![CDATA[x]]>", NWF},
    };
    check_rows(rows, array_len(rows), NULL, XML_EXPECT_ELEMENT);
}

static void check_span(const char *xml, struct xml_span s, const char *expect)
{
    assert_int_equal(s.len, strlen(expect));
    assert_memory_equal(xml + s.off, expect, s.len);
}

static void the_index_says_what_a_stanza_is(void **state)
{
    const char *xml = "<message  to='a@b'\n from=\"c&amp;d\" id='' type='chat'><body>x</body>"
                      "<p:n/><x xmlns='urn:xmpp:receipts'/><y/></message>";
    struct xml_header h = read_header(HEADER);
    for (size_t step = 0; step < 2; step++) {
        struct xml_index x = feed(str_of(xml), step, &h, XML_EXPECT_ELEMENT).index;
        assert_int_equal(x.len, strlen(xml));
        assert_int_equal(x.ns, NS_CLIENT);
        assert_int_equal(x.splice, 8);
        assert_int_equal(x.open_len, strchr(xml, '>') + 1 - xml);
        check_span(xml, (struct xml_span){x.name_off, x.name_len}, "message");
        check_span(xml, x.to, "a@b");
        check_span(xml, x.from, "c&amp;d");
        check_span(xml, x.type, "chat");
        check_span(xml, x.to_attr, "  to='a@b'");
        check_span(xml, x.from_attr, "\n from=\"c&amp;d\"");
        assert_true(x.id.off > 0 && x.id.len == 0);
        assert_true(x.entities && !x.empty && !x.root_prefixed && x.lang.off == 0);
        assert_int_equal(x.header_prefixes, 2); /* stream, p, q: bit 1 */
        assert_int_equal(x.children, 4);
        assert_int_equal(x.nchild, 4);
        check_span(xml, (struct xml_span){x.child[0].off, x.child[0].len}, "<body>x</body>");
        check_span(xml, (struct xml_span){x.child[1].off, x.child[1].len}, "<p:n/>");
        check_span(xml, (struct xml_span){x.child[1].name_off, x.child[1].name_len}, "n");
        assert_int_equal(x.child[0].ns, NS_CLIENT);
        assert_int_equal(x.child[1].ns, NS_OTHER);
        assert_int_equal(x.child[2].ns, NS_RECEIPTS);
        check_span(xml, x.child[2].ns_uri, "urn:xmpp:receipts");
        assert_int_equal(x.child[3].ns, NS_CLIENT);
        assert_int_equal(x.child[3].ns_uri.off, 0);
    }
}

static void white_space_is_reported_as_far_as_it_reaches(void **state)
{
    struct xml_header h = read_header(HEADER);
    struct verdict v = feed(STR("\n \t<a/>"), 0, &h, XML_EXPECT_ELEMENT);
    assert_int_equal(v.e, ERR_OK);
    assert_int_equal(v.what, XML_WHITESPACE);
    assert_int_equal(v.used, 3);
}

static void a_header_gives_its_declarations(void **state)
{
    struct xml_header h =
        read_header("<s xmlns='jabber:client' xmlns:c='urn:&#58;' xmlns:x='jabber:"
                    "server' xmlns:xml='http://www.w3.org/XML/1998/namespace'>");
    assert_int_equal(h.default_ns, NS_CLIENT);
    assert_int_equal(h.prefixes, 2);
    assert_string_equal(h.prefix[0].prefix, "c");
    assert_string_equal(h.prefix[0].uri, "urn:&#58;");
    assert_int_equal(h.prefix[1].ns, NS_SERVER);
    assert_string_equal(h.name, "s");
}

static void namespaces_are_found_by_their_uri(void **state)
{
    for (unsigned ns = 1; ns < NS_MAX; ns++)
        assert_int_equal(xml_ns_find(xml_ns_uri(ns)), ns);
    assert_int_equal(xml_ns_find(STR("urn:xmpp:other")), NS_OTHER);
    assert_int_equal(xml_ns_find(STR("")), NS_OTHER);
}

static bool expat_accepts(str xml)
{
    XML_Parser p = XML_ParserCreateNS("UTF-8", 1);
    bool ok = XML_Parse(p, xml.p, (int)xml.n, 1) == XML_STATUS_OK;
    XML_ParserFree(p);
    return ok;
}

/* The bytes of cp as UTF-8 would have them, surrogates and all. */
static size_t encode(uint32_t cp, char *out)
{
    size_t n = cp < 0x80 ? 1 : cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
    static const uint8_t lead[] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (size_t i = n; i-- > 1; cp >>= 6)
        out[i] = (char)(0x80 | (cp & 0x3f));
    out[0] = (char)(lead[n] | cp);
    return n;
}

static void every_character_is_judged_as_expat_judges_it(void **state)
{
    static const char *const around[][2] = {{"<", "/>"}, {"<a", "/>"}, {"<a>", "</a>"}};
    for (uint32_t cp = 1; cp < 0x110000; cp += cp < 0x3400 ? 1 : 37)
        for (size_t i = 0; i < array_len(around); i++) {
            char xml[32] = "", c[5] = "";
            encode(cp, c);
            if (cp < 0x80 && strchr("<&/>: \t\r\n", (int)cp))
                continue;
            snprintf(xml, sizeof xml, "%s%s%s", around[i][0], c, around[i][1]);
            bool ok = feed(str_of(xml), 0, NULL, XML_EXPECT_ELEMENT).e == ERR_OK;
            if (ok != expat_accepts(str_of(xml)))
                fail_msg("U+%04X in %s", cp, xml);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(well_formed_elements_are_accepted),
        cmocka_unit_test(what_is_not_well_formed_is_rejected),
        cmocka_unit_test(what_rfc_6120_forbids_is_rejected_by_its_name),
        cmocka_unit_test(a_header_inside_the_stream_is_refused_with_its_start_tag),
        cmocka_unit_test(an_attribute_is_the_same_by_the_short_way_and_the_long),
        cmocka_unit_test(limits_are_held_while_scanning),
        cmocka_unit_test(an_item_may_have_all_the_bytes_and_not_one_more),
        cmocka_unit_test(every_proper_prefix_is_partial),
        cmocka_unit_test(a_stream_starts_with_a_declaration_or_a_header),
        cmocka_unit_test(an_element_may_stand_alone),
        cmocka_unit_test(the_index_says_what_a_stanza_is),
        cmocka_unit_test(white_space_is_reported_as_far_as_it_reaches),
        cmocka_unit_test(a_header_gives_its_declarations),
        cmocka_unit_test(namespaces_are_found_by_their_uri),
        cmocka_unit_test(every_character_is_judged_as_expat_judges_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
