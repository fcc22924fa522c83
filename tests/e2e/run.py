#!/usr/bin/python3
"""Runs tests/e2e/<theme>/<rfc|xep>-<section>-<what>.py: every function test_*(server) in it, one node
per file (SETTINGS, HOST_OPTIONS, SHARDS, PLAIN, ENV in the file configure it; a function without
parameters starts its own). A filter is a part of theme/file:test. `--over epoll` starts every node
whose test does not choose itself over that loop, `--over postgres` on a PostgreSQL. Ends with `N passed, N failed`."""

import importlib.util
import inspect
import os
import pathlib
import sys
import time
import traceback

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "lib"))
if sys.argv[1:2] == ["--over"]:
    os.environ["PEMBERLEY_STORE" if sys.argv[2] == "postgres" else "PEMBERLEY_LOOP"] = sys.argv[2]
    del sys.argv[1:3]
import pemb  # noqa: E402

OVER = pemb.LOOP or pemb.STORE
NAME = "e2e" + (f"/over-{OVER}" if OVER else "")


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem.replace("-", "_"), path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def server_for(module):
    server = pemb.Server(settings=getattr(module, "SETTINGS", ()),
                         hosts=getattr(module, "HOSTS", ("localhost", "example.org")),
                         host_options=getattr(module, "HOST_OPTIONS", ""),
                         shards=getattr(module, "SHARDS", 2), plain=getattr(module, "PLAIN", True),
                         env=getattr(module, "ENV", None))
    for jid in getattr(module, "USERS", ()):
        server.add_user(jid)
    return server


def run_file(path, wanted, counts):
    theme = f"{path.parent.name}/{path.stem}"
    module = load(path)
    tests = [(n, f) for n, f in vars(module).items() if n.startswith("test_") and callable(f)]
    tests = [(n, f) for n, f in tests if wanted(f"{theme}:{n}")]
    server = None
    for name, function in tests:
        started = time.monotonic()
        try:
            if inspect.signature(function).parameters:
                if server is None or server.process.poll() is not None:
                    server = server_for(module)
                function(server)
            else:
                function()
            counts[0] += 1
            print(f"ok   {NAME}/{theme}:{name} ({time.monotonic() - started:.2f} s)", flush=True)
        except Exception:
            counts[1] += 1
            print(f"FAIL {NAME}/{theme}:{name} ({time.monotonic() - started:.2f} s)")
            traceback.print_exc(limit=-4, file=sys.stdout)
            if server:
                print("    log: " + "\n         ".join(server.log[-8:]), flush=True)
    if server:
        try:
            server.stop()
        except Exception as e:
            counts[1] += 1
            print(f"FAIL {NAME}/{theme}: the node's end: {e}", flush=True)


def main():
    filters = sys.argv[1:]
    counts = [0, 0]
    for path in sorted(HERE.glob("*/*.py")):
        if path.parent.name == "lib":
            continue
        def wanted(name):
            return not filters or any(f in name for f in filters)
        try:
            run_file(path, wanted, counts)
        except Exception:
            counts[1] += 1
            print(f"FAIL {NAME}/{path.parent.name}/{path.stem}: cannot be run")
            traceback.print_exc(limit=-3, file=sys.stdout)
    print(f"{counts[0]} passed, {counts[1]} failed")
    return 1 if counts[1] or not counts[0] else 0


sys.exit(main())
