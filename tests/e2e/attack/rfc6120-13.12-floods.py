"""Peers that send without end (RFC 6120 13.12; xmpp.md 9): each costs a bounded amount of memory and
CPU and ends with a policy-violation, or only makes itself wait."""

import pathlib
import time

from pemb import Client, Closed, NS, StreamError, condition, q

USERS = ("alice@localhost", "bob@localhost")
SETTINGS = ("limits.preauth.bind_timeout=10m", "limits.preauth.connections_max=20000")
# Freed memory is to be freed: the sanitizer keeps 256 MiB of it back.
ENV = {"ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1:quarantine_size_mb=1"}
MIB = 1 << 20
# What a shard under the address sanitizer may grow by; each attack, if nothing held it, takes more.
GROWTH_MAX = 24 * MIB


def cpu_seconds(server):
    total = 0
    for i in range(2):
        fields = pathlib.Path(f"/proc/{server.pid_of('shard', i)}/stat").read_text().rsplit(") ", 1)[1]
        total += sum(int(n) for n in fields.split()[11:13])
    return total / 100


def grown(server, before):
    return max(now - then for now, then in zip(server.memory(), before))


ENDLESS = [
    ("a stanza", b"<message><body>", b"x" * 499),
    ("a start tag of white space", b"<message ", b" " * 499),
    ("a start tag without end", b"<message", b" a%d='x'"),
    ("an attribute", b"<message id='", b"x" * 499),
    ("a name", b"<", b"m" * 499),
    ("an end tag", b"<a></a", b" " * 499),
    ("a reference", b"<a>&", b"a" * 499),
    ("a numeric reference", b"<a>&#", b"0" * 499),
    ("a CDATA section", b"<a><![CDATA[", b"x" * 499),
    ("children", b"<message>", b"<a/>" * 100),
    ("depth", b"<a>", b"<a>" * 100),
    ("white space between stanzas", b"", b" " * 499),
]


def pieces(chunk):
    if b"%d" not in chunk:
        while True:
            yield chunk
    n = 0
    while True:
        yield b"".join(chunk % i for i in range(n, n + 50))
        n += 50


def endless(server, login, total):
    for name, start, chunk in ENDLESS:
        c = Client(server, "alice@localhost")
        c.login() if login else c.open()
        sent, more = 0, pieces(chunk)
        try:
            c.send(start)
            while sent < total:
                piece = next(more)
                c.send(piece)
                sent += len(piece)
        except OSError:
            pass # it has ended already
        try:
            c.expect(lambda e: False)
            raise AssertionError(f"{name}: nothing")
        except StreamError as e:
            assert e.condition in ("policy-violation", "not-well-formed", "restricted-xml"), \
                (name, e.condition)
        except Closed:
            pass # reset by what was still on its way: the log has the reason
        c.sock.close()


def test_what_never_ends_is_ended_before_login(server):
    before = server.memory()
    endless(server, False, 20000)
    assert grown(server, before) < GROWTH_MAX


def test_what_never_ends_is_ended_after_login(server):
    before = server.memory()
    endless(server, True, 600_000)
    assert grown(server, before) < GROWTH_MAX
    Client(server, "bob@localhost").login().close()


def test_a_stanza_by_single_bytes_is_taken_and_costs_no_square(server):
    """The scanner keeps its place: 100,000 one-byte reads of one stanza cost the bytes, not their
    square."""
    a = Client(server, "alice@localhost/slow").login(presence=True)
    b = Client(server, "bob@localhost/here").login(presence=True)
    spent = cpu_seconds(server)
    a.send("<message to='bob@localhost/here' type='chat'><body>")
    for _ in range(20_000):
        a.send("x")
    a.send("</body></message>")
    b.expect_body("x" * 20_000)
    spent = cpu_seconds(server) - spent
    assert spent < 6, spent
    a.close()
    b.close()


def flood_without_reading(server, c, element, seconds=1.0, burst=400):
    """Sends element as fast as it is taken and reads nothing. Returns the growth of the worst shard."""
    before = server.memory()
    data = element * burst
    c.sock.settimeout(0.3)
    until = time.monotonic() + seconds
    sent = 0
    try:
        while time.monotonic() < until:
            sent += c.sock.send(data)
    except OSError:
        pass # not taken any more, or ended
    return grown(server, before), sent


