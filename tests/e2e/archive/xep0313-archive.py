"""XEP-0313: what is archived, under which id, how it is asked for; XEP-0059, 0359, 0441, 0424."""

import xml.etree.ElementTree as ET

from pemb import Client, NS, barrier, condition, q

N = [0]
MAM = "urn:xmpp:mam:2"
SID = "{urn:xmpp:sid:0}stanza-id"
RSM = "http://jabber.org/protocol/rsm"
RESULT, FIN = "{%s}result" % MAM, "{%s}fin" % MAM
SET = "{%s}set" % RSM
FORWARDED, DELAY = "{urn:xmpp:forward:0}forwarded", "{urn:xmpp:delay}delay"
HINTS = "xmlns='urn:xmpp:hints'"
RETRACT = "urn:xmpp:message-retract:1"


def account(server):
    N[0] += 1
    jid = f"m{N[0]}@localhost"
    server.add_user(jid)
    return jid


def online(server, jid, resource="x", **kw):
    return Client(server, f"{jid}/{resource}").login(presence=True, **kw)


def pair(server):
    return online(server, account(server)), online(server, account(server))


def bare(client):
    return client.jid.split("/")[0]


def form(**fields):
    text = "<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE' type='hidden'>" \
           f"<value>{MAM}</value></field>"
    for name, values in fields.items():
        values = values if isinstance(values, list) else [values]
        text += f"<field var='{name.replace('_', '-')}'>" + \
                "".join(f"<value>{v}</value>" for v in values) + "</field>"
    return text + "</x>"


def rsm(max=None, **more):
    inner = f"<max>{max}</max>" if max is not None else ""
    return f"<set xmlns='{RSM}'>{inner}" + \
           "".join(f"<{k}>{v}</{k}>" for k, v in more.items()) + "</set>"


class Page:
    """The answer of a query: results in the order in which they came, and <fin/>."""

    def __init__(self, client, inner="", to=None, queryid="q"):
        iq = client.iq("set", f"<query xmlns='{MAM}' queryid='{queryid}'>{inner}</query>", to)
        self.messages = client.take(lambda e: e.tag == q("c:message") and e.find(RESULT) is not None)
        self.results = [m.find(RESULT) for m in self.messages]
        assert all(r.get("queryid") == queryid for r in self.results)
        self.ids = [r.get("id") for r in self.results]
        self.stanzas = [r.find(f"{FORWARDED}/" + q("c:message")) for r in self.results]
        self.bodies = [s.findtext("c:body", None, NS) for s in self.stanzas]
        self.stamps = [r.find(f"{FORWARDED}/{DELAY}").get("stamp") for r in self.results]
        fin = iq.find(FIN)
        self.complete = fin.get("complete") == "true"
        set = fin.find(SET)
        first = set.find("{%s}first" % RSM)
        self.first = first.text if first is not None else None
        self.index = int(first.get("index")) if first is not None and first.get("index") else None
        self.last = set.findtext("{%s}last" % RSM)
        count = set.findtext("{%s}count" % RSM)
        self.count = int(count) if count else None


def error_of(client, inner="", to=None, payload=None):
    payload = payload or f"<query xmlns='{MAM}'>{inner}</query>"
    return condition(client.iq("set", payload, to, check=False))


def sid(message, by):
    return [e.get("id") for e in message.findall(SID) if e.get("by") == by]


def fill(a, b, n, start=0):
    for i in range(start, start + n):
        a.message(bare(b), f"m{i}")
    for i in range(start, start + n):
        b.expect_body(f"m{i}")
    a.ping()


