"""OAUTHBEARER (RFC 7628) with JSON Web Tokens (RFC 7519): who is vouched for, and who is not."""

import base64
import hashlib
import hmac
import json
import os
import pathlib
import subprocess
import tempfile
import time

from pemb import Client, NS, Server, q

BIND = f"<bind xmlns='{NS['bind2']}'/>"
SECRET = os.urandom(32)
PHONE = "d4565fa7-4d72-4749-b3d3-740edbf87770"
RULES = ("auth.failure_delay=0s", "auth.address_failure_rate=0/s", "auth.account_failure_rate=0/s",
         "auth.failures_max=5", "auth.jwt.issuer=https://id.example.org", "auth.jwt.audience=chat",
         "auth.jwt.leeway=5s")


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def openssl(*args, stdin=None):
    return subprocess.run(["openssl", *args], input=stdin, capture_output=True, check=True).stdout


def raw_ecdsa(der):
    """DER's SEQUENCE of two INTEGERs as RFC 7518 3.4 wants it."""
    at, out = 2, b""
    for _ in range(2):
        n = der[at + 1]
        out += der[at + 2:at + 2 + n].lstrip(b"\0").rjust(32, b"\0")
        at += 2 + n
    return out


class Issuer:
    def __init__(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="pemberley-jwt-"))
        openssl("genrsa", "-out", str(self.dir / "rsa"), "2048")
        openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(self.dir / "ec"))
        self.pem = openssl("rsa", "-in", str(self.dir / "rsa"), "-pubout") \
            + openssl("ec", "-in", str(self.dir / "ec"), "-pubout")
        modulus = openssl("rsa", "-in", str(self.dir / "rsa"), "-modulus", "-noout").decode().split("=")[1]
        point = openssl("ec", "-in", str(self.dir / "ec"), "-pubout", "-outform", "DER")[-64:]
        self.jwks = {"keys": [
            {"kty": "oct", "kid": "h", "k": b64(SECRET)},
            {"kty": "oct", "kid": "short", "k": b64(b"x" * 16)},
            {"kty": "RSA", "kid": "r", "n": b64(bytes.fromhex(modulus)), "e": "AQAB"},
            {"kty": "RSA", "kid": "enc", "use": "enc", "n": b64(bytes.fromhex(modulus)), "e": "AQAB"},
            {"kty": "EC", "crv": "P-256", "kid": "e", "x": b64(point[:32]), "y": b64(point[32:])},
            {"kty": "EC", "crv": "P-521", "kid": "no", "x": "AA", "y": "AA"}, {"kty": 7}, []]}
        self.file = self.dir / "keys.json"
        self.file.write_text(json.dumps(self.jwks))

    def claims(self, **other):
        all = {"sub": "judy", "iss": "https://id.example.org", "aud": "chat", "exp": time.time() + 600, **other}
        return {k: v for k, v in all.items() if v is not None}

    def token(self, alg="HS256", head=None, secret=SECRET, **claims):
        text = b64(json.dumps({"alg": alg, **(head or {})}).encode()) + "." \
            + b64(json.dumps(self.claims(**claims)).encode())
        if alg == "HS256":
            sig = hmac.digest(secret, text.encode(), "sha256")
        elif alg == "RS256":
            sig = openssl("dgst", "-sha256", "-sign", str(self.dir / "rsa"), stdin=text.encode())
        elif alg == "ES256":
            sig = raw_ecdsa(openssl("dgst", "-sha256", "-sign", str(self.dir / "ec"), stdin=text.encode()))
        else:
            sig = b""
        return text + "." + b64(sig)


issuer = Issuer()
SETTINGS = RULES + (f"auth.jwt.keys_file={issuer.file}",)
HOST_OPTIONS = "auth = {internal, jwt}"


def fresh(server):
    c = Client(server, "judy@localhost")
    c.open()
    c.starttls()
    return c


def login(server, token, authzid="", c=None, raw=None, inner=BIND):
    c = c or fresh(server)
    a = f"a={authzid}" if authzid else ""
    first = raw if raw is not None else f"n,{a},\1auth=Bearer {token}\1\1".encode()
    answer = c.authenticate("OAUTHBEARER", initial=first, inner=inner,
                            agent=f"<user-agent id='{PHONE}'><software>App</software></user-agent>")
    if answer.tag == q("sasl2:challenge"):
        assert json.loads(base64.b64decode(answer.text)) == {"status": "invalid_token"}
        c.send(f"<response xmlns='{NS['sasl2']}'>AQ==</response>")
        answer = c.sasl2_answer()
    return c, answer


def ok(server, token, who="judy", **how):
    c, answer = login(server, token, **how)
    assert answer.tag == q("sasl2:success") and c.jid.startswith(f"{who}@localhost/"), answer[0].tag
    c.ping()
    c.close()


def refused(server, token, why="not-authorized", **how):
    c, answer = login(server, token, **how)
    assert answer.tag == q("sasl2:failure") and answer[0].tag.endswith("}" + why), answer[0].tag
    c.sock.close()


def test_offered_under_tls_alone(server):
    c = Client(server, "judy@localhost")
    c.open()
    assert "OAUTHBEARER" not in c.mechanisms()
    c.starttls()
    assert "OAUTHBEARER" in c.mechanisms()


def test_each_algorithm_and_an_account_that_was_not_there(server):
    for alg in ("HS256", "RS256", "ES256"):
        ok(server, issuer.token(alg))
        ok(server, issuer.token(alg, sub=f"new-{alg.lower()}"), who=f"new-{alg.lower()}")
    ok(server, issuer.token(sub="judy@localhost"))
    ok(server, issuer.token(aud=["other", "chat"]))
    ok(server, issuer.token(head={"kid": "h"}))
    ok(server, issuer.token(), authzid="judy@localhost")


