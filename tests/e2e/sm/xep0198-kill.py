"""kill -9 of each process during a chat of XEP-0198 clients (delivery.md 8, as far as one node goes):
what was acknowledged arrives exactly once and in order."""

from pemb import Client, Closed, StreamError, befriend, q, resume

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
    import json
    item = json.loads(server.cli("--json", "user", "sessions", jid).stdout)["items"][0]
    return int(item["home"].split("/")[1]), int(item["edge"].split("/")[1])


def with_edge_apart(server, jid):
    """A client whose edge is another shard than its home."""
    for _ in range(40):
        c = Client(server, jid).login(sm=True, presence=True)
        home, edge = find_shards(server, jid.split("/")[0])
        if home != edge:
            return c, home, edge
        c.close()
    raise AssertionError("no connection fell to the other shard in 40 tries")


def test_kill_of_an_edge_whose_homes_live_lets_clients_resume_without_loss_or_doubling(server):
    server.add_user("edge-a@localhost")
    server.add_user("edge-b@localhost")
    a, home, edge = with_edge_apart(server, "edge-a@localhost/x")
    b = None
    for _ in range(40): # the addressee's connection on the shard that lives
        b = Client(server, "edge-b@localhost/x").login(sm=True, presence=True)
        if find_shards(server, "edge-b@localhost")[1] != edge and \
           find_shards(server, "edge-b@localhost")[0] != edge:
            break
        if find_shards(server, "edge-b@localhost")[0] == edge:
            b.close()
            b = None
            break
        b.close()
    if b is None: # its home is the shard to be killed: another account
        for i in range(20):
            server.add_user(f"edge-b{i}@localhost")
            b = Client(server, f"edge-b{i}@localhost/x").login(sm=True, presence=True)
            h, e = find_shards(server, f"edge-b{i}@localhost")
            if h != edge and e != edge:
                break
            b.close()
    base = a.acked()
    sent = [a.message(b.jid, f"m {i}") for i in range(N)]
    server.kill_process("shard", edge)
    try:
        while True:
            a._feed(__import__("time").monotonic() + 5)
    except (Closed, StreamError):
        pass
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
