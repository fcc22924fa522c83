#!/usr/bin/python3
"""The floor: Debian 12's own kernel, booted in QEMU (emulated: no right to KVM is asked for), runs the
loop's unit tests and a smoke test of a whole node. 6.1 does differ from what a developer's machine
runs. `tests/floor/run.py BUILD`: BUILD is a build directory of this tree.

The kernel is Debian's package, fetched by apt-get and taken apart, never installed; what is made of
it stays in build/floor. The guest sees the host's root read-only over 9p, so that what runs there is
what was built here; what it writes stays in its memory. Ends with `N passed, N failed`."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
TREE = HERE.parents[1]
CACHE = TREE / "build/floor"
GUEST_SECONDS = 150
DOWNLOAD_SECONDS = 240
META = "linux-image-amd64"
FLOOR = "6.1"
# What the guest's root needs beyond what is built into the kernel; dependencies come by themselves.
MODULES = ("virtio_pci", "9pnet_virtio", "9p", "overlay")
DEBUG_EXIT = 0xF4


class CannotRun(Exception):
    """Nothing was tested."""


# ---- the kernel ---------------------------------------------------------------------------------


def apt_cache(*args):
    return subprocess.run(["apt-cache", *args], capture_output=True, text=True).stdout


def kernel_package():
    """(name, version) of the image that the meta package stands for."""
    m = re.search(r"^Depends: .*?(linux-image-[\w.-]+) \(= ([^)]+)\)", apt_cache("show", META), re.M)
    if not m:
        raise CannotRun(f"apt knows no {META}")
    if not m.group(1).startswith(f"linux-image-{FLOOR}."):
        raise CannotRun(f"{META} is {m.group(1)}, not {FLOOR}: Debian 12's lists are needed")
    return m.groups()


def download(folder):
    """The package's file. Lists that are older than the archive name a file that is gone."""
    update = ["apt-get", "-qq", "update"]
    if os.geteuid() != 0:
        update.insert(0, "sudo")
    problem = ""
    for attempt in range(2):
        if attempt:
            subprocess.run(update, capture_output=True, timeout=DOWNLOAD_SECONDS)
        try:
            name, version = kernel_package()
        except CannotRun as e:
            problem = e
            continue
        done = subprocess.run(["apt-get", "-qq", "download", f"{name}={version}"], cwd=folder,
                              capture_output=True, text=True, timeout=DOWNLOAD_SECONDS)
        files = list(folder.glob("*.deb"))
        if done.returncode == 0 and files:
            return files[0]
        problem = done.stderr.strip()
    raise CannotRun(f"the kernel's package cannot be fetched: {problem}")


def depends(module):
    """Names in a module's own list; the package has no modules.dep."""
    m = re.search(rb"\0depends=([^\0]*)\0", module.read_bytes())
    return [n.decode() for n in m.group(1).split(b",") if n] if m else []


def in_order(available, wanted, order):
    for name in wanted:
        name = name.replace("-", "_")
        if name not in available:
            raise CannotRun(f"the kernel has no module {name}")
        if name not in order:
            in_order(available, depends(available[name]), order)
            order.append(name)
    return order


def unpack(package, folder):
    """vmlinuz and modules/ into folder."""
    tree = folder / "tree"
    tree.mkdir()
    tar = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE)
    subprocess.run(["tar", "-x", "-C", tree, "--wildcards", "./boot/vmlinuz-*",
                    *(f"./lib/modules/*/kernel/{part}" for part in
                      ("fs/9p", "fs/netfs", "fs/fscache", "fs/overlayfs", "net/9p",
                       "drivers/virtio"))], stdin=tar.stdout, check=True)
    if tar.wait():
        raise CannotRun("the kernel's package cannot be unpacked")
    next(tree.glob("boot/vmlinuz-*")).rename(folder / "vmlinuz")
    available = {m.stem.replace("-", "_"): m for m in tree.rglob("*.ko")}
    order = in_order(available, MODULES, [])
    (folder / "modules").mkdir()
    for name in order:
        shutil.copy(available[name], folder / "modules" / f"{name}.ko")
    (folder / "order").write_text("".join(f"{name}.ko\n" for name in order))
    shutil.rmtree(tree)


