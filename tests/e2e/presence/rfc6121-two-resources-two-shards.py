"""One user, two resources, each resource's connection on another shard (so one of them has its home in
another process): RFC 6121 row by row, each test names its section."""

import json

from pemb import Client, NS, barrier, befriend, q, resume

USERS = ("alice@localhost", "bob@localhost", "carol@localhost")
LOGINS_MAX = 80 # the kernel chooses the shard of a connection


def edge_of(server, c):
    for item in json.loads(server.cli("--json", "user", "sessions", c.jid.split("/")[0]).stdout)["items"]:
        if item["jid"] == c.jid:
            return item["edge"]
    raise AssertionError(f"no session {c.jid}")


def on_edge(server, jid, edge, sm=False):
    for _ in range(LOGINS_MAX):
        c = Client(server, jid).login(sm=sm)
        if edge_of(server, c) == edge:
            return c
        c.close()
    raise AssertionError(f"no connection of {jid} came to {edge}")


def available(c, priority=0):
    c.iq("get", "<query xmlns='jabber:iq:roster'/>")
    c.send(f"<presence><priority>{priority}</priority></presence>")
    c.expect_presence(c.jid)
    return c


def pair(server, bare="alice@localhost", priorities=(0, 0)):
    one = available(on_edge(server, bare + "/one", "a/0"), priorities[0])
    two = available(on_edge(server, bare + "/two", "a/1"), priorities[1])
    one.expect_presence(two.jid)  # 4.2.2: own available resources see the new one
    two.expect_presence(one.jid)  # and it sees them
    return one, two


def messages(c):
    return [e.findtext("c:body", None, NS) for e in c.take(lambda e: e.tag == q("c:message"))]


def close(*clients):
    for c in clients:
        c.close()


def test_8_5_2_1_1_the_bare_jid_goes_to_all_whose_priority_is_not_negative(server):
    bob = Client(server, "bob@localhost/b").login(presence=True)
    for priorities, receive in (((0, 5), (True, True)), ((-1, 0), (False, True)), ((3, -128), (True, False))):
        one, two = pair(server, priorities=priorities)
        for type in ("chat", "normal", "headline"):
            bob.message("alice@localhost", f"bare {type}", type=type)
        bob.message(one.jid, "to one")
        bob.message(two.jid, "to two")
        for c, gets, own in ((one, receive[0], "to one"), (two, receive[1], "to two")):
            barrier(bob, c)
            want = ["bare chat", "bare normal", "bare headline"] if gets else []
            assert messages(c) == want + [own], (priorities, c.jid)
        close(one, two)
    bob.close()


def test_4_4_a_priority_that_changes_counts_from_the_next_message(server):
    bob = Client(server, "bob@localhost/b").login(presence=True)
    one, two = pair(server)
    one.send("<presence><priority>-1</priority></presence>")
    two.expect(lambda e: e.get("from") == one.jid and e.findtext("c:priority", None, NS) == "-1")
    bob.message("alice@localhost", "only two")
    two.expect_body("only two")
    barrier(bob, one)
    assert messages(one) == []
    close(one, two, bob)


def test_4_6_directed_presence_of_one_resource_is_not_that_of_the_other(server):
    carol = Client(server, "carol@localhost/c").login(presence=True)
    one, two = pair(server)
    one.send(f"<presence to='{carol.jid}'/>")
    carol.expect_presence(one.jid)
    two.send("<presence><show>away</show></presence>")
    one.send("<presence><show>dnd</show></presence>")
    two.close() # 4.6.3: nobody was told of it, so nobody hears that it goes
    one.expect_presence(two.jid, "unavailable")
    barrier(one, carol)
    assert not carol.take(lambda e: e.tag == q("c:presence"))
    one.drop() # 4.6.3, 4.5.2: who had directed presence hears of the end, however it came
    carol.expect_presence(one.jid, "unavailable")
    carol.close()


