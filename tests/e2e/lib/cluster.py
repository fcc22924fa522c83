"""A cluster of the tests' own: Redis, PostgreSQL and nodes a, b, … on loopback addresses that nobody
else has, with identities as an operator makes them. What a real cluster has on several machines is
here on one; kill() ends a node as a power cut would."""

import atexit
import ctypes
import json
import os
import pathlib
import queue
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

import pemb
from pemb import BIN, TIMEOUT


def end_with_us():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def is_alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


class Redis:
    """Debian has the server in one binary with redis-check-rdb, which goes by the name it is called
    with."""

    def __init__(self, address):
        self.address = address
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="pemberley-redis-"))
        atexit.register(shutil.rmtree, self.dir, True)
        self.process = None
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            ["redis-server", "--bind", self.address, "--port", "6379", "--save", "", "--appendonly",
             "no", "--protected-mode", "no"], executable="/usr/bin/redis-check-rdb", cwd=self.dir,
            preexec_fn=end_with_us, stdout=open(self.dir / "log", "a"), stderr=subprocess.STDOUT)
        deadline = time.monotonic() + 10
        while True:
            try:
                with socket.create_connection((self.address, 6379), 1) as s:
                    s.sendall(b"PING\r\n")
                    if s.recv(64).startswith(b"+PONG"):
                        return
            except OSError:
                pass
            assert time.monotonic() < deadline and self.process.poll() is None, \
                (self.dir / "log").read_text()[-2000:]
            time.sleep(0.02)

    def pause(self):
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self):
        self.process.send_signal(signal.SIGCONT)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def ask(self, *words):
        r = subprocess.run(["redis-cli", "-h", self.address, *words], capture_output=True, text=True,
                           timeout=TIMEOUT, check=True)
        return r.stdout.strip()


class Node(pemb.Server):
    def __init__(self, cluster, name, address, shards, settings, directory=None):
        self.cluster, self.name, self.address, self.shards = cluster, name, address, shards
        self.dir = cluster.dir / (directory or name)
        self.dir.mkdir()
        self.hosts = ("localhost",)
        self.port, self.tls_port, self.http_port, self.bus_port = 5222, 5223, 5290, 5275
        self.env = dict(os.environ)
        self.env.setdefault("ASAN_OPTIONS", "detect_leaks=0:abort_on_error=1")
        self.log, self.wrap, self.settings = [], [], list(settings)
        if pemb.LOOP:
            self.settings.append(f"node.loop={pemb.LOOP}")
        self.conf = self.dir / "pemberley.conf"
        self._certificates()
        self.conf.write_text(f"""
node {{ name = {name} data_dir = "{self.dir}/data" run_dir = "{self.dir}/run" shards = {shards} }}
listen {{
    c2s {{ address = {{{address}:5222}} plain_from = {{127.0.0.0/8}} }}
    c2s_tls {{ address = {{{address}:5223}} }}
    metrics {{ address = {{{address}:5290}} }}
    bus {{ address = {address}:5275 }}
}}
cluster {{ name = derby }}
registry {{ kind = redis redis {{ servers = {{"{cluster.redis.address}:6379"}} }} }}
store {{
    kind = postgres
    postgres {{ hosts = {{"{cluster.postgres.dir}"}} database = {cluster.database} connections = 2 }}
}}
host "localhost" {{
    certificate_file = "{self.dir}/localhost.pem"
    key_file = "{self.dir}/localhost.key"
}}
""")
        self.process = None
        atexit.register(self.kill)

    def spawn(self):
        """Without waiting for it to become ready."""
        command = [str(BIN / "pemberley"), "--config", str(self.conf), "run"]
        for s in self.settings:
            command += ["--set", s]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, env=self.env,
                                        preexec_fn=end_with_us)
        self.lines = queue.Queue()
        self.reader = threading.Thread(target=self._read, args=(self.process, self.lines),
                                       daemon=True)
        self.reader.start()

    def wait_end(self):
        """It has ended: its last words are in the log."""
        self.reader.join(TIMEOUT)

    def start(self):
        self.spawn()
        self.wait_ready()

    def wait_ready(self):
        self.wait_log("event=node_ready", timeout=60)

    def pids(self):
        """The supervisor's, its shards' and its store worker's."""
        children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [self.process.pid, *map(int, children.read_text().split())]

    def freeze(self):
        """All at once, as a machine that is paused."""
        self.frozen = self.pids()
        for pid in self.frozen:
            os.kill(pid, signal.SIGSTOP)

    def thaw(self):
        for pid in self.frozen:
            os.kill(pid, signal.SIGCONT)

    def kill(self):
        """kill -9 of all of it: nobody has time to say anything."""
        if not self.process or self.process.poll() is not None:
            return
        os.kill(self.process.pid, signal.SIGSTOP)  # it starts nobody any more
        pids = self.pids()
        for sig in (signal.SIGSTOP, signal.SIGKILL):
            for pid in pids:
                try:
                    os.kill(pid, sig)
                except ProcessLookupError:
                    pass
        self.process.wait()
        deadline = time.monotonic() + 10
        while any(map(is_alive, pids)):  # its children hold its lock
            assert time.monotonic() < deadline
            time.sleep(0.002)

    def listing(self):
        return json.loads(self.cli("--json", "node", "list").stdout)

    def metric(self, name):
        """The sum of a family's samples, or of those with these labels, as told now."""
        total, name = 0, "pemberley_" + name.rstrip("}")
        for line in self.get("/metrics").splitlines():
            if line.startswith(name) and line[len(name)] in "{ },":
                total += float(line.rsplit(" ", 1)[1])
        return total


    def wait_metric(self, name, least):
        deadline = time.monotonic() + TIMEOUT
        while self.metric(name) < least:  # shards count once a second
            assert time.monotonic() < deadline, (name, self.metric(name), least)
            time.sleep(0.05)


    def wait_open(self):
        """Until clients are let in (again)."""
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection((self.address, self.port), 1).close()
                return
            except OSError as e:
                assert time.monotonic() < deadline, e
                time.sleep(0.05)

    def wait_closed(self):
        """Until nobody is let in."""
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection((self.address, self.port), 1).close()
            except ConnectionRefusedError:
                return
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def has_logged(self, pattern):
        return any(re.search(pattern, line) for line in self.log)

    def wait_slots(self, names):
        """Until these nodes, and nobody else, own all slots in a view that is settled."""
        deadline = time.monotonic() + 30
        while True:
            listing = self.listing()
            owners = "".join(sorted(i["name"] for i in listing["items"] if i["slots"]))
            if owners == names and listing["settled"] and listing["slots"] == 16384:
                return
            assert time.monotonic() < deadline, listing
            time.sleep(0.05)


