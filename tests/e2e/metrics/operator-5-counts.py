"""What happens is counted once, under the labels that say what it was, and gauges come back to zero
(operator.md 5)."""

import http.client
import re
import socket
import time

from pemb import Client, barrier, befriend, q, resume

USERS = tuple(f"u{i}@localhost" for i in range(12))
HOST_OPTIONS = "registration = open"
GAUGES = ("connections", "connections_preauth", "sessions", "users_online", "stanzas_unsafe",
          "unacked_stanzas", "unacked_bytes", "output_queue_bytes", "reads_paused", "parked_users",
          "output_stalled_connections",
          "logins_waiting", "store_queue_requests", "store_queue_bytes")


def numbers(server):
    c = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=10)
    c.request("GET", "/metrics")
    out = {}
    for line in c.getresponse().read().decode().splitlines():
        if line and line[0] != "#":
            name, value = line.rsplit(" ", 1)
            out[name] = float(value)
    return out


def total(n, family, **labels):
    """The sum of a family's series that have these labels."""
    values = [v for k, v in n.items() if k.split("{")[0] == "pemberley_" + family
              and all(f'{a}="{b}"' in k for a, b in labels.items())]
    assert values, f"no {family} {labels}"
    return sum(values)


class Watch:
    """What is counted from here on."""

    def __init__(self, server):
        self.server, self.before = server, numbers(server)

    def grew(self, family, **labels):
        return total(numbers(self.server), family, **labels) - total(self.before, family, **labels)

    def expect(self, by, family, **labels):
        """It grows by so much soon, and no further."""
        deadline = time.monotonic() + 10
        while (n := self.grew(family, **labels)) < by and time.monotonic() < deadline:
            time.sleep(0.02)
        assert n == by, f"{family} {labels} grew by {n}, not {by}"


def test_logins_by_mechanism_and_failures_by_reason(server):
    w = Watch(server)
    Client(server, "u0@localhost/r").login("SCRAM-SHA-512").close()
    c = Client(server, "u0@localhost", password="wrong-password")
    c.open(), c.starttls(), c.auth()
    c.sock.close()
    w.expect(1, "logins_total", mechanism="SCRAM-SHA-512")
    w.expect(1, "logins_total")
    w.expect(1, "login_failures_total", mechanism="SCRAM-SHA-256", reason="not_authorized")
    w.expect(1, "login_failures_total")
    w.expect(1, "login_seconds_count")
    w.expect(1, "sessions_started_total")
    w.expect(1, "sessions_ended_total")


def test_connections_and_handshakes_by_listener(server):
    w = Watch(server)
    c = Client(server, "u1@localhost/r", connect="tls").login()
    assert total(numbers(server), "connections", listener="c2s_tls") == 1
    c.close()
    with socket.create_connection(("127.0.0.1", server.tls_port)) as s:
        s.sendall(b"this is no TLS at all, by far not, but long enough for a record\r\n\r\n")
        while s.recv(4096):
            pass
    w.expect(2, "connections_opened_total", listener="c2s_tls")
    w.expect(2, "connections_closed_total", listener="c2s_tls")
    w.expect(1, "connections_closed_total", listener="c2s_tls", reason="tls")
    w.expect(1, "tls_handshakes_total", listener="c2s_tls", version="1.3", resumed="no")
    w.expect(1, "tls_handshakes_total")
    w.expect(1, "tls_handshake_seconds_count", listener="c2s_tls")
    w.expect(1, "tls_handshake_failures_total", listener="c2s_tls", reason="tls")
    w.expect(0, "connections_opened_total", listener="c2s")


def all_taken(server):
    """What was sent so far has left, and is counted."""
    deadline = time.monotonic() + 10
    while True:
        n = numbers(server)
        sent = sum(total(n, "stanzas_sent_total", kind=k) for k in ("message", "presence", "iq"))
        if total(n, "delivery_seconds_count") == sent or time.monotonic() > deadline:
            return
        time.sleep(0.02)


def test_stanzas_by_kind_and_deliveries(server):
    a, b = (Client(server, f"u{i}@localhost/r").login(presence=True) for i in (2, 3))
    all_taken(server)
    w = Watch(server)
    for i in range(10):
        a.message(b.jid, f"m{i}")
    barrier(a, b)
    a.ping(), b.ping()
    a.enable()  # else nobody waits for it
    a.message(b.jid, "waited for")
    b.expect_body("waited for")
    a.send("<r xmlns='urn:xmpp:sm:3'/>")
    a.expect("sm:a")
    w.expect(12, "stanzas_received_total", kind="message", listener="c2s")
    w.expect(12, "stanzas_sent_total", kind="message")
    w.expect(2, "stanzas_received_total", kind="iq")
    w.expect(14, "delivery_seconds_count")
    w.expect(12, "stanza_size_bytes_count", kind="message")
    assert w.grew("safe_seconds_count") >= 1
    assert w.grew("connection_receive_bytes_total", listener="c2s") > 11 * 80
    a.close(), b.close()


