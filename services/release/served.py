"""What the arms have served lately, with the labels that came: the samples of a window, in memory.

A record of `samples` is rows of one request. Corrections are left out: the row was counted when it was
said. The window is wall time since the record was read; what does not fit into ``max_rows`` leaves first,
counted.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from rec.events.v1.events_pb2 import SampleRecord, TrainingSample
from services.contract import columns, times
from services.contract.errors import InvalidInput
from services.release.guard import Served


@dataclass(frozen=True)
class ServedRows:
    """Rows [n] of one request that an arm served; ``sample`` is the record they came in."""

    read_s: float
    arm: str
    generation: int
    sequence: int
    labels: NDArray[np.float32]
    scores: NDArray[np.float32]
    weights: NDArray[np.float32]
    sample: TrainingSample

    @property
    def scored_us(self) -> int:
        """When it was served."""
        return times.to_us(self.sample.scored_at)

    @property
    def closed(self) -> bool:
        """Whether its rows are those of a request whose window has ended, and not single ones that were acted
        on before."""
        return not self.sample.HasField("acted_at")


def rows_of(value: bytes, read_s: float) -> ServedRows | None:
    """The rows of a record of samples; None when it holds none to judge (a barrier, corrections only, no
    model). InvalidInput when it does not decode."""
    try:
        sample = SampleRecord.FromString(value).sample
    except DecodeError as error:
        raise InvalidInput.one("sample", repr(error), "a SampleRecord") from error
    n = len(sample.item_ids) // columns.U64.itemsize
    labels = columns.decode("labels", sample.labels, columns.F32, n)
    scores = columns.decode("scores", sample.scores, columns.F32, n)
    first = columns.decode("label_versions", sample.label_versions, columns.U32, n) == 0
    if not sample.arm or not sample.model.lineage.generation or not first.any():
        return None
    if not 0 < sample.sample_rate <= 1:
        raise InvalidInput.one("sample_rate", sample.sample_rate, "above 0, at most 1")
    weights = np.where(labels > 0, np.float32(1), np.float32(1 / sample.sample_rate))
    model = sample.model
    parts = (labels[first], scores[first], weights[first])
    return ServedRows(read_s, sample.arm, model.lineage.generation, model.sequence, *parts, sample)


class ServedSamples:
    """The window. Belongs to the event loop."""

    def __init__(self, window_s: float, max_rows: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._window_s = window_s
        self._max_rows = max_rows
        self._clock = clock
        self._held: deque[ServedRows] = deque()
        self._rows = 0
        # Requests served until then are closed; of those served until then clicks may have left the window.
        self._closed_us, self._torn_us = 0, -1
        # Records read, "malformed", "evicted" (the window did not fit).
        self.counts: Counter[str] = Counter()

    def add(self, value: bytes) -> ServedRows | None:
        """Takes a record in; what it held, if that can be judged."""
        self.counts["read"] += 1
        try:
            rows = rows_of(value, self._clock())
        except InvalidInput:
            self.counts["malformed"] += 1
            return None
        if rows is not None:
            self._held.append(rows)
            self._rows += len(rows.labels)
            if rows.closed:
                self._closed_us = max(self._closed_us, rows.scored_us)
        self._prune()
        return rows

    def arms(self) -> list[str]:
        """Arms with rows in the window, by name."""
        self._prune()
        return sorted({one.arm for one in self._held})

    def window(
        self,
        arm: str,
        generation: int | None = None,
        *,
        from_sequence: int = 0,
        from_us: int = 0,
        until_us: int | None = None,
    ) -> Served:
        """What an arm served, of one generation, from a sequence of its lineage on and between two moments
        (both included) when they are given."""
        self._prune()
        chosen = [
            one
            for one in self._held
            if one.arm == arm
            and generation in (None, one.generation)
            and one.sequence >= from_sequence
            and one.scored_us >= from_us
            and (until_us is None or one.scored_us <= until_us)
        ]
        numbers: dict[str, int] = {}
        owner = [numbers.setdefault(one.sample.request_id, len(numbers)) for one in chosen]
        sizes = [len(one.labels) for one in chosen]
        return Served(
            _joined([one.labels for one in chosen]),
            _joined([one.scores for one in chosen]),
            _joined([one.weights for one in chosen]),
            np.repeat(np.array(owner, np.int64), np.array(sizes, np.int64)),
        )

    def whole(self, arm: str) -> Served:
        """What an arm served, of the requests all of whose rows are in the window. Clicks are said at once,
        the rest of a request when its window ends: the newest requests look like nothing but clicks, the
        oldest as if there had been none."""
        return self.window(arm, from_us=self._torn_us + 1, until_us=self._closed_us)

    def newest(self, arm: str) -> list[ServedRows]:
        """What an arm served, oldest first, with the features that were scored."""
        self._prune()
        return [one for one in self._held if one.arm == arm]

    def _prune(self) -> None:
        oldest_s = self._clock() - self._window_s
        while self._held and (self._held[0].read_s < oldest_s or self._rows > self._max_rows):
            gone = self._held.popleft()
            self._rows -= len(gone.labels)
            if not gone.closed:
                self._torn_us = max(self._torn_us, gone.scored_us)
            self.counts["evicted"] += gone.read_s >= oldest_s


def _joined(parts: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    return np.concatenate(parts) if parts else np.empty(0, np.float32)
