"""Grafana's dashboards, said once: what each graph asks Prometheus for, in which unit.

`python -m k8s.written` makes the JSON of it, which stands in components/observability/dashboards and is what
both a cluster (a ConfigMap that Grafana's sidecar finds by its label) and compose (profile observability)
show. A series is told apart by labels that the code gives and by ``instance``: what else Prometheus puts on
it differs between a cluster and compose.
"""

from __future__ import annotations

from collections.abc import Iterator

from k8s.grafana import RANGE, Dashboard, Graph, quantiles, rate

OURS = 'grpc_service=~"rec[.]v1[.].+"'
GATEWAY = 'grpc_service="rec.v1.GatewayService"'
FAILED = 'grpc_code!~"OK|CANCELLED|INVALID_ARGUMENT|NOT_FOUND"'
ONE_ANSWER = 'grpc_type="unary"'
ITEMS = "recloop_joiner_items_total"
SAMPLE, ITEM = 'outcome=~"positive|negative"', 'outcome!="correction"'
# Other processes of the same Prometheus have these metrics too.
THOSE_OF_OURS = "and on (instance) max by (instance) (recloop_serving)"


LOOP = Dashboard(
    "recloop-loop",
    "recloop: the loop",
    (
        Graph(
            "Requests by method of the gateway",
            "reqps",
            ((rate("grpc_server_handled_total", GATEWAY, "grpc_method"), "{{grpc_method}}"),),
        ),
        Graph(
            "Share that failed, by service",
            "percentunit",
            (
                (
                    f"{rate('grpc_server_handled_total', f'{OURS},{FAILED}', 'grpc_service')} / "
                    f"{rate('grpc_server_handled_total', OURS, 'grpc_service')}",
                    "{{grpc_service}}",
                ),
            ),
            "Nothing is drawn for a service that has never failed.",
        ),
        Graph(
            "Answers that lacked something",
            "reqps",
            (
                (rate("recloop_gateway_degraded_total", by="source, reason"), "{{source}}: {{reason}}"),
                (rate("recloop_gateway_unscored_total"), "unscored"),
                (rate("recloop_gateway_nothing_total"), "no candidate at all"),
            ),
        ),
        Graph(
            "Latency of the gateway",
            "s",
            quantiles("grpc_server_handling_seconds", f"{GATEWAY},{ONE_ANSWER}", "grpc_method"),
        ),
        Graph(
            "Latency by service, p50",
            "s",
            (quantiles("grpc_server_handling_seconds", f"{OURS},{ONE_ANSWER}", "grpc_service")[0],),
        ),
        Graph(
            "Latency by service, p99",
            "s",
            (quantiles("grpc_server_handling_seconds", f"{OURS},{ONE_ANSWER}", "grpc_service")[1],),
        ),
        Graph(
            "Requests by service",
            "reqps",
            ((rate("grpc_server_handled_total", OURS, "grpc_service"), "{{grpc_service}}"),),
        ),
        Graph(
            "Errors by code",
            "reqps",
            (
                (
                    rate("grpc_server_handled_total", f"{OURS},{FAILED}", "grpc_service, grpc_code"),
                    "{{grpc_service}} {{grpc_code}}",
                ),
            ),
        ),
        Graph(
            "What the gateway waits for, p99",
            "s",
            (
                quantiles("recloop_gateway_dependency_seconds", by="dependency")[1],
                (rate("recloop_gateway_skipped_total", by="dependency"), "{{dependency}}: skipped a second"),
            ),
        ),
        Graph(
            "Candidates by the source that proposed them",
            "ops",
            ((rate("recloop_recall_candidates_total", by="source"), "{{source}}"),),
        ),
        Graph(
            "Calls in progress, and refused",
            "short",
            (
                ("max by (instance) (recloop_grpc_active_rpcs)", "{{instance}}"),
                (rate("recloop_grpc_overload_refused_total", by="instance"), "refused by {{instance}}"),
            ),
        ),
        Graph(
            "Serving",
            "short",
            (("min by (instance) (recloop_serving)", "{{instance}}"),),
            "1 = its service port says SERVING.",
        ),
    ),
)

