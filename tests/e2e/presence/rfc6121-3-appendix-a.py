"""RFC 6121 3 and Appendix A as tables: what each subscription stanza does in each state of the roster,
whether it is routed, delivered, pushed."""

from pemb import Client, NS, barrier, condition, q

USERS = ("watch@localhost",)
STATES = ("none", "none+out", "none+in", "none+out+in", "to", "to+in", "from", "from+out", "both")


class Pair:
    """u (the user looked at) and v (the contact), new accounts, brought into a state of u."""

    count = 0

    def __init__(self, server, state):
        Pair.count += 1
        self.names = []
        for who in "uv":
            name = f"{who}{Pair.count}@localhost"
            server.add_user(name)
            self.names.append(name)
        self.U, self.V = self.names
        self.u = Client(server, self.U + "/r").login(presence=True)
        self.v = Client(server, self.V + "/r").login(presence=True)
        for c in (self.u, self.v):
            c.iq("get", "<query xmlns='jabber:iq:roster'/>")
        base, *more = state.split("+")
        if base in ("to", "both"):
            self.request(self.u, self.v, self.U, self.V, grant=True)
        if base in ("from", "both"):
            self.request(self.v, self.u, self.V, self.U, grant=True)
        if "out" in more:
            self.request(self.u, self.v, self.U, self.V, grant=False)
        if "in" in more:
            self.request(self.v, self.u, self.V, self.U, grant=False)
        self.quiet()
        assert self.state() == state, (self.state(), state)
        self.quiet()

    def request(self, a, b, A, B, grant):
        a.send(f"<presence type='subscribe' to='{B}'/>")
        b.expect_presence(A, "subscribe")
        if grant:
            b.send(f"<presence type='subscribed' to='{A}'/>")
            a.expect_presence(B, "subscribed")

    def quiet(self):
        for a, b in ((self.u, self.v), (self.v, self.u)):
            settle(a)
            barrier(a, b)
            settle(b)
        self.u.backlog.clear(), self.v.backlog.clear()

    def item(self):
        query = self.u.iq("get", "<query xmlns='jabber:iq:roster'/>").find("roster:query", NS)
        for i in query.findall("roster:item", NS):
            if i.get("jid") == self.V:
                return i
        return None

    def state(self):
        """pending in is seen by logging in a second resource, which is given the request."""
        i = self.item()
        text = i.get("subscription") if i is not None else "none"
        if i is not None and i.get("ask") == "subscribe":
            text += "+out"
        probe = Client(self.u.server, self.U + "/probe").login(presence=True)
        probe.ping()
        if probe.take(lambda e: e.tag == q("c:presence") and e.get("type") == "subscribe"):
            text += "+in"
        probe.close()
        return text

    def close(self):
        self.u.close(), self.v.close()


# Appendix A.2: u sends to v. state -> (new state, routed to v?)
OUTBOUND = {
    "subscribe": {"none": ("none+out", True), "none+out": ("none+out", True),
                  "none+in": ("none+out+in", True), "none+out+in": ("none+out+in", True),
                  "to": ("to", True), "to+in": ("to+in", True), "from": ("from+out", True),
                  "from+out": ("from+out", True), "both": ("both", True)},
    "unsubscribe": {"none": ("none", True), "none+out": ("none", True), "none+in": ("none+in", True),
                    "none+out+in": ("none+in", True), "to": ("none", True), "to+in": ("none+in", True),
                    "from": ("from", True), "from+out": ("from", True), "both": ("from", True)},
    "subscribed": {"none": ("none", False), "none+out": ("none+out", False), "none+in": ("from", True),
                   "none+out+in": ("from+out", True), "to": ("to", False), "to+in": ("both", True),
                   "from": ("from", False), "from+out": ("from+out", False), "both": ("both", False)},
    "unsubscribed": {"none": ("none", False), "none+out": ("none+out", False), "none+in": ("none", True),
                     "none+out+in": ("none+out", True), "to": ("to", False), "to+in": ("to", True),
                     "from": ("none", True), "from+out": ("none+out", True), "both": ("to", True)},
}
# What v, as the receiver, is shown of it: a routed stanza that changes nothing there is dropped.
SHOWN = {
    ("subscribe", "none"), ("subscribe", "none+in"), ("subscribe", "from"),
    ("unsubscribe", "none+out"), ("unsubscribe", "none+out+in"), ("unsubscribe", "to"),
    ("unsubscribe", "to+in"), ("unsubscribe", "from+out"), ("unsubscribe", "both"),
    ("subscribed", "none+in"), ("subscribed", "none+out+in"), ("subscribed", "to+in"),
    ("unsubscribed", "none+in"), ("unsubscribed", "none+out+in"), ("unsubscribed", "to+in"),
    ("unsubscribed", "from"), ("unsubscribed", "from+out"), ("unsubscribed", "both"),
}


def settle(c):
    """All changes of c's roster that were under way are done: they are done in order."""
    c.iq("set", "<query xmlns='jabber:iq:roster'><item jid='settle@localhost'/></query>")
    c.iq("set", "<query xmlns='jabber:iq:roster'><item jid='settle@localhost' subscription='remove'/></query>")


