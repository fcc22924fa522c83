"""XEP-0280: Message Carbons, by the words of its sections, with resources on both shards; and after a
kill -9 of the home."""

import json
import xml.etree.ElementTree as ET

from pemb import Client, NS, barrier, condition, q, resume

USERS = ("alice@localhost", "bob@localhost")
CARBONS = "urn:xmpp:carbons:2"
FORWARD = "urn:xmpp:forward:0"
LOGINS_MAX = 80


def enable(c):
    c.iq("set", f"<enable xmlns='{CARBONS}'/>")
    return c


def login(server, jid, priority=0, carbons=True, sm=False):
    c = Client(server, jid).login(sm=sm)
    if priority is not None:
        c.send(f"<presence><priority>{priority}</priority></presence>")
        c.expect_presence(c.jid)
    return enable(c) if carbons else c


def messages(c):
    """Without the copies of what tests wait for."""
    return [e for e in c.take(lambda e: e.tag == q("c:message")) if "barrier-" not in ET.tostring(e, "unicode")]


def copied(e, direction, owner):
    """The message that e carries (7, 8)."""
    assert e.get("from") == f"{owner.user}@{owner.host}" and e.get("to") == owner.jid, ET.tostring(e)
    assert len(e) == 1 and e[0].tag == "{%s}%s" % (CARBONS, direction), ET.tostring(e)
    inner = e[0].find(f"{{{FORWARD}}}forwarded/c:message", NS)
    assert inner is not None and (inner.get("type") or "normal") == (e.get("type") or "normal")
    return inner


def expect_copy(c, direction, body):
    return c.expect(lambda e: e.tag == q("c:message") and len(e) and e[0].tag == "{%s}%s" % (CARBONS, direction)
                    and copied(e, direction, c).findtext("c:body", None, NS) == body)


def close(*clients):
    for c in clients:
        c.close()


def home_of(server, jid):
    return int(json.loads(server.cli("--json", "user", "sessions", jid).stdout)["items"][0]["home"].split("/")[1])


def edge_of(server, c):
    for item in json.loads(server.cli("--json", "user", "sessions", f"{c.user}@{c.host}").stdout)["items"]:
        if item["jid"] == c.jid:
            return int(item["edge"].split("/")[1])
    raise AssertionError(c.jid)


def on_edge(server, jid, edge):
    for _ in range(LOGINS_MAX):
        c = login(server, jid, sm=True)
        if edge_of(server, c) == edge:
            return c
        c.close()
    raise AssertionError(f"no connection of {jid} came to shard {edge}")


def test_2_the_server_says_that_it_is_there_with_all_rules_of_6_1(server):
    c = Client(server, "alice@localhost/x").login()
    features = {f.get("var") for f in c.iq("get", f"<query xmlns='{NS['info']}'/>", to="localhost")[0]
                if f.tag == q("info:feature")}
    assert {CARBONS, "urn:xmpp:carbons:rules:0"} <= features
    c.close()


def test_4_1_and_10_1_both_requests_may_come_at_any_time_and_again(server):
    one, two = login(server, "alice@localhost/one"), login(server, "alice@localhost/two")
    bob = Client(server, "bob@localhost/b").login()
    enable(two)
    bob.message(one.jid, "first")
    one.expect_body("first")
    expect_copy(two, "received", "first")
    for _ in range(2):
        two.iq("set", f"<disable xmlns='{CARBONS}'/>")
    bob.message(one.jid, "second")
    barrier(bob, one, two)
    assert not messages(two)
    assert condition(two.iq("set", f"<able xmlns='{CARBONS}'/>", check=False)) == ("feature-not-implemented", "cancel")
    for jid in ("bob@localhost", "nobody@localhost"):  # 5.1: not for another's client
        answer = two.iq("set", f"<enable xmlns='{CARBONS}'/>", to=jid, check=False)
        assert condition(answer) == ("service-unavailable", "cancel")
    close(one, two, bob)


def test_7_and_8_each_resource_has_each_message_of_both_sides_once(server):
    one, two = login(server, "alice@localhost/one"), login(server, "alice@localhost/two", -1)
    quiet, bob = login(server, "alice@localhost/quiet", None), login(server, "bob@localhost/b")
    bob.message("alice@localhost", "to all")
    bob.message(one.jid, "to one")
    one.message(bob.jid, "answer")
    quiet.message("bob@localhost", "mine too")
    barrier(bob, one, two, quiet)
    barrier(one, bob)
    barrier(quiet, bob)
    barrier(two, one, two, quiet)

    def seen(c):
        got = []
        for e in messages(c):
            body = e.findtext("c:body", None, NS)
            if body is None and (copy := copied(e, e[0].tag.split("}")[1], c)) is not None:
                body = f"{e[0].tag.split('}')[1]} {copy.findtext('c:body', None, NS)}"
            got.append(body)
        return sorted(got)
    assert seen(one) == ["sent mine too", "to all", "to one"]
    assert seen(two) == ["received to all", "received to one", "sent answer", "sent mine too"]
    assert seen(quiet) == ["received to all", "received to one", "sent answer"]
    assert seen(bob) == ["answer", "mine too"]
    close(one, two, quiet, bob)