def test_2_1_6_a_change_is_pushed_to_every_interested_resource(server):
    one, two = pair(server)
    one.iq("set", "<query xmlns='jabber:iq:roster'><item jid='carol@localhost' name='C'/></query>")
    pushes = []
    for c in (one, two):
        p = c.expect(lambda e: e.tag == q("c:iq") and e.get("type") == "set")
        assert p.get("to") == c.jid and p.get("from") is None
        pushes.append((p[0].get("ver"), p[0][0].get("name")))
    assert pushes[0] == pushes[1] and pushes[0][1] == "C"
    quiet = on_edge(server, "alice@localhost/quiet", "a/1") # 2.2: never asked for the roster
    two.iq("set", "<query xmlns='jabber:iq:roster'><item jid='carol@localhost' subscription='remove'/></query>")
    for c in (one, two):
        p = c.expect(lambda e: e.tag == q("c:iq") and e.get("type") == "set")
        assert p[0][0].get("subscription") == "remove"
    barrier(two, quiet)
    assert not quiet.take(lambda e: e.tag == q("c:iq"))
    close(one, two, quiet)


def test_3_1_a_request_reaches_both_and_either_may_answer(server):
    bob = Client(server, "bob@localhost/b").login(presence=True)
    one, two = pair(server)
    bob.send("<presence type='subscribe' to='alice@localhost'/>")
    for c in (one, two):
        c.expect_presence("bob@localhost", "subscribe")  # 3.1.3
    two.send("<presence type='subscribed' to='bob@localhost'/>")
    bob.expect_presence("alice@localhost", "subscribed")
    for c in (one, two):
        bob.expect_presence(c.jid)  # 3.1.5: of each available resource
        p = c.expect(lambda e: e.tag == q("c:iq") and e.get("type") == "set")
        assert p[0][0].get("subscription") == "from"
    # 4.5.2: the contact hears of each one's end
    one.close()
    bob.expect_presence(one.jid, "unavailable")
    barrier(two, bob)
    assert not bob.take(lambda e: e.get("from") == two.jid)
    two.send("<presence type='unsubscribed' to='bob@localhost'/>") # 3.2
    bob.expect_presence("alice@localhost", "unsubscribed")
    bob.expect_presence(two.jid, "unavailable")
    close(two, bob)


def test_8_5_3_iq_and_messages_between_the_two(server):
    one, two = pair(server)
    for a, b in ((one, two), (two, one)):
        a.send(f"<iq type='get' id='x' to='{b.jid}'><query xmlns='jabber:iq:version'/></iq>")
        asked = b.expect(lambda e: e.tag == q("c:iq") and e.get("id") == "x")
        assert asked.get("from") == a.jid
        b.send(f"<iq type='result' id='x' to='{a.jid}'/>")
        assert a.expect(lambda e: e.get("id") == "x").get("from") == b.jid
        a.message("alice@localhost", "to myself")
        for c in (a, b):
            c.expect_body("to myself")
        a.message(b.jid, "over there")
        b.expect_body("over there")
    close(one, two)


def test_the_same_resource_on_the_other_shard_replaces_the_first(server):
    bob = Client(server, "bob@localhost/b").login(presence=True)
    one, two = pair(server)
    befriend(one, bob)
    bob.backlog.clear()
    for edge in ("a/1", "a/0"):
        old = one
        one = available(on_edge(server, old.jid, edge))
        old.stream_error("conflict")
        bob.expect_presence(old.jid, "unavailable")
        bob.expect_presence(one.jid)
        two.expect_presence(old.jid, "unavailable")
    close(one, two, bob)


def test_a_session_resumed_through_the_other_shard_is_the_same_for_the_second(server):
    bob = Client(server, "bob@localhost/b").login(presence=True)
    one = available(on_edge(server, "alice@localhost/one", "a/0", sm=True))
    two = available(on_edge(server, "alice@localhost/two", "a/1"))
    one.expect_presence(two.jid)
    one.drop()
    bob.message("alice@localhost", "meanwhile")
    two.expect_body("meanwhile")
    one, answer = resume(server, one)
    one.expect_body("meanwhile")
    for _ in range(LOGINS_MAX):
        assert answer.tag == q("sm:resumed")
        if edge_of(server, one) == "a/1":
            break
        one.drop()
        one, answer = resume(server, one)
    assert edge_of(server, one) == "a/1"
    bob.message("alice@localhost", "after")
    one.expect_body("after")
    two.expect_body("after")
    assert not two.take(lambda e: e.get("type") == "unavailable" and e.get("from") == one.jid)
    close(one, two, bob)
