"""IQ (RFC 6120 8.2.3, RFC 6121 8.5, xmpp.md 3, 8): who answers what to whom; strangers cannot tell
accounts that exist from those that do not."""

import xml.etree.ElementTree as ET

from pemb import Client, NS, barrier, befriend, condition, q

USERS = ("alice@localhost", "bob@localhost", "stranger@localhost", "empty@localhost")
HOST_OPTIONS = "registration = open"
SU = ("service-unavailable", "cancel")
PING = "<ping xmlns='urn:xmpp:ping'/>"
INFO = "<query xmlns='http://jabber.org/protocol/disco#info'/>"
ITEMS = "<query xmlns='http://jabber.org/protocol/disco#items'/>"
VERSION = "<query xmlns='jabber:iq:version'/>"
LAST = "<query xmlns='jabber:iq:last'/>"
TIME = "<time xmlns='urn:xmpp:time'/>"
VCARD = "<vCard xmlns='vcard-temp'/>"
PRIVATE = "<query xmlns='jabber:iq:private'><x xmlns='urn:x'/></query>"
UNKNOWN = "<query xmlns='urn:unheard-of'/>"


def answer(c, payload, to, type="get"):
    a = c.iq(type, payload, to=to, check=False)
    assert a.get("from") == to and a.get("to") == c.jid, (a.get("from"), a.get("to"))
    return "result" if a.get("type") == "result" else condition(a)


def test_malformed(server):
    c = Client(server, "alice@localhost/1").login()
    bad = ("<iq type='get' %s><a xmlns='urn:x'/><b xmlns='urn:x'/></iq>", "<iq type='get' %s/>",
           "<iq type='hello' %s><a xmlns='urn:x'/></iq>", "<iq %s><a xmlns='urn:x'/></iq>",
           "<iq type='set' %s/>")
    for text in bad:
        for to in ("", " to='localhost'", " to='bob@localhost'"):
            id = c.new_id()
            c.send(text % f"id='{id}'{to}")
            assert condition(c.expect(lambda e: e.get("id") == id)) == ("bad-request", "modify"), text
    c.send(f"<iq type='get'>{PING}</iq>")
    assert condition(c.expect(lambda e: e.get("type") == "error")) == ("bad-request", "modify")
    c.close()


def test_results_and_errors_are_never_answered(server):
    c = Client(server, "alice@localhost/1").login()
    for to in ("", "localhost", "bob@localhost", "bob@localhost/none", "nobody@localhost", "x@elsewhere.example"):
        t = f" to='{to}'" if to else ""
        c.send(f"<iq type='result' id='r'{t}/><iq type='error' id='r'{t}><error type='cancel'>"
               f"<gone xmlns='{NS['stanzas']}'/></error></iq>")
    c.ping()
    assert not c.take(lambda e: e.get("id") == "r")
    c.close()


def test_the_server(server):
    c = Client(server, "alice@localhost/1").login()
    for payload in (PING, INFO, ITEMS, VERSION, LAST, TIME):
        assert answer(c, payload, "localhost") == "result", payload
    assert answer(c, UNKNOWN, "localhost") == SU
    assert answer(c, PING, "localhost", "set") == ("feature-not-implemented", "cancel")
    assert answer(c, UNKNOWN, "elsewhere.example") == ("remote-server-not-found", "cancel")
    info = c.iq("get", INFO, to="localhost")
    features = {f.get("var") for f in info.iter("{%s}feature" % NS["info"])}
    assert {"urn:xmpp:ping", "jabber:iq:version", "jabber:iq:last", "urn:xmpp:time", "msgoffline", "vcard-temp",
            "jabber:iq:private", "jabber:iq:register", NS["info"], NS["items"]} <= features, features
    ids = [(i.get("category"), i.get("type")) for i in info.iter("{%s}identity" % NS["info"])]
    assert ids == [("server", "im")]
    a = c.iq("get", INFO.replace("/>", " node='nothing'/>"), to="localhost", check=False)
    assert condition(a) == ("item-not-found", "cancel")
    v = c.iq("get", VERSION, to="localhost")
    assert v[0].findtext("{jabber:iq:version}name") == "Pemberley"
    c.close()


def test_the_own_account(server):
    c = Client(server, "alice@localhost/1").login()
    for to in (None, "alice@localhost"):
        for payload in (PING, INFO, ITEMS, TIME, LAST, VCARD, PRIVATE):
            a = c.iq("get", payload, to=to, check=False)
            assert a.get("type") == "result", (to, payload, ET.tostring(a))
            assert a.get("from") == to
        assert condition(c.iq("get", UNKNOWN, to=to, check=False)) == SU
    ids = [(i.get("category"), i.get("type")) for i in c.iq("get", INFO).iter("{%s}identity" % NS["info"])]
    assert ("account", "registered") in ids
    c.close()


