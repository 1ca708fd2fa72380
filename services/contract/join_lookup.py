"""The join without snapshots: every impression is its own request, and features are looked up later.

This is how samples are often built, and it leaks: the features are those of the moment of the lookup (t6),
which know what the user did after the scores were made. It is here to be measured beside the others. Windows,
labels, lateness and reasons are the same rules; ``snapshot_lost`` and ``not_in_snapshot`` cannot
happen.

What a sample says differs: no features (the host fills them in), no model, no arm, scores 0, and the
time of the request is that of the impression, which is all that is known here.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import ClassVar

from rec.events.v1 import events_pb2 as ev
from services.contract.join import JoinTask
from services.contract.join_config import JoinConfig
from services.contract.join_events import Source
from services.contract.join_matching import Matching
from services.contract.join_position import Position, start
from services.contract.join_rows import ShownRows
from services.contract.join_scan import scored_of
from services.contract.join_state import Shown

# After every event time: an input that is not read holds nothing up.
_FOREVER_US = 1 << 62


class FromImpressions(Matching):
    """Matching in which an impression brings its own rows."""

    def add_impression(self, shown: Shown) -> None:
        """Its rows are all that it shows."""
        if not shown.unscored:
            message = ev.EventRecord.FromString(shown.raw).impression
            scored = scored_of(_as_if_scored(message), shown.occurred_us)
            rows = ShownRows(scored, shown.item_ids, shown.positions, shown.occurred_us)
            shown.rows, shown.scored = rows, True
            shown.size += rows.bytes_held()
        super().add_impression(shown)


def _as_if_scored(message: ev.Impression) -> ev.FeatureSnapshot:
    rows = len(message.item_ids)
    return ev.FeatureSnapshot(
        request_id=message.request_id,
        occurred_at=message.occurred_at,
        user_id=message.user_id,
        item_ids=struct.pack(f"<{rows}Q", *message.item_ids),
        scores=bytes(4 * rows),
    )


class LookupTask(JoinTask):
    """A JoinTask of two inputs: impressions and actions."""

    sources: ClassVar[tuple[Source, ...]] = (Source.IMPRESSIONS, Source.ACTIONS)

    def __init__(self, config: JoinConfig, positions: Mapping[Source, Position] | None = None) -> None:
        at = None if positions is None else {**positions, Source.SNAPSHOTS: start(0)}
        super().__init__(config, at)
        unread = self.inputs[Source.SNAPSHOTS]
        unread.clock_us = unread.floor_us = unread.watermark_us = _FOREVER_US
        self._settle_clocks()

    def positions(self) -> dict[Source, Position]:
        """Of the two."""
        found = super().positions()
        return {source: found[source] for source in self.sources}

    @property
    def clock_us(self) -> int:
        """The furthest event time that has been read: the moment of a lookup made now."""
        return max(self.inputs[source].clock_us for source in self.sources)

    def _new_matching(self, evicted_us: int) -> Matching:
        return FromImpressions(self.config, evicted_us)
