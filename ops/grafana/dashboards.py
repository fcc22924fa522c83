#!/usr/bin/python3
"""The Grafana dashboards beside this file, made from one table each: ops/grafana/dashboards.py writes
*.json, --check says whether they are what it would write. In queries r(x) is the rate of a counter and
q(p, x, by) a quantile of a histogram, both without the prefix pemberley_; every selector gets the
variable `instance`."""

import json
import pathlib
import re
import sys

HERE = pathlib.Path(__file__).resolve().parent
# (title, [(legend, query)], unit, alert of the runbook or "")
# A tile is (title, query, unit, warn, bad, alert): amber and red from these values on; None: never.
SERVICE = dict(
    tiles=[("Sessions", "sum(sessions)", "short", None, None, "SessionsDropped"),
           ("Nodes not ready", "count(node_ready == 0) or vector(0)", "short", None, 1, "NodeNotReady"),
           ("Delivery p99", "q(.99, delivery_seconds)", "s", .02, .05, "DeliverySlow"),
           ("Logins failing", "sum(r(login_failures_total)) / clamp_min(sum(r(logins_total)) + sum(r(login_failures_total)), 1e-9)", "percentunit", .2, .5, "LoginsFailing"),
           ("Dropped, 15 min", 'sum(increase(stanzas_undelivered_total{fate="dropped",reason!="rule"}[15m]))', "short", None, 1, "StanzasDropped"),
           ("First certificate ends", "min(tls_certificate_not_after_timestamp_seconds) - time()", "s", None, None, "CertificateEnds")],
    panels=[("Sessions by state", [("{{state}}", "sum by (state) (sessions)")], "short", "SessionsDropped"),
            ("Users online", [("users", "sum(users_online)")], "short", ""),
            ("Stanzas received", [("{{kind}}", "sum by (kind) (r(stanzas_received_total))")], "ops", ""),
            ("Delivery", [("p50", "q(.5, delivery_seconds)"), ("p99", "q(.99, delivery_seconds)"), ("p99.9", "q(.999, delivery_seconds)")], "s", "DeliverySlow"),
            ("Delivery p99 by hop", [("{{hop}}", "q(.99, delivery_seconds, hop)")], "s", "DeliverySlow"),
            ("Read to safe", [("p50", "q(.5, safe_seconds)"), ("p99", "q(.99, safe_seconds)")], "s", "SafeSlow"),
            ("Logins by mechanism", [("{{mechanism}}", "sum by (mechanism) (r(logins_total))")], "ops", ""),
            ("Failed logins by reason", [("{{reason}}", "sum by (reason) (r(login_failures_total))")], "ops", "LoginsFailing"),
            ("Accept to bound", [("p50", "q(.5, login_seconds)"), ("p99", "q(.99, login_seconds)")], "s", "LoginsWaiting"),
            ("Resumed share", [("resumed", "sum(r(resumptions_total)) / clamp_min(sum(r(resumptions_total)) + sum(r(resumption_failures_total)), 1e-9)")], "percentunit", "ResumptionsFailing"),
            ("Resumed, by where they were before", [("{{from}}", "sum by (from) (r(resumptions_total))")], "ops", ""),
            ("Gap before a resumption", [("p50", "q(.5, resumption_gap_seconds)"), ("p99", "q(.99, resumption_gap_seconds)")], "s", ""),
            ("Undelivered by fate", [("{{fate}} {{reason}}", "sum by (fate, reason) (r(stanzas_undelivered_total)) > 0")], "ops", "StanzasDropped"),
            ("Not safe, not acknowledged", [("unsafe", "sum(stanzas_unsafe)"), ("unacknowledged", "sum(unacked_stanzas)")], "short", "SafeSlow"),
            ("Requests answered by us", [("p50", "q(.5, iq_seconds)"), ("p99", "q(.99, iq_seconds)")], "s", ""),
            ("Tenants, stanzas, top 10", [("{{host}}", "topk(10, sum by (host) (r(host_stanzas_total)))")], "ops", ""),
            ("Tenants, sessions, top 10", [("{{host}}", "topk(10, sum by (host) (host_sessions))")], "short", ""),
            ("Tenants: quotas hit", [("{{host}} {{quota}}", "sum by (host, quota) (r(host_quota_hits_total)) > 0")], "ops", ""),
            ("Limits hit", [("{{limit}}", "sum by (limit) (r(limits_hit_total)) > 0")], "ops", ""),
            ("Stream errors", [("{{direction}} {{condition}}", "sum by (direction, condition) (r(stream_errors_total)) > 0")], "ops", ""),
            ("Certificates", [("{{host}}", "(min by (host) (tls_certificate_not_after_timestamp_seconds) - time()) / 86400")], "d", "CertificateEnds")])
