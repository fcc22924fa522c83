#!/usr/bin/python3
"""A PostgreSQL of the tests' own: in a directory of its own, on a Unix socket there, as the user
postgres when we are root. `postgres.py COMMAND …` runs a command with one and its socket's directory
as PGHOST (role pemberley, database postgres)."""

import atexit
import ctypes
import glob
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time


class Cluster:
    def __init__(self, settings=("fsync=off",)):
        self.bin = pathlib.Path(sorted(glob.glob("/usr/lib/postgresql/*/bin"))[-1])
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="pemberley-pg-"))
        self.user = "postgres" if os.geteuid() == 0 else None
        self.settings = settings
        self.databases = 0
        self.process = None
        if self.user:
            shutil.chown(self.dir, self.user, self.user)
        self.dir.chmod(0o711)
        atexit.register(self.end)
        self._run("initdb", "-N", "-A", "trust", "-U", "pemberley", "--no-locale", "-E", "SQL_ASCII",
                  "-D", "data")
        self.start()

    def _run(self, program, *args):
        subprocess.run([self.bin / program, *args], cwd=self.dir, user=self.user, group=self.user,
                       extra_groups=[] if self.user else None, check=True, capture_output=True)

    @staticmethod
    def _end_with_us():
        ctypes.CDLL(None).prctl(1, signal.SIGQUIT)  # PR_SET_PDEATHSIG

    def start(self):
        args = [self.bin / "postgres", "-D", "data", "-k", self.dir, "-c", "listen_addresses="]
        for s in self.settings:
            args += ["-c", s]
        self.process = subprocess.Popen(
            args, cwd=self.dir, user=self.user, group=self.user,
            extra_groups=[] if self.user else None, preexec_fn=self._end_with_us,
            stdout=subprocess.DEVNULL, stderr=open(self.dir / "log", "a"))
        deadline = time.monotonic() + 30
        while subprocess.run([self.bin / "pg_isready", "-q", "-h", self.dir]).returncode:
            assert time.monotonic() < deadline and self.process.poll() is None, self.log()
            time.sleep(0.02)

    def log(self):
        return (self.dir / "log").read_text()[-3000:]

    def stop(self, sig=signal.SIGINT):
        if self.process:
            self.process.send_signal(sig)
            self.process.wait(30)
            self.process = None

    def end(self):
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.dir, True)

    def sql(self, sql, database="postgres"):
        r = subprocess.run([self.bin / "psql", "-h", self.dir, "-U", "pemberley", "-d", database,
                            "-XAtqc", sql], check=True, capture_output=True, text=True)
        return r.stdout.strip()

    def database(self):
        """The name of a new one."""
        self.databases += 1
        name = f"node{self.databases}"
        self.sql(f"CREATE DATABASE {name}")
        return name


def main():
    cluster = Cluster(settings=())  # what it commits is on the disk: benches
    code = subprocess.run(sys.argv[1:], env=dict(os.environ, PGHOST=str(cluster.dir))).returncode
    cluster.end()
    return code


if __name__ == "__main__":
    sys.exit(main())
