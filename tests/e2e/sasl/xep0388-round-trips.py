"""How many round trips a login takes, by the clock: a way of 80 ms between client and server (XEP-0388 1,
XEP-0386 2, XEP-0484 2: "without introducing any extra round-trips")."""

import socket
import threading
import time

from pemb import Client, NS, q

import importlib.util
import pathlib

spec = importlib.util.spec_from_file_location("fast", pathlib.Path(__file__).with_name("xep0484-fast.py"))
fast = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fast)

USERS = ("alice@localhost",)
ONE_WAY_S = 0.04
AGENT = fast.PHONE
SM = "<enable xmlns='urn:xmpp:sm:3' resume='true'/>"


class Far:
    """The server, as far away as that."""

    address = "127.0.0.1"

    def __init__(self, server):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.tls_port = self.listener.getsockname()[1]
        self.target = ("127.0.0.1", server.tls_port)
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            far = socket.create_connection(self.target)
            for s in (near, far):
                s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for a, b in ((near, far), (far, near)):
                threading.Thread(target=self.carry, args=(a, b), daemon=True).start()

    def carry(self, a, b):
        try:
            while data := a.recv(65536):
                time.sleep(ONE_WAY_S)
                b.sendall(data)
            b.shutdown(socket.SHUT_WR)
        except OSError:
            pass


def measured(server, login):
    """Round trips from a TLS connection to a session with XEP-0198."""
    best = None
    for _ in range(3):
        c = Client(Far(server), "alice@localhost", connect="tls")
        begin = time.monotonic()
        login(c)
        trips = (time.monotonic() - begin) / (2 * ONE_WAY_S)
        best = trips if best is None else min(best, trips)
        c.close()
    return best


def old(c):
    c.want_tls = False
    c.login(sm=True)


def sasl2(c):
    c.open()
    assert c.authenticate(inner=f"<bind xmlns='{NS['bind2']}'>{SM}</bind>").tag == q("sasl2:success")


def test_a_session_takes_half_the_round_trips_and_with_a_token_two(server):
    c, token = fast.first_token(server)
    c.close()

    def by_token(c):
        c.open()
        assert fast.with_token(server, token, c=c)[1].tag == q("sasl2:success")
    trips = [measured(server, login) for login in (old, sasl2, by_token)]
    print("round trips, TLS to session: RFC 6120 with XEP-0198 %.1f, SASL2 with Bind 2 %.1f, a token %.1f"
          % tuple(trips))
    # header, auth, response, header, bind, enable; header, authenticate, response; header, authenticate
    for got, want in zip(trips, (6, 3, 2)):
        assert want <= got < want + 0.9, trips
