"""RFC 6121 4: initial presence and its order, later presence, probes, directed presence, unavailable."""

from pemb import Client, NS, barrier, befriend, condition, q

N = [0]


def people(server, n, presence=True):
    out = []
    for _ in range(n):
        N[0] += 1
        jid = f"p{N[0]}@localhost"
        server.add_user(jid)
        out.append(Client(server, jid + "/r").login(presence=presence))
    return out


def test_initial_presence_in_order(server):
    a, b, c = people(server, 3)
    befriend(a, b)
    c.send(f"<presence type='subscribe' to='{a.jid.split('/')[0]}'/>")
    a.expect_presence(c.jid.split("/")[0], "subscribe")
    b.send("<presence><show>away</show><status>lunch</status></presence>")
    b.ping()
    a.close()
    b.message(a.jid.split("/")[0], "while away")
    b.ping()
    first = Client(server, a.jid.split("/")[0] + "/one").login()
    first.send("<presence><priority>-1</priority></presence>")
    first.expect_presence(first.jid)
    first.expect_presence(b.jid)
    two = Client(server, a.jid.split("/")[0] + "/two").login()
    two.send("<presence/>")
    seen = []
    while len(seen) < 5:
        e = two.expect(lambda e: e.tag in (q("c:presence"), q("c:message")))
        seen.append(e)
    who = [(e.get("from"), e.get("type")) for e in seen]
    ours = [w for w in who if w != (b.jid, None)] # b's answer comes from b's home, when it comes
    assert len(ours) == 4 and ours[:3] == [(two.jid, None), (first.jid, None),
                                           (c.jid.split("/")[0], "subscribe")], who
    late = [e for e in seen if e.tag == q("c:message")]
    assert ours[3] == (b.jid, "chat") and late[0].find("delay:delay", NS) is not None, who
    answer = [e for e in seen if e.tag == q("c:presence") and e.get("from") == b.jid][0]
    assert answer.findtext("c:show", None, NS) == "away" and answer.findtext("c:status", None, NS) == "lunch"
    b.expect_presence(two.jid)
    first.expect_presence(two.jid)
    for x in (first, two, b, c):
        x.close()


def test_later_presence_goes_to_contacts_and_own_resources_unchanged(server):
    a, b = people(server, 2)
    befriend(a, b)
    a2 = Client(server, a.jid.split("/")[0] + "/second").login(presence=True)
    a.send("<presence id='p7'><show>xa</show><status xml:lang='de'>weg</status><priority>3</priority>"
           "<c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='n' ver='v'/><x xmlns='urn:x' a='1'/>"
           "</presence>")
    for r in (a, a2, b):
        p = r.expect(lambda e: e.tag == q("c:presence") and e.get("id") == "p7")
        assert p.get("from") == a.jid
        assert [x.tag for x in p] == [q("c:show"), q("c:status"), q("c:priority"),
                                      "{http://jabber.org/protocol/caps}c", "{urn:x}x"]
    for x in (a, a2, b):
        x.close()


def test_unavailable_when_a_session_ends_in_any_way(server):
    a, b = people(server, 2)
    befriend(a, b)
    a.send("<presence type='unavailable'><status>bye</status></presence>")
    p = b.expect_presence(a.jid, "unavailable")
    assert p.findtext("c:status", None, NS) == "bye"
    a.send("<presence/>")
    b.expect_presence(a.jid)
    a.close()
    b.expect_presence(a.jid, "unavailable")
    a = Client(server, a.jid).login(presence=True)
    b.expect_presence(a.jid)
    a.drop()
    b.expect_presence(a.jid, "unavailable")
    a = Client(server, a.jid).login(presence=True)
    b.expect_presence(a.jid)
    again = Client(server, a.jid).login()
    b.expect_presence(a.jid, "unavailable")
    a.stream_error("conflict")
    again.close(), b.close()


def test_a_detached_session_is_still_available(server):
    a, b = people(server, 2)
    befriend(a, b)
    s = Client(server, a.jid.split("/")[0] + "/sm").login(sm=True, presence=True)
    b.expect_presence(s.jid)
    s.drop()
    a.message(b.jid, "marker")
    b.expect_body("marker")
    late = Client(server, b.jid.split("/")[0] + "/late").login(presence=True)
    late.expect_presence(s.jid)
    assert not b.take(lambda e: e.get("type") == "unavailable")
    server.cli("user", "kick", "--yes", s.jid.split("/")[0] + "/sm", check=False)
    for x in (a, b, late):
        x.close()


