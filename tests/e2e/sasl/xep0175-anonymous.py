"""ANONYMOUS (RFC 4505, XEP-0175; host auth = anonymous): a name nobody chose, a session like any
other, and nothing of it left afterwards."""

import json

from pemb import Client, NS, condition, q

HOST_OPTIONS = "auth = {internal, anonymous}"
SETTINGS = ("limits.close_timeout=200ms",)
USERS = ("bob@localhost",)


def anonymous(server, presence=False, trace="AAAA"):
    c = Client(server, "localhost")
    c.open()
    c.starttls()
    assert "ANONYMOUS" in c.mechanisms(), c.mechanisms()
    c.send(f"<auth xmlns='{NS['sasl']}' mechanism='ANONYMOUS'>{trace}</auth>")
    c.expect("sasl:success")
    c.open()
    assert c.bind("desk").get("type") == "result"
    if presence:
        c.send("<presence/>")
        c.expect_presence(c.jid)
    return c


def test_each_has_a_name_of_its_own_that_nobody_can_guess(server):
    clients = [anonymous(server) for _ in range(4)]
    names = {c.jid.split("@")[0] for c in clients}
    assert len(names) == 4 and all(len(n) >= 16 for n in names), names
    for c in clients:
        assert c.jid.endswith("@localhost/desk")
        c.ping()
        c.close()
    for trace in ("=", "", "AAAA" * 100):
        anonymous(server, trace=trace).close()


def test_they_talk_and_leave_nothing(server):
    a = anonymous(server, presence=True)
    b = Client(server, "bob@localhost/y").login(presence=True)
    bare = a.jid.split("/")[0]
    a.message("bob@localhost", "from nowhere")
    assert b.expect_body("from nowhere").get("from") == a.jid
    b.message(bare, "back")
    a.expect_body("back")
    info = a.iq("get", "<query xmlns='http://jabber.org/protocol/disco#info'/>", to=bare)
    identity = info.find("info:query/info:identity[@category='account']", NS)
    assert identity is not None and identity.get("type") == "anonymous"
    a.close()
    b.message(bare, "gone?", id="late")
    error = b.expect(lambda e: e.get("id") == "late")
    assert condition(error)[0] == "service-unavailable", "nothing is kept for somebody without account"
    assert server.cli("user", "show", bare, check=False).returncode == 4
    total = json.loads(server.cli("--json", "user", "list", "localhost").stdout)["items"]
    assert [i["jid"] for i in total] == ["bob@localhost"]
    b.close()


def test_a_name_of_the_gone_belongs_to_nobody(server):
    a = anonymous(server)
    user = a.jid.split("@")[0]
    for mechanism in ("PLAIN", "SCRAM-SHA-256"):
        c = Client(server, f"{user}@localhost", "")
        c.open()
        c.starttls()
        answer = c.auth(mechanism, password="anything-long")
        assert answer.tag == q("sasl:failure"), mechanism
        c.sock.close()
    a.close()


def test_what_needs_an_account_is_refused_not_kept(server):
    a = anonymous(server, presence=True)
    for payload in ("<vCard xmlns='vcard-temp'><FN>x</FN></vCard>",
                    "<query xmlns='jabber:iq:private'><x xmlns='urn:x'/></query>",
                    "<query xmlns='jabber:iq:register'><username>x</username><password>yyyyyyyyy"
                    "</password></query>",
                    "<query xmlns='jabber:iq:register'><remove/></query>"):
        r = a.iq("set", payload, check=False)
        assert r.get("type") == "error", payload
    a.close()


def test_no_resumption_is_offered_to_whom_nobody_can_log_in_as(server):
    """A session that waited for its guest would wait in vain, with its queue."""
    a = anonymous(server, presence=True)
    enabled = a.enable()
    assert enabled.get("id") is None and enabled.get("resume") is None
    assert a.acked() == 0
    a.drop()
    server.wait_log(f"event=session_ended .*jid={a.jid} ")
