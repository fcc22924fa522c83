"""XEP-0402 with #compat: rooms bookmarked in private XML (XEP-0048, XEP-0049) and by PEP are the same."""

from pemb import Client, NS
from pep import config, event, ids, items, online, publish, retract

USERS = ("alice@localhost", "bob@localhost", "carol@localhost")
NEW, OLD = "urn:xmpp:bookmarks:1", "{storage:bookmarks}"
PRIVATE = "<query xmlns='jabber:iq:private'><storage xmlns='storage:bookmarks'>%s</storage></query>"


def rooms(c):
    s = c.iq("get", PRIVATE % "").find("{jabber:iq:private}query")[0]
    assert s.tag == OLD + "storage"
    return {r.get("jid"): (r.get("name"), r.get("autojoin"), r.findtext(OLD + "nick")) for r in s.findall(OLD + "conference")}, s


def test_4_compat_private_xml_is_a_view(server):
    a = online(Client(server, "alice@localhost/a").login(), [NEW], ask=True)
    assert rooms(a)[0] == {}
    a.iq("set", PRIVATE % ("<conference jid='One@rooms.example' name='A &amp; B' autojoin='1'><nick>me</nick></conference>"
                           "<conference jid='two@rooms.example'/><url name='x' url='http://x/'/>"
                           "<conference jid='@'/><conference/>"))
    assert sorted(ids(a, NEW)) == ["one@rooms.example", "two@rooms.example"]
    assert config(a, NEW)["pubsub#access_model"] == ["whitelist"] and config(a, NEW)["pubsub#max_items"] == ["max"]
    seen = {event(a, NEW)[1][0].get("id") for _ in range(2)}
    assert seen == {"one@rooms.example", "two@rooms.example"}
    want = {"one@rooms.example": ("A & B", "true", "me"), "two@rooms.example": (None, None, None)}
    got, storage = rooms(a)
    assert got == want and storage.find(OLD + "url").get("url") == "http://x/"
    publish(a, NEW, f"<conference xmlns='{NEW}' name='Three' autojoin='true'><nick>n</nick></conference>", "three@rooms.example")
    assert rooms(a)[0]["three@rooms.example"] == ("Three", "true", "n")
    retract(a, NEW, "two@rooms.example")
    assert "two@rooms.example" not in rooms(a)[0]
    a.ping(), a.backlog.clear()
    a.iq("set", PRIVATE % "<conference jid='one@rooms.example' name='A &amp; B' autojoin='true'><nick>me</nick></conference>")
    what = event(a, NEW)[1]
    assert what[0].tag == "{%s}retract" % NS["ev"] and what[0].get("id") == "three@rooms.example"
    a.ping()
    assert not [e for e in a.backlog if e.find("ev:event", NS) is not None], "what has not changed is not published"
    assert set(rooms(a)[0]) == {"one@rooms.example"}
    a.close()


def test_another_one_sees_nothing(server):
    a = Client(server, "carol@localhost/a").login()
    a.iq("set", PRIVATE % "<conference jid='r@rooms.example'/>")
    b = Client(server, "bob@localhost/b").login()
    assert items(b, NEW, to="carol@localhost", check=False).get("type") == "error"
    a.close(), b.close()