NODE = dict(
    tiles=[("CPU, cores", "sum(r(process_cpu_seconds_total))", "short", None, None, "ShardSaturated"),
           ("Memory", "sum(process_memory_bytes)", "bytes", None, None, ""),
           ("Memory per session", "sum(process_memory_bytes) / clamp_min(sum(sessions), 1)", "bytes", None, None, ""),
           ("Restarts, 15 min", "sum(increase(process_restarts_total[15m]))", "short", 1, 4, "ProcessDied"),
           ("Config refused", "count(config_last_reload_successful == 0) or vector(0)", "short", None, 1, "ConfigRejected"),
           ("Options that wait for a restart", "sum(config_restart_pending)", "short", 1, None, "")],
    panels=[("CPU by process", [("{{instance}} {{process}} {{index}}", "sum by (instance, process, index) (r(process_cpu_seconds_total))")], "short", "ShardSaturated"),
            ("CPU per stanza sent", [("{{instance}}", "sum by (instance) (r(process_cpu_seconds_total)) / clamp_min(sum by (instance) (r(stanzas_sent_total)), 1e-9)")], "s", ""),
            ("Memory by process", [("{{instance}} {{process}} {{index}}", "process_memory_bytes")], "bytes", ""),
            ("Memory by pool", [("{{pool}}", "sum by (pool) (memory_bytes)")], "bytes", ""),
            ("Open descriptors", [("{{instance}} {{process}} {{index}}", "process_open_fds")], "short", ""),
            ("Shared memory", [("{{instance}}", "shared_memory_bytes")], "bytes", ""),
            ("Connections", [("{{listener}}", "sum by (listener) (connections)"), ("not logged in", "sum(connections_preauth)")], "short", ""),
            ("Opened and refused", [("opened {{listener}}", "sum by (listener) (r(connections_opened_total))"), ("refused {{listener}} {{reason}}", "sum by (listener, reason) (r(connections_refused_total)) > 0")], "ops", ""),
            ("Closed by reason", [("{{reason}}", "sum by (reason) (r(connections_closed_total)) > 0")], "ops", "SessionsDropped"),
            ("TLS handshakes", [("{{version}} resumed: {{resumed}}", "sum by (version, resumed) (r(tls_handshakes_total))")], "ops", ""),
            ("TLS failures", [("{{reason}}", "sum by (reason) (r(tls_handshake_failures_total)) > 0")], "ops", "TlsFailing"),
            ("TLS handshake p99", [("{{listener}}", "q(.99, tls_handshake_seconds, listener)")], "s", ""),
            ("Bytes", [("in", "sum(r(connection_receive_bytes_total))"), ("out", "sum(r(connection_send_bytes_total))")], "Bps", ""),
            ("Sessions ended by reason", [("{{reason}}", "sum by (reason) (r(sessions_ended_total)) > 0")], "ops", ""),
            ("Log lines", [("{{level}}", "sum by (level) (r(log_events_total))"), ("suppressed {{event}}", "sum by (event) (r(log_suppressed_total)) > 0")], "ops", ""),
            ("Requests by feature", [("{{module}}", "sum by (module) (r(module_requests_total)) > 0")], "ops", ""),
            ("CPU by feature", [("{{module}}", "sum by (module) (r(module_cpu_seconds_total)) > 0")], "short", ""),
            ("Stanza size p90", [("{{kind}}", "q(.9, stanza_size_bytes, kind)")], "bytes", "")])
