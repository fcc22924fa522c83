"""The command line against a running node (operator.md 3): what each command does, says and exits
with, for people and with --json."""

import json
import re
import socket
import subprocess

import pemb
from pemb import BIN, Client, NS, condition, q

USERS = ("alice@localhost", "bob@localhost")
SETTINGS = ("limits.close_timeout=200ms",)


def run(server, *args, stdin=None):
    r = server.cli(*args, stdin=stdin, check=False)
    return r.returncode, r.stdout, r.stderr


def items(server, *args):
    root = json.loads(server.cli("--json", *args).stdout)
    assert root["v"] == 1 and root["node"] == "a" and isinstance(root["items"], list), root
    return root["items"]


def test_user_add(server):
    assert run(server, "user", "add", "--stdin", "new@localhost", stdin="long-enough\n") == \
        (0, "added new@localhost\n", "")
    Client(server, "new@localhost", "long-enough").login().close()
    code, out, err = run(server, "user", "add", "--stdin", "new@localhost", stdin="long-enough\n")
    assert code == 5 and "exists" in err and not out, err
    assert run(server, "user", "add", "--stdin", "x@other.example", stdin="long-enough\n")[0] == 4
    assert run(server, "user", "add", "--stdin", "no jid", stdin="long-enough\n")[0] == 2
    assert run(server, "user", "add", "--stdin", "localhost", stdin="long-enough\n")[0] == 2
    assert run(server, "user", "add", "--stdin", "short@localhost", stdin="short\n")[0] == 1
    assert run(server, "user", "add", "--stdin", "empty@localhost", stdin="")[0] == 2
    code, out, err = run(server, "user", "add", "nobody@localhost")
    assert code == 2 and "--stdin" in err, "no terminal and no --stdin"
    code, out, err = run(server, "user", "add", "--generate", "made@localhost")
    password = out.split("\n")[0]
    assert code == 0 and len(password) >= 16, out
    Client(server, "made@localhost", password).login().close()
    code, out, err = run(server, "user", "add", "--generate", "made@localhost")
    assert code == 5 and not out, "a password that is not in force is not shown"
    made, = items(server, "user", "passwd", "--generate", "made@localhost")
    assert made["jid"] == "made@localhost"
    Client(server, "made@localhost", made["password"]).login().close()
    assert run(server, "user", "add", "--stdin", "MiXed@LOCALHOST", stdin="long-enough\n")[1] == \
        "added mixed@localhost\n"


def test_a_password_never_stands_in_the_arguments(server):
    for more in ((), ("--stdin",), ("--generate",)):
        code, out, err = run(server, "user", "add", "word@localhost", "the-password", *more,
                             stdin="another-one\n")
        assert code == 2 and not out and "one argument" in err, (more, code, err)
    assert run(server, "status", "all")[0] == 2
    assert run(server, "user", "show", "word@localhost")[0] == 4


def test_user_passwd_ends_the_sessions(server):
    server.add_user("changes@localhost")
    c = Client(server, "changes@localhost/x").login(presence=True)
    code, out, err = run(server, "user", "passwd", "--stdin", "changes@localhost", stdin="another-one\n")
    assert code == 0 and "changes@localhost" in out
    c.stream_error("reset")
    d = Client(server, "changes@localhost")
    d.open()
    d.starttls()
    assert d.auth().tag == q("sasl:failure")
    d.sock.close()
    Client(server, "changes@localhost", "another-one").login().close()
    assert run(server, "user", "passwd", "--stdin", "nobody@localhost", stdin="another-one\n")[0] == 4


def test_user_remove(server):
    server.add_user("goes@localhost")
    c = Client(server, "goes@localhost/x").login(presence=True)
    code, out, err = run(server, "user", "remove", "goes@localhost")
    assert code == 6 and "--yes" in err, err
    c.ping()
    assert run(server, "--yes", "user", "remove", "goes@localhost")[0] == 0
    c.stream_error("not-authorized")
    assert run(server, "--yes", "user", "remove", "goes@localhost")[0] == 4
    assert run(server, "user", "show", "goes@localhost")[0] == 4
    d = Client(server, "goes@localhost")
    d.open()
    d.starttls()
    assert d.auth().tag == q("sasl:failure")
    d.sock.close()


def test_user_list(server):
    for n in range(5):
        server.add_user(f"list{n}@example.org")
    code, out, err = run(server, "user", "list", "example.org")
    assert (code, err) == (0, "") and out.split() == ["JID"] + [f"list{n}@example.org" for n in range(5)]
    names = [i["jid"] for i in items(server, "user", "list", "example.org", "--like", "list3")]
    assert names == ["list3@example.org"]
    names = [i["jid"] for i in items(server, "user", "list", "example.org", "--after",
                                     "list1@example.org", "--limit", "2")]
    assert names == ["list2@example.org", "list3@example.org"]
    assert run(server, "user", "list", "example.org", "--like", "'; DROP TABLE account; --")[0] == 0
    assert run(server, "user", "list", "other.example") == (4, "", "pemberley: no host other.example\n")
    assert run(server, "user", "list")[0] == 2
    for limit in ("-1", "0", "x", "1001", "99999999999"):
        assert run(server, "user", "list", "example.org", "--limit", limit)[0] == 2, limit
    assert len(items(server, "user", "list", "example.org")) == 5


