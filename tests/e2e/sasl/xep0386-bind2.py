"""Bind 2 (XEP-0386) and XEP-0198 inline (its section 9): a session in one round trip."""

import re

from pemb import Client, NS, Server, q, resume

USERS = ("alice@localhost", "bob@localhost")
SETTINGS = ("auth.failure_delay=0s", "auth.address_failure_rate=0/s", "auth.account_failure_rate=0/s")
PHONE, DESK = "d4565fa7-4d72-4749-b3d3-740edbf87770", "11111111-4d72-4749-b3d3-740edbf87770"
ENABLE = "<enable xmlns='urn:xmpp:sm:3' resume='true'/>"


def person(server, who="alice@localhost"):
    return Client(server, who)


def sessions(server, who="alice@localhost"):
    import json
    return [s["jid"] for s in json.loads(server.cli("--json", "user", "sessions", who).stdout)["items"]]


def test_offered_with_what_it_switches_on(server):
    # 4.1
    c = person(server)
    c.open()
    c.starttls()
    bind = c.features.find("sasl2:authentication/sasl2:inline/bind2:bind", NS)
    features = [f.get("var") for f in bind.findall("bind2:inline/bind2:feature", NS)]
    assert "urn:xmpp:sm:3" in features, features
    c.sock.close()


def test_one_request_makes_a_session(server):
    # 4.2, 4.3: full JID and <bound/> in <success/>, features behind it
    a, b = person(server), person(server, "bob@localhost")
    answer = a.bind2("AwesomeXMPP")
    b.bind2("Other")
    assert answer.find("bind2:bound", NS) is not None
    assert re.fullmatch(r"alice@localhost/AwesomeXMPP/[-_A-Za-z0-9]{16}", a.jid), a.jid
    assert a.features.find("bind:bind", NS) is None
    a.message(b.jid, "hello")
    b.expect_body("hello")
    a.close()
    b.close()


def test_tags_that_are_none(server):
    for tag in (None, "x" * 1000, "\u2028bad"):
        c = person(server)
        c.bind2(tag)
        assert re.fullmatch(r"alice@localhost/[-_A-Za-z0-9]{16}", c.jid), c.jid
        c.close()


def test_a_client_is_known_again_by_its_id_which_is_not_seen(server):
    # 4.2: "the generated identifier SHOULD remain stable ... MUST NOT be exposed"
    seen = []
    for agent, who in ((PHONE, "alice"), (PHONE, "alice"), (DESK, "alice"), (PHONE, "bob"), (None, "alice"),
                       (None, "alice")):
        c = person(server, f"{who}@localhost")
        c.bind2("App", agent=agent)
        seen.append(c.jid.split("/")[-1])
        c.close()
    assert seen[0] == seen[1] and len(set(seen)) == 5, seen
    assert not any(part in jid for jid in seen for part in PHONE.split("-"))


def test_its_new_session_replaces_its_old_one(server):
    # 4.2: "the server SHOULD terminate any earlier sessions from the same client"
    old, desk = person(server), person(server)
    old.bind2("App", agent=PHONE)
    desk.bind2("App", agent=DESK)
    new = person(server)
    new.bind2("Renamed", agent=PHONE)
    old.stream_error("conflict")
    assert sorted(sessions(server)) == sorted([desk.jid, new.jid])
    new.ping()
    desk.ping()
    new.close()
    desk.close()


def test_a_detached_one_too(server):
    old = person(server)
    old.bind2("App", agent=PHONE, inner=ENABLE)
    old.drop()
    new = person(server)
    new.bind2("App", agent=PHONE, inner=ENABLE)
    assert sessions(server) == [new.jid]
    new.close()


def test_stream_management_inline(server):
    # XEP-0198 9.1; 0386 4.3: "The <bound/> response MUST contain the resulting <enabled/>"
    a, b = person(server), person(server, "bob@localhost")
    answer = a.bind2("App", inner="<enable xmlns='urn:xmpp:sm:3' resume='true' max='60'/>")
    enabled = answer.find("bind2:bound/sm:enabled", NS)
    assert enabled.get("resume") == "true" and enabled.get("max") == "60", enabled.attrib
    b.bind2()
    for i in range(5):
        b.message(a.jid, f"m{i}")
        a.expect_body(f"m{i}")
    a.message(b.jid, "one")
    assert a.acked() == 1
    a.ping()
    assert a.acked() == 2
    a.enable_again = a.send(ENABLE)
    assert a.expect("sm:failed") is not None
    a.close()
    b.close()


def test_carbons_inline(server):
    # 4.3: "Message Carbons MUST be enabled at this point"; kept when the home dies
    a, desk, b = person(server), person(server), person(server, "bob@localhost")
    a.bind2("App", inner="<enable xmlns='urn:xmpp:carbons:2'/>" + ENABLE)
    desk.bind2("Desk")
    b.bind2()
    got = "{urn:xmpp:carbons:2}received"
    b.message(desk.jid, "for the desk")
    a.expect(lambda e: e.find(got) is not None)
    for shard in (0, 1):
        server.kill_process("shard", shard)
        a, desk, b = (again(server, c) for c in (a, desk, b))
        b.message(desk.jid, f"after {shard}")
        a.expect(lambda e: e.find(got) is not None)
    for c in (a, desk, b):
        c.close()


