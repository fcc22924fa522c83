"""The files for containers and machines (operator.md 9) say what is so: the Dockerfile's steps name what
exists, its last stage has every library, the health check works under the shipped seccomp profile, and
each line of sysctl.conf is one that the kernel knows."""

import pathlib
import re
import subprocess

import pemb
from pemb import BIN, ROOT

PROFILE = ["/usr/bin/python3", str(ROOT / "tests/e2e/lib/sandbox.py"), "--profile",
           str(ROOT / "ops/seccomp.json"), "--"]
GIVEN = {"libc6", "libgcc-s1", "libasan8", "libubsan1"}  # of every Debian; of the sanitizers


def livez(port):
    return subprocess.run([*PROFILE, ROOT / "ops/livez", str(port)], capture_output=True,
                          timeout=20).returncode


def test_livez_tells_a_live_node_from_none():
    server = pemb.Server(hosts=("localhost",))
    assert livez(server.http_port) == 0
    server.stop()
    assert livez(server.http_port) == 1


def uses(use):
    lines = (ROOT / "ops/packages.txt").read_text().splitlines()
    return {line.split()[1] for line in lines if line.split()[0] == use}


def files_of(package):
    """As installed here, where it was built: the build packages depend on those that run."""
    info = pathlib.Path("/var/lib/dpkg/info")
    return [path for file in (*info.glob(f"{package}.list"), *info.glob(f"{package}:*.list"))
            for path in file.read_text().splitlines()]


def test_what_the_executables_need_is_installed_where_they_run():
    needed = set()
    for name in ("pemberley", "pemberley-shard", "pemberley-store"):
        dynamic = subprocess.run(["readelf", "-d", BIN / name], capture_output=True, text=True).stdout
        needed |= set(re.findall(r"\(NEEDED\).*\[(.+)\]", dynamic))
    assert len(needed) > 8, needed
    brought = {pathlib.Path(path).name for package in uses("run") | GIVEN for path in files_of(package)}
    assert needed <= brought, needed - brought


def instructions():
    text = (ROOT / "Dockerfile").read_text()
    text = re.sub(r"^#.*\n", "", text, flags=re.M).replace("\\\n", " ")
    return [line.split(None, 1) for line in text.splitlines() if line.strip()]


def test_the_dockerfile_names_what_exists():
    stages = [what for how, what in instructions() if how == "FROM"]
    assert stages == ["debian:12-slim AS build", "debian:12-slim"], stages
    for how, what in instructions():
        words = what.split()
        if how == "COPY" and words[0] == "--from=build":
            assert all(w.startswith("/src/build/release/bin/") for w in words[1:-1]), what
            targets = " ".join(w for h, w in instructions() if h == "RUN" and "--target" in w)
            assert all(pathlib.Path(w).name in targets.split() for w in words[1:-1]), what
        elif how == "COPY":
            assert all((ROOT / w).exists() for w in words[:-1]), what
        elif how == "RUN":
            assert "apt" not in words, f"packages come from ops/packages.txt: {what}"
    presets = (ROOT / "CMakePresets.json").read_text()
    for what in (w for h, w in instructions() if h == "RUN"):
        for preset in re.findall(r"--preset (\w+)", what):
            assert f'"name": "{preset}"' in presets, what
        for option in re.findall(r"-D(\w+)=", what):
            assert option in (ROOT / "CMakeLists.txt").read_text(), what
    assert [w for h, w in instructions() if h == "USER"] == ["pemberley"]


def test_each_line_of_sysctl_conf_has_a_reason_and_a_kernel_that_knows_it():
    lines = (ROOT / "ops/sysctl.conf").read_text().splitlines()
    keys = [(n, line.split("=")[0].strip()) for n, line in enumerate(lines)
            if line and not line.startswith("#")]
    assert keys
    for n, key in keys:
        assert lines[n - 1].startswith("#"), f"{key}: no reason"
        known = pathlib.Path("/proc/sys", *key.lstrip("-").split(".")).exists()
        assert known or key.startswith("-"), key
