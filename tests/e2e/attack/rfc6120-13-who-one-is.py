"""Who one is and whom one may know of (RFC 6120 8.1.2.1, 13.10; RFC 6121 8.5.1, 13; xmpp.md 1-4, 6): a
`from` is never the client's to choose, a stranger cannot tell an account from none, nor online from
offline, and nobody resumes somebody else's session."""

import re
import xml.etree.ElementTree as ET

from pemb import Client, NS, StreamError, barrier, condition, q, resume

USERS = ("alice@localhost", "bob@localhost", "eve@localhost", "carl@localhost")
SETTINGS = ("auth.failure_delay=0s", "auth.address_failure_rate=0/s", "auth.account_failure_rate=0/s")


def test_a_forged_from_is_overwritten(server):
    eve = Client(server, "eve@localhost/x").login(presence=True)
    bob = Client(server, "bob@localhost/y").login(presence=True)
    for forged in ("alice@localhost/phone", "localhost", "bob@localhost", "", "not a jid @@", "a&amp;b"):
        for name, inside in (("message", "<body>x</body>"), ("presence", ""),
                             ("iq", "<ping xmlns='urn:xmpp:ping'/>")):
            type = "type='get'" if name == "iq" else "type='chat'" if name == "message" else ""
            # both orders of the attributes: what is cut out and what is put in may touch
            for order in (f"from='{forged}' to='bob@localhost/y'", f"to='bob@localhost/y' from='{forged}'"):
                eve.send(f"<{name} {order} {type} id='f'>{inside}</{name}>")
                got = bob.expect(lambda e: e.tag == q(f"c:{name}") and e.get("id") == "f")
                assert got.get("from") == "eve@localhost/x", (forged, ET.tostring(got))
                assert got.get("to") == "bob@localhost/y"
    eve.send("<presence type='subscribe' from='alice@localhost' to='bob@localhost'/>")
    got = bob.expect(lambda e: e.tag == q("c:presence") and e.get("type") == "subscribe")
    assert got.get("from") == "eve@localhost", ET.tostring(got)
    for c in (eve, bob):
        c.close()


STRANGERS_ASK = [
    ("disco#info", "get", "<query xmlns='http://jabber.org/protocol/disco#info'/>"),
    ("disco#items", "get", "<query xmlns='http://jabber.org/protocol/disco#items'/>"),
    ("disco of a node", "get", "<query xmlns='http://jabber.org/protocol/disco#info' node='x'/>"),
    ("last activity", "get", "<query xmlns='jabber:iq:last'/>"),
    ("vCard", "get", "<vCard xmlns='vcard-temp'/>"),
    ("vCard set", "set", "<vCard xmlns='vcard-temp'><FN>Eve</FN></vCard>"),
    ("ping", "get", "<ping xmlns='urn:xmpp:ping'/>"),
    ("time", "get", "<time xmlns='urn:xmpp:time'/>"),
    ("version", "get", "<query xmlns='jabber:iq:version'/>"),
    ("private XML", "get", "<query xmlns='jabber:iq:private'><a xmlns='urn:a'/></query>"),
    ("roster", "get", "<query xmlns='jabber:iq:roster'/>"),
    ("roster set", "set", "<query xmlns='jabber:iq:roster'><item jid='eve@localhost'/></query>"),
    ("registration", "get", "<query xmlns='jabber:iq:register'/>"),
    ("registration set", "set", "<query xmlns='jabber:iq:register'><remove/></query>"),
    ("something unknown", "get", "<x xmlns='urn:unknown'/>"),
    ("something unknown set", "set", "<x xmlns='urn:unknown'/>"),
]


def answer_as_text(eve, who, type, payload):
    text = ET.tostring(eve.iq(type, payload, to=who, check=False, timeout=5)).decode()
    text = text.replace(who, "WHO")
    return re.sub(r' id="[^"]*"', "", text)