def test_3_both_sides_have_a_message_each_under_an_id_of_its_own(server):
    a, b = pair(server)
    id = a.message(bare(b), "hi", extra="<x xmlns='urn:x' y='&amp;'/>")
    live = b.expect_body("hi")
    # 3.1.2: by = the archive; never one of the sender's archive to somebody else
    assert len(live.findall(SID)) == 1 and len(sid(live, bare(b))) == 1
    barrier(a, a)
    mine, theirs = Page(a, form(with_=bare(b)).replace("with-", "with")), Page(b)
    assert theirs.ids == sid(live, bare(b)) and mine.ids != theirs.ids
    for page, owner in ((mine, a), (theirs, b)):
        m = page.messages[0]
        assert m.get("from") == bare(owner) and m.get("to") == owner.jid
        s = page.stanzas[0]
        assert (s.get("from"), s.get("to"), s.get("id")) == (a.jid, bare(b), id)
        assert s.find("{urn:x}x").get("y") == "&" and sid(s, bare(owner)) == page.ids
        assert page.complete and page.first == page.last == page.ids[0]
        assert (page.index, page.count) == (0, 1) and page.stamps[0].endswith("Z")
    a.close(), b.close()


def test_5_what_is_archived_and_what_is_not(server):
    a, b = pair(server)
    rows = [ # type, children, archived?
        ("chat", "<body>1</body>", True),
        ("normal", "<body>2</body>", True),
        ("chat", "<active xmlns='http://jabber.org/protocol/chatstates'/>", False),
        ("normal", "<x xmlns='urn:unknown'/>", False),
        ("chat", f"<body>3</body><no-store {HINTS}/>", False),
        ("chat", f"<body>4</body><no-permanent-store {HINTS}/>", False),
        ("chat", f"<active xmlns='http://jabber.org/protocol/chatstates'/><store {HINTS}/>", True),
        ("chat", f"<body>5</body><no-copy {HINTS}/>", True),
        ("chat", "<body>6</body><private xmlns='urn:xmpp:carbons:2'/>", True),
        ("chat", "<received xmlns='urn:xmpp:receipts' id='x'/>", True),
        ("chat", "<encryption xmlns='urn:xmpp:eme:0' namespace='x'/>", True),
        ("headline", "<body>7</body>", False),
        ("groupchat", "<body>8</body>", False),
        ("error", "<body>9</body><error type='cancel'/>", False),
    ]
    for i, (type, children, _) in enumerate(rows):
        a.send(f"<message to='{b.jid}' type='{type}' id='k{i}'>{children}</message>")
    kept = [f"k{i}" for i, row in enumerate(rows) if row[2]]
    a.iq("get", "<ping xmlns='urn:xmpp:ping'/>", b.jid, check=False) if False else None
    for i, (type, children, keep) in enumerate(rows):
        m = b.expect(lambda e: e.get("id") == f"k{i}")
        assert bool(sid(m, bare(b))) == keep, (i, ET.tostring(m))
    a.ping()
    for c in (a, b):
        assert [s.get("id") for s in Page(c).stanzas] == kept
    a.close(), b.close()


def test_4_1_1_a_message_to_oneself_is_there_once(server):
    a, b = pair(server)
    fill(a, b, 1)
    a.message(bare(a), "self")
    a.expect_body("self")
    a.message(a.jid, "full")
    a.expect_body("full")
    assert Page(a).bodies == ["m0", "self", "full"]
    assert Page(a, form(**{"with": bare(a)})).bodies == ["self", "full"]
    assert Page(a, form(**{"with": a.jid})).bodies == ["self", "full"] # ignoring the resource
    a.close(), b.close()


def test_xep0359_5_forged_ids_are_taken_off_on_all_copies(server):
    a = online(server, account(server))
    to = account(server)
    b, b2 = online(server, to, "1"), Client(server, to + "/2").login()
    b2.iq("set", "<enable xmlns='urn:xmpp:carbons:2'/>")
    forged = f"<stanza-id xmlns='urn:xmpp:sid:0' by='{to.upper()}' id='forged'/>" \
             f"<stanza-id xmlns='urn:xmpp:sid:0' by='{bare(a)}' id='own'/>" \
             "<origin-id xmlns='urn:xmpp:sid:0' id='o'/>"
    a.message(b.jid, "hi", extra=forged)
    live = b.expect_body("hi")
    copy = b2.expect(lambda e: e.find("{urn:xmpp:carbons:2}received") is not None)
    inner = copy.find("{urn:xmpp:carbons:2}received/" + FORWARDED + "/" + q("c:message"))
    archived = Page(b)
    ids = [e.get("id") for e in live.findall(SID)]
    assert len(ids) == 1 and "forged" not in ids and live.find("{urn:xmpp:sid:0}origin-id") is not None
    assert [e.get("id") for e in inner.findall(SID)] == ids == archived.ids
    assert [e.get("id") for e in archived.stanzas[0].findall(SID)] == ids
    for c in (a, b, b2):
        c.close()


