"""`pemberley drain`: unready at once, closed after the grace, sessions let go at a rate and resumable,
called off or timed out (operator.md 3, 8)."""

import contextlib
import http.client
import json
import re
import socket
import subprocess
import time

import pemb
from pemb import BIN, Client, Closed, NS, StreamError, q, resume

SETTINGS = ("auth.scram_iterations=4096", "limits.sessions_per_user_max=1000",
            "limits.close_timeout=200ms")
USERS = ("alice@localhost", "bob@localhost")


def set_grace(server, grace):
    text = re.sub(r"shards = 2( drain_grace = \w+)?", f"shards = 2 drain_grace = {grace}",
                  server.conf.read_text())
    server.conf.write_text(text)
    server.cli("reload")


def get(server, path):
    c = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=10)
    c.request("GET", path)
    r = c.getresponse()
    return r.status, r.read().decode()


def metric(server, name):
    return float(re.search(rf"^pemberley_{name} (\S+)$", get(server, "/metrics")[1], re.M).group(1))


def drain(server, *args):
    return subprocess.Popen([BIN / "pemberley", "--config", server.conf, "drain", *args],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=server.env)


def many(server, n):
    return [Client(server, f"alice@localhost/{i}").login() for i in range(n)]


def is_refused(server):
    try:
        socket.create_connection(("127.0.0.1", server.port), timeout=5).close()
        return False
    except ConnectionRefusedError:
        return True


def was_let_go(c):
    """Looks at what has come, without waiting longer than it takes."""
    try:
        c.ping()
        return False
    except StreamError as e:
        assert e.condition == "system-shutdown"
        return True
    except (Closed, OSError):
        return True


@contextlib.contextmanager
def undone(server):
    try:
        yield
    finally:
        server.cli("drain", "--cancel", check=False)


def test_200_sessions_at_a_rate_and_back_again(server):
    set_grace(server, "0s")
    clients = many(server, 199)
    b = Client(server, "bob@localhost/phone").login(presence=True, sm=True)
    started = time.monotonic()
    cli = drain(server, "--rate", "100/s")
    assert "sessions=200" in server.wait_log("event=node_draining")
    status, body = get(server, "/readyz")
    assert status == 503 and re.search(r"^\[-\]draining \d+%$", body, re.M), body
    assert metric(server, "node_draining") == 1 and metric(server, "node_ready") == 0
    assert re.search(r"   DRAINING \d+ %   ", server.cli("status").stdout.splitlines()[0])
    assert re.search(r'class="state draining">draining \d+ %<', get(server, "/")[1])
    b.stream_error("system-shutdown")
    out, err = cli.communicate(timeout=20)
    assert 1.7 < time.monotonic() - started < 10
    assert cli.returncode == 0, err
    lines = out.splitlines()
    assert len(lines) >= 3 and lines[-1].startswith("drained: 200 sessions in "), out
    assert all(re.fullmatch(r"draining: \d+ of 200 sessions left, \d+ %, (about|accepting for) \d+ s "
                            r"(left|more)", l) for l in lines[:-1]), out
    for c in clients[::20]:
        c.stream_error("system-shutdown")
    line = server.wait_log("event=node_drained")
    assert "sessions=200" in line and "left=0" in line, line
    assert is_refused(server) and get(server, "/readyz")[0] == 503
    assert drain(server).wait(10) == 0 # is empty already
    assert server.cli("drain", "--cancel").stdout == "the node serves again\n"
    assert get(server, "/readyz")[0] == 200 and metric(server, "node_draining") == 0
    c = Client(server, "alice@localhost/after").login()
    c.message("bob@localhost/phone", "while you were away")
    again, answer = resume(server, b)
    assert answer.tag == q("sm:resumed")
    again.expect_body("while you were away")
    again.close(), c.close()


def test_during_the_grace_balancers_are_told_and_clients_get_in(server):
    with undone(server):
        set_grace(server, "2s")
        cli = drain(server)
        server.wait_log("event=node_draining")
        assert get(server, "/readyz")[0] == 503
        c = Client(server, "alice@localhost/late").login()
        c.ping()
        c.stream_error("system-shutdown") # when the grace is over
        out, err = cli.communicate(timeout=20)
        assert cli.returncode == 0 and "accepting for" in out, (out, err)
        assert out.splitlines()[-1].startswith("drained: 1 sessions in "), out
        assert is_refused(server)


def test_called_off_half_way_the_rest_stays(server):
    set_grace(server, "0s")
    clients = many(server, 60)
    cli = drain(server, "--rate", "20/s", "--timeout", "5m")
    server.wait_log("event=node_draining")
    clients[15].stream_error("system-shutdown")
    server.cli("drain", "--cancel")
    out, err = cli.communicate(timeout=10)
    assert cli.returncode == 1 and "cancelled" in err, (out, err)
    gone = [was_let_go(c) for c in clients]
    assert gone[0] and gone[15] and 2 <= sum(gone) < 50, gone # each shard its oldest first
    new = Client(server, "bob@localhost/new").login()
    new.ping()
    assert server.cli("drain", "--cancel", check=False).returncode == 1
    for c in [new] + [c for c, g in zip(clients, gone) if not g]:
        c.close()


def test_when_the_time_is_over_the_rest_goes_at_once(server):
    with undone(server):
        set_grace(server, "0s")
        clients = many(server, 40)
        cli = drain(server, "--rate", "1/s", "--timeout", "1s")
        out, err = cli.communicate(timeout=20)
        assert cli.returncode == 7 and re.search(r"(3\d|40) of 40 sessions were let go at once", err), err
        line = server.wait_log("event=node_drained")
        assert re.search(r"sessions=40 ms=\d+ left=(3\d|40)", line), line
        for c in clients:
            c.stream_error("system-shutdown")


def test_a_second_drain_changes_the_rate_of_the_first(server):
    with undone(server):
        set_grace(server, "0s")
        clients = many(server, 30)
        slow = drain(server, "--rate", "1/m")
        server.wait_log("event=node_draining")
        fast = drain(server, "--rate", "auto")
        assert fast.wait(20) == 0 and slow.wait(20) == 0
        assert all(map(was_let_go, clients))


def test_a_killed_shard_does_not_listen_while_the_node_drains(server):
    set_grace(server, "0s")
    assert drain(server).wait(10) == 0
    server.kill_process("shard", 0)
    server.cli("user", "list", "localhost") # answered: a shard is up
    assert is_refused(server)
    server.cli("drain", "--cancel")
    for i in range(8): # both shards accept
        Client(server, f"bob@localhost/{i}").login().close()


def test_what_is_no_rate_or_time_is_said(server):
    for args in (("--rate", "5"), ("--rate", "0/s"), ("--timeout", "1ms"), ("--timeout", "5")):
        r = server.cli("drain", *args, check=False)
        assert r.returncode == 2, (args, r.returncode, r.stderr)
    assert "a rate is N/s" in server.cli("drain", "--rate", "5", check=False).stderr
    assert get(server, "/readyz")[0] == 200


def test_a_stop_ends_a_drain():
    server = pemb.Server(settings=SETTINGS + ("node.drain_grace=1m",))
    server.add_user("alice@localhost")
    c = Client(server, "alice@localhost/x").login()
    cli = drain(server)
    server.wait_log("event=node_draining")
    server.cli("stop")
    c.stream_error("system-shutdown")
    assert cli.wait(10) == 1 and "being stopped" in cli.stderr.read()
    assert server.process.wait(10) == 0
