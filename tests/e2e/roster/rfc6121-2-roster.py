"""RFC 6121 2: roster get, set, push, remove, versions, errors (xmpp.md 4)."""

from pemb import Client, NS, barrier, befriend, condition, q

USERS = tuple(f"{n}@localhost" for n in ("alice", "bob", "carol", "dave", "erin", "frank", "gina"))


def get(c, ver=None):
    v = f" ver='{ver}'" if ver is not None else ""
    return c.iq("get", f"<query xmlns='jabber:iq:roster'{v}/>").find("roster:query", NS)


def set_item(c, jid, name=None, groups=(), check=True, extra=""):
    n = f" name='{name}'" if name is not None else ""
    g = "".join(f"<group>{x}</group>" for x in groups)
    return c.iq("set", f"<query xmlns='jabber:iq:roster'><item jid='{jid}'{n}{extra}>{g}</item></query>",
                check=check)


def push(c):
    e = c.expect(lambda e: e.tag == q("c:iq") and e.get("type") == "set"
                 and e.find("roster:query", NS) is not None)
    assert e.get("from") is None and e.get("to") == c.jid
    c.send(f"<iq type='result' id='{e.get('id')}'/>")
    return e.find("roster:query", NS)


def item(query, jid):
    for i in query.findall("roster:item", NS):
        if i.get("jid") == jid:
            return i
    return None


def test_set_is_pushed_to_interested_resources_after_the_result(server):
    a1 = Client(server, "alice@localhost/1").login()
    a2 = Client(server, "alice@localhost/2").login()
    a3 = Client(server, "alice@localhost/3").login(presence=True, roster=False) # never asks for the roster
    first = get(a1)
    assert first.get("ver") is not None and len(first) == 0
    get(a2)
    a1.send("<iq type='set' id='s1'><query xmlns='jabber:iq:roster'><item jid='bob@localhost' name='Bob "
            "&amp; Co' subscription='both' ask='subscribe' approved='true'><group>Friends</group>"
            "<group>Work</group></item></query></iq>")
    order = [a1.expect("c:iq"), a1.expect("c:iq")]
    assert order[0].get("id") == "s1" and order[0].get("type") == "result", "result before push"
    p = order[1].find("roster:query", NS)
    i = item(p, "bob@localhost")
    assert i.get("subscription") == "none" and i.get("ask") is None and i.get("approved") is None
    assert i.get("name") == "Bob & Co" and {g.text for g in i} == {"Friends", "Work"}
    assert p.get("ver") and p.get("ver") != first.get("ver")
    assert item(push(a2), "bob@localhost").get("name") == "Bob & Co"
    barrier(a1, a3)
    assert not a3.take(lambda e: e.tag == q("c:iq"))
    assert item(get(a1), "bob@localhost").get("name") == "Bob & Co"
    # changed and removed
    set_item(a1, "bob@localhost", "Robert")
    i = item(push(a2), "bob@localhost")
    assert i.get("name") == "Robert" and len(i) == 0
    push(a1)
    set_item(a1, "bob@localhost", extra=" subscription='remove'")
    assert item(push(a1), "bob@localhost").get("subscription") == "remove"
    assert item(get(a1), "bob@localhost") is None
    for c in (a1, a2, a3):
        c.close()


