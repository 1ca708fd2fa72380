"""Where a new owner of a partition starts: from what is committed and what the log still holds. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from services.contract.errors import Conflict, MalformedRecord
from services.contract.join_events import Source
from services.contract.join_position import Position, decode_position, start


@dataclass
class Start:
    """Positions to restore, and what was lost on the way ("": nothing)."""

    positions: dict[Source, Position] = field(default_factory=dict)
    losses: dict[Source, str] = field(default_factory=dict)


def recover(
    committed: Mapping[Source, tuple[int, str]],
    beginnings: Mapping[Source, int],
    ends: Mapping[Source, int],
) -> Start:
    """Of the inputs in ``beginnings``. ``committed``: (offset, metadata) per input, absent before the first
    commit.

    Losses: ``no_state`` (committed by something else than a joiner), ``replay_cut`` (the log no longer
    holds all that the state needs), ``records_cut`` (nor all that has not been joined). Conflict when the
    log ends before what is committed: that is another topic of the same name, and joining it from the start
    would say its samples again.
    """
    found = Start()
    for source, beginning in beginnings.items():
        if source not in committed:
            found.positions[source] = start(beginning)
            continue
        offset, metadata = committed[source]
        if offset > ends[source]:
            raise Conflict(
                f"{source.name.lower()}: committed offset {offset} is beyond the end {ends[source]}: "
                "the topic was created anew; delete the consumer group or use another group id"
            )
        try:
            position = decode_position(offset, metadata)
        except MalformedRecord:
            position = start(offset)
            found.losses[source] = "no_state"
        if position.offset < beginning:
            position = replace(position, offset=beginning, low_offset=beginning)
            found.losses[source] = "records_cut"
        elif position.low_offset < beginning:
            position = replace(position, low_offset=beginning)
            found.losses[source] = "replay_cut"
        found.positions[source] = position
    return found
