"""Connections that wait in the queue of a shard that does not come up are taken by a neighbour, and by
another when that one dies."""

import os
import signal

from pemb import Client


def all_are_served(server):
    """So many that the kernel gives some to each of the two queues (the chance that not: 2^-15)."""
    clients = [Client(server, "nobody@localhost") for _ in range(16)]
    for c in clients:
        c.open()  # until the features are there
    for c in clients:
        c.sock.close()


def test_what_a_neighbour_has_taken_over_is_taken_over_again_when_it_dies(server):
    server.kill_process("shard", 0)
    stopped = server.pid_of("shard", 0)
    os.kill(stopped, signal.SIGSTOP)  # it does not come up
    try:
        all_are_served(server)
        server.kill_process("shard", 1)
        all_are_served(server)
    finally:
        os.kill(stopped, signal.SIGCONT)
    all_are_served(server)