def test_4_1_filters(server):
    a, b = pair(server)
    c = online(server, account(server), "other")
    fill(a, b, 3)
    fill(c, b, 2, start=3)
    fill(a, b, 1, start=5)
    whole = Page(b)
    assert whole.bodies == [f"m{i}" for i in range(6)]
    ask = lambda **f: Page(b, form(**{k.rstrip("_"): v for k, v in f.items()})).bodies
    assert ask(with_=bare(a)) == ["m0", "m1", "m2", "m5"]
    assert ask(with_=bare(a).upper()) == ["m0", "m1", "m2", "m5"] # prepared
    assert ask(with_=c.jid) == ["m3", "m4"] and ask(with_=bare(c) + "/no") == []
    assert ask(start=whole.stamps[3])[-1] == "m5" and "m3" in ask(start=whole.stamps[3])
    assert "m2" in ask(end=whole.stamps[2]) and ask(end="2001-01-01T00:00:00Z") == []
    assert ask(start="2001-01-01T02:00:00.5+02:00", end="2999-01-01T00:00:00Z") == whole.bodies
    assert ask(after_id=whole.ids[1], before_id=whole.ids[4]) == ["m2", "m3"]
    assert ask(ids=[whole.ids[4], whole.ids[0]]) == ["m0", "m4"] # chronological
    assert ask(ids=[whole.ids[4], whole.ids[0]], with_=bare(a)) == ["m0"]
    for x in (a, b, c):
        x.close()


def test_xep0059_pages_both_ways(server):
    a, b = pair(server)
    fill(a, b, 7)
    got, after = [], {}
    for bodies, index, complete in ((["m0", "m1", "m2"], 0, False), (["m3", "m4", "m5"], 3, False),
                                    (["m6"], 6, True), ([], None, True)):
        p = Page(b, rsm(3, **after))
        assert (p.bodies, p.index, p.count, p.complete) == (bodies, index, 7, complete)
        assert (p.first, p.last) == ((p.ids[0], p.ids[-1]) if bodies else (None, None))
        after = {"after": p.last}
        if bodies:
            got += p.ids
    before = {"before": ""} # the last page
    for bodies, index, complete in ((["m4", "m5", "m6"], 4, False), (["m1", "m2", "m3"], 1, False),
                                    (["m0"], 0, True)):
        p = Page(b, rsm(3, **before))
        assert (p.bodies, p.index, p.count, p.complete) == (bodies, index, 7, complete)
        before = {"before": p.first}
    p = Page(b, rsm(0))
    assert p.bodies == [] and p.count == 7 and not p.complete
    # 4.3.3: a flipped page has the same rows
    p = Page(b, rsm(3, before=got[6]) + "<flip-page/>")
    assert p.bodies == ["m5", "m4", "m3"] and p.first == got[3] and p.last == got[5]
    assert Page(b, rsm(10**30)).bodies == [f"m{i}" for i in range(7)] # a greater max is ours
    a.close(), b.close()


def test_a_page_has_fifty_unless_more_are_asked_for_and_250_at_most(server):
    a, b = pair(server)
    fill(a, b, 260)
    p = Page(b)
    assert len(p.ids) == 50 and not p.complete and p.count == 260
    p = Page(b, rsm(1000))
    assert len(p.ids) == 250 and p.bodies[-1] == "m249" and not p.complete
    p = Page(b, rsm(1000, after=p.last))
    assert len(p.ids) == 10 and p.complete and p.index == 250
    a.close(), b.close()


