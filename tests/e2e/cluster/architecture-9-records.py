"""Presence records in Redis (architecture 9): each session of every node has one, written by its home;
who ends loses it; a Redis that comes back empty has all of them again."""

import secrets
import socket
import subprocess
import time

import cluster as clusters
import pemb
from cluster import Cluster
from pemb import TIMEOUT, Client

FIELDS = {2: "edge_node", 3: "edge_shard", 4: "home_node", 5: "home_shard", 6: "epoch", 7: "session",
          9: "available", 10: "priority", 11: "presence", 13: "resumable", 14: "detached"}


class Redis:
    """HGETALL over a socket: values are bytes."""

    def __init__(self, cluster):
        self.file = socket.create_connection((cluster.redis.address, 6379), 10).makefile("rwb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def answer(self):
        line = self.file.readline()
        assert line[:1] in b"*$", line
        n = int(line[1:])
        return [self.answer() for _ in range(n)] if line[:1] == b"*" else self.file.read(n + 2)[:-2]

    def hash(self, key):
        self.file.write(b"*2\r\n$7\r\nHGETALL\r\n$%d\r\n%s\r\n" % (len(key), key.encode()))
        self.file.flush()
        flat = self.answer()
        return dict(zip(flat[::2], flat[1::2]))


def varint(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 0x80:
            return value, at


def decode(data):
    """A PresenceRecord (proto/bus/cluster.proto); what is not there has proto3's default."""
    record = dict.fromkeys(FIELDS.values(), 0) | {"edge_node": b"", "home_node": b"", "presence": b""}
    at = 0
    while at < len(data):
        tag, at = varint(data, at)
        if tag & 7 == 0:
            value, at = varint(data, at)
        else:
            n, at = (8, at) if tag & 7 == 1 else varint(data, at)
            value, at = data[at:at + n], at + n
        record[FIELDS.get(tag >> 3, "")] = value
    return record


def records(cluster, bare):
    """Resource -> record."""
    with Redis(cluster) as redis:
        fields = redis.hash(f"pemberley:derby:u:{{{bare}}}")
    return {k.decode(): decode(v) for k, v in fields.items() if k}


def wait_for(what, seconds=4 * TIMEOUT):
    """They are written behind."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def log_in(cluster, node, bare):
    cluster[node].add_user(bare)
    return Client(cluster[node], f"{bare}/balcony").login(sm=True, presence=True)


def record_of(cluster, bare, ready=lambda r: r["available"] and r["resumable"]):
    def look():
        record = records(cluster, bare).get("balcony")
        return record if record and ready(record) else None
    return wait_for(look)


def test_sessions_of_all_nodes_have_records_until_they_end():
    cluster = Cluster("ab")
    people = {f"{node}{i}-{secrets.token_hex(3)}@localhost": node for node in "ab" for i in range(3)}
    clients = {bare: log_in(cluster, node, bare) for bare, node in people.items()}
    for bare, node in people.items():
        record = record_of(cluster, bare)
        assert record["edge_node"] == node.encode()
        assert f"{bare}/balcony".encode() in record["presence"]
        assert record["epoch"] > 0 and not record["detached"]
        assert record["home_node"] in (b"a", b"b")
    gone, stays, *_ = people
    clients.pop(gone).close()
    wait_for(lambda: not records(cluster, gone))
    assert records(cluster, stays)

    a = cluster["a"]
    assert a.metric("registry_up") == a.shards
    assert a.metric("registry_commands_total") > 0 and a.metric("registry_command_seconds_count") > 0

    before = a.metric("registry_resyncs_total")
    cluster.redis.kill()
    cluster.redis.start()  # empty
    for bare in clients:
        record_of(cluster, bare)
    assert not records(cluster, gone)
    assert a.metric("registry_resyncs_total") > before
    assert a.metric("registry_refused_total") == 0
    wait_for(lambda: a.metric("registry_unsaved_records") == 0)
    for c in clients.values():
        c.close()
    cluster.stop()


def test_who_takes_over_writes_the_records_again():
    cluster = Cluster("ab")
    people = [f"moved{i}-{secrets.token_hex(3)}@localhost" for i in range(6)]
    clients = [log_in(cluster, "a", bare) for bare in people]
    before = {bare: record_of(cluster, bare) for bare in people}
    cluster["b"].kill()
    for bare in people:
        was = before[bare]
        now = record_of(cluster, bare, lambda r: r["home_node"] == b"a" and not r["detached"])
        assert now["edge_node"] == b"a" and now["session"] == was["session"]
        assert was["home_node"] == b"a" or now["epoch"] > was["epoch"]
    for c in clients:
        c.close()
    for bare in people:
        wait_for(lambda: not records(cluster, bare))
    cluster.stop()


def test_redis_is_believed_by_its_certificate():
    """Another one on TLS, by name, with a certificate of its own authority."""
    cluster = Cluster("a", shards=1, settings=["cluster.heartbeat=300ms", "cluster.lease=900ms"])
    port, = pemb.free_ports(1)
    pem, key = cluster.redis.dir / "redis.pem", cluster.redis.dir / "redis.key"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                    "-nodes", "-days", "2", "-subj", "/CN=redis", "-addext", "subjectAltName=DNS:localhost",
                    "-keyout", key, "-out", pem], check=True, capture_output=True)
    redis = subprocess.Popen(
        ["redis-server", "--port", "0", "--tls-port", str(port), "--tls-cert-file", pem, "--tls-key-file", key,
         "--tls-auth-clients", "no", "--bind", "127.0.0.1", "--save", ""], executable="/usr/bin/redis-check-rdb",
        cwd=cluster.redis.dir, preexec_fn=clusters.end_with_us, stdout=subprocess.DEVNULL)
    node = cluster["a"]
    node.stop()
    cluster.redis.kill()
    given = [*node.settings, f"registry.redis.servers={{localhost:{port}}}", "registry.redis.tls=on"]
    for trusted, why in ((None, "certificate_foreign"), (key, "ca_file has no certificates")):
        node.settings = given + ([f"registry.redis.ca_file={trusted}"] if trusted else [])
        node.spawn()
        lost = node.wait_log("event=registry_lost")
        assert why in lost, lost
        node.kill()
    node.settings = given + [f"registry.redis.ca_file={pem}"]
    node.spawn()
    node.wait_ready()
    node.stop()
    redis.kill()
    redis.wait()
