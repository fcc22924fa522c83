"""Two people with slixmpp, one over STARTTLS, one over direct TLS: log in, subscribe to each other, see
presence, chat; one logs off, is written to, logs in again and receives it with its delay stamp."""

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
        self.register_plugin("xep_0030")
        self.register_plugin("xep_0199")
        self.register_plugin("xep_0198")
        self.register_plugin("xep_0203")
        self.auto_authorize = True
        self.auto_subscribe = True
        for name in ("session_start", "message", "presence_available", "presence_unavailable",
                     "presence_subscribed", "disconnected", "failed_auth"):
            self.add_event_handler(name, lambda e, n=name: self.events.put_nowait((n, e)))

    async def until(self, name, test=lambda e: True):
        async def wait():
            while True:
                got, event = await self.events.get()
                if got == name and test(event):
                    return event
        return await asyncio.wait_for(wait(), 15)


async def log_in(server, jid, direct):
    person = Person(jid)
    person.ca_certs = str(server.dir / "localhost.pem") # self-signed: its own authority
    port = server.tls_port if direct else server.port
    person.connect(("127.0.0.1", port), use_ssl=direct, force_starttls=not direct,
                   disable_starttls=direct)
    await person.until("session_start")
    roster = await person.get_roster()
    assert roster["type"] == "result"
    person.send_presence()
    return person


async def log_off(person):
    person.disconnect()
    await person.until("disconnected")


async def scenario(server):
    alice = await log_in(server, "alice@localhost", direct=False)
    bob = await log_in(server, "bob@localhost", direct=True)
    alice.send_presence_subscription("bob@localhost")
    await alice.until("presence_available", lambda p: p["from"].bare == "bob@localhost")
    await bob.until("presence_available", lambda p: p["from"].bare == "alice@localhost")
    assert alice.client_roster["bob@localhost"]["subscription"] == "both"

    alice.send_message("bob@localhost", "hello bob", mtype="chat")
    got = await bob.until("message")
    assert got["body"] == "hello bob" and got["from"].full == alice.boundjid.full
    got.reply("hello alice").send()
    assert (await alice.until("message"))["body"] == "hello alice"

    await log_off(bob)
    await alice.until("presence_unavailable", lambda p: p["from"].bare == "bob@localhost")
    for i in range(3):
        alice.send_message("bob@localhost", f"while you were away {i}", mtype="chat")
    await alice["xep_0199"].send_ping("localhost")
    bob = await log_in(server, "bob@localhost", direct=True)
    for i in range(3):
        late = await bob.until("message")
        assert late["body"] == f"while you were away {i}", late
        assert late["delay"]["stamp"] is not None and late["delay"]["from"] == "localhost", late
    await log_off(bob)
    await log_off(alice)


def test_two_people_chat_over_starttls_and_direct_tls(server):
    asyncio.run(scenario(server))
