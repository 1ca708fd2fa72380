"""What release decides: a set of new records for model-releases, each with its event. Pure.

A decision whose wish is already fulfilled has no records.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from rec.model.v1 import model_pb2
from services.contract import times


@dataclass(frozen=True)
class Decision:
    """Records for model-releases, their events for release-events, and the record that answers the caller."""

    answer: model_pb2.Release
    records: tuple[model_pb2.Release, ...] = ()
    events: tuple[model_pb2.ReleaseEvent, ...] = ()


# Nothing is wished for.
NOTHING = Decision(model_pb2.Release())


@dataclass
class Draft:
    """Numbers the records of one decision and pairs each with its event."""

    revision: int
    now_us: int
    records: list[model_pb2.Release] = field(default_factory=list)
    events: list[model_pb2.ReleaseEvent] = field(default_factory=list)

    def add(self, record: model_pb2.Release, decision: str, **evidence: object) -> model_pb2.Release:
        self.revision += 1
        record.revision = self.revision
        times.set_us(record.decided_at, self.now_us)
        event = model_pb2.ReleaseEvent(
            arm=record.arm,
            decision=decision,
            evidence_json=json.dumps({**evidence_of(record), **evidence}, sort_keys=True),
            revision=self.revision,
        )
        times.set_us(event.decided_at, self.now_us)
        self.records.append(record)
        self.events.append(event)
        return record

    def decided(self, answer: model_pb2.Release) -> Decision:
        return Decision(answer, tuple(self.records), tuple(self.events))


def evidence_of(record: model_pb2.Release) -> dict[str, object]:
    """What an event says of a record."""
    return {
        "lineage": f"{record.lineage.generation}/{record.lineage.policy}",
        "pinned_sequence": record.pinned_sequence if record.HasField("pinned_sequence") else None,
        "state": model_pb2.ReleaseState.Name(record.state),
        "standing_share": record.standing_share,
        "manifest_uri": record.base.manifest_uri,
        "manifest_digest": record.base.manifest_digest.hex(),
        "base_sequence": record.base.sequence,
        "base_epoch": record.base.epoch,
        "delta_offset": record.base.delta_offset,
    }
