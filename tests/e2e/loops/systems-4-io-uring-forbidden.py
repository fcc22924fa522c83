"""Where io_uring is forbidden, as in the engines' default profiles: the node says so once, and what to
allow, and runs over epoll; told to run over io_uring only, it ends (systems.md 4). ops/seccomp.json
allows what is needed, and little else."""

import errno
import re
import subprocess

import pemb
from pemb import BIN, Client, ROOT, resume

SANDBOX = ["/usr/bin/python3", str(ROOT / "tests/e2e/lib/sandbox.py")]
NO_URING = [*SANDBOX, "--forbid", "io_uring_setup", "--"]
PROFILE = [*SANDBOX, "--profile", str(ROOT / "ops/seccomp.json"), "--"]


def message_and_resumption(server):
    for who in ("alice", "bob"):
        server.add_user(f"{who}@localhost")
    alice = Client(server, "alice@localhost").login(sm=True, presence=True)
    bob = Client(server, "bob@localhost").login("PLAIN", sm=True, presence=True)
    alice.message(bob.jid, "one")
    bob.expect_body("one")
    bob.drop()
    alice.message(bob.jid, "two")
    bob, answer = resume(server, bob)
    assert answer.tag == pemb.q("sm:resumed")
    bob.expect_body("two")


def test_auto_runs_over_epoll_and_says_once_why_and_what_to_allow():
    server = pemb.Server(hosts=("localhost",), wrap=NO_URING, settings=["node.loop=auto"])
    message_and_resumption(server)
    assert server.loop() == "epoll"
    said = [line for line in server.log if "event=uring_missing" in line]
    assert len(said) == 1 and "level=warn" in said[0], said
    for name in ("io_uring_setup", "io_uring_enter", "io_uring_register", "seccomp", "errno=1",
                 "kernel.io_uring_disabled"):
        assert name in said[0], said
    server.stop()


def test_io_uring_ends_and_names_what_to_allow():
    server = pemb.Server(hosts=("localhost",))
    server.stop()
    run = subprocess.run([*NO_URING, BIN / "pemberley", "--config", server.conf, "run", "--set",
                          "node.loop=io_uring"], capture_output=True, text=True, timeout=60,
                         env=server.env)
    assert run.returncode == 78, (run.returncode, run.stderr)
    assert re.search(r"event=uring_missing .*io_uring_setup, io_uring_enter and io_uring_register",
                     run.stderr), run.stderr
    assert "event=node_ready" not in run.stderr


def test_the_shipped_profile_is_enough():
    server = pemb.Server(hosts=("localhost",), wrap=PROFILE, settings=["node.loop=io_uring"])
    message_and_resumption(server)
    server.kill_process("store")
    server.kill_process("shard", 1)
    server.cli("reload")
    server.stop()
    server.wrap, server.settings = PROFILE, ["node.loop=epoll"]
    server.start()
    assert server.loop() == "epoll"
    server.stop()


# (call's number on x86-64, its arguments): harmless or failing otherwise if they were let through
REFUSED = {"ptrace": (101, 0, 0, 0, 0), "mount": (165, 0, 0, 0, 0, 0), "bpf": (321, 0, 0, 0),
           "unshare": (272, 0x10000000), "keyctl": (250, 0, 0, 0), "perf_event_open": (298, 0, 0, 0, 0, 0),
           "process_vm_readv": (310, 1, 0, 0, 0, 0, 0), "userfaultfd": (323, 1),
           "socket(AF_PACKET)": (41, 17, 3, 0), "setns": (308, 0, 0), "kexec_load": (246, 0, 0, 0, 0),
           "init_module": (175, 0, 0, 0), "clone(CLONE_NEWUSER)": (56, 0x10000000, 0, 0, 0, 0)}


def test_the_shipped_profile_refuses_what_a_node_has_no_use_for():
    calls = "; ".join(f"r = c.syscall({', '.join(map(str, numbers))}); "
                      f"print({name!r}, r, ctypes.get_errno())" for name, numbers in REFUSED.items())
    run = subprocess.run([*PROFILE, "/usr/bin/python3", "-c",
                          f"import ctypes; c = ctypes.CDLL(None, use_errno=True); {calls}"],
                         capture_output=True, text=True, timeout=60)
    lines = run.stdout.splitlines()
    assert len(lines) == len(REFUSED), (lines, run.stderr)
    for line in lines:
        assert line.endswith(f" -1 {errno.EPERM}"), line
