"""systems.md 7: a child ends when the supervisor does, after a flush of a second at most, also when
it dies in the middle of a stop that waits for a client."""

import os
import signal
import time

from pemb import Client, Server


def alive(pid):
    try:
        return open(f"/proc/{pid}/stat").read().split(") ")[1][0] != "Z"
    except FileNotFoundError:
        return False


def dies_within(server, seconds):
    children = [server.pid_of("shard", 0), server.pid_of("shard", 1), server.pid_of("store", 0)]
    server.process.kill()
    server.process.wait()
    deadline = time.monotonic() + seconds
    while any(alive(pid) for pid in children):
        assert time.monotonic() < deadline, "children outlive their supervisor"
        time.sleep(0.02)


def test_idle():
    dies_within(Server(), 8)


def test_in_a_stop():
    server = Server(settings=("limits.close_timeout=40s", "node.stop_timeout=60s"))
    server.add_user("juliet@localhost")
    juliet = Client(server, "juliet@localhost/balcony").login()
    server.process.send_signal(signal.SIGTERM)
    juliet.expect("stream:error")  # and it does not close its side
    dies_within(server, 8)
