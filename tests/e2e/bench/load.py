"""pemberley-load against a node: every scenario, small. What its figures are worth is the bench's
business; here they must be there, the counts exact, and nothing lost, doubled, reordered or damaged."""

import json
import sqlite3
import subprocess

import pemb

ACCOUNTS = 120
PASSWORD = "secret-password"
# What is archived costs writes that these scenarios do not count.
SETTINGS = ("auth.scram_iterations=4096", "modules.off={archive}")
HOSTS = ("localhost",)
FAULTS = ("lost", "duplicated", "reordered", "damaged")


def make_accounts(server):
    """One by its name, the others as copies of its row: deriving a key each takes longer than the
    tests."""
    if getattr(server, "has_accounts", False):
        return
    server.has_accounts = True
    server.add_user("load0@localhost", PASSWORD)
    store = sqlite3.connect(server.dir / "data/store.sqlite", timeout=30)
    with store:
        store.executemany(
            "INSERT INTO account (jid, host, keys, created_us) SELECT ?, host, keys, created_us"
            " FROM account WHERE jid = 'load0@localhost'",
            [(f"load{i}@localhost",) for i in range(1, ACCOUNTS)]
            + [(f"friend{i}@localhost",) for i in range(ACCOUNTS)])
    store.close()


def start(server, security, *words, port=None):
    port = port or (server.tls_port if security == "tls" else server.port)
    pids = ",".join(str(server.pid_of("shard", i)) for i in range(2))
    command = [pemb.BIN / "pemberley-load", "--json", "--port", port, "--security", security,
               "--password", PASSWORD, "--pids", pids, "--seconds", 1, *words]
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=100,
                          env=server.env)


def load(server, security, *words):
    make_accounts(server)
    r = start(server, security, *words)
    assert r.returncode == 0, f"{words}: {r.returncode}: {r.stdout} {r.stderr}"
    result = json.loads(r.stdout)
    assert all(result[f] == 0 for f in FAULTS), result
    assert result["errors"] == {} and "stale" not in result, result
    return result


def check_latency(result, prefix="latency"):
    values = [result[f"{prefix}_{p}_us"] for p in ("p50", "p99", "p999", "max")]
    assert values == sorted(values) and values[3] > 0, result


def test_login_from_two_processes(server):
    result = load(server, "tls", "--processes", 2, "login", 50)
    assert result["count"] == 50 and result["processes"] == 2, result
    assert result["logins_per_s"] > 0 and result["server_cpu_us"] > 0, result
    check_latency(result, "login")


def test_login_with_each_mechanism(server):
    for mechanism in ("SCRAM-SHA-1", "SCRAM-SHA-256"):
        load(server, "starttls", "--mechanism", mechanism, "login", 5)


def test_idle_reads_memory(server):
    result = load(server, "plain", "--baseline", 10, "idle", 40)
    assert result["baseline_bytes"] > 0 and "private_per_session" in result, result


def test_message(server):
    result = load(server, "tls", "--sm", "--processes", 2, "message", 10)
    assert result["messages"] > 10 and result["security"] == "tls+sm", result
    check_latency(result)


def test_rate_holds_its_rate(server):
    result = load(server, "plain", "--rate", 500, "rate", 10)
    assert 100 < result["messages"] < 1500, result  # on a busy machine too
    check_latency(result)


def test_ping(server):
    result = load(server, "plain", "--window", 2, "ping", 5)
    assert result["pings"] > 5, result
    check_latency(result)


def test_presence_makes_its_rosters_and_finds_them_again(server):
    words = ("--prefix", "friend", "--roster", 4, "presence", 5)
    make_accounts(server)
    r = start(server, "plain", *words)
    assert r.returncode == 1 and "--prepare" in r.stderr, r
    for more in ("--prepare", "--burst=8"):
        result = load(server, "plain", more, *words)
        assert result["deliveries"] > result["echoes"] > 0, result
        check_latency(result)


def test_offline_messages_come_whole_and_in_order(server):
    result = load(server, "plain", "--messages", 7, "--processes", 2, "offline", 12)
    assert result["messages"] == 12 * 7, result
    check_latency(result, "taken")


def test_resume_resumes_all(server):
    result = load(server, "tls", "--tickets", "resume", 10)
    assert result["sessions"] == result["resumed"] == result["tls_resumed"] == 20, result
    assert result["back_50_us"] <= result["back_100_us"] and result["messages"] > 10, result


def test_storm_brings_all_back(server):
    result = load(server, "starttls", "--jitter", 200, "storm", 40)
    assert result["sessions"] == 40 and result["retries"] == 0, result


def check_slow(result):
    assert result["stalled"] == 2, result
    assert result["senders_closed"] == result["stalled_closed"] == 0, result
    assert result["stalled_missing"] == 0, result
    check_latency(result, "healthy")
    check_latency(result)


def test_slow_readers_get_all_when_they_read_again(server):
    check_slow(load(server, "plain", "--stalled", 2, "--messages", 3000, "slow", 10))


def test_who_writes_more_to_a_stalled_reader_than_a_window_holds_waits_in_its_socket(server):
    """Six megabytes each: the server takes them from the socket no faster than the reader reads."""
    for security in ("plain", "tls"):
        check_slow(load(server, security, "--stalled", 2, "slow", 20))


def test_a_server_that_is_not_there_is_an_error(server):
    port = pemb.free_ports(1)[0]
    r = start(server, "plain", "login", 3, port=port)
    assert r.returncode == 1 and not r.stdout and "refused" in r.stderr, r


def test_a_wrong_password_is_an_error(server):
    make_accounts(server)
    r = start(server, "plain", "--password", "wrong", "login", 3)
    assert r.returncode == 1 and not r.stdout and "not-authorized" in r.stderr, r
