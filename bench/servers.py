"""The servers that bench/compare and bench/budget measure, each a child process in the foreground
with its data in a directory of its own, ended by its pid; and pemberley-load, which measures
them.

All use one ECDSA P-256 certificate and SCRAM-SHA-256. One account is made by each server's own
tool and the others are copies of its record: what logs in is the same everywhere, the client
derives one salted password, and no bench waits for thousands of PBKDF2s."""

import atexit
import contextlib
import json
import os
import pathlib
import pwd
import re
import resource
import shutil
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
PASSWORD = "secret-password"
PREFIX, GROUP_PREFIX = "load", "group"  # accounts with empty rosters, and those of presence
START_TIMEOUT = 60
FAULTS = ("lost", "duplicated", "reordered", "damaged")

sys.path.insert(0, str(ROOT / "tests/e2e/lib"))


class Failed(Exception):
    pass


def allow_files():
    """As many descriptors as the machine lets a process have; children inherit it."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def make_certificate():
    """(certificate, key) of localhost, ECDSA P-256, readable by all the servers' users."""
    d = pathlib.Path(tempfile.mkdtemp(prefix="pemberley-bench-tls-"))
    atexit.register(shutil.rmtree, d, True)
    d.chmod(0o755)
    certificate, key = d / "localhost.pem", d / "localhost.key"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                    "ec_paramgen_curve:prime256v1", "-nodes", "-days", "3650", "-subj",
                    "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", key,
                    "-out", certificate], check=True, capture_output=True)
    key.chmod(0o644)
    return certificate, key


def accounts_named(accounts, groups):
    """Names of the accounts load0 …, and of those in groups: (how many, of how many accounts)."""
    return [f"{PREFIX}{i}" for i in range(accounts)] + \
        [f"{GROUP_PREFIX}{i}" for i in range(groups[0] * groups[1])]


def free_ports(n):
    socks = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [s.getsockname()[1] for s in socks]
    for s in socks:
        s.close()
    return ports


def wait_for(condition, what, process):
    deadline = time.monotonic() + START_TIMEOUT
    while not condition():
        if process.poll() is not None:
            raise Failed(f"{what} ended with {process.returncode}")
        if time.monotonic() > deadline:
            raise Failed(f"{what} did not start within {START_TIMEOUT} s")
        time.sleep(0.1)


def answers(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


def family(pid):
    """A process and its descendants."""
    children = {}
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            continue  # it has ended meanwhile
        children.setdefault(parent, []).append(int(stat.parent.name))
    found, i = [pid], 0
    while i < len(found):
        found += children.get(found[i], [])
        i += 1
    return found


def package_version(package):
    r = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", package], capture_output=True,
                       text=True)
    return r.stdout if r.returncode == 0 else None


class Child:
    """A server whose port answers once it has started. Subclasses set name, how, user, command."""

    user = None
    how = ""

    def __init__(self, certificate, key, accounts):
        self.certificate, self.key, self.accounts = certificate, key, accounts
        self.port, self.tls_port, self.extra_port = free_ports(3)
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix=f"pemberley-bench-{self.name}-"))
        atexit.register(shutil.rmtree, self.dir, True)
        self.process = None
        self.configure()
        if self.user:
            owner = pwd.getpwnam(self.user)
            for p in [self.dir, *self.dir.rglob("*")]:
                os.chown(p, owner.pw_uid, owner.pw_gid)
        atexit.register(self.kill)

    def options(self):
        o = {"stdin": subprocess.DEVNULL, "cwd": self.dir,
             "env": dict(os.environ, HOME=str(self.dir))}
        if self.user:
            o.update(user=self.user, group=self.user, extra_groups=[])
        return o

    def tool(self, *command, stdin=None):
        o = self.options()
        if stdin is not None:
            o.pop("stdin")
        r = subprocess.run([str(a) for a in command], capture_output=True, text=True, input=stdin,
                           timeout=120, **o)
        if r.returncode:
            raise Failed(f"{' '.join(map(str, command))}: {r.stdout} {r.stderr}")

    def start(self):
        with open(self.dir / "output.log", "ab") as log:
            self.process = subprocess.Popen([str(a) for a in self.command()], stdout=log,
                                            stderr=log, **self.options())
        wait_for(lambda: answers(self.port), self.name, self.process)

    def pids(self):
        return family(self.process.pid)

    def stop(self):
        if self.process and self.process.poll() is None:
            os.kill(self.main_pid(), signal.SIGTERM)
            self.process.wait(START_TIMEOUT)

    def main_pid(self):
        return self.process.pid

    def kill(self):
        if self.process and self.process.poll() is None:
            for pid in self.pids():
                with contextlib.suppress(ProcessLookupError):  # it went with its parent
                    os.kill(pid, signal.SIGKILL)