def test_7_a_copy_holds_the_message_as_it_came(server):
    one, two = login(server, "alice@localhost/one"), login(server, "alice@localhost/two")
    bob = Client(server, "bob@localhost/b").login()
    bob.send(f"<message to='{one.jid}' id='x&amp;y' type='chat' xml:lang='de'><body>&lt;Ä&gt;</body>"
             "<thread>t</thread><p:x xmlns:p='urn:p' p:a='1'/></message>")
    original = one.expect_body("<Ä>")
    inner = copied(expect_copy(two, "received", "<Ä>"), "received", two)
    assert ET.canonicalize(ET.tostring(inner, "unicode")) == ET.canonicalize(ET.tostring(original, "unicode"))
    close(one, two, bob)


def test_9_a_private_message_is_copied_to_neither_side(server):
    one, two = login(server, "alice@localhost/one"), login(server, "alice@localhost/two")
    bob, other = login(server, "bob@localhost/b"), login(server, "bob@localhost/other")
    for extra in (f"<private xmlns='{CARBONS}'/>", "<no-copy xmlns='urn:xmpp:hints'/>"):
        one.message(bob.jid, "secret", extra=extra)
        assert len(bob.expect_body("secret")) == 3  # the element stays where it is; the archive's id
    barrier(one, bob, two, other)
    barrier(bob, other)
    assert not [e for e in messages(two) + messages(other) if "secret" in ET.tostring(e).decode()]
    close(one, two, bob, other)


def test_10_3_a_bounced_copy_is_told_to_nobody(server):
    one, two = login(server, "alice@localhost/one"), login(server, "alice@localhost/two")
    bob = login(server, "bob@localhost/b")
    bob.message(one.jid, "x", id="m1")
    e = expect_copy(two, "received", "x")
    two.send(f"<message to='{e.get('from')}' type='error'><error type='cancel'>"
             f"<service-unavailable xmlns='{NS['stanzas']}'/></error></message>")
    barrier(two, one)
    barrier(one, bob)
    assert not [e for e in messages(bob) + messages(one) if e.get("type") == "error"]
    close(one, two, bob)


def test_6_1_an_error_for_a_message_is_copied_as_the_message_was(server):
    one, two = login(server, "alice@localhost/one"), login(server, "alice@localhost/two")
    one.message("nobody@localhost", "is there anybody?")
    error = one.expect(lambda e: e.get("type") == "error")
    assert condition(error) == ("service-unavailable", "cancel")
    expect_copy(two, "sent", "is there anybody?")
    copy = two.expect(lambda e: e.get("type") == "error")
    assert copied(copy, "received", two).get("from") == "nobody@localhost"
    close(one, two)


def test_11_a_forged_copy_comes_as_its_senders_own(server):
    one, two = login(server, "alice@localhost/one"), login(server, "alice@localhost/two")
    bob = Client(server, "bob@localhost/b").login()
    forged = (f"<received xmlns='{CARBONS}'><forwarded xmlns='{FORWARD}'><message xmlns='jabber:client' "
              "from='juliet@localhost' to='alice@localhost'><body>meet me</body></message></forwarded></received>")
    for sender in ("alice@localhost", one.jid, "localhost"):
        bob.send(f"<message from='{sender}' to='{one.jid}' type='chat'>{forged}</message>")
        assert one.expect("c:message").get("from") == bob.jid
    barrier(bob, one, two)
    assert not messages(two)  # and no copies are made of it
    close(one, two, bob)


def test_what_was_asked_for_survives_the_homes_death_and_a_resumption(server):
    probe = login(server, "alice@localhost/probe")
    home = home_of(server, "alice@localhost")
    close(probe)
    one, two = on_edge(server, "alice@localhost/one", 1 - home), on_edge(server, "alice@localhost/two", 1 - home)
    bob = on_edge(server, "bob@localhost/b", 1 - home)
    for i in range(10):
        bob.message(one.jid, f"before {i}")
    server.kill_process("shard", home)
    for i in range(10):
        bob.message(one.jid, f"after {i}")
    want = [f"before {i}" for i in range(10)] + [f"after {i}" for i in range(10)]
    got = [one.expect("c:message").findtext("c:body", None, NS) for _ in want]
    assert got == want, got
    got = [copied(two.expect("c:message"), "received", two).findtext("c:body", None, NS) for _ in want]
    assert got == want, got
    barrier(bob, two)
    assert not messages(two)
    two.drop()
    two, answer = resume(server, two)
    assert answer.tag == q("sm:resumed")
    bob.message(one.jid, "still")
    expect_copy(two, "received", "still")
    close(one, two, bob)
