"""A node is drained and stopped under traffic (operator.md 8): its slots move, its clients resume
elsewhere, and it leaves; a weight moves slots too. Nobody loses anything."""

import functools
import time

from cluster import Cluster, talk

COUNT = 400


@functools.cache
def three():
    return Cluster("abc", settings=["node.drain_grace=0s"])


def slots(cluster, asked="a"):
    return {i["name"]: i["slots"] for i in cluster[asked].listing()["items"]}


def halfway(talkers):
    while not all(t.said >= COUNT // 2 or t.failure for t in talkers):
        time.sleep(0.01)


def test_a_weight_moves_slots_that_are_in_use():
    cluster = three()

    def during(talkers):
        halfway(talkers)
        cluster["a"].cli("node", "weight", "c", "300")
        for name in "abc":
            cluster[name].wait_log("event=ring_changed .*cause=weight")
        cluster["b"].cli("node", "weight", "c", "100")
    talkers = talk(cluster, ["ab", "bc", "ca", "cc"], COUNT, during)
    assert not any(t.resumed for t in talkers)  # nobody noticed


def test_drain_of_another_node_lets_its_clients_go_on_elsewhere():
    cluster = three()

    def during(talkers):
        halfway(talkers)
        r = cluster["a"].cli("node", "drain", "b")
        assert "drained" in r.stdout, r.stdout
        assert slots(cluster)["b"] == 0
    talkers = talk(cluster, ["ab", "bc", "bb"], COUNT, during)
    assert sum(1 for t in talkers if t.resumed) == 4, [t.resumed for t in talkers]
    assert slots(cluster, "c")["b"] == 0


def test_stop_of_a_node_leaves_the_cluster():
    cluster = three()

    def during(talkers):
        halfway(talkers)
        cluster["b"].stop()
        assert cluster.redis.ask("exists", "pemberley:{derby}:member:b") == "0"  # may come back at once
        cluster["a"].wait_log("event=ring_changed .*cause=left .*left=b")
        assert set(slots(cluster)) == {"a", "c"}
    talk(cluster, ["ac", "aa"], COUNT, during)


def test_a_node_that_is_stopped_without_a_drain_before_lets_its_slots_go_first():
    cluster = three()

    def during(talkers):
        halfway(talkers)
        cluster["c"].stop()
        cluster["a"].wait_log("event=ring_changed .*cause=left .*left=c")
        assert set(slots(cluster)) == {"a"}
    talk(cluster, ["ac", "ca"], COUNT, during)
    three().stop()
