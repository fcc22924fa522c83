"""Redis away (architecture 7): nobody notices while every node agrees that it is; emptied, the cluster
goes on in a later epoch."""

import functools
import time

from cluster import Cluster, talk

AWAY = 10  # seconds: more than three leases


@functools.cache
def three():
    return Cluster("abc")


def steady(cluster):
    return {name: (cluster[name].listing()["epoch"], cluster[name].pids())
            for name in cluster.nodes}


def test_ten_seconds_without_redis_are_not_noticed():
    cluster = three()
    before = steady(cluster)

    def during(talkers):
        cluster.redis.pause()
        began = time.monotonic()
        cluster["a"].wait_log("event=registry_lost")
        while time.monotonic() - began < AWAY:
            talk(cluster, ["ab", "bc"], 20, lambda talkers: None)
        assert cluster["b"].listing()["frozen"]
        cluster.redis.go_on()
        cluster["a"].wait_log("event=registry_back")
    talk(cluster, ["ab", "bc", "ca"], 200, during)
    assert steady(cluster) == before


def test_an_empty_redis_is_given_the_view_again():
    cluster = three()
    epoch = max(e for e, pids in steady(cluster).values())
    pids = {name: p for name, (e, p) in steady(cluster).items()}

    def during(talkers):
        cluster.redis.kill()
        cluster.redis.start()
        for name in "abc":
            cluster[name].wait_metric("cluster_epoch", epoch + 1)
    talk(cluster, ["ab", "bc", "ca"], 200, during)
    assert {name: p for name, (e, p) in steady(cluster).items()} == pids
    assert {i["name"] for i in cluster["c"].listing()["items"]} == set("abc")
    three().stop()