class Cluster:
    def __init__(self, names="abc", shards=2, settings=()):
        net = f"127.{secrets.randbelow(200) + 20}.{secrets.randbelow(250) + 1}"
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="pemberley-cluster-"))
        atexit.register(shutil.rmtree, self.dir, True)
        self.net = net
        self.redis = Redis(f"{net}.10")
        atexit.register(self.redis.kill)
        self.postgres = pemb.cluster()
        self.database = self.postgres.database()
        self.settings = settings
        self.nodes = {}
        for i, name in enumerate(names):
            self.add(name, shards if isinstance(shards, int) else shards[i])
        self.start()

    def add(self, name, shards=2):
        """One more, with its identity; not started."""
        node = Node(self, name, f"{self.net}.{11 + len(self.nodes)}", shards, self.settings)
        if not self.nodes:
            node.cli("cluster", "init", "derby")
        else:
            first = next(iter(self.nodes.values()))
            token = first.cli("cluster", "join-token", name).stdout
            node.cli("cluster", "join", stdin=token)
        self.nodes[name] = node
        return node

    def __getitem__(self, name):
        return self.nodes[name]

    def start(self):
        for node in self.nodes.values():
            node.spawn()
        for node in self.nodes.values():
            node.wait_ready()

    def stop(self):
        for node in self.nodes.values():
            if node.process and node.process.poll() is None:
                node.stop()
        self.redis.kill()

    def kill(self):
        for node in self.nodes.values():
            node.kill()
        self.redis.kill()