class Prosody(Child):
    name = user = "prosody"
    how = ("epoll backend, generational garbage collection, internal storage, accounts hashed with "
           "SHA-256, XEP-0198 (smacks) and offline messages, vcard, private and ping; no servers' "
           "port, no limits, log level warn")

    def configure(self):
        self.conf = self.dir / "prosody.cfg.lua"
        (self.dir / "data").mkdir()
        self.conf.write_text(f"""
pidfile = "{self.dir}/prosody.pid"
data_path = "{self.dir}/data"
network_backend = "epoll"
network_settings = {{ tcp_backlog = 4096 }}
gc = {{ mode = "generational" }}
interfaces = {{ "127.0.0.1" }}
c2s_ports = {{ {self.port} }}
c2s_direct_tls_ports = {{ {self.tls_port} }}
c2s_require_encryption = false
ssl = {{ certificate = "{self.certificate}", key = "{self.key}" }}
modules_enabled = {{
    "roster", "saslauth", "tls", "disco", "smacks", "private", "vcard", "version", "time", "ping",
}}
modules_disabled = {{ "s2s" }}
authentication = "internal_hashed"
password_hash = "SHA-256"
storage = "internal"
log = {{ {{ levels = {{ min = "warn" }}, to = "file", filename = "{self.dir}/prosody.log" }} }}
VirtualHost "localhost"
""")

    def command(self):
        return ["prosody", "-F", "--config", self.conf]

    def make_accounts(self, groups=(0, 0)):
        first, *others = accounts_named(self.accounts, groups)
        self.tool("prosodyctl", "--config", self.conf, "register", first, "localhost", PASSWORD)
        account = self.dir / f"data/localhost/accounts/{first}.dat"
        for name in others:
            copy = account.with_name(f"{name}.dat")
            shutil.copyfile(account, copy)
            shutil.chown(copy, self.user, self.user)


class Ejabberd(Child):
    name = user = "ejabberd"
    how = ("kernel poll, one scheduler per CPU without busy waiting (+sbwt none: it would count as "
           "its CPU), 250,000 processes; mnesia storage, accounts hashed with SHA-256, XEP-0198 "
           "and offline messages, vcard, private and ping; no shapers, no servers' port, log "
           "level warning")

    def configure(self):
        for d in ("conf", "spool", "logs"):
            (self.dir / d).mkdir()
        pem = self.dir / "conf/localhost.pem"
        pem.write_text(self.certificate.read_text() + self.key.read_text())
        self.conf = self.dir / "conf/ejabberd.yml"
        self.conf.write_text(f"""
hosts: [localhost]
loglevel: warning
certfiles: ["{pem}"]
listen:
  - {{port: {self.port}, ip: "127.0.0.1", module: ejabberd_c2s, starttls: true, access: all,
     shaper: none, max_stanza_size: 262144, backlog: 4096}}
  - {{port: {self.tls_port}, ip: "127.0.0.1", module: ejabberd_c2s, tls: true, access: all,
     shaper: none, max_stanza_size: 262144, backlog: 4096}}
auth_method: internal
auth_password_format: scram
auth_scram_hash: sha256
default_db: mnesia
shaper_rules:
  max_user_sessions: 1000
  max_user_offline_messages: 1000
modules:
  mod_roster: {{}}
  mod_offline: {{}}
  mod_stream_mgmt: {{}}
  mod_disco: {{}}
  mod_private: {{}}
  mod_vcard: {{search: false}}
  mod_version: {{}}
  mod_time: {{}}
  mod_ping: {{}}
""")
        (self.dir / "conf/ejabberdctl.cfg").write_text(f"""
ERL_DIST_PORT={self.extra_port}
INET_DIST_INTERFACE=127.0.0.1
POLL=true
ERL_MAX_PORTS=32000
ERL_PROCESSES=250000
ERL_OPTIONS="+sbwt none +sbwtdcpu none +sbwtdio none"
ERLANG_NODE=pemberley-bench@localhost
""")

    def ctl(self, *words):
        conf = self.dir / "conf"
        return ["ejabberdctl", "--config-dir", conf, "--config", self.conf, "--ctl-config",
                conf / "ejabberdctl.cfg", "--logs", self.dir / "logs", "--spool",
                self.dir / "spool", *words]

    def command(self):
        return self.ctl("foreground")

    def main_pid(self):
        """Of the virtual machine: what was started is a shell script."""
        for pid in self.pids():
            if pathlib.Path(f"/proc/{pid}/comm").read_text().strip() == "beam.smp":
                return pid
        return self.process.pid

    def make_accounts(self, groups=(0, 0)):
        names = accounts_named(self.accounts, groups)
        self.start()
        self.tool(*self.ctl("register", names[0], "localhost", PASSWORD))
        dump = self.dir / "spool/accounts"
        self.tool(*self.ctl("dump_table", dump, "passwd"))
        head, record = re.fullmatch(rf"(.*?)(\{{passwd,\{{<<\"{names[0]}\">>.*?\}}\.\s*)",
                                    dump.read_text(), re.S).groups()
        dump.write_text(head + "".join(record.replace(f'<<"{names[0]}">>', f'<<"{name}">>')
                                       for name in names))
        self.tool(*self.ctl("load", dump))
        self.stop()


