"""bench/nodes, small: a node that is killed under its clients, and users who change their home. What the
figures are worth is the bench's business; here they must be there, and nothing may be lost."""

import functools
import os
import re
import subprocess
import sys

import pemb

SMALL = ("--rounds", "1", "--clients", "40", "--talkers", "4", "--rate", "40", "--seconds", "1",
         "--no-results")


@functools.cache
def run():
    words = [w for row in ("storm-node", "handover-sm") for w in ("--only", row)]
    return subprocess.run([sys.executable, pemb.ROOT / "bench/nodes", "--bin", pemb.BIN, *SMALL, *words],
                          capture_output=True, text=True, timeout=120, env=dict(os.environ))


def cells(name):
    """The row that begins with that, as numbers (medians)."""
    r = run()
    assert r.returncode == 0, (r.stdout, r.stderr)
    line = re.search(rf"^\| {name} \|(.*)\|$", r.stdout, re.M)
    assert line, r.stdout
    return [float(c.split()[0].replace(",", "")) if c.strip() else None for c in line[1].split("|")]


def test_who_is_on_a_node_that_dies_resumes_on_another():
    sessions, half, most, all_back, cpu, _ = cells("storm-node")
    assert sessions == 14 and 0 < half <= most <= all_back and cpu > 0  # a third of 40


def test_users_change_their_home_and_come_back():
    for when in ("away", "back"):
        users, per_second, _, view, pause, p99, p50 = cells(rf"handover-sm \| {when}")
        assert 8 < users < 40 and per_second > 0 and view > 0 and pause >= p99 >= p50 > 0
