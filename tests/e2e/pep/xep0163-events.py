"""XEP-0163 4 and XEP-0115: events go to own resources and to contacts whose clients want them, last
items on initial presence and when caps become known; nobody can forge them; rights end with the
subscription."""

from pemb import Client, Closed, NS, barrier, befriend, condition, q, resume
from pep import PS, answer_caps, caps, event, event_ids, ids, is_event, items, online, owner, publish, retract

USERS = tuple(f"{n}@localhost" for n in ("alice", "bob", "carol", "dave", "erin", "mallory", "fay", "gus"))
TUNE, NICK = "http://jabber.org/protocol/tune", "http://jabber.org/protocol/nick"
ALICE, BOB = "alice@localhost", "bob@localhost"
DELETE = "<delete node='%s'/>"


def friends(server, x="alice", y="bob"):
    """Two who see each other, offline again."""
    a = Client(server, f"{x}@localhost/f").login(presence=True)
    b = Client(server, f"{y}@localhost/f").login(presence=True)
    if a.iq("get", "<query xmlns='jabber:iq:roster'/>").find(
            f"roster:query/roster:item[@jid='{y}@localhost'][@subscription='both']", NS) is None:
        befriend(a, b)
    a.close(), b.close()


def test_4_3_events_go_to_own_resources_and_contacts_that_want_them(server):
    friends(server)
    a = online(Client(server, "alice@localhost/a").login(), [TUNE], ask=True)
    a2 = online(Client(server, "alice@localhost/deaf").login(), [NICK], ask=True)
    b = online(Client(server, "bob@localhost/b").login(), [TUNE, NICK], ask=True)
    b2 = Client(server, "bob@localhost/plain").login(presence=True)
    low = Client(server, "bob@localhost/low").login()
    low.send(f"<presence>{b.caps}<priority>-5</priority></presence>")
    low.ping()
    publish(a, TUNE, "<tune xmlns='http://jabber.org/protocol/tune'><title>A &amp; B</title></tune>", "t1")
    e, what = event(a, TUNE, ALICE)
    assert e.get("to") == a.jid and e.get("type") == "headline"
    for c in (b, low):
        e, what = event(c, TUNE, ALICE)
        assert e.get("to") == c.jid and e.get("type") == "headline"
        assert what[0].get("id") == "t1" and what[0][0][0].text == "A & B"
    a.ping(), barrier(a, a2, b2)
    assert not a2.take(is_event(TUNE)) and not b2.take(is_event(TUNE))
    retract(a, TUNE, "t1")
    assert event(b, TUNE)[1][0].tag == "{%s}retract" % NS["ev"]
    owner(a, "set", f"<purge node='{TUNE}'/>")
    assert event(b, TUNE)[1].tag == "{%s}purge" % NS["ev"]
    owner(a, "set", f"<delete node='{TUNE}'><redirect uri='xmpp:x@y'/></delete>")
    d = event(b, TUNE)[1]
    assert d.tag == "{%s}delete" % NS["ev"] and d[0].get("uri") == "xmpp:x@y"
    for c in (a, a2, b, b2, low):
        c.close()


def test_7_1_2_the_result_comes_first(server):
    a = online(Client(server, "alice@localhost/a").login(), [TUNE], ask=True)
    a.backlog.clear()
    a.send(f"<iq type='set' id='p'><pubsub xmlns='{PS}'><publish node='{TUNE}'><item id='x'><t xmlns='u'/></item>"
           "</publish></pubsub></iq>")
    got = [a.expect(lambda e: True), a.expect(lambda e: True)]
    assert [g.tag for g in got] == [q("c:iq"), q("c:message")], got
    owner(a, "set", DELETE % TUNE)
    a.close()