def test_strangers_and_missing_accounts_get_the_same(server):
    s = Client(server, "stranger@localhost/1").login()
    a = Client(server, "alice@localhost/1").login(presence=True)
    forbidden = ("forbidden", "auth")
    rows = [(INFO, "get", SU), (ITEMS, "get", "result"), (PING, "get", SU), (VCARD, "get", SU),
            (LAST, "get", forbidden), (TIME, "get", SU), (VERSION, "get", SU), (UNKNOWN, "get", SU),
            (UNKNOWN, "set", SU), (PRIVATE, "get", forbidden), (VCARD, "set", forbidden)]
    for payload, type, want in rows:
        for to in ("alice@localhost", "empty@localhost", "nobody@localhost"):
            assert answer(s, payload, to, type) == want, (payload, to, type)
    items = s.iq("get", ITEMS, to="alice@localhost")
    assert len(items[0]) == 0
    s.ping()
    assert not a.take(lambda e: e.tag == q("c:iq"))
    s.close(), a.close()


def test_contacts(server):
    a = Client(server, "alice@localhost/1").login(presence=True)
    b = Client(server, "bob@localhost/1").login(presence=True)
    befriend(a, b)
    b.ping(), b.backlog.clear()
    for payload in (INFO, ITEMS, PING, LAST, TIME):
        assert answer(a, payload, "bob@localhost") == "result", payload
    assert answer(a, UNKNOWN, "bob@localhost") == SU
    b.ping()
    assert not b.take(lambda e: e.tag == q("c:iq"))
    b.close()
    a.expect_presence(b.jid, "unavailable")
    last = a.iq("get", LAST, to="bob@localhost")
    assert int(last[0].get("seconds")) < 60
    a.close()


def test_full_jids(server):
    a = Client(server, "alice@localhost/1").login()
    b = Client(server, "bob@localhost/1").login()
    a.send(f"<iq type='get' id='x1' to='{b.jid}'><q xmlns='urn:x'/></iq>")
    got = b.expect(lambda e: e.get("id") == "x1")
    assert got.get("from") == a.jid
    b.send(f"<iq type='result' id='x1' to='{a.jid}'><q xmlns='urn:x'/></iq>")
    assert a.expect(lambda e: e.get("id") == "x1").get("from") == b.jid
    for to in ("bob@localhost/none", "nobody@localhost/x"):
        assert answer(a, PING, to) == SU
    a.close(), b.close()


def test_vcard_and_private(server):
    a = Client(server, "alice@localhost/1").login()
    s = Client(server, "stranger@localhost/1").login()
    a.iq("set", "<vCard xmlns='vcard-temp'><FN>Alice &amp; Co</FN></vCard>")
    for c, to in ((a, None), (a, "alice@localhost"), (s, "alice@localhost")):
        v = c.iq("get", VCARD, to=to)
        assert v[0].findtext("{vcard-temp}FN") == "Alice & Co"
    big = f"<vCard xmlns='vcard-temp'><PHOTO>{'x' * 70000}</PHOTO></vCard>"
    assert condition(a.iq("set", big, check=False)) == ("not-acceptable", "modify")
    a.iq("set", "<query xmlns='jabber:iq:private'><storage xmlns='storage:x'><a b='1'/></storage></query>")
    got = a.iq("get", "<query xmlns='jabber:iq:private'><storage xmlns='storage:x'/></query>")
    assert got[0][0].tag == "{storage:x}storage" and got[0][0][0].get("b") == "1"
    none = a.iq("get", "<query xmlns='jabber:iq:private'><other xmlns='storage:y'/></query>")
    assert none[0][0].tag == "{storage:y}other" and len(none[0][0]) == 0
    a.iq("set", "<vCard xmlns='vcard-temp'/>")
    a.close(), s.close()


def test_password_change_and_removal(server):
    server.add_user("goner@localhost")
    watcher = Client(server, "bob@localhost/w").login(presence=True)
    c = Client(server, "goner@localhost/1").login(presence=True)
    befriend(c, watcher)
    other = Client(server, "goner@localhost/2").login(presence=True)
    reg = "<query xmlns='jabber:iq:register'>%s</query>"
    got = c.iq("get", reg % "")
    assert got[0].findtext("{jabber:iq:register}username") == "goner"
    short = c.iq("set", reg % "<username>goner</username><password>x</password>", check=False)
    assert condition(short) == ("not-acceptable", "modify")
    assert short.find("{jabber:iq:register}query") is None, "passwords are not sent back"
    e = c.iq("set", reg % "<username>bob</username><password>new-password</password>", check=False)
    assert condition(e) == ("not-allowed", "cancel")
    c.iq("set", reg % "<username>goner</username><password>new-password</password>")
    other.stream_error("reset")
    for m in ("SCRAM-SHA-1", "SCRAM-SHA-512", "PLAIN"):
        x = Client(server, "goner@localhost/3", "new-password").login(m)
        x.close()
    watcher.backlog.clear()
    c.iq("set", reg % "<remove/>")
    c.stream_error("not-authorized")
    for type in ("unsubscribe", "unsubscribed"):
        watcher.expect_presence("goner@localhost", type)
    x = Client(server, "goner@localhost/4", "new-password")
    x.open(), x.starttls()
    assert x.auth().tag == q("sasl:failure")
    watcher.close()
