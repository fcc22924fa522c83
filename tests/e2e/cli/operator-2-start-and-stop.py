"""Starting, failing to start, and stopping (operator.md 1-3): messages with file and line, exit codes,
two nodes that want the same, and nothing lost over a stop."""

import os
import socket
import subprocess

import pemb
from pemb import BIN, Client, NS, befriend, q

QUICK = "limits.close_timeout=200ms"


def check(tmp, text, *args, conf_d=None, env=None):
    """check-config of text: (exit, stdout, stderr)."""
    file = tmp / "check.conf"
    file.write_text(text)
    for name, more in (conf_d or {}).items():
        (tmp / "conf.d").mkdir(exist_ok=True)
        (tmp / "conf.d" / name).write_text(more)
    r = subprocess.run([BIN / "pemberley", "--config", file, "check-config", *args],
                       capture_output=True, text=True, timeout=20,
                       env=dict(os.environ, ASAN_OPTIONS="detect_leaks=0", **(env or {})))
    for name in conf_d or {}:
        (tmp / "conf.d" / name).unlink()
    return r.returncode, r.stdout, r.stderr


HOST = 'host "localhost" { }\n'
WRONG = [
    # text, what the message has
    ("limits { ping_interval = 30 }\n", "check.conf:1: limits.ping_interval", "unit"),
    ("\n\nlimits {\n  c2s { stanza_max = 256 }\n}\n", "check.conf:4: limits.c2s.stanza_max", "256k"),
    ('host "example.com" {\n certifcate_file = x\n}\n', "check.conf:2:", "certificate_file"),
    ("limits { ping_interval = 2h }\n", "limits.ping_interval", "1h"),
    ("node { shards = 0 }\n", "node.shards", "1"),
    ("node { shards = many }\n", "node.shards", "auto"),
    ("log { level = loud }\n", "log.level", "debug"),
    ("listen { c2s { address = {localhost:http} } }\n", "listen.c2s.address", ""),
    ("listen { c2s { plain_from = {10.0.0.0/99} } }\n", "listen.c2s.plain_from", ""),
    ("auth { mechanisms = {SCRAM-MD5} }\n", "auth.mechanisms", "SCRAM-SHA-256"),
    ('host "example.com" { }\nhost "example.com" { }\n', "example.com", ""),
    ('host "not a host" { }\n', "not a host", ""),
    ("limits {\n", "check.conf", ""),
    ("limits }\n", "check.conf:1", ""),
    ("nonsense = 1\n", "nonsense", ""),
    ('host "a.org" { services = {"ftp:a.org"} }\n', "services", "turn:turn.example.org"),
    ('host "a.org" { services = {"turn:a.org?transport=sctp"} }\n', "services", "transport=udp"),
    ('host "a.org" { services = {"stun:a.org:99999"} }\n', "services", "not a service"),
    ('host "a.org" { contact_abuse = abuse }\n', "contact_abuse", "mailto:abuse@example.org"),
    ('node { name = "UPPER" }\n', "node.name", ""),
    ('node { data_dir = "${PEMBERLEY_TEST_UNSET}" }\n', "node.data_dir", "absolute"),
]


def test_mistakes_name_file_line_option_and_what_is_allowed(server):
    for text, where, what in WRONG:
        code, out, err = check(server.dir, text + HOST)
        assert code == 78 and where in err and what in err, (text, code, err)
        assert "error" in err.splitlines()[-1], err
    code, out, err = check(server.dir, "limits { ping_interval = 30 ping_timeout = 5 }\n"
                           "node { shards = 99 }\n" + HOST)
    assert code == 78 and err.count("check.conf:") == 3 and "3 errors" in err, err


CLUSTER = """node { name = a }
listen { bus { address = "10.0.0.1:5275" } }
registry { kind = redis  redis { servers = {"10.0.0.9:6379"} } }
store { kind = postgres  postgres { hosts = {"10.0.0.8"} } }
cluster { name = derby }
"""


