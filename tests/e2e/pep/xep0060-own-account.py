"""XEP-0060 and XEP-0163 on one's own account: publish, retrieve, retract, create, configure, purge,
delete; the errors that the XEP names; what is committed outlives the shard."""

import os
import signal

from pemb import Client, NS, condition
from pep import (PS, config, configure, form, ids, items, owner, publish, retract, why)

USERS = ("alice@localhost", "bob@localhost", "carol@localhost")
SETTINGS = ("modules.pep.items_max=5", "modules.pep.nodes_max=4", "modules.pep.item_max=4k")
MOOD = "http://jabber.org/protocol/mood"


def clear(c):
    for n in [a.get("node") for a in c.iq("get", f"<pubsub xmlns='{PS}'><affiliations/></pubsub>").iter(
            "{%s}affiliation" % PS)]:
        owner(c, "set", f"<delete node='{n}'/>")


def test_7_1_publish_makes_the_node_and_answers_with_the_id(server):
    a = Client(server, "alice@localhost/1").login()
    clear(a)
    r = publish(a, MOOD, "<mood xmlns='urn:m'><happy/></mood>", "one")
    assert r.find("ps:pubsub/ps:publish", NS).get("node") == MOOD
    assert r.find("ps:pubsub/ps:publish/ps:item", NS).get("id") == "one"
    got = items(a, MOOD)
    assert [i.get("id") for i in got] == ["one"] and got[0][0].tag == "{urn:m}mood"
    made = publish(a, MOOD).find("ps:pubsub/ps:publish/ps:item", NS).get("id")
    assert ids(a, MOOD) == [made], "max_items 1: the new one alone"
    conf = config(a, MOOD)
    assert conf["pubsub#access_model"] == ["presence"] and conf["pubsub#max_items"] == ["1"]
    assert conf["pubsub#send_last_published_item"] == ["on_sub_and_presence"]
    a.close()


def test_7_1_3_bad_publications(server):
    a = Client(server, "alice@localhost/1").login()
    clear(a)

    def pub(inner):
        return why(a.iq("set", f"<pubsub xmlns='{PS}'>{inner}</pubsub>", check=False))
    bad = ("bad-request", "modify")
    assert pub("<publish><item><x xmlns='u'/></item></publish>") == (*bad, "nodeid-required")
    assert pub("<publish node='n'/>") == (*bad, "item-required")
    assert pub("<publish node='n'><item/></publish>") == (*bad, "payload-required")
    assert pub("<publish node='n'><item><x xmlns='u'/><y xmlns='u'/></item></publish>") == (
        *bad, "invalid-payload")
    assert pub("<publish node='n'><item><x xmlns='u'/></item><item><x xmlns='u'/></item></publish>") == (
        *bad, "invalid-payload")
    assert pub(f"<publish node='n'><item><x xmlns='u'>{'x' * 5000}</x></item></publish>") == (
        "not-acceptable", "modify", "payload-too-big")
    assert pub("") == (*bad, None)
    assert pub("<dance node='n'/>")[0] == "feature-not-implemented"
    assert why(items(a, "n", check=False)) == ("item-not-found", "cancel", None), "nothing half-written"
    a.close()


def test_quotas(server):
    a = Client(server, "alice@localhost/1").login()
    clear(a)
    for n in "abcd":
        publish(a, n)
    assert condition(publish(a, "e", check=False)) == ("resource-constraint", "wait")
    assert condition(a.iq("set", f"<pubsub xmlns='{PS}'><create node='e'/></pubsub>", check=False)) == (
        "resource-constraint", "wait")
    configure(a, "a", {"pubsub#max_items": "max"})
    for i in range(7):
        publish(a, "a", id=f"i{i}")
    assert ids(a, "a") == ["i6", "i5", "i4", "i3", "i2"], "modules.pep.items_max"
    configure(a, "a", {"pubsub#max_items": "2"})
    assert ids(a, "a") == ["i6", "i5"]
    a.close()


def test_7_1_5_publish_options(server):
    a = Client(server, "alice@localhost/1").login()
    clear(a)
    opts = {"pubsub#access_model": "whitelist", "pubsub#persist_items": "true", "pubsub#max_items": "max"}
    publish(a, "n", id="1", opts=opts)
    assert config(a, "n")["pubsub#access_model"] == ["whitelist"], "of a node that is made: its configuration"
    publish(a, "n", id="2", opts=opts)
    for wrong in ({"pubsub#access_model": "open"}, {"pubsub#unheard_of": "1"}, {"pubsub#max_items": "3"}):
        assert why(publish(a, "n", id="3", opts=wrong, check=False)) == (
            "conflict", "cancel", "precondition-not-met")
    assert ids(a, "n") == ["2", "1"]
    assert why(publish(a, "m", opts={"pubsub#access_model": "nobody"}, check=False))[0] == "conflict"
    assert why(items(a, "m", check=False))[0] == "item-not-found"
    a.close()


