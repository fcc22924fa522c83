"""What an operator sees of a cluster (operator.md 5 to 7, 10): Debian's Prometheus at three nodes with
people on them, every panel of the dashboard *bus*, and the alerts and log events when one of them dies."""

import functools
import re
import subprocess
import time

from cluster import Cluster
from pemb import Client
from prometheus import Prometheus, filled, queries

PEOPLE = 12


@functools.cache
def three():
    """A long lease: time to see who is dead before the others go on without it."""
    return Cluster("abc", settings=("cluster.lease=8s",))


def lines(cluster, pattern):
    return [line for n in cluster.nodes.values() for line in n.log if re.search(pattern, line)]


def test_three_nodes_begin_without_noise():
    cluster = three()
    cluster["a"].wait_slots("abc")
    trouble = lines(cluster, r"level=(warn|error) event=(peer|rail|frame|node|process|ring)_")
    assert not trouble, trouble


def short(alerts):
    """NodeDown and RailDown after a second."""
    text, n = re.subn(r"(alert: (?:NodeDown|RailDown)\n.*\n +for: )\w+", r"\g<1>1s", alerts)
    assert n == 2
    return text


def at_work(clients, prometheus, what):
    """They talk until that is so."""
    def step():
        for c, d in zip(clients, clients[1:] + clients[:1]):
            c.message(d.jid, "hello")
        for c in clients:
            c.expect_body("hello", timeout=30)
        return what()
    prometheus.wait(step)


def value(prometheus, expression):
    (sample,) = prometheus.query(expression)
    return float(sample["value"][1])


def is_seen(prometheus, scrapes):
    counts = prometheus.query('count_over_time(pemberley_bus_frames_sent_total{peer="a"}[1m])')
    return len(counts) == 2 and all(int(c["value"][1]) >= scrapes for c in counts)


def look_at_panels(p):
    asked = list(queries("bus")) + [q for q in queries("store") if "Registry" in q[0]]
    panels = [q for q in asked if "process restarted" not in q[0] and "config loaded" not in q[0]]
    assert len(panels) >= 35
    for where, expression in panels:
        assert p.query(filled(expression)), f"{where}: {expression}: no data"


def look_at_numbers(p):
    for instance in p.query("pemberley_cluster_epoch"):
        of = f'{{instance="{instance["metric"]["instance"]}"}}'
        assert value(p, f"sum(pemberley_bus_rails{of})") == 4
        assert value(p, f'pemberley_bus_rails{{state="up",{of[1:]}') == 4
        assert value(p, f'pemberley_cluster_nodes{{state="live",{of[1:]}') == 3
        assert value(p, f"pemberley_cluster_versions{of}") == 1
        assert 5 < value(p, f"pemberley_cluster_lease_remaining_seconds{of}") < 8
        assert 10 ** 7 < value(p, f"pemberley_cluster_certificate_not_after_timestamp_seconds{of} - time()")
    assert value(p, "max(pemberley_cluster_epoch) - min(pemberley_cluster_epoch)") == 0
    assert value(p, "sum(pemberley_cluster_slots)") == 16384
    assert value(p, "min(pemberley_bus_round_trip_seconds{peer=~'[abc]'})") > 0
    assert value(p, 'sum(pemberley_delivery_seconds_count{hop="other_node"})') > 0
    assert value(p, "sum(pemberley_registry_commands_total{result='ok'})") > 0
    peers = {s["metric"]["peer"] for s in p.query("rate(pemberley_bus_sent_bytes_total[10s]) > 0")}
    assert peers == set("abc"), peers


def look_at_status(cluster):
    node = cluster["a"]
    status = node.cli("status").stdout
    assert "cluster: derby\n" in status, status
    assert re.search(r"^cluster  epoch \d+, one view on all 3 nodes, 5\d\d\d slots here, registry ok, "
                     r"rails 4/4 up$", status, re.M), status
    page = node.get("/")
    assert re.search(r"epoch \d+, one view", page) and "rails 4/4 up" in page, page


def test_prometheus_sees_three_nodes_and_the_death_of_one():
    cluster = three()
    people = [f"metric{i}@localhost" for i in range(PEOPLE)]
    for bare in people:
        cluster["a"].add_user(bare)
    clients = [Client(cluster["ab"[i % 2]], f"{bare}/x").login(sm=True, presence=True)
               for i, bare in enumerate(people)]
    targets = [f"{n.address}:{n.http_port}" for n in cluster.nodes.values()]
    p = Prometheus(targets, short)
    try:
        p.wait(lambda: len(p.query('up{job="pemberley"} == 1')) == 3)
        at_work(clients, p, lambda: is_seen(p, 6))
        look_at_panels(p)
        look_at_numbers(p)
        look_at_status(cluster)
        assert not p.firing(), p.firing()
        page = cluster["b"].get("/metrics")
        r = subprocess.run(["promtool", "check", "metrics"], input=page, text=True, capture_output=True)
        assert r.returncode == 0 and not r.stderr, r.stderr
        cluster["c"].kill()
        p.wait(lambda: {"RailDown", "NodeDown"} <= p.firing())
        for name in "ab":
            cluster[name].wait_log("event=rail_down .*peer=c")
        cluster["a"].wait_log("event=peer_suspect .*peer=c")
        deadline = time.monotonic() + 20
        while not lines(cluster, "event=ring_changed .*cause=died .*left=c"):
            assert time.monotonic() < deadline, cluster["a"].log[-10:]
            time.sleep(0.05)
        at_work(clients, p, lambda: value(p, 'sum(pemberley_cluster_nodes{state="live"})') == 4)
        p.wait(lambda: p.firing() == {"NodeDown"})
        assert value(p, 'sum(pemberley_cluster_users_moved_total{direction="in"})') > 0
        assert value(p, "sum(pemberley_cluster_freeze_seconds_count)") > 0
        assert value(p, 'sum(pemberley_cluster_ring_changes_total{cause="died"})') >= 1
        assert value(p, "sum(pemberley_cluster_slots)") == 16384
    finally:
        p.close()
    for c in clients:
        c.close()
    cluster.stop()
