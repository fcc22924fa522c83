"""A real browser (Debian's Chromium, headless) driven by the DevTools protocol over its pipe: messages
of JSON ended by NUL on descriptors 3 (to it) and 4 (from it). No driver program, no port."""

import base64
import json
import os
import pathlib
import select
import shutil
import subprocess
import tempfile
import time

FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--disable-dev-shm-usage", "--remote-debugging-pipe")


class Browser:
    """One page. What it asks for, and what it complains about, is collected."""

    def __init__(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="pemberley-browser-"))
        to_read, self.to = os.pipe()
        self.come, from_write = os.pipe()

        # Up first: a pipe's own end may be 3 or 4.
        high = [os.dup(to_read), os.dup(from_write)]
        while min(high) < 5:
            high = [os.dup(fd) for fd in high]

        def place():
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)
        self.process = subprocess.Popen(
            ["chromium", *FLAGS, f"--user-data-dir={self.dir}", "about:blank"], pass_fds=(3, 4, *high),
            preexec_fn=place, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, env=dict(os.environ, HOME=str(self.dir)))
        for fd in (to_read, from_write, *high):
            os.close(fd)
        self.buffer, self.last, self.session = b"", 0, None
        self.requests, self.complaints, self.events = [], [], []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(domain + ".enable")

    def close(self):
        try:
            self.session = None
            self.call("Browser.close", timeout=10)
            self.process.wait(10)
        except (AssertionError, OSError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()
        os.close(self.to), os.close(self.come)
        shutil.rmtree(self.dir, True)

    # -- the protocol

    def _receive(self, deadline):
        while b"\0" not in self.buffer:
            left = deadline - time.monotonic()
            assert left > 0 and select.select([self.come], [], [], left)[0], "the browser is silent"
            data = os.read(self.come, 1 << 20)
            assert data, "the browser has ended"
            self.buffer += data
        line, self.buffer = self.buffer.split(b"\0", 1)
        message = json.loads(line)
        self._note(message.get("method"), message.get("params", {}))
        return message

    def _note(self, method, params):
        if method:
            self.events.append(method)
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(params["exceptionDetails"])
        elif method == "Log.entryAdded":
            self.complaints.append(params["entry"])
        elif method == "Runtime.consoleAPICalled":
            self.complaints.append(params["args"])

    def call(self, method, timeout=60, **params):
        self.last += 1
        message = {"id": self.last, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + timeout
        while True:
            answer = self._receive(deadline)
            if answer.get("id") == self.last:
                assert "error" not in answer, answer
                return answer["result"]

    # -- the page

    def open(self, url, timeout=60):
        self.events.clear()
        self.call("Page.navigate", url=url)
        deadline = time.monotonic() + timeout
        while "Page.loadEventFired" not in self.events:
            self._receive(deadline)

    def run(self, script):
        """The value of an expression, or of the promise that it makes."""
        r = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in r, r
        return r["result"].get("value")

    def wait(self, script, timeout=30):
        """Until the expression holds; the page itself looks, at each of its frames."""
        return self.run(f"""new Promise((done, failed) => {{
            const end = Date.now() + {timeout * 1000};
            const look = () => {{
                const value = {script};
                if (value) done(value);
                else if (Date.now() > end) failed(new Error("never"));
                else setTimeout(look, 20);
            }};
            look();
        }})""")

    def size(self, width, height, mobile=False):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=1, mobile=mobile)

    def scheme(self, name):
        self.call("Emulation.setEmulatedMedia",
                  features=[{"name": "prefers-color-scheme", "value": name}])

    def without_script(self, off=True):
        self.call("Emulation.setScriptExecutionDisabled", value=off)

    def screenshot(self, whole=True):
        """PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png",
                                          captureBeyondViewport=whole)["data"])
