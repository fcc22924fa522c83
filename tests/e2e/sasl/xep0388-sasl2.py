"""SASL2 (XEP-0388): one request, one answer, no second header; and what must not work."""

import base64

from pemb import Client, NS, StreamError, q

USERS = ("alice@localhost", "bob@localhost")
SETTINGS = ("auth.failure_delay=0s", "auth.address_failure_rate=0/s", "auth.account_failure_rate=0/s")
AGENT = "d4565fa7-4d72-4749-b3d3-740edbf87770"


def fresh(server, who="alice@localhost", extra="xml:lang='en'"):
    c = Client(server, who)
    c.open()
    c.send("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
    c.expect("tls:proceed")
    c.wrap()
    c.open(extra)
    return c


def b64(text):
    return base64.b64encode(text if isinstance(text, bytes) else text.encode()).decode()


def failure(element):
    assert element.tag == q("sasl2:failure"), element.tag
    assert element[0].tag.startswith("{%s}" % NS["sasl"]), element[0].tag
    return element[0].tag.split("}")[1]


def authenticate(c, mechanism, initial, inner=""):
    c.send(f"<authenticate xmlns='{NS['sasl2']}' mechanism='{mechanism}'>"
           + (f"<initial-response>{initial}</initial-response>" if initial is not None else "")
           + inner + "</authenticate>")


def test_offered_only_under_tls(server):
    # 7: "SASL2 MUST only be used by Clients or offered by Servers after TLS negotiation"
    c = Client(server, "alice@localhost")
    assert c.open().find("sasl2:authentication", NS) is None
    authenticate(c, "SCRAM-SHA-256", b64("n,,n=alice,r=abc"))
    assert failure(c.expect("sasl2:failure")) == "encryption-required"
    c.sock.close()
    c = fresh(server)
    offered = [m.text for m in c.features.findall("sasl2:authentication/sasl2:mechanism", NS)]
    assert offered == c.mechanisms() and offered, offered
    inline = c.features.find("sasl2:authentication/sasl2:inline", NS)
    assert inline.find("sm:sm", NS) is not None and inline.find("bind2:bind", NS) is not None


def test_every_mechanism_and_then_the_old_bind(server):
    for mechanism in fresh(server).mechanisms():
        c = fresh(server)
        answer = c.authenticate(mechanism, agent=AGENT)
        # 2.6.1: "this is a bare JID, unless resource binding has occurred"
        assert answer.tag == q("sasl2:success"), mechanism
        assert answer.findtext("sasl2:authorization-identifier", None, NS) == "alice@localhost"
        # "The <success> element is immediately followed by a <features> element ... no stream restart"
        assert c.features.find("bind:bind", NS) is not None
        assert c.features.find("sasl2:authentication", NS) is None
        assert c.bind("desk").get("type") == "result" and c.jid == "alice@localhost/desk"
        c.ping()
        c.close()


def test_success_and_features_come_in_one_piece_before_anything_is_sent(server):
    c = fresh(server)
    answer = c.authenticate("PLAIN")
    assert answer.find("sasl2:additional-data", NS) is None
    assert c.features.find("bind:bind", NS) is not None


def test_challenge_without_initial_response(server):
    c = fresh(server)
    authenticate(c, "PLAIN", None)
    assert not c.expect("sasl2:challenge").text
    c.send(f"<response xmlns='{NS['sasl2']}'>{b64(chr(0) + 'alice' + chr(0) + 'secret-password')}</response>")
    assert c.expect("sasl2:success") is not None


def test_failures_by_name_and_the_stream_is_unchanged(server):
    c = fresh(server)
    authenticate(c, "GSSAPI", "")
    assert failure(c.expect("sasl2:failure")) == "invalid-mechanism"
    authenticate(c, "SCRAM-SHA-256", "!!!")
    assert failure(c.expect("sasl2:failure")) == "incorrect-encoding"
    assert c.authenticate().tag == q("sasl2:success")
    for initial, want in (("hello", "malformed-request"), ("n,,n=nobody", "malformed-request")):
        c = fresh(server)
        authenticate(c, "SCRAM-SHA-256", b64(initial))
        assert failure(c.expect("sasl2:failure")) == want
    for user in ("alice", "nobody"):
        c = fresh(server)
        answer = c.authenticate(user=user, password="wrong-password")
        assert failure(answer) == "not-authorized" and len(answer) == 1


def test_failed_login_binds_nothing(server):
    # 2.6.2: "The server MUST NOT process any inline features requested ... in a failed ... request"
    c = fresh(server)
    answer = c.authenticate(inner=f"<bind xmlns='{NS['bind2']}'/>", password="wrong-password")
    assert failure(answer) == "not-authorized"
    c.send("<message to='bob@localhost'><body>x</body></message>")
    c.stream_error("not-authorized")
    assert '"items":[]' in server.cli("--json", "user", "sessions", "alice@localhost").stdout.replace(" ", "")


def test_both_profiles_on_one_stream(server):
    c = fresh(server)
    assert failure(c.authenticate(password="wrong-password")) == "not-authorized"
    assert c.auth(password="wrong-password").tag == q("sasl:failure")
    assert c.authenticate().tag == q("sasl2:success")


def test_profiles_are_not_mixed_within_an_exchange(server):
    for ns, other in (("sasl2", "sasl"), ("sasl", "sasl2")):
        for element in ("response", "abort"):
            c = fresh(server)
            if ns == "sasl2":
                authenticate(c, "SCRAM-SHA-256", b64("n,,n=alice,r=abc"))
            else:
                c.send(f"<auth xmlns='{NS['sasl']}' mechanism='SCRAM-SHA-256'>{b64('n,,n=alice,r=abc')}</auth>")
            c.expect(f"{ns}:challenge")
            c.send(f"<{element} xmlns='{NS[other]}'/>")
            c.stream_error("not-authorized")


def test_abort(server):
    # 4.7
    c = fresh(server)
    authenticate(c, "SCRAM-SHA-256", b64("n,,n=alice,r=abc"))
    c.expect("sasl2:challenge")
    c.send(f"<abort xmlns='{NS['sasl2']}'><text>no</text></abort>")
    assert failure(c.expect("sasl2:failure")) == "aborted"
    assert c.authenticate().tag == q("sasl2:success")


def test_other_traffic_during_the_exchange_ends_the_stream(server):
    # 2.4: "Servers MUST disconnect Clients immediately if any other traffic is received."
    for other in ("<iq type='get' id='1'><ping xmlns='urn:xmpp:ping'/></iq>",
                  f"<authenticate xmlns='{NS['sasl2']}' mechanism='PLAIN'/>"):
        c = fresh(server)
        authenticate(c, "SCRAM-SHA-256", b64("n,,n=alice,r=abc"))
        c.expect("sasl2:challenge")
        c.send(other)
        c.stream_error("not-authorized")


def test_no_second_authenticate(server):
    # 4.8: "once <success/> ... has been sent ... any further <authenticate/> ... MUST result in a
    # stream error"
    c = fresh(server)
    c.authenticate()
    authenticate(c, "PLAIN", b64("\0alice\0secret-password"))
    c.stream_error("not-authorized")
    c = Client(server, "alice@localhost")
    c.bind2()
    authenticate(c, "PLAIN", b64("\0alice\0secret-password"))
    c.stream_error("unsupported-stanza-type")


def test_authorization_identity(server):
    # 4.6: "Any non-empty authorization string MUST be considered an error if the stream's from
    # attribute (if present) does not match."
    def plain(extra, authzid):
        c = fresh(server, extra=extra)
        return c.authenticate("PLAIN", initial=f"{authzid}\0alice\0secret-password".encode())
    assert plain("", "alice@localhost").tag == q("sasl2:success")
    assert plain("from='alice@localhost'", "alice@localhost").tag == q("sasl2:success")
    assert plain("from='ALICE@localhost/x'", "Alice@localhost").tag == q("sasl2:success")
    assert failure(plain("", "bob@localhost")) == "invalid-authzid"
    assert failure(plain("from='bob@localhost'", "alice@localhost")) == "invalid-authzid"
    assert failure(plain("from='bob@localhost'", "bob@localhost")) == "invalid-authzid"


def test_from_of_another_domain(server):
    # 2.1: "the server SHOULD respond with an invalid-from error"
    c = Client(server, "alice@localhost")
    try:
        c.open("from='alice@example.org'")
        raise AssertionError("let in")
    except StreamError as e:
        assert e.condition == "invalid-from"


def test_from_says_nothing_about_accounts(server):
    # 7: varying responses "may allow unauthorized parties to discover whether an account exists"
    def offer(who):
        features = fresh(server, extra=f"from='{who}'").features
        return [(e.tag, e.text) for e in features.iter()]
    assert offer("alice@localhost") == offer("nobody@localhost")


def test_hostile_requests(server):
    long = "x" * 5000
    for inner in ("<user-agent/>", f"<user-agent id='{long}'><software>{long[:2000]}</software></user-agent>",
                  "<user-agent id=''><software/><device/></user-agent>", "<bind xmlns='urn:xmpp:bind:1'/>",
                  "<resume xmlns='urn:xmpp:sm:3'/>", "<resume xmlns='urn:xmpp:sm:3' previd='x' h='y'/>"):
        c = fresh(server)
        answer = c.authenticate("PLAIN", inner=inner)
        assert answer.tag == q("sasl2:success") and c.jid is None, inner
        assert c.bind().get("type") == "result"
        c.close()
    c = fresh(server)
    c.send(f"<authenticate xmlns='{NS['sasl2']}'/>")
    assert failure(c.expect("sasl2:failure")) == "invalid-mechanism"


def test_three_tries_a_stream(server):
    c = fresh(server)
    for _ in range(2):
        assert failure(c.authenticate(password="wrong-password")) == "not-authorized"
    c.authenticate(password="wrong-password")
    c.stream_error("policy-violation")
