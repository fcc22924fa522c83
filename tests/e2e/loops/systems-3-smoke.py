"""One of everything that needs a loop, over each of the two (systems.md 3, 4): STARTTLS, login, a
message, a resumption on another connection. Also what tests/floor runs on the oldest kernel."""

import pemb
from pemb import Client, resume


def everything(loop):
    server = pemb.Server(settings=[f"node.loop={loop}"], hosts=("localhost",))
    assert server.loop() == loop
    for who in ("alice", "bob"):
        server.add_user(f"{who}@localhost")
    alice = Client(server, "alice@localhost").login(sm=True, presence=True)
    bob = Client(server, "bob@localhost").login(sm=True, presence=True)
    assert alice.tls and bob.tls
    alice.message(bob.jid, "is there a net?")
    bob.expect_body("is there a net?")
    long = "x" * 100_000 # more than one receive buffer, and than one share of a turn
    alice.message(bob.jid, long)
    bob.expect_body(long)
    bob.drop()
    alice.message(bob.jid, "while you were away")
    bob, answer = resume(server, bob)
    assert answer.tag == pemb.q("sm:resumed")
    bob.expect_body("while you were away")
    bob.message(alice.jid, "here again")
    alice.expect_body("here again")
    alice.close()
    bob.close()
    server.stop()


def test_over_io_uring():
    everything("io_uring")


def test_over_epoll():
    everything("epoll")