def test_a_cluster_s_mistakes_say_what_to_do(server):
    assert check(server.dir, CLUSTER + HOST)[0] == 0
    code, out, err = check(server.dir, CLUSTER + HOST,
                           conf_d={"cluster.conf": "cluster {\n\n  lease = 2s\n}\n"})
    assert (code, err) == (
        78, "conf.d/cluster.conf:3: cluster.lease = 2s is shorter than 3 x cluster.heartbeat (1s): a late "
        "heartbeat would cost the node its users. Use 3s or more.\n1 error.\n"), err
    code, out, err = check(server.dir, HOST + "cluster { name = derby }\n")
    assert code == 78 and "3 errors" in err, err
    for needed in ("listen.bus.address", "registry.kind = redis", "store.kind = postgres"):
        assert f"check.conf:2: cluster.name = derby needs {needed}" in err, err
    code, out, err = check(server.dir, CLUSTER.replace("cluster { name = derby }\n", "") + HOST)
    assert code == 78 and "check.conf:2: listen.bus.address = 10.0.0.1:5275: cluster.name is empty" in err, err
    assert "check.conf:3: registry.kind = redis: cluster.name is empty" in err, err
    for address in ("0.0.0.0:5275", ":5275", "10.0.0.1", "10.0.0.1:65500"):
        code, out, err = check(server.dir, CLUSTER.replace("10.0.0.1:5275", address) + HOST)
        assert code == 78 and f"check.conf:2: listen.bus.address = {address}: " in err, err


def test_without_a_cluster_there_are_no_nodes_to_ask_about(server):
    for args in (("list",), ("ring",), ("show", "b"), ("drain", "b"), ("weight", "b", "5"),
                 ("remove", "b", "--yes")):
        r = server.cli("node", *args, check=False)
        assert r.returncode == 1 and "in no cluster" in r.stderr, (args, r)
    assert "cluster: none (single node)" in server.cli("status").stdout
    assert "cluster" not in server.get("/readyz")


def test_what_is_right_is_said_so(server):
    assert check(server.dir, HOST)[0] == 0
    assert check(server.dir, HOST, "--set", "limits.ping_interval=1m")[0] == 0
    code, out, err = check(server.dir, HOST, "--set", "limits.ping_interval=1x")
    assert code == 78 and "limits.ping_interval" in err
    code, out, err = check(server.dir, HOST, "--set", "limits.nothing=1")
    assert code == 78 and "limits.nothing" in err
    code, out, err = check(server.dir, HOST, "--set", "host[localhost].registration=open", "--print")
    assert code == 0 and "open" in out, (out, err)
    code, out, err = check(server.dir, HOST, conf_d={"x.conf": "limits { ping_interval = 7 }\n"})
    assert code == 78 and "x.conf:1: limits.ping_interval" in err, err
    code, out, err = check(server.dir, HOST + 'node { name = "${PEMBERLEY_TEST_NAME}" }\n', "--print",
                           env={"PEMBERLEY_TEST_NAME": "from-env"})
    assert code == 0 and "from-env" in out
    assert check(server.dir, pemb.ROOT.joinpath("ops/pemberley.conf").read_text())[0] == 0


def run_again(server, *args, config=None):
    return subprocess.run([BIN / "pemberley", "--config", config or server.conf, "run", *args],
                          capture_output=True, text=True, timeout=30,
                          env=dict(os.environ, ASAN_OPTIONS="detect_leaks=0"))


def test_a_second_start_on_the_same_data_says_who_is_there(server):
    r = run_again(server)
    assert r.returncode == 1, r.stderr
    assert "is in use by the node started" in r.stderr and f"(pid {server.process.pid})" in r.stderr
    c = Client(server, "alice@localhost").login()
    c.ping()
    c.close()


