"""XEP-0352: Client State Indication, over two shards and across the death of the home."""

import json
import xml.etree.ElementTree as ET

from pemb import Client, NS, StreamError, befriend, q, resume

USERS = ("alice@localhost", "bob@localhost", "carol@localhost")
CSI = "urn:xmpp:csi:0"
LOGINS_MAX = 80


def state(c, name):
    c.send(f"<{name} xmlns='{CSI}'/>")


def shards_of(server, c):
    for item in json.loads(server.cli("--json", "user", "sessions", f"{c.user}@{c.host}").stdout)["items"]:
        if item["jid"] == c.jid:
            return tuple(int(item[k].split("/")[1]) for k in ("home", "edge"))
    raise AssertionError(c.jid)


def kinds(c):
    """What has come, in order."""
    return [(e.tag.split("}")[1], e.get("from"), e.get("type"), e.findtext("c:show", None, NS) or
             e.findtext("c:body", None, NS)) for e in c.take(lambda e: True)]


def friends(server, sm=False):
    alice, bob = (Client(server, f"{who}@localhost/x").login(presence=True, sm=sm) for who in ("alice", "bob"))
    roster = alice.iq("get", "<query xmlns='jabber:iq:roster'/>")[0]
    if not [i for i in roster if i.get("jid") == "bob@localhost" and i.get("subscription") == "both"]:
        befriend(alice, bob)
    else:
        alice.expect_presence(bob.jid)
    for c in (alice, bob):
        c.ping()
        c.backlog.clear()
    return alice, bob


def show(c, what):
    c.send(f"<presence><show>{what}</show></presence>")
    c.expect(lambda e: e.get("from") == c.jid and e.findtext("c:show", None, NS) == what)


def test_4_1_it_is_a_stream_feature_after_login(server):
    c = Client(server, "alice@localhost/x").login(bind=False)
    assert c.features.find("{%s}csi" % CSI) is not None
    c.sock.close()


def test_4_2_and_5_1_what_waited_comes_before_anything_else_and_in_order(server):
    alice, bob = friends(server)
    state(alice, "inactive")
    alice.ping()
    alice.backlog.clear()
    show(bob, "away")
    show(bob, "dnd")
    bob.send(f"<message to='{alice.jid}' type='chat'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>")
    bob.ping()
    bob.message(alice.jid, "wake up")
    alice.expect_body("wake up")
    assert kinds(alice) == [("presence", bob.jid, None, "dnd"), ("message", bob.jid, "chat", None)]
    show(bob, "xa")
    bob.ping()
    state(alice, "active")
    alice.ping() # 5.1: all of it is on the wire before the pong
    assert kinds(alice) == [("presence", bob.jid, None, "xa")]
    show(bob, "chat")
    alice.expect(lambda e: e.findtext("c:show", None, NS) == "chat")
    for c in (alice, bob):
        c.close()


def test_4_2_both_may_be_said_at_any_time_and_again(server):
    c = Client(server, "alice@localhost/x").login(presence=True)
    for name in ("active", "inactive", "inactive", "active", "active"):
        state(c, name)
        c.ping()
    c.send(f"<asleep xmlns='{CSI}'/>")  # no element of it
    try:
        c.ping()
        raise AssertionError("taken")
    except StreamError as e:
        assert e.condition == "unsupported-stanza-type"
    c.sock.close()


def test_5_presence_and_state_have_nothing_to_do_with_each_other(server):
    alice, bob = friends(server)
    state(alice, "inactive")
    show(bob, "dnd")
    alice.send("<presence><show>away</show></presence>")
    bob.expect(lambda e: e.get("from") == alice.jid and e.findtext("c:show", None, NS) == "away")
    bob.send(f"<presence type='probe' to='alice@localhost'/>")  # 6: nobody sees it
    answer = bob.expect_presence(alice.jid)
    assert "csi" not in ET.tostring(answer, "unicode")
    for c in (alice, bob):
        c.close()


def test_5_2_a_resumed_stream_is_active_and_has_what_waited(server):
    alice, bob = friends(server, sm=True)
    state(alice, "inactive")
    alice.ping()
    show(bob, "away")
    alice.drop()
    server.wait_log("event=session_detached .*jid=alice@localhost/x")
    show(bob, "dnd")
    alice, answer = resume(server, alice)
    assert answer.tag == q("sm:resumed")
    alice.expect(lambda e: e.findtext("c:show", None, NS) == "dnd")
    assert not [k for k in kinds(alice) if k[3] == "away"]
    show(bob, "xa")
    alice.expect(lambda e: e.findtext("c:show", None, NS) == "xa")
    for c in (alice, bob):
        c.close()


def on_other_shard(server, who):
    """A session whose home and edge are two shards."""
    for _ in range(LOGINS_MAX):
        c = Client(server, f"{who}@localhost/x").login(presence=True, sm=True)
        home, edge = shards_of(server, c)
        if home != edge:
            return c, home
        c.close()
    raise AssertionError("no connection came to the other shard")


def test_after_the_homes_death_an_inactive_client_learns_what_is_true(server):
    """What was held back is lost with the home; the new one asks the contacts anew."""
    friends_before = friends(server)
    for c in friends_before:
        c.close()
    alice, home = on_other_shard(server, "alice")
    stays, goes = (Client(server, f"bob@localhost/{r}").login(presence=True) for r in ("stays", "goes"))
    for c in (stays, goes):
        alice.expect_presence(c.jid)
    state(alice, "inactive")
    alice.ping()
    show(stays, "dnd")
    goes.close()  # alice has not heard of it
    stays.expect_presence(goes.jid, "unavailable")
    alice.backlog.clear()
    server.kill_process("shard", home)
    again = Client(server, "bob@localhost/again").login(presence=True)
    state(alice, "active")
    alice.expect_presence(again.jid)
    alice.ping()
    seen = kinds(alice)
    assert ("presence", "bob@localhost", "unavailable", None) in seen, seen
    assert not [k for k in seen if k[1] == goes.jid and k[2] is None], seen
    for c in (alice, again):
        c.close()
    stays.sock.close()
