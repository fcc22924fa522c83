"""What a stream says of itself before and after login: channel bindings (XEP-0440), the hash of it
(XEP-0474), the version of TLS (XEP-0515), limits (XEP-0478)."""

import base64
import hashlib
import ssl

from pemb import Client, NS, q

USERS = ("alice@localhost",)
SETTINGS = ("auth.failure_delay=0s", "auth.address_failure_rate=0/s", "auth.account_failure_rate=0/s",
            "limits.c2s.stanza_max=100000b", "limits.preauth.stanza_max=8k", "limits.ping_interval=3m")
LIMITS = "{urn:xmpp:stream-limits:0}"


def fresh(server, maximum=None):
    c = Client(server, "alice@localhost")
    c.open()
    c.send("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
    c.expect("tls:proceed")
    c.wrap(maximum=maximum)
    c.open()
    return c


def first_of_server(c):
    """The attributes of the server's first message."""
    c.send(f"<auth xmlns='{NS['sasl']}' mechanism='SCRAM-SHA-256'>"
           + base64.b64encode(b"n,,n=alice,r=abcdef").decode() + "</auth>")
    text = base64.b64decode(c.expect("sasl:challenge").text).decode()
    return dict(f.split("=", 1) for f in text.split(","))


def test_end_point_is_always_there(server):
    # XEP-0440 3: "Servers MUST implement tls-server-end-point and enable/advertise it."
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        c = fresh(server, version)
        types = [e.get("type") for e in c.features.findall("cb:sasl-channel-binding/cb:channel-binding", NS)]
        assert "tls-server-end-point" in types, types
        c.sock.close()


def test_the_hash_of_what_was_advertised(server):
    # XEP-0474 5.1
    c = fresh(server)
    types = [e.get("type") for e in c.features.findall("cb:sasl-channel-binding/cb:channel-binding", NS)]
    text = "\x1e".join(sorted(c.mechanisms())) + "\x1f" + "\x1e".join(sorted(types))
    want = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    assert first_of_server(c)["h"] == want


def test_the_version_of_tls_is_covered_by_the_proof(server):
    # XEP-0515 4.1: "The server then adds the optional attribute 't'"
    for version, name in ((ssl.TLSVersion.TLSv1_2, "0303"), (ssl.TLSVersion.TLSv1_3, "0304")):
        c = fresh(server, version)
        assert first_of_server(c)["t"] == name
        c.sock.close()
    c = fresh(server)
    assert c.auth().tag == q("sasl:success")
    c.close()


def test_without_tls_there_is_no_version(server):
    c = Client(server, "alice@localhost")
    c.open()
    assert "t" not in first_of_server(c)


def test_limits_are_those_in_force(server):
    # XEP-0478 3: "It is acceptable for the limits on a stream to change whenever new stream features
    # are announced - such as before and after authentication"
    c = fresh(server)
    assert c.features.findtext(f"{LIMITS}limits/{LIMITS}max-bytes") == "8192"
    assert c.features.find(f"{LIMITS}limits/{LIMITS}idle-seconds") is None
    c.auth()
    assert c.features.findtext(f"{LIMITS}limits/{LIMITS}max-bytes") == "100000"
    assert c.features.findtext(f"{LIMITS}limits/{LIMITS}idle-seconds") == "180"
    c.close()