def test_4_3_4_last_items_come_with_initial_presence(server):
    friends(server)
    a = Client(server, "alice@localhost/a").login()
    publish(a, TUNE, "<t xmlns='u'>last</t>", "l")
    publish(a, NICK, "<n xmlns='u'/>", "n")
    publish(a, "big", f"<n xmlns='u'>{'x' * 5000}</n>", "big")
    publish(a, "huge", f"<n xmlns='u'>{'x' * 30000}</n>", "huge")
    b = online(Client(server, "bob@localhost/b").login(), [TUNE, "big", "huge"], ask=True)
    e, what = event(b, TUNE, ALICE)
    assert e.get("to") == b.jid and what[0].get("id") == "l" and what[0][0].text == "last"
    assert e.find("delay:delay", NS) is not None
    assert len(event(b, "big", ALICE)[1][0][0].text) == 5000, "not in memory: fetched"
    assert len(event(b, "huge", ALICE)[1][0]) == 0, "too large to be sent unasked: only its id"
    b.send(f"<presence><show>away</show>{b.caps}</presence>")
    a.send("<presence/>")
    b.expect_presence(a.jid)
    barrier(a, b)
    assert not b.take(is_event(TUNE)), "once per resource"
    assert not b.take(is_event(NICK))
    own = online(Client(server, "alice@localhost/own").login(), [NICK], ask=True)
    assert event_ids(own, NICK, ALICE) == ["n"]
    b.send(f"<presence>{own.caps}</presence>")
    assert event_ids(b, NICK, ALICE) == ["n"], "caps that change to add +notify"
    for n in (TUNE, NICK, "big", "huge"):
        owner(a, "set", DELETE % n)
    for c in (a, b, own):
        c.close()


def test_0115_5_1_a_hash_is_asked_for_once_and_proven(server):
    friends(server, "carol", "dave")
    c = Client(server, "carol@localhost/c").login()
    publish(c, "urn:x", id="1")
    wanted = ["urn:x", "urn:poison"]
    features, element = caps(wanted, features=["urn:x+notify", "urn:poison+notify", "urn:" + c.new_id()])
    d = Client(server, "dave@localhost/liar").login()
    d.iq("get", "<query xmlns='jabber:iq:roster'/>")
    d.send(f"<presence>{element}</presence>")
    answer_caps(d, ["urn:y+notify"]) # not what the hash is of: it counts for this one alone
    publish(c, "urn:y", id="1")
    assert event_ids(d, "urn:y") == ["1"]
    honest = Client(server, "dave@localhost/honest").login()
    honest.iq("get", "<query xmlns='jabber:iq:roster'/>")
    honest.send(f"<presence>{element}</presence>")
    answer_caps(honest, features)
    assert event_ids(honest, "urn:x") == ["1"]
    third = Client(server, "dave@localhost/third").login()
    third.send(f"<presence>{element}</presence>")
    assert event_ids(third, "urn:x") == ["1"]
    third.ping()
    assert not third.take(lambda e: e.find("info:query", NS) is not None), "known: nobody is asked"
    # another shard learns it from the store; a shard that has died, too
    for shard in (0, 1):
        server.kill_process("shard", shard)
    e = Client(server, "erin@localhost/e").login()
    publish(e, "urn:x", id="own")
    e.send(f"<presence>{element}</presence>")
    assert event_ids(e, "urn:x") == ["own"]
    e.ping()
    assert not e.take(lambda x: x.find("info:query", NS) is not None)
    e.close()


