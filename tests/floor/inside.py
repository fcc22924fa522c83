#!/usr/bin/python3
"""Inside the guest: the loop's unit tests and the smoke test on this kernel. A line per test; a
failed part's whole output. Exit 0 only if everything held."""

import os
import pathlib
import re
import resource
import subprocess
import sys
import time

TREE = pathlib.Path(os.environ["FLOOR_TREE"])
BUILD = pathlib.Path(os.environ["FLOOR_BUILD"])
UNIT = ("loop", "fifo", "control")
PART_SECONDS = 70
OUTPUT_LINES = 120
FILES = 20_000  # descriptors: what a login session may have, not the 4,096 of a first process


def run(name, command, line):
    """Prints what `line` (a pattern with a verdict and a name) finds. True: nothing failed."""
    started = time.monotonic()
    try:
        done = subprocess.run(command, cwd=TREE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, errors="replace", timeout=PART_SECONDS)
        code, output = done.returncode, done.stdout
    except subprocess.TimeoutExpired as late:
        code, output = "none in time", (late.stdout or b"").decode(errors="replace")
    found = {m.group(2): m.group(1).upper() for m in re.finditer(line, output, re.M)}
    for test, verdict in found.items():
        print(f"{'ok  ' if verdict == 'OK' else 'FAIL'} floor/{name}:{test}")
    good = code == 0 and bool(found)
    if not good:
        print(f"FAIL floor/{name}: exit {code}")
        print("".join(f"     {said}\n" for said in output.splitlines()[-OUTPUT_LINES:]))
    print(f"     {name}: {time.monotonic() - started:.1f} s", flush=True)
    return good


def main():
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, FILES))
    print(f"kernel {os.uname().release}", flush=True)
    good = True
    for test in UNIT:
        good &= run(f"unit/os/{test}", [BUILD / f"node/os/test_os_{test}"],
                    r"^\[ +(OK|FAILED) +\] ([a-z_]\w* ?.*)")
    good &= run("e2e", ["/usr/bin/python3", "tests/e2e/run.py", "loops/systems-3"],
                r"^(ok|FAIL) +e2e/(\S+)")
    return 0 if good else 1


sys.exit(main())