def test_offline_bounced_and_errors(server):
    a = Client(server, "u4@localhost/r").login(presence=True)
    w = Watch(server)
    a.message("u5@localhost", "later")
    a.message("nobody@localhost", "never")
    a.expect(lambda e: e.tag == q("c:message") and e.get("type") == "error")
    w.expect(1, "stanzas_undelivered_total", fate="offline", reason="stored")
    w.expect(1, "stanzas_undelivered_total", fate="bounced", reason="service_unavailable")
    w.expect(1, "stanza_errors_sent_total", condition="service_unavailable")
    w.expect(1, "offline_messages_total", fate="stored")
    w.expect(1, "store_requests_total", op="offline_put", result="ok")
    w.expect(1, "store_request_seconds_count", op="offline_put")
    assert w.grew("store_commit_seconds_count") >= 1
    b = Client(server, "u5@localhost/r").login(presence=True)
    b.expect_body("later")
    w.expect(1, "offline_messages_total", fate="delivered")
    a.close(), b.close()


def test_resumptions_and_their_failures(server):
    c = Client(server, "u6@localhost/r").login(presence=True, sm=True)
    w = Watch(server)
    c.drop()
    new, answer = resume(server, c)
    assert answer.tag == q("sm:resumed")
    again, answer = resume(server, new)  # while the old connection is open
    assert answer.tag == q("sm:resumed")
    w.expect(2, "resumptions_total")
    w.expect(2, "resumption_gap_seconds_count")
    assert w.grew("resumption_gap_seconds_sum") < 20
    again.sm_id = "0123456789abcdef-x"
    no, answer = resume(server, again)
    assert answer.tag == q("sm:failed")
    w.expect(1, "resumption_failures_total", reason="unknown")
    no.sm_id = "nonsense"
    no.send("<resume xmlns='urn:xmpp:sm:3' previd='nonsense' h='0'/>")
    no.expect("sm:failed")
    w.expect(1, "resumption_failures_total", reason="malformed")
    w.expect(2, "resumption_failures_total")
    again.close(), no.close()


def test_stream_errors_and_limits(server):
    w = Watch(server)
    c = Client(server, "u7@localhost/r").login()
    c.send("<message><<")
    c.stream_error("not-well-formed")
    d = Client(server, "u7@localhost/r").login()
    d.send("<message><body>" + "x" * 300000 + "</body></message>")
    d.stream_error("policy-violation")
    e = Client(server, "u7@localhost/r").login()
    e.send("<stream:error><undefined-condition xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>"
           "</stream:error>")
    e.closed()
    w.expect(1, "stream_errors_total", direction="out", condition="not_well_formed")
    w.expect(1, "stream_errors_total", direction="out", condition="stanza_too_big")
    w.expect(1, "limits_hit_total", limit="stanza_too_big")
    w.expect(2, "stream_errors_total", direction="out")
    w.expect(1, "stream_errors_total", direction="in")
    c.sock.close(), d.sock.close(), e.sock.close()


MODULES = {"disco": "<query xmlns='http://jabber.org/protocol/disco#info'/>",
           "ping": "<ping xmlns='urn:xmpp:ping'/>", "version": "<query xmlns='jabber:iq:version'/>",
           "last": "<query xmlns='jabber:iq:last'/>", "time": "<time xmlns='urn:xmpp:time'/>",
           "vcard": "<vCard xmlns='vcard-temp'/>", "register": "<query xmlns='jabber:iq:register'/>",
           "private": "<query xmlns='jabber:iq:private'><x xmlns='y'/></query>",
           "roster": "<query xmlns='jabber:iq:roster'/>"}


def test_requests_by_the_feature_that_answers(server):
    c = Client(server, "u0@localhost/r").login()
    for module, payload in MODULES.items():
        w = Watch(server)
        domain = module in ("disco", "version", "time", "last")
        c.iq("get", payload, to="localhost" if domain else None, check=False)
        w.expect(1, "module_requests_total", module=module)
        w.expect(1, "module_requests_total")
        w.expect(1, "iq_seconds_count")
    w = Watch(server)
    for _ in range(200):
        c.ping()
    w.expect(200, "module_requests_total", module="ping")
    assert 0 <= w.grew("module_cpu_seconds_total") < 1
    assert 0 < w.grew("iq_seconds_sum") < 20
    c.close()


