"""Dashboards, alerts and what is scraped agree (operator.md 6, 7): every metric that a panel or rule
names is exposed, every alert has its runbook entry, and Debian's Prometheus takes all of it from a
running node."""

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
from pemb import Client

OPS = pathlib.Path(__file__).resolve().parents[3] / "ops"
USERS = ("alice@localhost", "bob@localhost")


def page(server, path="/metrics"):
    c = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=10)
    c.request("GET", path)
    return c.getresponse().read().decode()


def names_exposed(server):
    return {re.split(r"[{ ]", line)[0] for line in page(server).splitlines()
            if line and line[0] != "#"}


def queries():
    for path in sorted((OPS / "grafana").glob("*.json")):
        board = json.loads(path.read_text())
        for panel in board["panels"]:
            for target in panel["targets"]:
                yield f"{path.name}: {panel['title']}", target["expr"]
        for note in board["annotations"]["list"]:
            yield f"{path.name}: {note['name']}", note["expr"]


# Families of nodes of a cluster, which this one is not: they are asked for, and known by name.
OF_A_CLUSTER = ("pemberley_registry_", "pemberley_cluster_", "pemberley_bus_")


def rules(file):
    """(name, expression) of alerts.yml or recording.yml; both are written one line per field."""
    text = (OPS / "prometheus" / file).read_text()
    return re.findall(r"- (?:alert|record): (\S+)\n +expr: (.+)", text)


def metrics_of(expression):
    return set(re.findall(r"(?<![\w:])pemberley_\w+", re.sub(r'"[^"]*"', "", expression)))


def test_dashboards_are_as_their_table_makes_them():
    subprocess.run([OPS / "grafana/dashboards.py", "--check"], check=True)


def test_every_metric_of_a_panel_or_rule_is_exposed(server):
    exposed = names_exposed(server)
    asked = list(queries()) + rules("alerts.yml") + rules("recording.yml")
    assert len(asked) > 80
    for where, expression in asked:
        names = metrics_of(expression)
        assert names or ":pemberley_" in expression or "up{" in expression, f"{where}: {expression}"
        elsewhere = {n for n in names - exposed if n.startswith(OF_A_CLUSTER)}
        assert all(server.cli("explain", n).stdout for n in elsewhere), where
        assert names - elsewhere <= exposed, f"{where}: no {names - exposed}"


def test_every_alert_has_its_runbook_entry():
    entries = set(re.findall(r"^## (\w+)$", (OPS / "runbook.md").read_text(), re.M))
    alerts = {name for name, _ in rules("alerts.yml")}
    assert alerts == entries, alerts ^ entries
    text = (OPS / "prometheus/alerts.yml").read_text()
    for name in alerts:
        assert f"runbook: ops/runbook.md#{name.lower()}\n" in text, name
    for where, words in ((p, p.read_text()) for p in (OPS / "grafana").glob("*.json")):
        assert set(re.findall(r"Alert (\w+):", words)) <= alerts, where


def test_what_an_operator_meets_is_explained(server):
    """Alerts, what panels show, and reasons in labels: each has a word for who asks."""
    explain = lambda name: server.cli("explain", name).stdout
    for name, _ in rules("alerts.yml"):
        assert explain(name).startswith(name + "\n") and len(explain(name)) > 80, name
    text = page(server)
    labels = set(re.findall(r'pemberley_(?:connections_closed|limits_hit)_total\{[^}]*(?:reason|limit)="(\w+)"', text))
    own = {"other", "ok", "rate", "registration_rate", "resources_max"}  # bounds of several options
    assert len(labels) > 20
    for name in sorted(labels - own)[::5] + ["logins_concurrent", "park_max"]:
        assert name in explain(name).lower(), name
    assert "a limit" in explain("stanza_too_big") and "resumed" in explain("system-shutdown")
    for name in ("pemberley_stage_seconds", "host_stanzas_total", "process_died", "limits.unsafe_max"):
        assert explain(name), name
    for name in re.findall(r"^# TYPE (\S+)", text, re.M): # also those that the supervisor writes itself
        assert explain(name).startswith(name + "\n"), name
    assert server.cli("explain", "no_such_thing", check=False).returncode == 4


def test_promtool_finds_nothing_wrong(server):
    subprocess.run(["promtool", "check", "config", OPS / "prometheus/prometheus.yml"], check=True,
                   capture_output=True)
    r = subprocess.run(["promtool", "check", "metrics"], input=page(server), text=True,
                       capture_output=True)
    assert r.returncode == 0 and not r.stderr, r.stderr


def test_haproxy_takes_its_config():
    subprocess.run(["haproxy", "-c", "-f", OPS / "haproxy.cfg"], check=True, capture_output=True)


class Prometheus:
    """The real one, on the shipped config with this node as target and a short interval."""

    def __init__(self, server):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="pemberley-prometheus-"))
        self.port, = pemb.free_ports(1)
        for file in ("recording.yml", "alerts.yml"):
            shutil.copy(OPS / "prometheus" / file, self.dir)
        config = (OPS / "prometheus/prometheus.yml").read_text()
        assert "127.0.0.1:5290" in config and config.count("15s") == 2
        config = config.replace("127.0.0.1:5290", f"127.0.0.1:{server.http_port}").replace("15s", "1s")
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


def work(server, prometheus, scrapes):
    """Two people talk until Prometheus has looked so many times."""
    a = Client(server, "alice@localhost/1").login(presence=True)
    b = Client(server, "bob@localhost/1").login(presence=True)
    start = time.time()

    def seen():
        a.send("<message to='bob@localhost' type='chat'><body>hello</body></message>")
        b.ping()
        return len(prometheus.query(f'up{{job="pemberley"}}[{int(time.time() - start) + 1}s]')) and \
            int(prometheus.query('count_over_time(up{job="pemberley"}[1m])')[0]["value"][1]) >= scrapes

    prometheus.wait(seen)
    a.close(), b.close()


# What is empty while nothing is wrong: the panels filter with > 0, or wait for six hours of data.
MAY_BE_EMPTY = re.compile(r"> 0|\[6h\]|resumption_gap|tls_handshake_seconds|_size_bytes|delivery_seconds")


def test_a_real_prometheus_scrapes_a_working_node(server):
    p = Prometheus(server)
    try:
        p.wait(lambda: p.query('up{job="pemberley"} == 1'))
        work(server, p, 8)
        for where, expression in queries():
            expression = expression.replace("$__rate_interval", "10s").replace("$instance", ".*")
            answer = p.query(expression)
            assert answer or MAY_BE_EMPTY.search(expression), f"{where}: {expression}: no data"
        received = p.query('sum(pemberley_stanzas_received_total{kind="message"})')
        assert float(received[0]["value"][1]) >= 8
        p99 = p.query("histogram_quantile(.99, sum by (le) (pemberley_delivery_seconds_bucket))")
        assert 0 < float(p99[0]["value"][1]) < 10
        groups = p.get("/api/v1/rules")["groups"]
        wrong = [r for g in groups for r in g["rules"] if r.get("lastError")]
        assert groups and not wrong, wrong
        firing = [a["labels"]["alertname"] for a in p.get("/api/v1/alerts")["alerts"]
                  if a["state"] == "firing"]
        assert not firing, firing
    finally:
        p.close()
