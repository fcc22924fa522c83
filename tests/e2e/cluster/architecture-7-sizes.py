"""Nodes of different sizes (architecture 7): shard i of a node has a rail with the i-th of each other,
counted among those that live, and what is for another shard goes on over its node's fifos."""

import functools
import time

from cluster import Cluster, talk
from pemb import Client

COUNT = 200


@functools.cache
def three():
    return Cluster("abc", shards=(1, 3, 4))


def test_all_shards_of_all_nodes_reach_each_other():
    cluster = three()
    talk(cluster, ["ab", "bc", "ca", "bb", "cc", "cb", "ab", "ca"], COUNT, lambda talkers: None)
    items = cluster["a"].listing()["items"]
    assert [(i["name"], i["shards"]) for i in items] == [("a", 1), ("b", 3), ("c", 4)], items
    cluster["a"].wait_metric('bus_rails{state="up"}', 3 + 4)  # its one shard with each of theirs
    cluster["b"].wait_metric('bus_rails{state="up"}', 3 + 4)  # c's fourth comes to the first too


def test_the_largest_stanza_goes_everywhere_while_others_talk():
    cluster = three()
    cluster["a"].add_user("large-a@localhost")
    cluster["a"].add_user("large-c@localhost")
    one = Client(cluster["a"], "large-a@localhost/x").login(sm=True, presence=True)
    other = Client(cluster["c"], "large-c@localhost/x").login(sm=True, presence=True)

    def during(talkers):
        for i in range(10):
            one.message(other.jid, f"{i}" * 250000)
            other.message(one.jid, f"{i}" * 250000)
            other.expect_body(f"{i}" * 250000)
            one.expect_body(f"{i}" * 250000)
    talk(cluster, ["ac", "cb"], COUNT, during)
    one.close(), other.close()


def test_each_shard_may_die():
    cluster = three()
    for name, index in (("b", 0), ("b", 2), ("c", 3), ("c", 1), ("a", 0)):
        def during(talkers):
            while not all(t.said >= COUNT // 2 or t.failure for t in talkers):
                time.sleep(0.01)
            cluster[name].kill_process("shard", index)
        talk(cluster, ["ab", "bc", "ca"], COUNT, during)
        cluster[name].wait_open()
        cluster["b"].wait_slots("abc")
    three().stop()