def test_6_5_retrieve_by_id_by_number_and_in_pages(server):
    a = Client(server, "alice@localhost/1").login()
    clear(a)
    for i in range(5):
        publish(a, "n", id=str(i), opts={"pubsub#max_items": "max"})
    assert ids(a, "n", attrs="max_items='2'") == ["4", "3"]
    assert ids(a, "n", inner="<item id='1'/><item id='9'/><item id='3'/>") == ["1", "3"]
    rsm = "<set xmlns='http://jabber.org/protocol/rsm'><max>2</max>%s</set>"
    r = items(a, "n", check=False, after=rsm % "")
    s = r.find("ps:pubsub/rsm:set", NS) if r.find("ps:pubsub/rsm:set", NS) is not None else r.find(
        "ps:pubsub", NS).find("rsm:set", NS)
    assert (s.findtext("rsm:first", None, NS), s.findtext("rsm:last", None, NS),
            s.findtext("rsm:count", None, NS)) == ("4", "3", "5")
    assert ids(a, "n", after=rsm % "<after>3</after>") == ["2", "1"]
    assert condition(items(a, "n", check=False, after=rsm % "<after>no</after>")) == ("item-not-found", "cancel")
    assert condition(items(a, "n", check=False, attrs="max_items='-1'"))[0] == "bad-request"
    assert len(ids(a, "n", attrs="max_items='999999999'")) == 5
    assert condition(items(a, "none", check=False)) == ("item-not-found", "cancel")
    a.close()


def test_7_2_retract_8_5_purge_8_4_delete(server):
    a = Client(server, "alice@localhost/1").login()
    clear(a)
    for i in range(3):
        publish(a, "n", id=str(i), opts={"pubsub#max_items": "5"})
    retract(a, "n", "1")
    assert ids(a, "n") == ["2", "0"]
    assert condition(retract(a, "n", "1", check=False)) == ("item-not-found", "cancel")
    assert why(a.iq("set", f"<pubsub xmlns='{PS}'><retract node='n'><item/></retract></pubsub>", check=False)) == (
        "bad-request", "modify", "item-required")
    owner(a, "set", "<purge node='n'/>")
    assert ids(a, "n") == []
    owner(a, "set", "<delete node='n'/>")
    assert condition(owner(a, "set", "<delete node='n'/>", check=False)) == ("item-not-found", "cancel")
    assert why(owner(a, "set", "<purge/>", check=False)) == ("bad-request", "modify", "nodeid-required")
    a.close()


def test_8_1_create_and_8_2_configure(server):
    a = Client(server, "alice@localhost/1").login()
    clear(a)
    a.iq("set", f"<pubsub xmlns='{PS}'><create node='n'/><configure>"
         f"{form('node_config', {'pubsub#title': 'A &amp; B', 'pubsub#access_model': 'open'})}</configure></pubsub>")
    assert config(a, "n")["pubsub#title"] == ["A & B"] and config(a, "n")["pubsub#access_model"] == ["open"]
    create = f"<pubsub xmlns='{PS}'><create%s/></pubsub>"
    assert condition(a.iq("set", create % " node='n'", check=False)) == ("conflict", "cancel")
    assert why(a.iq("set", create % "", check=False)) == ("not-acceptable", "modify", "nodeid-required")
    assert condition(configure(a, "n", {"pubsub#access_model": "x"}, check=False)) == ("not-acceptable", "modify")
    assert condition(owner(a, "set", "<configure node='n'/>", check=False)) == ("bad-request", "modify")
    owner(a, "set", "<configure node='n'><x xmlns='jabber:x:data' type='cancel'/></configure>")
    configure(a, "n", {"pubsub#persist_items": "0", "pubsub#title": ""})
    assert config(a, "n")["pubsub#persist_items"] == ["0"] and config(a, "n")["pubsub#title"] == []
    publish(a, "n", id="gone")
    assert ids(a, "n") == [], "not kept"
    d = owner(a, "get", "<default/>")
    assert d.find("own:pubsub/own:default/x:x", NS) is not None
    a.close()


def test_another_account_is_refused_whether_it_exists_or_not(server):
    a = Client(server, "alice@localhost/1").login()
    b = Client(server, "bob@localhost/1").login()
    clear(a)
    publish(a, "closed", opts={"pubsub#access_model": "whitelist"})
    publish(a, "friends")
    publish(a, "open", id="o", opts={"pubsub#access_model": "open"})
    assert ids(b, "open", to="alice@localhost") == ["o"]
    assert why(items(b, "closed", to="alice@localhost", check=False)) == ("not-allowed", "cancel", "closed-node")
    assert why(items(b, "friends", to="alice@localhost", check=False)) == (
        "not-authorized", "auth", "presence-subscription-required")
    forbidden = ("forbidden", "auth", None)
    for to in ("alice@localhost", "nobody@localhost", "carol@localhost"):
        assert why(items(b, "none", to=to, check=False)) == ("item-not-found", "cancel", None)
        for n in ("none", "open", "closed"):
            assert why(publish(b, n, to=to, check=False)) == forbidden
            assert why(retract(b, n, "o", to=to, check=False)) == forbidden
            for verb in ("delete", "purge", "affiliations", "subscriptions"):
                assert why(owner(b, "set", f"<{verb} node='{n}'/>", to=to, check=False)) == forbidden, (to, n, verb)
            assert why(owner(b, "get", f"<configure node='{n}'/>", to=to, check=False)) == forbidden
        assert why(b.iq("set", f"<pubsub xmlns='{PS}'><create node='x'/></pubsub>", to=to, check=False)) == forbidden
    a.close(), b.close()


def test_what_was_answered_outlives_the_shard(server):
    a = Client(server, "carol@localhost/1").login(sm=True)
    clear(a)
    for i in range(20):
        publish(a, "n", id=str(i % 7), opts={"pubsub#max_items": "max"})
    for shard in (0, 1):
        os.kill(server.pid_of("shard", shard), signal.SIGKILL)
        server.wait_log(rf"event=process_started .*process=shard index={shard}")
    a.drop()
    b = Client(server, "carol@localhost/2").login()
    assert ids(b, "n") == ["5", "4", "3", "2", "1"]
    assert config(b, "n")["pubsub#max_items"] == ["max"]
    b.close()
