"""libstrophe, which many small clients are built on: STARTTLS and direct TLS, a message each way."""

import pathlib
import subprocess

from pemb import Client

USERS = ("alice@localhost", "bob@localhost")
PLAIN = False


def build(server):
    program = server.dir / "libstrophe_client"
    if not program.exists():
        source = pathlib.Path(__file__).with_name("libstrophe_client.c")
        subprocess.run(["cc", "-Wall", "-Werror", "-o", program, source, "-lstrophe"], check=True)
    return program


def talk(server, port, *more):
    bob = Client(server, "bob@localhost/desk").login(presence=True)
    p = subprocess.Popen([build(server), "alice@localhost/strophe", "secret-password", str(port),
                          "bob@localhost", "hello from libstrophe", *more], stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, text=True)
    try:
        got = bob.expect_body("hello from libstrophe", timeout=15)
        assert got.get("from") == "alice@localhost/strophe" and got.get("id") == "from-strophe"
        bob.message("alice@localhost", "hello & <welcome>")
        out, err = p.communicate(timeout=15)
    finally:
        p.kill()
    assert "connected alice@localhost/strophe secured 1" in out, (out, err)
    assert "received hello & <welcome> from bob@localhost/desk" in out, (out, err)
    assert p.returncode == 0
    server.wait_log("event=login_ok .*jid=alice@localhost .*mechanism=SCRAM-SHA.*tls=yes")
    bob.close()


def test_starttls(server):
    talk(server, server.port)


def test_direct_tls(server):
    talk(server, server.tls_port, "legacy")


def test_a_wrong_password(server):
    r = subprocess.run([build(server), "alice@localhost/strophe", "wrong-password", str(server.port),
                        "bob@localhost", "x"], capture_output=True, text=True, timeout=20)
    assert "connected" not in r.stdout and "ended" in r.stdout, r.stdout
    server.wait_log("event=login_failed .*reason=NOT_AUTHORIZED")
