"""Dashboards, alerts and what is scraped agree (operator.md 6, 7): every metric that a panel or rule
names is exposed, every alert has its runbook entry, and Debian's Prometheus takes all of it from a
running node."""

import http.client
import re
import subprocess
import time

from pemb import Client
from prometheus import OPS, Prometheus, filled, queries, rules

USERS = ("alice@localhost", "bob@localhost")


def page(server, path="/metrics"):
    c = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=10)
    c.request("GET", path)
    return c.getresponse().read().decode()


def names_exposed(server):
    return {re.split(r"[{ ]", line)[0] for line in page(server).splitlines()
            if line and line[0] != "#"}


# Families of nodes of a cluster, which this one is not (operator-6-cluster.py): known by name.
OF_A_CLUSTER = ("pemberley_registry_", "pemberley_cluster_", "pemberley_bus_")


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
        families = {re.sub(r"_bucket$", "", n) for n in elsewhere}
        assert all(server.cli("explain", n).stdout for n in families), where
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
    p = Prometheus([f"127.0.0.1:{server.http_port}"])
    try:
        p.wait(lambda: p.query('up{job="pemberley"} == 1'))
        work(server, p, 8)
        for where, expression in queries():
            if any(n.startswith(OF_A_CLUSTER) for n in metrics_of(expression)):
                continue
            answer = p.query(filled(expression))
            assert answer or MAY_BE_EMPTY.search(expression), f"{where}: {expression}: no data"
        received = p.query('sum(pemberley_stanzas_received_total{kind="message"})')
        assert float(received[0]["value"][1]) >= 8
        p99 = p.query("histogram_quantile(.99, sum by (le) (pemberley_delivery_seconds_bucket))")
        assert 0 < float(p99[0]["value"][1]) < 10
        groups = p.get("/api/v1/rules")["groups"]
        wrong = [r for g in groups for r in g["rules"] if r.get("lastError")]
        assert groups and not wrong, wrong
        assert not p.firing()
    finally:
        p.close()
