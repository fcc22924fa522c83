"""What must not be said on a stream (RFC 6120 4.9.3, 11; xmpp.md 10): each with its stream error,
before and after login, and the next client is served as if nothing had been."""

import socket

from pemb import Client, Closed, NS, StreamError, q

USERS = ("alice@localhost",)

HEADER = ("<?xml version='1.0'?><stream:stream to='localhost' version='1.0' xmlns='jabber:client' "
          "xmlns:stream='http://etherx.jabber.org/streams'>")

# Behind a header. (name, bytes, condition)
INSIDE = [
    ("DOCTYPE", b"<!DOCTYPE a [<!ENTITY b 'c'>]>", "restricted-xml"),
    ("entity", b"<message><body>&b;</body></message>", "restricted-xml"),
    ("entity in an attribute", b"<message id='&b;'/>", "restricted-xml"),
    ("comment", b"<!-- a -->", "restricted-xml"),
    ("comment inside", b"<message><!-- a --></message>", "restricted-xml"),
    ("processing instruction", b"<?a b?>", "restricted-xml"),
    ("second declaration", b"<?xml version='1.0'?>", "restricted-xml"),
    ("text at stream level", b"hello", "bad-format"),
    ("mismatched tags", b"<a><b></a></b>", "not-well-formed"),
    ("attribute twice", b"<a b='1' b='2'/>", "not-well-formed"),
    ("attribute twice by namespace", b"<a xmlns:p='u' xmlns:q='u' p:b='1' q:b='2'/>", "not-well-formed"),
    ("undeclared prefix", b"<p:a/>", "not-well-formed"),
    ("invalid UTF-8", b"<a>\xff</a>", "not-well-formed"),
    ("overlong UTF-8", b"<a>\xc0\xaf</a>", "not-well-formed"),
    ("surrogate", b"<a>\xed\xa0\x80</a>", "not-well-formed"),
    ("NUL", b"<a>\0</a>", "not-well-formed"),
    ("BOM between stanzas", b"\xef\xbb\xbf<a/>", None),
    ("control character by reference", b"<a>&#1;</a>", "not-well-formed"),
    ("< in an attribute", b"<a b='<'/>", "not-well-formed"),
    ("]]> in text", b"<a>]]></a>", "not-well-formed"),
    ("xmlns prefix bound", b"<a xmlns:xmlns='u'/>", "not-well-formed"),
    ("end tag of nothing", b"</a>", "not-well-formed"),
    ("too deep", b"<a>" * 70, "policy-violation"),
    ("too many attributes", b"<a " + b" ".join(b"a%d='x'" % i for i in range(80)) + b"/>",
     "policy-violation"),
    ("too many namespaces", b"<a " + b" ".join(b"xmlns:a%d='x'" % i for i in range(40)) + b"/>",
     "policy-violation"),
    ("a long name", b"<" + b"a" * 1100 + b"/>", "policy-violation"),
]
BEFORE_LOGIN = INSIDE + [
    ("a large stanza", b"<message><body>" + b"x" * 9000, "policy-violation"),
    ("many elements", b"<message>" + b"<a/>" * 40, "policy-violation"),
    ("a message", b"<message to='alice@localhost'><body>x</body></message>", "not-authorized"),
    ("a presence", b"<presence/>", "not-authorized"),
    ("an iq", b"<iq type='get' id='1'><query xmlns='jabber:iq:roster'/></iq>", "not-authorized"),
    ("whitespace without end", b" " * 20000, "policy-violation"),
]
AFTER_LOGIN = INSIDE + [
    ("an unknown element", b"<hello xmlns='urn:x'/>", "unsupported-stanza-type"),
    ("a stanza of a wrong namespace", b"<message xmlns='jabber:server' to='alice@localhost'/>", None),
    ("a prefixed stanza", b"<p:message xmlns:p='jabber:client' to='alice@localhost'/>",
     "bad-namespace-prefix"),
    ("a stream inside the stream", b"<stream:stream to='localhost' version='1.0'>", "bad-format"),
    ("a huge stanza", b"<message><body>" + b"x" * 300000, "policy-violation"),
    ("many elements", b"<message>" + b"<a/>" * 5000, "policy-violation"),
]


def ends_with(client, name, condition):
    try:
        client.expect(lambda e: False, timeout=8)
    except StreamError as e:
        if condition:
            assert e.condition == condition, f"{name}: {e.condition}"
        client.backlog.clear()
        client.closed()
        return
    except Closed:
        raise AssertionError(f"{name}: closed without a stream error")
    raise AssertionError(f"{name}: nothing")


def send(client, data):
    try:
        client.send(data)
    except OSError:
        pass # closed already while we wrote: what it said is still to be read


