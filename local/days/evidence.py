"""What a run of days left, as columns: the answers that people got, and the labels of what was shown."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Names = NDArray[np.object_]


@dataclass(frozen=True)
class Answers:
    """n answers that a model scored: who, when (event time), by which arm and full model; mean true click
    probability of what was shown and of the best that the answer held. Of all their shown items [m]: the
    answer's row, the true click probability, the age."""

    user_ids: NDArray[np.uint64]
    at_us: Ints
    arms: Names
    generations: Ints
    shown: Floats
    ideal: Floats
    row: Ints
    item_p: Floats
    item_age_s: Floats


@dataclass(frozen=True)
class Labels:
    """m samples as the joiner made them: who was shown it, when, by which arm; what was served, what came."""

    user_ids: NDArray[np.uint64]
    at_us: Ints
    arms: Names
    scores: NDArray[np.float32]
    labels: NDArray[np.float32]


@dataclass(frozen=True)
class Evidence:
    """``scenarios``: (name, from_us, until_us)."""

    answers: Answers
    labels: Labels
    scenarios: list[tuple[str, int, int]]


def read(folder: Path) -> Evidence:
    """From the Parquet files of a load."""
    requests = pq.read_table(folder / "requests.parquet")
    judged = requests.filter(pc.and_(pc.is_valid(requests["shown_true_p"]), requests["scored"]))
    samples = pq.read_table(folder / "samples.parquet")
    spans = pq.read_table(folder / "scenarios.parquet").to_pylist()
    return Evidence(
        _answers(judged),
        _labels(samples, requests),
        [(one["name"], one["from_us"], one["until_us"]) for one in spans],
    )


def _answers(judged: pa.Table) -> Answers:
    item_p = [np.frombuffer(one, np.float32) for one in judged["shown_p"].to_pylist()]
    ages = [np.frombuffer(one, np.float32) for one in judged["shown_age_s"].to_pylist()]
    return Answers(
        user_ids=judged["user_id"].to_numpy(),
        at_us=judged["answered_us"].to_numpy(),
        arms=_names(judged["arm"]),
        generations=judged["generation"].to_numpy(),
        shown=judged["shown_true_p"].to_numpy(),
        ideal=judged["ideal_true_p"].to_numpy(),
        row=np.repeat(np.arange(len(item_p)), [len(one) for one in item_p]),
        item_p=_flat(item_p),
        item_age_s=_flat(ages),
    )


def _labels(samples: pa.Table, requests: pa.Table) -> Labels:
    samples = samples.filter(pc.equal(samples["label_version"], 0))
    place = pc.index_in(samples["request_id"], requests["request_id"].combine_chunks())
    # What somebody else sent meanwhile is no part of this run.
    samples, place = samples.filter(pc.is_valid(place)), place.drop_null()
    return Labels(
        user_ids=requests["user_id"].take(place).to_numpy(),
        at_us=samples["impressed_us"].to_numpy(),
        arms=_names(samples["arm"]),
        scores=samples["score"].to_numpy().astype(np.float32),
        labels=samples["label"].to_numpy().astype(np.float32),
    )


def _flat(parts: list[NDArray[np.float32]]) -> Floats:
    return np.concatenate([np.zeros(0), *parts])


def _names(column: Any) -> Names:
    return np.array(column.to_pylist(), object)
