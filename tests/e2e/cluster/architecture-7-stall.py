"""Redis and a node die together (architecture 7): the others cannot know that they are not the ones cut
off, and do nothing, but end nothing either. When Redis is back they go on, with every session."""

import time
import urllib.error

from cluster import Cluster, talk

COUNT = 300
LEASE = 1.5
SHORT = ["cluster.heartbeat=500ms", f"cluster.lease={int(LEASE * 1000)}ms"]


def halfway(talkers):
    while not all(t.said >= COUNT // 3 or t.failure for t in talkers):
        time.sleep(0.01)


def readiness(node):
    try:
        return node.get("/readyz")
    except urllib.error.HTTPError as e:
        return e.read().decode()


def stalls(cluster, names):
    for name in names:
        cluster[name].wait_log("event=node_stalled")
        assert "[-]cluster stalled" in readiness(cluster[name])
        assert cluster[name].metric("cluster_fenced") == 1


def nobody_is_told_anything(talkers, seconds):
    """What was on its way when they stopped has come by then."""
    time.sleep(0.2)
    before = [(t.acked, len(t.got)) for t in talkers]
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        assert [(t.acked, len(t.got)) for t in talkers] == before
        assert not any(t.failure for t in talkers), [t.failure for t in talkers]
        time.sleep(0.05)


def goes_on(cluster, names):
    for name in names:
        cluster[name].wait_log("event=node_goes_on", timeout=30)
    cluster[names[0]].wait_slots(names)
    for name in names:
        assert "[+]cluster epoch" in readiness(cluster[name])
        assert not cluster[name].has_logged("event=node_fenced"), cluster[name].log[-30:]


def test_redis_and_a_node_die_and_the_sessions_of_the_others_go_on_when_redis_is_back():
    cluster = Cluster("abc", settings=SHORT)
    pids = {name: cluster[name].pids() for name in "ab"}

    def during(talkers):
        halfway(talkers)
        cluster.redis.kill()
        cluster["c"].kill()
        stalls(cluster, "ab")
        nobody_is_told_anything(talkers, 3 * LEASE)
        r = cluster["a"].cli("user", "list", "localhost", check=False)
        assert r.returncode == 7 and "waits for the registry" in r.stderr, r
        cluster.redis.start()  # empty
        goes_on(cluster, "ab")
    talkers = talk(cluster, ["ab", "ba", "aa", "bb"], COUNT, during)
    assert not any(t.resumed for t in talkers), [t.resumed for t in talkers]
    assert {name: cluster[name].pids() for name in "ab"} == pids
    cluster["c"].start()
    cluster["a"].wait_slots("abc")
    talk(cluster, ["ac", "cb"], 50, lambda talkers: None)
    cluster.stop()


def test_a_node_that_is_left_alone_lets_its_clients_go_and_keeps_their_sessions():
    """No other node waits with it: perhaps the others go on, and clients may be better off there."""
    cluster = Cluster("ab", settings=SHORT)
    pids = cluster["a"].pids()

    def during(talkers):
        halfway(talkers)
        cluster.redis.pause()
        cluster["b"].kill()
        stalls(cluster, "a")
        cluster["a"].wait_closed()
        cluster.redis.go_on()
        goes_on(cluster, "a")
    talkers = talk(cluster, ["aa", "ab"], COUNT, during)
    assert all(t.resumed == ["a"] for t in talkers), [t.resumed for t in talkers]
    assert cluster["a"].pids() == pids
    cluster.stop()


def test_clients_are_let_go_when_the_stall_lasts():
    cluster = Cluster("abc", settings=[*SHORT, "cluster.stall_timeout=2s"])

    def during(talkers):
        halfway(talkers)
        cluster.redis.pause()
        cluster["c"].kill()
        stalls(cluster, "ab")
        for name in "ab":
            cluster[name].wait_closed()
        cluster.redis.go_on()
        goes_on(cluster, "ab")
    talkers = talk(cluster, ["ab"], COUNT, during)
    assert all(len(t.resumed) == 1 for t in talkers), [t.resumed for t in talkers]
    cluster.stop()


def test_a_node_that_was_removed_while_it_waited_comes_back_as_a_new_one():
    """All of it sleeps longer than its lease, and so does Redis when it wakes up."""
    cluster = Cluster("abc", settings=SHORT)

    def during(talkers):
        halfway(talkers)
        cluster["c"].freeze()
        cluster["a"].wait_log("event=ring_changed .*cause=died .*left=c")
        cluster.redis.pause()
        cluster["c"].thaw()
        cluster["c"].wait_log("event=node_stalled")
        cluster.redis.go_on()
        cluster["c"].wait_log("event=node_fenced")
    talk(cluster, ["ac", "cb", "ab"], COUNT, during)
    cluster["c"].wait_open()
    cluster.stop()