FRESHNESS = Dashboard(
    "recloop-freshness",
    "recloop: freshness",
    (
        Graph("1. Collected: a batch until Kafka has it", "s", quantiles("recloop_collector_ack_seconds")),
        Graph(
            "2. Joined: a click until its sample is committed",
            "s",
            quantiles("recloop_joiner_emit_seconds", 'outcome="positive"'),
        ),
        Graph(
            "3. Trained: a sample until it is learned",
            "s",
            quantiles("recloop_trainer_wait_seconds", by="lineage"),
        ),
        Graph(
            "4. Published: a step until its delta is acknowledged",
            "s",
            quantiles("recloop_trainer_held_seconds", by="lineage"),
        ),
        Graph(
            "5. Applied: a delta until it serves", "s", quantiles("recloop_ranking_delta_seconds", by="arm")
        ),
        Graph(
            "Medians of the stages",
            "s",
            tuple(
                (quantiles(metric, labels)[0][0], stage)
                for stage, metric, labels in (
                    ("collect", "recloop_collector_ack_seconds", ""),
                    ("join", "recloop_joiner_emit_seconds", 'outcome="positive"'),
                    ("train", "recloop_trainer_wait_seconds", ""),
                    ("publish", "recloop_trainer_held_seconds", ""),
                    ("apply", "recloop_ranking_delta_seconds", 'arm="online"'),
                )
            ),
            "Told by the process that ends each stage; docs/results.md says what they add up to.",
        ),
        Graph(
            "Age of what ranking serves",
            "s",
            (("max by (arm, instance) (recloop_ranking_staleness_seconds)", "{{arm}} {{instance}}"),),
        ),
        Graph(
            "Age of recall's vectors",
            "s",
            (("time() - min by (instance) (recloop_recall_vector_created_seconds)", "{{instance}}"),),
        ),
        Graph(
            "Records that features are behind",
            "short",
            (("max by (topic) (recloop_feature_lag_records)", "{{topic}}"),),
        ),
    ),
)

MODELS = Dashboard(
    "recloop-models",
    "recloop: models",
    (
        Graph(
            "Generation served",
            "none",
            (
                ("max by (arm, instance) (recloop_ranking_generation)", "ranking {{arm}} {{instance}}"),
                ("max by (instance) (recloop_recall_vector_generation)", "recall {{instance}}"),
            ),
        ),
        Graph(
            "Sequence trained and served",
            "none",
            (
                ("max by (lineage) (recloop_trainer_sequence)", "trained {{lineage}}"),
                ("max by (arm, instance) (recloop_ranking_sequence)", "ranking {{arm}} {{instance}}"),
                ("max by (instance) (recloop_recall_vector_sequence)", "recall {{instance}}"),
            ),
        ),
        Graph(
            "Replicas behind the furthest one",
            "none",
            (
                (
                    "max by (arm) (recloop_ranking_sequence) - min by (arm) (recloop_ranking_sequence)",
                    "deltas, {{arm}}",
                ),
            ),
        ),
        Graph(
            "Deltas a second",
            "ops",
            (
                (rate("recloop_trainer_deltas_total"), "published"),
                (
                    rate("recloop_ranking_deltas_applied_total", by="arm, instance"),
                    "{{arm}} {{instance}}",
                ),
            ),
        ),
        Graph(
            "Rows in deltas a second",
            "ops",
            (
                (rate("recloop_trainer_delta_rows_total"), "published"),
                (
                    rate("recloop_ranking_delta_rows_applied_total", by="arm, instance"),
                    "{{arm}} {{instance}}",
                ),
            ),
        ),
        Graph("Bytes of deltas a second", "Bps", ((rate("recloop_trainer_delta_bytes_total"), "published"),)),
        Graph(
            "Deltas by what the chain's rules said",
            "ops",
            (
                (rate("recloop_ranking_delta_verdicts_total", by="reason"), "ranking {{reason}}"),
                (rate("recloop_recall_delta_verdicts_total", by="reason"), "recall {{reason}}"),
                (rate("recloop_ranking_resyncs_total", by="arm, source"), "resync {{arm}} from {{source}}"),
            ),
        ),
        Graph(
            "Bases",
            "ops",
            (
                (rate("recloop_trainer_bases_total", by="outcome"), "trainer {{outcome}}"),
                (rate("recloop_ranking_bases_loaded_total", by="arm"), "loaded {{arm}}"),
                (rate("recloop_ranking_base_failures_total", by="arm, error"), "failed {{arm}}: {{error}}"),
                (rate("recloop_release_manifests_refused_total", by="error"), "not registered: {{error}}"),
            ),
        ),
        Graph(
            "Rows of the tables",
            "short",
            (
                ("max by (lineage, table) (recloop_trainer_table_rows)", "trainer {{lineage}} {{table}}"),
                ("max by (arm) (recloop_ranking_rows)", "ranking {{arm}}"),
            ),
        ),
    ),
)

