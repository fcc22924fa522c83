"""A cluster of the tests' own: Redis, PostgreSQL and nodes a, b, … on loopback addresses that nobody
else has, with identities as an operator makes them. What a real cluster has on several machines is
here on one; kill() ends a node as a power cut would."""

import atexit
import ctypes
import json
import os
import pathlib
import queue
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


class Node(pemb.Server):
    def __init__(self, cluster, name, address, shards, settings):
        self.cluster, self.name, self.address, self.shards = cluster, name, address, shards
        self.dir = cluster.dir / name
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
        threading.Thread(target=self._read, args=(self.process, self.lines), daemon=True).start()

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
        pids = self.pids()
        for sig in (signal.SIGSTOP, signal.SIGKILL):
            for pid in pids:
                try:
                    os.kill(pid, sig)
                except ProcessLookupError:
                    pass
        self.process.wait()

    def listing(self):
        return json.loads(self.cli("--json", "node", "list").stdout)

    def metric(self, name):
        """The sum of a family's samples, as told now."""
        total = 0
        for line in self.get("/metrics").splitlines():
            if line.startswith("pemberley_" + name) and line[len("pemberley_" + name)] in "{ ":
                total += float(line.rsplit(" ", 1)[1])
        return total


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
        self.shards, self.settings = shards, settings
        self.nodes = {}
        for name in names:
            self.add(name)
        self.start()

    def add(self, name, shards=None):
        """One more, with its identity; not started."""
        node = Node(self, name, f"{self.net}.{11 + len(self.nodes)}", shards or self.shards,
                    self.settings)
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