def test_an_account_and_none_answer_strangers_alike(server):
    eve = Client(server, "eve@localhost/x").login(presence=True)
    alice = Client(server, "alice@localhost/secret").login(presence=True)
    for name, type, payload in STRANGERS_ASK:
        seen = {who: answer_as_text(eve, who, type, payload) for who in
                ("alice@localhost", "carl@localhost", "nobody@localhost")}
        assert len(set(seen.values())) == 1, (name, seen)
        full = {who: answer_as_text(eve, f"{who}/none", type, payload)
                for who in ("alice@localhost", "carl@localhost", "nobody@localhost")}
        assert len({t.replace("WHO", "W") for t in full.values()}) == 1, (name, full)
    alice.ping()
    assert not alice.take(lambda e: e.tag == q("c:iq")), "an IQ to the bare JID reached a resource"
    for c in (eve, alice):
        c.close()


def test_presence_does_not_leak_to_strangers(server):
    eve = Client(server, "eve@localhost/x").login(presence=True)
    alice = Client(server, "alice@localhost/secret").login(presence=True)
    for who in ("alice@localhost", "carl@localhost", "nobody@localhost", "alice@localhost/secret"):
        eve.send(f"<presence type='probe' to='{who}'/>")
        if "/" not in who:
            eve.expect_presence(who, "unsubscribed")
        eve.send(f"<presence to='{who}'/>")
        eve.send(f"<presence type='unavailable' to='{who}'/>")
        eve.send(f"<presence type='error' to='{who}'/>")
    eve.send("<presence type='subscribe' to='alice@localhost'/>")
    alice.expect_presence("eve@localhost", "subscribe")
    alice.send("<presence><status>private</status></presence>")
    alice.expect(lambda e: e.tag == q("c:presence") and e.find("c:status", NS) is not None)
    barrier(alice, eve)
    got = eve.take(lambda e: e.tag == q("c:presence") and (e.get("from") or "").startswith("alice"))
    assert not [e for e in got if e.get("type") in (None, "unavailable")], [ET.tostring(e) for e in got]
    # Directed presence is seen by whom it is directed to, and taken back from there.
    alice.send("<presence to='eve@localhost/x'/>")
    eve.expect_presence("alice@localhost/secret")
    alice.close()
    eve.expect_presence("alice@localhost/secret", "unavailable")
    eve.close()


def test_nothing_is_answered_that_could_go_round(server):
    """Results and errors, to whomever: no answer, no bounce (RFC 6120 8.3.1)."""
    eve = Client(server, "eve@localhost/x").login(presence=True)
    bob = Client(server, "bob@localhost/y").login(presence=True)
    targets = ("alice@localhost", "alice@localhost/none", "nobody@localhost", "nobody@localhost/x",
               "localhost", "localhost/x", "other.example", "bob@other.example", "eve@localhost",
               "eve@localhost/none", "@@", "example.org", "nobody@example.org")
    for to in targets:
        for stanza in (f"<iq type='result' id='l' to='{to}'/>",
                       f"<iq type='error' id='l' to='{to}'><error type='cancel'><gone xmlns="
                       f"'{NS['stanzas']}'/></error></iq>",
                       f"<message type='error' id='l' to='{to}'><body>x</body></message>",
                       f"<presence type='error' id='l' to='{to}'/>",
                       f"<message type='headline' id='l' to='{to}'><body>x</body></message>"
                       if to.startswith(("nobody@l", "alice")) else ""):
            eve.send(stanza)
    eve.send("<iq type='result' id='l'/><iq type='error' id='l'/>")
    barrier(eve, bob)
    eve.ping()
    eve.iq("get", "<ping xmlns='urn:xmpp:ping'/>", to="localhost")
    got = eve.take(lambda e: e.get("id") == "l")
    assert not got, [ET.tostring(e) for e in got]
    for c in (eve, bob):
        c.close()


