"""What `pemberley reload` takes over without a restart: for each option of a table a probe before and
after; live (L) ones also for connections that are there; and that a mistake changes nothing, a restart
option is kept back and listed (operator.md 2, 3)."""

import contextlib
import http.client
import json
import socket
import ssl
import types

import pemb
from pemb import Client, Closed, NS, StreamError, condition, q

SETTINGS = ("auth.failure_delay=0s",)
USERS = ("alice@localhost", "bob@localhost")
ROSTER = "<query xmlns='jabber:iq:roster'><item jid='{}@x.example'/></query>"


# ---- probes: each returns what a client or an operator sees ------------------------------------------


@contextlib.contextmanager
def alice(server, **login):
    c = Client(server, "alice@localhost/probe").login(**login)
    try:
        yield c
    finally:
        with contextlib.suppress(Exception):
            c.close()


def end_of(c):
    """The stream error's condition, or 'closed'."""
    try:
        c.expect(lambda e: False)
    except StreamError as e:
        return e.condition
    except Closed:
        return "closed"


def sends(server, xml):
    """Whether the stream survives it."""
    with alice(server) as c:
        c.send(xml)
        try:
            c.ping()
            return "taken"
        except StreamError as e:
            return e.condition


def asks(server, type, payload, to=None, **login):
    with alice(server, **login) as c:
        answer = c.iq(type, payload, to=to, check=False)
        return "result" if answer.get("type") == "result" else condition(answer)[0]


def stream(server):
    c = Client(server, "localhost")
    c.open()
    c.sock.close()
    return c.features


def before_tls(server):
    return [bool(stream(server).findall(path, NS)) for path in ("sasl:mechanisms", "tls:starttls")]


def mechanisms(server):
    c = Client(server, "alice@localhost", connect="tls")
    c.open()
    c.sock.close()
    return sorted(m for m in c.mechanisms() if not m.endswith("-PLUS"))


def can_register(server):
    return any(e.tag.endswith("}register") for e in stream(server))


def status_of_metrics(server):
    c = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=10)
    c.request("GET", "/metrics")
    return c.getresponse().status


