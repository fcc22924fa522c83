"""The status page in a real browser, with a node that works (operator.md 10): it loads, its figures
move, it asks nobody else, it complains about nothing, it is light and dark, it fits a phone, and it is
there without script too. PEMBERLEY_SCREENSHOTS=DIR keeps what it looks like."""

import contextlib
import os
import pathlib
import signal
import struct
import threading
import zlib

from browser import Browser
from pemb import Client

# A node with sanitizers archives slowly, and says so each time.
SETTINGS = ("modules.off={archive}",)
USERS = tuple(f"u{i}@localhost" for i in range(4))
TILE = "document.querySelector('.tile b').textContent"


@contextlib.contextmanager
def opened(server, width=1200, height=900, **how):
    b = Browser()
    try:
        b.size(width, height, how.get("mobile", False))
        b.scheme(how.get("scheme", "light"))
        b.without_script(how.get("without_script", False))
        b.open(f"http://127.0.0.1:{server.http_port}/")
        yield b
        assert not b.complaints, b.complaints
        strange = [u for u in b.requests if not u.startswith(f"http://127.0.0.1:{server.http_port}/")
                   and u != "about:blank"]
        assert not strange, strange
    finally:
        b.close()


class Load:
    """Two people who write to each other until it is closed."""

    def __init__(self, server):
        self.stop = threading.Event()
        self.people = [Client(server, f"u{i}@localhost/1").login(presence=True) for i in (0, 1)]
        self.thread = threading.Thread(target=self.work, daemon=True)
        self.thread.start()

    def work(self):
        a, b = self.people
        while not self.stop.is_set():
            for i in range(20):
                a.message(b.jid, f"m{i}")
            b.expect_body("m19")
            b.backlog.clear()
            a.ping()

    def close(self):
        self.stop.set()
        self.thread.join(20)
        for p in self.people:
            p.close()


def keep(name, png):
    if where := os.environ.get("PEMBERLEY_SCREENSHOTS"):
        (pathlib.Path(where) / f"{name}.png").write_bytes(png)


def pixel(png):
    """The first one: (r, g, b). Filters of PNG (RFC 2083 6) change nothing in the first row's first."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    data, at = b"", 8
    while at < len(png):
        n, kind = struct.unpack(">I4s", png[at:at + 8])
        if kind == b"IDAT":
            data += png[at + 8:at + 8 + n]
        at += 12 + n
    return tuple(zlib.decompress(data)[1:4])


def test_its_figures_move_and_it_asks_nobody_else(server):
    load = Load(server)
    with opened(server) as b:
        assert b.run("document.title") == "Pemberley"
        assert b.run("document.querySelectorAll('.tile').length") == 6
        assert b.run("document.querySelectorAll('tbody tr').length") == 2
        b.wait(f"{TILE} === '2'")
        b.wait("parseInt(document.querySelectorAll('.tile b')[2].textContent) > 0")
        before = b.run("document.querySelector('tbody').innerText")
        b.wait(f"document.querySelector('tbody').innerText !== {before!r}")
        assert b.run("performance.getEntriesByType('resource').length") >= 1
        assert any(u.endswith("/?live") for u in b.requests)
        keep("load-light", b.screenshot())
    load.close()


def test_it_says_when_the_node_is_gone():
    import pemb
    server = pemb.Server(shards=1)
    b = Browser()
    try:
        b.open(f"http://127.0.0.1:{server.http_port}/")
        assert not b.run("document.body.classList.contains('stale')")
        server.stop()
        b.wait("document.body.classList.contains('stale')")
        keep("stale", b.screenshot())
    finally:
        b.close()


def test_light_and_dark(server):
    brightness = {}
    for scheme in ("light", "dark"):
        with opened(server, scheme=scheme) as b:
            png = b.screenshot()
            keep(scheme, png)
            brightness[scheme] = sum(pixel(png)) / 3
    assert brightness["light"] > 200 and brightness["dark"] < 60, brightness


def contrast(b, selector):
    """WCAG's contrast of an element's text with what is behind it."""
    return b.run("""(() => {
        const rgb = s => s.match(/[\\d.]+/g).map(Number);
        const light = c => c.slice(0, 3).map(v => v / 255).map(v =>
            v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
            .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
        const e = document.querySelector(%r);
        let back = e;
        while (back.parentElement && rgb(getComputedStyle(back).backgroundColor)[3] === 0)
            back = back.parentElement;
        const [x, y] = [getComputedStyle(e).color, getComputedStyle(back).backgroundColor]
            .map(s => light(rgb(s))).sort((a, b) => b - a);
        return (x + .05) / (y + .05);
    })()""" % selector)


def test_everybody_can_read_it(server):
    for scheme in ("light", "dark"):
        with opened(server, scheme=scheme) as b:
            for selector in (".tile b", ".tile span", ".state", "td", "th", "td.good", "section li",
                             "footer a"):
                ratio = contrast(b, selector)
                assert ratio >= 4.5, f"{scheme} {selector}: {ratio:.1f}"


def test_on_a_phone_nothing_lies_beside_the_screen(server):
    server.kill_process("shard", 1)
    right = server.conf.read_text()
    server.conf.write_text(right + "\n" + "long_" * 40 + " = 1\n")
    server.process.send_signal(signal.SIGHUP)
    server.wait_log("event=config_rejected")
    server.conf.write_text(right)
    load = Load(server)
    for scheme in ("light", "dark"):
        with opened(server, 360, 740, mobile=True, scheme=scheme) as b:
            b.wait(f"{TILE} === '2'")
            wide = b.run("document.documentElement.scrollWidth")
            assert wide <= 360, wide
            columns = b.run("new Set([...document.querySelectorAll('.tile')]"
                            ".map(t => Math.round(t.getBoundingClientRect().x))).size")
            assert columns == 2, columns
            assert "process_died" in b.run("document.querySelector('.events').innerText")
            keep(f"phone-{scheme}", b.screenshot())
    load.close()


def test_without_script_it_is_a_table(server):
    with opened(server, without_script=True) as b:
        b.without_script(False)
        assert b.run("document.querySelectorAll('tbody tr').length") == 2
        assert b.run("document.querySelector('.state').textContent").lower() == "ready"
        assert not any("live" in u for u in b.requests)