def test_somebody_elses_session_is_unknown(server):
    alice = Client(server, "alice@localhost/sm").login(sm=True, presence=True)
    eve = Client(server, "eve@localhost")
    eve.login(bind=False)
    for previd in (alice.sm_id, alice.sm_id.upper(), alice.sm_id + "0", "", "x" * 3000, "'-&lt;",
                   "0" * 16 + "-1", "f" * 16 + "-1"):
        previd = previd.replace("'", "&apos;")
        eve.send(f"<resume xmlns='urn:xmpp:sm:3' previd='{previd}' h='0'/>")
        failed = eve.expect("sm:failed")
        assert failed.get("h") is None and failed[0].tag == q("stanzas:item-not-found"), previd[:40]
    for h in ("-1", "x", "4294967296", "99999999999999999999", ""):
        eve.send(f"<resume xmlns='urn:xmpp:sm:3' previd='{alice.sm_id}' h='{h}'/>")
        eve.expect("sm:failed")
    assert eve.bind("mine").get("type") == "result"
    alice.message("eve@localhost/mine", "still here")
    eve.expect_body("still here")
    alice.drop()
    new, answer = resume(server, alice)
    assert answer.tag == q("sm:resumed")
    for c in (new, eve):
        c.close()


def test_a_stanza_too_large_cannot_be_brought_again_by_resumption(server):
    alice = Client(server, "alice@localhost/sm").login(sm=True)
    try:
        alice.send("<message to='bob@localhost'><body>" + "x" * 300_000)
    except OSError:
        pass
    try:
        alice.stream_error("policy-violation")
    except AssertionError:
        raise
    except Exception:
        pass # reset by our own bytes on their way
    new, answer = resume(server, alice, h=0)
    assert answer.tag == q("sm:failed"), "the session ended with the stream"
    assert new.bind("sm").get("type") == "result"
    new.close()


LOG_LINE = re.compile(r'^ts=\S+ level=(debug|info|warn|error) event=\w+( \w+=("([^"\\\x00-\x1f]|\\.)*"|[^ ="\x00-\x20]*))*$')


def test_nobody_writes_lines_into_the_log(server):
    """(C0 and DEL, quotes, line separators, bidi overrides, a forged line) in every field a stranger
    fills: user names, resources, hosts, identifiers."""
    forged = "x\nts=2000-01-01T00:00:00.000Z level=error event=forged node=a"
    evil = [forged, forged.replace("\n", "\r\n"), 'a" event=forged b="', "a\\", "a\x1b[2Jb",
            "a\x7f", "a\u2028event=forged", "a\u202eb", "a=b c=d event=forged", "\u0085event=forged",
            "x" * 900]
    mark = len(server.log)
    for text in evil:
        c = Client(server, "eve@localhost")
        c.open()
        c.starttls()
        for mechanism in ("PLAIN", "SCRAM-SHA-256"):
            try:
                c.auth(mechanism, user=text, password="wrong-password")
            except (AssertionError, KeyError):
                pass
        c.sock.close()
    for text in evil[2:]:
        c = Client(server, "eve@localhost").login(bind=False)
        wire = "".join(ch if " " <= ch != "\x7f" else "?" for ch in text)
        c.bind(wire)
        c.send(f"<message to='localhost/&#10;event=forged' id='&#10;event=forged'/>")
        c.send("<a xmlns='&#10;event=forged'/>")
        try:
            c.expect(lambda e: False)
        except StreamError:
            pass
        c.sock.close()
        d = Client(server, "eve@localhost")
        d.send("<stream:stream version='1.0' to='&#10;ts=1 event=forged' xmlns='jabber:client' "
               "xmlns:stream='http://etherx.jabber.org/streams'>")
        try:
            d.expect(lambda e: False)
        except StreamError as e:
            assert e.condition == "host-unknown"
        d.sock.close()
    server.cli("user", "kick", "eve@localhost/a\" event=forged", check=False)
    server.add_user("last@localhost")
    server.wait_log("event=account_changed.*jid=last@localhost")
    lines = server.log[mark:]
    assert any("event=login_failed" in line for line in lines)
    for line in lines:
        assert LOG_LINE.match(line), repr(line)
        assert not re.search(r"^[^\"]*event=forged", line), line
        assert len(line) < 1200
