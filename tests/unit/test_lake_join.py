"""The batch join over the lake against the state machine and the oracle."""

from __future__ import annotations

import struct
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from oracles.join_lake import crowded, lake_of, lake_samples, rows_of, said_offline, without_barriers
from oracles.join_logs import (
    IMP,
    LOGS,
    A,
    Logs,
    S,
    action,
    barrier,
    canonical,
    feed_all,
    heartbeat,
    impression,
    snapshot,
)
from oracles.join_oracle import joined
from oracles.join_traffic import closing, logs_by_partition, traffic

from rec.events.v1 import events_pb2 as ev
from services.contract.errors import InvalidInput
from services.contract.join import JoinTask
from services.contract.join_config import JoinConfig, LabelRule
from services.contract.lake_rows import SCHEMAS
from services.lake.join import REASONS_SCHEMA, OfflineResult, offline_join

CONFIGS = [
    JoinConfig(window_us=10, bound_us=3),
    JoinConfig(window_us=10, bound_us=0),
    JoinConfig(window_us=6, bound_us=2, show_within_us=15),
    JoinConfig(
        window_us=12,
        bound_us=4,
        show_within_us=3,
        labels=(LabelRule(ev.ACTION_KIND_CLICK), LabelRule(ev.ACTION_KIND_LIKE, 0.5, window_us=5)),
    ),
]
STORIES, CROWDS = 320, 700
LATER = 10**6
BEATS: Logs = {S: [heartbeat(LATER)], IMP: [heartbeat(LATER)], A: [heartbeat(LATER)]}


def one(logs: Logs, config: JoinConfig = CONFIGS[0]) -> tuple[OfflineResult, Counter[tuple]]:
    """The join of one partition, which the oracle agrees with."""
    result = offline_join(lake_of([logs]), config)
    said = said_offline(result.samples, result.reasons)[0]
    assert said == without_barriers(joined(config, logs))
    return result, said


def closed(**logs: list[bytes]) -> Logs:
    """Logs whose windows are over."""
    named = {S: logs.get("s", []), IMP: logs.get("i", []), A: logs.get("a", [])}
    return {source: [*records, *BEATS[source]] for source, records in named.items()}


