"""TLS as a client sees it (RFC 7590, RFC 6120 5, XEP-0368): the certificate of the host, old and new
versions, tickets that every shard opens, a certificate changed under everybody's feet, ALPN."""

import os
import shutil
import socket
import ssl
import subprocess

import pemb
from pemb import Client, NS, q

USERS = ("alice@localhost", "alice@example.org")
SETTINGS = ("limits.close_timeout=200ms",)


def context(version=None, alpn=None):
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    c.check_hostname, c.verify_mode = False, ssl.CERT_NONE
    if version:
        c.minimum_version = c.maximum_version = version
    if alpn:
        c.set_alpn_protocols(alpn)
    return c


def direct(server, sni="localhost", how=None, session=None):
    s = socket.create_connection(("127.0.0.1", server.tls_port), timeout=pemb.TIMEOUT)
    try:
        return (how or context()).wrap_socket(s, server_hostname=sni, session=session)
    except OSError:
        s.close()
        raise


def names(tls):
    text = subprocess.run(["openssl", "x509", "-inform", "DER", "-noout", "-ext", "subjectAltName"],
                          input=tls.getpeercert(True), capture_output=True).stdout.decode()
    return text.split("DNS:")[1].strip()


def talk(tls, host="localhost"):
    """A stream's header and its features: the record layer works both ways."""
    tls.sendall(f"<stream:stream to='{host}' version='1.0' xmlns='jabber:client' "
                f"xmlns:stream='{NS['stream']}'>".encode())
    got = b""
    while b"</stream:features>" not in got:
        data = tls.recv(65536)
        assert data, got
        got += data
    return got


def test_each_host_shows_its_own_certificate(server):
    for host in ("localhost", "example.org"):
        assert names(direct(server, host)) == host
        c = Client(server, f"alice@{host}")
        c.open()
        c.starttls()
        assert names(c.sock) == host
        c.sock.close()
    assert names(direct(server, "EXAMPLE.ORG")) == "example.org"


def test_an_unknown_or_missing_name_gets_the_stream_s_or_one_of_ours(server):
    default = names(direct(server, None))
    assert default in ("localhost", "example.org") and names(direct(server, "other.example")) == default
    c = Client(server, "alice@example.org")
    c.open()
    c.send("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
    c.expect("tls:proceed")
    tls = context().wrap_socket(c.sock, server_hostname=None)
    assert names(tls) == "example.org", "RFC 7590: that of the header's `to`"


def test_versions(server):
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        tls = direct(server, how=context(version))
        assert tls.version() == {ssl.TLSVersion.TLSv1_2: "TLSv1.2",
                                 ssl.TLSVersion.TLSv1_3: "TLSv1.3"}[version]
        talk(tls)
        c = Client(server, "alice@localhost")
        c.open()
        c.send("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
        c.expect("tls:proceed")
        c.sock, c.tls = context(version).wrap_socket(c.sock, server_hostname="localhost"), True
        c.open()
        assert c.auth("SCRAM-SHA-256-PLUS").tag == q("sasl:success")
        assert c.bind().get("type") == "result"
        c.close()


def test_older_versions_are_refused(server):
    r = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{server.tls_port}", "-tls1_1",
                        "-cipher", "ALL:@SECLEVEL=0"], input=b"", capture_output=True, timeout=20)
    assert b"alert protocol version" in r.stderr or b"wrong version" in r.stderr, r.stderr
    server.wait_log("event=tls_failed")


def test_tls_1_3_alone_when_the_config_says_so():
    server = pemb.Server(settings=("tls.version_min=1.3", "limits.close_timeout=200ms"))
    talk(direct(server))
    try:
        direct(server, how=context(ssl.TLSVersion.TLSv1_2))
        raise AssertionError("TLS 1.2 was spoken")
    except ssl.SSLError:
        pass
    server.stop()


def shard_of(server, tls):
    """Which shard holds a connection: the log of its end says so."""
    port = tls.getsockname()[1]
    tls.close()
    return server.wait_log(r"event=conn_closed ").split("shard=")[1].split()[0], port


def test_a_session_is_resumed_by_both_shards(server):
    how = context(ssl.TLSVersion.TLSv1_3)
    first = direct(server, how=how)
    talk(first) # the tickets come with the first bytes
    session = first.session
    assert session is not None and not first.session_reused
    shards = {shard_of(server, first)[0]}
    for _ in range(40):
        again = direct(server, how=how, session=session)
        assert again.session_reused, "another shard could not open the ticket"
        talk(again)
        session = again.session or session
        shards.add(shard_of(server, again)[0])
        if len(shards) == 2:
            break
    assert shards == {"0", "1"}, shards


