"""What end-to-end tests stand on: a node started as an operator would, and a small blocking XMPP
client that shows every byte. No sleeps: waiting is always for something that must come, and "nothing
came" is shown by something later that did come on the same path."""

import atexit
import base64
import functools
import hashlib
import hmac
import json
import os
import pathlib
import queue
import re
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import urllib.request
import xml.etree.ElementTree as ET
from xml.sax.saxutils import escape, quoteattr

import postgres

ROOT = pathlib.Path(__file__).resolve().parents[3]
BIN = pathlib.Path(os.environ.get("PEMBERLEY_BIN", ROOT / "build/sanitize/bin"))
TIMEOUT = float(os.environ.get("PEMBERLEY_TIMEOUT", "10"))
LOOP = os.environ.get("PEMBERLEY_LOOP")  # every node over this loop, if it says nothing itself
STORE = os.environ.get("PEMBERLEY_STORE")  # "postgres": every node on a database of its own there

NS = {
    "c": "jabber:client", "stream": "http://etherx.jabber.org/streams",
    "tls": "urn:ietf:params:xml:ns:xmpp-tls", "sasl": "urn:ietf:params:xml:ns:xmpp-sasl",
    "bind": "urn:ietf:params:xml:ns:xmpp-bind", "sm": "urn:xmpp:sm:3",
    "stanzas": "urn:ietf:params:xml:ns:xmpp-stanzas",
    "streams": "urn:ietf:params:xml:ns:xmpp-streams", "roster": "jabber:iq:roster",
    "ping": "urn:xmpp:ping", "delay": "urn:xmpp:delay",
    "info": "http://jabber.org/protocol/disco#info",
    "items": "http://jabber.org/protocol/disco#items",
    "session": "urn:ietf:params:xml:ns:xmpp-session",
    "register": "jabber:iq:register", "cb": "urn:xmpp:sasl-cb:0",
    "sasl2": "urn:xmpp:sasl:2", "bind2": "urn:xmpp:bind:0",
}


def q(name):
    """'c:message' -> '{jabber:client}message'"""
    prefix, local = name.split(":", 1)
    return "{%s}%s" % (NS[prefix], local)


def free_ports(n):
    socks = [socket.socket() for _ in range(n)]
    for s in socks:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in socks]
    for s in socks:
        s.close()
    return ports


@functools.cache
def cluster():
    """The PostgreSQL of this run, started when it is asked for first."""
    return postgres.Cluster()


def on_postgres(cluster):
    """Settings of a node with a new database there."""
    return ["store.kind=postgres", f'store.postgres.hosts={{"{cluster.dir}"}}',
            f"store.postgres.database={cluster.database()}", "store.postgres.connections=2"]


class Closed(Exception):
    """The server closed the connection."""


class StreamError(Exception):
    def __init__(self, element):
        self.element = element
        self.condition = element[0].tag.split("}")[1] if len(element) else "?"
        super().__init__(ET.tostring(element).decode())


# ---- the node ---------------------------------------------------------------------------------


