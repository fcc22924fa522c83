"""Connections that break off after any byte of a login, with FIN or with RST, and logins by single
bytes: nothing of them stays (no connection, no session), and nobody else notices."""

import base64
import json
import socket
import ssl
import struct
import time

import pemb
from pemb import Client, NS, barrier, q

USERS = ("alice@localhost", "bob@localhost", "carl@localhost")
SETTINGS = ("limits.close_timeout=200ms", "limits.sessions_per_user_max=1000")
HEADER = ("<?xml version='1.0'?><stream:stream to='localhost' version='1.0' xmlns='jabber:client' "
          "xmlns:stream='http://etherx.jabber.org/streams'>")
# With PLAIN nothing of what the client says depends on the server: all of it may be sent at once.
SCRIPT = (HEADER + f"<auth xmlns='{NS['sasl']}' mechanism='PLAIN'>"
          + base64.b64encode(b"\0alice\0secret-password").decode() + "</auth>" + HEADER
          + f"<iq type='set' id='b'><bind xmlns='{NS['bind']}'/></iq><enable xmlns='urn:xmpp:sm:3' "
          "resume='true' max='1'/><presence/><message to='bob@localhost/y' type='chat' id='1'><body>x"
          "</body></message><iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>"
          "<r xmlns='urn:xmpp:sm:3'/>").encode()
END = b"</stream:stream>"


def direct(server):
    c = Client.__new__(Client)
    s = socket.create_connection(("127.0.0.1", server.tls_port), timeout=pemb.TIMEOUT)
    c.sock, c.host = s, "localhost"
    c.wrap(alpn=["xmpp-client"])
    return c.sock


def reset(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    fd = sock.detach()
    socket.close(fd)


def state(server):
    return sum(i["connections"] for i in json.loads(server.cli("--json", "status").stdout)["items"])


def settled(server, connections):
    deadline = time.monotonic() + 3 * pemb.TIMEOUT
    while state(server) != connections or \
            json.loads(server.cli("--json", "user", "sessions", "alice@localhost").stdout)["items"]:
        assert time.monotonic() < deadline, (state(server), server.cli("user", "sessions",
                                                                     "alice@localhost").stdout)


def test_a_login_cut_after_any_byte(server):
    b = Client(server, "bob@localhost/y").login(presence=True)
    c = Client(server, "carl@localhost/z").login(presence=True)
    script = SCRIPT + END
    for at in range(0, len(script) + 1, 5):
        s = direct(server)
        s.sendall(script[:at])
        if at % 2:
            reset(s)
        elif at % 4:
            s.close()
        else: # as much as the server says until it is done
            s.settimeout(0.02)
            try:
                while s.recv(65536):
                    pass
            except OSError:
                pass
            reset(s)
    barrier(c, b)
    got = b.take(lambda e: e.tag == q("c:message"))
    assert all(m.findtext("c:body", None, NS) == "x" for m in got)
    settled(server, 2)
    for client in (b, c):
        client.close()


def test_a_handshake_cut_after_any_byte(server):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    out = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), out, server_hostname="localhost")
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        recorded = out.read()
    for at in range(0, len(recorded) + 1, 3):
        s = socket.create_connection(("127.0.0.1", server.tls_port), timeout=pemb.TIMEOUT)
        s.sendall(recorded[:at])
        s.close() if at % 2 else reset(s)
    for at in range(len(HEADER)):
        s = socket.create_connection(("127.0.0.1", server.port), timeout=pemb.TIMEOUT)
        s.sendall(HEADER[:at].encode())
        s.close() if at % 2 else reset(s)
    settled(server, 0)
    Client(server, "alice@localhost").login().close()


def test_a_login_by_single_bytes_each_in_a_record(server):
    b = Client(server, "bob@localhost/y").login(presence=True)
    s = direct(server)
    for at in range(len(SCRIPT)):
        s.sendall(SCRIPT[at:at + 1])
    got = b""
    while b"<a xmlns='urn:xmpp:sm:3' h='3'" not in got:
        data = s.recv(65536)
        assert data, got
        got += data
    for part in (b"<success", b"<jid>alice@localhost/", b"<enabled", b"<query xmlns='jabber:iq:roster'"):
        assert part in got, (part, got)
    s.sendall(END)
    while data := s.recv(65536):
        got += data
    assert got.endswith(END), got[-200:]
    b.expect_body("x")
    b.close()
