"""XEP-0215: STUN and TURN servers for calls, by type and with credentials for a time that coturn's
static-auth-secret checks; XEP-0157: whom to write to."""

import base64
import hashlib
import hmac
import pathlib
import tempfile
import time

from pemb import Client, condition, q

SECRET = pathlib.Path(tempfile.mkdtemp(prefix="pemberley-e2e-")) / "turn"
SECRET.write_text("north\n")
HOST_OPTIONS = f"""
    services = {{"stun:turn.example.net", "turn:turn.example.net:3479?transport=udp",  # by UDP
                "turns:[2001:db8::7]?transport=tcp"}}
    services_secret_file = "{SECRET}"
    services_lifetime = 10m
    contact_abuse = {{"mailto:abuse@example.net", "xmpp:abuse@example.net"}}
    contact_security = "https://example.net/security?a&b"
"""
USERS = ("alice@localhost", "bob@example.org")
NS = "{urn:xmpp:extdisco:2}"


def services(c, to, payload):
    return [s.attrib for s in c.iq("get", payload, to=to)[0]]


def check_credentials(s):
    until = int(s["username"])
    assert 500 < until - time.time() < 700, s
    mac = hmac.new(b"north", s["username"].encode(), hashlib.sha1).digest()
    assert s["password"] == base64.b64encode(mac).decode()
    assert s["expires"] == time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(until)) + ".000Z", s


def test_all_services_with_credentials_that_end(server):  # 3.1
    c = Client(server, "alice@localhost").login()
    stun, turn, turns = services(c, "localhost", "<services xmlns='urn:xmpp:extdisco:2'/>")
    assert stun == {"type": "stun", "host": "turn.example.net", "port": "3478"}
    assert (turn["host"], turn["port"], turn["transport"]) == ("turn.example.net", "3479", "udp")
    assert (turns["host"], turns["port"], turns["transport"]) == ("2001:db8::7", "5349", "tcp")
    for s in (turn, turns):
        assert s["restricted"] == "true"
        check_credentials(s)
    c.close()


def test_by_type_and_the_credentials_of_one(server):  # 3.2, 3.3
    c = Client(server, "alice@localhost").login()
    only = services(c, "localhost", "<services xmlns='urn:xmpp:extdisco:2' type='turns'/>")
    assert [s["type"] for s in only] == ["turns"]
    assert services(c, "localhost", "<services xmlns='urn:xmpp:extdisco:2' type='ftp'/>") == []
    ask = "<credentials xmlns='urn:xmpp:extdisco:2'><service host='%s' type='%s'/></credentials>"
    (one,) = services(c, "localhost", ask % ("turn.example.net", "turn"))
    check_credentials(one)
    for host, type in (("turn.example.net", "stun"), ("other.example.net", "turn")):
        assert condition(c.iq("get", ask % (host, type), to="localhost", check=False))[0] == "item-not-found"
    wrong = "<credentials xmlns='urn:xmpp:extdisco:2'/>"
    assert condition(c.iq("get", wrong, to="localhost", check=False))[0] == "bad-request"
    c.close()


def test_they_are_for_the_domain_s_own_users(server):
    c = Client(server, "bob@example.org").login()
    services = "<services xmlns='urn:xmpp:extdisco:2'/>"
    assert condition(c.iq("get", services, to="localhost", check=False))[0] == "forbidden"
    c.close()


def test_without_its_secret_no_relay_is_offered(server):
    c = Client(server, "alice@localhost").login()
    SECRET.rename(SECRET.with_suffix(".away"))
    try:
        left = services(c, "localhost", "<services xmlns='urn:xmpp:extdisco:2'/>")
    finally:
        SECRET.with_suffix(".away").rename(SECRET)
    assert [s["type"] for s in left] == ["stun"]
    c.close()


def test_disco_says_so_and_whom_to_write_to(server):  # XEP-0157 2
    c = Client(server, "alice@localhost").login()
    query = c.iq("get", "<query xmlns='http://jabber.org/protocol/disco#info'/>", to="localhost")[0]
    assert "urn:xmpp:extdisco:2" in [f.get("var") for f in query.findall(q("info:feature"))]
    (form,) = query.findall("{jabber:x:data}x")
    assert form.get("type") == "result"
    fields = {f.get("var"): [v.text for v in f] for f in form}
    assert fields == {"FORM_TYPE": ["http://jabber.org/network/serverinfo"],
                      "abuse-addresses": ["mailto:abuse@example.net", "xmpp:abuse@example.net"],
                      "security-addresses": ["https://example.net/security?a&b"]}
    c.close()
