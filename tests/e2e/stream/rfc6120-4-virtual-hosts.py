"""Several domains on one node: accounts of the same name are two people, who talk to each other like
anybody; each domain answers for itself; prefixes mean what the nearest declaration says."""

import xml.etree.ElementTree as ET

from pemb import Client, NS, barrier, befriend, condition, q

USERS = ("alice@localhost", "alice@example.org", "bob@example.org")
HOSTS = ("localhost", "example.org", "bücher.example")
SETTINGS = ("limits.close_timeout=200ms",)


def test_users_of_two_domains_talk(server):
    a = Client(server, "alice@localhost/x").login(presence=True)
    b = Client(server, "bob@example.org/y").login(presence=True)
    befriend(a, b)
    a.message("bob@example.org", "over there")
    got = b.expect_body("over there")
    assert got.get("from") == "alice@localhost/x"
    b.message(a.jid, "and back")
    a.expect_body("and back")
    b.close()
    a.expect_presence("bob@example.org/y", "unavailable")
    a.message("bob@example.org", "for later")
    a.ping()
    b = Client(server, "bob@example.org/y").login(presence=True)
    late = b.expect_body("for later")
    assert late.find("{urn:xmpp:delay}delay").get("from") == "example.org"
    for c in (a, b):
        c.close()


def test_the_same_name_at_two_domains_is_two_people(server):
    server.cli("user", "passwd", "--stdin", "alice@example.org", stdin="other-password\n")
    a = Client(server, "alice@localhost/x").login(presence=True)
    c = Client(server, "alice@example.org/x", password="other-password").login(presence=True)
    wrong = Client(server, "alice@example.org")
    wrong.open()
    wrong.starttls()
    assert wrong.auth().tag == q("sasl:failure"), "the password of the other domain"
    wrong.sock.close()
    a.iq("set", "<query xmlns='jabber:iq:roster'><item jid='only@localhost'/></query>")
    roster = c.iq("get", "<query xmlns='jabber:iq:roster'/>")
    assert roster.find("roster:query/roster:item[@jid='only@localhost']", NS) is None
    a.message("alice@example.org", "to my namesake")
    c.expect_body("to my namesake")
    barrier(a, c)
    assert not a.take(lambda e: e.findtext("c:body", None, NS) == "to my namesake")
    for client in (a, c):
        client.close()


def test_each_domain_answers_for_itself(server):
    a = Client(server, "alice@localhost/x").login(presence=True)
    for domain in ("localhost", "example.org"):
        got = a.iq("get", "<query xmlns='http://jabber.org/protocol/disco#info'/>", to=domain)
        assert got.get("from") == domain
        assert got.find("info:query/info:identity[@category='server']", NS) is not None
    id = a.message("nobody@example.org", "x")
    error = a.expect(lambda e: e.get("id") == id)
    assert error.get("from") == "nobody@example.org"
    assert condition(error) == ("service-unavailable", "cancel")
    assert condition(a.iq("get", "<ping xmlns='urn:xmpp:ping'/>", to="not.here", check=False)) == \
        ("remote-server-not-found", "cancel")
    a.close()


def test_a_domain_by_any_of_its_spellings(server):
    server.add_user("carl@bücher.example")
    for spelling in ("bücher.example", "xn--bcher-kva.example", "BÜCHER.example"):
        c = Client(server, "carl@bücher.example/x")
        c.open(to=spelling)
        assert c.header.get("from") == "bücher.example", c.header.get("from")
        assert c.auth().tag == q("sasl:success")
        assert c.bind("x").get("type") == "result" and c.jid == "carl@bücher.example/x"
        c.message(f"carl@{spelling}/x", "to myself")
        assert c.expect_body("to myself").get("to") == "carl@bücher.example/x"
        c.close()


def test_prefixes_mean_what_the_nearest_declaration_says(server):
    """Declared on the header, bound again on the stanza or below it, used after that again."""
    b = Client(server, "bob@example.org/y").login(presence=True)
    a = Client(server, "alice@localhost/x")
    a.open()
    assert a.auth(reopen=False).tag == q("sasl:success")
    a.open(extra="xmlns:p='urn:header' xmlns:unused='urn:unused'")
    assert a.bind("x").get("type") == "result"
    a.send(f"<message to='{b.jid}' id='1' p:at='1'><p:a/><p:b xmlns:p='urn:stanza' p:at='2'><p:c/></p:b>"
           "<p:d/></message>")
    m = b.expect(lambda e: e.get("id") == "1")
    assert m.get("{urn:header}at") == "1"
    assert [e.tag for e in m] == ["{urn:header}a", "{urn:stanza}b", "{urn:header}d"], ET.tostring(m)
    assert m[1].get("{urn:stanza}at") == "2" and m[1][0].tag == "{urn:stanza}c"
    a.send(f"<message to='{b.jid}' id='2' xmlns:p='urn:root'><p:a/><b xmlns='urn:deflt'><c/></b></message>")
    m = b.expect(lambda e: e.get("id") == "2")
    assert [e.tag for e in m] == ["{urn:root}a", "{urn:deflt}b"] and m[1][0].tag == "{urn:deflt}c"
    a.send(f"<message xmlns='jabber:client' to='{b.jid}' id='3'><stream:x/><xml:y/></message>")
    m = b.expect(lambda e: e.get("id") == "3")
    assert m[0].tag == "{%s}x" % NS["stream"]
    a.send(f"<message xmlns:p='jabber:client' to='{b.jid}' id='4'><p:body>prefixed</p:body></message>")
    assert b.expect(lambda e: e.get("id") == "4").findtext("c:body", None, NS) == "prefixed"
    a.ping()
    for c in (a, b):
        c.close()


def test_a_prefix_stood_for_the_content_namespace_is_refused_on_the_root(server):
    for extra, root in (("xmlns:p='jabber:client'", "<p:message to='alice@localhost'/>"),
                        ("", "<p:presence xmlns:p='jabber:client'/>")):
        a = Client(server, "alice@localhost/x")
        a.open()
        a.auth(reopen=False)
        a.open(extra=extra)
        a.bind("x")
        a.send(root)
        a.stream_error("bad-namespace-prefix")
