"""RFC 6120 4.4: who says what it has to say, `</stream:stream>`, and leaves without waiting for an
answer, was heard to the end, also when that is more than fits into the window of what is not safe."""

import ssl

from pemb import Client

USERS = ("juliet@localhost", "romeo@localhost")
MESSAGES = 300


def burst(connect):
    return "".join(f"<message to='romeo@localhost' type='chat'><body>{connect} {i}</body></message>"
                   for i in range(MESSAGES)) + "</stream:stream>"


def hears_all(romeo, connect):
    for i in range(MESSAGES):
        message = romeo.expect("c:message")
        assert message.find("{jabber:client}body").text == f"{connect} {i}"


def leaves(server, connect, leave):
    romeo = Client(server, "romeo@localhost/orchard").login()
    romeo.send("<presence/>")
    romeo.expect("c:presence")
    juliet = Client(server, "juliet@localhost/balcony", connect=connect).login()
    juliet.send(burst(connect))
    leave(juliet)
    hears_all(romeo, connect)
    romeo.close()


def test_by_fin(server):
    leaves(server, "starttls", lambda c: c.sock.close())


def test_by_close_notify(server):
    def notify(c):
        try:
            c.sock.unwrap()
        except (ssl.SSLError, OSError):
            pass
    leaves(server, "tls", notify)
