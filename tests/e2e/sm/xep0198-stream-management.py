"""XEP-0198 as xmpp.md 6 has it: enabling, counting both ways, resuming, ends."""

from pemb import Client, NS, StreamError, barrier, befriend, q, resume

N = [0]


def person(server, sm=False, presence=True, connect="starttls"):
    N[0] += 1
    jid = f"s{N[0]}@localhost"
    server.add_user(jid)
    return Client(server, jid + "/r", connect=connect).login(sm=sm, presence=presence)


def test_enable_and_its_errors(server):
    c = person(server, presence=False)
    assert c.features.find("sm:sm", NS) is not None
    e = c.enable()
    assert e.get("resume") == "true" and e.get("id") and e.get("max") == "600" and e.get("location") is None
    c.send("<enable xmlns='urn:xmpp:sm:3' resume='true'/>")
    f = c.expect("sm:failed")
    assert f[0].tag == q("stanzas:unexpected-request")
    c.ping()
    c.close()
    d = Client(server, c.jid)
    d.open(), d.starttls(), d.auth()
    d.send("<enable xmlns='urn:xmpp:sm:3'/>")
    assert d.expect("sm:failed")[0].tag == q("stanzas:unexpected-request")
    d.bind()
    no = d.enable(resume=False)
    assert no.get("id") is None and no.get("resume") in (None, "false")
    d.close()


def test_h_counts_stanzas_since_enable(server):
    c = person(server)
    c.ping()
    c.enable()
    assert c.acked() == 0
    for i in range(5):
        c.message(c.jid, f"m{i}")
    c.wait_acked(5)
    c.send(" \n")
    c.ping()
    c.wait_acked(6)
    c.close()


def test_h_above_what_was_sent(server):
    c = person(server, sm=True)
    c.send("<a xmlns='urn:xmpp:sm:3' h='1000'/>")
    error = c.stream_error("undefined-condition")
    high = error.find("{urn:xmpp:sm:3}handled-count-too-high")
    assert high is not None and high.get("h") == "1000"


def test_the_server_asks_and_repeats_what_was_not_acknowledged(server):
    a, b = person(server), person(server, sm=True)
    b.answer_acks = False
    for i in range(10):
        a.message(b.jid, f"m{i}", extra="<x xmlns='urn:x'/>")
    for i in range(10):
        b.expect_body(f"m{i}")
    b.expect("sm:r")
    b.drop()
    new, answer = resume(server, b, h=b.sm_in - 4)
    assert answer.tag == q("sm:resumed") and answer.get("previd") == b.sm_id
    for i in range(6, 10):
        new.expect_body(f"m{i}")
    new.ping()
    assert not new.take(lambda e: e.tag == q("c:message"))
    a.close(), new.close()


def test_the_answer_counts_what_arrived_so_that_resending_doubles_nothing(server):
    a, b = person(server, sm=True), person(server)
    base = a.acked()
    ids = [a.message(b.jid, f"m{i}") for i in range(20)]
    a.drop()
    new, answer = resume(server, a)
    h = int(answer.get("h")) - base
    for i in range(h, 20):
        new.send(f"<message to='{b.jid}' type='chat' id='{ids[i]}'><body>m{i}</body></message>")
    for i in range(20):
        assert b.expect("c:message").findtext("c:body", None, NS) == f"m{i}"
    barrier(new, b)
    assert not b.take(lambda e: e.tag == q("c:message"))
    new.close(), b.close()


def test_messages_while_detached_are_delivered_on_resume_in_order(server):
    a, b = person(server), person(server, sm=True)
    befriend(a, b)
    b.ping()
    b.drop()
    for i in range(30):
        a.message(b.jid if i % 2 else b.jid.split("/")[0], f"m{i}")
    a.ping()
    new, answer = resume(server, b, connect="tls")
    for i in range(30):
        assert new.expect("c:message").findtext("c:body", None, NS) == f"m{i}"
    new.ping()
    a.ping()
    assert not a.take(lambda e: e.get("type") == "unavailable")
    new.message(a.jid, "still me")
    assert a.expect_body("still me").get("from") == b.jid
    a.close(), new.close()


def test_resume_while_the_old_connection_is_open(server):
    a, b = person(server), person(server, sm=True)
    new, answer = resume(server, b)
    assert answer.tag == q("sm:resumed")
    b.stream_error("conflict")
    a.message(b.jid, "on the new one")
    new.expect_body("on the new one")
    a.close(), new.close()


def test_somebody_elses_and_unknown_sessions(server):
    a, b = person(server, sm=True), person(server)
    for previd in (a.sm_id, "nonsense", "", "0" * 16):
        c = Client(server, b.jid.split("/")[0])
        c.login(bind=False)
        c.send(f"<resume xmlns='urn:xmpp:sm:3' previd='{previd}' h='0'/>")
        f = c.expect("sm:failed")
        assert f[0].tag == q("stanzas:item-not-found")
        assert c.bind().get("type") == "result", "the client may bind after it"
        c.close()
    a.ping()
    a.close(), b.close()


def test_ended_sessions_are_remembered_with_h(server):
    a = person(server, sm=True, presence=False)
    for i in range(3):
        a.ping()
    a.close()
    new, answer = resume(server, a)
    assert answer.tag == q("sm:failed") and answer.get("h") == "3", (answer.tag, answer.attrib)
    new.close()


def test_a_clean_close_ends_the_session(server):
    a, b = person(server), person(server, sm=True)
    befriend(a, b)
    b.close()
    a.expect_presence(b.jid, "unavailable")
    new, answer = resume(server, b)
    assert answer.tag == q("sm:failed")
    a.close(), new.close()


def test_a_too_large_stanza_is_not_waited_for_again(server):
    a = person(server, sm=True)
    try:
        a.send("<message><body>" + "x" * 400000 + "</body></message>")
    except OSError:
        pass
    try:
        a.stream_error("policy-violation")
    except Exception as e:
        raise AssertionError(repr(e))
    new, answer = resume(server, a)
    assert answer.tag == q("sm:failed")
    new.close()


def test_replaced_resource_gives_its_queue_away(server):
    a, b = person(server), person(server, sm=True)
    other = Client(server, b.jid.split("/")[0] + "/other").login(presence=True)
    b.ping()
    b.drop()
    a.message(b.jid, "for the one that went")
    a.ping()
    new = Client(server, b.jid).login(presence=True)
    m = other.expect_body("for the one that went")
    assert m.find("delay:delay", NS) is not None
    a.close(), new.close(), other.close()


def test_iq_in_a_dead_queue_is_answered(server):
    a, b = person(server), person(server, sm=True)
    b.ping()
    b.drop()
    a.send(f"<iq type='get' id='q1' to='{b.jid}'><q xmlns='urn:x'/></iq>")
    a.send(f"<message type='groupchat' id='g1' to='{b.jid}'><body>x</body></message>")
    a.ping()
    again = Client(server, b.jid).login()
    from pemb import condition
    for id in ("q1", "g1"):
        e = a.expect(lambda e: e.get("id") == id)
        assert condition(e) == ("recipient-unavailable", "wait") and e.get("from") == b.jid
    a.close(), again.close()
