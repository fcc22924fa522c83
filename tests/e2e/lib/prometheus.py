"""Debian's Prometheus, and what ops/ has for it: dashboards, rules."""

import http.client
import json
import pathlib
import re
import shutil
import subprocess
import tempfile
import time
import urllib.parse

import pemb

OPS = pathlib.Path(__file__).resolve().parents[3] / "ops"


def queries(boards="*"):
    """(where, expression) of all panels and annotations."""
    for path in sorted((OPS / "grafana").glob(f"{boards}.json")):
        board = json.loads(path.read_text())
        for panel in board["panels"]:
            for target in panel["targets"]:
                yield f"{path.name}: {panel['title']}", target["expr"]
        for note in board["annotations"]["list"]:
            yield f"{path.name}: {note['name']}", note["expr"]


def filled(expression):
    """As Grafana would ask, of all instances."""
    return expression.replace("$__rate_interval", "10s").replace("$instance", ".*")


def rules(file):
    """(name, expression) of alerts.yml or recording.yml; both are written one line per field."""
    text = (OPS / "prometheus" / file).read_text()
    return re.findall(r"- (?:alert|record): (\S+)\n +expr: (.+)", text)


class Prometheus:
    """The real one, on the shipped config with these targets and a short interval; edit: alerts.yml as
    it is to be instead."""

    def __init__(self, targets, edit=lambda alerts: alerts):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="pemberley-prometheus-"))
        self.port, = pemb.free_ports(1)
        shutil.copy(OPS / "prometheus/recording.yml", self.dir)
        (self.dir / "alerts.yml").write_text(edit((OPS / "prometheus/alerts.yml").read_text()))
        config = (OPS / "prometheus/prometheus.yml").read_text()
        assert 'targets: ["127.0.0.1:5290"]' in config and config.count("15s") == 2
        config = config.replace('targets: ["127.0.0.1:5290"]', f"targets: {json.dumps(targets)}")
        config = config.replace("15s", "1s")
        (self.dir / "prometheus.yml").write_text(config)
        self.process = subprocess.Popen(
            ["prometheus", f"--config.file={self.dir}/prometheus.yml",
             f"--storage.tsdb.path={self.dir}/data", f"--web.listen-address=127.0.0.1:{self.port}"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def get(self, path, **query):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        c.request("GET", path + "?" + urllib.parse.urlencode(query))
        answer = json.loads(c.getresponse().read())
        assert answer["status"] == "success", answer
        return answer["data"]

    def query(self, expression):
        return self.get("/api/v1/query", query=expression)["result"]

    def firing(self):
        return {a["labels"]["alertname"] for a in self.get("/api/v1/alerts")["alerts"]
                if a["state"] == "firing"}

    def wait(self, what, seconds=60):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                if what():
                    return
            except (OSError, ValueError):
                pass
            time.sleep(0.2)
        raise AssertionError("Prometheus saw nothing in time")

    def close(self):
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.dir, True)
