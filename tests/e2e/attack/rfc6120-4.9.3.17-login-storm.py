"""Login storms (RFC 6120 4.9.3.17, 6.5.10): three thousand clients at once get in, messages between
people who are there already come in time, store and database are asked no more than they need to be; and
who cannot be served is told when to come back. That handshakes have no more than their share of a turn,
tests/unit/edge/admit.c knows exactly."""

import json
import os
import re
import signal
import sqlite3
import subprocess
import time

import pemb
import postgres
from pemb import BIN, Client, NS, StreamError, TIMEOUT

STORM, TALKING = 3000, 50
PASSWORD = "secret-password"
SETTINGS = ("auth.scram_iterations=4096",)
HOSTS = ("localhost",)
LATE_S = "1"  # a bucket of delivery_seconds; on two cores that clients, sanitizers and other tests share


def copy_accounts(server):
    """The others as copies of the first one's row: deriving a key for each would take longer."""
    server.add_user("load0@localhost", PASSWORD)
    store = sqlite3.connect(server.dir / "data/store.sqlite", timeout=30)
    with store:
        store.executemany(
            "INSERT INTO account (jid, host, keys, created_us) SELECT ?, host, keys, created_us"
            " FROM account WHERE jid = 'load0@localhost'",
            [(f"load{i}@localhost",) for i in range(1, STORM)]
            + [(f"talk{i}@localhost",) for i in range(2 * TALKING)])
    store.close()


def load(server, port, security, *words):
    """Runs beside the server, and yields to it: it stands for machines elsewhere."""
    command = ["nice", "-n", "10", BIN / "pemberley-load", "--json", "--port", port, "--security",
               security, "--password", PASSWORD, "--pids", server.pid_of("shard"), *words]
    return subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE, text=True,
                            env=server.env)


def result(process, timeout):
    out, _ = process.communicate(timeout=timeout)
    assert process.returncode == 0, f"{process.args}: {process.returncode}: {out}"
    return json.loads(out)


def count(server, family, **labels):
    """The sum of all series with these labels."""
    total = 0
    for line in server.get("/metrics").splitlines():
        m = re.match(rf"pemberley_{family}(?:\{{(.*)\}})? (\d+)$", line)
        if m and all(f'{k}="{v}"' in (m.group(1) or "") for k, v in labels.items()):
            total += int(m.group(2))
    return total


def test_a_storm_gets_in_and_nobody_who_is_there_waits_for_it(server):
    copy_accounts(server)
    talk = load(server, server.port, "plain", "--prefix", "talk", "--rate", 200, "--seconds", 20,
                "rate", TALKING)
    server.wait_log(f"event=session_started .*talk{2 * TALKING - 1}@", timeout=30)
    before = count(server, "logins_total")
    storm = result(load(server, server.tls_port, "tls", "--timeout", 100, "storm", STORM), 110)
    assert storm["sessions"] == STORM and storm["errors"] == {}, storm
    logins = count(server, "logins_total") - before
    assert logins == 2 * STORM, (logins, storm) # at first, and in the storm
    talk = result(talk, 60)
    assert all(talk[fault] == 0 for fault in ("lost", "duplicated", "reordered", "damaged")), talk
    messages, in_time = count(server, "delivery_seconds_count"), \
        count(server, "delivery_seconds_bucket", le=LATE_S)
    assert talk["messages"] > 0 and in_time > 0.999 * messages, (in_time, messages)
    assert count(server, "limits_hit_total", limit="logins_concurrent") > 0, "nothing was held back"
    assert count(server, "logins_waiting") == 0
    asked = count(server, "store_requests_total", op="account_get") \
        + count(server, "store_requests_total", op="user_load")
    assert asked <= 2 * count(server, "logins_total"), asked


def until(holds):
    deadline = time.monotonic() + TIMEOUT
    while not holds():
        assert time.monotonic() < deadline, "it does not come"


def test_the_database_sees_no_more_than_its_connections():
    """Each of the storm's requests goes over one of the two, several in one round trip."""
    cluster = postgres.Cluster(settings=("fsync=off", "max_connections=20"))
    server = pemb.Server(hosts=HOSTS, settings=(
        *SETTINGS, "limits.sessions_per_user_max=1000", *pemb.on_postgres(cluster)))
    server.add_user("load0@localhost", PASSWORD)
    until(lambda: count(server, "store_connections") == 2)
    storm = load(server, server.port, "plain", "--users", 1, "login", 300)
    seen = set()
    while storm.poll() is None:
        seen.add(int(cluster.sql("SELECT count(*) FROM pg_stat_activity WHERE datname = 'node1'"
                                 " AND pid <> pg_backend_pid()")))
    assert result(storm, 10)["count"] == 300
    assert seen and max(seen) <= 2, seen
    assert count(server, "store_requests_total", op="account_get", result="ok") >= 300
    server.stop()
    cluster.end()


def begin(server):
    c = Client(server, "load0@localhost")
    c.open()
    c.starttls()
    c.send(f"<auth xmlns='{NS['sasl']}' mechanism='SCRAM-SHA-256'>biwsbj1sb2FkMCxyPWFiY2RlZg==</auth>")
    return c


def seconds_told(error):
    text = error.find("{urn:ietf:params:xml:ns:xmpp-streams}text").text
    return int(re.fullmatch(r"too many logins at once; try again in (\d+) seconds", text).group(1))


def test_who_cannot_be_served_is_told_when_to_come_back():
    server = pemb.Server(hosts=HOSTS, shards=1, settings=(
        "limits.logins_concurrent=1", "limits.logins_queue_max=1", "limits.login_wait_max=2s",
        "store.timeout=60s"))
    server.add_user("load0@localhost", PASSWORD)
    os.kill(server.pid_of("store"), signal.SIGSTOP)
    try:
        first, second = begin(server), begin(server)
        until(lambda: count(server, "logins_waiting") == 1)
        try:
            Client(server, "load0@localhost").open()
            raise AssertionError("there was no room for a third")
        except StreamError as e:
            assert e.condition == "resource-constraint" and 2 <= seconds_told(e.element) <= 4
        assert second.expect("sasl:failure")[0].tag.endswith("}temporary-auth-failure")
        assert 2 <= seconds_told(second.stream_error("resource-constraint")) <= 4
    finally:
        os.kill(server.pid_of("store"), signal.SIGCONT)
    first.expect("sasl:challenge")
    assert Client(server, "load0@localhost").login().jid, "who comes back gets in"
    server.wait_log("event=limit_hit .*limit=logins_queue_max")
    for reason, limit in (("queue_full", "logins_queue_max"), ("waited", "login_wait_max")):
        assert count(server, "logins_deferred_total", reason=reason) == 1
        assert count(server, "limits_hit_total", limit=limit) == 1
    server.stop()
