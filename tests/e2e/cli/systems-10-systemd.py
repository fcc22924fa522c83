"""What systemd is told (sd_notify(3)), by a socket that stands for it; and that the unit is one that
systemd takes, with little left open (operator.md 9, systems.md 10)."""

import os
import pathlib
import re
import signal
import socket
import subprocess
import tempfile

import pemb
from pemb import ROOT

UNIT = ROOT / "ops/systemd/pemberley.service"
EXPOSURE_MAX = 1.5


class Manager:
    """The other end of NOTIFY_SOCKET."""

    def __init__(self, abstract=False):
        self.dir = tempfile.TemporaryDirectory(prefix="pemberley-notify-")
        name = "pemberley-" + os.path.basename(self.dir.name) if abstract else self.dir.name + "/notify"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + name if abstract else name)
        self.socket.settimeout(pemb.TIMEOUT)
        self.env = {"NOTIFY_SOCKET": ("@" if abstract else "") + name}

    def next(self):
        return self.socket.recv(4096).decode()

    def nothing(self):
        self.socket.setblocking(False)
        try:
            return f"got {self.next()!r}"
        except BlockingIOError:
            return None
        finally:
            self.socket.settimeout(pemb.TIMEOUT)


def test_ready_reloading_and_stopping_are_told_in_order():
    manager = Manager()
    server = pemb.Server(hosts=("localhost",), env=manager.env)
    assert manager.next() == "READY=1"
    server.cli("reload")
    assert re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=\d+", manager.next())
    assert manager.next() == "READY=1"
    server.conf.write_text(server.conf.read_text() + "nonsense = 1\n")
    server.process.send_signal(signal.SIGHUP)
    assert manager.next().startswith("RELOADING=1\n")
    assert manager.next() == "READY=1", "a refused reload ends too"
    assert manager.nothing() is None
    server.stop()
    assert manager.next() == "STOPPING=1"


def test_the_watchdog_is_fed_in_half_its_time_and_one_of_another_process_is_not():
    other, manager = Manager(), Manager(abstract=True)
    not_for_us = pemb.Server(hosts=("localhost",), env=dict(other.env, WATCHDOG_USEC="2000000",
                                                            WATCHDOG_PID="1"))
    server = pemb.Server(hosts=("localhost",), env=dict(manager.env, WATCHDOG_USEC="2000000"))
    told = [manager.next() for _ in range(3)]
    assert sorted(told) == ["READY=1", "WATCHDOG=1", "WATCHDOG=1"], told
    server.stop()
    not_for_us.stop()  # it had turned for longer than server
    assert other.next() == "READY=1" and other.next() == "STOPPING=1"


def installed(folder):
    """The unit with an executable that this machine has: verify looks for it."""
    unit = pathlib.Path(folder) / UNIT.name
    unit.write_text(UNIT.read_text().replace("/usr/lib/pemberley/pemberley", "/bin/true"))
    return unit


def test_systemd_takes_the_unit():
    with tempfile.TemporaryDirectory() as folder:
        run = subprocess.run(["systemd-analyze", "verify", "--man=no", installed(folder)],
                             capture_output=True, text=True, timeout=60)
    said = [line for line in (run.stdout + run.stderr).splitlines() if UNIT.name in line]
    assert run.returncode == 0 and not said, (run.returncode, run.stdout, run.stderr)


def test_little_is_left_open():
    with tempfile.TemporaryDirectory() as folder:
        run = subprocess.run(["systemd-analyze", "security", "--offline=yes", "--no-pager",
                              f"--threshold={int(EXPOSURE_MAX * 10)}", installed(folder)],
                             capture_output=True, text=True, timeout=60)
    level = re.search(r"Overall exposure level for \S+: ([\d.]+)", run.stdout)
    assert level and float(level.group(1)) <= EXPOSURE_MAX and run.returncode == 0, run.stdout[-3000:]
