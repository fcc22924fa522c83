"""FAST (XEP-0484): tokens bound to client and mechanism, used, rotated, counted, ended; clients listed
and revoked (XEP-0494); pipelined logins (XEP-0509)."""

import base64
import hashlib
import hmac
import json

from pemb import Client, NS, Server, StreamError, condition, q

USERS = ("alice@localhost", "bob@localhost")
SETTINGS = ("auth.failure_delay=0s", "auth.address_failure_rate=0/s", "auth.account_failure_rate=0/s")
HOST_OPTIONS = "registration = open"
PHONE, DESK = "d4565fa7-4d72-4749-b3d3-740edbf87770", "11111111-4d72-4749-b3d3-740edbf87770"
FAST, CAM, IAP = "{urn:xmpp:fast:0}", "{urn:xmpp:cam:0}", "{urn:xmpp:iap:0}"
NONE, ENDP, EXPR = "HT-SHA-256-NONE", "HT-SHA-256-ENDP", "HT-SHA-256-EXPR"
BIND = f"<bind xmlns='{NS['bind2']}'/>"


def fresh(server, who="alice@localhost"):
    c = Client(server, who)
    c.open()
    c.starttls()
    return c


def agent(id):
    return f"<user-agent id='{id}'><software>App</software><device>Phone</device></user-agent>"


def first_token(server, mechanism=NONE, id=PHONE, who="alice@localhost", password="secret-password"):
    c = fresh(server, who)
    answer = c.authenticate(agent=agent(id), password=password,
                            inner=BIND + f"<request-token xmlns='urn:xmpp:fast:0' mechanism='{mechanism}'/>")
    assert answer.tag == q("sasl2:success")
    token = answer.find(f"{FAST}token")
    return c, token.get("token") if token is not None else None


def with_token(server, token, mechanism=NONE, id=PHONE, attributes="", beside="", user="alice", data=None, c=None):
    """(client, answer, whether the server has proven that it knows the token too)"""
    c = c or fresh(server, f"{user}@localhost")
    data = data if data is not None else c.end_point() if mechanism == ENDP else b""
    proof = hmac.digest(token.encode(), b"Initiator" + data, "sha256")
    answer = c.authenticate(mechanism, initial=user.encode() + b"\0" + proof, agent=agent(id) if id else None,
                            inner=f"<fast xmlns='urn:xmpp:fast:0' {attributes}/>" + BIND + beside)
    if answer.tag == q("sasl2:success"):
        word = base64.b64decode(answer.findtext("sasl2:additional-data", None, NS))
        assert word == hmac.digest(token.encode(), b"Responder" + data, "sha256")
    return c, answer


def ok(server, token, **how):
    c, answer = with_token(server, token, **how)
    assert answer.tag == q("sasl2:success"), ET(answer)
    c.ping()
    c.close()
    return answer


def ET(e):
    import xml.etree.ElementTree
    return xml.etree.ElementTree.tostring(e).decode()


def refused(server, token, why="not-authorized", **how):
    c, answer = with_token(server, token, **how)
    assert answer.tag == q("sasl2:failure") and answer[0].tag.endswith("}" + why), ET(answer)
    c.sock.close()
    return len(answer)


def test_offered(server):
    # 3.1: one with and one without channel binding; no 0-RTT, which we do not take
    c = fresh(server)
    fast = c.features.find(f"sasl2:authentication/sasl2:inline/{FAST}fast", NS)
    assert {m.text for m in fast} == {NONE, ENDP, EXPR} and fast.get("tls-0rtt") is None
    assert not [m for m in c.mechanisms() if m.startswith("HT-")]


def test_a_token_logs_in_in_one_round_trip_for_each_binding(server):
    for mechanism in (NONE, ENDP):
        c, token = first_token(server, mechanism)
        c.close()
        for _ in range(2):
            answer = ok(server, token, mechanism=mechanism)
            assert answer.find("bind2:bound", NS) is not None
            assert answer.find(f"{FAST}token") is None # young enough


def test_not_asked_for_not_given_and_not_without_a_name(server):
    c = fresh(server)
    assert c.authenticate(agent=agent(PHONE)).find(f"{FAST}token") is None
    c = fresh(server)
    ask = f"<request-token xmlns='urn:xmpp:fast:0' mechanism='{NONE}'/>"
    assert c.authenticate(inner=ask).find(f"{FAST}token") is None
    c = fresh(server)
    ask = "<request-token xmlns='urn:xmpp:fast:0' mechanism='PLAIN'/>"
    assert c.authenticate(inner=ask, agent=agent(PHONE)).find(f"{FAST}token") is None