def test_errors(server):
    c = Client(server, "bob@localhost/1").login()
    get(c)

    def of(inner):
        return condition(c.iq("set", f"<query xmlns='jabber:iq:roster'>{inner}</query>", check=False))
    assert of("<item jid='a@localhost'/><item jid='b@localhost'/>") == ("bad-request", "modify")
    assert of("") == ("bad-request", "modify")
    assert of("<item/>") == ("bad-request", "modify")
    assert of("<item jid='a@localhost'><group>x</group><group>x</group></item>") == ("bad-request", "modify")
    assert of("<item jid='a@localhost'><group/></item>") == ("not-acceptable", "modify")
    assert of(f"<item jid='a@localhost' name='{'n' * 1024}'/>") == ("not-acceptable", "modify")
    assert of(f"<item jid='a@localhost'><group>{'g' * 1024}</group></item>") == ("not-acceptable", "modify")
    assert of("<item jid='never@localhost' subscription='remove'/>") == ("item-not-found", "cancel")
    assert of("<item jid='bob@localhost'/>") == ("not-allowed", "cancel")
    assert of("<item jid='@'/>")[0] in ("jid-malformed", "bad-request")
    for who in ("alice@localhost", "nobody@localhost"):
        for type in ("get", "set"):
            e = c.iq(type, "<query xmlns='jabber:iq:roster'><item jid='x@localhost'/></query>"
                     if type == "set" else "<query xmlns='jabber:iq:roster'/>", to=who, check=False)
            assert condition(e) == ("forbidden", "auth"), (who, type, condition(e))
    assert len(get(c)) == 0
    c.close()


def test_versions(server):
    c = Client(server, "carol@localhost/1").login()
    features = c.features
    assert features.find("{urn:xmpp:features:rosterver}ver") is not None
    v0 = get(c, "").get("ver")
    for i in range(5):
        set_item(c, f"x{i}@localhost")
    set_item(c, "x1@localhost", "changed")
    set_item(c, "x2@localhost", extra=" subscription='remove'")
    now = get(c).get("ver")
    c.close()
    d = Client(server, "carol@localhost/2").login()
    same = d.iq("get", f"<query xmlns='jabber:iq:roster' ver='{now}'/>")
    assert len(same) == 0, "today's version: an empty result"
    empty = d.iq("get", f"<query xmlns='jabber:iq:roster' ver='{v0}'/>")
    assert len(empty) == 0
    pushes = [push(d) for _ in range(5)]
    names = [p[0].get("jid") for p in pushes]
    assert names == ["x0@localhost", "x3@localhost", "x4@localhost", "x1@localhost", "x2@localhost"], names
    assert pushes[3][0].get("name") == "changed" and pushes[4][0].get("subscription") == "remove"
    assert pushes[-1].get("ver") == now
    full = d.iq("get", "<query xmlns='jabber:iq:roster' ver='nonsense'/>").find("roster:query", NS)
    assert len(full) == 4
    d.close()


def test_it_survives_a_restart(server):
    c = Client(server, "dave@localhost/1").login()
    set_item(c, "erin@localhost", "Erin", ["A"])
    c.close()
    server.kill_process("shard", 0)
    server.kill_process("shard", 1)
    c = Client(server, "dave@localhost/1").login()
    i = item(get(c), "erin@localhost")
    assert i.get("name") == "Erin" and i[0].text == "A"
    c.close()


def test_removal_of_a_contact_ends_both_subscriptions(server):
    a = Client(server, "erin@localhost/1").login(presence=True)
    b = Client(server, "frank@localhost/1").login(presence=True)
    get(a), get(b)
    befriend(a, b)
    set_item(a, "frank@localhost", extra=" subscription='remove'")
    b.expect_presence("erin@localhost", "unsubscribe")
    b.expect_presence("erin@localhost", "unsubscribed")
    b.expect_presence(a.jid, "unavailable")
    assert item(get(b), "erin@localhost").get("subscription") == "none"
    assert item(get(a), "frank@localhost") is None
    a.close(), b.close()


def test_more_than_the_limit():
    import pemb
    server = pemb.Server(settings=("limits.roster_max=10",))
    server.add_user("alice@localhost")
    c = Client(server, "alice@localhost/1").login()
    for i in range(10):
        set_item(c, f"x{i}@localhost")
    e = set_item(c, "x10@localhost", check=False)
    assert condition(e) == ("resource-constraint", "wait")
    set_item(c, "x9@localhost", "still changes")
    c.close()
    server.stop()
