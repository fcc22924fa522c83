"""profanity, as somebody at a terminal drives it (in tmux): connect with the self-signed certificate
trusted, write, read, log out."""

import os
import shlex
import subprocess
import time

from pemb import Client

USERS = ("alice@localhost", "bob@localhost")
PLAIN = False


class Terminal:
    """A tmux server of its own, with profanity in it."""

    def __init__(self, directory):
        self.socket = f"{directory}/tmux.sock"
        home = directory / "home"
        home.mkdir(exist_ok=True)
        env = {"HOME": str(home), "XDG_CONFIG_HOME": f"{home}/config", "XDG_DATA_HOME": f"{home}/data",
               "TERM": "screen", "LANG": "C.UTF-8"}
        self.tmux("new-session", "-d", "-x", "160", "-y", "50",
                  "env " + " ".join(f"{k}={shlex.quote(v)}" for k, v in env.items()) + " profanity")

    def tmux(self, *args):
        return subprocess.run(["tmux", "-S", self.socket, *args], check=True, capture_output=True,
                              text=True, env={**os.environ, "LANG": "C.UTF-8"}).stdout

    def type(self, line):
        self.tmux("send-keys", "-l", line)
        self.tmux("send-keys", "Enter")

    def expect(self, *texts, timeout=20):
        """The screen, when one of texts is on it."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            screen = self.tmux("capture-pane", "-p")
            if any(t in screen for t in texts):
                return screen
        raise AssertionError(f"never seen: {texts}; the screen:\n{screen}")

    def end(self):
        subprocess.run(["tmux", "-S", self.socket, "kill-server"], capture_output=True)


def test_connect_write_read_and_quit(server):
    bob = Client(server, "bob@localhost/desk").login(presence=True)
    terminal = Terminal(server.dir)
    try:
        terminal.expect("Type '/help'")
        terminal.type(f"/connect alice@localhost server 127.0.0.1 port {server.port} tls trust")
        terminal.expect("Enter password", "password:")
        terminal.type("secret-password")
        terminal.expect("alice@localhost logged in successfully", "logged in successfully")
        terminal.type("/msg bob@localhost hello from profanity")
        got = bob.expect_body("hello from profanity", timeout=15)
        assert got.get("from").startswith("alice@localhost/")
        bob.message(got.get("from"), "hello back at the terminal")
        terminal.expect("hello back at the terminal")
        terminal.type("/quit")
        server.wait_log("event=session_ended .*jid=alice@localhost/", timeout=15)
    finally:
        terminal.end()
        bob.close()