def test_many_queries_at_once_are_answered_in_order_and_overflow_nothing(server):
    a, b = pair(server)
    fill(a, b, 250)
    b.send("".join(f"<iq type='set' id='many{i}'><query xmlns='{MAM}' queryid='{i}'>{rsm(250)}</query></iq>"
                   for i in range(12)))
    for i in range(12):
        b.expect(lambda e: e.get("id") == f"many{i}", timeout=30)
        got = b.take(lambda e: e.find(RESULT) is not None and e.find(RESULT).get("queryid") == str(i))
        assert len(got) == 250, (i, len(got))
    b.ping()
    a.close(), b.close()


def test_errors(server):
    a, b = pair(server)
    fill(a, b, 1)
    unknown = "0" * 32
    missing, bad = ("item-not-found", "cancel"), ("bad-request", "modify")
    for inner in (rsm(after=unknown), rsm(before=unknown), rsm(after="no-such-id"),
                  form(before_id=unknown), form(after_id=unknown), form(ids=[unknown]),
                  form(ids=[Page(b).ids[0], unknown]), rsm(after=Page(a).ids[0])):
        assert error_of(b, inner) == missing, inner
    not_implemented = ("feature-not-implemented", "cancel")
    assert error_of(b, form(colour="red")) == not_implemented # 4.1.6
    assert error_of(b, rsm(index=3)) == not_implemented # XEP-0059 2.6
    assert error_of(b, payload=f"<other xmlns='{MAM}'/>") == not_implemented
    for inner in (form(start="yesterday"), form(end="2026-13-01T00:00:00Z"), rsm(max="-1"), rsm(max="x"),
                  "<x xmlns='jabber:x:data' type='submit'/>",
                  form().replace(MAM, "urn:xmpp:mam:1"), form().replace("submit", "form")):
        assert error_of(b, inner) == bad, inner
    assert error_of(b, form(**{"with": "@localhost"})) == ("jid-malformed", "modify")
    assert error_of(b, form(ids=["0" * 32] * 251)) == ("not-acceptable", "modify")
    b.ping()
    a.close(), b.close()


def test_another_archive_is_forbidden_whether_it_exists_or_not(server):
    a, b = pair(server)
    for to in (bare(b), "nobody@localhost"):
        assert error_of(a, to=to) == ("forbidden", "auth")
        for payload in ("query", "metadata", "prefs"):
            answer = a.iq("get", f"<{payload} xmlns='{MAM}'/>", to, check=False)
            assert condition(answer) == ("forbidden", "auth")
    a.close(), b.close()


def test_5_metadata_and_4_1_5_the_form(server):
    a, b = pair(server)
    ask = lambda what: b.iq("get", f"<{what} xmlns='{MAM}'/>")[0]
    assert len(ask("metadata")) == 0
    fill(a, b, 3)
    whole, ends = Page(b), ask("metadata")
    assert [(e.get("id"), e.get("timestamp")) for e in ends] == \
        [(whole.ids[0], whole.stamps[0]), (whole.ids[2], whole.stamps[2])]
    fields = {f.get("var"): f.get("type") for f in ask("query").iter("{jabber:x:data}field")}
    assert fields == {"FORM_TYPE": "hidden", "with": "jid-single", "start": "text-single",
                      "end": "text-single", "before-id": "text-single", "after-id": "text-single",
                      "ids": "list-multi"}
    features = {f.get("var") for f in b.iq("get", f"<query xmlns='{NS['info']}'/>").iter(
        "{%s}feature" % NS["info"])}
    assert {MAM, MAM + "#extended", "urn:xmpp:sid:0", RETRACT, RETRACT + "#tombstone"} <= features
    a.close(), b.close()


def test_6_1_1_offline_and_archive_have_one_body_and_one_id(server):
    a = online(server, account(server))
    to = account(server)
    a.message(to, "archived")
    a.message(to, "waits only", extra=f"<no-permanent-store {HINTS}/>")
    a.ping()
    b = online(server, to)
    given = b.expect_body("archived")
    assert sid(b.expect_body("waits only"), to) == []
    assert given.find("delay:delay", NS) is not None and sid(given, to) == Page(b).ids
    a.close(), b.close()


