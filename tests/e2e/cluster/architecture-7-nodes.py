"""Nodes of one cluster (architecture 7): who is in it, and that clients on different nodes are one
hop away from each other."""

from cluster import Cluster
from pemb import Client, barrier


def chat(cluster, *names):
    """Clients on these nodes, each with what the others said."""
    clients = []
    for name in names:
        cluster[names[0]].add_user(f"{name}-chat@localhost")
        clients.append(Client(cluster[name], f"{name}-chat@localhost/x").login(sm=True, presence=True))
    for c in clients:
        for d in clients:
            c.message(d.jid, f"from {c.jid}")
    for c in clients:
        for d in clients:
            c.expect_body(f"from {d.jid}")
    return clients


def test_clients_of_two_nodes_chat():
    cluster = Cluster("ab")
    for c in chat(cluster, "a", "b"):
        c.close()
    cluster.stop()
