"""The README's first command on a directory that is not there yet (operator.md 1): ops/start writes a
config that the node takes, ops/pemberley finds the node, and two people talk. Only building is left
out: build/release is this run's binaries."""

import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
import types

import pemb
from pemb import Client

PORTS = (5222, 5223, 5290)


def shift():
    """A --port-shift with which the three ports are free."""
    for by in range(2000, 40000, 97):
        socks = [socket.socket() for _ in PORTS]
        try:
            for s, port in zip(socks, PORTS):
                s.bind(("127.0.0.1", port + by))
            return by
        except OSError:
            continue
        finally:
            for s in socks:
                s.close()
    raise AssertionError("no free ports")


def test_from_nothing_to_a_chat():
    dir = pathlib.Path(tempfile.mkdtemp(prefix="pemberley-e2e-"))
    release = dir / "build/release"
    release.mkdir(parents=True)
    (dir / "ops").symlink_to(pemb.ROOT / "ops")
    (release / "bin").symlink_to(pemb.BIN)
    (release / "build.ninja").write_text("build pemberley pemberley-shard pemberley-store: phony\n")
    by = shift()
    env = dict(os.environ, ASAN_OPTIONS="detect_leaks=0:abort_on_error=1")
    env.pop("PEMBERLEY_CONFIG", None)

    def said(*args, stdin=None):
        r = subprocess.run([dir / "ops/pemberley", *args], input=stdin, capture_output=True, text=True,
                           timeout=60, env=env)
        assert r.returncode == 0, (args, r)
        return r.stdout

    start = subprocess.Popen([dir / "ops/start", "--no-install", "--data", dir / "data", "--port-shift",
                              str(by)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                             stdin=subprocess.DEVNULL, env=env)
    try:
        shown = []
        for line in start.stdout:
            shown.append(line)
            if line.startswith("  Stop "):
                break
        text = "".join(shown)
        assert "node a, " in text and f"localhost:{5222 + by} (STARTTLS)" in text, text
        for name in ("alice", "bob"):
            assert said("user", "add", f"{name}@localhost", "--stdin", stdin="secret-password\n") \
                == f"added {name}@localhost\n"
        assert "cluster: none (single node)" in said("status")
        server = types.SimpleNamespace(port=5222 + by, tls_port=5223 + by)
        alice, bob = (Client(server, f"{name}@localhost").login(presence=True) for name in ("alice", "bob"))
        alice.message("bob@localhost", "first words")
        bob.expect_body("first words")
        alice.close()
        bob.close()
        said("stop")
        assert start.wait(timeout=pemb.TIMEOUT + 20) == 0
    finally:
        if start.poll() is None:
            start.terminate()
            start.wait(timeout=30)
        start.stdout.close()
        shutil.rmtree(dir, ignore_errors=True)
