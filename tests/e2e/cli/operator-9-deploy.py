"""What is shipped for containers and clusters is valid where it can be told without an engine: YAML that
yamllint likes, configs that check-config takes, a balancer's file that HAProxy takes, scripts that
shellcheck likes, and names in them that fit together."""

import os
import pathlib
import subprocess
import tempfile

import yaml

from pemb import BIN, ROOT

COMPOSE = ROOT / "ops/compose"
MANIFESTS = ROOT / "ops/kubernetes/pemberley.yaml"


def check_config(text, tmp):
    """Errors about files that only the containers have are none of the config's."""
    path = pathlib.Path(tmp) / "pemberley.conf"
    path.write_text(text)
    r = subprocess.run([BIN / "pemberley", "--config", path, "check-config"], capture_output=True, text=True,
                       env=dict(os.environ, NODE_NAME="a"))
    return [line for line in r.stderr.splitlines()
            if "_file" not in line and not line.endswith(("error", "errors"))
            and "Nothing was changed" not in line]


def test_yaml_is_tidy():
    r = subprocess.run(["yamllint", "-s", "-c", ROOT / "ops/.yamllint", COMPOSE, MANIFESTS], capture_output=True,
                       text=True)
    assert r.returncode == 0, r.stdout


def test_scripts_are_shell():
    scripts = [ROOT / "ops" / name for name in ("start", "cluster", "install", "pemberley", "livez")]
    r = subprocess.run(["shellcheck", "-S", "warning", *scripts, COMPOSE / "identities.sh"], capture_output=True, text=True)
    assert r.returncode == 0, r.stdout


def test_the_compose_file_names_what_is_there():
    compose = yaml.safe_load((COMPOSE / "docker-compose.yml").read_text())
    services, volumes = compose["services"], compose["volumes"]
    nodes = [s for s in services.values() if "NODE_NAME" in s.get("environment", {}) and "entrypoint" not in s]
    assert sorted(n["environment"]["NODE_NAME"] for n in nodes) == ["a", "b", "c"]
    for service in services.values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert (COMPOSE / source).exists() if source.startswith(".") else source in volumes, source
        for option in service.get("security_opt", []):
            assert (COMPOSE / option.removeprefix("seccomp=")).exists(), option
        assert set(service.get("depends_on", [])) <= set(services)
    with tempfile.TemporaryDirectory() as tmp:
        wrong = check_config((COMPOSE / "pemberley.conf").read_text(), tmp)
    assert not wrong, wrong
    for node in nodes:
        text = (COMPOSE / "haproxy.cfg").read_text()
        assert f"server {node['environment']['NODE_NAME']} " in text


def test_the_balancer_of_the_compose_file_is_valid():
    text = (COMPOSE / "haproxy.cfg").read_text()
    for name in "abc":  # names that only the containers can look up
        text = text.replace(f"server {name} {name}:", f"server {name} 127.0.0.1:")
    with tempfile.NamedTemporaryFile("w", suffix=".cfg") as f:
        f.write(text)
        f.flush()
        r = subprocess.run(["haproxy", "-c", "-f", f.name], capture_output=True, text=True)
    assert r.returncode == 0, r.stderr


def test_manifests_fit_together():
    by_kind = {}
    for m in yaml.safe_load_all(MANIFESTS.read_text()):
        by_kind.setdefault(m["kind"], []).append(m)
        assert m["apiVersion"] and m["metadata"]["name"]
        assert m["kind"] == "Namespace" or m["metadata"]["namespace"] == "pemberley"
    pods = by_kind["StatefulSet"][0]["spec"]
    labels = pods["template"]["metadata"]["labels"]
    spec = pods["template"]["spec"]
    assert pods["selector"]["matchLabels"] == labels
    assert by_kind["PodDisruptionBudget"][0]["spec"]["selector"]["matchLabels"] == labels
    assert pods["serviceName"] in [s["metadata"]["name"] for s in by_kind["Service"]]
    ports = {p["name"] for c in spec["containers"] for p in c["ports"]}
    for service in by_kind["Service"]:
        assert service["spec"]["selector"] == labels
        assert {p.get("targetPort", p["name"]) for p in service["spec"]["ports"]} <= ports
    container = spec["containers"][0]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] in ports
    volumes = {v["name"] for v in spec["volumes"]}
    for c in spec["containers"] + spec["initContainers"]:
        assert {m["name"] for m in c["volumeMounts"]} <= volumes
    config = by_kind["ConfigMap"][0]["data"]["pemberley.conf"]
    with tempfile.TemporaryDirectory() as tmp:
        wrong = check_config(config, tmp)
    assert not wrong, wrong
    assert "drain_timeout = 4m" in config and spec["terminationGracePeriodSeconds"] > 4 * 60
