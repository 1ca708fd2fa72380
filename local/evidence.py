"""The evidence of a run, as audit and reports read it: with code that the load generator does not share."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

US = 1_000_000
TABLES = ("requests", "events", "samples", "rejected", "deltas", "applied")
# Runs of before it was recorded have none.
DECISIONS = "decisions"
STAGES = ("collect", "join", "train", "publish", "apply")


@dataclass(frozen=True)
class Evidence:
    """The tables as columns: name -> list of values."""

    requests: dict[str, list]
    events: dict[str, list]
    samples: dict[str, list]
    rejected: dict[str, list]
    deltas: dict[str, list]
    applied: dict[str, list]
    decisions: dict[str, list] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> Evidence:
        """Reads the tables of a run."""
        found = [*TABLES, *([DECISIONS] if (folder / f"{DECISIONS}.parquet").is_file() else [])]
        return cls(**{name: pq.read_table(folder / f"{name}.parquet").to_pydict() for name in found})


@dataclass(frozen=True)
class FollowedClick:
    """A click that reached an answer: when it was acknowledged, wall us; seconds by stage, and from
    acknowledged to answered."""

    acknowledged_us: int
    stages_s: dict[str, float]
    total_s: float


def first_labels(samples: dict[str, list]) -> list[int]:
    """Row numbers of the first labels, each (request, item) once, in file order."""
    seen: set[tuple[str, int]] = set()
    rows = []
    for i, key in enumerate(zip(samples["request_id"], samples["item_id"], strict=True)):
        if samples["label_version"][i] == 0 and key not in seen:
            seen.add(key)
            rows.append(i)
    return rows


def auc(labels: np.ndarray, scores: np.ndarray) -> float | None:
    """Mann-Whitney by counting, for each positive, the negatives below it (ties at half)."""
    negatives = np.sort(scores[labels == 0])
    positives = scores[labels == 1]
    if len(negatives) == 0 or len(positives) == 0:
        return None
    below = np.searchsorted(negatives, positives, side="left")
    upto = np.searchsorted(negatives, positives, side="right")
    return float((below + upto).sum() / 2 / (len(negatives) * len(positives)))


def followed_clicks(evidence: Evidence) -> Iterator[FollowedClick]:
    """Each click that an answer's model had learned, by plain scans over the answers and the deltas: of the
    lineage that answered last, since several may be trained side by side."""
    requests = evidence.requests
    served = _served(requests)
    if not served:
        return
    acks = {event: i for i, event in enumerate(evidence.events["event_id"])}
    deltas = _deltas(evidence.deltas, (requests["generation"][served[-1]], requests["policy"][served[-1]]))
    first_answer_of = _first_answers(requests, served)
    samples = evidence.samples
    for i in first_labels(samples):
        ack = acks.get(f"{samples['request_id'][i]}:{samples['item_id'][i]}:1")
        if samples["label"][i] <= 0.5 or ack is None:
            continue
        where, offset = str(samples["partition"][i]), samples["offset"][i]
        delta = next((d for d in deltas if d[2].get(where, 0) > offset), None)
        answered = first_answer_of.get(delta[0]) if delta else None
        if delta is None or answered is None:
            continue
        sent, acknowledged = evidence.events["sent_us"][ack], evidence.events["acknowledged_us"][ack]
        trained = next((at for at, upto in delta[3] if upto.get(where, 0) > offset), delta[1])
        joined = max(samples["joined_us"][i], acknowledged)
        moments = (sent, acknowledged, joined, trained, delta[1], answered)
        spans = (max(0, end - start) / US for start, end in pairwise(moments))
        yield FollowedClick(
            acknowledged, dict(zip(STAGES, spans, strict=True)), max(0, answered - acknowledged) / US
        )


def _served(requests: dict[str, list]) -> list[int]:
    """Row numbers of the answers that online's model scored, in order of time."""
    rows = [
        i
        for i in range(len(requests["status"]))
        if requests["status"][i] == "OK" and requests["scored"][i] and requests["arm"][i] == "online"
    ]
    return sorted(rows, key=lambda i: (requests["answered_us"][i], requests["sequence"][i]))


def _deltas(table: dict[str, list], lineage: tuple[int, str]) -> list[tuple[int, int, dict[str, int], Any]]:
    return sorted(
        (
            table["sequence"][i],
            table["appended_us"][i],
            json.loads(table["offsets"][i]),
            json.loads(table["steps"][i]),
        )
        for i in range(len(table["sequence"]))
        if (table["generation"][i], table["policy"][i]) == lineage
    )


def _first_answers(requests: dict[str, list], served: list[int]) -> dict[int, int]:
    """Sequence -> when the first answer had it or a later one."""
    first: dict[int, int] = {}
    newest = -1
    for i in served:
        for reached in range(newest + 1, requests["sequence"][i] + 1):
            first[reached] = requests["answered_us"][i]
        newest = max(newest, requests["sequence"][i])
    return first