def test_user_show(server):
    c = Client(server, "alice@localhost/x").login(sm=True, presence=True)
    c.message("bob@localhost", "later")
    c.wait_acked(3)
    item, = items(server, "user", "show", "bob@localhost")
    assert item["jid"] == "bob@localhost" and item["sessions"] == 0 and item["offline_messages"] == 1
    assert items(server, "user", "show", "alice@localhost")[0]["sessions"] == 1
    code, out, err = run(server, "user", "show", "alice@localhost")
    assert code == 0 and out.startswith("JID ") and len(out.splitlines()) == 2
    code, out, err = run(server, "user", "show", "nobody@localhost")
    assert code == 4 and re.fullmatch(r"pemberley: no user nobody@localhost \(host localhost has \d+ users\)\n",
                                      err), err
    code, out, err = run(server, "user", "show", "alice@other.example")
    assert (code, err) == (4, "pemberley: no user alice@other.example: no host other.example\n")
    c.close()


def test_user_sessions(server):
    assert run(server, "user", "sessions", "bob@localhost")[0] == 0
    assert items(server, "user", "sessions", "bob@localhost") == []
    a = Client(server, "bob@localhost/phone", connect="tls").login(sm=True, presence=True)
    b = Client(server, "bob@localhost/desk").login()
    got = {i["jid"]: i for i in items(server, "user", "sessions", "bob@localhost")}
    assert set(got) == {"bob@localhost/phone", "bob@localhost/desk"}
    phone = got["bob@localhost/phone"]
    assert phone["state"] == "connected" and phone["resumable"]
    assert phone["address"].startswith("127.0.0.1:") and phone["tls"] == "1.3", phone
    assert phone["edge"].startswith("a/") and phone["home"].startswith("a/"), phone
    a.drop()
    server.wait_log("event=session_detached .*jid=bob@localhost/phone")
    got = {i["jid"]: i for i in items(server, "user", "sessions", "bob@localhost")}
    assert got["bob@localhost/phone"]["state"] == "detached"
    assert run(server, "user", "sessions", "nobody@localhost")[0] == 4
    b.close()


def ports_free_everywhere(n):
    """On every address, not on 127.0.0.1 alone."""
    socks = [socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
             for _ in range(n)]
    ports = [s.getsockname()[1] for s in socks]
    for s in socks:
        s.close()
    return ports


def test_who_comes_over_ipv4_to_a_listener_for_everybody_is_of_ipv4():
    """To the kernel a peer of [::] is ::ffff:127.0.0.1. Each line that names him obeys log.addresses
    (operator.md 4), whichever process writes it."""
    for addresses, shown in (("full", "127.0.0.1"), ("prefix", "127.0.0.0/24"), ("off", None)):
        port, tls_port = ports_free_everywhere(2)
        server = pemb.Server(settings=(f"listen.c2s.address={{:{port}}}", f"log.addresses={addresses}",
                                       f"listen.c2s_tls.address={{:{tls_port}}}"))
        server.port, server.tls_port = port, tls_port
        server.add_user("bob@localhost")
        c = Client(server, "bob@localhost/phone").login()
        started = server.wait_log("event=session_started")
        (item,) = items(server, "user", "sessions", "bob@localhost")
        assert item["address"].startswith("127.0.0.1:"), item
        c.close()
        lines = [line for line in server.log if "event=login_ok" in line] + [started]
        assert len(lines) == 2
        for line in lines:
            got = re.search(r" address=(\S+)", line)
            assert (got.group(1) if got else None) == shown, line
        server.stop()


def test_user_kick(server):
    server.add_user("kicked@localhost")
    there = [Client(server, f"kicked@localhost/{n}").login(presence=True) for n in range(3)]
    code, out, err = run(server, "user", "kick", "kicked@localhost/1")
    assert code == 0 and "1 session" in out, (out, err)
    there[1].stream_error("policy-violation")
    there[0].ping()
    assert run(server, "user", "kick", "kicked@localhost")[1] == "kicked kicked@localhost: 2 sessions\n"
    for n in (0, 2):
        there[n].stream_error("policy-violation")
    assert run(server, "user", "kick", "kicked@localhost/none")[0] in (0, 4)
    assert run(server, "user", "kick", "nobody@localhost")[0] == 4
    Client(server, "kicked@localhost/0").login().close()