def test_0115_hostile_answers(server):
    e = Client(server, "erin@localhost/h").login()
    for bad in ("<iq type='error' id='%s' to='%s'><error type='cancel'><service-unavailable xmlns='"
                + NS["stanzas"] + "'/></error></iq>",
                "<iq type='result' id='%s' to='%s'/>",
                "<iq type='result' id='%s' to='%s'><query xmlns='" + NS["info"] + "'>"
                + "<feature var='a'/>" * 700 + "</query></iq>"):
        e.send("<presence type='unavailable'/>")
        e.send(f"<presence><c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='urn:n' ver='{e.new_id()}='/>"
               "</presence>")
        query = e.expect(lambda x: x.find("info:query", NS) is not None)
        e.send(bad % (query.get("id"), query.get("from")))
        e.ping()
    for text in ("ver='' node='' hash=''", "hash='sha-1'", f"ver='{'v' * 3000}' node='n' hash='sha-1'",
                 "ver='x' node='n' hash='md5'", "ver='a' node='n'", f"ver='{'v' * 300}' node='n' hash='sha-1'"):
        e.send(f"<presence><c xmlns='http://jabber.org/protocol/caps' {text}/></presence>")
        e.ping()
    e.send("<iq type='result' id='caps' to='erin@localhost'/>")
    e.ping()
    e.close()


def test_access_ends_with_the_subscription_and_the_group(server):
    friends(server, "fay", "gus")
    f = online(Client(server, "fay@localhost/f").login(), ["none"], ask=True)
    g = online(Client(server, "gus@localhost/g").login(), ["p", "r", "w", "o"], ask=True)
    opts = {"p": {}, "r": {"pubsub#access_model": "roster", "pubsub#roster_groups_allowed": ["Pals", "x"]},
            "w": {"pubsub#access_model": "whitelist"}, "o": {"pubsub#access_model": "open"}}
    for n, o in opts.items():
        publish(f, n, id="1", opts=o)
    assert event_ids(g, "p") == ["1"] and event_ids(g, "o") == ["1"]
    barrier(f, g)
    assert not g.take(is_event("r")) and not g.take(is_event("w"))
    err = "{%s}%%s" % NS["err"]
    a = items(g, "r", to="fay@localhost", check=False)
    assert condition(a) == ("not-authorized", "auth") and a.find("c:error", NS).find(err % "not-in-roster-group") is not None
    item = "<query xmlns='jabber:iq:roster'><item jid='gus@localhost'>%s</item></query>"
    f.iq("set", item % "<group>Pals</group>")
    publish(f, "r", id="2")
    assert event_ids(g, "r") == ["2"] and ids(g, "r", to="fay@localhost") == ["2"]
    f.iq("set", item % "<group>Others</group>")
    publish(f, "r", id="3"), barrier(f, g)
    assert not g.take(is_event("r"))
    owner(f, "set", "<affiliations node='w'><affiliation jid='gus@localhost' affiliation='member'/></affiliations>")
    publish(f, "w", id="2")
    assert event_ids(g, "w") == ["2"] and ids(g, "w", to="fay@localhost") == ["2"]
    owner(f, "set", "<affiliations node='o'><affiliation jid='gus@localhost' affiliation='outcast'/></affiliations>")
    publish(f, "o", id="2"), barrier(f, g)
    assert not g.take(is_event("o"))
    assert condition(items(g, "o", to="fay@localhost", check=False)) == ("forbidden", "auth")
    f.send("<presence type='unsubscribed' to='gus@localhost'/>")
    g.expect_presence("fay@localhost", "unsubscribed")
    publish(f, "p", id="2"), publish(f, "w", id="3"), barrier(f, g)
    assert not g.take(is_event("p")) and not g.take(is_event("w"))
    assert condition(items(g, "p", to="fay@localhost", check=False)) == ("not-authorized", "auth")
    f.close(), g.close()


