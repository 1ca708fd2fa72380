"""Takes a lineage back: restores an earlier state and says how the newest one differs from it. Pure.

    base at or below the target --deltas up to it--> restored state
                                --deltas behind it--> ids that they touched, and where the chain ends

The difference is those ids with the values that they had: rows, pending entries, tombstones for rows that
did not exist. It is published as the next deltas of the chain, so whoever follows it applies it like any
other, and whoever pins a sequence in between keeps it. A rollback of a minute carries what a minute touched,
not the model.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rec.model.v1 import model_pb2
from services.contract import delta, model_state, times
from services.contract.delta import Body, Header, RolledBack
from services.contract.model_state import ModelState
from trainer.core import Plan, body_of
from trainer.touched import TouchedIds


class Rewind:
    """Takes the deltas of a lineage in order, from the one behind ``state``'s sequence on."""

    def __init__(self, state: ModelState, order: model_pb2.Rollback) -> None:
        self.state = state
        self._order = order
        self._last: tuple[Header, bytes] | None = None
        self._touched = {name: TouchedIds() for name in state.tables}
        # The delta that carried this very order out, when there is one.
        self.carried: tuple[Header, int] | None = None

    @property
    def undone(self) -> int:
        """Deltas behind the restored state."""
        return 0 if self._last is None else self._last[0].sequence - self.state.sequence

    def keeps(self, header: Header) -> bool:
        """Whether a delta belongs to what is restored."""
        if self._last is not None:
            return False
        if self._order.HasField("to_time"):
            return header.created_at_us <= times.to_us(self._order.to_time)
        return header.sequence <= self._order.to_sequence

    def take(self, header: Header, body: Body, delta_hash: bytes) -> None:
        """The next delta of the chain."""
        if header.rollback is not None and header.rollback.order == self._order.order:
            self.carried = (header, body.rows)
        if self.keeps(header):
            model_state.apply(self.state, header, body, delta_hash)
            return
        self._last = (header, delta_hash)
        for change in body.tables:
            touched = self._touched[change.table]
            touched.rows.update(change.ids.tolist())
            touched.rows.update(change.expired_ids.tolist())
            touched.pending.update(change.pending_ids.tolist())

    def plans(self, now_us: int, max_ids: int) -> Iterator[Plan]:
        """The difference as deltas of at most ``max_ids`` ids each; only the last one is marked as the
        rollback, so one that was cut off in between is carried out again. Moves the restored state to the end
        of the chain. RuntimeError when there is nothing to undo."""
        if self._last is None:
            raise RuntimeError("nothing to undo")
        last, last_hash = self._last
        restored = self.state.sequence
        back = RolledBack(self._order.order, restored, self._ranges(last))
        parts = list(_cut(self.state, self._touched, max_ids))
        sequence, previous = last.sequence, last_hash
        for part in parts:
            sequence += 1
            body = body_of(self.state, part)
            header = Header(
                generation=self.state.generation,
                policy=self.state.policy,
                sequence=sequence,
                epoch=last.epoch + 1,
                previous_hash=previous,
                created_at_us=max(now_us, last.created_at_us),
                model_hash=self.state.shape.model_hash,
                sample_offsets=dict(last.sample_offsets),
                samples_trained=self.state.samples_trained,
                # The clock of the samples passed, which moves on; what they taught is gone.
                trained_until_us=last.trained_until_us,
                open_barriers=dict(last.open_barriers),
                rollback=back if part is parts[-1] else None,
            )
            value, previous = delta.seal(header, body)
            if part is parts[-1]:
                model_state.advance(self.state, header, previous)
            yield Plan(header, value, previous, body.rows, (), None)

    def _ranges(self, last: Header) -> tuple[tuple[int, int, int], ...]:
        kept = self.state.sample_offsets
        ends = last.sample_offsets
        return tuple((p, kept.get(p, 0), ends[p]) for p in sorted(ends) if kept.get(p, 0) < ends[p])


def _cut(state: ModelState, touched: dict[str, TouchedIds], max_ids: int) -> Iterator[dict[str, TouchedIds]]:
    """The ids in parts; an id that the restored state has no row of leaves its table. At least one part:
    dense tensors change with every delta."""
    named: list[tuple[str, str, int]] = []
    for name, ids in touched.items():
        rows = sorted(ids.rows)
        slots = state.tables[name].slots(np.array(rows, np.uint64)).tolist()
        named += [(name, "rows" if slot else "expired", one) for one, slot in zip(rows, slots, strict=True)]
        named += [(name, "pending", one) for one in sorted(ids.pending)]
    for start in range(0, max(1, len(named)), max_ids):
        part = {name: TouchedIds() for name in touched}
        for name, kind, one in named[start : start + max_ids]:
            getattr(part[name], kind).add(one)
        yield part