def outbound(server, type):
    for state in STATES:
        p = Pair(server, state)
        p.u.send(f"<presence type='{type}' to='{p.V}/ignored' id='x'/>")
        p.u.ping()
        barrier(p.u, p.v)
        settle(p.v)
        barrier(p.v, p.u)
        settle(p.u)
        seen = p.v.take(lambda e: e.tag == q("c:presence") and e.get("type") == type)
        want = (type, state) in SHOWN
        # "subscribe" again while pending: the contact may be shown it once more
        if (type, state) not in (("subscribe", "none+out"), ("subscribe", "none+out+in"),
                                 ("subscribe", "from+out")):
            assert bool(seen) == want, (type, state, len(seen))
        for e in seen:
            assert e.get("from") == p.U and e.get("to") in (p.V, None), (e.get("from"), e.get("to"))
        p.u.backlog.clear()
        new = p.state()
        assert new == OUTBOUND[type][state][0], (type, state, new)
        p.close()


def test_subscribe(server):
    outbound(server, "subscribe")


def test_unsubscribe(server):
    outbound(server, "unsubscribe")


def test_subscribed(server):
    outbound(server, "subscribed")


def test_unsubscribed(server):
    outbound(server, "unsubscribed")


def test_requests_are_kept_with_their_payload_and_given_until_answered(server):
    for n in ("askr", "askd"):
        server.add_user(f"{n}@localhost")
    a = Client(server, "askr@localhost/1").login(presence=True)
    a.send("<presence type='subscribe' to='askd@localhost' id='s1'><status>hi, it is me</status>"
           "<nick xmlns='http://jabber.org/protocol/nick'>Askr</nick></presence>")
    a.ping()
    for i in range(2):
        b = Client(server, "askd@localhost/1").login(presence=True)
        s = b.expect_presence("askr@localhost", "subscribe")
        assert s.findtext("c:status", None, NS) == "hi, it is me"
        assert s.find("{http://jabber.org/protocol/nick}nick").text == "Askr"
        b.close()
    b = Client(server, "askd@localhost/1").login(presence=True)
    b.expect_presence("askr@localhost", "subscribe")
    b.send("<presence type='subscribed' to='askr@localhost'/>")
    a.expect_presence("askd@localhost", "subscribed")
    a.expect_presence(b.jid)
    b.close()
    a.expect_presence(b.jid, "unavailable")
    b = Client(server, "askd@localhost/1").login(presence=True)
    b.ping()
    assert not b.take(lambda e: e.get("type") == "subscribe")
    a.close(), b.close()


def test_pre_approval(server):
    for n in ("prea", "preb"):
        server.add_user(f"{n}@localhost")
    a = Client(server, "prea@localhost/1").login(presence=True)
    assert a.features.find("{urn:xmpp:features:pre-approval}sub") is not None
    a.iq("get", "<query xmlns='jabber:iq:roster'/>")
    a.send("<presence type='subscribed' to='preb@localhost'/>")
    p = a.expect(lambda e: e.tag == q("c:iq") and e.get("type") == "set")
    i = p.find("roster:query/roster:item", NS)
    assert i.get("approved") == "true" and i.get("subscription") == "none"
    b = Client(server, "preb@localhost/1").login(presence=True)
    b.ping()
    assert not b.take(lambda e: e.get("type") == "subscribed")
    b.send("<presence type='subscribe' to='prea@localhost'/>")
    b.expect_presence("prea@localhost", "subscribed")
    b.expect_presence(a.jid)
    p = a.expect(lambda e: e.tag == q("c:iq") and e.get("type") == "set")
    assert p.find("roster:query/roster:item", NS).get("subscription") == "from"
    barrier(b, a)
    assert not a.take(lambda e: e.get("type") == "subscribe")
    a.close(), b.close()


def test_already_subscribed_is_answered_by_the_home(server):
    p = Pair(server, "both")
    p.u.send(f"<presence type='subscribe' to='{p.V}'/>")
    barrier(p.u, p.v), settle(p.v), barrier(p.v, p.u), settle(p.u)
    assert not p.v.take(lambda e: e.get("type") == "subscribe")
    assert not p.u.take(lambda e: e.get("type") == "subscribed"), "A.3: nothing changes, nothing is shown"
    assert p.state() == "both"
    p.close()


def test_unsolicited_subscribed_gives_no_presence(server):
    for n in ("evil", "good"):
        server.add_user(f"{n}@localhost")
    good = Client(server, "good@localhost/1").login(presence=True)
    good.iq("get", "<query xmlns='jabber:iq:roster'/>")
    evil = Client(server, "evil@localhost/1").login(presence=True)
    evil.send("<presence type='subscribed' to='good@localhost'/>")
    evil.send("<presence type='unsubscribed' to='good@localhost'/>")
    evil.send("<presence type='probe' to='good@localhost'/>")
    barrier(evil, good)
    settle(good)
    good.take(lambda e: e.find("roster:query/roster:item[@jid='settle@localhost']", NS) is not None)
    assert not good.take(lambda e: e.tag in (q("c:presence"), q("c:iq")))
    evil.expect_presence("good@localhost", "unsubscribed")
    evil.ping()
    assert not evil.take(lambda e: (e.get("from") or "").startswith("good@localhost/"))
    good.close(), evil.close()


def test_subscription_to_oneself_and_to_nobody(server):
    w = Client(server, "watch@localhost/1").login(presence=True)
    w.iq("get", "<query xmlns='jabber:iq:roster'/>")
    for type in ("subscribe", "subscribed", "unsubscribe", "unsubscribed"):
        w.send(f"<presence type='{type}' to='watch@localhost'/>")
    w.ping()
    assert not w.take(lambda e: e.get("type") in ("subscribe", "subscribed", "unsubscribe", "unsubscribed"))
    w.close()