SAMPLES = Dashboard(
    "recloop-samples",
    "recloop: samples and training",
    (
        Graph(
            "Shown items by what became of them",
            "ops",
            ((rate(ITEMS, by="outcome"), "{{outcome}}"),),
        ),
        Graph(
            "Share of shown items that became samples",
            "percentunit",
            (
                (
                    f"{rate(ITEMS, SAMPLE)} / {rate(ITEMS, ITEM)}",
                    "complete",
                ),
            ),
        ),
        Graph(
            "Rejected records",
            "ops",
            ((rate("recloop_joiner_rejected_total", by="reason"), "{{reason}}"),),
        ),
        Graph(
            "How far an input of the join is behind",
            "s",
            (("max by (input) (recloop_joiner_watermark_behind_seconds)", "{{input}}"),),
            "Event time, behind the input that is furthest.",
        ),
        Graph(
            "What the join holds",
            "short",
            (
                ("sum (recloop_joiner_held_events)", "events"),
                ("sum (recloop_joiner_open_impressions)", "open impressions"),
                ("sum (recloop_joiner_pending_actions)", "actions without impression"),
            ),
        ),
        Graph("Transactions of the join", "s", quantiles("recloop_joiner_transaction_seconds")),
        Graph(
            "Samples joined and trained a second",
            "ops",
            (
                (rate(ITEMS, SAMPLE), "joined"),
                (rate("recloop_trainer_rows_total"), "trained"),
            ),
            "All lineages train each sample: with a candidate it is trained twice.",
        ),
        Graph(
            "How long a sample waits to be learned",
            "s",
            quantiles("recloop_trainer_wait_seconds", by="lineage"),
            "The trainer's lag.",
        ),
        Graph(
            "Ids that wait for the next delta",
            "short",
            (("max by (lineage) (recloop_trainer_touched_ids)", "{{lineage}}"),),
        ),
        Graph(
            "Snapshots: written and lost",
            "ops",
            (
                (rate("recloop_ranking_snapshots_total"), "written"),
                (rate("recloop_ranking_snapshots_lost_total", by="reason"), "lost: {{reason}}"),
            ),
        ),
        Graph(
            "Dead letters",
            "ops",
            tuple(
                (rate(f"recloop_{who}_dead_letters_total", by="topic"), f"{who} {{{{topic}}}}")
                for who in ("ranking", "recall", "feature", "trainer")
            ),
        ),
        Graph(
            "Progressive validation",
            "none",
            (("max by (lineage, figure) (recloop_trainer_progressive)", "{{lineage}} {{figure}}"),),
            "On the score that was served, before the row was learned.",
        ),
    ),
)

