"""Which delta of a lineage contains a sample: by what the deltas say of themselves, never by time. Pure.

A delta's header names, for each partition of samples, the offset below which everything has been trained. A
sample is in the first delta whose offset is above the sample's while the offset of the delta before it, named
by its hash, is not. That the trainer passed an offset does not say that it learned: what it refused stands in
dead-letters, what it was told to take back in a rollback's ranges, and a row that was learned is in the body.
"""

from __future__ import annotations

from dataclasses import dataclass

from rec.model.v1.model_pb2 import Release
from services.contract.delta import Body, Header


@dataclass(frozen=True)
class Seen:
    """A delta with a good hash, where it stands in model-deltas and when it was appended (wall)."""

    header: Header
    hash: bytes
    offset: int
    appended_us: int
    bytes: int = 0


@dataclass(frozen=True)
class Contains:
    """The delta that contains a sample, and the step of it that learned it (1 of ``steps``). It is what was
    read of the sample's partition from one offset up to another."""

    delta: Seen
    read_from: int
    read_to: int
    step: int
    steps: int
    trained_us: int


class Search:
    """Takes the deltas of one lineage in the order of the log until one contains the sample."""

    def __init__(self, partition: int, offset: int) -> None:
        self._partition = partition
        self._offset = offset
        self._before: Seen | None = None
        # The first delta that was read has the sample already: who wants a proof must read from further back.
        self.too_late = False

    def take(self, seen: Seen) -> Contains | None:
        """The answer, once ``seen`` is the delta."""
        before, self._before = self._before, seen
        if self.too_late or self._next_offset(seen) <= self._offset:
            return None
        first = seen.header.sequence == 1
        if before is None and not first:
            self.too_late = True
        elif before is None or before.hash == seen.header.previous_hash:
            return self._contains(seen, 0 if before is None else self._next_offset(before))
        return None

    def _next_offset(self, seen: Seen) -> int:
        return seen.header.sample_offsets.get(self._partition, 0)

    def _contains(self, seen: Seen, read_from: int) -> Contains:
        steps = seen.header.steps
        number, trained_us = len(steps), seen.header.created_at_us
        for index, step in enumerate(steps, 1):
            if step.sample_offsets.get(self._partition, 0) > self._offset:
                number, trained_us = index, step.finished_at_us
                break
        return Contains(seen, read_from, self._next_offset(seen), number, len(steps), trained_us)


def rows_of(body: Body, item_id: int, user_id: int) -> list[str]:
    """Which of a sample's rows a delta's body has: "item", "user"; not admitted yet: "item (pending)"."""
    found = []
    for table, wanted in (("item", item_id), ("user", user_id)):
        change = next((one for one in body.tables if one.table == table), None)
        if change is None:
            continue
        if (change.ids == wanted).any():
            found.append(table)
        elif (change.pending_ids == wanted).any():
            found.append(f"{table} (pending)")
    return found


def taken_back(release: Release, lineage: tuple[int, str], partition: int, offset: int) -> int | None:
    """The sequence of the rollback that took a sample out of a lineage again, when a record of model-releases
    tells of it."""
    if (release.lineage.generation, release.lineage.policy) != lineage:
        return None
    for one in release.rollback.done.quarantined:
        if one.partition == partition and one.start <= offset < one.end:
            return release.rollback.sequence
    return None
