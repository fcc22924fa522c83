"""What a newcomer has on Debian: go-sendxmpp sends, and the other side gets it."""

import subprocess

from pemb import Client

USERS = ("alice@localhost", "bob@localhost")


def send(server, *options, to="bob@localhost", text="hello from the shell"):
    return subprocess.run(["go-sendxmpp", "-n", "-j", f"127.0.0.1:{server.port}", "-u",
                           "alice@localhost", "-p", "secret-password", *options, to], input=text + "\n",
                          capture_output=True, text=True, timeout=30)


def test_go_sendxmpp_sends_a_message(server):
    bob = Client(server, "bob@localhost/desk").login(presence=True)
    r = send(server)
    assert r.returncode == 0, r.stderr
    message = bob.expect_body("hello from the shell")
    assert message.get("from").startswith("alice@localhost/")
    bob.close()


def test_go_sendxmpp_message_to_somebody_offline_waits_for_him(server):
    r = send(server, text="later")
    assert r.returncode == 0, r.stderr
    bob = Client(server, "bob@localhost/desk").login(presence=True)
    bob.expect_body("later")
    bob.close()


def test_go_sendxmpp_with_a_wrong_password_says_so(server):
    r = subprocess.run(["go-sendxmpp", "-n", "-j", f"127.0.0.1:{server.port}", "-u", "alice@localhost",
                        "-p", "wrong-password", "bob@localhost"], input="x\n", capture_output=True,
                       text=True, timeout=30)
    assert r.returncode != 0