def test_status(server):
    c = Client(server, "alice@localhost/x").login(presence=True)
    code, out, err = run(server, "status")
    assert code == 0 and err == ""
    head, columns, *rows = out.splitlines()
    assert head.startswith("node a ") and "READY" in head, head
    assert columns.split()[:2] == ["SHARD", "STATE"] and len(rows) == 3 and rows[2].startswith("store")
    root = json.loads(server.cli("--json", "status").stdout)
    assert root["v"] == 1 and root["node"] == "a" and root["state"] == "ready", root
    assert sum(i.get("sessions", 0) for i in root["items"]) >= 1
    c.close()


def test_reload_says_what_changed_and_a_mistake_changes_nothing(server):
    text = server.conf.read_text()
    c = Client(server, "alice@localhost/x").login(presence=True)
    assert run(server, "reload")[0] == 0
    server.conf.write_text(text + "limits { sessions_per_user_max = 1 }\n")
    code, out, err = run(server, "reload")
    assert code == 0 and "changed live: 1 (limits.sessions_per_user_max 20" in out, (out, err)
    d = Client(server, "alice@localhost").login(bind=False)
    assert condition(d.bind("second"))[0] == "resource-constraint"
    server.conf.write_text(text + "limits { sessions_per_user_max = none }\n")
    line = len(text.splitlines()) + 1
    code, out, err = run(server, "reload")
    assert code != 0 and f"pemberley.conf:{line}: limits.sessions_per_user_max" in err + out, (out, err)
    assert condition(d.bind("second"))[0] == "resource-constraint", "the old one goes on"
    server.conf.write_text(text.replace("shards = 2", "shards = 3"))
    code, out, err = run(server, "reload")
    assert code == 0 and "restart needed: 1 (node.shards 2" in out, (out, err)
    assert d.bind("second").get("type") == "result"
    server.conf.write_text(text)
    assert run(server, "reload")[0] == 0
    c.ping()
    for client in (c, d):
        client.close()


def test_usage(server):
    for args in ((), ("help",), ("--help",)):
        code, out, err = run(server, *args)
        assert code == 0 and "user add" in out, args
    for args in (("nonsense",), ("user",), ("user", "nonsense"), ("--nonsense", "status"),
                 ("status", "--limit"), ("user", "sessions"), ("user", "kick", "@"),
                 ("--timeout", "soon", "status")):
        code, out, err = run(server, *args)
        assert code == 2 and err.startswith("pemberley: ") and not out, (args, code, err)
    assert run(server, "version")[1].startswith("pemberley 0.")
    assert run(server, "explain", "limits.c2s.stanza_max")[0] == 0
    for name, what in (("process_died", "signal"), ("pemberley_sessions", "gauge"),
                       ("pemberley_delivery_seconds", "histogram"), ("connections_opened_total", "counter")):
        code, out, err = run(server, "explain", name)
        assert code == 0 and what in out, (name, code, out, err)
    code, out, err = run(server, "explain", "limits.c2s.stanza_mx")
    assert code == 4 and "limits.c2s.stanza_max" in err


def test_the_socket_is_the_owner_s_alone(server):
    import os
    import stat
    path = server.dir / "run/control.sock"
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    for data in (b"", b"\0" * 10, b"\xff" * 60_000):
        import socket
        s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        s.connect(str(path))
        s.send(data) if data else None
        s.close()
    assert run(server, "status")[0] == 0


def test_a_host_comes_and_goes_with_reload(server):
    text = server.conf.read_text()
    a = Client(server, "alice@localhost/x").login(presence=True)
    kept = server.dir / "example.org"
    server.conf.write_text(text + f'host "new.example" {{ certificate_file = "{kept}.pem" '
                           f'key_file = "{kept}.key" }}\n')
    assert run(server, "reload")[0] == 0
    server.add_user("zoe@new.example")
    z = Client(server, "zoe@new.example/z").login(presence=True)
    waiting = Client(server, "zoe@new.example")
    waiting.open()
    a.message("zoe@new.example", "welcome")
    z.expect_body("welcome")
    server.conf.write_text(text)
    assert run(server, "reload")[0] == 0
    late = Client(server, "zoe@new.example")
    try:
        late.open()
        raise AssertionError("a host that has gone is served")
    except pemb.StreamError as e:
        assert e.condition == "host-unknown"
    a.message("zoe@new.example", "still there?", id="gone")
    assert condition(a.expect(lambda e: e.get("id") == "gone"))[0] == "remote-server-not-found"
    try: # who was in the middle of a login does not get in, and breaks nothing
        waiting.starttls()
        assert waiting.auth().tag == q("sasl:failure")
    except (pemb.StreamError, pemb.Closed):
        pass
    try: # who was there may go on or be told to go, but breaks nothing
        z.message("alice@localhost", "from the past")
        z.send("<presence><priority>1</priority></presence>")
        z.ping()
        z.close()
    except (pemb.StreamError, pemb.Closed, AssertionError):
        pass
    a.ping()
    assert run(server, "status")[0] == 0 and not [x for x in server.log if "process_died" in x]
    a.close()