SHARD = dict(
    tiles=[("Busiest shard", "max(r(loop_busy_seconds_total))", "percentunit", .7, .85, "ShardSaturated"),
           ("Skew", "max(r(loop_busy_seconds_total)) / clamp_min(avg(r(loop_busy_seconds_total)), 1e-9)", "short", 2, 4, "ShardSaturated"),
           ("Turn p99", "q(.99, loop_turn_seconds)", "s", .01, .1, "LoopStalled"),
           ("Stalls", "sum(r(loop_stalls_total))", "ops", .05, .1, "LoopStalled"),
           ("Output queue", "sum(output_queue_bytes)", "bytes", None, None, ""),
           ("Not read", "sum(reads_paused)", "short", None, None, "")],
    panels=[("Busy", [("{{instance}} {{shard}}", "r(loop_busy_seconds_total)")], "percentunit", "ShardSaturated"),
            ("Turn p99", [("{{shard}}", "q(.99, loop_turn_seconds, shard)")], "s", "LoopStalled"),
            ("Completions per turn", [("{{instance}} {{shard}}", "r(loop_completions_total) / clamp_min(r(loop_turns_total), 1e-9)")], "short", ""),
            ("Stages of a stanza's way, p50", [("{{stage}}", "q(.5, stage_seconds, stage)")], "s", "DeliverySlow"),
            ("Stages of a stanza's way, p99", [("{{stage}}", "q(.99, stage_seconds, stage)")], "s", "DeliverySlow"),
            ("Fan-out: recipients per frame", [("{{source}}", "sum by (source) (r(fanout_recipients_total)) / clamp_min(sum by (source) (r(fanout_frames_total)), 1e-9)")], "short", ""),
            ("Sessions", [("{{instance}} {{shard}}", "sum by (instance, shard) (sessions)")], "short", ""),
            ("Users in memory", [("{{instance}} {{shard}}", "users_loaded")], "short", ""),
            ("Parked users", [("{{instance}} {{shard}}", "parked_users")], "short", "StoreBacklog"),
            ("Buffers free", [("{{instance}} {{shard}}", "buffers_free")], "short", ""),
            ("Timers", [("{{instance}} {{shard}}", "timers")], "short", ""),
            ("Fifo queue", [("{{instance}} {{shard}}", "fifo_queue_bytes")], "bytes", ""),
            ("Fifo frames", [("{{instance}} {{shard}}", "r(fifo_frames_total)")], "ops", ""),
            ("Wake-ups per frame", [("{{instance}} {{shard}}", "r(fifo_wakeups_total) / clamp_min(r(fifo_frames_total), 1e-9)")], "short", ""),
            ("Fifo full, buffers exhausted, uring overflows", [("full {{shard}}", "r(fifo_full_total)"), ("buffers {{shard}}", "r(buffers_exhausted_total)"), ("overflows {{shard}}", "r(uring_overflows_total)")], "ops", ""),
            ("Not read, by reason", [("{{reason}}", "sum by (reason) (reads_paused)")], "short", ""),
            ("Paused, seconds of all connections", [("{{reason}}", "sum by (reason) (r(paused_seconds_total)) > 0")], "short", ""),
            ("Stalled readers", [("{{instance}} {{shard}}", "output_stalled_connections")], "short", ""),
            ("Output queue", [("{{instance}} {{shard}}", "output_queue_bytes")], "bytes", ""),
            ("Unacknowledged", [("{{instance}} {{shard}}", "unacked_bytes")], "bytes", ""),
            ("Logins in line", [("{{instance}} {{shard}}", "logins_waiting")], "short", "LoginsWaiting"),
            ("Duplicates, overflowing queues", [("duplicates {{at}}", "sum by (at) (r(duplicates_suppressed_total))"), ("overflows", "sum(r(queue_overflows_total))"), ("marks dropped", "sum(r(marks_dropped_total))")], "ops", ""),
            ("Sessions without a second copy, made again", [("missing {{instance}} {{shard}}", "copies_missing"), ("made again/s {{reason}}", "sum by (reason) (r(sessions_reattached_total))")], "short", "CopiesMissing")])