def tls_1_2(server):
    c = Client(server, "localhost")
    c.open()
    c.send("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
    c.expect("tls:proceed")
    try:
        c.wrap(maximum=ssl.TLSVersion.TLSv1_2)
        return c.sock.version()
    except (ssl.SSLError, OSError):
        return "refused"


def ticket(server):
    c = Client(server, "alice@localhost", connect="tls").login()
    session = c.sock.session # the ticket has come before what was read since
    c.close()
    return bool(session and session.has_ticket)


def login_line(server):
    while not server.lines.empty(): # those of former probes
        server.lines.get()
    with alice(server):
        return server.wait_log("login_ok")


def log_line(part):
    return lambda server: part in login_line(server)


def debug_lines(server):
    before = len(server.log)
    with alice(server) as c:
        c.ping()
    with alice(server) as c: # the end of the first is in the log by now
        c.ping()
    return any("level=debug" in line for line in server.log[before:])


def failed_logins_in_the_log(server):
    before = len(server.log)
    for _ in range(6):
        c = Client(server, "alice@localhost", connect="tls")
        c.open()
        c.auth(password="wrong")
        c.sock.close()
    login_line(server)
    lines = [l for l in server.log[before:] # not the sum of those that another second left out
             if "event=login_failed" in l and "event=log_suppressed" not in l]
    return "all" if len(lines) == 6 else "some"


def further_connections(server):
    """Three at a time: one more than shards."""
    with alice(server):
        others = [Client(server, "localhost") for _ in range(2)]
        try:
            for d in others:
                d.open()
            return "served"
        except Closed:
            return "closed"
        finally:
            for d in others:
                d.sock.close()


def connect_burst(server):
    """Of eight connections at once (each of the two shards counts for itself), are all served?"""
    served = 0
    for _ in range(8):
        try:
            stream(server)
            served += 1
        except Closed:
            pass
    return served == 8


def second_resource(server):
    with alice(server):
        d = Client(server, "alice@localhost").login(bind=False)
        answer = d.bind("other")
        d.sock.close()
        return answer.get("type")


def same_resource(server):
    with alice(server):
        d = Client(server, "alice@localhost").login(bind=False)
        answer = d.bind("probe")
        d.close()
        return answer.get("type")


def failures_until_the_end(server):
    c = Client(server, "alice@localhost", connect="tls")
    c.open()
    for n in range(1, 6):
        c.auth(password="wrong")
        with contextlib.suppress(AssertionError):
            c.expect("stream:error", timeout=0.2)
            return n
    return 0


def silence(server):
    c = Client(server, "localhost")
    try:
        c.expect("stream:error", timeout=0.7)
        return "ended"
    except AssertionError:
        return "waited for"


def resumable(server):
    with alice(server) as c:
        return c.enable().get("resume")


def with_header(server):
    """A PROXY header in front of the stream."""
    c = Client(server, "localhost")
    c.send("PROXY TCP4 203.0.113.1 10.0.0.1 1 2\r\n")
    try:
        c.open()
        return "taken"
    except Closed:
        return "garbage"


def roster_items(server):
    with alice(server) as c:
        added = [c.iq("set", ROSTER.format(i), check=False).get("type") for i in range(11)].count("result")
        for i in range(added):
            c.iq("set", ROSTER.format(i).replace("/></", " subscription='remove'/></"))
        return added


def stranger(server):
    """What an IQ to a stranger's full JID gets."""
    with alice(server) as a:
        b = Client(server, "bob@localhost/there").login(presence=True)
        id = a.new_id()
        a.send(f"<iq type='get' id='{id}' to='{b.jid}'><query xmlns='urn:x'/></iq>")
        a.ping()
        a.message(b.jid, "barrier")
        b.expect_body("barrier")
        got = b.take(lambda e: e.tag == q("c:iq") and e.get("id") == id)
        b.close()
        return "delivered" if got else "refused"


def offline(server):
    """Whether a message to somebody who is away is kept."""
    with alice(server) as a:
        id = a.message("bob@localhost", "later")
        a.message("bob@localhost", "again") # answered, too, or kept behind it
        b = Client(server, "bob@localhost/x").login(presence=True)
        try:
            b.expect_body("again", timeout=0.5)
            kept = True
        except AssertionError:
            kept = False
            a.expect(lambda e: e.get("id") == id and e.get("type") == "error")
        b.close()
    return "kept" if kept else "refused"


def add_user(server):
    r = server.cli("user", "add", "--generate", "third@localhost", check=False)
    if r.returncode == 0:
        server.cli("--yes", "user", "remove", "third@localhost")
    return "added" if r.returncode == 0 else "refused"


def sasl(server):
    return "ANONYMOUS" in mechanisms(server)


nested = "<message>" + "<a>" * 20 + "</a>" * 20 + "</message>"
wide = "<message>" + "<a/>" * 40 + "</message>"
attributes = "<message><a " + " ".join(f"a{i}='1'" for i in range(10)) + "/></message>"
namespaces = "<message><a " + " ".join(f"xmlns:n{i}='u'" for i in range(6)) + "/></message>"
long_name = f"<message><{'n' * 80}/></message>"
big = f"<message><body>{'x' * 20000}</body></message>"
vcard = f"<vCard xmlns='vcard-temp'><NOTE>{'x' * 2000}</NOTE></vCard>"
private = f"<query xmlns='jabber:iq:private'><a xmlns='urn:a'>{'x' * 2000}</a></query>"
HUGE_AUTH = ("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='SCRAM-SHA-1'>" + "A" * 4000
             + "</auth>")


def huge_auth(server):
    c = Client(server, "alice@localhost", connect="tls")
    c.open()
    c.send(HUGE_AUTH)
    e = c.expect(lambda e: True)
    return "stream" if e.tag == q("stream:error") else "sasl"


def sent(xml):
    return lambda server: sends(server, xml)


def iq_set(payload):
    return lambda server: asks(server, "set", payload)


# (what the file says more, probe, what it gives before, what it gives after)
TABLE = [
    # L
    ("log { level = debug }", debug_lines, False, True),
    ("log { format = json }", log_line('"event":"login_ok"'), False, True),
    ("log { jids = off }", log_line("jid=alice@localhost"), True, False),
    ("log { addresses = prefix }", log_line("address=127.0.0.1"), True, False),
    ("log { event_rate = 60/m }", failed_logins_in_the_log, "all", "some"),
    ("listen { metrics { allow_from = {10.0.0.0/8} } }", status_of_metrics, 200, 403),
    ("limits { connections_max = 1 }", further_connections, "served", "closed"),
    ("limits { exempt_from = {} address_connect_rate = 1/h address_connect_burst = 1 }", connect_burst,
     True, False),
    ("limits { sessions_per_user_max = 1 }", second_resource, "result", "error"),
    ("limits { roster_max = 10 }", roster_items, 11, 10),
    ("modules { vcard { size_max = 1k } }", iq_set(vcard), "result", "not-acceptable"),
    ("modules { private { size_max = 1k } }", iq_set(private), "result", "not-acceptable"),
    ("modules { off = {ping} }", lambda s: asks(s, "get", "<ping xmlns='urn:xmpp:ping'/>"), "result",
     "service-unavailable"),
    ("tls { ticket_lifetime = 0s }", ticket, True, False),
    # N
    ("listen { c2s { plain_from = {} } }", before_tls, [True, True], [False, True]),
    ("listen { c2s { plain_from = {} tls = optional } }", before_tls, [True, True], [True, True]),
    ("listen { c2s { proxy_from = {127.0.0.0/8} } }", with_header, "garbage", "taken"),
    ("tls { version_min = 1.3 }", tls_1_2, "TLSv1.2", "refused"),
    ("auth { mechanisms = {SCRAM-SHA-1, PLAIN} }", mechanisms,
     ["PLAIN", "SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-512"], ["PLAIN", "SCRAM-SHA-1"]),
    ("auth { failures_max = 2 }", failures_until_the_end, 3, 2),
    ("limits { preauth { header_timeout = 200ms } }", silence, "waited for", "ended"),
    ("limits { preauth { stanza_max = 2k } }", huge_auth, "sasl", "stream"),
    ("limits { c2s { stanza_max = 10000b } }", sent(big), "taken", "policy-violation"),
    ("limits { c2s { elements_max = 32 } }", sent(wide), "taken", "policy-violation"),
    ("limits { depth_max = 16 }", sent(nested), "taken", "policy-violation"),
    ("limits { attributes_max = 8 }", sent(attributes), "taken", "policy-violation"),
    ("limits { namespaces_max = 4 }", sent(namespaces), "taken", "policy-violation"),
    ("limits { name_max = 64b }", sent(long_name), "taken", "policy-violation"),
    ("limits { resume_timeout = 0s }", resumable, "true", None),
]
HOST_TABLE = [
    ("registration = open", can_register, False, True),
    ("auth = {internal, anonymous}", sasl, False, True),
    ("conflict = refuse", same_resource, "result", "error"),
    ("iq_strangers = refuse", stranger, "delivered", "refused"),
    ("offline_max = 0", offline, "kept", "refused"),
    ("users_max = 2", add_user, "added", "refused"),
    ("modules_off = {ping}", lambda s: asks(s, "get", "<ping xmlns='urn:xmpp:ping'/>", to="localhost"),
     "result", "service-unavailable"),
]


# ---- the tests --------------------------------------------------------------------------------------


@contextlib.contextmanager
def config(server, text):
    before = server.conf.read_text()
    server.conf.write_text(text)
    try:
        out = server.cli("reload").stdout
        yield out
    finally:
        server.conf.write_text(before)
        server.cli("reload")


def walk(server, table, write):
    wrong = []
    for setting, probe, before, after in table:
        for what, expected in ((None, before), (setting, after), (None, before)):
            with contextlib.ExitStack() as stack:
                if what:
                    out = stack.enter_context(config(server, write(what)))
                    if not out.startswith("changed live: ") or "restart needed: 0" not in out:
                        wrong.append((setting, out))
                got = probe(server)
                if got != expected:
                    wrong.append((setting, what and "set", got, expected))
    assert not wrong, "\n".join(map(str, wrong))


def test_each_option_of_the_table_takes_effect_and_goes_back(server):
    text = server.conf.read_text()
    walk(server, TABLE, lambda setting: merged(text, setting))


def merged(text, setting):
    """`listen { c2s { x } }` goes into the section that is there: twice the same is an error."""
    for section in ("c2s", "metrics"):
        if setting.startswith("listen { %s {" % section):
            inner = setting.split("{", 2)[2].rsplit("}", 2)[0]
            lines = text.splitlines(True)
            at = next(i for i, l in enumerate(lines) if l.strip().startswith(section + " {"))
            keep = lines[at].rstrip()[:-1]
            if "plain_from" in inner:
                keep = keep.split(" plain_from")[0]
            lines[at] = keep + inner + "}\n"
            return "".join(lines)
    return text + setting + "\n"


def test_each_option_of_a_host_too(server):
    text = server.conf.read_text()
    head = 'host "localhost" {\n'
    assert head in text
    walk(server, HOST_TABLE, lambda setting: text.replace(head, head + "    " + setting + "\n"))


def test_live_ones_reach_connections_that_are_there(server):
    text = server.conf.read_text()
    c = Client(server, "alice@localhost/idle").login()
    with config(server, text + "limits { ping_interval = 500ms ping_timeout = 1s }\n"):
        c.expect(lambda e: e.find("ping:ping", NS) is not None) # after five minutes, as it was
        assert end_of(c) == "connection-timeout"
    d = Client(server, "alice@localhost/fast").login()
    setting = "limits { exempt_from = {} c2s { stanza_rate = 2/s stanza_burst = 1 } }\n"
    with config(server, text + setting):
        for i in range(4):
            d.message("alice@localhost/fast", f"m{i}")
        with contextlib.suppress(AssertionError):
            d.expect_body("m3", timeout=0.5)
            raise RuntimeError("the new rate does not hold an old connection")
    d.expect_body("m3") # nor does it go on holding it
    d.close()


def test_three_lists_and_nothing_by_a_mistake(server):
    text = server.conf.read_text()
    assert "changed live: 0 · new connections: 0 · restart needed: 0" in server.cli("reload").stdout
    changed = (text.replace("shards = 2", "shards = 4")
               + "log { level = warn }\nlimits { roster_max = 50 depth_max = 32 }\n")
    for _ in range(2): # what waits for a restart is said again each time
        server.conf.write_text(changed)
        out = server.cli("reload").stdout
        assert "restart needed: 1 (node.shards 2 → 4)" in out, out
    assert json.loads(server.cli("--json", "status").stdout)["restart_pending"] == 1
    server.conf.write_text(text)
    out = server.cli("reload").stdout
    assert out.startswith("changed live: 2 (limits.roster_max 50 → 2000, log.level warn → info) · new "
                          "connections: 1 (limits.depth_max 32 → 64) · restart needed: 0"), out
    assert json.loads(server.cli("--json", "status").stdout)["restart_pending"] == 0
    server.conf.write_text(text + "log { level = debug }\nlimits { roster_max = few }\n")
    r = server.cli("reload", check=False)
    assert r.returncode == 78 and "limits.roster_max" in r.stderr and "Nothing was changed" in r.stderr
    assert not debug_lines(server)
    server.conf.write_text(text)
    server.cli("reload")