def test_bound_to_mechanism_client_and_account(server):
    # 3.4: "Servers MUST bind tokens to the mechanism ... an attempt to use a mechanism without channel
    # binding MUST fail even if the token would otherwise be accepted"
    c, token = first_token(server, ENDP)
    c.close()
    refused(server, token, mechanism=NONE)
    refused(server, token, mechanism=ENDP, id=DESK)
    refused(server, token, mechanism=ENDP, id=None)
    refused(server, token, mechanism=ENDP, user="bob")
    refused(server, token, mechanism=ENDP, data=b"\0" * 32)
    ok(server, token, mechanism=ENDP)


def test_a_stranger_learns_nothing(server):
    assert len({refused(server, "guess", user=user) for user in ("alice", "nobody")}) == 1


def test_only_with_fast_and_only_in_sasl2(server):
    c, token = first_token(server)
    c.close()
    proof = hmac.digest(token.encode(), b"Initiator", "sha256")
    c = fresh(server)
    answer = c.authenticate(NONE, initial=b"alice\0" + proof, agent=agent(PHONE))
    assert answer[0].tag.endswith("invalid-mechanism")
    c.send(f"<auth xmlns='{NS['sasl']}' mechanism='{NONE}'>{base64.b64encode(b'alice' + bytes(1) + proof).decode()}</auth>")
    assert c.expect("sasl:failure")[0].tag == q("sasl:invalid-mechanism")


def test_malformed(server):
    for initial in (b"", b"alice", b"\0" + b"x" * 32, b"alice\0" + b"x" * 31, b"alice\0" + b"x" * 2000):
        c = fresh(server)
        answer = c.authenticate(NONE, initial=initial, agent=agent(PHONE), inner="<fast xmlns='urn:xmpp:fast:0'/>")
        assert answer[0].tag.endswith("malformed-request"), ET(answer)
    for count in ("0", "-1", "x", "99999999999"):
        refused(server, "x", why="malformed-request", attributes=f"count='{count}'")


def test_a_count_is_good_once(server):
    # 3.4: reject "where the count is less than or equal to a count that has already been processed"
    c, token = first_token(server)
    c.close()
    ok(server, token, attributes="count='5'")
    for count in (5, 4, 1):
        refused(server, token, attributes=f"count='{count}'")
    ok(server, token, attributes="count='6'")


def test_the_old_one_is_good_until_the_new_one_is_used(server):
    # 3.5: "it MUST NOT invalidate the existing token until the new token is actually used"
    c, old = first_token(server)
    c.close()
    ask = f"<request-token xmlns='urn:xmpp:fast:0' mechanism='{NONE}'/>"
    unseen = ok(server, old, beside=ask).find(f"{FAST}token").get("token")
    new = ok(server, old, beside=ask).find(f"{FAST}token").get("token")
    assert len({old, unseen, new}) == 3
    refused(server, unseen) # "SHOULD invalidate any tokens previously generated that have not been used"
    ok(server, old)
    ok(server, new)
    refused(server, old)
    ok(server, new)


def test_invalidated(server):
    # 3.6
    c, token = first_token(server)
    c.close()
    answer = ok(server, token, attributes="invalidate='true'")
    assert answer.find(f"{FAST}token") is None
    refused(server, token)


def test_a_new_password_ends_all_tokens_and_sessions(server):
    c, token = first_token(server, who="bob@localhost")
    other = fresh(server, "bob@localhost")
    other.authenticate(inner=BIND)
    server.cli("user", "passwd", "--stdin", "bob@localhost", stdin="another-password\n")
    c.stream_error("reset")
    other.stream_error("reset")
    refused(server, token, user="bob")
    c, token = first_token(server, who="bob@localhost", password="another-password")
    asker = fresh(server, "bob@localhost")
    asker.authenticate(inner=BIND, password="another-password")
    asker.iq("set", "<query xmlns='jabber:iq:register'><username>bob</username>"
             "<password>secret-password</password></query>")
    c.stream_error("reset")
    refused(server, token, user="bob")
    asker.ping()
    asker.close()


def test_a_removed_account_has_no_tokens(server):
    server.add_user("carol@localhost")
    c, token = first_token(server, who="carol@localhost")
    server.cli("--yes", "user", "remove", "carol@localhost")
    refused(server, token, user="carol")
    server.add_user("carol@localhost")
    refused(server, token, user="carol")


def test_kept_by_the_store_and_known_on_each_shard(server):
    c, token = first_token(server)
    c.close()
    server.kill_process("store")
    for _ in range(4):
        ok(server, token)


def short():
    s = Server(settings=SETTINGS + ("auth.token_lifetime=2s",), hosts=("localhost",))
    s.add_user("alice@localhost")
    return s


def test_expiry_and_rotation():
    # 3.5: "the token is due for rotation"; 4.2: "'credentials-expired'"
    server = short()
    try:
        c, token = first_token(server)
        c.close()
        import time
        deadline = time.monotonic() + 20
        rotated, at = None, token
        while rotated is None and time.monotonic() < deadline:
            answer = ok(server, at)
            rotated = answer.find(f"{FAST}token")
        assert rotated is not None
        while time.monotonic() < deadline:
            c, answer = with_token(server, token)
            if answer.tag == q("sasl2:failure"):
                break
            c.close()
        assert answer[0].tag.endswith("credentials-expired"), ET(answer)
        server.stop()
    finally:
        server.kill()