def test_a_ticket_of_one_host_is_no_use_at_another(server):
    how = context(ssl.TLSVersion.TLSv1_3)
    first = direct(server, how=how)
    talk(first)
    other = direct(server, "example.org", how=how, session=first.session)
    assert not other.session_reused
    assert names(other) == "example.org"


def test_no_tickets_when_the_config_says_so_and_none_for_tls_1_2(server):
    how = context(ssl.TLSVersion.TLSv1_2)
    first = direct(server, how=how)
    talk(first)
    again = direct(server, how=how, session=first.session) if first.session else None
    assert again is None or not again.session_reused, "its ticket would carry the master secret"
    bare = pemb.Server(settings=("tls.ticket_lifetime=0s", "limits.close_timeout=200ms"))
    how = context(ssl.TLSVersion.TLSv1_3)
    first = direct(bare, how=how)
    talk(first)
    if first.session and first.session.has_ticket:
        assert not direct(bare, how=how, session=first.session).session_reused
    bare.stop()


def test_alpn(server):
    tls = direct(server, how=context(alpn=["xmpp-client"]))
    assert tls.selected_alpn_protocol() == "xmpp-client"
    talk(tls)
    tls = direct(server, how=context(alpn=["h2", "xmpp-client"]))
    assert tls.selected_alpn_protocol() == "xmpp-client"
    talk(direct(server)) # none: no matter
    try:
        direct(server, how=context(alpn=["h2", "xmpp-server"]))
        raise AssertionError("a foreign protocol was taken")
    except ssl.SSLError as e:
        assert "no application protocol" in str(e), e


def fingerprint(tls):
    return tls.getpeercert(True)


def new_certificate(server, host):
    made = server.dir / "new"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                    "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30", "-subj", f"/CN={host}",
                    "-addext", f"subjectAltName=DNS:{host}", "-keyout", f"{made}.key", "-out",
                    f"{made}.pem"], check=True, capture_output=True)
    os.chmod(f"{made}.key", 0o600)
    shutil.move(f"{made}.key", server.dir / f"{host}.key")
    shutil.move(f"{made}.pem", server.dir / f"{host}.pem")


def test_a_changed_certificate_is_shown_after_reload_and_nobody_is_dropped(server):
    a = Client(server, "alice@localhost/stays").login(presence=True)
    other = Client(server, "alice@example.org/stays", connect="tls").login()
    before = fingerprint(direct(server))
    kept = fingerprint(direct(server, "example.org"))
    new_certificate(server, "localhost")
    server.process.send_signal(1) # SIGHUP
    server.wait_log("event=config_applied")
    assert fingerprint(direct(server)) != before
    assert fingerprint(direct(server, "example.org")) == kept
    a.ping()
    other.ping()
    c = Client(server, "alice@localhost/new").login("SCRAM-SHA-256-PLUS")
    for client in (a, other, c):
        client.close()


def test_a_broken_certificate_changes_nothing(server):
    before = fingerprint(direct(server))
    good = (server.dir / "localhost.pem").read_bytes()
    (server.dir / "localhost.pem").write_text("-----BEGIN CERTIFICATE-----\nnonsense\n")
    r = server.cli("reload", check=False)
    assert r.returncode != 0, r.stdout
    assert fingerprint(direct(server)) == before
    (server.dir / "localhost.pem").write_bytes(good)
    server.cli("reload")
    assert fingerprint(direct(server)) == before


BROKEN = [
    ("nonsense", b"hello world, this is no TLS at all\r\n" * 3),
    ("a record of zero bytes", b"\x16\x03\x01\x00\x00"),
    ("a record too large", b"\x16\x03\x01\xff\xff" + b"\0" * 100),
    ("a hello too large", b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfc\x03\x03" + b"\0" * 0x3ff5),
    ("an alert", b"\x15\x03\x01\x00\x02\x02\x28"),
    ("application data", b"\x17\x03\x03\x00\x10" + b"\0" * 16),
    ("a hello of garbage", b"\x16\x03\x01\x00\x40\x01\x00\x00\x3c\x03\x03" + b"\xff" * 58),
    ("XML", b"<stream:stream to='localhost'>"),
    ("SSLv2", b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10" + b"\0" * 37),
]


def test_broken_handshakes_are_closed(server):
    for name, data in BROKEN:
        with socket.create_connection(("127.0.0.1", server.tls_port), timeout=pemb.TIMEOUT) as s:
            try:
                s.sendall(data)
                got = s.recv(65536)
                while got and (more := s.recv(65536)):
                    got += more
            except ConnectionError:
                got = b""
            assert got == b"" or got[0] == 0x15, (name, got[:40])
    talk(direct(server))
