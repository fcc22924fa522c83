"""PostgreSQL dies under load (delivery.md 6: requests wait, and go again under the same keys)."""

import signal
import time

import pemb
import postgres
from pemb import Client, q

N = 60


def value(server, name):
    lines = [x for x in server.get("/metrics").splitlines() if x.startswith("pemberley_" + name)]
    assert len(lines) == 1, lines
    return float(lines[0].split()[-1])


def eventually(server, name, want):
    deadline = time.monotonic() + pemb.TIMEOUT
    while value(server, name) != want:
        assert time.monotonic() < deadline, f"{name} is not {want}"
        time.sleep(0.05)  # the next look


def test_kill_of_postgres_under_load_loses_and_doubles_nothing():
    cluster = postgres.Cluster()
    server = pemb.Server(settings=[*pemb.on_postgres(cluster), "store.timeout=30s"])
    for name in ("a", "b", "off"):
        server.add_user(f"{name}@localhost")
    a = Client(server, "a@localhost/x").login(sm=True, presence=True)
    b = Client(server, "b@localhost/x").login(presence=True)
    eventually(server, "store_connections", 2)
    assert value(server, "store_up") == 1
    for i in range(N):
        if i == N // 3:
            cluster.stop(signal.SIGKILL)
        if i == 2 * N // 3:  # its children live a little longer, and commit
            server.wait_log("event=store_lost .*backend=postgres")
        a.message("off@localhost", f"m{i}")
    a.message(b.jid, "between people online it goes on")
    b.expect_body("between people online it goes on")
    assert a.acked() < N, "acknowledged, and cannot have been stored"
    cluster.start()
    server.wait_log("event=store_back .*backend=postgres", timeout=20)
    a.wait_acked(N + 2, timeout=20)  # and the presence, and the one to b
    off = Client(server, "off@localhost/x").login(presence=True)
    got = [off.expect("c:message").findtext("{jabber:client}body") for _ in range(N)]
    assert got == [f"m{i}" for i in range(N)], got
    off.ping()
    assert not off.take(lambda e: e.tag == q("c:message"))
    for c in (a, b, off):
        c.close()
    server.stop()
    cluster.end()


def test_while_postgres_is_away_the_node_says_so_and_stays_ready():
    cluster = postgres.Cluster()
    server = pemb.Server(settings=pemb.on_postgres(cluster))
    assert '"loop":"postgres"' in server.cli("--json", "status").stdout
    cluster.stop(signal.SIGQUIT)
    server.wait_log("event=store_lost")
    eventually(server, "store_up", 0)
    assert value(server, "node_degraded") == 1
    assert server.get("/readyz").startswith("ready")
    cluster.start()
    server.wait_log("event=store_back", timeout=20)
    eventually(server, "store_up", 1)
    server.add_user("a@localhost")
    server.stop()
    cluster.end()