STORE = dict(
    tiles=[("Down", "count(store_up == 0) or vector(0)", "short", None, 1, "StoreDown"),
           ("Requests", "sum(r(store_requests_total))", "ops", None, None, ""),
           ("p99", "q(.99, store_request_seconds)", "s", .1, 1, "StoreBacklog"),
           ("Oldest request", "max(store_oldest_request_age_seconds)", "s", 1, 5, "StoreBacklog"),
           ("Failed", 'sum(r(store_requests_total{result="failed"}))', "ops", None, .1, "StoreFailing"),
           ("Disk free", "min(store_disk_free_bytes)", "bytes", None, None, "DiskFull")],
    panels=[("Requests by operation", [("{{op}}", "sum by (op) (r(store_requests_total)) > 0")], "ops", ""),
            ("Refused and failed", [("{{op}} {{result}}", 'sum by (op, result) (r(store_requests_total{result!="ok"})) > 0')], "ops", "StoreFailing"),
            ("p99 by operation", [("{{op}}", "q(.99, store_request_seconds, op)")], "s", "StoreBacklog"),
            ("Queue", [("{{instance}}", "sum by (instance) (store_queue_requests)")], "short", "StoreBacklog"),
            ("Queue, bytes", [("{{instance}}", "sum by (instance) (store_queue_bytes)")], "bytes", "StoreBacklog"),
            ("Oldest request", [("{{instance}}", "max by (instance) (store_oldest_request_age_seconds)")], "s", "StoreBacklog"),
            ("Requests per transaction", [("{{instance}}", "sum by (instance) (r(store_batch_requests_sum)) / clamp_min(sum by (instance) (r(store_batch_requests_count)), 1e-9)")], "short", ""),
            ("Transaction", [("p50", "q(.5, store_commit_seconds)"), ("p99", "q(.99, store_commit_seconds)")], "s", ""),
            ("Sent again, rolled back", [("retries", "sum(r(store_retries_total))"), ("rolled back", "sum(r(store_batch_failures_total))")], "ops", "StoreFailing"),
            ("Offline messages", [("{{fate}}", "sum by (fate) (r(offline_messages_total))")], "ops", ""),
            ("Database", [("{{instance}}", "store_database_bytes")], "bytes", ""),
            ("Registry: up", [("{{instance}} {{shard}}", "registry_up")], "short", "RegistryDown"),
            ("Registry: commands by result", [("{{result}}", "sum by (result) (r(registry_commands_total))")], "ops", "RegistryDown"),
            ("Registry: latency", [("p50", "q(.5, registry_command_seconds)"), ("p99", "q(.99, registry_command_seconds)")], "s", "RegistryBehind"),
            ("Registry: records that it does not have as they are", [("{{instance}}", "registry_unsaved_records")], "short", "RegistryBehind"),
            ("Registry: resyncs, refused", [("resync, {{reason}}", "sum by (reason) (r(registry_resyncs_total))"), ("refused, {{reason}}", "sum by (reason) (r(registry_refused_total))")], "ops", "RegistryBehind"),
            ("Disk: days left", [("{{instance}}", "store_disk_free_bytes / clamp_min(-deriv(store_disk_free_bytes[6h]), 1) / 86400")], "d", "DiskFull")])
