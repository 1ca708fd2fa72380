"""``world.json``: the moment that a seeded world's time counts from, written by seed, read by simulate."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loadgen.world_config import WorldConfig
from services.contract.errors import Conflict, MalformedRecord, NotFound
from services.contract.times import MICROS

NAME = "world.json"
_MINUTE_US = 60 * MICROS


@dataclass(frozen=True)
class WorldClock:
    """Event time of world time 0."""

    origin_us: int

    @classmethod
    def starting(cls, now_us: int) -> WorldClock:
        """A world whose day 0 has just ended, at the last whole minute."""
        return cls(now_us // _MINUTE_US * _MINUTE_US)

    def world_s(self, event_us: int) -> float:
        """World time of an event time."""
        return (event_us - self.origin_us) / MICROS

    def event_us(self, world_s: float) -> int:
        """Event time of a world time."""
        return self.origin_us + round(world_s * MICROS)


def write(folder: Path, clock: WorldClock, config: WorldConfig) -> None:
    """Replaces the file at once."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{NAME}.tmp"
    partial.write_text(json.dumps({"origin_us": clock.origin_us, "config": asdict(config)}, indent=2) + "\n")
    partial.replace(folder / NAME)


def read(folder: Path, config: WorldConfig) -> WorldClock:
    """The clock of the seeded world. NotFound: nothing was seeded; Conflict: another world was."""
    path = folder / NAME
    try:
        content: dict[str, Any] = json.loads(path.read_text())
        clock, seeded = WorldClock(int(content["origin_us"])), WorldConfig(**content["config"])
    except FileNotFoundError:
        raise NotFound(f"no {path}: no world was seeded; run `python -m loadgen seed` first") from None
    except (ValueError, KeyError, TypeError) as error:
        raise MalformedRecord.one(
            str(path), repr(error), "origin_us and config, as seed writes them"
        ) from error
    if seeded != config:
        raise Conflict(f"{path} is of another world ({seeded}): give the same --sim.* settings as the seed")
    return clock
