"""The archive when processes die: kill -9 of homes and of the store worker."""

import json
import time

from pemb import Client, NS, Server, q

MAM, RESULT = "urn:xmpp:mam:2", "{urn:xmpp:mam:2}result"
SID = "{urn:xmpp:sid:0}stanza-id"
N = 40


def archive(client):
    client.iq("set", f"<query xmlns='{MAM}'><set xmlns='http://jabber.org/protocol/rsm'>"
                     "<max>250</max></set></query>")
    rows = [e.find(RESULT) for e in client.take(lambda e: e.find(RESULT) is not None)]
    return [(r.get("id"), next(r.iter(q("c:body"))).text) for r in rows]


def placed(server, name, home, edge):
    for i in range(60):
        jid = f"{name}{i}@localhost"
        server.add_user(jid)
        for _ in range(40):
            c = Client(server, jid + "/x").login(sm=True, presence=True)
            item = json.loads(server.cli("--json", "user", "sessions", jid).stdout)["items"][0]
            got = int(item["home"].split("/")[1]), int(item["edge"].split("/")[1])
            if got == (home, edge):
                return c
            c.close()
            if got[0] != home:
                break
    raise AssertionError("no account fell where it should")


def test_the_death_of_the_addressees_home_changes_no_id_and_loses_no_row(server):
    a, b = placed(server, "arc-a", 0, 0), placed(server, "arc-b", 1, 0)
    to, live = b.jid.split("/")[0], {}
    for i in range(N):
        a.message(to, f"m {i}")
        if i == N // 2:
            server.kill_process("shard", 1)
    for i in range(N):
        m = b.expect("c:message", timeout=30)
        assert m.findtext("c:body", None, NS) == f"m {i}"
        live[f"m {i}"] = m.find(SID).get("id")
    a.wait_acked(N + 1, timeout=30) # and its presence
    rows = archive(b)
    assert [body for _, body in rows] == [f"m {i}" for i in range(N)]
    assert all(live[body] == id for id, body in rows)
    assert [body for _, body in archive(a)] == [f"m {i}" for i in range(N)]
    a.close(), b.close()


def test_the_death_of_the_senders_home_loses_no_row_and_doubles_none(server):
    a, b = placed(server, "ars-a", 1, 0), placed(server, "ars-b", 0, 0)
    to = b.jid.split("/")[0]
    for i in range(N):
        a.message(to, f"m {i}")
        if i == N // 2:
            server.kill_process("shard", 1)
    for i in range(N):
        assert b.expect("c:message", timeout=30).findtext("c:body", None, NS) == f"m {i}"
    a.wait_acked(N + 1, timeout=30)
    for c in (a, b):
        assert [body for _, body in archive(c)] == [f"m {i}" for i in range(N)]
    a.close(), b.close()


def test_what_was_acknowledged_is_archived_when_the_store_worker_dies(server):
    for who in ("ark-a", "ark-b"):
        server.add_user(f"{who}@localhost")
    a, b = (Client(server, f"{w}@localhost/x").login(sm=True, presence=True) for w in ("ark-a", "ark-b"))
    for i in range(N):
        a.message("ark-b@localhost", f"m {i}")
        if i == N // 2:
            server.kill_process("store")
    a.wait_acked(N + 1, timeout=30)
    for c in (a, b):
        assert [body for _, body in archive(c)] == [f"m {i}" for i in range(N)]
    a.close(), b.close()


def test_an_archive_is_cut_to_its_number_in_the_background():
    server = Server(hosts=("localhost",), host_options="archive_max = 5")
    try:
        server.add_user("old@localhost")
        c = Client(server, "old@localhost/x").login(presence=True)
        for i in range(12):
            c.message("old@localhost", f"m {i}")
            c.expect_body(f"m {i}")
        assert len(archive(c)) == 12
        c.close()
        server.stop()
        server.start() # a pass begins
        c = Client(server, "old@localhost/x").login()
        deadline = time.monotonic() + 20
        while len(rows := archive(c)) > 5:
            assert time.monotonic() < deadline, len(rows)
        assert [body for _, body in rows] == [f"m {i}" for i in range(7, 12)]
        c.close()
    finally:
        server.stop()