ANSWERED = [
    ("login", b"<enable xmlns='urn:xmpp:sm:3'/>"),
    ("login", b"<r xmlns='urn:xmpp:sm:3'/>"),
    ("bind", b"<enable xmlns='urn:xmpp:sm:3'/>"),
    ("bind", b"<resume xmlns='urn:xmpp:sm:3' previd='x' h='0'/>"),
    ("bind", b"<iq type='get' id='" + b"x" * 200 + b"'><query xmlns='jabber:iq:roster'/></iq>"),
    ("bound", b"<enable xmlns='urn:xmpp:sm:3'/>"),
    ("bound", b"<r xmlns='urn:xmpp:sm:3'/>"),
    ("bound", b"<iq type='set' id='" + b"x" * 200 + b"'><session xmlns='" + NS["session"].encode()
     + b"'/></iq>"),
    ("bound", b"<iq type='get' id='" + b"x" * 200 + b"'><ping xmlns='urn:xmpp:ping'/></iq>"),
]


def test_answers_that_nobody_reads_stop_the_reading(server):
    for step, element in ANSWERED:
        c = Client(server, "alice@localhost")
        c.want_tls = False # the transport's own buffers are all that lies between
        c.open() if step == "login" else c.login(bind=step == "bound", sm=False)
        if step == "bound" and b"<r " in element:
            c.enable()
        growth, sent = flood_without_reading(server, c, element)
        assert growth < GROWTH_MAX, (step, element[:60], growth, sent)
        c.sock.close()
    Client(server, "alice@localhost").login().close()


def test_names_that_are_dear_to_prepare_cost_bounded_time(server):
    """Addresses of 3 KiB that are not ASCII: PRECIS and IDNA work on each."""
    a = Client(server, "alice@localhost/jid").login(presence=True)
    dear = [
        "\u1e9b\u0323" * 200 + "@localhost/" + "\u1e9b\u0323" * 200,
        "\ufdfa" * 300 + "@localhost",
        "a@" + ".".join("\u00fc" * 20 for _ in range(40)),
        "a@" + "xn--" + "a" * 900,
        "a@localhost/" + "\u0390" * 500,
        "a" + "\u0315\u0300" * 240 + "@localhost",
        "\u05d0" * 500 + "@localhost/" + "\u05d01" * 200,
        "x@" + "\u3002" * 300,
    ]
    spent, n = cpu_seconds(server), 0
    for _ in range(40):
        for jid in dear:
            a.send(f"<message to='{jid}' type='chat' id='d'><body>x</body></message>")
            n += 1
    for _ in range(n):
        m = a.expect(lambda e: e.tag == q("c:message") and e.get("id") == "d")
        assert condition(m)[0] in ("jid-malformed", "remote-server-not-found", "service-unavailable"), \
            condition(m)
    spent = cpu_seconds(server) - spent
    assert spent / n < 0.02, f"{1000 * spent / n:.2f} ms per address"
    a.close()


def drain(c, n, test):
    for _ in range(n):
        c.expect(test)


def test_asking_for_ever_new_names_keeps_a_bounded_number_in_memory(server):
    """Each stranger's name is looked up and remembered for a while, that there is nobody; 10,000 of
    them at most in a shard."""
    a = Client(server, "alice@localhost/names").login(presence=True)

    def ask(numbers):
        for start in range(numbers.start, numbers.stop, 50):
            a.send("".join(f"<message to='{'n' * 200}{i}@localhost' type='chat' id='n'><body>x</body>"
                           "</message>" for i in range(start, start + 50)))
            drain(a, 50, lambda e: e.get("id") == "n" and e.get("type") == "error")
    ask(range(0, 50_000)) # more than both shards keep
    before = server.memory()
    ask(range(50_000, 80_000))
    assert grown(server, before) < 4 * MIB, grown(server, before)
    a.close()


def test_one_s_own_stanzas_to_oneself_without_reading_end_the_session(server):
    """Nobody reads what comes back: the session's queue is full in the end, nothing grows beyond."""
    before = server.memory()
    for payload in ("<body>" + "x" * 3000 + "</body>", "<body>x</body>"):
        c = Client(server, "alice@localhost/self")
        c.login(presence=True, sm=True)
        c.answer_acks = False
        data = f"<message to='{c.jid}' type='chat'>{payload}</message>".encode() * 50
        c.sock.settimeout(1)
        try:
            for _ in range(400):
                c.sock.sendall(data)
        except OSError:
            pass # not read any more, or ended
        assert grown(server, before) < GROWTH_MAX, grown(server, before)
        c.drop()
    Client(server, "alice@localhost/self").login().close()
