"""XEP-0050 and XEP-0133: a host's admins look after its accounts from any client that knows ad-hoc
commands; nobody else sees or may do anything."""

import pemb
from pemb import Client, StreamError, condition, q

HOST_OPTIONS = 'admins = {"root@localhost"}'
USERS = ("root@localhost", "alice@localhost", "bob@localhost", "carol@example.org")
SHARDS = 3
CMD = "http://jabber.org/protocol/commands"
ADMIN = "http://jabber.org/protocol/admin#"
X = "{jabber:x:data}"
NODES = """add-user delete-user disable-user reenable-user end-user-session change-user-password
get-user-roster get-user-lastlogin user-stats get-registered-users-num get-disabled-users-num
get-online-users-num get-active-users-num get-idle-users-num get-registered-users-list
get-disabled-users-list get-online-users-list get-active-users get-idle-users announce""".split()


def command(c, node, inner="", to="localhost", check=True, **attributes):
    attributes = "".join(f" {k}='{v}'" for k, v in attributes.items())
    return c.iq("set", f"<command xmlns='{CMD}' node='{ADMIN}{node}'{attributes}>{inner}</command>", to=to,
                check=check)


def form(form_type="http://jabber.org/protocol/admin", **fields):
    text = f"<field var='FORM_TYPE'><value>{form_type}</value></field>"
    for var, values in fields.items():
        values = [values] if isinstance(values, str) else values
        text += f"<field var='{var.replace('_', '-') if var == 'password_verify' else var}'>" + "".join(
            f"<value>{v}</value>" for v in values) + "</field>"
    return f"<x xmlns='jabber:x:data' type='submit'>{text}</x>"


def fields(cmd):
    return {f.get("var"): [v.text for v in f.findall(X + "value")] for f in cmd.iter(X + "field")}


def do(c, node, **given):
    """Both stages; the fields of the answer."""
    asked = command(c, node)[0]
    assert asked.get("status") == "executing" and asked.find(f"{{{CMD}}}actions/{{{CMD}}}complete") is not None
    x = asked.find(X + "x")
    assert x.get("type") == "form" and x.find(X + "title") is not None
    required = {f.get("var") for f in x.findall(X + "field") if f.find(X + "required") is not None}
    assert required <= {k.replace("password_verify", "password-verify") for k in given}, required
    done = command(c, node, form(**given), sessionid=asked.get("sessionid"), action="complete")[0]
    assert done.get("status") == "completed" and done.get("sessionid") == asked.get("sessionid")
    return done


def note(cmd):
    n = cmd.find(f"{{{CMD}}}note")
    return None if n is None else (n.get("type"), n.text)


def root(server):
    return Client(server, "root@localhost").login(presence=True)


def can_login(server, jid, password):
    try:
        Client(server, jid, password).login().close()
        return True
    except (AssertionError, StreamError):
        return False


def test_admins_find_the_commands_and_nobody_else_does(server):  # XEP-0050 2.1, 2.2
    items = "<query xmlns='http://jabber.org/protocol/disco#items' node='%s'/>" % CMD
    info = "<query xmlns='http://jabber.org/protocol/disco#info' node='%s'/>"
    r, alice, carol = root(server), Client(server, "alice@localhost").login(), \
        Client(server, "carol@example.org").login()
    listed = r.iq("get", items, to="localhost")[0]
    assert [i.get("node") for i in listed] == [ADMIN + n for n in NODES]
    assert all(i.get("jid") == "localhost" and i.get("name") for i in listed)
    for node, type in ((CMD, "command-list"), (ADMIN + "add-user", "command-node")):
        answer = r.iq("get", info % node, to="localhost")[0]
        assert answer[0].get("category") == "automation" and answer[0].get("type") == type
    for c in (alice, carol):
        assert len(c.iq("get", items, to="localhost")[0]) == 0
        e = c.iq("get", info % (ADMIN + "add-user"), to="localhost", check=False)
        assert condition(e)[0] == "item-not-found"
        for node in NODES:
            assert condition(command(c, node, check=False)) == ("forbidden", "auth")
    for c in (r, alice, carol):
        c.close()


def test_what_is_no_command_is_refused_by_name(server):  # XEP-0050 4.4
    r = root(server)
    for attributes, inner, name in (
            ({"action": "next"}, "", "bad-action"), ({"action": "prev"}, "", "bad-action"),
            ({"action": "dance"}, "", "malformed-action"), ({"sessionid": "x" * 65}, "", "bad-sessionid"),
            ({}, "<x xmlns='jabber:x:data' type='form'/>", "bad-payload"),
            ({}, form(form_type="urn:other", accountjids="alice@localhost"), "bad-payload"),
            ({}, form(accountjids=["alice@localhost"] * 101), "bad-payload"),
            ({}, form(accountjids="carol@example.org"), "bad-payload"),
            ({}, form(accountjids="not a jid@localhost"), "bad-payload"),
            ({}, form(accountjids="localhost"), "bad-payload"),
            ({}, form(), "bad-payload")):
        e = command(r, "delete-user", inner, check=False, **attributes)
        assert condition(e)[0] == "bad-request", pemb.ET.tostring(e)
        assert e.find(f"c:error/{{{CMD}}}{name}", pemb.NS) is not None, (name, pemb.ET.tostring(e))
    assert condition(command(r, "get-user-password", check=False))[0] == "item-not-found"
    asked = command(r, "delete-user")[0]
    gone = command(r, "delete-user", sessionid=asked.get("sessionid"), action="cancel")[0]
    assert gone.get("status") == "canceled"
    assert can_login(server, "alice@localhost", "secret-password")
    r.close()


