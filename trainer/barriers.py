"""Which barriers have come from every partition of samples. Pure.

Barriers on their way belong to the model's state (DeltaHeader.open_barriers): a restarted trainer goes on
behind the copies that it has already read and must not wait for them again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trainer.samples import RawRecord, is_barrier

MAX_OPEN = 100


def closed(records: Sequence[RawRecord], partitions: frozenset[int]) -> bool:
    """Whether the newest record of each partition is a barrier: all that stands before it is there."""
    newest = {record.partition: record for record in records}
    return newest.keys() >= partitions and all(is_barrier(record.value) for record in newest.values())


class Barriers:
    """Collects one copy per partition and names a barrier when it has all of them."""

    def __init__(self, partitions: frozenset[int], open_barriers: Mapping[str, frozenset[int]]) -> None:
        self.partitions = partitions
        self._open = dict(open_barriers)
        # Open barriers given up because too many were open.
        self.forgotten = 0
        self._complete: list[str] = []

    @property
    def complete(self) -> tuple[str, ...]:
        """Barriers that wait for a delta to name them, in the order of their completion."""
        return tuple(self._complete)

    @property
    def open(self) -> dict[str, frozenset[int]]:
        """Barriers that have not yet come from every partition."""
        return dict(self._open)

    def seen(self, barrier_id: str, partition: int) -> bool:
        """A copy was read; whether it was the last one. A repeated copy changes nothing."""
        if barrier_id in self._complete:
            return False
        came = self._open.pop(barrier_id, frozenset()) | {partition}
        if came >= self.partitions:
            self._complete.append(barrier_id)
            return True
        self._open[barrier_id] = came
        while len(self._open) > MAX_OPEN:
            del self._open[next(iter(self._open))]
            self.forgotten += 1
        return False

    def named(self, barrier_ids: tuple[str, ...]) -> None:
        """A delta that names these has been acknowledged."""
        self._complete = [barrier_id for barrier_id in self._complete if barrier_id not in barrier_ids]
