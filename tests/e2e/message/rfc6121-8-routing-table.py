"""RFC 6121 8 and xmpp.md 3: every message type x kind of address x state of the resources. Each row
says who gets it and what the sender hears; that nobody else gets it is shown by what comes later on
the same way."""

from pemb import Client, NS, barrier, condition, q, resume

USERS = ("alice@localhost", "bob@localhost")
TYPES = ("normal", "chat", "groupchat", "headline", "error")
SU = ("service-unavailable", "cancel")


def message(type, text):
    body = f"<body>{text}</body>"
    if type == "error":
        body += "<error type='cancel'><gone xmlns='%s'/></error>" % NS["stanzas"]
    return body


def got(client, text):
    return bool(client.take(lambda e: e.tag == q("c:message") and e.get("type") != "error"
                            or e.tag == q("c:message") and e.findtext("c:body", None, NS) == text
                            and e.get("from") == client.peer))


def setting(server, *presences):
    """bob's sessions with these presences (None: connected only), and alice."""
    alice = Client(server, "alice@localhost/a").login(presence=True)
    bobs = []
    for i, p in enumerate(presences):
        b = Client(server, f"bob@localhost/b{i}").login()
        if p is not None:
            b.send(f"<presence><priority>{p}</priority></presence>")
            b.expect_presence(b.jid)
        b.peer = alice.jid
        bobs.append(b)
    for b in bobs:
        b.ping()
        b.backlog.clear()
    return alice, bobs


def row(alice, bobs, to, type, receivers, error, stored=False):
    text = f"{type} to {to} {alice.new_id()}"
    id = alice.new_id()
    alice.send(f"<message to='{to}' type='{type}' id='{id}'>{message(type, text)}</message>")
    alice.ping()
    for b in bobs:
        barrier(alice, b)
    name = f"{type} to {to}"
    for i, b in enumerate(bobs):
        bodies = [e for e in b.take(lambda e: e.tag == q("c:message"))
                  if e.findtext("c:body", None, NS) == text]
        assert len(bodies) == (1 if i in receivers else 0), f"{name}: b{i} got {len(bodies)}"
        for e in bodies:
            assert e.get("to") == to and e.get("from") == alice.jid and e.get("type") == type, name
    if error:
        answer = alice.expect(lambda e: e.tag == q("c:message") and e.get("id") == id)
        assert condition(answer) == error, (name, condition(answer))
        assert answer.get("from") == to, name
    errors = alice.take(lambda e: e.tag == q("c:message") and e.get("id") == id)
    assert not errors, f"{name}: an answer that must not be"
    return text


def end(alice, bobs):
    for c in [alice, *bobs]:
        c.close()


def drain_offline(server):
    b = Client(server, "bob@localhost/drain").login(presence=True)
    barrier(b, b) # what comes live waits behind what was stored
    texts = [e.findtext("c:body", None, NS) for e in b.take(lambda e: e.tag == q("c:message"))]
    b.ping()
    b.close()
    return texts


def test_bare_with_eligible_resources(server):
    alice, bobs = setting(server, 0, 5, -1, None)
    for type, receivers, error in (("normal", {0, 1}, None), ("chat", {0, 1}, None),
                                   ("headline", {0, 1}, None), ("groupchat", (), SU),
                                   ("error", (), None), ("unheard-of", {0, 1}, None)):
        row(alice, bobs, "bob@localhost", type, receivers, error)
    end(alice, bobs)
    assert drain_offline(server) == []


def test_bare_with_only_negative_priorities(server):
    alice, bobs = setting(server, -1, -128)
    kept = [row(alice, bobs, "bob@localhost", t, (), e) for t, e in
            (("normal", None), ("chat", None), ("headline", None), ("groupchat", SU), ("error", None))]
    end(alice, bobs)
    assert drain_offline(server) == kept[:2]


def test_bare_with_connected_resources_only(server):
    alice, bobs = setting(server, None, None)
    kept = [row(alice, bobs, "bob@localhost", t, (), e) for t, e in
            (("normal", None), ("chat", None), ("headline", None), ("groupchat", SU), ("error", None))]
    end(alice, bobs)
    assert drain_offline(server) == kept[:2]


def test_bare_with_nobody_there(server):
    alice, bobs = setting(server)
    kept = [row(alice, bobs, "bob@localhost", t, (), e) for t, e in
            (("normal", None), ("chat", None), ("headline", None), ("groupchat", SU), ("error", None))]
    end(alice, bobs)
    assert drain_offline(server) == kept[:2]