def test_accounts_are_made_changed_disabled_and_removed(server):  # XEP-0133 4.1-4.5, 4.7
    r = root(server)
    assert note(do(r, "add-user", accountjid="dora@localhost", password="first-password",
                   password_verify="first-password")) is None
    assert can_login(server, "dora@localhost", "first-password")
    assert note(do(r, "add-user", accountjid="dora@localhost", password="first-password",
                   password_verify="first-password")) == ("error", "dora@localhost exists already")
    assert note(do(r, "add-user", accountjid="ella@localhost", password="first-password",
                   password_verify="other"))[0] == "error"
    assert note(do(r, "add-user", accountjid="ella@localhost", password="x", password_verify="x"))[0] == "error"
    dora = Client(server, "dora@localhost", "first-password").login()
    do(r, "change-user-password", accountjid="dora@localhost", password="second-password")
    dora.stream_error("reset")
    assert not can_login(server, "dora@localhost", "first-password")
    dora = Client(server, "dora@localhost", "second-password").login()
    do(r, "end-user-session", accountjids=dora.jid)
    dora.stream_error("policy-violation")
    dora = Client(server, "dora@localhost", "second-password").login()
    do(r, "disable-user", accountjids=["dora@localhost"])
    dora.stream_error("not-authorized")
    assert not can_login(server, "dora@localhost", "second-password")
    assert fields(command(r, "get-disabled-users-num")[0])["disabledusersnum"] == ["1"]
    assert fields(do(r, "get-disabled-users-list"))["disableduserjids"] == ["dora@localhost"]
    do(r, "reenable-user", accountjids="dora@localhost")
    assert can_login(server, "dora@localhost", "second-password")
    do(r, "delete-user", accountjids="dora@localhost")
    assert not can_login(server, "dora@localhost", "second-password")
    gone = do(r, "delete-user", accountjids="dora@localhost")
    assert note(gone)[0] == "error" and "no user dora@localhost" in note(gone)[1]
    r.close()


def test_what_is_known_of_an_account(server):  # 4.8-4.10
    r = root(server)
    alice = Client(server, "alice@localhost/desk").login(presence=True, roster=True)
    alice.iq("set", "<query xmlns='jabber:iq:roster'><item jid='bob@localhost' name='B'><group>G</group></item>"
             "</query>")
    roster = do(r, "get-user-roster", accountjids="alice@localhost")
    (item,) = roster.iter("{jabber:iq:roster}item")
    assert (item.get("jid"), item.get("name"), item[0].text) == ("bob@localhost", "B", "G")
    stats = fields(do(r, "user-stats", accountjid="alice@localhost"))
    assert stats["rostersize"] == ["1"] and stats["onlineresources"] == ["desk"]
    assert stats["ipaddresses"][0].startswith("127.0.0.1:")
    assert fields(do(r, "get-user-lastlogin", accountjids="alice@localhost"))["lastlogin"] == ["Online"]
    assert fields(do(r, "get-user-lastlogin", accountjids="bob@localhost"))["lastlogin"] == ["Never"]
    alice.close()
    r.close()


def test_who_is_there(server):  # 4.13-4.22
    r = root(server)
    alice = Client(server, "alice@localhost").login(presence=True)
    bob = Client(server, "bob@localhost").login()
    carol = Client(server, "carol@example.org").login(presence=True)
    bob.send("<presence><show>xa</show></presence>")
    bob.ping()
    num = {n: fields(command(r, f"get-{n}-users-num")[0])[f"{n}usersnum"][0] for n in
           ("registered", "online", "active", "idle")}
    assert num == {"registered": "3", "online": "3", "active": "2", "idle": "1"}, num
    three = ["alice@localhost", "bob@localhost", "root@localhost"]
    assert fields(do(r, "get-registered-users-list", max_items="25"))["registereduserjids"] == three
    assert sorted(fields(do(r, "get-online-users-list"))["onlineuserjids"]) == three
    assert len(fields(do(r, "get-online-users-list", max_items="2"))["onlineuserjids"]) == 2
    assert fields(do(r, "get-idle-users"))["idleuserjids"] == ["bob@localhost"]
    assert sorted(fields(do(r, "get-active-users"))["activeuserjids"]) == ["alice@localhost", "root@localhost"]
    for c in (r, alice, bob, carol):
        c.close()


def test_an_announcement_reaches_who_is_there_of_the_host(server):  # 4.23
    r = root(server)
    people = [Client(server, jid).login(presence=True) for jid in
              ("alice@localhost", "alice@localhost", "bob@localhost", "carol@example.org")]
    do(r, "announce", subject="Tonight", announcement=["We move.", "Back at 3 &amp; sooner"])
    for c in people[:3] + [r]:
        m = c.expect_body("We move.\nBack at 3 & sooner")
        assert m.get("from") == "localhost" and m.get("type") == "headline" and m.get("to") == c.jid
        assert m.find("c:subject", pemb.NS).text == "Tonight"
    people[3].ping()
    assert not [e for e in people[3].backlog if e.tag == q("c:message")]
    for c in people + [r]:
        c.close()
