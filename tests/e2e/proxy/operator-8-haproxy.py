"""The shipped ops/haproxy.cfg before a node: TLS passes through with channel binding, the node knows
its clients' addresses, and /readyz decides who gets connections (operator.md 8)."""

import contextlib
import json
import pathlib
import socket
import subprocess
import tempfile
import time

import pemb
from pemb import Client, NS

SETTINGS = ("listen.c2s.proxy_from={127.0.0.0/8}", "listen.c2s_tls.proxy_from={127.0.0.0/8}",
            "limits.close_timeout=200ms", "node.stop_timeout=5s", "node.drain_grace=1m")
USERS = ("alice@localhost",)
PLAIN = False
OPS = pemb.ROOT / "ops"


class HAProxy:
    """Debian's, on the shipped file with only addresses and ports changed; port and tls_port are what a
    Client wants of a server."""

    def __init__(self, server, send="send-proxy-v2"):
        self.port, self.tls_port = pemb.free_ports(2)
        text = (OPS / "haproxy.cfg").read_text()
        for old, new in ((":5222\n", f"127.0.0.1:{self.port}\n"),
                         (":5223\n", f"127.0.0.1:{self.tls_port}\n"),
                         ("10.0.0.1:5222 send-proxy-v2", f"127.0.0.1:{server.port} {send}"),
                         ("10.0.0.1:5223 send-proxy-v2", f"127.0.0.1:{server.tls_port} {send}"),
                         ("check port 5290 inter 1s", f"check port {server.http_port} inter 50ms")):
            assert old in text, old
            text = text.replace(old, new)
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="pemberley-haproxy-"))
        (self.dir / "haproxy.cfg").write_text(text)
        self.process = subprocess.Popen(["haproxy", "-db", "-f", self.dir / "haproxy.cfg"],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.until(self.serves, "HAProxy serves")

    def serves(self):
        """Whether a stream through it reaches the node."""
        with contextlib.suppress(OSError):
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as s:
                s.sendall(b"<?xml version='1.0'?>")
                s.settimeout(0.2)
                try:
                    return s.recv(1) != b""
                except TimeoutError:
                    return True
        return False

    @staticmethod
    def until(test, what):
        deadline = time.monotonic() + 10
        while not test():
            assert time.monotonic() < deadline, what
            time.sleep(0.02)

    def stop(self):
        self.process.terminate()
        self.process.wait(10)


def address_of(server, jid):
    items = json.loads(server.cli("--json", "user", "sessions", jid.split("/")[0]).stdout)["items"]
    return next(i["address"] for i in items if i["jid"] == jid)


def through(server, send, source):
    proxy = HAProxy(server, send)
    try:
        for connect in ("starttls", "tls"):
            c = Client(proxy, f"alice@localhost/{connect}", connect=connect, source=source)
            c.open()
            if connect == "starttls":
                c.starttls()
            c.auth("SCRAM-SHA-256-PLUS")
            c.bind(c.wish)
            c.ping()
            here = c.sock.getsockname()
            assert address_of(server, c.jid).startswith(source), (address_of(server, c.jid), here)
            server.wait_log(rf"event=login_ok .*address={source}")
            c.close()
    finally:
        proxy.stop()


def test_version_1_tls_and_channel_binding_pass_through(server):
    through(server, "send-proxy", "127.0.0.41")


def test_version_2_tls_and_channel_binding_pass_through(server):
    through(server, "send-proxy-v2", "127.0.0.42")


def test_a_balancer_that_sends_no_header_gets_nowhere(server):
    proxy = HAProxy.__new__(HAProxy)
    proxy.port, proxy.tls_port = server.port, server.tls_port
    c = Client(proxy, "alice@localhost")
    c.send("<?xml version='1.0'?>")
    c.closed(stream_end=False)
    line = server.wait_log("event=proxy_rejected")
    assert "level=warn" in line and 'problem="no PROXY header"' in line, line


def test_a_node_that_drains_gets_no_further_connections_and_keeps_its_sessions(server):
    proxy = HAProxy(server)
    try:
        c = Client(proxy, "alice@localhost/here", connect="tls").login()
        cli = subprocess.Popen([pemb.BIN / "pemberley", "--config", server.conf, "drain"],
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=server.env)
        server.wait_log("event=node_draining")
        proxy.until(lambda: not proxy.serves(), "HAProxy looks at /readyz")
        c.ping() # the grace is not over
        server.cli("drain", "--cancel")
        assert cli.wait(10) == 1
        proxy.until(proxy.serves, "and looks again")
        c.ping()
        c.close()
    finally:
        proxy.stop()