def test_pushes_fan_out_and_what_is_no_stanza(server):
    c = Client(server, "u1@localhost/r").login(presence=True)
    w = Watch(server)
    c.iq("set", "<query xmlns='jabber:iq:roster'><item jid='u2@localhost'/></query>")
    w.expect(1, "roster_pushes_total")
    d = Client(server, "u2@localhost/r").login(presence=True)
    befriend(c, d)
    w = Watch(server)
    c.send("<presence><show>away</show></presence>")
    d.expect_presence(c.jid)
    w.expect(1, "fanout_recipients_total", source="presence")
    w.expect(1, "fanout_frames_total", source="presence")
    e = Client(server, "u3@localhost/r").login()
    w = Watch(server)
    e.enable()
    e.acked()
    w.expect(2, "stanzas_received_total", kind="nonza", listener="c2s")
    w.expect(2, "stanzas_sent_total", kind="nonza", listener="c2s")
    c.close(), d.close(), e.close()


def test_the_ground_that_a_node_stands_on(server):
    c = Client(server, "u4@localhost/r").login()
    n = numbers(server)
    assert total(n, "timers", shard="0") > 0 and total(n, "shared_memory_bytes") > 1 << 20
    assert total(n, "parked_users") == 0 and total(n, "buffers_free", shard="1") > 0
    assert 0 <= total(n, "tls_ticket_key_age_seconds") < 12 * 3600
    assert [k for k in n if re.fullmatch(r'pemberley_build_info\{version="[^"]+",commit="[0-9a-z]+"\}', k)]
    deadline = time.monotonic() + 20
    while total(n, "process_open_fds", process="shard") == 0:
        assert time.monotonic() < deadline, "descriptors are not counted"
        time.sleep(0.2)
        n = numbers(server)
    assert total(n, "process_open_fds", process="supervisor") > 10
    c.close()


def test_who_is_refused_is_counted_by_the_bound():
    import pemb
    server = pemb.Server(shards=1, settings=("limits.connections_max=1",))
    server.add_user("u0@localhost")
    c = Client(server, "u0@localhost/r").login()
    with socket.create_connection(("127.0.0.1", server.port)) as s:
        assert s.recv(100) == b""
    n = numbers(server)
    assert total(n, "connections_refused_total", listener="c2s", reason="connections_max") == 1
    assert total(n, "connections_refused_total") == 1
    c.close()
    server.stop()


def test_gauges_come_back_to_zero(server):
    n = numbers(server)
    people = [Client(server, f"u{i}@localhost/r").login(presence=True, sm=i % 2) for i in (8, 9, 10, 11)]
    for p in people:
        p.answer_acks = False
        for o in people:
            p.message(o.jid, "x" * 3000)
    for p in people:
        p.ping()
    busy = numbers(server)
    assert total(busy, "sessions", state="connected") == 4 and total(busy, "users_online") == 4
    assert total(busy, "unacked_stanzas") >= 2 and total(busy, "unacked_bytes") > 6000
    people[0].drop(), people[1].close(), people[2].close(), people[3].close()
    deadline = time.monotonic() + 10
    while any(total(n := numbers(server), g) for g in GAUGES) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(total(n, g) for g in GAUGES), {g: total(n, g) for g in GAUGES if total(n, g)}


def test_memory_by_what_it_is_for():
    def until(what, holds):
        deadline = time.monotonic() + 10
        while not holds(now := pools()):
            assert time.monotonic() < deadline, (what, before, now)
            time.sleep(0.05)

    def pools():
        n = numbers(server)
        return {p: total(n, "memory_bytes", pool=p) for p in
                "conn session queue user copy channel seen mark buf".split()}

    import pemb
    server = pemb.Server(shards=2)
    server.add_user("u7@localhost")
    before = pools()
    c = Client(server, "u7@localhost/r").login(presence=True, sm=True)
    c.answer_acks = False
    c.iq("set", f"<query xmlns='jabber:iq:roster'><item jid='a@b' name='{'x' * 1000}'/></query>")
    c.message(c.jid, "x" * 3000)
    c.send("<message><body>" + "y" * 2000)
    until("what has come is held", lambda n: n["buf"] > before["buf"] + 2000)
    until("it is for", lambda n: n["conn"] > before["conn"] and n["session"] > before["session"]
          and n["queue"] > before["queue"] + 3000 and n["user"] > before["user"] + 1000)
    c.drop()
    until("a copy has its queue", lambda n: n["copy"] > before["copy"] + 3000)
    until("the connection's goes with it", lambda n: n["conn"] == before["conn"]
          and n["buf"] == before["buf"])
    d, answer = resume(server, c)
    assert answer.tag == q("sm:resumed")
    d.close()
    until("all goes", lambda n: all(n[p] == before[p] for p in ("conn", "session", "queue", "copy")))
    server.stop()


