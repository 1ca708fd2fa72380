"""A view as Flink SQL on a random log in Kafka, against the replay: equal to the bit at each end of a hop."""

from __future__ import annotations

import asyncio
import random
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from benchmarks.flink_cluster import build, java_command
from rec.events.v1 import events_pb2 as ev
from services.contract import topics
from services.contract.feature_view import FeatureView
from services.contract.times import from_us
from services.contract.topics import EVENT_PARTITIONS, partition_of, request_key
from services.contract.view_aggregates import Count, Feature, Ratio
from services.contract.view_events import Event
from services.contract.view_flink_sql import flink_sql
from services.contract.view_replay import Ask, replay
from services.contract.views_world import CLICKED, MINUTE_US, SHOWN
from services.runtime.kafka_producer import Producer

pytestmark = [pytest.mark.flink, pytest.mark.integration]
START_US = 1_760_000_040_000_000
BOUND_S = 60
ROW = "row\t"
CTR = FeatureView(
    "item_ctr",
    1,
    ("item_id",),
    ("shown", "acted"),
    (
        Feature("ctr_1m", Ratio(SHOWN, CLICKED, 0.1, 8.0), MINUTE_US),
        Feature("ctr_10m", Ratio(SHOWN, CLICKED, 0.3, 7.7), 10 * MINUTE_US, divide=3.0, limit=0.2),
        Feature("shown_1m", Count(SHOWN), MINUTE_US),
        Feature("shown_3m", Count(SHOWN), 3 * MINUTE_US, divide=7.0, limit=None),
    ),
    MINUTE_US,
)
TABLES = """
CREATE TEMPORARY TABLE impressions (
  item_ids BYTES, ts TIMESTAMP_LTZ(3), WATERMARK FOR ts AS ts - INTERVAL '{bound_m}' MINUTE
) WITH ({kafka}, 'topic' = 'impressions', 'recloop-event.kind' = 'IMPRESSION');
CREATE TEMPORARY TABLE actions (
  item_id BIGINT, kind INT, ts TIMESTAMP_LTZ(3), WATERMARK FOR ts AS ts - INTERVAL '{bound_m}' MINUTE
) WITH ({kafka}, 'topic' = 'actions', 'recloop-event.kind' = 'ACTION');
CREATE TEMPORARY VIEW shown AS
  SELECT r.item_id, i.ts
  FROM impressions i,
    LATERAL TABLE(each_row(cut_rows(i.item_ids), 0)) AS r (item_id, place, score, item_features);
CREATE TEMPORARY VIEW acted AS SELECT item_id, CAST(kind AS BIGINT) AS action, ts FROM actions;
"""
KAFKA = (
    "'connector' = 'kafka', 'properties.bootstrap.servers' = '{bootstrap}', 'format' = 'recloop-event', "
    "'scan.startup.mode' = 'earliest-offset', 'scan.bounded.mode' = 'latest-offset'"
)


def traffic(seed: int, requests: int) -> tuple[list[tuple[str, bytes, bytes]], list[tuple[Event, int]]]:
    """(records, what they say), in disorder within the bound, ties and edges of hops among them."""
    rng = random.Random(seed)
    records: list[tuple[str, bytes, bytes]] = []
    events: list[tuple[Event, int]] = []
    for number in range(requests):
        request = f"r{number}"
        edge = rng.choice((0, 0, 1_000, -1_000, rng.randrange(60_000) * 1_000))
        at_us = START_US + (number // 12 + rng.choice((0, 0, -1 + BOUND_S // 60))) * MINUTE_US + edge
        items = rng.sample(range(1, 9), 3)
        shown = ev.Impression(
            event_id=f"{request}:shown", request_id=request, occurred_at=from_us(at_us), item_ids=items
        )
        records.append(
            (
                topics.IMPRESSIONS.name,
                request_key(request),
                ev.EventRecord(impression=shown).SerializeToString(),
            )
        )
        for place, item in enumerate(items):
            fields = {"user_id": 0, "item_id": item, "category": 0, "position": place}
            events.append((Event("shown", at_us, item, fields, "i", len(events)), 0))
        for item in items:
            if rng.random() < 0.4:
                kind = rng.choice((1, 1, 2))
                acted = ev.Action(
                    event_id=f"{request}:{item}", request_id=request, occurred_at=from_us(at_us + 1_000),
                    item_id=item, kind=kind,
                )  # fmt: skip
                records.append(
                    (
                        topics.ACTIONS.name,
                        request_key(request),
                        ev.EventRecord(action=acted).SerializeToString(),
                    )
                )
                fields = {"user_id": 0, "item_id": item, "category": 0, "action": kind, "dwell_s": 0}
                events.append((Event("acted", at_us + 1_000, item, fields, "a", len(events)), 0))
    return records, events


async def test_flinks_rows_are_those_of_the_replay(kafka, tmp_path: Path) -> None:
    records, events = traffic(7, 240)
    producer = Producer(kafka, "test")
    await producer.start()
    for topic, key, raw in records:
        await producer.send_nowait(topic, raw, key=key, partition=partition_of(key, EVENT_PARTITIONS))
    await producer.stop()
    found = await asyncio.to_thread(run, kafka.bootstrap_servers, tmp_path)
    ends = sorted({event.occurred_us // MINUTE_US * MINUTE_US for event, _ in events})
    wanted = {}
    for item in range(1, 9):
        for end_us in range(ends[0], ends[-1] + 11 * MINUTE_US + 1, MINUTE_US):
            window = [e for e, _ in events if e.fields["item_id"] == item]
            if any(end_us - 10 * MINUTE_US <= e.occurred_us < end_us for e in window):
                answer = replay(CTR, events, Ask({"item_id": item}, end_us))
                wanted[item, end_us] = answer.values
    assert len(wanted) > 200
    assert found == wanted


def run(bootstrap: str, folder: Path) -> dict[tuple[int, int], tuple[float, ...]]:
    """(item, end of a hop) -> features, as a job in one process writes them."""
    build()
    script = folder / "view.sql"
    tables = TABLES.format(bound_m=2 * BOUND_S // 60, kafka=KAFKA.format(bootstrap=bootstrap))
    script.write_text(f"{tables.strip()}\n{flink_sql(CTR)}")
    command = java_command(("-Xmx700m", "-XX:+UseSerialGC"), "recloop.sql.SqlView", str(script))
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-5_000:]
    found: dict[tuple[int, int], tuple[float, ...]] = {}
    # Flink's log is on stdout too.
    for line in (line for line in done.stdout.splitlines() if line.startswith(ROW)):
        _, item, end, *values = line.split("\t")
        end_us = round(datetime.fromisoformat(end).replace(tzinfo=UTC).timestamp() * 1_000_000)
        assert (int(item), end_us) not in found
        found[int(item), end_us] = tuple(float(np.float32(value)) for value in values)
    return found