BUS = dict(
    tiles=[("Nodes that are not live", 'max(sum by (instance) (cluster_nodes{state!="live"}))', "short", 1, None, "ClusterSplitView"),
           ("Views apart, epochs", "max(cluster_epoch) - min(cluster_epoch)", "short", None, 1, "ClusterSplitView"),
           ("Fenced nodes", "sum(cluster_fenced)", "short", None, 1, "NodeFenced"),
           ("Lease, the shortest", "min(min_over_time(cluster_lease_remaining_seconds[5m]))", "s", None, None, "LeaseShort"),
           ("Rails that are not up", 'sum(bus_rails{state!="up"})', "short", 1, 1, "RailDown"),
           ("Versions", "max(cluster_versions)", "short", 2, None, "VersionSkew")],
    panels=[("Epoch per node: one line is one view", [("{{instance}}", "cluster_epoch")], "none", "ClusterSplitView"),
            ("Nodes by state, as each sees them", [("{{instance}} {{state}}", "cluster_nodes")], "short", "ClusterSplitView"),
            ("Lease left", [("{{instance}}", "cluster_lease_remaining_seconds")], "s", "LeaseShort"),
            ("Lease renewals that failed", [("{{instance}}", "r(cluster_lease_failures_total)")], "ops", "LeaseShort"),
            ("Slots per node", [("{{instance}}", "sum by (instance) (cluster_slots)")], "short", ""),
            ("Changes of the ring by cause", [("{{cause}}", "sum by (cause) (r(cluster_ring_changes_total))")], "ops", "ClusterSplitView"),
            ("Users moved", [("{{instance}} {{direction}}", "sum by (instance, direction) (r(cluster_users_moved_total))")], "ops", ""),
            ("Sessions moving", [("{{instance}}", "cluster_users_moving")], "short", "MoveStuck"),
            ("How long a moved user was held", [("p50", "q(.5, cluster_freeze_seconds)"), ("p99", "q(.99, cluster_freeze_seconds)")], "s", "MoveStuck"),
            ("Sessions without a second copy", [("{{instance}}", "sum by (instance) (copies_missing)")], "short", "CopiesMissing"),
            ("Rails by state", [("{{instance}} {{state}}", "bus_rails")], "short", "RailDown"),
            ("Reconnected by peer", [("{{instance}} to {{peer}}", "r(bus_reconnects_total)")], "ops", "RailDown"),
            ("Frames sent by peer", [("{{instance}} to {{peer}}", "r(bus_frames_sent_total)")], "ops", ""),
            ("Frames received by peer", [("{{instance}} from {{peer}}", "r(bus_frames_received_total)")], "ops", ""),
            ("Bytes sent by peer", [("{{instance}} to {{peer}}", "r(bus_sent_bytes_total)")], "Bps", ""),
            ("Bytes received by peer", [("{{instance}} from {{peer}}", "r(bus_received_bytes_total)")], "Bps", ""),
            ("Queue by peer", [("{{instance}} to {{peer}}", "bus_queue_bytes")], "bytes", "BusStalled"),
            ("Stalled share by peer", [("{{instance}} to {{peer}}", "r(bus_stalled_seconds_total)")], "percentunit", "BusStalled"),
            ("Round trip by peer", [("{{instance}} to {{peer}}", "bus_round_trip_seconds")], "s", "BusStalled"),
            ("Frames refused by reason", [("{{instance}} {{reason}}", "sum by (instance, reason) (r(cluster_frames_refused_total))")], "ops", ""),
            ("Frames sent again", [("{{instance}}", "r(bus_resent_frames_total)")], "ops", "RailDown"),
            ("Connections to the bus that were refused", [("{{instance}}", "r(bus_refused_connections_total)")], "ops", "BusRefuses"),
            ("Identities on the bus, days left", [("{{instance}}", "(cluster_certificate_not_after_timestamp_seconds - time()) / 86400")], "d", "ClusterCertificateEnds")])
DASHBOARDS = {"service": SERVICE, "node": NODE, "shard": SHARD, "store": STORE, "bus": BUS}
# Tiles of which less is worse: (amber below, red below).
LESS_IS_WORSE = {"First certificate ends": (28 * 86400, 14 * 86400), "Lease, the shortest": (1.5, 1)}
FUNCTIONS = {"clamp_min", "histogram_quantile", "min_over_time"}


def quantile(match):
    p, metric, by = match.groups()
    labels = f"le, {by}" if by else "le"
    return (f"histogram_quantile({p}, sum by ({labels}) "
            f"(rate({metric}_bucket[$__rate_interval])))")


def expression(query):
    """PromQL of a query of the tables: prefix and `instance` at every metric."""
    query = re.sub(r"\bq\(([.\d]+), (\w+)(?:, (\w+))?\)", quantile, query)
    query = re.sub(r"\br\((\w+(?:\{[^}]*\})?)\)", r"rate(\1[$__rate_interval])", query)
    parts = re.split(r'(by \([^)]*\)|"[^"]*"|\[[^\]]*\]|\{[^}]*\})', query)
    out = []
    for i, part in enumerate(parts):
        if i % 2:
            if part.startswith("{"):
                out[-1] = out[-1][:-len('{instance=~"$instance"}')]
                part = '{instance=~"$instance",' + part[1:]
            out.append(part)
        else:
            out.append(re.sub(r"\b(?:[a-z]+_[a-z_]+|sessions|connections|timers)\b",
                              lambda m: m[0] if m[0] in FUNCTIONS else
                              f'pemberley_{m[0]}{{instance=~"$instance"}}', part))
    return "".join(out)


