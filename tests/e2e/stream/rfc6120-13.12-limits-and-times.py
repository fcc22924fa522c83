"""Every limit and time of xmpp.md 9 hit once, shortened by the config: what is said, who else notices
(nobody), and that a rate only makes wait."""

import contextlib
import select
import socket
import time
import xml.etree.ElementTree as ET

import pemb
from pemb import Client, Closed, NS, StreamError, condition, q, resume


@contextlib.contextmanager
def node(*settings, users=("alice@localhost", "bob@localhost"), **options):
    """One shard unless told otherwise: the tables of addresses are each shard's own."""
    server = pemb.Server(settings=("limits.close_timeout=200ms", *settings),
                         shards=options.pop("shards", 1), **options)
    for jid in users:
        server.add_user(jid)
    yield server
    server.stop()


def tcp(server, source="127.0.0.1", port=None):
    s = socket.socket()
    s.bind((source, 0))
    s.settimeout(pemb.TIMEOUT)
    s.connect(("127.0.0.1", port or server.port))
    return s


HEADER = (b"<?xml version='1.0'?><stream:stream to='localhost' version='1.0' xmlns='jabber:client' "
          b"xmlns:stream='http://etherx.jabber.org/streams'>")


def is_served(s):
    """Whether the server talks to that socket, or has closed it."""
    try:
        s.sendall(HEADER)
        return b"<stream:features" in s.recv(65536)
    except (ConnectionError, BrokenPipeError):
        return False


def rest_of(s):
    got = b""
    try:
        while True:
            data = s.recv(65536)
            if not data:
                return got
            got += data
    except ConnectionError:
        return got


# ---- before login ----


def test_a_silent_stranger_has_little_time():
    with node("limits.preauth.header_timeout=300ms", "limits.preauth.tls_timeout=600ms",
              "limits.preauth.bind_timeout=900ms") as server:
        started = time.monotonic()
        silent, direct, trickling = tcp(server), tcp(server, port=server.tls_port), tcp(server)
        half = tcp(server, port=server.tls_port)
        half.sendall(b"\x16\x03\x01\x02\x00\x01")
        idle = Client(server, "alice@localhost")
        idle.open()
        unbound = Client(server, "alice@localhost").login(bind=False)
        for byte in HEADER[:-1]: # slower than the time it has
            trickling.sendall(bytes([byte]))
            if select.select([trickling], [], [], 0.02)[0]:
                break
        got = rest_of(silent)
        assert b"<connection-timeout" in got and b"</stream:stream>" in got, got
        assert 0.25 < time.monotonic() - started < 3
        got = rest_of(trickling)
        assert b"<connection-timeout" in got, got
        assert rest_of(direct) == b"" and rest_of(half) == b"", "TLS has not begun: no word"
        assert time.monotonic() - started > 0.55
        idle.stream_error("connection-timeout")
        unbound.stream_error("connection-timeout")
        assert 0.85 < time.monotonic() - started < 5


