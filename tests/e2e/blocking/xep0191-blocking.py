"""XEP-0191: Blocking Command, and XEP-0377: reports, by the words of their sections, over two shards."""

import xml.etree.ElementTree as ET

from pemb import Client, NS, barrier, befriend, condition, q

USERS = ("alice@localhost", "bob@localhost", "carol@localhost")
BLOCKING = "urn:xmpp:blocking"


def block(c, *jids, name="block", inner=""):
    items = "".join(f"<item jid='{j}'>{inner}</item>" for j in jids)
    return c.iq("set", f"<{name} xmlns='{BLOCKING}'>{items}</{name}>")


def unblock(c, *jids):
    return block(c, *jids, name="unblock")


def blocklist(c):
    answer = c.iq("get", f"<blocklist xmlns='{BLOCKING}'/>")
    return [i.get("jid") for i in answer[0]]


def expect_push(c, name):
    e = c.expect(lambda e: e.tag == q("c:iq") and e.get("type") == "set" and e[0].tag == "{%s}%s" % (BLOCKING, name))
    assert e.get("to") == c.jid and e.get("from") is None, ET.tostring(e)
    return [i.get("jid") for i in e[0]]


def of(c, tag):
    return c.take(lambda e: e.tag == q(tag))


def online(server, *jids):
    return [Client(server, j).login(presence=True) for j in jids]


def close(*clients):
    for c in clients:
        c.close()


def test_3_1_the_server_says_that_it_is_there(server):
    c = Client(server, "alice@localhost/x").login()
    features = {f.get("var") for f in c.iq("get", f"<query xmlns='{NS['info']}'/>", to="localhost")[0]
                if f.tag == q("info:feature")}
    assert {BLOCKING, "urn:xmpp:reporting:1"} <= features
    c.close()


def test_3_2_to_3_5_who_has_asked_for_the_list_is_told_of_changes(server):
    one, two, quiet = online(server, "alice@localhost/1", "alice@localhost/2", "alice@localhost/3")
    assert blocklist(one) == blocklist(two) == []
    block(one, "romeo@montague.net", "iago@shakespeare.lit")
    for c in (one, two):
        assert expect_push(c, "block") == ["romeo@montague.net", "iago@shakespeare.lit"]
    assert blocklist(one) == ["romeo@montague.net", "iago@shakespeare.lit"]
    unblock(two, "romeo@montague.net")
    for c in (one, two):
        assert expect_push(c, "unblock") == ["romeo@montague.net"]
    unblock(quiet)
    for c in (one, two):
        assert expect_push(c, "unblock") == []
    quiet.ping()
    assert not of(quiet, "c:iq")
    assert blocklist(quiet) == []
    close(one, two, quiet)


def test_3_3_a_blocked_contact_is_told_what_he_would_be_told_of_nobody(server):
    alice, bob = online(server, "alice@localhost/x", "bob@localhost/x")
    befriend(alice, bob)
    for c in (alice, bob):
        c.ping()
        c.backlog.clear()
    block(alice, "bob@localhost")
    bob.expect_presence(alice.jid, "unavailable")
    answers = {}
    for name in ("alice", "nobody"):
        bare = f"{name}@localhost"
        for to in (bare, f"{bare}/x"):
            for type in ("chat", "normal"):
                id = bob.message(to, "x", type=type)
                e = bob.expect(lambda e: e.get("id") == id)
                answers.setdefault(name, []).append((to.replace(name, "?"), type, condition(e)))
            bob.message(to, "x", type="headline")
            for ns in ("urn:xmpp:ping", "jabber:iq:last", "vcard-temp"):
                e = bob.iq("get", f"<query xmlns='{ns}'/>", to=f"{bare}/x", check=False)
                answers[name].append((ns, condition(e)))
            bob.send(f"<presence type='probe' to='{to}'/>" if name == "alice" else "")
            bob.send(f"<iq type='result' id='r' to='{to}'/><presence to='{to}'/>")
    assert answers["alice"] == answers["nobody"], answers
    assert {a[-1] for a in answers["alice"]} == {("service-unavailable", "cancel")}
    bob.ping()
    assert not of(bob, "c:presence") + of(bob, "c:message") + of(bob, "c:iq")  # the probes, too
    alice.ping()
    assert not of(alice, "c:message") + of(alice, "c:iq")
    alice.send("<presence><show>away</show></presence>")  # he is told nothing more
    alice.expect_presence(alice.jid)
    bob.send("<presence><show>dnd</show></presence>")  # and neither is she
    bob.expect_presence(bob.jid)
    late = Client(server, "bob@localhost/late").login(presence=True)  # his login's probe
    late.ping()
    assert not late.take(lambda e: (e.get("from") or "").startswith("alice"))
    assert not alice.take(lambda e: (e.get("from") or "").startswith("bob"))
    alice.close()
    bob.ping()
    assert not bob.take(lambda e: (e.get("from") or "").startswith("alice"))
    alice = Client(server, "alice@localhost/x").login(presence=True)
    assert not of(alice, "c:message")  # 3.3: nothing of it was kept
    unblock(alice, "bob@localhost")
    for c in (bob, late):  # 3.4: his own presence, hers
        c.expect_presence(alice.jid)
        alice.expect_presence(c.jid)
    bob.message("alice@localhost", "again")
    alice.expect_body("again")
    close(alice, bob, late)


