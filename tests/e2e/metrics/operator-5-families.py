"""The families of /metrics, question by question (operator.md 5): each is exposed, or waits for a feature
that does not exist yet. A feature that comes takes its families out of WAITING, and nothing is exposed
that is not in a table here."""

import re

TABLE = {
    "what runs here?":
        "build_info node_info start_time_seconds node_ready node_draining node_degraded",
    "which config?":
        "config_info config_last_reload_successful config_last_reload_timestamp_seconds "
        "config_restart_pending",
    "are processes well?":
        "process_up process_restarts_total process_cpu_seconds_total process_memory_bytes "
        "shared_memory_bytes process_open_fds memory_max_bytes memory_bytes",
    "who is connected?":
        "connections connections_preauth connections_opened_total connections_closed_total "
        "connections_refused_total connection_receive_bytes_total "
        "connection_send_bytes_total",
    "does TLS work?":
        "tls_handshakes_total tls_handshake_failures_total tls_handshake_seconds "
        "tls_certificate_not_after_timestamp_seconds tls_ticket_key_age_seconds",
    "can people log in?":
        "logins_total login_failures_total login_seconds logins_waiting "
        "logins_deferred_total auth_backend_seconds auth_backend_errors_total "
        "registrations_total",
    "who is here?":
        "sessions users_online users_loaded sessions_started_total sessions_ended_total",
    "do sessions survive?":
        "resumptions_total resumption_failures_total resumption_gap_seconds "
        "sessions_reattached_total",
    "what does a tenant use?":
        "host_sessions host_users host_stanzas_total host_bytes_total "
        "host_login_failures_total host_store_bytes host_quota_hits_total",
    "what flows?":
        "stanzas_received_total stanzas_sent_total stanza_size_bytes "
        "fanout_recipients_total fanout_frames_total stream_errors_total "
        "stanza_errors_sent_total limits_hit_total",
    "how fast?":
        "delivery_seconds stage_seconds safe_seconds iq_seconds",
    "is anything lost?":
        "stanzas_undelivered_total duplicates_suppressed_total stanzas_unsafe "
        "unacked_stanzas unacked_bytes queue_overflows_total copies_missing "
        "marks_dropped_total",
    "who pushes back?":
        "output_queue_bytes output_stalled_connections reads_paused paused_seconds_total",
    "is the loop free?":
        "loop_busy_seconds_total loop_turns_total loop_turn_seconds loop_completions_total "
        "loop_stalls_total uring_overflows_total buffers_free buffers_exhausted_total "
        "timers parked_users",
    "between shards?":
        "fifo_frames_total fifo_queue_bytes fifo_full_total fifo_wakeups_total",
    "what do features cost?":
        "module_requests_total module_cpu_seconds_total roster_pushes_total "
        "offline_messages_total archive_messages_total archive_query_seconds "
        "push_notifications_total csi_held_back_total csi_replaced_total abuse_reports_total",
    "is the store well?":
        "store_up store_requests_total store_request_seconds store_queue_requests "
        "store_queue_bytes store_oldest_request_age_seconds store_batch_requests "
        "store_commit_seconds store_retries_total store_connections store_database_bytes "
        "store_disk_free_bytes store_replica_lag_seconds store_schema_version",
    "is Redis well?":
        "registry_up registry_commands_total registry_command_seconds "
        "registry_unsaved_records registry_resyncs_total registry_refused_total",
    "is the cluster one?":
        "cluster_epoch cluster_nodes cluster_slots cluster_ring_changes_total "
        "cluster_lease_remaining_seconds cluster_lease_failures_total cluster_fenced "
        "cluster_frames_refused_total cluster_versions cluster_users_moving "
        "cluster_users_moved_total cluster_freeze_seconds "
        "cluster_certificate_not_after_timestamp_seconds",
    "is the bus free?":
        "bus_rails bus_frames_sent_total bus_frames_received_total bus_sent_bytes_total "
        "bus_received_bytes_total bus_queue_bytes bus_stalled_seconds_total "
        "bus_round_trip_seconds bus_reconnects_total bus_refused_connections_total "
        "bus_resent_frames_total",
    "can I trust this?":
        "scrape_seconds log_events_total log_suppressed_total",
}
WAITING = {
    "a maximum of memory": "memory_max_bytes",
    "logins by somebody else's word": "auth_backend_seconds auth_backend_errors_total",
    "the store's size by host": "host_store_bytes",
    "push": "push_notifications_total",
    "reading from a PostgreSQL that follows another": "store_replica_lag_seconds",
}
# A node of a cluster has them (e2e/cluster looks there): on a single one they would be zero for ever.
OF_A_CLUSTER = ("is Redis well?", "is the cluster one?", "is the bus free?")
MORE = "proxy_rejections_total store_batch_failures_total"  # beyond the operator's questions


def words(table):
    return [name for names in table.values() for name in names.split()]


def test_every_family_is_exposed_or_waits_for_a_feature_that_is_named(server):
    exposed = re.findall(r"^# TYPE pemberley_(\S+)", server.get("/metrics"), re.M)
    assert len(exposed) == len(set(exposed)), "a family stands twice"
    table, waiting = words(TABLE), words(WAITING)
    assert set(waiting) <= set(table), set(waiting) - set(table)
    for question, names in TABLE.items():
        if question in OF_A_CLUSTER:
            assert not set(names.split()) & set(exposed), question
            continue
        missing = set(names.split()) - set(exposed) - set(waiting)
        assert not missing, f"{question} {missing}"
    assert not set(exposed) & set(waiting), f"no longer waiting: {set(exposed) & set(waiting)}"
    beyond = set(exposed) - set(table) - set(MORE.split())
    assert not beyond, f"in no table: {beyond}"
