"""SASL upgrade tasks (XEP-0480): an account that came with SHA-1 alone gets the keys it lacks."""

import base64
import hashlib
import sqlite3

from pemb import Client, NS, Server, q

UPGRADE = "{urn:xmpp:sasl:upgrade:0}"
ALL = ("UPGR-SCRAM-SHA-256", "UPGR-SCRAM-SHA-512")
BIND = f"<bind xmlns='{NS['bind2']}'/>"
_server = None


def only_sha1(blob):
    """node/store's form: 1, then hash, iterations (4), n, salt, StoredKey, ServerKey of each."""
    out, at, size = blob[:1], 1, {0: 20, 1: 32, 2: 64}
    while at < len(blob):
        n = 6 + blob[at + 5] + 2 * size[blob[at]]
        if blob[at] == 0:
            out += blob[at:at + n]
        at += n
    return out


def imported():
    global _server
    if _server is None:
        _server = Server(settings=("auth.failure_delay=0s", "auth.address_failure_rate=0/s", "store.kind=sqlite"),
                         hosts=("localhost",))
        names = [f"{n}@localhost" for n in ("alice", "bob", "carol", "dave")]
        for jid in names:
            _server.add_user(jid)
        _server.stop()
        db = sqlite3.connect(_server.dir / "data/store.sqlite")
        for id, keys in db.execute("SELECT id, keys FROM account").fetchall():
            db.execute("UPDATE account SET keys = ? WHERE id = ?", (only_sha1(keys), id))
        db.commit()
        db.close()
        _server.start()
    return _server


def fresh(who):
    c = Client(imported(), f"{who}@localhost")
    c.open()
    c.starttls()
    return c


def ask(*tasks):
    return "".join(f"<upgrade xmlns='urn:xmpp:sasl:upgrade:0'>{t}</upgrade>" for t in tasks)


def task_of(answer):
    assert answer.tag == q("sasl2:continue"), answer.tag
    tasks = [t.text for t in answer.findall("sasl2:tasks/sasl2:task", NS)]
    assert len(tasks) == 1
    return tasks[0]


def begin(c, task):
    c.send(f"<next xmlns='{NS['sasl2']}' task='{task}'/>")
    salt = c.expect("sasl2:task-data")[0]
    assert salt.tag == "{urn:xmpp:scram-upgrade:0}salt"
    return base64.b64decode(salt.text), int(salt.get("iterations"))


def perform(c, task, password="secret-password"):
    salt, rounds = begin(c, task)
    hash = task.removeprefix("UPGR-SCRAM-").replace("-", "").lower()
    return reply(c, hashlib.pbkdf2_hmac(hash, password.encode(), salt, rounds))


def reply(c, salted):
    c.send(f"<task-data xmlns='{NS['sasl2']}'><hash xmlns='urn:xmpp:scram-upgrade:0'>"
           f"{base64.b64encode(salted).decode()}</hash></task-data>")
    return c.sasl2_answer()


def test_upgraded_one_after_the_other():
    # 2.2: "If the client selected more than one upgrade task, a sequence of upgrade tasks occur"
    assert fresh("alice").authenticate("SCRAM-SHA-256")[0].tag.endswith("not-authorized")
    c = fresh("alice")
    offered = [u.text for u in c.features.findall(f"sasl2:authentication/{UPGRADE}upgrade", NS)]
    assert set(ALL) < set(offered), offered
    answer = c.authenticate("SCRAM-SHA-1", inner=ask(*ALL) + BIND)
    for task in ALL:
        assert task_of(answer) == task
        answer = perform(c, task)
    assert answer.tag == q("sasl2:success") and c.jid
    assert answer.find("sasl2:additional-data", NS) is None
    c.ping()
    c.close()
    for mechanism in ("SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-512", "PLAIN"):
        c = fresh("alice")
        # what is there is not made again
        assert c.authenticate(mechanism, inner=ask(*ALL)).tag == q("sasl2:success"), mechanism
        c.sock.close()


def test_who_does_not_ask_is_not_asked():
    assert fresh("bob").authenticate("SCRAM-SHA-1").tag == q("sasl2:success")
    assert fresh("bob").authenticate("SCRAM-SHA-1", inner=ask("UPGR-NONSENSE")).tag == q("sasl2:success")


def test_a_wrong_password_is_given_no_task():
    assert fresh("bob").authenticate("SCRAM-SHA-1", inner=ask(*ALL), password="wrong")[0].tag.endswith("not-authorized")


def test_nothing_else_while_a_task_is_open():
    for other in ("<message to='alice@localhost'><body>x</body></message>",
                  f"<iq type='set' id='b'><bind xmlns='{NS['bind']}'/></iq>",
                  f"<authenticate xmlns='{NS['sasl2']}' mechanism='PLAIN'/>"):
        c = fresh("bob")
        task_of(c.authenticate("SCRAM-SHA-1", inner=ask(ALL[0])))
        c.send(other)
        c.stream_error("not-authorized")


def test_tasks_out_of_order_or_malformed():
    def failed(c, text):
        c.send(text)
        assert c.expect("sasl2:failure")[0].tag == q("sasl:malformed-request")
        c.stream_error("not-authorized")
    for text in (f"<next xmlns='{NS['sasl2']}' task='{ALL[1]}'/>", f"<next xmlns='{NS['sasl2']}'/>",
                 f"<task-data xmlns='{NS['sasl2']}'/>"):
        c = fresh("bob")
        task_of(c.authenticate("SCRAM-SHA-1", inner=ask(ALL[0])))
        failed(c, text)
    for salted in (b"", b"x" * 31, b"x" * 33):
        c = fresh("bob")
        begin(c, task_of(c.authenticate("SCRAM-SHA-1", inner=ask(ALL[0]))))
        failed(c, f"<task-data xmlns='{NS['sasl2']}'><hash xmlns='urn:xmpp:scram-upgrade:0'>"
               f"{base64.b64encode(salted).decode()}</hash></task-data>")
    assert fresh("bob").authenticate("SCRAM-SHA-256")[0].tag.endswith("not-authorized")


def test_a_password_that_was_changed_meanwhile_stays():
    c = fresh("carol")
    task = task_of(c.authenticate("SCRAM-SHA-1", inner=ask(ALL[0])))
    salt, rounds = begin(c, task)
    imported().cli("user", "passwd", "--stdin", "carol@localhost", stdin="another-password\n")
    salted = hashlib.pbkdf2_hmac("sha256", b"secret-password", salt, rounds)
    c.send(f"<task-data xmlns='{NS['sasl2']}'><hash xmlns='urn:xmpp:scram-upgrade:0'>"
           f"{base64.b64encode(salted).decode()}</hash></task-data>")
    c.stream_error("reset")
    for mechanism in ("SCRAM-SHA-1", "SCRAM-SHA-256"):
        assert fresh("carol").authenticate(mechanism, password="another-password").tag == q("sasl2:success")


def test_tokens_survive_an_upgrade():
    phone = "<user-agent id='d4565fa7-4d72-4749-b3d3-740edbf87770'/>"
    want = "<request-token xmlns='urn:xmpp:fast:0' mechanism='HT-SHA-256-NONE'/>"
    c = fresh("dave")
    answer = c.authenticate("SCRAM-SHA-1", inner=want + ask(ALL[0]) + BIND, agent=phone)
    task = task_of(answer)
    assert answer.find("{urn:xmpp:fast:0}token") is None
    answer = perform(c, task)
    # XEP-0484 3.3: a token only when all tasks are done
    assert answer.find("{urn:xmpp:fast:0}token") is not None
    c.close()


def test_the_node_stops_clean():
    imported().stop()
