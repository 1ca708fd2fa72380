"""What the optimiser's settings are worth on MovieLens 100K, without services: ``python
benchmarks/tune_replay.py DATA``.

The protocol of ``loadgen replay``: events by (timestamp, user, item), label = rating >= 4, time cut into
intervals of 10 minutes. Every event is scored with the model as it was at the beginning of its interval, and
with the features of what had been there by then; then the interval is learned. Each ``name=value`` changes
one field of LearningSettings:

    python benchmarks/tune_replay.py ml-100k factor_rate=0.05 minibatch_rows=16
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from rec.events.v1.events_pb2 import ACTION_KIND_CLICK
from services.contract import model_net, model_schema
from services.contract.feature_sets import FEATURE_SETS, MOVIELENS
from services.contract.features_asof import encode_asof
from services.contract.ids import hash_key
from services.contract.model_state import ModelState
from services.contract.quality import auc, log_loss
from services.contract.view_events import ACTED, LISTED, SHOWN
from services.contract.view_log import EventLog, Labels
from trainer.rows import initial_dense
from trainer.samples import Batch
from trainer.settings import AdmissionSettings, LearningSettings
from trainer.step import train_step

INTERVAL_S = 600
MICROS = 1_000_000
GENRES = slice(5, 24)
FEATURES = FEATURE_SETS[MOVIELENS]
SHAPE = model_schema.shape_of(FEATURES)


@dataclass
class Events:
    """Columns of all events, with the features as of each interval's start; ``edges``: where intervals
    end."""

    users: NDArray[np.uint64]
    items: NDArray[np.uint64]
    labels: NDArray[np.float32]
    times_us: NDArray[np.int64]
    user_features: NDArray[np.float32]
    item_features: NDArray[np.float32]
    edges: list[int]


def genres(folder: Path) -> dict[int, int]:
    """Item -> 1 + its first genre, 0 without."""
    found = {}
    for line in (folder / "u.item").read_text(encoding="latin-1").splitlines():
        fields = line.split("|")
        flags = [place for place, flag in enumerate(fields[GENRES]) if flag == "1"]
        found[int(fields[0])] = flags[0] + 1 if flags else 0
    return found


def event_log(rows: NDArray[np.int64], interval: NDArray[np.int64], categories: dict[int, int]) -> EventLog:
    """What the loop would have logged: the catalogue, each rating as a shown item, each good one as a click
    too. An event of an interval is there from the next one on."""
    n = len(rows)
    users, items, good = _hashed(rows[:, 0]), _hashed(rows[:, 1]), rows[:, 2] >= 4
    listed = _hashed(np.array(list(categories)))
    kind = np.repeat(
        np.array([SHOWN.code, ACTED.code, LISTED.code], np.uint8), [n, good.sum(), len(categories)]
    )

    def column(all_events: NDArray, of_listed: NDArray) -> NDArray:
        return np.concatenate([all_events, all_events[good], of_listed])

    category = np.array([categories[item] for item in rows[:, 1].tolist()], np.int64)
    nothing = np.zeros(len(categories), np.int64)
    number = np.arange(len(kind))
    fields = {
        "user_id": column(users, nothing.astype(np.uint64)),
        "item_id": column(items, listed),
        "category": column(category, np.array(list(categories.values()), np.int64)),
        "action": np.full(len(kind), ACTION_KIND_CLICK, np.int64),
    }
    fields |= {name: np.zeros(len(kind), np.int64) for name in ("position", "dwell_s", "created_at")}
    return EventLog(
        kind,
        column(rows[:, 3] * MICROS, nothing),
        number.astype(np.uint64),
        column(interval, nothing - 1),
        np.zeros(len(kind), np.int32),
        number,
        fields,
    )


def _hashed(numbers: NDArray[np.int64]) -> NDArray[np.uint64]:
    return np.array([hash_key(str(number)) for number in numbers.tolist()], np.uint64)


def load(folder: Path) -> Events:
    """Reads the data set and computes all features."""
    rows = np.loadtxt(folder / "u.data", dtype=np.int64)
    rows = rows[np.lexsort((rows[:, 1], rows[:, 0], rows[:, 3]))]
    interval = rows[:, 3] // INTERVAL_S
    log = event_log(rows, interval, genres(folder))
    users, items = _hashed(rows[:, 0]), _hashed(rows[:, 1])
    requests = Labels(rows[:, 3] * MICROS, {"user_id": users}, wall_us=interval)
    user_features, item_features = encode_asof(
        FEATURES, log, requests, np.arange(len(rows)), items, "as_served"
    )
    return Events(
        users=users,
        items=items,
        labels=(rows[:, 2] >= 4).astype(np.float32),
        times_us=rows[:, 3] * MICROS,
        user_features=user_features,
        item_features=item_features,
        edges=[*(np.flatnonzero(np.diff(interval)) + 1).tolist(), len(rows)],
    )


def predict(state: ModelState, events: Events, cut: slice) -> NDArray[np.float32]:
    """Served scores of events."""
    item_features = events.item_features[cut]
    keys = (events.users[cut], events.items[cut], model_net.category_ids(SHAPE, item_features))
    rows = []
    for name, ids in zip(model_schema.TABLES, keys, strict=True):
        table = state.tables[name]
        rows.append(torch.from_numpy(table.rows[table.slots(ids)][:, : model_schema.RANK_WIDTH]))
    dense = model_net.dense_tensors(state)
    inputs = model_net.dense_input(
        SHAPE, torch.from_numpy(events.user_features[cut]), torch.from_numpy(item_features)
    )
    with torch.inference_mode():
        logits = model_net.training_logits(dense, rows[0], rows[1], rows[2], inputs)
        return torch.sigmoid(logits + model_net.serving_position(dense)).numpy()


def batch(events: Events, cut: slice, scores: NDArray[np.float32]) -> Batch:
    """Events as the trainer gets them."""
    rows = cut.stop - cut.start
    return Batch(
        [], np.arange(rows), events.users[cut], events.items[cut], events.labels[cut], scores,
        np.zeros(rows, np.int64), np.ones(rows, np.float32), events.user_features[cut],
        events.item_features[cut], events.times_us[cut],
    )  # fmt: skip


def replay(events: Events, learning: LearningSettings) -> NDArray[np.float32]:
    """The served score of every event."""
    state = ModelState(SHAPE, dense=initial_dense(SHAPE, learning.seed))
    admission = AdmissionSettings(min_count_item=1)
    scores = np.zeros(len(events.labels), np.float32)
    for start, end in zip([0, *events.edges[:-1]], events.edges, strict=True):
        scores[start:end] = predict(state, events, slice(start, end))
        for first in range(start, end, learning.minibatch_rows):
            cut = slice(first, min(end, first + learning.minibatch_rows))
            train_step(state, batch(events, cut, scores[cut]), learning, admission)
    return scores


def main() -> None:
    """Prints one line."""
    torch.set_num_threads(1)
    folder, *changes = sys.argv[1:]
    learning = LearningSettings.model_validate(dict(change.split("=") for change in changes))
    events = load(Path(folder))
    started = time.perf_counter()
    scores = replay(events, learning)
    half = len(scores) // 2
    print(
        f"auc {auc(events.labels, scores):.4f}  second half {auc(events.labels[half:], scores[half:]):.4f}  "
        f"log loss {log_loss(events.labels, scores):.4f}  {time.perf_counter() - started:.0f} s  {changes}"
    )


if __name__ == "__main__":
    main()