def test_full_to_resources_of_every_state(server):
    alice, bobs = setting(server, 0, -1, None)
    for i in range(3):
        for type in TYPES:
            row(alice, bobs, f"bob@localhost/b{i}", type, {i}, None)
    end(alice, bobs)


def test_full_without_that_resource(server):
    alice, bobs = setting(server, 0, -1)
    for type, receivers, error in (("chat", {0}, None), ("normal", (), SU), ("groupchat", (), SU),
                                   ("headline", (), None), ("error", (), None)):
        row(alice, bobs, "bob@localhost/none", type, receivers, error)
    end(alice, bobs)
    alice, bobs = setting(server)
    text = row(alice, bobs, "bob@localhost/none", "chat", (), None)
    row(alice, bobs, "bob@localhost/none", "normal", (), SU)
    end(alice, bobs)
    assert drain_offline(server) == [text]


def test_no_such_account_and_the_domain(server):
    alice, bobs = setting(server)
    for to in ("nobody@localhost", "nobody@localhost/x"):
        for type, error in (("chat", SU), ("normal", SU), ("groupchat", SU), ("headline", None),
                            ("error", None)):
            row(alice, bobs, to, type, (), error)
    for to in ("localhost", "localhost/x"):
        for type in TYPES:
            row(alice, bobs, to, type, (), None if type == "error" else SU)
    row(alice, bobs, "bob@elsewhere.example", "chat", (), ("remote-server-not-found", "cancel"))
    row(alice, bobs, "bob@elsewhere.example", "error", (), None)
    end(alice, bobs)


def test_detached_resources_count_as_before(server):
    alice = Client(server, "alice@localhost/a").login(presence=True)
    bob = Client(server, "bob@localhost/sm").login(sm=True, presence=True)
    bob.ping()
    bob.drop()
    for to in ("bob@localhost", "bob@localhost/sm"):
        alice.message(to, f"to {to}")
    alice.ping()
    new, answer = resume(server, bob)
    assert answer.tag == q("sm:resumed")
    new.expect_body("to bob@localhost")
    new.expect_body("to bob@localhost/sm")
    end(alice, [new])


def test_to_oneself_and_without_to(server):
    alice, bobs = setting(server)
    alice.message("alice@localhost", "me, bare")
    alice.expect_body("me, bare")
    alice.send("<message type='chat' id='n'><body>me, without to</body></message>")
    m = alice.expect_body("me, without to")
    assert m.get("from") == alice.jid
    alice.message(alice.jid, "me, full")
    alice.expect_body("me, full")
    end(alice, bobs)


def test_forged_from_is_overwritten_and_language_is_added(server):
    alice, bobs = setting(server, 0)
    alice.send("<message from='eve@localhost/x' to='bob@localhost' type='chat'><body>forged</body></message>")
    m = bobs[0].expect_body("forged")
    assert m.get("from") == alice.jid
    assert m.get("{http://www.w3.org/XML/1998/namespace}lang") == "en"
    alice.send("<message to='BOB@LocalHost' type='chat' xml:lang='de'><body>case</body></message>")
    m = bobs[0].expect_body("case")
    assert m.get("{http://www.w3.org/XML/1998/namespace}lang") == "de"
    end(alice, bobs)


def test_malformed_addresses(server):
    alice, bobs = setting(server)
    for to in ("@localhost", "a@b@c/ ", "bob@", "bob@localhost/", "a" * 1024 + "@localhost",
               "b\u00a0b@localhost", "x@\u2003", "&quot;@localhost"):
        id = alice.new_id()
        alice.send(f"<message to='{to}' type='chat' id='{id}'><body>x</body></message>".encode())
        answer = alice.expect(lambda e: e.get("id") == id)
        assert condition(answer) == ("jid-malformed", "modify"), to
        alice.send(f"<message to='{to}' type='error' id='{id}'/>".encode())
    alice.ping()
    assert not alice.take(lambda e: e.tag == q("c:message"))
    end(alice, bobs)


def test_order_between_two_full_jids_with_iq_and_presence(server):
    alice, bobs = setting(server, 0)
    n = 300
    for i in range(n):
        kind = i % 3
        if kind == 0:
            alice.send(f"<message to='{bobs[0].jid}' id='o{i}'><body>x</body></message>")
        elif kind == 1:
            alice.send(f"<iq to='{bobs[0].jid}' type='get' id='o{i}'><q xmlns='urn:x'/></iq>")
        else:
            alice.send(f"<presence to='{bobs[0].jid}' id='o{i}'/>")
    ids = [bobs[0].expect(lambda e: (e.get("id") or "").startswith("o")).get("id") for _ in range(n)]
    assert ids == [f"o{i}" for i in range(n)]
    end(alice, bobs)