# ---- XEP-0494


def clients(c):
    answer = c.iq("get", "<list xmlns='urn:xmpp:cam:0'/>")
    return answer.findall(f"{CAM}clients/{CAM}client")


def test_clients_are_listed(server):
    server.add_user("dave@localhost")
    c, _ = first_token(server, who="dave@localhost")
    gone, _ = first_token(server, id=DESK, who="dave@localhost")
    gone.close()
    old = Client(server, "dave@localhost/old").login()
    info = c.iq("get", "<query xmlns='http://jabber.org/protocol/disco#info'/>", to="dave@localhost")
    assert "urn:xmpp:cam:0" in [f.get("var") for f in info[0] if f.get("var")]
    listed = {x.get("id"): x for x in clients(c)}
    assert len(listed) == 3, listed
    mine = listed[c.jid.split("/")[-1]]
    assert mine.get("connected") == "true" and mine.get("type") == "session"
    assert mine.find(f"{CAM}auth/{CAM}password") is not None and mine.find(f"{CAM}auth/{CAM}fast") is not None
    assert mine.findtext(f"{CAM}user-agent/{CAM}software") == "App"
    assert mine.findtext(f"{CAM}user-agent/{CAM}device") == "Phone"
    assert mine.find(f"{CAM}permission").get("status") == "unrestricted"
    assert sorted(x.get("connected") for x in listed.values()) == ["false", "true", "true"]
    assert not any(PHONE in x for x in map(ET, listed.values()))
    for id in listed: # 4.2: all have shown the password
        error = c.iq("set", f"<revoke xmlns='urn:xmpp:cam:0' id='{id}'/>", check=False)
        assert condition(error) == ("service-unavailable", "cancel")
        assert error.find(f"c:error/{CAM}password-reset-required", NS) is not None
    error = c.iq("set", "<revoke xmlns='urn:xmpp:cam:0' id='nobody'/>", check=False)
    assert condition(error)[0] == "item-not-found"
    old.close()
    c.close()


def test_nobody_sees_anothers_clients(server):
    a = fresh(server)
    a.authenticate(inner=BIND)
    for who in ("bob@localhost", "nobody@localhost"):
        for type, payload in (("get", "<list xmlns='urn:xmpp:cam:0'/>"),
                              ("set", "<revoke xmlns='urn:xmpp:cam:0' id='x'/>")):
            assert condition(a.iq(type, payload, to=who, check=False)) == ("forbidden", "auth")
    a.close()


# ---- XEP-0509


def version(c):
    return c.features.find(f"{IAP}config-version").get("value")


def test_the_version_is_that_of_the_features(server):
    assert len({version(fresh(server)) for _ in range(4)}) == 1
    c = Client(server, "alice@localhost")
    assert c.open().find(f"{IAP}config-version") is None


def test_pipelined_with_the_right_version(server):
    c, token = first_token(server)
    value = version(fresh(server))
    c.close()
    c = Client(server, "alice@localhost", connect="tls")
    proof = base64.b64encode(b"alice\0" + hmac.digest(token.encode(), b"Initiator", "sha256")).decode()
    c.restart()
    c.send("<?xml version='1.0'?><stream:stream to='localhost' from='alice@localhost' version='1.0' "
           "xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>"
           f"<authenticate xmlns='{NS['sasl2']}' mechanism='{NONE}'><initial-response>{proof}</initial-response>"
           f"{agent(PHONE)}<fast xmlns='urn:xmpp:fast:0'/>{BIND}"
           f"<config-version xmlns='urn:xmpp:iap:0' scheme='opaque' value='{value}'/></authenticate>"
           "<iq type='get' id='early'><ping xmlns='urn:xmpp:ping'/></iq>")
    c.expect("stream:features")
    assert c.sasl2_answer().tag == q("sasl2:success") and c.jid
    assert c.expect(lambda e: e.get("id") == "early").get("type") == "result"
    c.close()


def test_a_wrong_version_is_refused_without_prejudice(server):
    # 2.2: "<aborted>, and MUST carry ... <config-version-mismatch>"; "not counted as a 'failed login'"
    c = fresh(server)
    wrong = "<config-version xmlns='urn:xmpp:iap:0' value='VGhpcw=='/>"
    for _ in range(8):
        answer = c.authenticate(inner=wrong)
        assert answer.tag == q("sasl2:failure") and answer[0].tag.endswith("aborted")
        assert answer.find(f"{IAP}config-version-mismatch") is not None
    right = f"<config-version xmlns='urn:xmpp:iap:0' value='{version(c)}'/>"
    assert c.authenticate(inner=right).tag == q("sasl2:success")