def test_one_who_does_not_read_is_not_read_until_he_goes(server):
    c = Client(server, "u0@localhost/r").login()
    c.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    ping = "<iq type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>" * 500
    deadline = time.monotonic() + 20
    while not (total(n := numbers(server), "reads_paused") and total(n, "output_queue_bytes")):
        assert time.monotonic() < deadline, "it is read for ever"
        c.sock.settimeout(0.5)
        try:
            c.send(ping)
        except (TimeoutError, OSError):
            pass
    c.drop()
    while any(total(n := numbers(server), g) for g in GAUGES) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(total(n, g) for g in GAUGES), {g: total(n, g) for g in GAUGES if total(n, g)}


def test_a_killed_shard_takes_its_gauges_along_and_leaves_its_counters(server):
    c = Client(server, "u0@localhost/r").login(presence=True)
    before = numbers(server)
    for i in (0, 1):
        server.kill_process("shard", i)
    after = numbers(server)
    assert total(after, "sessions") == 0 and total(after, "connections") == 0
    for name, value in before.items():
        if re.search(r"_(total|count|sum|bucket)\b", name):
            assert after[name] >= value, name
    c.sock.close()


def test_stages_of_a_stanzas_way_are_timed(server):
    a, b = (Client(server, f"u{i}@localhost/r").login(presence=True) for i in (0, 1))
    w = Watch(server)
    for i in range(2000):
        a.message(b.jid, f"m{i}")
        if i % 50 == 49:
            b.expect_body(f"m{i}")
            b.backlog.clear()
    for stage in ("edge_in", "home_from", "bus", "home_to", "edge_out"):
        grew = w.grew("stage_seconds_count", stage=stage)
        assert 5 < grew < 400, f"{stage}: {grew} of 2000"
        assert w.grew("stage_seconds_sum", stage=stage) < 20
    assert w.grew("stage_seconds_count", stage="bus") > 2 * w.grew("stage_seconds_count", stage="home_to")
    a.close(), b.close()


def test_what_a_tenant_uses(server):
    w = Watch(server)
    a = Client(server, "u5@localhost/r").login()
    d = Client(server, "u5@localhost", password="wrong-password")
    d.open(), d.starttls(), d.auth()
    d.sock.close()
    assert total(numbers(server), "host_sessions", host="localhost") == 1
    assert total(numbers(server), "host_users", host="localhost") == 1
    a.message(a.jid, "hello")
    a.expect_body("hello")
    w.expect(1, "host_stanzas_total", host="localhost", kind="message", direction="in")
    w.expect(1, "host_stanzas_total", host="localhost", kind="message", direction="out")
    w.expect(1, "host_login_failures_total", host="localhost")
    assert w.grew("host_bytes_total", host="localhost", direction="out") > 50
    for family in ("host_stanzas_total", "host_bytes_total", "host_login_failures_total"):
        w.expect(0, family, host="example.org")
        w.expect(0, family, host="other")
    a.close()


def test_a_hosts_bounds_are_counted_and_further_hosts_are_other():
    import pemb
    hosts = ("a.example", "b.example", "c.example")
    server = pemb.Server(shards=1, hosts=hosts, host_options="offline_max = 1 users_max = 1",
                         settings=("metrics.hosts_max=2",))
    for h in hosts:
        server.add_user(f"u@{h}")
        assert "users_max" in server.cli("user", "add", "--stdin", f"v@{h}", stdin="secret-password\n",
                                         check=False).stderr
    n = numbers(server)
    labels = set(re.findall(r'pemberley_host_sessions\{host="([^"]+)"\}', "\n".join(n)))
    assert labels == {"other", "a.example", "b.example"}, labels
    assert total(n, "host_quota_hits_total", host="a.example", quota="users") == 1
    assert total(n, "host_quota_hits_total", host="other", quota="users") == 1
    c = Client(server, "u@b.example/r").login()
    for i in range(2):
        c.message("u@c.example", f"m{i}")
    c.expect(lambda e: e.tag == q("c:message") and e.get("type") == "error")
    n = numbers(server)
    assert total(n, "host_quota_hits_total", host="other", quota="offline") == 1
    assert total(n, "offline_messages_total", fate="full") == 1
    text = server.conf.read_text()
    server.conf.write_text(text.replace('host "a.example"', 'host "0.example"'))
    server.cli("reload")
    labels = set(re.findall(r'pemberley_host_sessions\{host="([^"]+)"\}', "\n".join(numbers(server))))
    assert labels == {"other", "a.example", "b.example"}, "a place is never given to another host"
    c.close()
    server.stop()