class Limit(Child):
    """bench/limit.c."""

    def __init__(self, certificate, key, bin_dir, loop, workers, group=2, pin=False):
        self.bin_dir, self.loop, self.workers = bin_dir, loop, workers
        self.group, self.pin = group, pin
        self.name = f"limit-{loop}"
        super().__init__(certificate, key, 0)

    def configure(self):
        pass

    def command(self):
        return [self.bin_dir / "bench_limit", "--port", self.port, "--tls-port", self.tls_port,
                "--certificate", self.certificate, "--key", self.key, "--workers", self.workers,
                "--loop", self.loop, "--password", PASSWORD, "--group", self.group,
                *(["--pin"] if self.pin else [])]

    def start(self):
        log = self.dir / "output.log"
        log.unlink(missing_ok=True)
        super().start()  # it listens before it has workers
        wait_for(lambda: log.read_text().endswith("\n"), self.name, self.process)

    def kill(self):
        if self.process and self.process.poll() is None:
            self.process.kill()  # the workers follow their parent


def contacts(groups, size):
    """Of each group everybody to everybody else."""
    for first in range(0, groups * size, size):
        for i in range(first, first + size):
            for k in range(first, first + size):
                if i != k:
                    yield f"{GROUP_PREFIX}{i}@localhost", f"{GROUP_PREFIX}{k}@localhost"


class Pemberley:
    """A release node, through the end-to-end tests' Server."""

    name = "pemberley"
    how = "the shipped configuration with plain_from = 127.0.0.0/8, no archives; SQLite"

    def __init__(self, certificate, key, accounts, bin_dir, shards, settings=()):
        os.environ["PEMBERLEY_BIN"] = str(bin_dir)
        import pemb

        class Node(pemb.Server):
            def _certificates(self):
                shutil.copyfile(certificate, self.dir / "localhost.pem")
                shutil.copyfile(key, self.dir / "localhost.key")
                os.chmod(self.dir / "localhost.key", 0o600)

        if not any(s.startswith("modules.off") for s in settings):
            settings = [*settings, "modules.off={archive}"]
        self.node = Node(settings=settings, hosts=("localhost",), shards=shards)
        self.port, self.tls_port = self.node.port, self.node.tls_port
        self.accounts = accounts

    def make_accounts(self, groups=(0, 0), rosters=False):
        """rosters: all of a group are each other's contacts already."""
        first, *others = (f"{name}@localhost" for name in accounts_named(self.accounts, groups))
        self.node.add_user(first, PASSWORD)
        store = sqlite3.connect(self.node.dir / "data/store.sqlite", timeout=30)
        with store:
            store.executemany(
                "INSERT INTO account (jid, host, keys, created_us) SELECT ?, host, keys, created_us"
                f" FROM account WHERE jid = '{first}'", ((name,) for name in others))
            if rosters:
                store.executemany(  # subscription 3: both
                    "INSERT INTO roster (account, contact, version, removed, name, subscription,"
                    " ask, approved, groups) SELECT id, ?, 1, 0, x'', 3, 0, 0, x'' FROM account"
                    " WHERE jid = ?", contacts(*groups))
        store.close()
        self.stop()

    def start(self):
        self.node.start()

    def stop(self):
        self.node.stop()

    def pids(self):
        return family(self.node.process.pid)

    def shards(self):
        return [p for p in self.pids()
                if pathlib.Path(f"/proc/{p}/comm").read_text().startswith("pemberley-shar")]


