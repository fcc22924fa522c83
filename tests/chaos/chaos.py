#!/usr/bin/python3
"""What is promised when something dies, on real processes: a cluster of ops/cluster, people on TLS behind
HAProxy at a steady rate (people.py), and one thing after the other that goes wrong.

    tests/chaos/chaos.py [--bin DIR] [--only NAME]… [--nodes N] [--pairs N] [--rate N] [--short]
        [--set O=V]… [--out FILE]

Each row of the table: sent, acknowledged, delivered, stored (delivered from the offline store), lost,
doubled, swapped, and gaps: how long nothing came where something was due, the median and the longest of
all pairs, and the share of pairs that went on within a second. Lost, doubled and swapped count
acknowledged stanzas and must be 0; a message that was not acknowledged in a session which could not be
resumed may come twice. Runs as root in a network namespace of its own. Rows: ROWS."""

import argparse
import asyncio
import json
import os
import pathlib
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
import people

ROOT = pathlib.Path(__file__).resolve().parents[2]
PASSWORD = "secret-password"
QUIET_BEFORE, QUIET_AFTER = 2.0, 3.0
DISK = "160m"  # of the database
SETTLE = 45.0  # until everything has come that may


class Cluster:
    """ops/cluster in a child; what it can do to its parts."""

    def __init__(self, args):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="pemberley-chaos-"))
        self.dir.chmod(0o755)
        self.disk = self.dir / "cluster/postgres"  # small, so that it can be filled
        self.disk.mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "none", self.disk], check=True)
        command = [ROOT / "ops/cluster", "--data", self.dir / "cluster", "--no-install", "--bin", args.bin,
                   "--nodes", str(args.nodes)]
        for s in args.set:
            command += ["--set", s]
        self.log = open(self.dir / "cluster.log", "w")
        self.process = subprocess.Popen(command, stdout=self.log, stderr=subprocess.STDOUT)
        self.bin = args.bin
        deadline = time.monotonic() + 90
        while "Ctrl-C" not in (self.dir / "cluster.log").read_text():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("the cluster did not start:\n" + (self.dir / "cluster.log").read_text())
            time.sleep(0.1)
        self.nodes = list("abcdefghi"[:args.nodes])
        self.hub = "10.77.0.1"

    def do(self, verb, what):
        subprocess.run([ROOT / "ops/cluster", verb, what], check=True)

    def cli(self, node, *args, check=True, stdin=None):
        return subprocess.run([pathlib.Path(self.bin) / "pemberley", "--config",
                               self.dir / f"cluster/{node}.conf", *args], check=check, input=stdin,
                              capture_output=True, text=True)

    def pids(self, node, kind):
        status = json.loads(self.cli(node, "--json", "status").stdout)
        return [p["pid"] for p in status["items"] if p["process"] == kind]

    def whole(self, seconds=60):
        """Until all nodes are in one view again."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            views = set()
            for node in self.nodes:
                r = self.cli(node, "--json", "--timeout", "1s", "node", "list", check=False)
                if r.returncode:
                    break
                said = json.loads(r.stdout)
                live = sum(i["state"] == "live" for i in said["items"])
                views.add((said["epoch"], live))
            else:
                if len(views) == 1 and views.pop()[1] == len(self.nodes):
                    return
            time.sleep(0.1)
        raise SystemExit("the cluster did not become whole again")

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
        subprocess.run(["umount", self.disk], check=True)
        shutil.rmtree(self.dir, True)


class Service:
    """What people share: where to connect, and the faults they see."""

    def __init__(self, address, host="localhost"):
        self.address, self.host = address, host
        self.faults, self.troubles, self.doubts = [], {}, set()

    def online(self, person):
        pass

    def trouble(self, person, e):
        what = f"{type(e).__name__}: {e}"[:100]
        self.troubles[what] = self.troubles.get(what, 0) + 1

    def fault(self, what):
        self.faults.append(what)

    def doubt(self, person, number):
        self.doubts.add((person.bare, number))


# ---- what goes wrong: each is called when people have talked for a while, and ends whole ----


def pause(seconds):
    return asyncio.sleep(seconds)


async def kill_shard(c, dice):
    node = dice.choice(c.nodes)
    os.kill(dice.choice(c.pids(node, "shard")), signal.SIGKILL)
    await pause(2)


async def kill_store_worker(c, dice):
    os.kill(c.pids(dice.choice(c.nodes), "store")[0], signal.SIGKILL)
    await pause(2)


async def kill_supervisor(c, dice):
    node = dice.choice(c.nodes)
    os.kill(int((c.dir / f"cluster/pid/{node}").read_text()), signal.SIGKILL)
    await pause(5)
    c.do("kill", node)  # nothing of it may be left that holds its lock
    c.do("start", node)
    await pause(4)


async def fill_disk(c, dice):
    filler = c.disk / "filler"
    with open(filler, "wb", buffering=0) as f:
        try:
            while True:
                f.write(b"x" * 65536)
        except OSError:
            pass
    await pause(4)
    filler.unlink()
    await pause(6)


async def kill_node(c, dice):
    node = dice.choice(c.nodes)
    c.do("kill", node)
    await pause(6)
    c.do("start", node)
    await pause(4)


async def kill_redis(c, dice):
    c.do("kill", "redis")
    await pause(6)
    c.do("start", "redis")
    await pause(5)


async def kill_postgres(c, dice):
    c.do("kill", "postgres")
    await pause(3)
    c.do("start", "postgres")
    await pause(4)


async def pause_node(c, dice):
    node = dice.choice(c.nodes)
    c.do("pause", node)
    await pause(10)
    c.do("go", node)
    await pause(5)


async def cut_node(c, dice):
    node = dice.choice(c.nodes)
    c.do("cut", node)
    await pause(8)
    c.do("heal", node)
    await pause(5)


async def rolling_restart(c, dice):
    for node in c.nodes:
        await asyncio.to_thread(c.do, "stop", node)
        await pause(1)
        c.do("start", node)
        await asyncio.to_thread(c.whole)
        await pause(3)  # the balancer's checks have found it


ROWS = {
    "kill -9 of a shard": kill_shard,
    "kill -9 of a store worker": kill_store_worker,
    "kill -9 of a supervisor": kill_supervisor,
    "kill -9 of a node": kill_node,
    "kill -9 of Redis": kill_redis,
    "kill -9 of PostgreSQL": kill_postgres,
    "the database's disk is full for 4 s": fill_disk,
    "SIGSTOP of a node for 10 s": pause_node,
    "a node cut off for 8 s": cut_node,
    "rolling restart": rolling_restart,
}
SHORT = ["kill -9 of a shard", "kill -9 of a node", "a node cut off for 8 s"]


# ---- a row ----


async def talk(senders, rate, stop):
    """Everybody in turn, at this rate in all, whatever comes back."""
    gap, due, turn = 1 / rate, time.monotonic(), 0
    while not stop.is_set():
        senders[turn % len(senders)].say()
        turn += 1
        if turn % (4 * len(senders)) < len(senders):
            senders[turn % len(senders)].ask()
        due += gap
        await asyncio.sleep(max(0, due - time.monotonic()))


async def settle(everybody, senders):
    deadline = time.monotonic() + SETTLE
    while time.monotonic() < deadline:
        for p in everybody:
            p.ask()
        await asyncio.sleep(0.3)
        if all(p.stream and not p.out for p in everybody):
            return True
    return False


def gaps_of(reader, since, until):
    """The longest time in which nothing came."""
    times = [t for _, _, _, t in reader.got if since <= t <= until]
    times = [since, *times, until]
    return max(b - a for a, b in zip(times, times[1:]))


def story_of(sender, reader, number):
    """What came around a number, when, by the seconds of the row."""
    mine = [(n, stored, t) for b, n, stored, t in reader.got if b == sender.bare]
    at = next(i for i, (n, _, _) in enumerate(mine) if n == number)
    return " ".join(f"{n}{'s' if stored else ''}@{t - mine[0][2]:.3f}" for n, stored, t in mine[max(0, at - 6):at + 4])


def judge(service, pairs, away, faults):
    counts = dict(sent=0, acknowledged=0, delivered=0, stored=0, lost=0, doubled=0, swapped=0)
    for sender, reader in pairs + away:
        numbers = [n for b, n, _, _ in reader.got if b == sender.bare]
        counts["sent"] += sender.number
        counts["acknowledged"] += len(sender.acked)
        counts["delivered"] += len(set(numbers))
        counts["stored"] += sum(1 for b, _, stored, _ in reader.got if b == sender.bare and stored)
        missing = sender.acked - set(numbers)
        seen, twice = set(), []
        for n in numbers:
            if n in seen and (sender.bare, n) not in service.doubts:
                twice.append(n)
            seen.add(n)
        first = list(dict.fromkeys(n for n in numbers if (sender.bare, n) not in service.doubts))
        swaps = [(a, b) for a, b in zip(first, first[1:]) if a > b]
        swapped = len(swaps)
        counts["lost"] += len(missing)
        counts["doubled"] += len(twice)
        counts["swapped"] += swapped
        for what, which in (("lost", sorted(missing)), ("twice", twice)):
            if which:
                faults.append(f"{sender.bare} -> {reader.bare}: {what} {which[:10]}")
        if swapped:
            faults.append(f"{sender.bare} -> {reader.bare}: swapped {swaps[:10]}; "
                          + story_of(sender, reader, swaps[0][1]))
    return counts


async def row(cluster, name, args, number):
    dice = random.Random(f"{args.seed} {name}")
    service = Service((cluster.hub, 5223))
    pairs, away = [], []
    for i in range(args.pairs + 2):
        reader = people.Person(service, f"r{number}x{i}", PASSWORD, dice)
        sender = people.Person(service, f"s{number}x{i}", PASSWORD, dice, sends_to=reader.bare)
        for p in (reader, sender):
            cluster.cli("a", "user", "add", p.bare, "--stdin", stdin=PASSWORD + "\n")
        (pairs if i < args.pairs else away).append((sender, reader))
    everybody = [p for pair in pairs for p in pair] + [s for s, _ in away]
    tasks = [asyncio.ensure_future(p.run()) for p in everybody]
    deadline = time.monotonic() + 30
    while not all(p.stream for p in everybody):
        if time.monotonic() > deadline:
            raise SystemExit(f"not everybody could log in: {service.troubles}")
        await asyncio.sleep(0.05)
    senders = [s for s, _ in pairs + away]
    stop = asyncio.Event()
    talking = asyncio.ensure_future(talk(senders, args.rate, stop))
    await asyncio.sleep(QUIET_BEFORE)
    began = time.monotonic()
    await ROWS[name](cluster, dice)
    await asyncio.sleep(QUIET_AFTER)
    ended = time.monotonic()
    stop.set()
    await talking
    faults = service.faults
    if not await settle(everybody, senders):
        faults.append("not everything was acknowledged in the end: "
                      + ", ".join(f"{p.bare} {len(p.out)} {'' if p.stream else 'offline'}" for p in everybody
                                  if p.out or not p.stream)[:300])
    late = [asyncio.ensure_future(r.run()) for _, r in away]
    await asyncio.sleep(0.5)
    if not await settle(everybody + [r for _, r in away], senders):
        faults.append("who was away could not come")
    await asyncio.sleep(0.5)
    for t in tasks + late:
        t.cancel()
    await asyncio.gather(*tasks, *late, return_exceptions=True)
    counts = judge(service, pairs, away, faults)
    interval = len(senders) / args.rate
    gaps = sorted(max(0.0, gaps_of(r, began, ended) - interval) for _, r in pairs)
    counts |= {
        "gap median ms": round(1000 * statistics.median(gaps)),
        "gap longest ms": round(1000 * gaps[-1]),
        "on within 1 s %": round(100 * sum(g <= 1 for g in gaps) / len(gaps)),
        "resumed": sum(p.resumes for p in everybody),
        "logged in again": sum(p.sessions - 1 for p in everybody),
    }
    cluster.whole()
    return counts, faults, service.troubles


def main():
    parser = argparse.ArgumentParser(description=__doc__.replace("ROWS", ", ".join(ROWS)),
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", default=str(ROOT / "build/release/bin"))
    parser.add_argument("--only", action="append", choices=list(ROWS))
    parser.add_argument("--short", action="store_true", help="a few rows, fewer people")
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--rate", type=float, default=150, help="messages per second in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], help="an option of every node")
    parser.add_argument("--out", help="the table, as Markdown")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if not args.inside:
        if os.geteuid() != 0:
            sys.exit("tests/chaos: root is needed, for network namespaces")
        hidden = "mount -t tmpfs none /run/netns 2>/dev/null || { mkdir -p /run/netns; mount -t tmpfs none /run/netns; }; exec \"$@\""
        os.execvp("unshare", ["unshare", "-nm", "sh", "-c", hidden, "sh", sys.executable, __file__,
                              "--inside", *sys.argv[1:]])
    args.seed = args.seed or random.SystemRandom().randrange(1, 1 << 31)
    args.bin = os.path.abspath(args.bin)
    if args.short:
        args.pairs, args.rate = 12, 60
    names = args.only or (SHORT if args.short else list(ROWS))
    cluster = Cluster(args)
    table, passed = [], 0
    try:
        for i, name in enumerate(names):
            counts, faults, troubles = asyncio.run(row(cluster, name, args, i))
            good = not faults and not (counts["lost"] or counts["doubled"] or counts["swapped"])
            passed += good
            print(f"{'ok  ' if good else 'FAIL'} chaos/{name}: "
                  + ", ".join(f"{v} {k}" for k, v in counts.items()), flush=True)
            if not good:
                print(f"  seed {args.seed}; connections ended by {troubles}")
                for f in faults[:20]:
                    print("  " + f)
            table.append((name, counts))
    finally:
        cluster.end()
    if args.out and table:
        heads = list(table[0][1])
        with open(args.out, "w") as f:
            f.write("| | " + " | ".join(heads) + " |\n| --- |" + " ---: |" * len(heads) + "\n")
            for name, counts in table:
                f.write(f"| {name} | " + " | ".join(str(counts[h]) for h in heads) + " |\n")
    print(f"{passed} passed, {len(names) - passed} failed")
    return passed != len(names)


if __name__ == "__main__":
    sys.exit(main())
