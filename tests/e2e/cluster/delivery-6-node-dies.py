"""A whole node dies under traffic (delivery.md 6, 8): clients resume on another one; what was
acknowledged is neither lost nor twice nor swapped, also for those who were not connected there."""

import functools
import time

from cluster import Cluster, talk

COUNT = 400


@functools.cache
def three():
    return Cluster("abc")


def halfway(talkers):
    while not all(t.said >= COUNT // 2 or t.failure for t in talkers):
        time.sleep(0.01)


def test_kill_9_of_a_node_loses_doubles_and_swaps_nothing():
    cluster = three()

    def during(talkers):
        halfway(talkers)
        cluster["b"].kill()
        for name in "ac":
            cluster[name].wait_log("event=ring_changed .*cause=died .*left=b")
    talkers = talk(cluster, ["ab", "bc", "ca", "bb"], COUNT, during)
    assert sum(1 for t in talkers if t.resumed) == 4, [t.resumed for t in talkers]


def test_it_comes_back_under_its_name_and_has_its_part_again():
    cluster = three()
    cluster["b"].start()
    items = {i["name"]: i for i in cluster["a"].listing()["items"]}
    assert set(items) == {"a", "b", "c"} and items["b"]["slots"] > 3000, items
    talk(cluster, ["ab", "bc"], 50, lambda talkers: None)


def test_a_node_that_slept_longer_than_its_lease_lets_go_and_comes_back():
    cluster = three()

    def during(talkers):
        halfway(talkers)
        cluster["c"].freeze()
        cluster["a"].wait_log("event=ring_changed .*cause=died .*left=c")
        cluster["c"].thaw()
        cluster["c"].wait_log("event=node_fenced")
    talk(cluster, ["ac", "cb", "cc"], COUNT, during)
    cluster["c"].wait_open()


def test_a_shard_that_dies_is_replaced_by_its_siblings_and_the_other_nodes():
    cluster = three()

    def during(talkers):
        halfway(talkers)
        cluster["a"].kill_process("shard", 1)
    talk(cluster, ["ab", "ac", "aa"], COUNT, during)
    cluster["a"].kill_process("shard", 0)  # the clerk
    talk(cluster, ["ab"], 50, lambda talkers: None)
    three().stop()


def test_of_two_nodes_the_one_that_lives_goes_on():
    two = Cluster("ab")

    def during(talkers):
        halfway(talkers)
        two["a"].kill()  # it made the cluster; nothing depends on that
        two["b"].wait_log("event=ring_changed .*cause=died .*left=a")
    talk(two, ["ab", "ba", "aa"], COUNT, during)
    two["b"].wait_slots("b")
    two["a"].start()
    two["b"].wait_slots("ab")
    talk(two, ["ab"], 50, lambda talkers: None)
    two.stop()