def cpu_ticks(pids):
    ticks = 0
    for pid in pids:
        try:
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += int(fields[11]) + int(fields[12])
    return ticks


def settle(servers):
    """Waits until the servers have done with what the last clients left behind."""
    for _ in range(100):
        before = [cpu_ticks(s.pids()) for s in servers]
        time.sleep(0.2)
        if all(cpu_ticks(s.pids()) - b <= 1 for s, b in zip(servers, before)):
            return


def begin_load(bin_dir, server, security, scenario, count, *options, prefix=PREFIX, pids=None):
    """Starts a scenario against a server; its CPU is that of all its processes, or of pids."""
    port = server.tls_port if security == "tls" else server.port
    command = [bin_dir / "pemberley-load", "--json", "--port", port, "--security", security,
               "--password", PASSWORD, "--prefix", prefix,
               "--pids", ",".join(map(str, pids or server.pids())), *options, scenario, count]
    process = subprocess.Popen([str(a) for a in command], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    process.what = f"{server.name}: {scenario}, {security}"
    return process


def finish_load(process, timeout=180):
    """Its figures. Anything lost or doubled is a failure."""
    try:
        out, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise Failed(f"{process.what}: no end within {timeout} s")
    if not out:
        raise Failed(f"{process.what}: {errors.strip()[-400:]}")
    result = json.loads(out)
    faults = [f"{f} {result[f]:.0f}" for f in FAULTS if result.get(f)]
    if faults:
        raise Failed(f"{process.what}: {', '.join(faults)}")
    return result


def load(*what, timeout=180, **more):
    return finish_load(begin_load(*what, **more), timeout)


def cpu_used():
    """(ticks of work of all CPUs, ticks of time) since the machine started"""
    fields = [int(f) for f in pathlib.Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
    return sum(fields) - fields[3] - fields[4], sum(fields)


def busy():
    """What others do on this machine before a bench begins, in a sentence."""
    before = cpu_used()
    time.sleep(2)
    work, total = (b - a for a, b in zip(before, cpu_used()))
    share, loads = 100 * work / max(1, total), " ".join(f"{v:.2f}" for v in os.getloadavg())
    calm = "the machine is quiet" if share < 5 else "NOT QUIET: trust ratios only"
    return f"Before the run: load average {loads}, {share:.0f} % of the CPUs in use; {calm}."


def machine():
    cpu = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    system = re.search(r'PRETTY_NAME="(.*)"', pathlib.Path("/etc/os-release").read_text())
    return {"cpu": cpu.group(1) if cpu else "?", "cpus": len(os.sched_getaffinity(0)),
            "kernel": os.uname().release, "system": system.group(1) if system else "?",
            "load": os.getloadavg()[0]}


def commit():
    def git(*a):
        return subprocess.run(["git", "-C", str(ROOT), *a], capture_output=True, text=True).stdout
    changed = git("status", "--porcelain", "--untracked-files=no").strip()
    return git("rev-parse", "--short=12", "HEAD").strip() + (" with changes" if changed else "")


def spread(values):
    """'median (min-max)'"""
    return f"{statistics.median(values):.2f} ({min(values):.2f}\u2013{max(values):.2f})"


def write_results(name, title, record, lines):
    """bench/results/<date><name>.md for people, latest<name>.json, every figure, for programs."""
    m = record["machine"]
    head = [f"# {title}", "",
            f"{record['date']}, commit {record['commit']}; {m['cpus']} CPUs of {m['cpu']}, Linux "
            f"{m['kernel']}, {m['system']}; load of the machine before: {m['load']:.1f}.", ""]
    results = ROOT / "bench/results"
    results.mkdir(exist_ok=True)
    (results / f"{record['date']}{name}.md").write_text("\n".join(head + lines) + "\n")
    (results / f"latest{name}.json").write_text(json.dumps(record, indent=1) + "\n")