def test_directed_presence_and_its_cleanup(server):
    a, b, c = people(server, 3)
    befriend(a, b)
    a.send(f"<presence to='{c.jid}' id='d1'><status>only for you</status></presence>")
    p = c.expect_presence(a.jid)
    assert p.findtext("c:status", None, NS) == "only for you"
    a.send("<presence><show>dnd</show></presence>")
    b.expect(lambda e: e.get("from") == a.jid and e.findtext("c:show", None, NS) == "dnd")
    barrier(a, c)
    assert not c.take(lambda e: e.tag == q("c:presence"))
    a.drop()
    c.expect_presence(a.jid, "unavailable")
    b.expect_presence(a.jid, "unavailable")
    # taken back by directed unavailable: nothing more comes
    a = Client(server, a.jid).login(presence=True)
    a.send(f"<presence to='{c.jid}'/><presence to='{c.jid}' type='unavailable'/>")
    c.expect_presence(a.jid), c.expect_presence(a.jid, "unavailable")
    a.close()
    b.expect_presence(a.jid, "unavailable")
    barrier(b, c)
    assert not c.take(lambda e: e.tag == q("c:presence"))
    b.close(), c.close()


def test_directed_presence_before_the_initial_one_is_taken_back_at_the_end(server):
    """4.6.3: a contact hears nothing of a session's end by broadcast when there was no broadcast."""
    a, b = people(server, 2)
    befriend(a, b)
    a.close()
    b.expect_presence(a.jid, "unavailable")
    for to, broadcast in ((b.jid, False), (b.jid.split("/")[0], False), (b.jid.split("/")[0], True)):
        a = Client(server, a.jid).login()
        a.send(f"<presence to='{to}'/>" + ("<presence id='all'/>" if broadcast else ""))
        b.expect_presence(a.jid)
        if broadcast:
            b.expect(lambda e: e.get("id") == "all")
        a.close()
        b.expect_presence(a.jid, "unavailable")
        barrier(b, b)
        assert not b.take(lambda e: e.get("type") == "unavailable"), "once is enough"
    b.close()


def test_probes(server):
    a, b, stranger = people(server, 3)
    befriend(a, b)
    B = b.jid.split("/")[0]
    a.send(f"<presence type='probe' to='{B}'/>")
    p = a.expect_presence(b.jid)
    assert p.find("delay:delay", NS) is not None
    stranger.send(f"<presence type='probe' to='{B}'/>")
    stranger.expect_presence(B, "unsubscribed")
    stranger.send("<presence type='probe' to='nobody-here@localhost'/>")
    stranger.expect_presence("nobody-here@localhost", "unsubscribed")
    b.close()
    a.expect_presence(b.jid, "unavailable")
    a.send(f"<presence type='probe' to='{B}'/>")
    a.expect_presence(B, "unavailable")
    a.close(), stranger.close()


def test_strangers_see_nothing(server):
    a, stranger = people(server, 2)
    a.send("<presence><status>secret</status></presence>")
    a.ping()
    barrier(a, stranger)
    assert not stranger.take(lambda e: e.tag == q("c:presence") and e.get("from") != stranger.jid)
    stranger.send(f"<presence to='{a.jid.split('/')[0]}'/>")
    a.expect_presence(stranger.jid)
    a.close(), stranger.close()


def test_priority_that_is_no_number_counts_as_zero(server):
    a, b = people(server, 2, presence=False)
    for bad in ("abc", "", "200", "-129", "1.5"):
        b.send(f"<presence><priority>{bad}</priority></presence>")
        p = b.expect_presence(b.jid)
        assert (p.findtext("c:priority", "", NS) or "") == bad
        a.message(b.jid.split("/")[0], f"for {bad}")
        b.expect_body(f"for {bad}")
    b.send("<presence type='hello'/>")
    e = b.expect(lambda e: e.get("type") == "error")
    assert condition(e) == ("bad-request", "modify")
    a.close(), b.close()
