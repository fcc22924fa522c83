#!/usr/bin/python3
"""House rules that a machine can hold: floors (a lower one never includes a higher one), rooms that
stay out of each other, line length, file size, function size, words that do not belong here. Prints
`ok`/`FAIL` per rule and ends with `N passed, N failed`."""

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
FLOORS = {"include": 0, "proto": 1, "cluster": 2, "node": 3, "bench": 4, "tests": 4}
FILE_LINES_MAX = 900
FUNCTION_LINES_MAX = 90
# Rooms of node/ that may include which others (besides node/node.h and their own folder).
NODE_EDGES = {
    "os": set(), "tls": set(), "conf": set(), "registry": {"os"}, "store_client": {"conf", "os"},
    "edge": {"conf", "tls", "os"}, "home": {"conf", "xep", "tls"}, "xep": {"conf", "home", "tls", "pubsub"},
    "pubsub": {"conf", "home", "xep"},
    "shard": {"conf", "tls", "os", "edge", "home", "registry", "store_client", "super"},
    "store": {"conf", "os", "super"}, "super": {"conf", "os", "tls"},
}


def sources():
    files = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard",
                            "*.c", "*.h", "*.def", "*.py"], cwd=ROOT, capture_output=True, text=True,
                           check=True).stdout.split()
    return [ROOT / f for f in files if (ROOT / f).exists()]


def rel(path):
    return str(path.relative_to(ROOT))


def includes(path):
    for line in path.read_text().splitlines():
        m = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
        if m:
            yield m.group(1)


def floor_of(path):
    top = path.split("/")[0]
    return FLOORS["include"] if top == "pemberley" else FLOORS.get(top)


def floors(files):
    for f in files:
        here = floor_of(rel(f))
        if f.suffix not in (".c", ".h", ".def") or here is None:
            continue
        for i in includes(f):
            there = floor_of(i)
            if there is None:
                yield f"{rel(f)}: includes {i}, which names no floor"
            elif there > here:
                yield f"{rel(f)}: floor {here} includes floor {there} ({i})"


def rooms(files):
    for f in files:
        parts = rel(f).split("/")
        if parts[0] != "node" or len(parts) < 3:
            continue
        for i in includes(f):
            target = i.split("/")
            if target[0] == "node" and len(target) > 2 and target[1] != parts[1] \
                    and target[1] not in NODE_EDGES.get(parts[1], set()):
                yield f"{rel(f)}: room {parts[1]} includes {i}"


def store_has_no_boringssl(files):
    for f in files:
        if rel(f).startswith(("node/store/", "node/os/", "proto/base/", "proto/bus/")):
            for line in f.read_text().splitlines():
                if re.match(r"\s*#\s*include\s+[<\"](openssl/|node/tls/|proto/sasl/)", line):
                    yield f"{rel(f)}: {line.strip()}"


def long_lines(files):
    for f in files:
        if f.suffix in (".c", ".h"):
            for n, line in enumerate(f.read_text().splitlines(), 1):
                if len(line) > 100:
                    yield f"{rel(f)}:{n}: {len(line)} columns"


def long_files(files):
    for f in files:
        n = len(f.read_text().splitlines())
        if f.suffix in (".c", ".h") and not rel(f).startswith("tests/") and n > FILE_LINES_MAX:
            yield f"{rel(f)}: {n} lines"


def long_functions(files):
    for f in files:
        if f.suffix != ".c" or rel(f).startswith(("tests/", "bench/")):
            continue
        start = None
        for n, line in enumerate(f.read_text().splitlines(), 1):
            if line == "{":
                start = n
            elif line == "}" and start:
                if n - start > FUNCTION_LINES_MAX:
                    yield f"{rel(f)}:{start}: a function of {n - start} lines"
                start = None


def layout(files):
    code = [str(f) for f in files if f.suffix in (".c", ".h")]
    run = subprocess.run(["clang-format", "--dry-run", "-Werror", *code], cwd=ROOT,
                         capture_output=True, text=True)
    for line in run.stderr.splitlines():
        if "error:" in line:
            yield line.replace(str(ROOT) + "/", "")


def guests(files):
    words = re.compile(r"/work/|\bTODO\b|\bFIXME\b|\bXXX\b")
    for f in files:
        if rel(f) == "tests/tidy/tidy.py":
            continue
        for n, line in enumerate(f.read_text().splitlines(), 1):
            if words.search(line):
                yield f"{rel(f)}:{n}: {line.strip()}"


def top_comment(files):
    for f in files:
        if f.suffix == ".h" and not f.read_text().lstrip().startswith("/*"):
            yield f"{rel(f)}: a header without its door plate"


RULES = [floors, rooms, store_has_no_boringssl, layout, long_lines, long_files, long_functions, guests,
         top_comment]


def main():
    files = sources()
    failed = 0
    for rule in RULES:
        problems = list(rule(files))
        failed += bool(problems)
        print(f"{'FAIL' if problems else 'ok  '} tidy/{rule.__name__}")
        for p in problems[:20]:
            print("     " + p)
    print(f"{len(RULES) - failed} passed, {failed} failed")
    return 1 if failed else 0


sys.exit(main())