def test_3_3_what_is_sent_to_a_blocked_contact_comes_back(server):
    alice, bob = online(server, "alice@localhost/x", "bob@localhost/x")
    other = Client(server, "alice@localhost/carbons").login()
    other.iq("set", "<enable xmlns='urn:xmpp:carbons:2'/>")
    block(alice, "bob@localhost")

    def expect_blocked(e):
        assert condition(e) == ("not-acceptable", "cancel")
        assert e.find("c:error/{urn:xmpp:blocking:errors}blocked", NS) is not None
        assert e.get("from").startswith("bob@localhost")
    for to in ("bob@localhost", bob.jid):
        id = alice.message(to, "x")
        expect_blocked(alice.expect(lambda e: e.get("id") == id))
        expect_blocked(alice.iq("get", "<ping xmlns='urn:xmpp:ping'/>", to=to, check=False))
        alice.send(f"<presence to='{to}' id='p'/>")
        expect_blocked(alice.expect(lambda e: e.get("id") == "p"))
        alice.send(f"<message type='error' to='{to}'><error/></message><iq type='result' id='r' to='{to}'/>")
    alice.ping()
    assert not of(alice, "c:message") + of(alice, "c:iq")  # errors are not answered
    bob.ping()
    assert not of(bob, "c:message") + of(bob, "c:iq")
    other.ping()
    assert not of(other, "c:message")  # and leave no copies
    unblock(alice)
    close(alice, bob, other)


def test_3_3_directed_presence_is_taken_back(server):
    alice, carol = online(server, "alice@localhost/x", "carol@localhost/x")
    alice.send(f"<presence to='{carol.jid}'/>")
    carol.expect_presence(alice.jid)
    block(alice, "carol@localhost")
    carol.expect_presence(alice.jid, "unavailable")
    alice.close()  # RFC 6121 4.6.3: whom it was taken back from hears no more
    carol.ping()
    assert not of(carol, "c:presence")
    alice = Client(server, "alice@localhost/x").login()
    unblock(alice)
    close(alice, carol)


def test_6_one_resource_may_be_blocked_and_a_whole_domain(server):
    alice, one, two = online(server, "alice@localhost/x", "bob@localhost/1", "bob@localhost/2")
    block(alice, "bob@localhost/1")
    one.message("alice@localhost", "x")
    assert condition(one.expect(lambda e: e.get("type") == "error"))[0] == "service-unavailable"
    two.message("alice@localhost", "y")
    alice.expect_body("y")
    block(alice, "localhost")
    two.message("alice@localhost", "z")
    assert condition(two.expect(lambda e: e.get("type") == "error"))[0] == "service-unavailable"
    barrier(alice, alice)  # own resources are never blocked
    assert blocklist(alice) == ["bob@localhost/1", "localhost"]
    unblock(alice)
    close(alice, one, two)


def test_the_list_of_another_is_nobodys_business(server):
    bob = Client(server, "bob@localhost/x").login()
    for to in ("alice@localhost", "nobody@localhost"):
        for type, inner in (("get", "<blocklist xmlns='%s'/>"), ("set", "<unblock xmlns='%s'/>"),
                            ("set", "<block xmlns='%s'><item jid='carol@localhost'/></block>")):
            assert condition(bob.iq(type, inner % BLOCKING, to=to, check=False)) == ("forbidden", "auth")
    bob.close()


def test_a_block_outlives_every_process(server):
    alice, bob = online(server, "alice@localhost/x", "bob@localhost/x")
    block(alice, "bob@localhost")
    for shard in (0, 1):
        server.kill_process("shard", shard)
    alice, bob = online(server, "alice@localhost/x", "bob@localhost/x")
    assert blocklist(alice) == ["bob@localhost"]
    bob.message("alice@localhost", "x")
    assert condition(bob.expect(lambda e: e.get("type") == "error"))[0] == "service-unavailable"
    unblock(alice)
    close(alice, bob)


def test_0377_4_a_report_comes_with_a_block_and_is_counted(server):
    alice = Client(server, "alice@localhost/x").login()
    for reason in ("spam", "abuse"):
        block(alice, f"{reason}@montague.net",
              inner=f"<report xmlns='urn:xmpp:reporting:1' reason='urn:xmpp:reporting:{reason}'>"
                    "<text>Never came trouble to my house like this.</text></report>")
        line = server.wait_log("event=abuse_reported")
        assert f"jid={reason}@montague.net" in line and "Never came trouble" in line and "by=alice@localhost" in line
    block(alice, "none@montague.net", inner="<report xmlns='urn:xmpp:reporting:1'/>")  # a block all the same
    assert len(blocklist(alice)) == 3
    metrics = server.get("/metrics")
    for reason, n in (("spam", 1), ("abuse", 1), ("other", 0)):
        assert f'pemberley_abuse_reports_total{{reason="{reason}"}} {n}' in metrics
    unblock(alice)
    alice.close()