def test_events_cannot_be_forged(server):
    friends(server)
    a = online(Client(server, "alice@localhost/a").login(), [TUNE])
    m = Client(server, "mallory@localhost/m").login(presence=True)
    event_xml = (f"<event xmlns='{PS}#event'><items node='{TUNE}'><item id='evil'><t xmlns='u'/></item></items></event>")
    wanted = f"<wanted xmlns='urn:pemberley:pep:wanted'><node>{TUNE}</node></wanted>"
    publish(a, TUNE, id="1", opts={"pubsub#access_model": "open"})
    for to in (" to='alice@localhost'", f" to='{a.jid}'", ""):
        for type in ("headline", "chat", "normal"):
            m.send(f"<message type='{type}'{to} from='bob@localhost'>{event_xml}</message>")
        m.send(f"<presence type='probe'{to}>{wanted}</presence>")
    barrier(m, a)
    for e in a.take(lambda e: e.tag == q("c:message") and e.find("ev:event", NS) is not None):
        assert e.get("from") in (m.jid, ALICE), e.get("from")
        assert e.get("from") == m.jid or e.find("ev:event", NS)[0][0].get("id") == "1"
    m.ping()
    assert not [e for e in m.take(is_event(TUNE)) if e.get("from") != m.jid]
    owner(a, "set", DELETE % TUNE)
    a.close(), m.close()


def back(server, c):
    """c, or what has resumed its session."""
    try:
        c.ping()
        return c
    except (Closed, OSError):
        new, answer = resume(server, c)
        assert answer.tag == q("sm:resumed"), answer.tag
        return new


def test_a_home_that_dies_leaves_clients_with_their_events(server):
    friends(server)
    a = online(Client(server, "alice@localhost/a").login(sm=True), [TUNE], ask=True)
    b = online(Client(server, "bob@localhost/b").login(sm=True), [TUNE], ask=True)
    for round in range(4):
        publish(a, TUNE, id=f"before{round}")
        assert event_ids(b, TUNE) == [f"before{round}"]
        server.kill_process("shard", round % 2)
        a, b = back(server, a), back(server, b)
        publish(a, TUNE, id=f"after{round}")
        assert event_ids(b, TUNE) == [f"after{round}"], "whether its caps have been looked up again or not"
        assert ids(b, TUNE, to=ALICE) == [f"after{round}"]
    owner(a, "set", DELETE % TUNE)
    a.close(), b.close()


def test_0060_5_disco_shows_what_one_may_see(server):
    friends(server)
    a = Client(server, "alice@localhost/d").login(presence=True)
    b = Client(server, "bob@localhost/d").login(presence=True)
    s = Client(server, "mallory@localhost/d").login()
    publish(a, "shown", id="1", opts={"pubsub#title": "Shown &lt;here&gt;"})
    publish(a, "hidden", opts={"pubsub#access_model": "whitelist"})
    listed = "<query xmlns='http://jabber.org/protocol/disco#items'%s/>"
    info = "<query xmlns='http://jabber.org/protocol/disco#info'%s/>"
    for c, want in ((a, {"shown", "hidden"}), (b, {"shown"}), (s, set())):
        got = c.iq("get", listed % "", to=ALICE).findall("items:query/items:item", NS)
        assert {i.get("node") for i in got} == want and all(i.get("jid") == ALICE for i in got)
    assert [i.get("name") for i in b.iq("get", listed % " node='shown'", to=ALICE).findall(
        "items:query/items:item", NS)] == ["1"]
    one = b.iq("get", info % " node='shown'", to=ALICE).find("info:query", NS)
    assert one.find("info:identity", NS).get("type") == "leaf"
    assert "Shown <here>" in [v.text for v in one.iter("{jabber:x:data}value")]
    for node in ("hidden", "none"):
        assert condition(b.iq("get", info % f" node='{node}'", to=ALICE, check=False)) == ("item-not-found", "cancel")
        assert condition(s.iq("get", info % f" node='{node}'", to=ALICE, check=False)) == (
            "service-unavailable", "cancel")
    account = a.iq("get", info % "").find("info:query", NS)
    assert ("pubsub", "pep") in [(i.get("category"), i.get("type")) for i in account.findall("info:identity", NS)]
    assert PS + "#publish-options" in [f.get("var") for f in account.findall("info:feature", NS)]
    for n in ("shown", "hidden"):
        owner(a, "set", DELETE % n)
    for c in (a, b, s):
        c.close()