def test_starttls_without_a_handshake_ends():
    with node("limits.preauth.tls_timeout=400ms", plain=False) as server:
        c = Client(server, "alice@localhost")
        c.open()
        c.send("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
        c.expect("tls:proceed")
        assert rest_of(c.sock) == b""


def test_connections_of_one_address_are_counted():
    with node("limits.exempt_from={}", "limits.address_connections_max=5") as server:
        first = [tcp(server) for _ in range(5)]
        assert all(is_served(s) for s in first)
        assert not is_served(tcp(server)), "the sixth"
        server.wait_log("event=conn_refused .*reason=address_connections_max")
        other = tcp(server, "127.0.0.2")
        assert is_served(other), "somebody else"
        first[0].sendall(b"</stream:stream>")
        rest_of(first[0])
        first[0].close()
        server.wait_log("level=info event=conn_closed")
        assert is_served(tcp(server)), "one went, one may come"


def test_new_connections_of_one_address_have_a_rate():
    with node("limits.exempt_from={}", "limits.address_connect_rate=4/s",
              "limits.address_connect_burst=5") as server:
        assert [is_served(tcp(server)) for _ in range(7)][:6] == [True] * 5 + [False]
        assert is_served(tcp(server, "127.0.0.2"))
        started = time.monotonic()
        while not is_served(tcp(server)):
            assert time.monotonic() - started < 5
        assert is_served(tcp(server, "127.0.0.3"))


def test_all_connections_and_strangers_have_a_bound():
    with node("limits.connections_max=4", users=("alice@localhost",)) as server:
        there = [tcp(server) for _ in range(4)]
        assert all(is_served(s) for s in there) and not is_served(tcp(server))
        server.wait_log("event=conn_refused .*reason=connections_max")
    with node("limits.preauth.connections_max=3", users=("alice@localhost",)) as server:
        there = [tcp(server) for _ in range(2)]
        assert all(is_served(s) for s in there)
        known = Client(server, "alice@localhost").login()
        there.append(tcp(server))
        assert is_served(there[-1]), "who has logged in is no stranger"
        assert not is_served(tcp(server))
        server.wait_log("event=conn_refused .*reason=preauth.connections_max")
        known.ping()
        known.close()


def test_failed_logins_of_an_address_are_slowed_then_refused():
    with node("auth.failure_delay=10ms", "auth.address_failure_rate=4/m", "limits.exempt_from={}",
              "auth.account_failure_rate=0/s") as server:
        def fresh(source):
            c = Client(server, "alice@localhost", source=source)
            c.open()
            c.starttls()
            return c
        for _ in range(5):
            answer = fresh("127.0.0.9").auth(password="wrong-password")
            assert answer[0].tag == q("sasl:not-authorized")
        answer = fresh("127.0.0.9").auth()
        assert answer[0].tag == q("sasl:temporary-auth-failure"), ET.tostring(answer)
        assert fresh("127.0.0.8").auth().tag == q("sasl:success"), "somebody else"
        server.wait_log("event=login_throttled")


def test_strangers_cannot_lock_an_account():
    with node("auth.failure_delay=10ms", "auth.address_failure_rate=0/s",
              "auth.account_failure_rate=2/h") as server:
        for i in range(6):
            c = Client(server, "alice@localhost", source=f"127.0.1.{i + 1}")
            c.open()
            c.starttls()
            assert c.auth(password="wrong-password")[0].tag == q("sasl:not-authorized")
        Client(server, "alice@localhost").login().close()


# ---- after login ----


def test_the_silent_are_asked_and_the_dead_are_let_go():
    with node("limits.ping_interval=300ms", "limits.ping_timeout=1s") as server:
        dead = Client(server, "alice@localhost/dead").login()
        dead_sm = Client(server, "alice@localhost/sm").login(sm=True)
        dead_sm.answer_acks = False
        alive = Client(server, "bob@localhost/alive").login()
        alive_sm = Client(server, "bob@localhost/sm").login(sm=True)
        started = time.monotonic()
        for _ in range(3): # each answered one is followed by another, an interval later
            ping = alive.expect(lambda e: e.find("ping:ping", NS) is not None)
            assert ping.get("from") == "localhost" and ping.get("to") == "bob@localhost/alive"
            alive.send(f"<iq type='result' id='{ping.get('id')}'/>")
            alive_sm._feed(time.monotonic() + 0.05) # its <r/> is answered by the library
        error = dead.stream_error("connection-timeout")
        assert error is not None and 1.2 < time.monotonic() - started < 4
        dead_sm.take(lambda e: e.tag == q("sm:r"))
        dead_sm.stream_error("connection-timeout")
        alive.ping()
        alive_sm.ping()
        new, answer = resume(server, dead_sm)
        assert answer.tag == q("sm:resumed"), "a dead connection is no dead session"
        assert not alive.take(lambda e: e.tag == q("c:iq") and e.get("type") != "get"), \
            "answers to our ping are answered by nobody"


def test_white_space_is_life():
    with node("limits.ping_interval=400ms", "limits.ping_timeout=1s") as server:
        c = Client(server, "alice@localhost/x").login()
        until = time.monotonic() + 2
        while time.monotonic() < until:
            c.send(" ")
            c._feed(time.monotonic() + 0.1)
        assert not c.backlog, [ET.tostring(e) for e in c.backlog]
        c.expect(lambda e: e.find("ping:ping", NS) is not None)
        c.close()


def test_white_space_now_and_then_does_not_add_up_to_a_flood():
    with node("limits.ping_interval=1200ms") as server:
        c = Client(server, "alice@localhost/x").login()
        c.send(" " * 1020) # nearly too much
        c.expect(lambda e: e.find("ping:ping", NS) is not None)
        c.send(" " * 12)   # some of it is forgiven by now
        c.ping()
        c.send(" " * 1100)
        c.stream_error("policy-violation")


def test_a_peer_that_does_not_close_is_closed():
    with node("limits.close_timeout=300ms") as server:
        for connect in ("starttls", "tls"):
            c = Client(server, "alice@localhost", connect=connect).login()
            started = time.monotonic()
            c.send("<hello xmlns='urn:x'/>") # and goes on holding its end open
            error = c.expect("stream:error")
            try:
                while time.monotonic() - started < 5:
                    c._feed(time.monotonic() + 5)
                raise AssertionError("still open")
            except Closed:
                assert time.monotonic() - started < 3
            server.wait_log("event=session_ended .*reason=UNSUPPORTED_STANZA_TYPE")


def slow_reader(server, jid, sm):
    c = Client.__new__(Client)
    connect = socket.socket.connect

    def small(self, address): # before the handshake: the window is scaled there
        self.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        return connect(self, address)
    socket.socket.connect = small
    try:
        c.__init__(server, jid)
    finally:
        socket.socket.connect = connect
    return c.login(sm=sm, presence=True)


def bodies_until(client, last):
    got = []
    while not got or got[-1] != last:
        got.append(client.expect("c:message").findtext("c:body", None, NS))
    return got


def test_a_reader_that_stalls_is_closed_and_misses_nothing():
    with node("limits.output_stall_timeout=1s", shards=2) as server:
        b = slow_reader(server, "bob@localhost/slow", sm=True)
        a = Client(server, "alice@localhost/x").login(presence=True)
        sent = [f"{i} " + "x" * 4000 for i in range(200)]
        for body in sent:
            a.message(b.jid, body)
        a.ping() # the sender is not held up for ever
        server.wait_log("event=session_detached .*jid=bob@localhost/slow reason=OUTPUT_STALLED")
        b.sm_in = 0 if b.sm_in is None else b.sm_in # it has read nothing of them
        new, answer = resume(server, b)
        assert answer.tag == q("sm:resumed")
        assert bodies_until(new, sent[-1]) == sent
        new.close()


def test_what_a_stalled_reader_without_acks_missed_is_stored():
    with node("limits.output_stall_timeout=1s") as server:
        b = slow_reader(server, "bob@localhost/slow", sm=False)
        a = Client(server, "alice@localhost/x").login(presence=True)
        sent = [f"{i} " + "x" * 4000 for i in range(200)]
        for body in sent:
            a.message(b.jid, body)
        server.wait_log("event=session_ended .*jid=bob@localhost/slow reason=OUTPUT_STALLED")
        seen = []
        try:
            while True:
                seen.append(b.expect("c:message", timeout=3).findtext("c:body", None, NS))
        except (Closed, StreamError, AssertionError):
            pass
        new = Client(server, "bob@localhost/new").login(presence=True)
        stored = bodies_until(new, sent[-1])
        assert len(stored) > 50 and stored == sent[len(sent) - len(stored):], "a tail, in order"
        assert seen == sent[:len(seen)] and len(seen) + len(stored) >= len(sent), "no gap"
        new.close()


def test_over_the_stanza_rate_reading_pauses_and_nothing_is_lost():
    with node("limits.exempt_from={}", "limits.c2s.stanza_rate=100/s",
              "limits.c2s.stanza_burst=20") as server:
        a = Client(server, "alice@localhost/x").login(presence=True)
        b = Client(server, "bob@localhost/y").login(presence=True)
        started = time.monotonic()
        sent = [f"m {i}" for i in range(120)]
        a.send("".join(f"<message to='{b.jid}' type='chat'><body>{m}</body></message>" for m in sent))
        assert bodies_until(b, sent[-1]) == sent
        assert 0.8 < time.monotonic() - started < 5, time.monotonic() - started
        a.close()


def test_over_the_byte_rate_reading_pauses_and_nothing_is_lost():
    with node("limits.exempt_from={}", "limits.c2s.byte_rate=100k/s",
              "limits.c2s.byte_burst=64k") as server:
        a = Client(server, "alice@localhost/x").login(presence=True)
        b = Client(server, "bob@localhost/y").login(presence=True)
        started = time.monotonic()
        sent = [f"{i} " + "x" * 10_000 for i in range(20)]
        for body in sent:
            a.message(b.jid, body)
        assert bodies_until(b, sent[-1]) == sent
        assert 0.8 < time.monotonic() - started < 6, time.monotonic() - started
        b.ping()
        a.close()


def test_resources_of_one_account_have_a_bound():
    with node("limits.sessions_per_user_max=3", shards=2) as server:
        there = [Client(server, f"alice@localhost/{i}").login() for i in range(3)]
        c = Client(server, "alice@localhost").login(bind=False)
        answer = c.bind("one-more")
        assert condition(answer) == ("resource-constraint", "wait"), ET.tostring(answer)
        assert c.bind("2").get("type") == "result", "one of the three again"
        there[2].stream_error("conflict")
        there[0].close()
        d = Client(server, "alice@localhost").login(bind=False)
        assert d.bind("one-more").get("type") == "result"
        Client(server, "bob@localhost/x").login().close()


def test_the_shape_of_a_stanza_has_the_bounds_of_the_config():
    with node("limits.depth_max=16", "limits.attributes_max=8", "limits.namespaces_max=4",
              "limits.name_max=64b", "limits.c2s.elements_max=40", "limits.c2s.stanza_max=10000b",
              "limits.preauth.stanza_max=2k", "limits.preauth.elements_max=8") as server:
        fits = [
            "<a xmlns='urn:a'>" * 14 + "</a>" * 14,
            "<a xmlns='urn:a' " + " ".join(f"a{i}='x'" for i in range(7)) + "/>",
            "<a xmlns='urn:a' xmlns:b='urn:b' xmlns:c='urn:c' xmlns:d='urn:d'/>",
            "<" + "n" * 64 + " xmlns='urn:a'/>",
            "<a xmlns='urn:a'>" + "<b/>" * 36 + "</a>",
            "<body>" + "x" * 9900 + "</body>",
        ]
        beyond = [
            "<a xmlns='urn:a'>" * 17 + "</a>" * 17,
            "<a xmlns='urn:a' " + " ".join(f"a{i}='x'" for i in range(9)) + "/>",
            "<a xmlns='urn:a' " + " ".join(f"xmlns:b{i}='urn:{i}'" for i in range(5)) + "/>",
            "<" + "n" * 65 + " xmlns='urn:a'/>",
            "<a xmlns='urn:a'>" + "<b/>" * 41 + "</a>",
            "<body>" + "x" * 10_001 + "</body>",
        ]
        c = Client(server, "alice@localhost/x").login(presence=True)
        for inside in fits:
            id = c.message(c.jid, extra=inside)
            c.expect(lambda e: e.tag == q("c:message") and e.get("id") == id)
        c.close()
        for inside in beyond:
            c = Client(server, "alice@localhost/x").login()
            c.message(c.jid, extra=inside)
            c.stream_error("policy-violation")
        for data in ("<auth xmlns='%s' mechanism='PLAIN'>%s" % (NS["sasl"], "A" * 2100),
                     "<auth xmlns='%s'>" % NS["sasl"] + "<b/>" * 9):
            c = Client(server, "alice@localhost")
            c.open()
            c.send(data)
            c.stream_error("policy-violation")


def test_accounts_keep_no_more_than_their_limits():
    with node("limits.roster_max=10", "limits.subscribe_pending_max=2",
              "modules.private.size_max=1k", "modules.vcard.size_max=1k",
              host_options="offline_max = 3\n offline_bytes_max = 16k",
              users=[f"{n}@localhost" for n in ("alice", "bob", "u1", "u2", "u3")]) as server:
        a = Client(server, "alice@localhost/x").login(presence=True)
        for i in range(11):
            r = a.iq("set", f"<query xmlns='jabber:iq:roster'><item jid='c{i}@localhost'/></query>",
                     check=False)
            assert (r.get("type") == "result") == (i < 10), i
        assert condition(r) == ("resource-constraint", "wait")
        for n in range(5):
            a.message("bob@localhost", f"o{n}", id=f"off{n}")
        for n in (3, 4):
            assert condition(a.expect(lambda e: e.get("id") == f"off{n}"))[0] == "service-unavailable"
        assert condition(a.iq("set", "<query xmlns='jabber:iq:private'><x xmlns='urn:x'>" + "y" * 1100
                              + "</x></query>", check=False)) == ("not-acceptable", "modify")
        assert condition(a.iq("set", "<vCard xmlns='vcard-temp'><FN>" + "y" * 1100 + "</FN></vCard>",
                              check=False)) == ("not-acceptable", "modify")
        for n in (1, 2, 3):
            u = Client(server, f"u{n}@localhost/x").login(presence=True)
            u.send("<presence type='subscribe' to='bob@localhost'/>")
            u.iq("get", "<ping xmlns='urn:xmpp:ping'/>", to="bob@localhost", check=False)
            u.close()
        b = Client(server, "bob@localhost/y").login(presence=True)
        assert [b.expect("c:message").findtext("c:body", None, NS) for _ in range(3)] == ["o0", "o1", "o2"]
        b.ping()
        asked = b.take(lambda e: e.get("type") == "subscribe")
        assert sorted(e.get("from") for e in asked) == ["u1@localhost", "u2@localhost"]
        for c in (a, b):
            c.close()