def again(server, c):
    """c, or who takes its place: resumed, or anew."""
    try:
        c.ping()
        return c
    except Exception:
        if c.sm_in is None:
            new = person(server, f"{c.user}@{c.host}")
            new.bind2()
            return new
        new, answer = resuming(server, c)
        assert answer.find("sm:resumed", NS) is not None
        new.sm_id, new.sm_in = answer.find("sm:resumed", NS).get("previd"), c.sm_in
        return new


def test_without_resume_there_is_no_id(server):
    a = person(server)
    answer = a.bind2(inner="<enable xmlns='urn:xmpp:sm:3'/>")
    enabled = answer.find("bind2:bound/sm:enabled", NS)
    assert enabled is not None and enabled.get("id") is None
    a.close()


def resuming(server, old, h=None, beside="", agent=None):
    new = Client(server, f"{old.user}@{old.host}")
    new.open()
    new.starttls()
    h = old.sm_in if h is None else h
    answer = new.authenticate(inner=f"<resume xmlns='urn:xmpp:sm:3' previd='{old.sm_id}' h='{h}'/>{beside}",
                              agent=agent)
    assert answer.tag == q("sasl2:success")
    return new, answer


def test_resumed_inline(server):
    # XEP-0198 9.2: "stream features MUST NOT be sent in this case"; 0386 4.2: "MUST entirely ignore the
    # <bind/> request"
    a, b = person(server), person(server, "bob@localhost")
    a.bind2("App", inner=ENABLE, agent=PHONE)
    b.bind2()
    a.message(b.jid, "before")
    b.expect_body("before")
    a.drop()
    b.message(a.jid, "meanwhile")
    new, answer = resuming(server, a, beside="<bind xmlns='urn:xmpp:bind:0'/>", agent=PHONE)
    resumed = answer.find("sm:resumed", NS)
    assert resumed.get("previd") == a.sm_id and resumed.get("h") == "1", resumed.attrib
    assert answer.find("bind2:bound", NS) is None
    assert answer.findtext("sasl2:authorization-identifier", None, NS) == a.jid
    new.expect_body("meanwhile")
    new.ping()
    assert not new.take(lambda e: e.tag == q("stream:features"))
    assert sessions(server) == [a.jid]
    new.close()
    b.close()


def test_what_cannot_be_resumed_is_bound(server):
    # 0386 4.2: "the server MUST include the XEP-0198 failure in the response, and then MUST proceed to
    # process the bind request"
    a = person(server)
    a.bind2("App", inner=ENABLE)
    a.message("bob@localhost/nobody", "x", type="headline")
    assert a.acked() == 1
    a.close()
    new, answer = resuming(server, a, beside=f"<bind xmlns='urn:xmpp:bind:0'><tag>App</tag>{ENABLE}</bind>")
    failed = answer.find("sm:failed", NS)
    assert failed[0].tag == q("stanzas:item-not-found") and failed.get("h") == "1", failed.attrib
    assert answer.find("bind2:bound/sm:enabled", NS) is not None and new.jid
    new.ping()
    new.close()


def test_what_cannot_be_resumed_without_bind(server):
    a = person(server)
    a.bind2("App", inner=ENABLE)
    a.close()
    new, answer = resuming(server, a)
    assert answer.find("sm:failed", NS) is not None and new.jid is None
    assert new.bind("old way").get("type") == "result"
    new.close()


def test_nobody_resumes_what_is_anothers(server):
    a = person(server)
    a.bind2("App", inner=ENABLE)
    a.user, jid = "bob", a.jid
    thief, answer = resuming(server, a)
    assert answer.find("sm:failed", NS) is not None and answer.find("sm:resumed", NS) is None
    a.ping()
    assert sessions(server) == [jid]
    a.close()


def test_too_many_sessions(server):
    others = []
    for i in range(20):
        c = person(server, "bob@localhost")
        c.bind2()
        others.append(c)
    c = person(server, "bob@localhost")
    c.open()
    c.starttls()
    answer = c.authenticate(inner="<bind xmlns='urn:xmpp:bind:0'/>")
    assert answer.tag == q("sasl2:success") and c.jid is None
    assert answer.find("bind2:failed/c:error/stanzas:resource-constraint", dict(NS, c=NS["sasl2"])) is not None or \
        answer.find("bind2:failed", NS) is not None
    others[0].close()
    assert c.bind().get("type") == "result"
    for x in others[1:] + [c]:
        x.close()


def test_it_outlives_its_home(server):
    a, b = person(server), person(server, "bob@localhost")
    a.bind2("App", inner=ENABLE, agent=PHONE)
    b.bind2("App", inner=ENABLE)
    for shard in (0, 1):
        server.kill_process("shard", shard)
        a, b = again(server, a), again(server, b)
        a.message(b.jid, f"after {shard}")
        b.expect_body(f"after {shard}")
    a.close()
    b.close()