def target(i, legend, query, instant=False):
    return {"refId": chr(65 + i), "expr": expression(query), "legendFormat": legend,
            "instant": instant, "datasource": {"type": "prometheus", "uid": "$datasource"}}


def about(alert):
    return f"Alert {alert}: ops/runbook.md#{alert.lower()}" if alert else ""


def tile(i, title, query, unit, warn, bad, alert):
    steps = [{"color": "green", "value": None}]
    steps += [{"color": c, "value": v} for c, v in (("orange", warn), ("red", bad)) if v is not None]
    if title in LESS_IS_WORSE:
        amber, red = LESS_IS_WORSE[title]
        steps = [{"color": "red", "value": None}, {"color": "orange", "value": red},
                 {"color": "green", "value": amber}]
    return {"id": i + 1, "type": "stat", "title": title, "description": about(alert),
            "gridPos": {"x": 4 * i, "y": 0, "w": 4, "h": 4},
            "datasource": {"type": "prometheus", "uid": "$datasource"},
            "fieldConfig": {"defaults": {"unit": unit, "thresholds": {"mode": "absolute", "steps": steps}},
                            "overrides": []},
            "options": {"colorMode": "value", "graphMode": "area",
                        "reduceOptions": {"calcs": ["lastNotNull"]}},
            "targets": [target(0, title, query)]}


def panel(i, title, queries, unit, alert):
    return {"id": 100 + i, "type": "timeseries", "title": title, "description": about(alert),
            "gridPos": {"x": 12 * (i % 2), "y": 4 + 8 * (i // 2), "w": 12, "h": 8},
            "datasource": {"type": "prometheus", "uid": "$datasource"},
            "fieldConfig": {"defaults": {"unit": unit, "min": 0, "custom": {"fillOpacity": 10}},
                            "overrides": []},
            "options": {"legend": {"displayMode": "list", "placement": "bottom"},
                        "tooltip": {"mode": "multi"}},
            "targets": [target(k, *q) for k, q in enumerate(queries)]}


def variables():
    return [{"name": "datasource", "type": "datasource", "query": "prometheus", "current": {}},
            {"name": "instance", "type": "query", "multi": True, "includeAll": True,
             "allValue": ".*", "refresh": 2, "current": {"text": "All", "value": "$__all"},
             "datasource": {"type": "prometheus", "uid": "$datasource"},
             "query": "label_values(pemberley_node_info, instance)"}]


def annotations():
    restart = 'changes(pemberley_process_restarts_total{instance=~"$instance"}[1m]) > 0'
    config = 'changes(pemberley_config_last_reload_timestamp_seconds{instance=~"$instance"}[1m]) > 0'
    return [{"name": n, "expr": e, "enable": True, "iconColor": c, "titleFormat": n,
             "datasource": {"type": "prometheus", "uid": "$datasource"}}
            for n, e, c in (("process restarted", restart, "red"), ("config loaded", config, "blue"))]


def dashboard(name, d):
    panels = [tile(i, *t) for i, t in enumerate(d["tiles"])]
    panels += [panel(i, *p) for i, p in enumerate(d["panels"])]
    return {"uid": f"pemberley-{name}", "title": f"Pemberley: {name}", "tags": ["pemberley"],
            "schemaVersion": 38, "version": 1, "editable": True, "refresh": "10s",
            "time": {"from": "now-1h", "to": "now"}, "timezone": "browser",
            "links": [{"type": "dashboards", "tags": ["pemberley"], "title": "Pemberley",
                       "asDropdown": False, "includeVars": True, "keepTime": True}],
            "templating": {"list": variables()}, "annotations": {"list": annotations()},
            "panels": panels}


def main():
    stale = []
    for name, d in DASHBOARDS.items():
        path = HERE / f"{name}.json"
        text = json.dumps(dashboard(name, d), indent=1) + "\n"
        if "--check" not in sys.argv:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            stale.append(path.name)
    if stale:
        sys.exit(f"not as dashboards.py makes them: {', '.join(stale)}")


if __name__ == "__main__":
    main()
