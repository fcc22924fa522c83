"""/metrics, /livez, /readyz, /status.json (operator.md 5, 8): what they say, and that bad requests are
answered and never stop the supervisor."""

import http.client
import json
import re
import signal
import socket

from pemb import Client

USERS = ("alice@localhost",)


def get(server, path, method="GET", headers={}):
    c = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=10)
    c.request(method, path, headers=headers)
    r = c.getresponse()
    return r.status, r.getheader("Content-Type"), r.read().decode()


def samples(text):
    out = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            assert re.fullmatch(r'[a-z0-9_]+(\{[a-z_]+="[^"\\]*"(,[a-z_]+="[^"\\]*")*\})?', name), line
            assert name not in out, f"{name} twice"
            out[name] = float(value)
    return out


def total(numbers, family, *labels):
    """The sum over all series of a family that carry these labels."""
    return sum(v for k, v in numbers.items()
               if k.split("{")[0] == "pemberley_" + family and all(l in k for l in labels))


def test_health(server):
    status, kind, body = get(server, "/livez")
    assert status == 200 and kind.startswith("text/plain")
    status, _, body = get(server, "/readyz")
    assert status == 200 and "ready" in body and "[+]shards 2/2" in body and "[+]store" in body, body
    assert json.loads(get(server, "/readyz?json")[2])["ready"] is True
    assert get(server, "/readyz", "HEAD")[2] == ""
    assert json.loads(get(server, "/status.json")[2])["state"] == "ready"


def test_metrics_in_both_formats(server):
    status, kind, text = get(server, "/metrics")
    assert status == 200 and kind.startswith("text/plain; version=0.0.4")
    before = samples(text)
    c = Client(server, "alice@localhost/1").login(presence=True)
    c.ping()
    after = samples(get(server, "/metrics")[2])
    assert total(after, "logins_total") == total(before, "logins_total") + 1
    assert after['pemberley_stanzas_received_total{kind="iq",listener="c2s"}'] >= 2
    connected = [v for k, v in after.items() if k.startswith("pemberley_sessions{") and "connected" in k]
    assert sum(connected) == 1 and len(connected) == 2
    families = [l.split()[2] for l in text.splitlines() if l.startswith("# TYPE")]
    assert len(families) == len(set(families))
    for line in text.splitlines():
        if line.startswith("# TYPE") and line.endswith(" counter"):
            assert line.split()[2].endswith("_total"), line
    status, kind, text = get(server, "/metrics", headers={"Accept": "application/openmetrics-text"})
    assert kind.startswith("application/openmetrics-text") and text.endswith("# EOF\n")
    assert "# TYPE pemberley_logins counter" in text
    c.close()


def test_counters_survive_the_death_of_their_writer(server):
    c = Client(server, "alice@localhost/1").login(presence=True)
    for i in range(20):
        c.ping()
    c.close()
    before = samples(get(server, "/metrics")[2])
    server.kill_process("shard", 0)
    server.kill_process("shard", 1)
    Client(server, "alice@localhost/1").login(presence=True).close()
    after = samples(get(server, "/metrics")[2])
    for name, value in before.items():
        if "_total" in name or name.endswith("_count"):
            assert after[name] >= value, name
    assert after['pemberley_process_restarts_total{process="shard",index="0",reason="kill"}'] >= 1


def test_bad_requests_are_answered(server):
    for data, status in ((b"hello\r\n\r\n", b"400"), (b"GET /nothing HTTP/1.1\r\n\r\n", b"404"),
                         (b"POST /metrics HTTP/1.1\r\nContent-Length: 0\r\n\r\n", b"405"),
                         (b"GET /livez HTTP/1.1\r\nX: " + b"y" * 9000 + b"\r\n\r\n", b"431"),
                         (b"GET /" + b"a" * 300 + b" HTTP/1.1\r\n\r\n", b"400"),
                         (b"\0" * 100, b"400"), (b"\x16\x03\x01\x02\x00", b"400")):
        with socket.create_connection(("127.0.0.1", server.http_port), timeout=10) as s:
            s.sendall(data)
            answer = b""
            try:
                while chunk := s.recv(4096):
                    answer += chunk
            except ConnectionResetError:
                pass
            assert answer.startswith(b"HTTP/1.1 " + status), (data[:20], answer[:40])
    assert get(server, "/livez")[0] == 200


def test_more_connections_than_there_is_room_for(server):
    idle = [socket.create_connection(("127.0.0.1", server.http_port), timeout=10) for _ in range(64)]
    for s in idle:
        s.close()
    assert get(server, "/livez")[0] == 200


def test_not_from_everywhere():
    import pemb
    server = pemb.Server(settings=("listen.metrics.allow_from={10.0.0.0/8}",))
    assert get(server, "/metrics")[0] == 403
    server.stop()


def test_no_more_than_6000_series_with_sixteen_shards():
    import pemb
    server = pemb.Server(shards=16)
    assert len(samples(get(server, "/metrics")[2])) <= 6000
    server.stop()


def test_the_status_page_stands_alone_and_names_nobody(server):
    c = Client(server, "alice@localhost/1").login(presence=True)
    status, kind, text = get(server, "/")
    assert status == 200 and kind.startswith("text/html")
    for word in ("<!doctype html>", "ready</span>", "sessions</span>", "delivery p99", "<b>Store</b>",
                 "Attention", "/status.json", "prefers-color-scheme: dark", "<noscript>"):
        assert word in text, word
    assert text.count('<td data-name="shard">') == 2
    assert not re.search(r"(src|href)=[\"'](https?:)?//|@import|url\(", text), "a resource from elsewhere"
    assert "alice" not in text and "127.0.0" not in text
    live = get(server, "/?live")[2]
    assert live.startswith("<header>") and "<script" not in live and live.count("<tr>") == 3
    c.close()


def test_the_status_page_says_what_needs_a_look(server):
    assert "nothing" in get(server, "/?live")[2]
    right = server.conf.read_text()
    server.conf.write_text(right + "\nnonsense = 1\n")
    server.process.send_signal(signal.SIGHUP)
    server.wait_log("event=config_rejected")
    text = get(server, "/?live")[2]
    assert "the last reload was refused" in text and re.search("config_rejected</b> problem=", text)
    assert samples(get(server, "/metrics")[2])["pemberley_config_last_reload_successful"] == 0
    server.conf.write_text(right)
    server.cli("reload")
    assert "nothing" in get(server, "/?live")[2]
    assert samples(get(server, "/metrics")[2])["pemberley_config_last_reload_successful"] == 1


def test_a_shards_warnings_are_on_the_page_also_when_it_has_died():
    import pemb
    server = pemb.Server(shards=1, settings=("limits.unacked_max=16",))
    server.add_user("alice@localhost")
    c = Client(server, "alice@localhost/1").login(presence=True, sm=True)
    c.answer_acks = False
    for i in range(30):
        c.message("alice@localhost/1", f"to myself {i}")
    server.wait_log("event=queue_overflow .*jid=alice")
    for _ in range(2):
        text = get(server, "/?live")[2]
        assert re.search(r"shard 0</span> <b class=\"warn\">queue_overflow</b> bytes=\d+ fate=", text), text
        assert "alice" not in text and "127.0.0." not in text
        metrics = samples(get(server, "/metrics")[2])
        assert metrics['pemberley_log_events_total{level="warn"}'] >= 1
        server.kill_process("shard", 0)
    text = get(server, "/?live")[2]
    assert text.index("process_died") < text.index("queue_overflow"), "the newest first"
    server.stop()
