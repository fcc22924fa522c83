"""kill -9 at a random moment of a chat in which senders and addressees stand in every placement of
edge and home on two shards (delivery.md 5 and 8, as far as one node goes). The oracle: what the server
acknowledged (<a h/>, <resumed h/>) arrives exactly once and in order; what it did not acknowledge at
most once. Who has lost a home notices a pause, who has lost an edge resumes, also when both were one
process. Nothing is excused.

Every second sender never sends again what was not counted when it resumed. PEMBERLEY_SEED replays a
run, PEMBERLEY_CHAOS is the number of kills of each kind."""

import json
import os
import random
import signal
import time

from pemb import Client, Closed, NS, TIMEOUT, q, resume

SEED = int(os.environ.get("PEMBERLEY_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 31)
ROUNDS = int(os.environ.get("PEMBERLEY_CHAOS", "2"))
PLACEMENTS = [(0, 0), (0, 1), (1, 0), (1, 1)]  # home, edge
LOGINS_MAX = 60
RESTART = 60 # what dies often is started ever later


def placement(server, bare):
    item = json.loads(server.cli("--json", "user", "sessions", bare).stdout)["items"][0]
    return int(item["home"].split("/")[1]), int(item["edge"].split("/")[1])


class Peer:
    """One account with one session, whatever becomes of its connection."""

    def __init__(self, server, bare, resends):
        self.server, self.bare, self.resends = server, bare, resends
        self.got = []       # (sender, number, delayed) in order of arrival
        self.counts = {}    # addressee -> numbers given so far
        self.confirmed = [] # (addressee, number): acknowledged
        self.login()

    def login(self):
        self.c = Client(self.server, self.bare + "/x").login(sm=True, presence=True)
        self.sent, self.acked = [None, None], 0 # the roster's iq and the presence

    def place(self):
        self.home, self.edge = placement(self.server, self.bare)

    def put(self, to, address, number):
        self.sent.append((to, number))
        try:
            self.c.send(f"<message to='{address}' type='chat' id='n{number}'>"
                        f"<body>{self.bare} {number}</body></message>")
        except OSError:
            pass # the server is to tell what it has

    def say(self, to, address):
        self.counts[to] = self.counts.get(to, 0) + 1
        self.put(to, address, self.counts[to])

    def ask(self):
        try:
            self.c.send("<r xmlns='urn:xmpp:sm:3'/>")
        except OSError:
            pass

    def collect(self):
        """Sorts what has come. Whether a stream error was among it."""
        ended = False
        for e in self.c.take(lambda e: True):
            if e.tag == q("sm:a"):
                self.count(int(e.get("h")))
            elif e.tag == q("stream:error"):
                ended = True
            elif e.tag == q("c:message"):
                assert e.get("type") == "chat", f"an error came back to {self.bare}"
                sender, number = e.findtext("c:body", None, NS).split()
                self.got.append((sender, int(number), e.find("delay:delay", NS) is not None))
        return ended

    def count(self, h):
        assert self.acked <= h <= len(self.sent), f"{self.bare}: h={h} of {len(self.sent)}"
        self.confirmed += [m for m in self.sent[self.acked:h] if m]
        self.acked = h

    def pump(self, seconds=0.0):
        """Reads for so long. False: the connection has ended."""
        try:
            while self.c._feed(time.monotonic() + seconds):
                if self.collect():
                    raise Closed()
            return True
        except (Closed, OSError):
            self.collect()
            return False

    def until_closed(self):
        deadline = time.monotonic() + TIMEOUT
        while self.pump(0.05):
            assert time.monotonic() < deadline, f"{self.bare}: nobody ended the stream"
        self.c.sock.close()

    def recover(self, addresses):
        old = self.c
        self.until_closed()
        self.c, answer = resume(self.server, old)
        assert answer.tag == q("sm:resumed"), f"{self.bare} could not resume"
        self.count(int(answer.get("h")))
        lost = self.sent[self.acked:]
        self.sent = self.sent[:self.acked]
        for m in lost:
            if m is None:
                self.sent.append(None)
                self.c.send("<presence/>")
            elif self.resends:
                self.put(m[0], addresses[m[0]], m[1])

    def settle(self):
        """Everything sent is acknowledged."""
        deadline = time.monotonic() + TIMEOUT
        self.ask()
        while self.acked < len(self.sent):
            assert self.pump(0.2), f"{self.bare}: the stream ended"
            assert time.monotonic() < deadline, f"{self.bare}: {self.acked} of {len(self.sent)}"
            self.ask()


class Chat:
    """Four senders and four addressees, one of each placement, and two addressees who are away."""

    def __init__(self, server, random, name):
        self.server, self.random = server, random
        self.senders = self.people(f"{name}-s")
        self.readers = self.people(f"{name}-r")
        self.away = [f"{name}-away{i}@localhost" for i in range(2)]
        for bare in self.away:
            server.add_user(bare)
        self.readers[0].c.answer_acks = self.readers[3].c.answer_acks = False
        self.history = [] # what was killed when, for a report
        # The bare JID for every second sender, the full one for the others.
        self.addresses = {}
        for i, s in enumerate(self.senders):
            own = {r.bare: r.bare + ("/x" if i & 2 else "") for r in self.readers}
            self.addresses[s.bare] = own | {bare: bare for bare in self.away}

    def people(self, name):
        """Accounts are made until there are two homes twice, connections until their edges fit."""
        wanted, found, tries = list(PLACEMENTS), [], 0
        while wanted:
            bare = f"{name}{tries}@localhost"
            self.server.add_user(bare)
            tries += 1
            p = Peer(self.server, bare, resends=len(found) % 2 == 0)
            p.place()
            for _ in range(LOGINS_MAX):
                if (p.home, p.edge) in wanted or all(h != p.home for h, _ in wanted):
                    break
                p.c.close()
                p.login()
                p.place()
            if (p.home, p.edge) in wanted:
                wanted.remove((p.home, p.edge))
                found.append(p)
            else:
                p.c.close()
            assert tries < LOGINS_MAX, "not every placement came about"
        return found

    def everybody(self):
        return self.senders + self.readers

    def talk(self, n):
        """n messages, each from anybody to anybody."""
        for _ in range(n):
            s = self.random.choice(self.senders)
            to = self.random.choice([r.bare for r in self.readers] + self.away)
            s.say(to, self.addresses[s.bare][to])
            dice = self.random.random()
            if dice < 0.1:
                s.ask()
            elif dice < 0.2:
                s.pump()
            elif dice < 0.25:
                self.random.choice(self.readers).pump(0.002)

    def standing(self):
        """Who stood where (home edge) and had sent how much."""
        return ", ".join(f"{p.bare.split('@')[0]} {p.home}{p.edge} {dict(p.counts) or ''}"
                         for p in self.everybody())

    def round(self, process, index):
        for p in self.everybody():
            p.place()
        n = self.random.randrange(60, 120)
        at = self.random.randrange(0, n)
        self.talk(at)
        if self.random.random() < 0.5:
            self.random.choice(self.senders).pump(0.02)
        self.history.append(f"{process} {index} killed after {self.standing()}")
        os.kill(self.server.pid_of(process, index), signal.SIGKILL)
        self.talk(self.random.randrange(0, n - at))
        self.server.wait_log(rf"event=process_died .*process={process} index={index}")
        self.server.wait_log(rf"event=process_started .*process={process} index={index}", RESTART)
        hit = [p for p in self.everybody() if process == "shard" and index == p.edge]
        self.random.shuffle(hit)
        for p in hit:
            p.recover(self.addresses.get(p.bare))
        self.verify()

    def verify(self):
        # One more to everybody, so that nothing can be behind what is looked at.
        for s in self.senders:
            for to in self.addresses[s.bare]:
                s.say(to, self.addresses[s.bare][to])
        for s in self.senders:
            s.settle()
        for r in self.readers:
            deadline = time.monotonic() + TIMEOUT
            wanted = {(s.bare, s.counts[r.bare]) for s in self.senders}
            while not wanted <= {(b, n) for b, n, _ in r.got}:
                assert r.pump(0.2), f"{r.bare}: the stream ended"
                assert time.monotonic() < deadline, \
                    f"{r.bare} misses {wanted - {(b, n) for b, n, _ in r.got}}"
        for s in self.senders:
            for r in self.readers:
                self.judge(s, r.bare, r.got)

    def judge(self, s, to, got):
        pair = f"{s.bare} -> {to}"
        mine = []
        for b, n, delayed in got:
            if b == s.bare:
                mine.append((n, delayed))
        numbers = [n for n, _ in mine]
        assert len(set(numbers)) == len(numbers), f"{pair}: twice: {numbers}"
        confirmed = {n for t, n in s.confirmed if t == to}
        missing = confirmed - set(numbers)
        assert not missing, f"{pair}: lost {sorted(missing)} of {numbers}"
        if self.addresses[s.bare][to] == to:
            ways = [numbers]
        else: # between login and presence a full JID gets live messages, not yet the stored ones
            ways = [[n for n, d in mine if d], [n for n, d in mine if not d]]
        for way in ways:
            assert way == sorted(way), f"{pair}: out of order: {way}"

    def finish(self):
        for bare in self.away:
            c = Client(self.server, bare + "/x").login(presence=True)
            wanted = {(s.bare, s.counts[bare]) for s in self.senders if bare in s.counts}
            got, deadline = [], time.monotonic() + TIMEOUT
            while not wanted <= {(b, n) for b, n, _ in got}:
                assert time.monotonic() < deadline, f"{bare} misses {wanted - {(b, n) for b, n, _ in got}}"
                c._feed(time.monotonic() + 0.2)
                for e in c.take(lambda e: e.tag == q("c:message")):
                    sender, number = e.findtext("c:body", None, NS).split()
                    got.append((sender, int(number), True))
            for s in self.senders:
                self.judge(s, bare, got)
            c.close()
        for p in self.everybody():
            p.c.close()


def run(server, kind, victims):
    dice = random.Random(f"{SEED} {kind}")
    chat = Chat(server, dice, kind)
    try:
        for _ in range(ROUNDS):
            chat.round(*dice.choice(victims))
        chat.finish()
    except AssertionError as e:
        raise AssertionError(f"PEMBERLEY_SEED={SEED} PEMBERLEY_CHAOS={ROUNDS}: {e}\n  "
                             + "\n  ".join(chat.history)) from e


def test_kill_of_a_shard_loses_doubles_and_swaps_nothing_that_was_acknowledged(server):
    run(server, "shard", [("shard", 0), ("shard", 1)])


def test_kill_of_the_store_worker_is_noticed_by_nobody(server):
    run(server, "store", [("store", 0)])