def test_it_works_with_the_old_profile_too(server):
    c = fresh(server)
    first = base64.b64encode(f"n,,\1auth=Bearer {issuer.token()}\1\1".encode()).decode()
    c.send(f"<auth xmlns='{NS['sasl']}' mechanism='OAUTHBEARER'>{first}</auth>")
    assert c.expect("sasl:success") is not None


def test_wrong_signatures(server):
    good = issuer.token()
    refused(server, issuer.token(secret=b"y" * 32))
    refused(server, good[:-2] + ("AA" if not good.endswith("AA") else "BB"))
    head, claims, signature = good.split(".")
    other = b64(json.dumps(issuer.claims(sub="alice")).encode())
    refused(server, f"{head}.{other}.{signature}")
    refused(server, issuer.token("none"))
    refused(server, issuer.token(head={"kid": "r"})) # that key is for something else
    refused(server, issuer.token(head={"crit": ["x"]}))
    # RFC 8725 2.1: a public key is no secret
    refused(server, issuer.token(secret=issuer.pem))
    refused(server, issuer.token("RS256", head={"alg": "HS256"}))
    refused(server, issuer.token(secret=b"x" * 16, head={"kid": "short"}))


def test_claims_that_are_required(server):
    now = time.time()
    refused(server, issuer.token(iss="https://evil.example.org"))
    refused(server, issuer.token(iss=None))
    refused(server, issuer.token(aud="other"))
    refused(server, issuer.token(aud=None))
    refused(server, issuer.token(sub=None))
    refused(server, issuer.token(sub=7))
    refused(server, issuer.token(sub="judy@example.org"))
    refused(server, issuer.token(sub="ju dy"))
    refused(server, issuer.token(exp=None))
    refused(server, issuer.token(exp="tomorrow"))
    refused(server, issuer.token(nbf=now + 60))
    refused(server, issuer.token(exp=now - 60), why="credentials-expired")
    ok(server, issuer.token(exp=now - 2, nbf=now + 2)) # within the leeway
    refused(server, issuer.token(), why="invalid-authzid", authzid="alice@localhost")


def test_malformed(server):
    for raw in (b"", b"n,,", b"n,,\1\1", b"n,,\1auth=Bearer \1\1", b"p=x,,\1auth=Bearer a.b.c\1\1",
                b"n,b=x,\1auth=Bearer a.b.c\1\1", b"n,,\1auth=Basic abc\1\1", b"n,,\1auth=Bearer a.b.c\1\1more"):
        refused(server, "", why="malformed-request", raw=raw)
    for token in ("a", "a.b", "..", "a.b.c", "." * 100, "e30.e30.", "!.!.!", b64(b"[" * 3000) + ".e30.e30"):
        refused(server, token)


def test_a_disabled_account(server):
    ok(server, issuer.token(sub="gone"), who="gone")
    server.cli("user", "disable", "gone@localhost")
    refused(server, issuer.token(sub="gone"), why="account-disabled")


def test_who_never_showed_a_password_can_be_revoked(server):
    # XEP-0494 4.2
    import importlib.util
    spec = importlib.util.spec_from_file_location("fast", pathlib.Path(__file__).with_name("xep0484-fast.py"))
    fast = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fast)
    ask = BIND + "<request-token xmlns='urn:xmpp:fast:0' mechanism='HT-SHA-256-NONE'/>"
    phone, answer = login(server, issuer.token(sub="carl"), inner=ask)
    token = answer.find(f"{fast.FAST}token").get("token")
    desk = fresh(server)
    answer = desk.authenticate("OAUTHBEARER", inner=BIND,
                               initial=f"n,,\1auth=Bearer {issuer.token(sub='carl')}\1\1".encode())
    id = phone.jid.split("/")[-1]
    mine = [x for x in fast.clients(desk) if x.get("id") == id]
    assert len(mine) == 1 and mine[0].find(f"{fast.CAM}auth/{fast.CAM}password") is None
    again, answer = fast.with_token(server, token, user="carl")
    assert answer.tag == q("sasl2:success")
    phone.stream_error("conflict")
    desk.iq("set", f"<revoke xmlns='urn:xmpp:cam:0' id='{id}'/>")
    again.stream_error("reset")
    assert not [x for x in fast.clients(desk) if x.get("id") == id]
    c, answer = fast.with_token(server, token, user="carl")
    assert answer.tag == q("sasl2:failure")
    desk.close()


def test_no_password_opens_such_an_account(server):
    ok(server, issuer.token(sub="erin"), who="erin")
    for mechanism in ("PLAIN", "SCRAM-SHA-256"):
        c = fresh(server)
        answer = c.authenticate(mechanism, user="erin", password="secret-password")
        assert answer[0].tag.endswith("not-authorized")


def test_keys_are_read_again_at_a_reload_also_from_pem():
    server = Server(settings=SETTINGS, hosts=("localhost",), host_options="auth = {jwt}")
    try:
        assert fresh(server).mechanisms() == ["OAUTHBEARER"]
        ok(server, issuer.token("RS256"))
        file = issuer.file
        file.write_text("nonsense")
        server.cli("reload")
        server.wait_log("event=jwt_keys_bad")
        ok(server, issuer.token("HS256")) # as they were
        file.write_bytes(issuer.pem)
        server.cli("reload")
        ok(server, issuer.token("RS256"))
        ok(server, issuer.token("ES256"))
        refused(server, issuer.token("HS256"))
        server.stop()
    finally:
        issuer.file.write_text(json.dumps(issuer.jwks))
        server.kill()