def test_6_1_1_who_has_asked_the_archive_gets_from_offline_what_is_not_there(server):
    a = online(server, account(server))
    to = account(server)
    a.message(to, "archived")
    a.message(to, "waits only", extra=f"<no-permanent-store {HINTS}/>")
    a.ping()
    b = Client(server, to + "/x").login()
    assert Page(b).bodies == ["archived"]
    b.send("<presence/>")
    b.expect_body("waits only")
    barrier(b, b)
    assert not b.take(lambda e: e.tag == q("c:message"))
    b.close()
    b = online(server, to) # it has left the store, too
    barrier(b, b)
    assert not b.take(lambda e: e.tag == q("c:message"))
    a.close(), b.close()


def prefs(client, default=None, always=(), never=()):
    jids = lambda name, l: f"<{name}>" + "".join(f"<jid>{j}</jid>" for j in l) + f"</{name}>"
    if default is None:
        return client.iq("get", f"<prefs xmlns='{MAM}'/>")[0]
    return client.iq("set", f"<prefs xmlns='{MAM}' default='{default}'>{jids('always', always)}"
                            f"{jids('never', never)}</prefs>")[0]


def test_xep0441_preferences(server):
    a, b = pair(server)
    assert prefs(b).get("default") == "always" and [len(x) for x in prefs(b)] == [0, 0]
    set = prefs(b, "never", always=[bare(a).upper()], never=["x@localhost/r"])
    for got in (set, prefs(b)):
        assert got.get("default") == "never"
        assert [[j.text for j in l] for l in got] == [[bare(a)], ["x@localhost/r"]]
    c = online(server, account(server))
    c.message(bare(b), "no")
    a.message(bare(b), "yes")
    b.expect_body("no"), b.expect_body("yes")
    assert Page(b).bodies == ["yes"] and Page(c).bodies == ["no"] # each his own
    prefs(b, "roster")
    c.message(bare(b), "stranger")
    b.expect_body("stranger")
    b.iq("set", f"<query xmlns='jabber:iq:roster'><item jid='{bare(c)}'/></query>")
    c.message(bare(b), "contact")
    b.expect_body("contact")
    assert Page(b).bodies == ["yes", "contact"]
    prefs(b, "always", never=[a.jid])
    a.message(bare(b), "never")
    b.expect_body("never")
    assert Page(b).bodies == ["yes", "contact"]
    server.kill_process("store")
    assert prefs(b).get("default") == "always"
    for bad in ("default='maybe'", ""):
        assert error_of(b, payload=f"<prefs xmlns='{MAM}' {bad}/>") == ("bad-request", "modify")
    assert error_of(b, payload=f"<prefs xmlns='{MAM}' default='always'><never><jid>@</jid></never></prefs>") \
        == ("jid-malformed", "modify")
    for x in (a, b, c):
        x.close()


def test_xep0424_a_retraction_leaves_a_tombstone_and_only_its_author_may(server):
    a, b = pair(server)
    secret, kept = a.message(bare(b), "secret", id="m&amp;1"), a.message(bare(b), "kept")
    b.expect_body("secret"), b.expect_body("kept")
    b.message(bare(a), None, id="r0", extra=f"<retract xmlns='{RETRACT}' id='{kept}'/>") # not his
    a.message(bare(b), None, id="r1", extra=f"<retract xmlns='{RETRACT}' id='{secret}'/>")
    b.expect(lambda e: e.get("id") == "r1"), a.expect(lambda e: e.get("id") == "r0")
    for c in (a, b):
        p, tries = Page(c), 0
        while p.bodies[0] is not None and tries < 1000: # nothing waits for a tombstone but `h`
            p, tries = Page(c), tries + 1
        assert p.bodies == [None, "kept", None, None], [ET.tostring(s) for s in p.stanzas]
        s = p.stanzas[0]
        gone = s.find("{%s}retracted" % RETRACT)
        assert gone.get("id") == "r1" and gone.get("stamp") and s.get("id") == "m&1"
        assert (s.get("from"), s.get("to")) == (a.jid, bare(b))
    a.close(), b.close()
