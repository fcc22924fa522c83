"""listen.*.proxy_from over real sockets: who must send a PROXY header, who must not, and whose address
counts then (operator.md 2, 8)."""

import json
import types

from pemb import Client, NS, q

SETTINGS = ("listen.c2s.proxy_from={127.0.0.9/32}", "listen.c2s_tls.proxy_from={127.0.0.9/32}",
            "listen.c2s.plain_from={192.0.2.0/24}", "limits.preauth.header_timeout=1s",
            "limits.close_timeout=200ms", "auth.address_failure_rate=2/m", "auth.failure_delay=0s")
USERS = ("alice@localhost",)
BALANCER = "127.0.0.9"
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def v1(source):
    return f"PROXY TCP4 {source} 10.0.0.1 40000 5222\r\n".encode()


def v2(source):
    return (SIGNATURE + b"\x21\x11\0\x13" + bytes(map(int, source.split("."))) + b"\x0a\0\0\1\x9c\x40"
            + b"\x14\x66" + b"\x04\0\4skip")


def connect(server, header, jid="alice@localhost/x", tls=False, source=BALANCER):
    port = types.SimpleNamespace(port=server.tls_port if tls else server.port)
    c = Client(port, jid, source=source)
    c.send(header)
    if tls:
        c.wrap(alpn=["xmpp-client"])
    return c


def address_in_session_list(server, jid):
    items = json.loads(server.cli("--json", "user", "sessions", jid.split("/")[0]).stdout)["items"]
    return next(i["address"] for i in items if i["jid"] == jid)


def test_each_version_before_starttls_and_before_tls(server):
    for header in (v1, v2):
        for tls in (False, True):
            c = connect(server, header("203.0.113.5"), tls=tls)
            c.login()
            assert address_in_session_list(server, c.jid) == "203.0.113.5:40000"
            server.wait_log("event=login_ok .*address=203.0.113.5")
            c.close()


def test_a_header_and_what_follows_byte_by_byte(server):
    c = connect(server, b"")
    stream = ("<?xml version='1.0'?><stream:stream to='localhost' version='1.0' xmlns='jabber:client' "
              "xmlns:stream='http://etherx.jabber.org/streams'>").encode()
    for byte in v2("203.0.113.6") + stream:
        c.send(bytes([byte]))
    c.expect("stream:features")
    c.sock.close()


def test_from_elsewhere_a_header_is_what_any_bytes_are_that_are_no_xmpp(server):
    for header in (v1, v2):
        for tls in (False, True):
            c = Client(types.SimpleNamespace(port=server.tls_port if tls else server.port), "localhost")
            c.send(header("192.0.2.1"))
            c.closed(stream_end=False)
    assert not any("proxy_rejected" in line for line in server.log)
    Client(server, "alice@localhost/direct").login().close()


def test_from_the_balancer_nothing_else_is_taken(server):
    for first, problem in ((b"<stream:stream ", "no PROXY header"), (b"GET / HTTP/1.1\r\n", "no PROXY"),
                           (b"PROXY TCP4 " + b"9" * 200, "header too long"),
                           (SIGNATURE + b"\x21\x11\x02\x09", "header too long"),
                           (b"PROXY TCP4 ", "no whole header in time")):
        c = connect(server, first)
        c.closed(stream_end=False)
        line = server.wait_log("event=proxy_rejected .*" + problem)
        assert "address=127.0.0.9" in line, line


def test_plain_from_is_about_the_client_not_the_balancer(server):
    def login_without_tls(header):
        c = connect(server, header)
        c.open()
        plain = c.features.find("sasl:mechanisms", NS) is not None
        c.sock.close()
        return plain
    assert login_without_tls(v1("192.0.2.77"))
    assert not login_without_tls(v1("203.0.113.7"))
    assert not login_without_tls(v1("127.0.0.1"))
    assert not login_without_tls(SIGNATURE + b"\x20\0\0\0") # LOCAL: nobody is named


def test_failed_logins_count_for_the_client_that_is_named(server):
    def condition(source):
        c = connect(server, v2(source), tls=True)
        c.open()
        answer = c.auth("SCRAM-SHA-256", password="wrong")
        c.sock.close()
        return answer[0].tag.split("}")[1]
    told = [condition("203.0.113.200") for _ in range(8)] # each of the two shards counts for itself
    assert told[0] == "not-authorized" and "temporary-auth-failure" in told, told
    assert condition("203.0.113.201") == "not-authorized"
    server.wait_log("event=login_throttled .*address=203.0.113.200")
