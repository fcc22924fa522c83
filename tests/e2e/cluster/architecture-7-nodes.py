"""Nodes of one cluster (architecture 7): who is in it and who is not let in, and that clients on
different nodes are one hop away from each other."""

import functools
import os
import re
import socket
import ssl
import subprocess

from cluster import Cluster, Node, talk
from pemb import BIN, TIMEOUT, Client, befriend


@functools.cache
def three():
    return Cluster("abc")


def test_clients_of_three_nodes_chat_and_see_each_other():
    cluster = three()
    clients = []
    for name in "abc":
        cluster["a"].add_user(f"{name}-chat@localhost")
        clients.append(Client(cluster[name], f"{name}-chat@localhost/x").login(sm=True, presence=True))
    for c in clients:
        for d in clients:
            c.message(d.jid, f"from {c.jid}")
    for c in clients:
        for d in clients:
            c.expect_body(f"from {d.jid}")
    befriend(clients[0], clients[2])
    clients[2].close()
    clients[0].expect_presence(clients[2].jid, "unavailable")
    for c in clients[:2]:
        c.close()


def test_many_pairs_talk_in_order():
    talk(three(), ["ab", "bc", "ca", "aa"], 200, lambda talkers: None)


def test_what_goes_over_the_bus_is_counted():
    cluster = three()
    node = cluster["b"]
    for peer in "ac": # how many of the people above have their homes where is a matter of the secret
        for family in ("frames_sent_total", "frames_received_total"):
            node.wait_metric(f'bus_{family}{{peer="{peer}"}}', 10)
        for family in ("sent_bytes_total", "received_bytes_total"):
            assert node.metric(f'bus_{family}{{peer="{peer}"}}') > 1000, (family, peer)
        node.wait_metric(f'bus_round_trip_seconds{{peer="{peer}"}}', 1e-6) # shown once a second
        assert node.metric(f'bus_round_trip_seconds{{peer="{peer}"}}') < 1
    assert node.metric('bus_rails{state="up"}') == 4 and node.metric("bus_rails") == 4
    assert node.metric('cluster_nodes{state="live"}') == 3
    assert 0 < node.metric("cluster_lease_remaining_seconds") <= 3
    assert node.metric("cluster_slots") == {i["name"]: i["slots"] for i in
                                            node.listing()["items"]}["b"]
    assert node.metric('delivery_seconds_count{hop="other_node"}') > 50
    assert node.metric("cluster_frames_refused_total") == 0


def test_any_node_knows_all_of_them():
    cluster = three()
    seen = {}
    for name in "abc":
        listing = cluster[name].listing()
        seen[name] = {i["name"]: i["slots"] for i in listing["items"]}
        assert listing["node"] == name and listing["settled"] and listing["slots"] == 16384, listing
        assert all(i["state"] == "live" and i["version"] and i["shards"] == 2
                   for i in listing["items"]), listing
    assert seen["a"] == seen["b"] == seen["c"] and sum(seen["a"].values()) == 16384
    assert all(n > 4500 for n in seen["a"].values()), seen["a"]
    table = cluster["b"].cli("node", "list").stdout
    assert "one view on all 3 nodes, registry ok, slots 16384/16384 owned" in table, table
    assert "differ" not in table, table


def test_a_command_about_an_account_goes_to_its_home_from_any_node():
    cluster = three()
    for i in range(6):
        cluster["abc"[i % 3]].add_user(f"where{i}@localhost")
    client = Client(cluster["c"], "where0@localhost/x").login(presence=True)
    for name in "abc":
        for i in range(6):
            assert f"where{i}@localhost" in cluster[name].cli("user", "show", f"where{i}@localhost").stdout
        sessions = cluster[name].cli("user", "sessions", "where0@localhost").stdout
        assert re.search(r"\bc/\d\b", sessions), sessions
    r = cluster["b"].cli("user", "show", "nobody@localhost", check=False)
    assert r.returncode == 4 and "no user nobody@localhost" in r.stderr, r
    cluster["a"].cli("user", "kick", "where0@localhost")
    client.closed()


def test_a_second_node_of_a_name_is_refused_and_harms_nobody():
    cluster = three()
    other = Node(cluster, "b", f"{cluster.net}.99", 2, (), directory="second-b")
    token = cluster["a"].cli("cluster", "join-token", "b").stdout
    other.cli("cluster", "join", stdin=token)
    other.spawn()
    assert other.process.wait(40) == 1, other.log[-10:]
    other.wait_end()
    assert any("another node of this name is in the cluster" in line for line in other.log), other.log
    assert {i["name"]: i["state"] for i in cluster["a"].listing()["items"]} == dict.fromkeys(
        "abc", "live")


def dial(cluster, name, shard=0):
    s = socket.create_connection((cluster[name].address, 5275 + shard), TIMEOUT)
    s.settimeout(TIMEOUT)
    return s


def test_garbage_on_the_bus_is_refused_and_counted():
    cluster = three()
    node = cluster["a"]
    before = node.metric("bus_refused_connections_total")
    for noise in (b"GET / HTTP/1.1\r\n\r\n", os.urandom(4000), b"\x16\x03\x01\x40\x00" + b"x" * 100,
                  b"\x00" * 70000):
        with dial(cluster, "a", 1) as s:
            try:
                s.sendall(noise)
                s.shutdown(socket.SHUT_WR)
                while s.recv(4096):
                    pass
            except OSError:
                pass
        node.wait_log("event=peer_refused")
    node.wait_metric("bus_refused_connections_total", before + 4)


def test_a_certificate_of_another_authority_is_refused():
    cluster = three()
    node = cluster["a"]
    directory = cluster.dir / "foreign"
    directory.mkdir()
    (directory / "p.conf").write_text(
        f'node {{ name = c data_dir = "{directory}" run_dir = "{directory}" }} host "localhost" {{ }}')
    subprocess.run([BIN / "pemberley", "--config", directory / "p.conf", "cluster", "init", "derby"],
                   check=True, capture_output=True, env=node.env)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(directory / "cluster/node.pem", directory / "cluster/node.key")
    try:
        with context.wrap_socket(dial(cluster, "a")) as s:
            while s.recv(4096):
                pass
    except (ssl.SSLError, ConnectionError):
        pass
    node.wait_log("event=peer_refused .*reason=certificate_foreign")
    three().stop()
