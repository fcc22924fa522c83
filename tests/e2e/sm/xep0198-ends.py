"""What each end of a session does to presence and to each kind of stanza that its client had not
acknowledged (xmpp.md 6, "ended"; XEP-0198 4 and 7), with and without another eligible resource."""

from pemb import Client, NS, barrier, condition, q, resume

SETTINGS = ["limits.unacked_max=16"]
N = [0]


def person(server, name=None, sm=False, resource="x"):
    N[0] += 1
    jid = f"{name or 'p%d' % N[0]}@localhost"
    if name is None:
        server.add_user(jid)
    return Client(server, f"{jid}/{resource}").login(sm=sm, presence=True)


def bodies(stanzas):
    return [e.findtext("c:body", None, NS) for e in stanzas]


def is_message(e):
    return e.tag == q("c:message")


class Case:
    """a has sent one stanza of each kind to b's full JID; b has them all and acknowledged none."""

    def __init__(self, server, shared, enable=""):
        self.server = server
        self.a, self.b = person(server), person(server)
        self.b.send(f"<enable xmlns='urn:xmpp:sm:3' resume='true' {enable}/>")
        self.b.sm_id = self.b.expect("sm:enabled").get("id")
        self.b.sm_in = 0
        self.b.answer_acks = False
        self.other = person(server, self.b.user, resource="other") if shared else None
        a, to = self.a, self.b.jid
        self.b.send(f"<presence to='{a.jid}'/>")
        a.expect_presence(self.b.jid)
        for type in ("chat", "normal", "headline", "groupchat"):
            a.message(to, type, type=type, id=type)
        a.send(f"<message to='{to}' type='error' id='error'><body>error</body><error type='cancel'>"
               f"<gone xmlns='{NS['stanzas']}'/></error></message>"
               f"<iq to='{to}' type='get' id='get'><q xmlns='urn:x'/></iq>"
               f"<iq to='{to}' type='result' id='result'/>"
               f"<presence to='{to}'/>")
        self.b.expect_presence(a.jid)

    def judge(self):
        a = self.a
        a.expect_presence(self.b.jid, "unavailable")
        for id in ("groupchat", "get"):
            e = a.expect(lambda e: e.get("id") == id)
            assert condition(e) == ("recipient-unavailable", "wait")
            assert e.get("from") == self.b.jid
        heir = self.other or person(self.server, self.b.user)
        for body in ("chat", "normal"):
            m = heir.expect(is_message)
            assert m.get("id") == body and m.find("delay:delay", NS) is not None, m.attrib
        barrier(a, heir)
        rest = bodies(heir.take(is_message))
        assert rest == [f"flood {i}" for i in range(len(rest))], rest
        assert not heir.take(lambda e: e.tag == q("c:iq") or e.get("from") == a.jid)
        a.ping()
        back = [e.get("id") for e in a.take(lambda e: e.get("type") == "error")]
        assert not back, back
        if self.other: # nothing was kept for later as well
            later = person(self.server, self.b.user, resource="later")
            later.ping()
            assert not later.take(is_message)
            later.close()
        heir.close()
        a.close()


def clean_close(case):
    case.b.close()


def own_fault(case):
    case.b.send("<unheard-of xmlns='urn:x'/>")
    case.b.stream_error("unsupported-stanza-type")


def replaced(case):
    new = Client(case.server, case.b.jid).login() # not available, so not eligible
    case.b.stream_error("conflict")
    new.close()


def kicked(case):
    case.server.cli("user", "kick", case.b.jid)
    case.b.stream_error("policy-violation")


def timeout(case):
    case.b.drop()


def overflow(case):
    for i in range(9): # with the eight of before more than sixteen
        case.a.message(case.b.jid, f"flood {i}")
    case.b.stream_error("resource-constraint")


def check(server, end, enable=""):
    for shared in (False, True):
        case = Case(server, shared, enable)
        end(case)
        case.judge()


def test_clean_close(server):
    check(server, clean_close)


def test_stream_error_that_is_the_clients_fault(server):
    check(server, own_fault)


def test_replaced_resource(server):
    check(server, replaced)


def test_kicked(server):
    check(server, kicked)


def test_timeout_of_a_detached_session(server):
    check(server, timeout, enable="max='1'")


def test_overflow_of_its_queue(server):
    check(server, overflow)


def test_lost_connection_ends_nothing(server):
    for shared in (False, True):
        case = Case(server, shared)
        case.b.drop()
        new, answer = resume(server, case.b, h=0)
        assert answer.tag == q("sm:resumed")
        new.answer_acks = False
        for id in ("chat", "normal", "headline", "groupchat", "error", "get", "result"):
            assert new.expect(lambda e: e.get("id") is not None).get("id") == id
        new.expect_presence(case.a.jid)
        case.a.ping()
        assert not case.a.take(lambda e: e.get("type") in ("error", "unavailable"))
        if shared:
            case.other.ping()
            assert not case.other.take(is_message)
            case.other.close()
        new.close()
        case.a.close()


def test_what_another_resource_has_taken_is_not_given_again(server):
    a, b = person(server), person(server, sm=True)
    b.answer_acks = False
    other = person(server, b.user, resource="other")
    a.message(b.jid.split("/")[0], "for both")
    b.expect_body("for both")
    other.expect_body("for both")
    other.ping()
    b.close()
    barrier(a, other)
    assert not other.take(is_message)
    other.close()
    later = person(server, b.user, resource="later")
    later.ping()
    assert not later.take(is_message)
    later.close()
    a.close()


def test_a_failed_resumption_tells_what_of_the_queue_the_client_has(server):
    for end in (clean_close, own_fault, kicked):
        case = Case(server, False)
        end(case)
        case.a.expect_presence(case.b.jid, "unavailable")
        new, answer = resume(server, case.b, h=1) # the chat, not the normal one
        assert answer.tag == q("sm:failed") and answer.get("h") == "1", answer.attrib
        new.bind("x")
        new.send("<presence/>")
        assert new.expect(is_message).get("id") == "normal"
        barrier(case.a, new)
        assert not new.take(is_message)
        new.close()
        case.a.close()
