"""How a view joins a running loop: what the fold and the backfill from the lake tell each other in Redis.

Per partition p of feature-events, the hash ``p:view:<p>:<name>.<version>``:

| field | value | written by |
|---|---|---|
| ``definition`` | the view's definition hash, 16 hexadecimal digits | fold, at the view's start |
| ``offset`` | O: the first offset of feature-events that the view's own replay reads | fold, with it |
| ``<origin topic>/<partition>`` | M: the sequence of this origin that p had folded last | fold, with it |
| ``filled`` | states written | backfill, after all of them |

1. The fold meets a view that it does not know: it writes definition, O and M in one transaction, once.
2. The backfill waits until the lake holds everything up to M, makes the states of p's entities at that cut
   (view_init), writes them under ``redis_keys.view_key``, and then ``filled``.
3. The fold replays feature-events from O for this view alone, and goes on with it as with the others.

Whatever p owns stands at or below M or comes at O or later, never both: so each event counts once. An origin
without a field has nothing below the cut. Other fields of the hash are the fold's own. A backfill may run
again until the fold has begun its replay: the same cut gives the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from services.contract.errors import FieldViolation, MalformedRecord
from services.contract.feature_view import FeatureView

DEFINITION, OFFSET, FILLED = b"definition", b"offset", b"filled"
_ORIGIN = re.compile(rb"[a-z0-9._-]+/\d{1,6}")
_HASH = re.compile(rb"[0-9a-f]{16}")
_NUMBER = re.compile(rb"-?\d{1,19}")


def start_key(view: FeatureView, partition: int) -> bytes:
    """Key of a view's start on one feature-events partition."""
    return b"p:view:%d:%s.%d" % (partition, view.name.encode(), view.version)


@dataclass(frozen=True)
class ViewStart:
    """Where a view begins on one partition. ``marks``: origin -> sequence folded last; ``filled``: states
    that the backfill has written, None before it."""

    definition_hash: int
    offset: int
    marks: Mapping[str, int]
    filled: int | None = None

    def fields(self) -> dict[bytes, bytes]:
        """What the fold writes."""
        marks = {origin.encode(): b"%d" % sequence for origin, sequence in self.marks.items()}
        return {DEFINITION: b"%016x" % self.definition_hash, OFFSET: b"%d" % self.offset, **marks}

    def cut(self) -> dict[str, int]:
        """As view_init takes it: per origin the first sequence that is not in the history."""
        return {origin: sequence + 1 for origin, sequence in self.marks.items()}

    def check(self, view: FeatureView) -> None:
        """MalformedRecord when the start is that of another definition under the same name and version."""
        if self.definition_hash != view.definition_hash:
            raise MalformedRecord.one(
                "definition", f"{self.definition_hash:016x}", f"{view.definition_hash:016x} of {view.name}"
            )

    @classmethod
    def parse(cls, stored: Mapping[bytes, bytes]) -> ViewStart | None:
        """Of the hash's fields; None: the fold has not written any. MalformedRecord names what is bad."""
        if DEFINITION not in stored and OFFSET not in stored:
            return None
        bad = []
        for name, shape in ((DEFINITION, _HASH), (OFFSET, _NUMBER), (FILLED, _NUMBER)):
            value = stored.get(name)
            if not (value is None and name == FILLED) and not shape.fullmatch(value or b""):
                bad.append(FieldViolation(name.decode(), repr(value), "see view_backfill"))
        origins = {name: value for name, value in stored.items() if _ORIGIN.fullmatch(name)}
        bad += [
            FieldViolation(name.decode(), repr(value), "a sequence")
            for name, value in origins.items()
            if not _NUMBER.fullmatch(value)
        ]
        if bad:
            raise MalformedRecord(bad)
        marks = {name.decode(): int(value) for name, value in origins.items()}
        filled = stored.get(FILLED)
        return cls(
            int(stored[DEFINITION], 16), int(stored[OFFSET]), marks, None if filled is None else int(filled)
        )