ARMS = Dashboard(
    "recloop-arms",
    "recloop: arms",
    (
        Graph(
            "Click rate",
            "percentunit",
            (('max by (arm) (recloop_release_served{figure="ctr"})', "{{arm}}"),),
            "Of what each arm served in release's window.",
        ),
        Graph("AUC", "none", (('max by (arm) (recloop_release_served{figure="auc"})', "{{arm}}"),)),
        Graph("Log loss", "none", (('max by (arm) (recloop_release_served{figure="log_loss"})', "{{arm}}"),)),
        Graph(
            "Calibration",
            "none",
            (('max by (arm) (recloop_release_served{figure="calibration"})', "{{arm}}"),),
            "Clicks said to come over clicks that came: 1 is right.",
        ),
        Graph(
            "Answers by arm, and why that one",
            "reqps",
            ((rate("recloop_gateway_arms_total", by="arm, reason"), "{{arm}}: {{reason}}"),),
        ),
        Graph(
            "Requests in the window",
            "short",
            (('max by (arm) (recloop_release_served{figure="requests"})', "{{arm}}"),),
        ),
        Graph(
            "What the guard saw",
            "ops",
            ((rate("recloop_release_guard_looks_total", by="arm, decision"), "{{arm}}: {{decision}}"),),
        ),
        Graph(
            "Decisions of release",
            "ops",
            ((rate("recloop_release_decisions_total", by="decision"), "{{decision}}"),),
        ),
        Graph(
            "Age of the baseline",
            "s",
            (("max (recloop_release_baseline_age_seconds)", "base of the baseline arm"),),
            "-1: there is none.",
        ),
    ),
)

RESOURCES = Dashboard(
    "recloop-resources",
    "recloop: resources",
    (
        Graph(
            "Cores",
            "short",
            ((f"{rate('process_cpu_seconds_total', by='instance')} {THOSE_OF_OURS}", "{{instance}}"),),
        ),
        Graph(
            "Resident memory",
            "bytes",
            ((f"max by (instance) (process_resident_memory_bytes) {THOSE_OF_OURS}", "{{instance}}"),),
        ),
        Graph(
            "Event loop lag",
            "s",
            (("max by (instance) (recloop_event_loop_lag_seconds)", "{{instance}}"),),
        ),
        Graph(
            "Open files",
            "short",
            ((f"max by (instance) (process_open_fds) {THOSE_OF_OURS}", "{{instance}}"),),
        ),
        Graph(
            "Records sent to Kafka, not yet acknowledged",
            "short",
            (("max by (client) (recloop_kafka_pending_records)", "{{client}}"),),
        ),
        Graph(
            "Records that Kafka did not take",
            "ops",
            (
                (rate("recloop_kafka_records_failed_total", by="topic, error"), "{{topic}}: {{error}}"),
                (rate("recloop_kafka_records_refused_total", by="topic"), "{{topic}}: too many pending"),
            ),
        ),
        Graph(
            "Records read from Kafka",
            "ops",
            ((rate("recloop_kafka_records_read_total", by="topic"), "{{topic}}"),),
        ),
        Graph(
            "Memory of Redis",
            "bytes",
            (("max (recloop_feature_redis_bytes)", "used"),),
        ),
        Graph(
            "Features near, and read",
            "ops",
            (
                (rate("recloop_feature_near_hits_total"), "near"),
                (rate("recloop_feature_items_read_total"), "read from Redis"),
                (rate("recloop_feature_near_evicted_total"), "evicted"),
            ),
        ),
        Graph("Reads from Redis", "s", quantiles("recloop_feature_store_seconds")),
        Graph(
            "Scoring thread of ranking",
            "s",
            (
                *quantiles("recloop_ranking_score_seconds"),
                (quantiles("recloop_ranking_queue_seconds")[1][0], "wait for it, p99"),
            ),
        ),
        Graph(
            "Clients that watch a service's health",
            "short",
            (("max by (instance) (recloop_grpc_health_watches)", "{{instance}}"),),
        ),
    ),
)

ALL = (LOOP, FRESHNESS, MODELS, SAMPLES, ARMS, RESOURCES)


def queries() -> Iterator[tuple[str, str]]:
    """(where it stands, PromQL with a range that Prometheus knows) of every line."""
    for dashboard in ALL:
        for graph in dashboard.graphs:
            for expression, _ in graph.lines:
                yield f"{dashboard.name}: {graph.title}", expression.replace(RANGE, "5m")
