"""People for the chaos tests: clients with XEP-0198 on direct TLS who talk at a steady rate, come back
whenever their connection goes (jittered, as good clients do), resume if they may, and write down what
they sent, what was acknowledged, and what they got when. The bytes of the stream are all that they
believe."""

import asyncio
import base64
import hashlib
import hmac
import random
import secrets
import ssl
import time
import xml.etree.ElementTree as ET

SM = "urn:xmpp:sm:3"
SASL = "urn:ietf:params:xml:ns:xmpp-sasl"
BIND = "urn:ietf:params:xml:ns:xmpp-bind"
CLIENT = "{jabber:client}"
STANZAS = (CLIENT + "message", CLIENT + "presence", CLIENT + "iq")
PATIENCE = 20.0  # of one attempt to come back


class Gone(Exception):
    """The connection, or this attempt at one."""


class Stream:
    """One connection until it goes."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer
        self.parser, self.depth, self.found = None, 0, []

    @classmethod
    async def open(cls, address, host):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["xmpp-client"])
        stream = cls(*await asyncio.open_connection(*address, ssl=context, server_hostname=host))
        return stream

    def send(self, text):
        self.writer.write(text.encode())

    async def header(self, host):
        self.parser, self.depth = ET.XMLPullParser(("start", "end")), 0
        self.send(f"<?xml version='1.0'?><stream:stream to='{host}' version='1.0' "
                  "xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>")
        return await self.next()

    async def next(self):
        """The next element of the stream."""
        while not self.found:
            data = await self.reader.read(65536)
            if not data:
                raise Gone("end")
            self.parser.feed(data)
            for event, e in self.parser.read_events():
                self.depth += 1 if event == "start" else -1
                if event == "end" and self.depth == 1:
                    self.found.append(e)
                elif event == "end" and self.depth == 0:
                    self.found.append(ET.Element("end"))
        return self.found.pop(0)

    async def expect(self, *tags):
        while True:
            e = await self.next()
            if e.tag in tags:
                return e
            if e.tag == "end" or e.tag.endswith("}error"):
                raise Gone(ET.tostring(e).decode())

    def close(self):
        self.writer.transport.abort()


class Keys:
    """SCRAM-SHA-1 with salted keys that are made once: hundreds come back at the same time."""

    def __init__(self, password):
        self.password, self.salted = password.encode(), {}

    async def login(self, stream, user):
        nonce = base64.b64encode(secrets.token_bytes(18)).decode()
        bare = f"n={user},r={nonce}"
        stream.send(f"<auth xmlns='{SASL}' mechanism='SCRAM-SHA-1'>"
                    f"{base64.b64encode(('n,,' + bare).encode()).decode()}</auth>")
        e = await stream.expect(f"{{{SASL}}}challenge", f"{{{SASL}}}failure")
        if e.tag.endswith("failure"):
            raise Gone(ET.tostring(e).decode())
        first = base64.b64decode(e.text).decode()
        had = dict(p.split("=", 1) for p in first.split(","))
        what = (had["s"], int(had["i"]))
        if what not in self.salted:
            self.salted[what] = hashlib.pbkdf2_hmac("sha1", self.password, base64.b64decode(what[0]), what[1])
        salted = self.salted[what]
        last = f"c=biws,r={had['r']}"
        key = hmac.digest(salted, b"Client Key", "sha1")
        said = f"{bare},{first},{last}".encode()
        signature = hmac.digest(hashlib.sha1(key).digest(), said, "sha1")
        proof = base64.b64encode(bytes(a ^ b for a, b in zip(key, signature))).decode()
        stream.send(f"<response xmlns='{SASL}'>{base64.b64encode(f'{last},p={proof}'.encode()).decode()}</response>")
        e = await stream.expect(f"{{{SASL}}}success", f"{{{SASL}}}failure")
        if e.tag.endswith("failure"):
            raise Gone(ET.tostring(e).decode())


class Person:
    def __init__(self, service, user, password, dice, sends_to=None):
        self.service, self.user, self.dice = service, user, dice
        self.keys = Keys(password)
        self.to = sends_to        # a bare JID, or None: one who listens
        self.number = 0           # of the last message
        self.out = []             # stanzas not yet acknowledged, as (number or None, text)
        self.h_in = self.h_out = 0
        self.previd = None        # of the session that may be resumed
        self.stream = None
        self.sent, self.acked = 0, set()
        self.got = []             # (sender, number, stored?, time)
        self.sessions = self.resumes = self.failed_resumes = 0
        self.fresh = False        # never had a stream: nothing to be late for
        self.task = None

    @property
    def bare(self):
        return f"{self.user}@{self.service.host}"

    # ---- its connection ----

    async def run(self):
        while True:
            try:
                await asyncio.wait_for(self.connect(), PATIENCE)
                self.service.online(self)
                await self.listen()
            except (Gone, OSError, ssl.SSLError, asyncio.TimeoutError, asyncio.IncompleteReadError,
                    ET.ParseError) as e:
                self.service.trouble(self, e)
            finally:
                if self.stream:
                    self.stream.close()
                self.stream = None
            await asyncio.sleep(self.dice.uniform(0.02, 0.3))

    async def connect(self):
        s = await Stream.open(self.service.address, self.service.host)
        self.half = s
        try:
            await s.header(self.service.host)
            await self.keys.login(s, self.user)
            await s.header(self.service.host)
            if not (self.previd and await self.resume(s)):
                await self.begin(s)
        except BaseException:
            s.close()
            raise
        self.stream = s

    async def resume(self, s):
        s.send(f"<resume xmlns='{SM}' previd='{self.previd}' h='{self.h_in}'/>")
        e = await s.expect(f"{{{SM}}}resumed", f"{{{SM}}}failed")
        if e.get("h") is not None:
            self.count(int(e.get("h")))
        if e.tag.endswith("failed"):
            self.failed_resumes += 1
            self.previd = None
            return False
        self.resumes += 1
        for _, text in self.out:
            s.send(text)
        return True

    async def begin(self, s):
        s.send(f"<iq type='set' id='b'><bind xmlns='{BIND}'><resource>x</resource></bind></iq>")
        e = await s.expect(CLIENT + "iq")
        if e.get("type") != "result":
            raise Gone(ET.tostring(e).decode())
        s.send(f"<enable xmlns='{SM}' resume='true'/>")
        e = await s.expect(f"{{{SM}}}enabled", f"{{{SM}}}failed")
        if e.tag.endswith("failed"):
            raise Gone("no stream management")
        self.previd, self.h_in, self.h_out = e.get("id"), 0, 0
        self.sessions += 1
        again, self.out = self.out, []
        self.stream = s
        self.put(None, "<presence/>")
        for number, _ in again:  # not acknowledged in the session that is over: may come twice
            if number is not None:
                self.service.doubt(self, number)

    # ---- what it does ----

    def put(self, number, text):
        self.out.append((number, text))
        if self.stream:
            self.stream.send(text)

    def say(self):
        self.number += 1
        self.put(self.number, f"<message to='{self.to}' type='chat' id='m{self.number}'>"
                              f"<body>{self.bare} {self.number}</body></message>")

    def ask(self):
        if self.stream:
            self.stream.send(f"<r xmlns='{SM}'/>")

    def count(self, h):
        n = (h - self.h_out) & 0xffffffff
        if n > len(self.out):
            self.service.fault(f"{self.bare}: h={h}, {self.h_out} before, {len(self.out)} on their way")
            return
        for number, _ in self.out[:n]:
            if number is not None:
                self.acked.add(number)
        del self.out[:n]
        self.h_out = h

    async def listen(self):
        s = self.stream
        while True:
            e = await s.next()
            if e.tag == f"{{{SM}}}r":
                s.send(f"<a xmlns='{SM}' h='{self.h_in}'/>")
            elif e.tag == f"{{{SM}}}a":
                self.count(int(e.get("h")))
            elif e.tag in STANZAS:
                self.h_in = (self.h_in + 1) & 0xffffffff
                self.take(e)
            else:
                raise Gone(ET.tostring(e).decode())

    def take(self, e):
        if e.tag != CLIENT + "message":
            return
        body = e.findtext(CLIENT + "body") or ""
        if e.get("type") == "error":
            self.service.fault(f"{self.bare} got an error for {body}")
            return
        sender, number = body.split()
        stored = e.find("{urn:xmpp:delay}delay") is not None
        self.got.append((sender, int(number), stored, time.monotonic()))