def test_a_taken_port_is_named_with_the_next_step(server):
    other = server.dir / "other.conf"
    other.write_text(server.conf.read_text().replace("/data", "/data2").replace("/run\"", "/run2\""))
    r = run_again(server, config=other)
    assert r.returncode == 1, r.stderr
    assert "address in use" in r.stderr and "--port-shift" in r.stderr, r.stderr
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        r = run_again(server, "--set", f"listen.c2s.address={{127.0.0.1:{taken.getsockname()[1]}}}",
                      "--set", "listen.c2s_tls.address={}", config=other)
        assert r.returncode == 1 and "address in use by" in r.stderr, r.stderr
        assert f"(pid {os.getpid()})" in r.stderr, r.stderr


def test_without_a_node_commands_say_so(server):
    away = server.dir / "away.conf"
    away.write_text(server.conf.read_text().replace("/run\"", "/run3\""))
    for args in (("status",), ("stop",), ("reload",), ("user", "list", "localhost"),
                 ("user", "show", "alice@localhost")):
        r = subprocess.run([BIN / "pemberley", "--config", away, *args], capture_output=True, text=True,
                           timeout=20, env=server.env)
        assert r.returncode == 3 and "not running" in r.stderr, (args, r.returncode, r.stderr)
    r = subprocess.run([BIN / "pemberley", "--config", "/nonexistent", "status"], capture_output=True,
                       text=True, timeout=20, env=server.env)
    assert r.returncode == 78, r.stderr


def test_a_start_with_a_broken_config_or_certificate_ends_at_once(server):
    broken = server.dir / "broken.conf"
    broken.write_text(server.conf.read_text() + "limits { ping_interval = 5 }\n")
    assert run_again(server, config=broken).returncode == 78
    broken.write_text(server.conf.read_text().replace("localhost.pem", "missing.pem")
                      .replace("/data", "/data4").replace("/run\"", "/run4\""))
    r = run_again(server, config=broken)
    assert r.returncode in (1, 78) and "missing.pem" in r.stderr, (r.returncode, r.stderr)


USERS = ("alice@localhost", "bob@localhost", "carl@localhost")
SETTINGS = (QUICK,)


def test_what_was_not_delivered_is_stored_at_stop_and_given_after_the_start():
    server = pemb.Server(settings=(QUICK,))
    for jid in USERS:
        server.add_user(jid)
    a = Client(server, "alice@localhost/x").login(sm=True, presence=True)
    b = Client(server, "bob@localhost/y").login(sm=True, presence=True)
    c = Client(server, "carl@localhost/z").login(sm=True, presence=True)
    befriend(a, b)
    c.drop() # detached: its messages wait for its resumption
    server.wait_log("event=session_detached .*jid=carl@localhost/z")
    b.answer_acks = False # taken by the socket, never acknowledged
    sent = [f"m {i}" for i in range(30)]
    for body in sent:
        a.message("bob@localhost/y", body)
        a.message("carl@localhost", body)
    a.wait_acked(61)
    r = server.cli("stop")
    assert r.stdout.startswith("told 2 sessions") or "sessions" in r.stdout, r.stdout
    a.stream_error("system-shutdown")
    assert server.process.wait(10) == 0
    server.start()
    for who in ("bob", "carl"):
        d = Client(server, f"{who}@localhost/new").login(presence=True)
        got = [d.expect("c:message") for _ in sent]
        assert [m.findtext("c:body", None, NS) for m in got] == sent, who
        assert all(m.find("{urn:xmpp:delay}delay") is not None for m in got)
        d.ping()
        assert not d.take(lambda e: e.tag == q("c:message"))
        d.close()
    server.stop()


def test_stop_by_each_signal_and_by_command_ends_with_0():
    server = pemb.Server(settings=(QUICK,))
    for how in (15, 2, "stop", "now"):
        c = Client(server, "localhost")
        c.open()
        if isinstance(how, int):
            server.process.send_signal(how)
        else:
            server.cli("stop", *(["--now"] if how == "now" else []))
        if how != "now":
            c.stream_error("system-shutdown")
        assert server.process.wait(15) == 0, how
        assert not (server.dir / "run/control.sock").exists() or \
            server.cli("status", check=False).returncode == 3
        server.start()
    server.stop()
