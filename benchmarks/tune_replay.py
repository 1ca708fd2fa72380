"""What the optimiser's settings are worth on MovieLens 100K, without services: ``python
benchmarks/tune_replay.py DATA``.

The protocol of ``loadgen replay``: events by (timestamp, user, item), label = rating >= 4, time cut into
intervals of 10 minutes. Every event is scored with the model and the streaming features as they were at the
beginning of its interval; then the interval is learned. Each ``name=value`` changes one field of
LearningSettings:

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

from services.contract import feature_fold, features, model_net, model_schema
from services.contract.feature_layout import ITEM_DTYPE, USER_BYTES, USER_DTYPE
from services.contract.ids import hash_key
from services.contract.model_state import ModelState
from trainer.evaluate import auc, log_loss
from trainer.rows import initial_dense
from trainer.samples import Batch
from trainer.settings import AdmissionSettings, LearningSettings
from trainer.step import train_step

INTERVAL_S = 600
MICROS = 1_000_000
GENRES = slice(5, 24)


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


class Fold:
    """The streaming features, folded event by event."""

    def __init__(self, categories: dict[int, int]) -> None:
        self._categories = categories
        self._users: dict[int, feature_fold.UserState] = {}
        self._items: dict[int, feature_fold.ItemState] = {}
        self._shown = 0
        self._clicked = 0

    def encode(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Features of the events of one interval, before any of them is folded."""
        users = [
            self._users[u].pack() if u in self._users else bytes(USER_BYTES) for u in rows[:, 0].tolist()
        ]
        items = [self._item(i).pack() for i in rows[:, 1].tolist()]
        return features.encode_records(
            np.frombuffer(b"".join(users), USER_DTYPE),
            np.frombuffer(b"".join(items), ITEM_DTYPE),
            np.array([hash_key(str(i)) for i in rows[:, 1].tolist()], np.uint64),
            owner=np.arange(len(rows)),
            at_us=rows[:, 3] * MICROS,
            prior=features.prior_rate(self._shown, self._clicked),
        )

    def learn(self, rows: NDArray[np.int64]) -> None:
        """Folds an interval in."""
        for place, (user, item, rating, second) in enumerate(rows.tolist()):
            at_us, category = second * MICROS, self._categories[item]
            state = self._users.setdefault(user, feature_fold.UserState())
            state.seen(at_us)
            state.shown(at_us, [category])
            self._item(item).shown(at_us)
            self._shown += 1
            if rating >= 4:
                state.clicked(at_us, place, hash_key(str(item)), category)
                self._item(item).clicked(at_us)
                self._clicked += 1

    def _item(self, item: int) -> feature_fold.ItemState:
        if item not in self._items:
            self._items[item] = feature_fold.ItemState(self._categories[item], 0)
        return self._items[item]


def load(folder: Path) -> Events:
    """Reads the data set and computes all features."""
    rows = np.loadtxt(folder / "u.data", dtype=np.int64)
    rows = rows[np.lexsort((rows[:, 1], rows[:, 0], rows[:, 3]))]
    edges = [*(np.flatnonzero(np.diff(rows[:, 3] // INTERVAL_S)) + 1).tolist(), len(rows)]
    fold = Fold(genres(folder))
    encoded = []
    for start, end in zip([0, *edges[:-1]], edges, strict=True):
        encoded.append(fold.encode(rows[start:end]))
        fold.learn(rows[start:end])
    return Events(
        users=np.array([hash_key(str(u)) for u in rows[:, 0].tolist()], np.uint64),
        items=np.array([hash_key(str(i)) for i in rows[:, 1].tolist()], np.uint64),
        labels=(rows[:, 2] >= 4).astype(np.float32),
        times_us=rows[:, 3] * MICROS,
        user_features=np.concatenate([user for user, _ in encoded]),
        item_features=np.concatenate([item for _, item in encoded]),
        edges=edges,
    )


def predict(state: ModelState, events: Events, cut: slice) -> NDArray[np.float32]:
    """Served scores of events."""
    item_features = events.item_features[cut]
    keys = (events.users[cut], events.items[cut], model_net.category_ids(item_features))
    rows = []
    for name, ids in zip(model_schema.TABLES, keys, strict=True):
        table = state.tables[name]
        rows.append(torch.from_numpy(table.rows[table.slots(ids)][:, : model_schema.RANK_WIDTH]))
    dense = model_net.dense_tensors(state)
    inputs = model_net.dense_input(
        torch.from_numpy(events.user_features[cut]), torch.from_numpy(item_features)
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
    state = ModelState()
    state.dense = initial_dense(learning.seed)
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
