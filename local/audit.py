"""``python -m local audit``: computes every figure of a result file again, from out/evidence/*.parquet.

The code here shares nothing with the code that wrote the figures. Where each one comes from:

| figures | evidence |
|---|---|
| requests, errors, requests_per_s, latency_ms, candidates_min, generation, sequence | requests |
| ctr_true_last_30s | requests that were shadow-scored, intended in the last 30 s |
| impressions, clicks, ctr | events (each event id once) |
| samples, duplicates, auc*, log_loss*, base_rate, label_wait_s | samples |
| deltas_published | deltas |
| deltas_applied, delta_rows_applied | applied |
| freshness_s, freshness_stage_s | events x samples x deltas x requests |

Also checked: the chain of deltas of each lineage is unbroken; every acknowledged shown item is a sample or a
rejected row. While the stack is up the topics themselves are read again and compared with the evidence.
Exits 1 when anything differs.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from local.evidence import STAGES, US, Evidence, auc, first_labels, followed_clicks
from services.contract import topics
from services.runtime.settings import KafkaSettings

# HDR histograms keep three significant digits (of 1000 that is at most one in a thousand); everything else is
# the same arithmetic on the same numbers.
HDR_TOLERANCE = 0.0011
FLOAT_TOLERANCE = 1e-6
LAST_S = 30
KAFKA_TIMEOUT_S = 3


@dataclass(frozen=True)
class Line:
    """One compared figure."""

    figure: str
    stated: Any
    found: Any
    ok: bool


# figures


def _percentile(values: list[float], q: float) -> float | None:
    """Linear interpolation between closest ranks."""
    if not values:
        return None
    ordered = sorted(values)
    rank = (len(ordered) - 1) * q / 100
    low = math.floor(rank)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (rank - low)


def _nearest_rank(values: list[float], q: float) -> float:
    """The value at the rank nearest to q percent of all, as an HDR histogram has it: never between two of
    them, which with few requests lie far apart."""
    return sorted(values)[max(int(len(values) * q / 100 + 0.5), 1) - 1]


def _p50_p99(name: str, values: list[float]) -> dict[str, float | None]:
    return {f"{name}.p50": _percentile(values, 50), f"{name}.p99": _percentile(values, 99)}


def _request_figures(table: dict[str, list]) -> dict[str, Any]:
    rows = list(range(len(table["request_id"])))
    fine = [i for i in rows if table["status"][i] == "OK"]
    found: dict[str, Any] = {"requests": len(rows), "errors": len(rows) - len(fine)}
    if fine:
        span_s = (max(table["answered_us"][i] for i in fine) - min(table["intended_us"])) / US
        found["requests_per_s"] = len(fine) / span_s
        took = [(table["answered_us"][i] - table["intended_us"][i]) / 1000 for i in fine]
        found |= {f"latency_ms.p{q}": _nearest_rank(took, q) for q in (50, 99)}
        found["candidates_min"] = min(table["candidates"][i] for i in fine)
    online = [i for i in fine if table["arm"][i] == "online" and table["scored"][i]]
    if online:
        last = max(online, key=lambda i: (table["generation"][i], table["sequence"][i]))
        found["generation"], found["sequence"] = table["generation"][last], table["sequence"][last]
    since = max(table["intended_us"], default=0) - LAST_S * US
    paired = [i for i in fine if table["frozen_true_p"][i] is not None and table["intended_us"][i] >= since]
    if paired:
        found["ctr_true_last_30s.online"] = sum(table["shown_true_p"][i] for i in paired) / len(paired)
        found["ctr_true_last_30s.frozen"] = sum(table["frozen_true_p"][i] for i in paired) / len(paired)
    return found


def _event_figures(table: dict[str, list]) -> dict[str, Any]:
    once = {event: i for i, event in enumerate(table["event_id"])}
    impressions = sum(table["items"][i] for i in once.values() if table["kind"][i] == "impression")
    clicks = sum(1 for i in once.values() if table["kind"][i] == "click")
    return {
        "impressions": impressions,
        "clicks": clicks,
        "ctr": clicks / impressions if impressions else None,
    }


def _sample_figures(table: dict[str, list]) -> dict[str, Any]:
    keys = list(zip(table["request_id"], table["item_id"], table["label_version"], strict=True))
    rows = first_labels(table)
    labels = np.array([table["label"][i] for i in rows])
    scores = np.array([table["score"][i] for i in rows])
    found: dict[str, Any] = {"samples": len(rows), "duplicates": len(keys) - len(set(keys))}
    whole, second = auc(labels, scores), auc(labels[len(rows) // 2 :], scores[len(rows) // 2 :])
    found |= {"auc_served": whole, "auc_all": whole, "auc_second_half": second}
    if len(rows):
        p = np.clip(scores, 1e-7, 1 - 1e-7)
        loss = float(np.where(labels == 1, -np.log(p), -np.log(1 - p)).mean())
        found |= {"log_loss_served": loss, "log_loss": loss, "base_rate": float(labels.mean())}
    waits = [(table["acted_us"][i] - table["impressed_us"][i]) / US for i in rows if table["label"][i] > 0.5]
    return found | _p50_p99("label_wait_s", waits)


def _applied_figures(table: dict[str, list]) -> dict[str, Any]:
    once = {
        (table["replica"][i], table["generation"][i], table["sequence"][i]): table["rows"][i]
        for i in range(len(table["rows"]))
        if table["arm"][i] == "online"
    }
    return {"deltas_applied": len(once), "delta_rows_applied": sum(once.values())}


def _freshness_figures(evidence: Evidence) -> dict[str, Any]:
    followed = list(followed_clicks(evidence))
    found = _p50_p99("freshness_s", [one.total_s for one in followed])
    for name in STAGES:
        found |= _p50_p99(f"freshness_stage_s.{name}", [one.stages_s[name] for one in followed])
    return found


def recompute(evidence: Evidence) -> dict[str, Any]:
    """Every figure that the evidence can give, by dotted key."""
    return {
        **_request_figures(evidence.requests),
        **_event_figures(evidence.events),
        **_sample_figures(evidence.samples),
        "deltas_published": len(evidence.deltas["sequence"]),
        **_applied_figures(evidence.applied),
        **_freshness_figures(evidence),
    }


# comparison


def _flat(figures: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in figures.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _same(figure: str, stated: Any, found: Any) -> bool:
    if stated is None or found is None or isinstance(stated, str):
        return stated == found
    tolerance = HDR_TOLERANCE if figure.startswith("latency_ms") else FLOAT_TOLERANCE
    return math.isclose(stated, found, rel_tol=tolerance, abs_tol=1e-9)


def compare(stated: dict[str, Any], evidence: Evidence) -> list[Line]:
    """One line for each stated figure that the evidence can give."""
    found = recompute(evidence)
    flat = _flat(stated)
    return [
        Line(key, flat[key], found[key], _same(key, flat[key], found[key])) for key in flat if key in found
    ]


def check_chain(table: dict[str, list]) -> Line:
    """Of each lineage: each delta names the hash of the one before, sequences grow by one, epochs never
    fall."""
    lineages = list(zip(table["generation"], table["policy"], strict=True))
    rows = sorted(range(len(lineages)), key=lambda i: (lineages[i], table["sequence"][i]))
    breaks = 0
    for before, after in pairwise(rows):
        breaks += lineages[after] == lineages[before] and (
            table["sequence"][after] != table["sequence"][before] + 1
            or table["previous_hash"][after] != table["hash"][before]
            or table["epoch"][after] < table["epoch"][before]
        )
    return Line("chain breaks", 0, breaks, breaks == 0)


def check_explained(evidence: Evidence) -> Line:
    """Acknowledged shown items against samples + items rejected with a reason."""
    shown = _event_figures(evidence.events)["impressions"]
    rejected = sum(
        items
        for items, origin, topic in zip(
            evidence.rejected["items"],
            evidence.rejected["origin_topic"],
            evidence.rejected["topic"],
            strict=True,
        )
        if origin == topics.IMPRESSIONS.name and topic == topics.LATE_EVENTS.name
    )
    explained = len(first_labels(evidence.samples)) + rejected
    return Line("shown items explained", shown, explained, shown == explained)


# the topics themselves


async def _read_topic(bootstrap: str, topic: topics.Topic) -> list[Any]:
    from aiokafka import AIOKafkaConsumer, TopicPartition

    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        isolation_level="read_committed",
        request_timeout_ms=KAFKA_TIMEOUT_S * 1000,
    )
    try:
        await asyncio.wait_for(consumer.start(), KAFKA_TIMEOUT_S)
        partitions = [TopicPartition(topic.name, p) for p in range(topic.partitions)]
        consumer.assign(partitions)
        # Not seek_to_beginning: after a restart of the broker the client takes the end for the beginning.
        for where, offset in (await consumer.beginning_offsets(partitions)).items():
            consumer.seek(where, offset)
        ends = await consumer.end_offsets(partitions)
        records: list[Any] = []
        while any([await consumer.position(tp) < ends[tp] for tp in partitions]):
            for batch in (await consumer.getmany(timeout_ms=500, max_records=5_000)).values():
                records.extend(batch)
        return records
    finally:
        await consumer.stop()


async def check_topics(bootstrap: str, evidence: Evidence) -> list[Line]:
    """Reads samples and model-deltas again, compares with the evidence; OSError when Kafka is away."""
    from google.protobuf.message import DecodeError

    from rec.events.v1.events_pb2 import SampleRecord
    from rec.model.v1.model_pb2 import ParameterDelta

    known = set(evidence.samples["request_id"])
    in_topic: list[tuple[str, int, int]] = []
    foreign = 0
    for record in await _read_topic(bootstrap, topics.SAMPLES):
        try:
            sample = SampleRecord.FromString(record.value).sample
        except DecodeError:
            foreign += 1
            continue
        if sample.request_id in known:
            ids = np.frombuffer(sample.item_ids, "<u8").tolist()
            versions = np.frombuffer(sample.label_versions, "<u4").tolist()
            in_topic += [(sample.request_id, i, v) for i, v in zip(ids, versions, strict=True)]
    columns = (evidence.samples[name] for name in ("request_id", "item_id", "label_version"))
    in_file = sorted(zip(*columns, strict=True))
    forged = undecodable = 0
    hashes = set()
    for record in await _read_topic(bootstrap, topics.MODEL_DELTAS):
        if record.value is None:  # the mark of a trainer that has started
            continue
        try:
            delta = ParameterDelta.FromString(record.value)
        except DecodeError:
            undecodable += 1
            continue
        forged += hashlib.sha256(delta.header + delta.body).digest() != delta.hash
        hashes.add(delta.hash.hex())
    absent = len(set(evidence.deltas["hash"]) - hashes)
    return [
        Line("samples on the topic", len(in_file), len(in_topic), sorted(in_topic) == in_file),
        Line("records that are no samples on the topic", 0, foreign, foreign == 0),
        Line("records that are no deltas on the topic", 0, undecodable, undecodable == 0),
        Line("deltas with a wrong hash on the topic", 0, forged, forged == 0),
        Line("deltas of the evidence not on the topic", 0, absent, absent == 0),
    ]


def _topic_lines(bootstrap: str, evidence: Evidence, say: Callable[[str], None]) -> list[Line]:
    from aiokafka.errors import KafkaError

    try:
        return asyncio.run(check_topics(bootstrap, evidence))
    except (OSError, TimeoutError, KafkaError):
        say(f"Kafka at {bootstrap} is not up: only the evidence files are audited")
        return []


def _shown(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def main(argv: list[str]) -> int:
    """Audits a result file; 0 = everything agrees, 1 = something differs, 2 = nothing to audit."""
    parser = argparse.ArgumentParser(prog="python -m local audit", description=__doc__.split("\n", 1)[0])
    parser.add_argument(
        "--out", type=Path, default=Path("out"), help="folder of the result file and evidence/"
    )
    parser.add_argument("--result", choices=("demo", "replay"), help="default: the newest result file")
    parser.add_argument(
        "--no-topics", action="store_true", help="do not read the topics even when Kafka is up"
    )
    arguments = parser.parse_args(argv)
    names = [arguments.result] if arguments.result else ["demo", "replay"]
    files = [path for name in names if (path := arguments.out / f"{name}.json").is_file()]
    if not files or not (arguments.out / "evidence").is_dir():
        print(f"audit: no result file with evidence below {arguments.out}: run `make demo` first")
        return 2
    path = max(files, key=lambda file: file.stat().st_mtime)
    evidence = Evidence.read(arguments.out / "evidence")
    lines = [
        *compare(json.loads(path.read_text()), evidence),
        check_chain(evidence.deltas),
        check_explained(evidence),
    ]
    if not arguments.no_topics:
        bootstrap = os.environ.get("KAFKA_BOOTSTRAP_SERVERS") or KafkaSettings().bootstrap_servers
        lines += _topic_lines(bootstrap, evidence, print)
    print(f"{'figure':<42}{path.name:>16}{'recomputed':>16}  ok")
    for line in lines:
        verdict = "yes" if line.ok else "NO"
        print(f"{line.figure:<42}{_shown(line.stated):>16}{_shown(line.found):>16}  {verdict}")
    wrong = [line.figure for line in lines if not line.ok]
    print(f"audit: {len(lines)} figures, {len(wrong)} differ" + (f": {', '.join(wrong)}" if wrong else ""))
    return 1 if wrong else 0
