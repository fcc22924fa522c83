"""kill -9 of each process during a chat of XEP-0198 clients (delivery.md 8, as far as one node goes):
what was acknowledged arrives exactly once and in order."""

import json
import re

from pemb import Client, barrier, befriend, q, resume

N = 40


def two(server, name, **kw):
    pair = []
    for who in ("a", "b"):
        server.add_user(f"{name}-{who}@localhost")
        pair.append(Client(server, f"{name}-{who}@localhost/x").login(sm=True, presence=True, **kw))
    return pair


def bodies(client, n):
    """n bodies in the order in which they come."""
    got = []
    while len(got) < n:
        got.append(client.expect("c:message").findtext("{jabber:client}body"))
    return got


def test_kill_of_the_store_worker_is_not_noticed_and_loses_nothing(server):
    a, b = two(server, "store")
    server.add_user("store-off@localhost")
    for i in range(N):
        a.message(b.jid, f"live {i}")
        a.message("store-off@localhost", f"offline {i}")
        if i == N // 2:
            server.kill_process("store")
    assert bodies(b, N) == [f"live {i}" for i in range(N)]
    a.wait_acked(2 * N + 1, timeout=30)
    off = Client(server, "store-off@localhost/x").login(presence=True)
    assert bodies(off, N) == [f"offline {i}" for i in range(N)]
    off.ping()
    assert not off.take(lambda e: e.tag == q("c:message"))
    for c in (a, b, off):
        c.close()


def find_shards(server, jid):
    """(home, edge) of a session, from the CLI."""
    item = json.loads(server.cli("--json", "user", "sessions", jid).stdout)["items"][0]
    return int(item["home"].split("/")[1]), int(item["edge"].split("/")[1])


def placed(server, name, home, edge, sm=True):
    """A client with this home (accounts are tried) and this edge (connections are)."""
    for i in range(40):
        bare = f"{name}{i}@localhost"
        server.add_user(bare)
        for _ in range(40):
            c = Client(server, bare + "/x").login(sm=sm, presence=True)
            got = find_shards(server, bare)
            if got == (home, edge):
                return c
            c.close()
            if got[0] != home:
                break
    raise AssertionError("no account and connection fell where they should")


def test_kill_of_an_edge_whose_homes_live_lets_clients_resume_without_loss_or_doubling(server):
    home, edge = 0, 1
    a = placed(server, "edge-a", home, edge)
    b = placed(server, "edge-b", home, home) # the addressee stands on the shard that lives
    base = a.acked()
    sent = [a.message(b.jid, f"m {i}") for i in range(N)]
    server.kill_process("shard", edge)
    a.closed(stream_end=False)
    a.sock.close()
    new, answer = resume(server, a)
    assert answer.tag == q("sm:resumed"), answer.tag
    h = int(answer.get("h")) - base
    for i in range(h, N):
        new.send(f"<message to='{b.jid}' type='chat' id='{sent[i]}'><body>m {i}</body></message>")
    assert bodies(b, N) == [f"m {i}" for i in range(N)]
    new.message(b.jid, "end")
    b.expect_body("end")
    assert not b.take(lambda e: e.tag == q("c:message"))
    new.close()
    b.close()


def test_session_outlives_the_process_that_was_its_home_and_its_edge(server):
    """Nobody sees anything of it: the client resumes, and has what was sent to it meanwhile."""
    watcher, gone = placed(server, "sees-a", 0, 0), placed(server, "sees-c", 1, 1)
    befriend(watcher, gone)
    watcher.ping()
    watcher.backlog.clear()
    watcher.message(gone.jid, "before")
    gone.expect_body("before")
    server.kill_process("shard", 1)
    gone.closed(stream_end=False)
    gone.sock.close()
    watcher.message(gone.jid, "meanwhile")
    again, answer = resume(server, gone)
    assert answer.tag == q("sm:resumed"), answer.tag
    again.expect_body("meanwhile")
    barrier(again, watcher)
    assert not watcher.take(lambda e: e.tag == q("c:presence"))
    assert not again.take(lambda e: e.tag == q("c:message"))
    for c in (watcher, again):
        c.close()


def test_client_of_a_dead_home_whose_edge_lives_goes_on_without_noticing(server):
    watcher, b = placed(server, "goes-a", 0, 0), placed(server, "goes-b", 1, 0)
    befriend(watcher, b)
    watcher.ping()
    watcher.backlog.clear()
    server.kill_process("shard", 1)
    watcher.message(b.jid, "still there?")
    b.expect_body("still there?")
    b.message(watcher.jid, "yes")
    watcher.expect_body("yes")
    # It is available as before: a probe at a login of somebody who sees it is answered.
    late = Client(server, watcher.jid.split("/")[0] + "/late").login(presence=True)
    late.expect_presence(b.jid)
    made = re.search(r'^pemberley_sessions_reattached_total\{reason="home_died"\} (\d+)', server.get("/metrics"), re.M)
    assert int(made.group(1)) >= 1
    for c in (watcher, b, late):
        c.close()


def test_session_that_ends_with_its_connection_is_seen_to_go_when_home_and_edge_die(server):
    """Without XEP-0198 nobody can come back: whoever saw it sees that it is gone, by its full JID."""
    watcher, gone = placed(server, "ends-a", 0, 0), placed(server, "ends-c", 1, 1, sm=False)
    befriend(watcher, gone)
    watcher.ping()
    watcher.backlog.clear()
    server.kill_process("shard", 1)
    watcher.expect_presence(gone.jid, "unavailable")
    bare = gone.jid.split("/")[0]
    watcher.message(bare, "when you are back")
    again = Client(server, gone.jid).login(presence=True)
    again.expect_body("when you are back")
    watcher.expect_presence(gone.jid)
    barrier(again, watcher)
    assert not watcher.take(lambda e: e.tag == q("c:presence") and e.get("type") is not None)
    for c in (watcher, again):
        c.close()