class Server:
    """A node of its own in a directory of its own, through the `pemberley` binary."""

    address = "127.0.0.1"

    def __init__(self, settings=(), hosts=("localhost", "example.org"), host_options="", shards=2,
                 plain=True, env=None, wrap=()):
        """wrap: a command that becomes the node's (with the node's as its last arguments)."""
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="pemberley-e2e-"))
        atexit.register(shutil.rmtree, self.dir, True)
        self.hosts = hosts
        self.port, self.tls_port, self.http_port = free_ports(3)
        self.env = dict(os.environ, **(env or {}))
        self.env.setdefault("ASAN_OPTIONS", "detect_leaks=0:abort_on_error=1")
        self.log = []
        self.conf = self.dir / "pemberley.conf"
        self._certificates()
        plain_from = '{127.0.0.0/8, "::1"}' if plain else "{}"
        text = f"""
node {{ name = a data_dir = "{self.dir}/data" run_dir = "{self.dir}/run" shards = {shards} }}
listen {{
    c2s {{ address = {{127.0.0.1:{self.port}}} plain_from = {plain_from} }}
    c2s_tls {{ address = {{127.0.0.1:{self.tls_port}}} }}
    metrics {{ address = {{127.0.0.1:{self.http_port}}} }}
}}
"""
        for host in hosts:
            text += f"""host "{host}" {{
    certificate_file = "{self.dir}/{host}.pem"
    key_file = "{self.dir}/{host}.key"
    {host_options}
}}
"""
        self.conf.write_text(text)
        self.settings = list(settings)
        self.wrap = list(wrap)
        if LOOP and not any(x.startswith("node.loop") for x in settings):
            self.settings.append(f"node.loop={LOOP}")
        if STORE == "postgres" and not any(x.startswith("store.kind") for x in settings):
            self.settings += on_postgres(cluster())
        self.process = None
        atexit.register(self.kill) # also when it does not become ready
        self.start()

    def _certificates(self):
        for host in self.hosts:
            subprocess.run(
                ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                 "ec_paramgen_curve:prime256v1", "-nodes", "-days", "3650", "-subj", f"/CN={host}",
                 "-addext", f"subjectAltName=DNS:{host}", "-keyout", self.dir / f"{host}.key",
                 "-out", self.dir / f"{host}.pem"], check=True, capture_output=True)
            os.chmod(self.dir / f"{host}.key", 0o600)

    def start(self):
        command = [*self.wrap, str(BIN / "pemberley"), "--config", str(self.conf), "run"]
        for s in self.settings:
            command += ["--set", s]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, env=self.env)
        self.lines = queue.Queue()
        threading.Thread(target=self._read, args=(self.process, self.lines), daemon=True).start()
        self.wait_log("event=node_ready", timeout=60)
        if LOOP and f"node.loop={LOOP}" in self.settings:
            assert self.loop() == LOOP, f"the node runs over {self.loop()}, not {LOOP}"

    def get(self, path):
        """What the metrics port answers."""
        with urllib.request.urlopen(f"http://{self.address}:{self.http_port}{path}", timeout=TIMEOUT) as r:
            return r.read().decode()

    def loop(self):
        return re.search(r'^pemberley_node_info\{.*loop="(\w*)"', self.get("/metrics"), re.M).group(1)

    def _read(self, process, lines):
        for line in process.stderr:
            line = line.decode(errors="replace").rstrip()
            self.log.append(line)
            lines.put(line)
        lines.put(None)

    def wait_log(self, pattern, timeout=TIMEOUT):
        """The next line (not looked at before) that matches."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                line = self.lines.get(timeout=max(0.01, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no log line {pattern!r} in {timeout} s; last lines:\n"
                                     + "\n".join(self.log[-25:]))
            if line is None:
                raise AssertionError("the node ended:\n" + "\n".join(self.log[-40:]))
            if re.search(pattern, line):
                return line

    def cli(self, *args, stdin=None, check=True):
        r = subprocess.run([str(BIN / "pemberley"), "--config", str(self.conf), *args], input=stdin,
                           capture_output=True, text=True, timeout=60, env=self.env)
        if check and r.returncode:
            raise AssertionError(f"pemberley {' '.join(args)}: exit {r.returncode}: {r.stderr}")
        return r

    def add_user(self, jid, password="secret-password"):
        self.cli("user", "add", "--stdin", jid, stdin=password + "\n")

    def pid_of(self, process, index=0):
        """pid of the newest shard or store worker, from the log."""
        for line in reversed(self.log):
            m = re.search(rf"event=process_started .*process={process} index={index} pid=(\d+)", line)
            if m:
                return int(m.group(1))
        raise AssertionError(f"no process_started for {process} {index}")

    def kill_process(self, process, index=0):
        pid = self.pid_of(process, index)
        os.kill(pid, signal.SIGKILL)
        self.wait_log(rf"event=process_died .*process={process} index={index}")
        self.wait_log(rf"event=process_started .*process={process} index={index}")

    def memory(self):
        """Private bytes of each shard."""
        total = []
        for i in range(64):
            try:
                pid = self.pid_of("shard", i)
            except AssertionError:
                break
            rollup = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
            total.append(sum(int(n) * 1024 for n in
                             re.findall(r"^Private_(?:Clean|Dirty):\s+(\d+)", rollup, re.M)))
        return total

    def stop(self, timeout=40):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout)
            except subprocess.TimeoutExpired:
                self.process.kill()
                raise AssertionError("the node did not stop:\n" + "\n".join(self.log[-25:]))
        for line in self.log:
            assert "ERROR: AddressSanitizer" not in line and "runtime error" not in line, \
                "sanitizer report:\n" + "\n".join(self.log[-80:])
            assert "event=process_broken" not in line, line

    def kill(self):
        if self.process and self.process.poll() is None:
            self.process.kill()


# ---- SASL SCRAM, the client's side -------------------------------------------------------------


class Scram:
    def __init__(self, mechanism, user, password, binding=None, gs2=None):
        """binding: (type name, data) for -PLUS; gs2: another GS2 header than fits"""
        self.hash = mechanism.removeprefix("SCRAM-").removesuffix("-PLUS").replace("-", "").lower()
        self.password = password
        self.binding = binding
        self.gs2 = gs2 if gs2 is not None else (f"p={binding[0]},," if binding else "n,,")
        self.nonce = secrets.token_urlsafe(18)
        user = user.replace("=", "=3D").replace(",", "=2C")
        self.bare = f"n={user},r={self.nonce}"

    def first(self):
        return (self.gs2 + self.bare).encode()

    def final(self, challenge, proof_bit=0):
        text = challenge.decode()
        fields = dict(f.split("=", 1) for f in text.split(","))
        assert fields["r"].startswith(self.nonce), "the server's nonce is not ours and more"
        salt, rounds = base64.b64decode(fields["s"]), int(fields["i"])
        salted = hashlib.pbkdf2_hmac(self.hash, self.password.encode(), salt, rounds)

        def mac(key, data):
            return hmac.new(key, data, self.hash).digest()
        client = mac(salted, b"Client Key")
        stored = hashlib.new(self.hash, client).digest()
        cbind = self.gs2.encode() + (self.binding[1] if self.binding else b"")
        without = f"c={base64.b64encode(cbind).decode()},r={fields['r']}"
        message = f"{self.bare},{text},{without}".encode()
        proof = bytes(a ^ b for a, b in zip(client, mac(stored, message)))
        proof = bytes([proof[0] ^ proof_bit]) + proof[1:]
        self.signature = mac(mac(salted, b"Server Key"), message)
        return f"{without},p={base64.b64encode(proof).decode()}".encode()

    def verify(self, success):
        assert success == b"v=" + base64.b64encode(self.signature), "wrong server signature"


# ---- the client ---------------------------------------------------------------------------------


class Client:
    """One connection. Elements at stream level come as ElementTree elements."""

    def __init__(self, server, jid=None, password="secret-password", connect="starttls",
                 source=None):
        self.server, self.password = server, password
        self.user, self.host = jid.split("/")[0].split("@") if jid and "@" in jid else (None, jid)
        self.wish = jid.split("/", 1)[1] if jid and "/" in jid else None
        self.host = self.host or "localhost"
        self.jid = None
        self.backlog, self.seen = [], []
        self.ids = 0
        self.sm_in = None        # stanzas received since <enabled/>
        self.answer_acks = True
        self.features = None
        port = server.tls_port if connect == "tls" else server.port
        self.sock = socket.socket()
        if source:
            self.sock.bind((source, 0))
        self.sock.settimeout(TIMEOUT)
        self.sock.connect((getattr(server, "address", "127.0.0.1"), port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.tls = False
        self.restart()
        if connect == "tls":
            self.wrap(alpn=["xmpp-client"])

    # -- bytes

    def wrap(self, alpn=None, sni=None, maximum=None):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if alpn:
            context.set_alpn_protocols(alpn)
        if maximum:
            context.maximum_version = maximum
        self.sock = context.wrap_socket(self.sock, server_hostname=sni or self.host)
        self.tls = True

    def restart(self):
        self.parser = ET.XMLPullParser(("start", "end"))
        self.depth = 0
        self.header = None
        self.ended = False

    def send(self, text):
        self.sock.sendall(text.encode() if isinstance(text, str) else text)

    def _feed(self, deadline):
        self.sock.settimeout(max(0.001, deadline - time.monotonic()))
        try:
            data = self.sock.recv(65536)
        except (TimeoutError, ssl.SSLWantReadError):
            return False
        except (ConnectionError, ssl.SSLError, OSError) as e:
            raise Closed(repr(e))
        if not data:
            raise Closed()
        self.seen.append(data)
        self.parser.feed(data)
        for event, element in self.parser.read_events():
            if event == "start":
                if self.depth == 0:
                    self.header = element
                self.depth += 1
            else:
                self.depth -= 1
                if self.depth == 1:
                    self._element(element)
                elif self.depth == 0:
                    self.ended = True
        return True

    def _element(self, element):
        if element.tag == q("sm:r") and self.answer_acks and self.sm_in is not None:
            self.send(f"<a xmlns='urn:xmpp:sm:3' h='{self.sm_in}'/>")
            return
        if self.sm_in is not None and element.tag in (q("c:message"), q("c:presence"), q("c:iq")):
            self.sm_in += 1
        self.backlog.append(element)

    # -- waiting

    def expect(self, want, timeout=TIMEOUT):
        """The first element not yet taken for which want holds (a tag like 'c:message', or a
        function). A stream error that nobody asked for is raised."""
        test = (lambda e: e.tag == q(want)) if isinstance(want, str) else want
        deadline = time.monotonic() + timeout
        at = 0
        while True:
            while at < len(self.backlog):
                element = self.backlog[at]
                if test(element):
                    return self.backlog.pop(at)
                if element.tag == q("stream:error"):
                    raise StreamError(element)
                at += 1
            if time.monotonic() > deadline:
                raise AssertionError(f"{self.jid or self.user}: nothing of the kind in {timeout} s; "
                                     "waiting: " + " ".join(ET.tostring(e).decode()
                                                            for e in self.backlog))
            self._feed(deadline)

    def take(self, test):
        """All elements that are here already for which test holds."""
        got = [e for e in self.backlog if test(e)]
        self.backlog = [e for e in self.backlog if not test(e)]
        return got

    def stream_error(self, condition, timeout=TIMEOUT):
        """The stream ends with this error: error, </stream:stream>, then the connection closes."""
        error = self.expect("stream:error", timeout)
        got = error[0].tag
        assert got == "{%s}%s" % (NS["streams"], condition), ET.tostring(error).decode()
        self.closed(timeout)
        return error

    def closed(self, timeout=TIMEOUT, stream_end=True):
        """The server ends the stream (if stream_end) and closes."""
        deadline = time.monotonic() + timeout
        try:
            while time.monotonic() < deadline:
                self._feed(deadline)
                if self.ended:
                    self.sock.shutdown(socket.SHUT_WR) if not self.tls else None
        except (Closed, OSError):
            assert self.ended or not stream_end, "closed without </stream:stream>"
            return
        raise AssertionError("the server did not close")

    # -- negotiation

    def open(self, extra="xml:lang='en'", to=None):
        self.restart()
        self.send(f"<?xml version='1.0'?><stream:stream to='{to or self.host}' version='1.0' {extra} "
                  "xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>")
        self.features = self.expect("stream:features")
        return self.features

    def starttls(self):
        self.send("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
        self.expect("tls:proceed")
        self.wrap()
        return self.open()

    def mechanisms(self):
        return [m.text for m in self.features.findall("sasl:mechanisms/sasl:mechanism", NS)]

    def end_point(self):
        return hashlib.sha256(self.sock.getpeercert(True)).digest()

    def auth(self, mechanism="SCRAM-SHA-256", user=None, password=None, gs2=None, binding=None,
             proof_bit=0, reopen=True):
        """Returns the last element: <success/> or <failure/>."""
        user = user if user is not None else self.user
        password = password if password is not None else self.password
        if mechanism == "PLAIN":
            first, scram = f"\0{user}\0{password}".encode(), None
        else:
            if mechanism.endswith("-PLUS") and binding is None:
                binding = ("tls-server-end-point", self.end_point())
            scram = Scram(mechanism, user, password, binding, gs2)
            first = scram.first()
        self.send(f"<auth xmlns='{NS['sasl']}' mechanism='{mechanism}'>"
                  f"{base64.b64encode(first).decode()}</auth>")
        answer = self.expect(lambda e: e.tag.startswith("{%s}" % NS["sasl"]))
        if answer.tag == q("sasl:challenge"):
            final = scram.final(base64.b64decode(answer.text), proof_bit)
            self.send(f"<response xmlns='{NS['sasl']}'>{base64.b64encode(final).decode()}</response>")
            answer = self.expect(lambda e: e.tag.startswith("{%s}" % NS["sasl"]))
        if answer.tag == q("sasl:success"):
            if scram:
                scram.verify(base64.b64decode(answer.text))
            if reopen:
                self.open()
        return answer

    def authenticate(self, mechanism="SCRAM-SHA-256", inner="", agent=None, initial=None, user=None,
                     password=None, gs2=None, binding=None, proof_bit=0):
        """XEP-0388. inner: what goes beside the initial response. agent: the id of <user-agent/>, or
        that element. Returns the last element: <success/>, <failure/> or <continue/>."""
        user, scram = user or self.user, None
        if initial is None and mechanism == "PLAIN":
            initial = f"\0{user}\0{password or self.password}".encode()
        elif initial is None:
            if mechanism.endswith("-PLUS") and binding is None:
                binding = ("tls-server-end-point", self.end_point())
            scram = Scram(mechanism, user, password or self.password, binding, gs2)
            initial = scram.first()
        if agent and not agent.startswith("<"):
            agent = f"<user-agent id='{agent}'/>"
        self.send(f"<authenticate xmlns='{NS['sasl2']}' mechanism='{mechanism}'><initial-response>"
                  f"{base64.b64encode(initial).decode()}</initial-response>{agent or ''}{inner}"
                  "</authenticate>")
        answer = self.sasl2_answer()
        if scram and answer.tag == q("sasl2:challenge"):
            self.challenge = base64.b64decode(answer.text)
            final = base64.b64encode(scram.final(self.challenge, proof_bit)).decode()
            self.send(f"<response xmlns='{NS['sasl2']}'>{final}</response>")
            answer = self.sasl2_answer()
        if scram and answer.tag != q("sasl2:failure"):
            scram.verify(base64.b64decode(answer.findtext("sasl2:additional-data", None, NS)))
        return answer

    def sasl2_answer(self):
        answer = self.expect(lambda e: e.tag.startswith("{%s}" % NS["sasl2"]))
        if answer.tag == q("sasl2:success"):
            who = answer.findtext("sasl2:authorization-identifier", None, NS)
            self.jid = who if "/" in who else None
            if answer.find("sm:resumed", NS) is None:
                self.features = self.expect("stream:features")
            enabled = answer.find("bind2:bound/sm:enabled", NS)
            if enabled is not None:
                self.sm_id, self.sm_in = enabled.get("id"), 0
        return answer

    def bind2(self, tag=None, inner="", beside="", **how):
        """Header, TLS, login and session by SASL2 and Bind 2. Returns <success/>."""
        self.open()
        if not self.tls:
            self.starttls()
        tag = f"<tag>{escape(tag)}</tag>" if tag else ""
        answer = self.authenticate(inner=f"<bind xmlns='{NS['bind2']}'>{tag}{inner}</bind>{beside}", **how)
        assert answer.tag == q("sasl2:success") and self.jid, ET.tostring(answer).decode()
        return answer

    def bind(self, resource=None):
        inner = f"<resource>{escape(resource)}</resource>" if resource else ""
        result = self.iq("set", f"<bind xmlns='{NS['bind']}'>{inner}</bind>", check=False)
        if result.get("type") == "result":
            self.jid = result.find("bind:bind/bind:jid", NS).text
        return result

    def login(self, mechanism="SCRAM-SHA-256", presence=False, sm=False, bind=True, roster=None):
        """roster: asks for it (so that the session is interested, RFC 6121 2.2), as clients do before
        they send presence."""
        self.open()
        if not self.tls and self.features.find("tls:starttls", NS) is not None and self.want_tls:
            self.starttls()
        answer = self.auth(mechanism)
        assert answer.tag == q("sasl:success"), ET.tostring(answer).decode()
        if bind:
            result = self.bind(self.wish)
            assert result.get("type") == "result", ET.tostring(result).decode()
        if sm:
            self.enable()
        if presence if roster is None else roster:
            self.iq("get", "<query xmlns='jabber:iq:roster'/>")
        if presence:
            self.send("<presence/>")
            self.expect(lambda e: e.tag == q("c:presence") and e.get("from") == self.jid)
        return self

    want_tls = True

    # -- stanzas

    def new_id(self):
        self.ids += 1
        return f"i{self.ids}-{secrets.token_hex(3)}"

    def iq(self, type, payload, to=None, check=True, timeout=TIMEOUT):
        id = self.new_id()
        to = f" to={quoteattr(to)}" if to else ""
        self.send(f"<iq type='{type}' id='{id}'{to}>{payload}</iq>")
        answer = self.expect(lambda e: e.tag == q("c:iq") and e.get("id") == id
                             and e.get("type") in ("result", "error"), timeout)
        if check:
            assert answer.get("type") == "result", ET.tostring(answer).decode()
        return answer

    def message(self, to, body=None, type="chat", id=None, extra=""):
        id = id or self.new_id()
        body = f"<body>{escape(body)}</body>" if body is not None else ""
        self.send(f"<message to={quoteattr(to)} type='{type}' id='{id}'>{body}{extra}</message>")
        return id

    def expect_body(self, body, timeout=TIMEOUT):
        return self.expect(lambda e: e.tag == q("c:message") and e.findtext("c:body", None, NS) == body,
                           timeout)

    def expect_presence(self, sender, type=None, timeout=TIMEOUT):
        return self.expect(lambda e: e.tag == q("c:presence") and e.get("from") == sender
                           and e.get("type") == type, timeout)

    def ping(self):
        """Everything that the own home did for us before is here when this returns."""
        self.iq("get", "<ping xmlns='urn:xmpp:ping'/>")

    # -- XEP-0198

    def enable(self, resume=True):
        self.send(f"<enable xmlns='urn:xmpp:sm:3'{' resume=' + chr(39) + 'true' + chr(39) if resume else ''}/>")
        enabled = self.expect("sm:enabled")
        self.sm_id = enabled.get("id")
        self.sm_in = 0
        return enabled

    def acked(self):
        """The server's h, asked for now."""
        self.send("<r xmlns='urn:xmpp:sm:3'/>")
        return int(self.expect("sm:a").get("h"))

    def wait_acked(self, h, timeout=TIMEOUT):
        deadline = time.monotonic() + timeout
        while self.acked() < h:
            assert time.monotonic() < deadline, f"h never reached {h}"

    def drop(self):
        """The connection is lost: no </stream:stream>, no close_notify."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        fd = self.sock.detach()
        socket.close(fd)

    def close(self):
        try:
            self.send("</stream:stream>")
            self.closed()
        finally:
            self.sock.close()


def resume(server, old, h=None, connect="starttls"):
    """A new connection of the same account that resumes old's session. Returns (client, answer)."""
    new = Client(server, f"{old.user}@{old.host}", old.password, connect)
    new.login(bind=False)
    count = old.sm_in if h is None else h
    new.sm_in = count
    new.send(f"<resume xmlns='urn:xmpp:sm:3' previd='{old.sm_id}' h='{count}'/>")
    answer = new.expect(lambda e: e.tag in (q("sm:resumed"), q("sm:failed")))
    if answer.tag == q("sm:resumed"):
        new.jid, new.sm_id = old.jid, old.sm_id
    else:
        new.sm_in = None
    return new, answer


def barrier(sender, *receivers):
    """What sender sent before has reached every receiver (order between two full JIDs)."""
    for r in receivers:
        token = "barrier-" + secrets.token_hex(6)
        sender.message(r.jid, token)
        r.expect_body(token)


def condition(stanza):
    """(condition, type) of an error stanza."""
    error = stanza.find("c:error", NS)
    assert stanza.get("type") == "error" and error is not None, ET.tostring(stanza).decode()
    for child in error:
        if child.tag.startswith("{%s}" % NS["stanzas"]) and not child.tag.endswith("}text"):
            return child.tag.split("}")[1], error.get("type")
    raise AssertionError(ET.tostring(stanza).decode())


def befriend(a, b):
    """Both subscribe to each other (both online, with presence)."""
    for x, y in ((a, b), (b, a)):
        xb, yb = x.jid.split("/")[0], y.jid.split("/")[0]
        x.send(f"<presence type='subscribe' to='{yb}'/>")
        y.expect_presence(xb, "subscribe")
        y.send(f"<presence type='subscribed' to='{xb}'/>")
        x.expect_presence(yb, "subscribed")
        x.expect_presence(y.jid)