class Talker:
    """A client with XEP-0198 that says `count` messages to its partner, and takes what that says, as
    fast as it may; when its connection ends it resumes on the next node that lets it in, and sends
    again what was not acknowledged."""

    def __init__(self, cluster, name, nodes, partner, count):
        self.cluster, self.nodes, self.count = cluster, list(nodes), count
        self.bare, self.partner = f"{name}@localhost", f"{partner}@localhost/x"
        self.out, self.acked, self.said, self.got = [], 0, 0, []
        self.resumed, self.failure = [], None
        self.client = pemb.Client(self.node(), f"{self.bare}/x").login()
        self.client.enable()
        self._put("<presence/>")

    def node(self):
        return self.cluster[self.nodes[0]]

    def _put(self, stanza):
        self.out.append(stanza)
        self.client.send(stanza)

    def _say(self):
        self.said += 1  # even if the connection ends now: it is in `out`
        self._put(f"<message to='{self.partner}' type='chat' id='{self.said}'>"
                  f"<body>{self.said}</body></message>")
        if self.said % 8 == 0 or self.said == self.count:
            self.client.send("<r xmlns='urn:xmpp:sm:3'/>")

    def _pump(self, seconds):
        self.client._feed(time.monotonic() + seconds)
        for e in self.client.take(lambda e: True):
            if e.tag == pemb.q("sm:a"):
                self.acked = int(e.get("h"))
            elif e.tag == pemb.q("c:message"):
                assert e.get("type") != "error", pemb.ET.tostring(e)
                self.got.append(e.findtext("c:body", None, pemb.NS))
            elif e.tag == pemb.q("stream:error"):
                raise pemb.Closed(pemb.ET.tostring(e).decode())

    def _resume(self):
        old, self.client = self.client, None
        old.sock.close()
        deadline = time.monotonic() + 40
        while not self.client:
            self.nodes.append(self.nodes.pop(0))
            try:
                new, answer = pemb.resume(self.node(), old)
            except (pemb.Closed, pemb.StreamError, OSError, AssertionError) as e:
                assert time.monotonic() < deadline, f"{self.bare} cannot come back: {e!r}"
                continue
            assert answer.tag == pemb.q("sm:resumed"), pemb.ET.tostring(answer).decode()
            self.client, self.acked = new, int(answer.get("h"))
        self.resumed.append(self.nodes[0])
        for stanza in self.out[self.acked:]:
            self.client.send(stanza)
        self.client.send("<r xmlns='urn:xmpp:sm:3'/>")

    def _done(self):
        return self.said == self.count and self.acked == len(self.out) and \
            len(self.got) >= self.count

    def run(self):
        try:
            deadline = time.monotonic() + 60
            while not self._done():
                assert time.monotonic() < deadline, \
                    f"{self.bare}: said {self.said}, acked {self.acked} of {len(self.out)}, " \
                    f"got {len(self.got)}, resumed on {self.resumed}"
                try:
                    if self.said < self.count:
                        self._say()
                    self._pump(0.004)
                except (pemb.Closed, OSError):
                    self._resume()
        except BaseException as e:
            self.failure = e


def talk(cluster, places, count, during):
    """Pairs of talkers, one per two nodes in `places` ("ab": one on a, one on b), who talk while
    during() breaks something; every one has all that its partner has said, once and in order."""
    first = next(iter(cluster.nodes.values()))
    token = secrets.token_hex(3)
    talkers = []
    for i, place in enumerate(places):
        names = [f"t{token}-{i}-{k}" for k in range(2)]
        for name in names:
            first.add_user(f"{name}@localhost")
        others = [n for n in cluster.nodes if n not in place]
        for k in range(2):
            talkers.append(Talker(cluster, names[k], place[k] + place[1 - k] + "".join(others),
                                  names[1 - k], count))
    together([t.run for t in talkers], lambda: during(talkers))
    fail_if_any_has(talkers)
    for t in talkers:  # whatever came twice has come by then
        t.count += 1
    together([t.run for t in talkers], lambda: None)
    fail_if_any_has(talkers)
    for t in talkers:
        assert t.got == [str(n) for n in range(1, t.count + 1)], (t.bare, t.resumed, t.got)
        t.client.close()
    return talkers


def together(runs, meanwhile):
    threads = [threading.Thread(target=run, daemon=True) for run in runs]
    for t in threads:
        t.start()
    meanwhile()
    for t in threads:
        t.join(100)
        assert not t.is_alive(), "a talker does not end"


def fail_if_any_has(talkers):
    failures = [repr(t.failure) for t in talkers if t.failure]
    assert not failures, "\n".join(failures)
