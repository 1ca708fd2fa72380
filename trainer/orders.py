"""What model-releases asks of a trainer beside its arms: rollbacks, and the samples that nobody trains. Pure.

Both outlive the process that acted on them: an order stands until its outcome does, and what a rollback has
quarantined stays so for every lineage, whoever took which back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rec.model.v1 import model_pb2
from services.contract import topics
from services.contract.delta_wire import rollback_of

LineageId = tuple[int, str]
# (partition, start, end) of samples.
Range = tuple[int, int, int]


def lineage_of(release: model_pb2.Release) -> LineageId:
    """(generation, policy)."""
    return release.lineage.generation, release.lineage.policy


class Quarantine:
    """Ranges (partition, start, end) of samples. Read on the training thread, added to on the event loop:
    each addition swaps one reference."""

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        self._ranges: Mapping[int, tuple[tuple[int, int], ...]] = {}
        self.add(ranges)

    def add(self, ranges: Iterable[Range]) -> None:
        """Takes ranges in; one that is there already is no matter."""
        found = {partition: set(known) for partition, known in self._ranges.items()}
        for partition, start, end in ranges:
            if start < end:
                found.setdefault(partition, set()).add((start, end))
        self._ranges = {partition: tuple(sorted(known)) for partition, known in found.items()}

    def covers(self, partition: int, offset: int) -> bool:
        """Whether a record must not be trained."""
        return any(start <= offset < end for start, end in self._ranges.get(partition, ()))

    def ranges(self) -> list[Range]:
        """All, by partition and start."""
        return [(p, start, end) for p in sorted(self._ranges) for start, end in self._ranges[p]]


class Orders:
    """Folded from the records of model-releases, in log order."""

    def __init__(self) -> None:
        self.quarantine = Quarantine()
        self._generations: dict[int, model_pb2.Release] = {}
        self._open: dict[LineageId, dict[int, model_pb2.Rollback]] = {}

    def take(self, release: model_pb2.Release) -> None:
        """A record, of any key."""
        lineage = lineage_of(release)
        if not release.HasField("rollback"):
            if release.arm == topics.generation_key(lineage[0]):
                self._generations[lineage[0]] = release
            return
        order = release.rollback
        mine = self._open.setdefault(lineage, {})
        if order.HasField("done"):
            self.quarantine.add(rollback_of(order.done).quarantined)
        if order.HasField("done") or order.error:
            mine.pop(order.order, None)
        else:
            mine[order.order] = order

    def outstanding(self, lineage: LineageId) -> model_pb2.Rollback | None:
        """The newest order of a lineage that has no outcome."""
        mine = self._open.get(lineage)
        return mine[max(mine)] if mine else None

    def first_base(self, lineage: LineageId) -> model_pb2.BaseRef | None:
        """The full model that the lineage started from. Of another policy than the generation's own one its
        deltas may begin anywhere in their partition: what others wrote there is skipped."""
        known = self._generations.get(lineage[0])
        if known is None:
            return None
        base = model_pb2.BaseRef()
        base.CopyFrom(known.base)
        if known.lineage.policy != lineage[1]:
            base.delta_partition, base.delta_offset = topics.delta_partition(*lineage), 0
        return base
