"""What the log has and never has (operator.md 4), and that a password typed at the terminal is not shown."""

import base64
import os
import pty
import re

from pemb import BIN, Client, befriend

SETTINGS = ("log.level=debug", "limits.close_timeout=200ms")
PASSWORD = "Sup3r-Secret-Word"
NEVER = (PASSWORD, "Wr0ng-Secret-Word", "the body", "the subject", "the status", "the roster name",
         base64.b64encode(f"\0secretive\0{PASSWORD}".encode()).decode())


def test_no_password_body_subject_status_or_roster_name(server):
    for name in ("secretive", "curious"):
        server.add_user(f"{name}@localhost", PASSWORD)
    a = Client(server, "secretive@localhost/x", PASSWORD).login("PLAIN", presence=True)
    b = Client(server, "curious@localhost/y", PASSWORD).login(sm=True, presence=True)
    befriend(a, b)
    a.message(b.jid, "the body", extra="<subject>the subject</subject>")
    b.expect_body("the body")
    a.iq("set", "<query xmlns='jabber:iq:roster'><item jid='curious@localhost' name='the roster name'/></query>")
    a.send("<presence id='p'><status>the status</status></presence>")
    b.expect(lambda e: e.get("id") == "p")
    wrong = Client(server, "secretive@localhost", "Wr0ng-Secret-Word")
    wrong.open()
    wrong.starttls()
    wrong.auth("PLAIN")
    wrong.sock.close()
    a.send("<unheard-of xmlns='urn:x'>the body</unheard-of>")
    a.stream_error("unsupported-stanza-type")
    b.drop()
    server.wait_log("event=session_detached .*jid=curious@localhost/y")
    for line in server.log:
        assert re.match(r"ts=\S+ level=(debug|info|warn|error) event=\w+ node=a shard=\w+( |$)", line), line
        assert not [never for never in NEVER if never in line], line


def test_a_password_typed_twice_is_not_shown(server):
    child, terminal = pty.fork()
    if child == 0:
        os.execve(BIN / "pemberley", ["pemberley", "--config", str(server.conf), "user", "add",
                                      "typed@localhost"], server.env)
    shown = b""
    for question in (b"Password for typed@localhost", b"Again: "):
        while question not in shown or not shown.endswith(b": "):
            shown += os.read(terminal, 4096)
        os.write(terminal, PASSWORD.encode() + b"\n")
    try:
        while more := os.read(terminal, 4096):
            shown += more
    except OSError:
        pass # the other end is closed
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, shown
    assert PASSWORD.encode() not in shown and b"added typed@localhost" in shown, shown
    Client(server, "typed@localhost", PASSWORD).login().close()