def kernel():
    """The folder with the unpacked kernel: of this version of the package, or, where apt knows
    nothing (no lists, no network), the newest of an earlier run."""
    CACHE.mkdir(parents=True, exist_ok=True)
    try:
        ready = CACHE / "-".join(kernel_package())
    except CannotRun:
        earlier = sorted(CACHE.glob("linux-image-*"), key=lambda p: p.stat().st_mtime)
        ready = earlier[-1] if earlier else None
    if ready and ready.exists():
        return ready
    with tempfile.TemporaryDirectory(dir=CACHE) as work:
        work = pathlib.Path(work)
        (work / "deb").mkdir()
        work.chmod(0o755)  # apt fetches as a user of its own
        package = download(work / "deb")
        folder = work / "made"
        folder.mkdir()
        unpack(package, folder)
        ready = CACHE / "-".join(kernel_package())
        shutil.rmtree(ready, ignore_errors=True)
        folder.rename(ready)
    return ready


# ---- the guest ----------------------------------------------------------------------------------


def make_initrd(image, out, environment):
    """A cpio archive that only this run uses."""
    with tempfile.TemporaryDirectory() as root:
        root = pathlib.Path(root)
        for folder in ("bin", "lib", "dev", "proc"):
            (root / folder).mkdir()
        shutil.copy("/bin/busybox", root / "bin/busybox")
        shutil.copy(HERE / "init", root / "init")
        (root / "init").chmod(0o755)
        for module in (image / "modules").iterdir():
            shutil.copy(module, root / "lib" / module.name)
        shutil.copy(image / "order", root / "modules")
        (root / "environment").write_text("".join(f"export {k}='{v}'\n"
                                                  for k, v in environment.items()))
        names = "\n".join(str(p.relative_to(root)) for p in sorted(root.rglob("*")))
        with open(out, "wb") as archive:
            subprocess.run(["/bin/busybox", "cpio", "-o", "-H", "newc"], cwd=root, input=names.encode(),
                           stdout=archive, stderr=subprocess.DEVNULL, check=True)


def qemu(image, initrd):
    return ["qemu-system-x86_64", "-machine", "q35,accel=tcg", "-cpu", "max", "-smp", "2", "-m", "1536",
            "-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio",
            "-kernel", str(image / "vmlinuz"), "-initrd", str(initrd),
            "-append", "console=ttyS0 quiet loglevel=3 panic=-1 mitigations=off random.trust_cpu=on",
            "-device", f"isa-debug-exit,iobase={DEBUG_EXIT:#x},iosize=4",
            "-fsdev", "local,id=host,path=/,security_model=none,readonly=on,multidevs=remap",
            "-device", "virtio-9p-pci,fsdev=host,mount_tag=host"]


def watch(process, counts):
    """Prints what the guest says, and counts its verdicts."""
    for line in process.stdout:
        line = line.decode(errors="replace").replace("\r", "").rstrip("\n")
        print(line, flush=True)
        counts[0] += line.startswith("ok ")
        counts[1] += line.startswith("FAIL ")


def boot(build, counts):
    image = kernel()
    environment = {
        "PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "HOME": "/tmp", "LANG": "C.UTF-8",
        "FLOOR_TREE": TREE, "FLOOR_BUILD": build, "PEMBERLEY_BIN": build / "bin",
        "PEMBERLEY_TIMEOUT": "40", "PYTHONDONTWRITEBYTECODE": "1",
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1",
    }
    with tempfile.TemporaryDirectory() as work:
        initrd = pathlib.Path(work) / "initrd"
        make_initrd(image, initrd, environment)
        process = subprocess.Popen(["timeout", str(GUEST_SECONDS), *qemu(image, initrd)],
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        watch(process, counts)
        return process.wait()


def main():
    build = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else TREE / "build/sanitize").resolve()
    counts = [0, 0]
    started = time.monotonic()
    try:
        code = boot(build, counts)
        if code != 1: # 2 * 0 + 1: the guest came to its end, and was content
            counts[1] += 1
            print("FAIL floor: " + (f"no end within {GUEST_SECONDS} s" if code == 124 else
                                    f"the guest ended with {code}"))
    except (CannotRun, subprocess.SubprocessError, OSError) as e:
        counts[1] += 1
        print(f"FAIL floor: {e}")
    print(f"floor: {time.monotonic() - started:.0f} s")
    print(f"{counts[0]} passed, {counts[1]} failed")
    return 1 if counts[1] or not counts[0] else 0


sys.exit(main())