def test_before_login(server):
    for name, data, condition in BEFORE_LOGIN:
        c = Client(server, "alice@localhost")
        c.open()
        send(c, data)
        ends_with(c, name, condition)
    Client(server, "alice@localhost").login().close()


def test_after_login(server):
    for name, data, condition in AFTER_LOGIN:
        c = Client(server, "alice@localhost").login()
        send(c, data)
        ends_with(c, name, condition)
    Client(server, "alice@localhost").login().close()


HEADERS = [
    ("no to", "<stream:stream version='1.0' xmlns='jabber:client' xmlns:stream='%(s)s'>",
     "improper-addressing"),
    ("a host not served", "<stream:stream to='other.example' version='1.0' xmlns='jabber:client' "
     "xmlns:stream='%(s)s'>", "host-unknown"),
    ("no version", "<stream:stream to='localhost' xmlns='jabber:client' xmlns:stream='%(s)s'>",
     "unsupported-version"),
    ("an old version", "<stream:stream to='localhost' version='0.9' xmlns='jabber:client' "
     "xmlns:stream='%(s)s'>", "unsupported-version"),
    ("another stream namespace", "<stream:stream to='localhost' version='1.0' xmlns='jabber:client' "
     "xmlns:stream='urn:other'>", "invalid-namespace"),
    ("another content namespace", "<stream:stream to='localhost' version='1.0' xmlns='urn:other' "
     "xmlns:stream='%(s)s'>", "invalid-namespace"),
    ("another root", "<a to='localhost' version='1.0' xmlns='jabber:client'>", None),
    ("another encoding", "<?xml version='1.0' encoding='ISO-8859-1'?><stream:stream to='localhost' "
     "version='1.0' xmlns='jabber:client' xmlns:stream='%(s)s'>", "unsupported-encoding"),
    ("a DTD", "<!DOCTYPE a><stream:stream to='localhost' version='1.0' xmlns='jabber:client' "
     "xmlns:stream='%(s)s'>", "restricted-xml"),
]


def test_bad_headers_are_answered_with_our_header_and_an_error(server):
    for name, header, condition in HEADERS:
        c = Client(server, "alice@localhost")
        c.send(header % {"s": NS["stream"]})
        ends_with(c, name, condition)
        assert c.header is not None and c.header.tag == q("stream:stream"), name
        assert c.header.get("id"), name


def test_what_is_no_xml_is_closed_without_a_word(server):
    for data in (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03",
                 b"\xff\xfe<\0", b"SSH-2.0-OpenSSH\r\n"):
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as s:
            s.sendall(data)
            assert s.recv(4096) == b"", data


def test_both_header_styles(server):
    c = Client(server, "alice@localhost")
    c.send("<stream xmlns='http://etherx.jabber.org/streams' to='localhost' version='1.0'>")
    c.features = c.expect("stream:features")
    assert c.auth(reopen=False).tag == q("sasl:success")
    c.restart()
    c.send("<stream xmlns='http://etherx.jabber.org/streams' to='localhost' version='1.0' "
           "xmlns:x='urn:xmpp:ping'>")
    c.expect("stream:features")
    c.send("<iq xmlns='jabber:client' type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>")
    c.jid = c.expect("c:iq").find("bind:bind/bind:jid", NS).text
    c.send(f"<message xmlns='jabber:client' to='{c.jid}' id='1'><x:hello a='&amp;'/></message>")
    m = c.expect("c:message")
    assert m.find("{urn:xmpp:ping}hello").get("a") == "&", "the header's prefix went along"
    c.close()


def test_pipelined_behind_starttls_is_discarded(server):
    c = Client(server, "alice@localhost")
    c.open()
    c.send("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/><auth xmlns='%s' mechanism='PLAIN'>"
           "AGFsaWNlAHNlY3JldC1wYXNzd29yZA==</auth>" % NS["sasl"])
    c.expect("tls:proceed")
    c.wrap()
    c.open()
    assert c.mechanisms(), "the stream is fresh: nobody is logged in"
    c.send("<iq type='get' id='1'><ping xmlns='urn:xmpp:ping'/></iq>")
    c.stream_error("not-authorized")


def test_tls_is_required_where_the_config_says_so():
    import pemb
    server = pemb.Server(plain=False)
    server.add_user("alice@localhost")
    c = Client(server, "alice@localhost")
    features = c.open()
    assert features.find("tls:starttls/tls:required", NS) is not None
    assert features.find("sasl:mechanisms", NS) is None
    c.send(f"<auth xmlns='{NS['sasl']}' mechanism='PLAIN'>AGFsaWNlAHNlY3JldC1wYXNzd29yZA==</auth>")
    try:
        failure = c.expect("sasl:failure")
        assert failure[0].tag == q("sasl:encryption-required")
    except StreamError as e:
        assert e.condition == "policy-violation"
    c.sock.close()
    Client(server, "alice@localhost").login().close()
    server.stop()
