"""Accounts made in-band before login (XEP-0077 3.1; host registration = open): the form, the account,
each refusal, the rate of an address; and none of it where registration is off."""

import pemb
from pemb import Client, NS, condition, q

SETTINGS = ("modules.register.address_rate=0/s", "limits.close_timeout=200ms")
HOST_OPTIONS = "registration = open"


def stranger(server, source=None, tls=True):
    c = Client(server, "localhost", source=source)
    c.open()
    if tls:
        c.starttls()
    return c


def register(c, username, password, extra=""):
    user = f"<username>{username}</username>" if username is not None else ""
    word = f"<password>{password}</password>" if password is not None else ""
    return c.iq("set", f"<query xmlns='jabber:iq:register'>{user}{word}{extra}</query>", check=False)


def test_a_form_then_an_account_then_a_login_on_the_same_stream(server):
    c = stranger(server)
    assert c.features.find("{http://jabber.org/features/iq-register}register") is not None
    form = c.iq("get", "<query xmlns='jabber:iq:register'/>")
    assert form.find("register:query/register:username", NS) is not None
    assert form.find("register:query/register:password", NS) is not None
    assert register(c, "Newcomer", "secret-password").get("type") == "result"
    c.user, c.password = "newcomer", "secret-password"
    for mechanism in c.mechanisms():
        d = Client(server, "newcomer@localhost").login(mechanism)
        assert d.jid.startswith("newcomer@localhost/")
        d.close()
    assert c.auth().tag == q("sasl:success")
    assert c.bind().get("type") == "result"
    c.close()
    server.wait_log("event=account_changed .*jid=newcomer@localhost what=added by=registration")


def test_refusals(server):
    server.add_user("taken@localhost")
    c = stranger(server)
    assert condition(register(c, "taken", "secret-password")) == ("conflict", "cancel")
    assert condition(register(c, "TAKEN", "secret-password")) == ("conflict", "cancel")
    for username, password in ((None, "secret-password"), ("someone", None), ("", "secret-password"),
                               ("someone", ""), ("someone", "short"), ("a b", "secret-password"),
                               ("a@b", "secret-password"), ("x" * 1100, "secret-password"),
                               ("a&#x202e;b", "secret-password"), ("someone", "p" * 2000),
                               ("someone", "secret\u0007-password".replace("\u0007", "&#9;"))):
        r = register(c, username, password)
        assert condition(r)[0] in ("not-acceptable", "bad-request"), (username, password, condition(r))
    assert server.cli("user", "show", "someone@localhost", check=False).returncode == 4
    assert Client(server, "taken@localhost").login() is not None, "the password is still the old one"
    c.send("<iq type='set' id='x'><query xmlns='jabber:iq:register'><remove/></query></iq>")
    r = c.expect("c:iq")
    assert r.get("type") == "error", "nobody is logged in: nothing to remove"
    c.send("<iq type='set'><query xmlns='jabber:iq:register'/></iq>")
    assert c.expect("c:iq").get("type") == "error"
    c.send("<iq type='get' id='y'><query xmlns='jabber:iq:roster'/></iq>")
    c.stream_error("not-authorized")


def test_twice_the_same_name_at_once_makes_one_account(server):
    clients = [stranger(server) for _ in range(6)]
    for i, c in enumerate(clients):
        c.send(f"<iq type='set' id='r'><query xmlns='jabber:iq:register'><username>race</username>"
               f"<password>password-{i}</password></query></iq>")
    answers = [c.expect("c:iq") for c in clients]
    won = [i for i, a in enumerate(answers) if a.get("type") == "result"]
    assert len(won) == 1, won
    Client(server, "race@localhost", f"password-{won[0]}").login().close()
    for c in clients:
        c.sock.close()


def test_an_address_makes_few_accounts():
    server = pemb.Server(settings=("modules.register.address_rate=3/h", "limits.close_timeout=200ms"),
                         host_options="registration = open\n users_max = 5", shards=1)
    c = stranger(server, "127.0.0.5")
    for i in range(3):
        assert register(c, f"n{i}", "secret-password").get("type") == "result"
    assert condition(register(c, "n3", "secret-password")) == ("resource-constraint", "wait")
    d = stranger(server, "127.0.0.6")
    for i in range(4, 6):
        assert register(d, f"n{i}", "secret-password").get("type") == "result"
    assert condition(register(d, "n6", "secret-password"))[0] in ("resource-constraint", "not-allowed"), \
        "users_max"
    for client in (c, d):
        client.sock.close()
    server.stop()


def test_where_it_is_off_it_is_not_offered_and_not_done():
    server = pemb.Server(settings=("limits.close_timeout=200ms",))
    c = stranger(server)
    assert c.features.find("{http://jabber.org/features/iq-register}register") is None
    c.send("<iq type='set' id='r'><query xmlns='jabber:iq:register'><username>x</username>"
           "<password>secret-password</password></query></iq>")
    c.stream_error("not-authorized")
    assert server.cli("user", "show", "x@localhost", check=False).returncode == 4
    server.stop()


def test_not_in_clear_where_tls_is_required():
    server = pemb.Server(settings=("limits.close_timeout=200ms",), host_options="registration = open",
                         plain=False)
    c = stranger(server, tls=False)
    assert c.features.find("{http://jabber.org/features/iq-register}register") is None
    c.send("<iq type='set' id='r'><query xmlns='jabber:iq:register'><username>x</username>"
           "<password>secret-password</password></query></iq>")
    c.stream_error("policy-violation")
    server.stop()
