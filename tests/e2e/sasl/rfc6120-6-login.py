"""SASL (RFC 6120 6, RFC 5802, XEP-0440, XEP-0474): every mechanism for every account, every failure
with its condition (xmpp.md 10)."""

import base64
import time

from pemb import Client, NS, StreamError, q

USERS = ("alice@localhost", "bob@localhost")
SETTINGS = ("auth.failure_delay=0s", "auth.address_failure_rate=0/s", "auth.account_failure_rate=0/s")


def fresh(server, connect="starttls", tls=True):
    c = Client(server, "alice@localhost", connect=connect)
    c.open()
    if tls and connect == "starttls":
        c.starttls()
    return c


def failure(c, element):
    assert element.tag == q("sasl:failure"), element.tag
    return element[0].tag.split("}")[1]


def test_every_mechanism_logs_in(server):
    for connect in ("starttls", "tls"):
        names = [m for m in fresh(server, connect).mechanisms()]
        assert "SCRAM-SHA-256-PLUS" in names and "PLAIN" in names, names
        for mechanism in names:
            c = fresh(server, connect)
            assert c.auth(mechanism).tag == q("sasl:success"), mechanism
            assert c.bind().get("type") == "result"
            c.close()


def test_without_tls_no_plain_and_no_plus(server):
    c = fresh(server, tls=False)
    names = c.mechanisms()
    assert names and "PLAIN" not in names and not [n for n in names if n.endswith("-PLUS")], names
    assert failure(c, c.auth("PLAIN")) == "encryption-required"
    assert failure(c, c.auth("SCRAM-SHA-256", gs2="p=tls-exporter,,")) in ("malformed-request", "not-authorized")


def test_channel_binding_types_are_named(server):
    c = fresh(server)
    types = [e.get("type") for e in c.features.findall("cb:sasl-channel-binding/cb:channel-binding", NS)]
    assert "tls-exporter" in types and "tls-server-end-point" in types and "tls-unique" not in types


def test_wrong_password_and_unknown_user_look_the_same(server):
    seen = []
    for user in ("alice", "nobody", "nobody"):
        c = fresh(server)
        answer = c.auth("SCRAM-SHA-256", user=user, password="wrong-password")
        seen.append((failure(c, answer), len(answer)))
        c.sock.close()
    assert seen[0] == seen[1] == seen[2] == ("not-authorized", 1), seen


def salt_of(server, user, hash="256"):
    c = fresh(server)
    c.send(f"<auth xmlns='{NS['sasl']}' mechanism='SCRAM-SHA-{hash}'>"
           + base64.b64encode(f"n,,n={user},r=abcdef".encode()).decode() + "</auth>")
    text = base64.b64decode(c.expect("sasl:challenge").text).decode()
    c.sock.close()
    fields = dict(f.split("=", 1) for f in text.split(","))
    return fields["s"], fields["i"], sorted(fields)


def test_the_fake_salt_is_the_same_each_time_on_every_shard_and_unlike_for_others(server):
    salts = {salt_of(server, "nobody")[:2] for _ in range(6)}
    assert len(salts) == 1, salts
    real, fake = salt_of(server, "alice"), salt_of(server, "nobody")
    assert real[1:] == fake[1:] and len(real[0]) == len(fake[0])
    assert salt_of(server, "nobody")[0] != salt_of(server, "nobody2")[0]
    assert salt_of(server, "nobody")[0] != salt_of(server, "nobody", "1")[0]


def test_the_failures_by_name(server):
    def one(element):
        c = fresh(server)
        c.send(element)
        got = failure(c, c.expect("sasl:failure"))
        c.sock.close()
        return got
    auth = "<auth xmlns='%s' mechanism='%s'>%s</auth>"

    def b64(s):
        return base64.b64encode(s.encode()).decode()
    ns = NS["sasl"]
    assert one(auth % (ns, "GSSAPI", "=")) == "invalid-mechanism"
    assert one(auth % (ns, "ANONYMOUS", "=")) == "invalid-mechanism"
    assert one(auth % (ns, "SCRAM-SHA-256", "!!!")) == "incorrect-encoding"
    assert one(auth % (ns, "SCRAM-SHA-256", b64("hello"))) == "malformed-request"
    assert one(auth % (ns, "SCRAM-SHA-256", b64("n,,m=x,n=alice,r=abc"))) == "malformed-request"
    assert one(auth % (ns, "PLAIN", b64("alice"))) == "malformed-request"
    assert one(auth % (ns, "PLAIN", b64("bob@localhost\0alice\0secret-password"))) == "invalid-authzid"
    assert one(auth % (ns, "PLAIN", b64("\0alice\0wrong-password"))) == "not-authorized"


def test_downgrade_flag_y_while_plus_is_offered(server):
    c = fresh(server)
    assert failure(c, c.auth("SCRAM-SHA-256", gs2="y,,")) == "not-authorized"


def test_wrong_binding_and_wrong_proof(server):
    c = fresh(server)
    got = c.auth("SCRAM-SHA-256-PLUS", binding=("tls-server-end-point", b"\0" * 32))
    assert failure(c, got) == "not-authorized"
    assert failure(c, c.auth("SCRAM-SHA-1", proof_bit=1)) == "not-authorized"


def test_abort(server):
    c = fresh(server)
    c.send(f"<auth xmlns='{NS['sasl']}' mechanism='SCRAM-SHA-256'>"
           + base64.b64encode(b"n,,n=alice,r=abc").decode() + "</auth>")
    c.expect("sasl:challenge")
    c.send(f"<abort xmlns='{NS['sasl']}'/>")
    assert failure(c, c.expect("sasl:failure")) == "aborted"
    assert c.auth().tag == q("sasl:success")
    c.close()


def test_three_tries_a_stream(server):
    c = fresh(server)
    for _ in range(2):
        assert failure(c, c.auth(password="wrong-password")) == "not-authorized"
    c.auth(password="wrong-password")
    c.stream_error("policy-violation")


def test_bind_generates_and_takes_resources(server):
    c = fresh(server)
    c.auth()
    assert c.bind("my desk ★").get("type") == "result"
    assert c.jid == "alice@localhost/my desk ★"
    d = fresh(server)
    d.auth()
    d.bind()
    assert d.jid.startswith("alice@localhost/") and len(d.jid) > 20
    c.close()
    d.close()


def test_before_bind_only_server_and_own_account(server):
    c = fresh(server)
    c.auth()
    c.send("<message to='bob@localhost'><body>x</body></message>")
    c.stream_error("not-authorized")


def test_same_resource_replaces_the_older_session(server):
    old = fresh(server)
    old.auth()
    old.bind("desk")
    new = fresh(server)
    new.auth()
    assert new.bind("desk").get("type") == "result"
    old.stream_error("conflict")
    new.ping()
    new.close()


def test_two_binds_at_once_leave_one_session(server):
    import json
    clients = []
    for _ in range(6):
        c = fresh(server)
        c.auth()
        clients.append(c)
    for c in clients:
        c.send("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>"
               "<resource>one</resource></bind></iq>")
    alive = 0
    for c in clients:
        try:
            c.expect("c:iq")
            c.ping()
            alive += 1
        except Exception:
            pass
    items = json.loads(server.cli("--json", "user", "sessions", "alice@localhost").stdout)["items"]
    ones = [i for i in items if i["jid"] == "alice@localhost/one"]
    assert len(ones) == 1 and alive >= 1, (alive, items)
    for c in clients:
        c.sock.close()