@pytest.fixture(scope="module")
def random_logs() -> list[Logs]:
    """Stories are drawn anew each time; a failure shows the log."""
    found: list[Logs] = []

    @settings(
        max_examples=STORIES,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(LOGS)
    def collect(logs: Logs) -> None:
        found.append(logs)

    collect()
    assert len(found) >= 300
    return found + [crowded(seed) for seed in range(CROWDS)]


@pytest.mark.parametrize("config", CONFIGS, ids=range(len(CONFIGS)))
def test_random_logs_give_what_the_state_machine_and_the_oracle_say(
    random_logs: list[Logs], config: JoinConfig
) -> None:
    result = offline_join(lake_of(random_logs), config)
    said = said_offline(result.samples, result.reasons)
    everything = []
    for partition, logs in enumerate(random_logs):
        outputs = feed_all(JoinTask(config), logs, [])
        everything += outputs
        assert said[partition] == without_barriers(Counter(map(canonical, outputs))), logs
        assert said[partition] == without_barriers(joined(config, logs)), logs
    assert rows_of(result.samples) == rows_of(lake_samples(everything))
    assert result.samples.num_rows > 200


def test_traffic_on_several_partitions_with_garbage_is_joined_in_one_go() -> None:
    config = JoinConfig(window_us=2_000_000, bound_us=300_000)
    partitions = logs_by_partition([*traffic(3, 1_500), *closing()])
    result = offline_join(lake_of(partitions), config)
    said = said_offline(result.samples, result.reasons)
    for partition, logs in enumerate(partitions):
        outputs = feed_all(JoinTask(config), logs, [])
        assert said[partition] == without_barriers(Counter(map(canonical, outputs)))
    reasons = set(result.reasons["reason"].to_pylist())
    assert reasons >= {"malformed", "late", "no_impression", "snapshot_lost", "unscored", "not_in_snapshot"}


def test_the_order_and_the_chunks_of_the_rows_do_not_matter() -> None:
    config = JoinConfig(window_us=2_000_000, bound_us=300_000)
    tables = lake_of(logs_by_partition([*traffic(5, 300), *closing()]))
    plain = offline_join(tables, config)
    mixed = {}
    for name, table in tables.items():
        order = np.random.default_rng(1).permutation(table.num_rows)
        shuffled = table.take(pa.array(order))
        mixed[name] = pa.concat_tables([shuffled.slice(at, 7) for at in range(0, table.num_rows, 7)])
    result = offline_join(mixed, config)
    assert said_offline(result.samples, result.reasons) == said_offline(plain.samples, plain.reasons)
    assert rows_of(result.samples) == rows_of(plain.samples)


def test_an_empty_lake_gives_empty_tables_of_the_right_columns() -> None:
    result = offline_join(lake_of([]), CONFIGS[0])
    assert (result.samples.schema, result.samples.num_rows) == (SCHEMAS["samples"], 0)
    assert (result.reasons.schema, result.reasons.num_rows) == (REASONS_SCHEMA, 0)


def test_what_only_a_record_in_a_topic_has_is_null() -> None:
    result, _ = one(closed(s=[snapshot("r", 100)], i=[impression("r", 104)], a=[action("r", 105)]))
    assert result.samples.schema == SCHEMAS["samples"]
    for name in ("offset", "row", "appended_ms", "joined_us"):
        assert result.samples[name].null_count == result.samples.num_rows == 3


def test_nothing_closes_while_an_input_is_silent_but_positives_are_said() -> None:
    logs = closed(s=[snapshot("r", 100)], i=[impression("r", 104)], a=[action("r", 105)])
    result, _ = one(logs | {A: [action("r", 105)]})
    assert result.samples["label"].to_pylist() == [1.0]
    end = [barrier("end", LATER)]
    result, _ = one({S: logs[S] + end, IMP: logs[IMP] + end, A: []})
    assert result.samples.num_rows == 0
    result, _ = one({S: logs[S] + end, IMP: logs[IMP] + end, A: end})
    assert result.samples["label"].to_pylist() == [0.0, 0.0, 0.0]


def test_of_a_request_id_used_again_and_again_each_use_beyond_the_memory_of_the_last_counts() -> None:
    # Memory is 16: 100 is taken, 110 refused, so 119 is beyond what is remembered, and 130 is not.
    times = (100, 110, 119, 130, 141)
    beats = [heartbeat(at + 3) for at in times]
    shown = [impression("r", at, event_id=f"e{at}") for at in times]
    served = [snapshot("r", at, event_id=f"e{at}") for at in times]
    logs = closed(
        s=[raw for pair in zip(beats, served, strict=True) for raw in pair],
        i=[raw for pair in zip(beats, shown, strict=True) for raw in pair],
    )
    result, said = one(logs)
    assert set(result.samples["impressed_us"].to_pylist()) == {100, 119, 141}
    assert sum(what[1] == "second_impression" for what in said) == 2


def test_ids_use_all_64_bits() -> None:
    items = (2**64 - 1, 2**63, 1)
    result, _ = one(
        closed(s=[snapshot("r", 100, (7, *items))], i=[impression("r", 104, (*items, 2**64 - 2))])
    )
    assert result.samples["item_id"].to_pylist() == list(items)
    assert result.reasons["item_ids"].to_pylist() == [struct.pack("<Q", 2**64 - 2)]


def test_snapshots_of_several_feature_widths_are_cut_each_by_its_own() -> None:
    wide = ev.EventRecord.FromString(snapshot("wide", 101))
    wide.snapshot.item_features = struct.pack("<9f", *range(9))
    bare = ev.EventRecord.FromString(snapshot("bare", 102))
    bare.snapshot.item_features = b""
    served = [snapshot("r", 100), wide.SerializeToString(), bare.SerializeToString()]
    shown = [impression(name, 104, (3, 1)) for name in ("r", "wide", "bare")]
    rows = offline_join(lake_of([closed(s=served, i=shown)]), CONFIGS[0]).samples.to_pylist()
    cut = {(row["request_id"], row["item_id"]): row["item_features"] for row in rows}
    assert cut == {
        ("r", 3): struct.pack("<2f", 3, 100),
        ("r", 1): struct.pack("<2f", 1, 100),
        ("wide", 3): struct.pack("<3f", 6, 7, 8),
        ("wide", 1): struct.pack("<3f", 0, 1, 2),
        ("bare", 3): b"",
        ("bare", 1): b"",
    }


def test_an_item_that_was_served_twice_has_the_features_of_its_first_row() -> None:
    twice = ev.EventRecord.FromString(snapshot("r", 100, (1, 2, 1)))
    twice.snapshot.scores = struct.pack("<3f", 0.25, 0.5, 0.75)
    logs = closed(s=[twice.SerializeToString()], i=[impression("r", 104, (1,))])
    result = offline_join(lake_of([logs]), CONFIGS[0])
    assert result.samples["score"].to_pylist() == [0.25]
    stream = lake_samples(feed_all(JoinTask(CONFIGS[0]), logs, []))
    assert rows_of(result.samples) == rows_of(stream)


@pytest.mark.parametrize(("field", "data"), [("item_ids", b"1234567"), ("scores", b"123")])
def test_a_packed_column_that_is_none_is_refused_by_name(field: str, data: bytes) -> None:
    tables = lake_of([closed(s=[snapshot("r", 100)], i=[impression("r", 104)])])
    snapshots = tables["snapshots"].to_pylist()
    snapshots[0][field] = data
    tables["snapshots"] = pa.Table.from_pylist(snapshots, SCHEMAS["snapshots"])
    with pytest.raises(InvalidInput, match=field):
        offline_join(tables, CONFIGS[0])


def test_rules_that_the_batch_does_not_know_are_refused() -> None:
    class Correcting(JoinConfig):
        def fingerprint(self) -> str:
            return super().fingerprint() + "correcting"

    with pytest.raises(InvalidInput, match="emission final"):
        offline_join(lake_of([]), Correcting(window_us=10, bound_us=3))
    with pytest.raises(InvalidInput, match="max_items"):
        offline_join(lake_of([]), JoinConfig(window_us=10, bound_us=3, max_items=5))
