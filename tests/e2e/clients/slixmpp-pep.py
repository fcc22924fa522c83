"""PEP with slixmpp: an avatar (XEP-0084), a mood and a node of one's own (XEP-0060), published by one
person and seen by the other, whose client says by its caps what it wants (XEP-0115, XEP-0163)."""

import asyncio
import logging

import slixmpp

USERS = ("alice@localhost", "bob@localhost")
PLAIN = False
logging.getLogger("slixmpp").setLevel(logging.CRITICAL)


class Person(slixmpp.ClientXMPP):
    def __init__(self, jid):
        super().__init__(jid, "secret-password")
        self.events = asyncio.Queue()
        for plugin in ("xep_0030", "xep_0060", "xep_0115", "xep_0163", "xep_0084", "xep_0107", "xep_0199"):
            self.register_plugin(plugin)
        self.auto_authorize = self.auto_subscribe = True
        for name in ("session_start", "presence_available", "user_mood_publish", "avatar_metadata_publish",
                     "disconnected"):
            self.add_event_handler(name, lambda e, n=name: self.events.put_nowait((n, e)))

    async def until(self, name, test=lambda e: True):
        async def wait():
            while True:
                got, event = await self.events.get()
                if got == name and test(event):
                    return event
        return await asyncio.wait_for(wait(), 15)


async def log_in(server, jid, wants=()):
    person = Person(jid)
    person.ca_certs = str(server.dir / "localhost.pem")
    person.connect(("127.0.0.1", server.tls_port), use_ssl=True, disable_starttls=True)
    await person.until("session_start")
    await person.get_roster()
    for node in wants:
        person["xep_0163"].add_interest(node)
    person.send_presence()
    return person


async def scenario(server):
    alice = await log_in(server, "alice@localhost")
    bob = await log_in(server, "bob@localhost")
    alice.send_presence_subscription("bob@localhost")
    await alice.until("presence_available", lambda p: p["from"].bare == "bob@localhost")
    await bob.until("presence_available", lambda p: p["from"].bare == "alice@localhost")

    picture = b"a picture"
    await alice["xep_0084"].publish_avatar(picture)
    id = alice["xep_0084"].generate_id(picture)
    await alice["xep_0084"].publish_avatar_metadata({"id": id, "type": "image/png", "bytes": len(picture)})
    event = await bob.until("avatar_metadata_publish")
    assert event["from"].bare == "alice@localhost"
    assert event["pubsub_event"]["items"]["item"]["avatar_metadata"]["items"][0]["id"] == id
    data = await bob["xep_0084"].retrieve_avatar("alice@localhost", id)
    assert data["pubsub"]["items"]["item"]["avatar_data"]["value"] == picture

    await alice["xep_0107"].publish_mood("happy", "it works")
    event = await bob.until("user_mood_publish")
    assert event["pubsub_event"]["items"]["item"]["mood"]["value"] == "happy"

    me = alice["xep_0060"]
    await me.create_node(alice.boundjid.bare, "urn:test:node")
    form = await me.get_node_config(alice.boundjid.bare, "urn:test:node")
    assert form["pubsub_owner"]["configure"]["form"].get_values()["pubsub#access_model"] == "presence"
    await me.delete_node(alice.boundjid.bare, "urn:test:node")
    for person in (alice, bob):
        person.disconnect()
        await person.until("disconnected")


def test_avatar_mood_and_a_node(server):
    asyncio.run(scenario(server))
