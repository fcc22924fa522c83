"""SASL against the rules (RFC 6120 6, RFC 5802; xmpp.md 10): what was not offered, somebody else's
identity, channel binding, the order of steps, bytes behind success, and what time tells."""

import base64
import statistics
import time

from pemb import Client, NS, Scram, q

USERS = ("alice@localhost", "bob@localhost")
SETTINGS = ("auth.failure_delay=0s", "auth.address_failure_rate=0/s", "auth.account_failure_rate=0/s",
            "auth.mechanisms={SCRAM-SHA-256-PLUS, SCRAM-SHA-256, PLAIN}")
SASL = NS["sasl"]


def b64(data):
    return base64.b64encode(data.encode() if isinstance(data, str) else data).decode()


def fresh(server, tls=True, user="alice@localhost"):
    c = Client(server, user)
    c.open()
    if tls:
        c.starttls()
    return c


def failure(c):
    return c.expect("sasl:failure")[0].tag.split("}")[1]


def begin(c, mechanism, initial):
    c.send(f"<auth xmlns='{SASL}' mechanism='{mechanism}'>{b64(initial)}</auth>")


def test_only_what_is_offered_is_taken(server):
    c = fresh(server)
    assert sorted(c.mechanisms()) == ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"]
    for tls, mechanism in ((True, "SCRAM-SHA-1"), (True, "SCRAM-SHA-512-PLUS"), (True, "ANONYMOUS"),
                           (True, "EXTERNAL"), (True, "DIGEST-MD5"), (True, "scram-sha-256"),
                           (True, "x" * 3000), (True, ""), (False, "SCRAM-SHA-256-PLUS")):
        c = fresh(server, tls)
        begin(c, mechanism, "n,,n=alice,r=abcdef")
        assert failure(c) == "invalid-mechanism", mechanism[:30]
        assert c.auth().tag == q("sasl:success"), "the stream goes on"
        c.close()


def test_a_foreign_authzid_is_refused_and_ones_own_is_taken(server):
    c = fresh(server)
    for authzid in ("bob@localhost", "localhost", "alice@example.org", "alice@localhost/desk"):
        c = fresh(server)
        begin(c, "PLAIN", f"{authzid}\0alice\0secret-password")
        assert failure(c) == "invalid-authzid", authzid
        c = fresh(server)
        answer = c.auth("SCRAM-SHA-256", gs2=f"n,a={authzid},", reopen=False)
        assert answer.tag == q("sasl:failure") and answer[0].tag == q("sasl:invalid-authzid"), authzid
    c = fresh(server)
    assert c.auth("SCRAM-SHA-256", gs2="n,a=alice@localhost,").tag == q("sasl:success")
    assert c.bind().get("type") == "result"
    c.close()


def test_a_wrong_password_comes_before_a_foreign_authzid(server):
    """Else the condition would say whether the password was right."""
    seen = set()
    for user in ("alice", "nobody"):
        c = fresh(server)
        begin(c, "PLAIN", f"bob@localhost\0{user}\0wrong-password")
        seen.add(failure(c))
    assert len(seen) == 1, seen


def test_channel_binding_cannot_be_talked_down(server):
    cases = [
        ("SCRAM-SHA-256", dict(gs2="y,,")),                      # -PLUS was there
        ("SCRAM-SHA-256-PLUS", dict(gs2="n,,")),                 # -PLUS without binding
        ("SCRAM-SHA-256-PLUS", dict(gs2="y,,")),
        ("SCRAM-SHA-256-PLUS", dict(binding=("tls-unique", b"x" * 12))),
        ("SCRAM-SHA-256-PLUS", dict(binding=("tls-exporter", b"\0" * 32))),
        ("SCRAM-SHA-256-PLUS", dict(binding=("tls-server-end-point", b"\1" * 32))),
        ("SCRAM-SHA-256", dict(gs2="p=tls-server-end-point,,")), # binding without -PLUS
    ]
    for mechanism, how in cases:
        c = fresh(server)
        answer = c.auth(mechanism, reopen=False, **how)
        assert answer.tag == q("sasl:failure"), (mechanism, how)
        assert answer[0].tag in (q("sasl:not-authorized"), q("sasl:malformed-request")), (mechanism, how)
        c.sock.close()


