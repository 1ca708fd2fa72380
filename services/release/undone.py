"""What rollbacks have taken back of a lineage, and so where nothing may go again. Pure.

A rollback restores sequence r and publishes the difference as sequence n: r and n hold the same values, what
stands between them is undone. An arm that is pinned there serves what was taken back; an order that restores
one of these states would bring it back.
"""

from __future__ import annotations

from dataclasses import dataclass

from rec.model.v1 import model_pb2
from services.contract import times
from services.release.registry import Registry
from services.release.rollbacks import has_outcome


@dataclass(frozen=True)
class Undone:
    """Of one lineage. ``open_order``: one has no outcome yet; ``since``, ``since_us``: sequence of the newest
    rollback, and when it was published; 0 without any."""

    open_order: bool
    since: int
    since_us: int
    ranges: tuple[tuple[int, int], ...]
    _newest: model_pb2.Rollback | None

    @classmethod
    def of(cls, registry: Registry, lineage: model_pb2.Lineage) -> Undone:
        """As the log has it."""
        orders = [one.rollback for one in registry.rollbacks if one.lineage == lineage]
        done = [one for one in orders if one.HasField("done")]
        return cls(
            not all(has_outcome(one) for one in orders),
            done[-1].sequence if done else 0,
            times.to_us(done[-1].published_at) if done else 0,
            tuple((one.done.restored_sequence, one.sequence) for one in done),
            done[-1] if done else None,
        )

    def covers(self, sequence: int) -> bool:
        """Whether the state of this sequence was taken back."""
        return any(restored < sequence < back for restored, back in self.ranges)

    def target(self, now_us: int, back_us: int) -> model_pb2.Rollback:
        """The wish for the state of so long ago. Where that was taken back itself, the order before did not
        reach far enough: as far again behind its target."""
        wish, newest = model_pb2.Rollback(), self._newest
        to_us = now_us - back_us
        if newest is not None and to_us < self.since_us:
            if not newest.HasField("to_time"):
                wish.to_sequence = newest.done.restored_sequence
                return wish
            to_us = times.to_us(newest.to_time) - back_us
        times.set_us(wish.to_time, to_us)
        return wish
