"""What one partition has said since its last commit. Pure; compiled with the join, as a part of its path."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from services.contract.join import JoinTask
from services.contract.join_events import Source
from services.contract.join_output import BarrierPassed, Output, Rejected, Sample
from services.joiner.outgoing import Names, Outgoing, outgoing


class Said:
    """Records to send, and what is to be noted about them."""

    def __init__(self, partition: int, names: Names) -> None:
        self._partition = partition
        self._names = names
        self.records: list[Outgoing] = []
        # By outcome: append times of the deciding records, in ms.
        self.decided: dict[str, list[int]] = {"positive": [], "negative": [], "correction": []}
        # Of late events: input and how far below the watermark.
        self.late: list[tuple[Source, int]] = []
        self.positive = False
        # The last one passed.
        self.barrier_id = ""

    def join(self, task: JoinTask, source: Source, records: Sequence[Any], joined_us: int) -> int:
        """Feeds ConsumerRecords of one input, but no repeated offsets and nothing beyond a replay. Gives how
        many offsets are missing among them."""
        clock, missing = task.inputs[source], 0
        end = task.replay_until[source] if task.replaying else None
        for record in records:
            offset: int = record.offset
            if offset < clock.next_offset:
                continue
            if end is not None and offset >= end:
                break
            missing += offset - clock.next_offset
            outputs = task.feed(source, offset, record.value or b"")
            if outputs:
                self._say(outputs, record.key, record.timestamp, joined_us)
        return missing

    def _say(self, outputs: list[Output], key: bytes | None, at_ms: int, joined_us: int) -> None:
        for output in outputs:
            self.records.append(outgoing(output, self._partition, key, joined_us, self._names))
            if isinstance(output, Sample):
                if output.correction:
                    self.decided["correction"].append(at_ms)
                else:
                    self.decided["positive" if output.positive else "negative"].append(at_ms)
                self.positive = self.positive or output.positive
            elif isinstance(output, BarrierPassed):
                self.barrier_id = output.barrier_id
            elif isinstance(output, Rejected) and output.behind_us:
                self.late.append((output.source, output.behind_us))