def test_steps_out_of_order(server):
    for first in (f"<response xmlns='{SASL}'/>", f"<abort xmlns='{SASL}'/>",
                  f"<response xmlns='{SASL}'>{b64('c=biws,r=x,p=eA==')}</response>"):
        c = fresh(server)
        c.send(first)
        assert failure(c) in ("malformed-request", "aborted"), first
        c.sock.close()
    c = fresh(server)
    c.send(f"<auth xmlns='{SASL}' mechanism='SCRAM-SHA-256'>{b64('n,,n=alice,r=abc')}</auth>" * 2)
    c.expect("sasl:challenge")
    assert failure(c) == "malformed-request"
    c.sock.close()
    for element in (f"<success xmlns='{SASL}'/>", f"<challenge xmlns='{SASL}'/>",
                    f"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl2' mechanism='PLAIN'/>"):
        c = fresh(server)
        c.send(element)
        c.stream_error("not-authorized")
    c = fresh(server)
    assert c.auth().tag == q("sasl:success")
    c.send(f"<auth xmlns='{SASL}' mechanism='PLAIN'>{b64(chr(0) + 'bob' + chr(0) + 'secret-password')}"
           "</auth>")
    c.stream_error("not-authorized")


def final_of(c):
    scram = Scram("SCRAM-SHA-256", "alice", "secret-password")
    c.send(f"<auth xmlns='{SASL}' mechanism='SCRAM-SHA-256'>{b64(scram.first())}</auth>")
    challenge = base64.b64decode(c.expect("sasl:challenge").text)
    return f"<response xmlns='{SASL}'>{b64(scram.final(challenge))}</response>"


def read_until(c, *tokens):
    """Bytes, because two documents follow each other in them."""
    got = b""
    while not any(t in got for t in tokens):
        data = c.sock.recv(65536)
        assert data, got
        got += data
    return got.decode()


def test_stanzas_behind_success_belong_to_no_stream(server):
    """Bytes sent with the last response were said by nobody yet: only a new header may come."""
    bob = Client(server, "bob@localhost/y").login(presence=True)
    for more in ("<message to='bob@localhost/y' type='chat'><body>too early</body></message>",
                 "<presence/>", f"<auth xmlns='{SASL}' mechanism='PLAIN'/>"):
        c = fresh(server)
        c.send(final_of(c) + more)
        got = read_until(c, b"</stream:stream>")
        assert "<success" in got and ("<invalid-namespace" in got or "<bad-format" in got), got
        c.sock.close()
    c = fresh(server)
    c.send(final_of(c) + "<?xml version='1.0'?><stream:stream to='localhost' version='1.0' "
           "xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>"
           f"<iq type='set' id='b'><bind xmlns='{NS['bind']}'><resource>quick</resource></bind></iq>"
           "<message to='bob@localhost/y' type='chat'><body>in time</body></message>")
    assert "<jid>alice@localhost/quick</jid>" in read_until(c, b"</iq>", b"</stream:stream>")
    bob.expect_body("in time") # a whole new stream may be sent ahead
    assert not bob.take(lambda e: e.findtext("c:body", None, NS) == "too early")
    c.sock.close()
    bob.close()


def test_another_host_after_login_is_refused(server):
    c = fresh(server)
    c.auth(reopen=False)
    c.restart()
    c.send("<stream:stream to='example.org' version='1.0' xmlns='jabber:client' "
           "xmlns:stream='http://etherx.jabber.org/streams'>")
    c.stream_error("not-authorized")


def median_ms(server, user, mechanism, tries=9):
    took = []
    for _ in range(tries):
        c = fresh(server)
        started = time.perf_counter()
        assert c.auth(mechanism, user=user, password="wrong-password").tag == q("sasl:failure")
        took.append(1000 * (time.perf_counter() - started))
        c.sock.close()
    return statistics.median(took)


def test_time_does_not_tell_who_is_there(server):
    """PLAIN derives the key (milliseconds) for unknown users too. Twice, interleaved, to stand a busy
    machine: one of the rounds must be alike."""
    for mechanism in ("PLAIN", "SCRAM-SHA-256"):
        rounds = []
        for _ in range(3):
            there, nobody = median_ms(server, "alice", mechanism), median_ms(server, "nobody", mechanism)
            rounds.append((there, nobody))
            if max(there, nobody) < 1.5 * min(there, nobody) + 0.5:
                break
        else:
            raise AssertionError((mechanism, rounds))
