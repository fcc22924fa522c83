"""XEP-0160: what is kept, how it is given, when it is removed; order; limits; hints (xmpp.md 5)."""

from pemb import Client, NS, barrier, condition, q, resume

N = [0]
HINTS = "xmlns='urn:xmpp:hints'"


def account(server):
    N[0] += 1
    jid = f"o{N[0]}@localhost"
    server.add_user(jid)
    return jid


def bodies(client):
    barrier(client, client) # what comes live waits behind what was stored
    return [e.findtext("c:body", None, NS) for e in client.take(lambda e: e.tag == q("c:message"))]


def test_kept_in_order_with_delay_and_given_once(server):
    a = Client(server, account(server) + "/a").login(presence=True)
    to = account(server)
    for i in range(120):
        a.message(to, f"m{i}", extra="<x xmlns='urn:x' y='&amp;'/>")
    a.ping()
    b = Client(server, to + "/b").login(presence=True)
    for i in range(120):
        m = b.expect("c:message")
        assert m.findtext("c:body", None, NS) == f"m{i}"
        assert m.find("delay:delay", NS).get("from") == "localhost"
        assert m.find("delay:delay", NS).get("stamp").endswith("Z")
        assert m.find("{urn:x}x").get("y") == "&" and m.get("to") == to and m.get("from") == a.jid
    assert bodies(b) == []
    b.close()
    b = Client(server, to + "/b").login(presence=True)
    assert bodies(b) == []
    a.close(), b.close()


def test_negative_priority_gets_nothing_until_it_rises(server):
    a = Client(server, account(server) + "/a").login(presence=True)
    to = account(server)
    a.message(to, "kept")
    a.ping()
    b = Client(server, to + "/b").login()
    b.send("<presence><priority>-5</priority></presence>")
    assert bodies(b) == []
    b.send("<presence><priority>0</priority></presence>")
    b.expect_body("kept")
    a.close(), b.close()


def test_kinds_and_hints(server):
    a = Client(server, account(server) + "/a").login(presence=True)
    to = account(server)
    su = ("service-unavailable", "cancel")
    rows = [ # type, children, kept?, error
        ("chat", "<body>1</body>", True, None),
        ("normal", "<body>2</body>", True, None),
        ("chat", "<active xmlns='http://jabber.org/protocol/chatstates'/>", False, None),
        ("chat", "<composing xmlns='http://jabber.org/protocol/chatstates'/><thread>t</thread>", False, None),
        ("normal", "<x xmlns='urn:unknown'/>", True, None),
        ("chat", f"<body>3</body><no-store {HINTS}/>", False, su),
        ("chat", f"<body>4</body><no-permanent-store {HINTS}/>", True, None),
        ("chat", f"<active xmlns='http://jabber.org/protocol/chatstates'/><store {HINTS}/>", True, None),
        ("chat", "<received xmlns='urn:xmpp:receipts' id='x'/>", True, None),
        ("headline", "<body>5</body>", False, None),
        ("groupchat", "<body>6</body>", False, su),
    ]
    kept = []
    for i, (type, children, keep, error) in enumerate(rows):
        a.send(f"<message to='{to}' type='{type}' id='k{i}'>{children}</message>")
        a.send(f"<iq to='{to}/none' type='get' id='behind{i}'><q xmlns='urn:x'/></iq>")
        a.expect(lambda e: e.get("id") == f"behind{i}") # its home has handled both
        answers = a.take(lambda e: e.get("id") == f"k{i}")
        assert [condition(e) for e in answers] == ([error] if error else []), (i, answers)
        if keep:
            kept.append(f"k{i}")
    b = Client(server, to + "/b").login(presence=True)
    barrier(b, b)
    assert [e.get("id") for e in b.take(lambda e: e.tag == q("c:message"))] == kept
    a.close(), b.close()


def test_not_acknowledged_is_kept_and_acknowledged_is_removed(server):
    a = Client(server, account(server) + "/a").login(presence=True)
    to = account(server)
    for i in range(3):
        a.message(to, f"m{i}")
    a.ping()
    b = Client(server, to + "/b").login(sm=True)
    b.answer_acks = False
    b.send("<presence/>")
    for i in range(3):
        b.expect_body(f"m{i}")
    # own presence is 1, the first message 2: it acknowledges exactly these
    b.send("<a xmlns='urn:xmpp:sm:3' h='2'/>")
    b.ping()
    b.close()
    c = Client(server, to + "/b").login(presence=True)
    assert bodies(c) == ["m1", "m2"]
    a.close(), c.close()


def test_live_messages_come_behind_the_offline_ones(server):
    a = Client(server, account(server) + "/a").login(presence=True)
    to = account(server)
    for i in range(300):
        a.message(to, f"m{i}")
    a.ping()
    b = Client(server, to + "/b").login()
    b.send("<presence/>")
    for i in range(300, 400):
        a.message(to, f"m{i}")
    got = [b.expect("c:message").findtext("c:body", None, NS) for _ in range(400)]
    assert got == [f"m{i}" for i in range(400)], got[:10]
    a.close(), b.close()


def test_while_logging_in_and_out_nothing_is_lost_doubled_or_reordered(server):
    a = Client(server, account(server) + "/a").login(sm=True, presence=True)
    to = account(server)
    got, n = [], 0
    for turn in range(12):
        b = Client(server, to + f"/{turn % 3}").login(sm=True)
        b.send("<presence/>")
        for _ in range(20):
            a.message(to, f"m{n}")
            n += 1
        b.ping()
        b.send(f"<a xmlns='urn:xmpp:sm:3' h='{b.sm_in}'/>")
        acknowledged = [e.findtext("c:body", None, NS) for e in b.backlog if e.tag == q("c:message")]
        b.close() # what came after the <a/> is not acknowledged, and goes back
        got += acknowledged
    a.ping()
    b = Client(server, to + "/last").login(presence=True)
    got += bodies(b)
    numbers = [int(g[1:]) for g in got]
    assert sorted(set(numbers)) == list(range(n)), "lost: " + str(set(range(n)) - set(numbers))
    assert len(numbers) == n, "doubled"
    assert numbers == sorted(numbers), "reordered"
    a.close(), b.close()


def test_a_session_that_times_out_leaves_its_messages_to_the_next():
    import pemb
    server = pemb.Server(settings=("limits.resume_timeout=1s",))
    for n in ("alice", "bob"):
        server.add_user(f"{n}@localhost")
    a = Client(server, "alice@localhost/a").login(presence=True)
    b = Client(server, "bob@localhost/b").login(sm=True, presence=True)
    pemb.befriend(a, b)
    b.ping()
    b.drop()
    a.message(b.jid, "one")
    a.message("bob@localhost", "two")
    a.expect_presence(b.jid, "unavailable")
    late = Client(server, "bob@localhost/c").login(presence=True)
    for body in ("one", "two"):
        assert late.expect_body(body).find("delay:delay", NS) is not None
    a.close(), late.close()
    server.stop()


def test_full_answers_service_unavailable():
    import pemb
    server = pemb.Server(host_options="offline_max = 5")
    for n in ("alice", "bob"):
        server.add_user(f"{n}@localhost")
    a = Client(server, "alice@localhost/a").login(presence=True)
    for i in range(7):
        a.message("bob@localhost", f"m{i}", id=f"f{i}")
    for i in (5, 6):
        assert condition(a.expect(lambda e: e.get("id") == f"f{i}")) == ("service-unavailable", "cancel")
    b = Client(server, "bob@localhost/b").login(presence=True)
    assert bodies(b) == [f"m{i}" for i in range(5)]
    a.close(), b.close()
    server.stop()
