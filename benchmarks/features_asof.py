"""Speed of the as-of join, beside a plain Polars ``join_asof``.

50,000 labels against two views (of items and of users, seven features each, windows and all time) over a log
of 1,000,000 events, in memory, one thread. The plain join looks up one earlier row per label and computes
nothing. Each label is there, and some are checked against the replay.
"""

from __future__ import annotations

import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np

from services.contract.view_asof import asof
from services.contract.view_events import ACTED, SHOWN
from services.contract.view_log import EventLog, Labels
from services.contract.view_replay import Ask, replay
from services.contract.views_world import MINUTE_US, WORLD_VIEWS

VIEWS = tuple(view for view in WORLD_VIEWS if view.name in ("item_activity", "user_activity"))
DAY_US = 24 * 60 * MINUTE_US
START_US = 1_700_000_000 * 1_000_000
USERS, ITEMS = 50_000, 20_000
CHECKED = 20


def log_and_labels(rows: int, labels: int, seed: int) -> tuple[EventLog, Labels]:
    """A day: Zipf items, users alike, a tenth clicks, event times a little out of order."""
    rng = np.random.default_rng(seed)
    at_us = START_US + np.sort(rng.integers(0, DAY_US, rows)) + rng.integers(0, 500_000, rows)
    clicked = rng.random(rows) < 0.1
    log = EventLog(
        np.where(clicked, ACTED.code, SHOWN.code).astype(np.uint8),
        at_us,
        rng.integers(0, 1 << 63, rows).astype(np.uint64),
        at_us + 100_000,
        np.zeros(rows, np.int32),
        np.arange(rows),
        {
            "user_id": _id(rng.integers(0, USERS, rows)),
            "item_id": _id(_zipf(rng, rows)),
            "category": rng.integers(0, 20, rows),
            "action": clicked.astype(np.int64),
            "position": rng.integers(0, 10, rows),
            "dwell_s": rng.integers(0, 1 << 24, rows),
        },
    )
    asked = START_US + rng.integers(0, DAY_US, labels)
    # Entities without any row are among them.
    fields = {
        "user_id": _id(rng.integers(0, USERS + 500, labels)),
        "item_id": _id(np.where(rng.random(labels) < 0.01, ITEMS + 1, _zipf(rng, labels))),
    }
    return log, Labels(asked, fields)


def _zipf(rng: np.random.Generator, count: int) -> np.ndarray:
    return np.minimum(ITEMS * rng.random(count) ** 3, ITEMS - 1).astype(np.int64)


def _id(numbers: np.ndarray) -> np.ndarray:
    return numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)


_PLAIN = """
import sys, time
import polars as pl
folder = sys.argv[1]
log = pl.read_parquet(folder + "/log.parquet")
labels = pl.read_parquet(folder + "/labels.parquet")
print(pl.__version__, pl.thread_pool_size(), flush=True)
for _ in sys.stdin:
    started = time.perf_counter()
    cpu = time.process_time()
    joined = labels.sort("at_us")
    for key in ("item_id", "user_id"):
        right = log.select(key, "at_us", pl.col("position").alias(key + "_seen")).sort("at_us")
        joined = joined.join_asof(right, on="at_us", by=key, strategy="backward", allow_exact_matches=False)
    assert joined.height == labels.height
    print(time.perf_counter() - started, time.process_time() - cpu, flush=True)
"""


class Plain:
    """A process with Polars, asked for one join after the other."""

    def __init__(self, python: str, log: EventLog, labels: Labels, folder: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        def write(name: str, at_us: np.ndarray, fields: dict[str, np.ndarray]) -> None:
            pq.write_table(pa.table({"at_us": at_us, **fields}), folder / name)

        names = ("user_id", "item_id", "position")
        write("log.parquet", log.occurred_us, {name: log.fields[name] for name in names})
        write("labels.parquet", labels.at_us, dict(labels.fields))
        self._child = subprocess.Popen(
            [python, "-c", _PLAIN, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.version, self.threads = self._line()

    def _line(self) -> list[str]:
        assert self._child.stdout is not None
        line = self._child.stdout.readline().split()
        if not line:
            raise SystemExit("the plain join failed")
        return line

    def join(self) -> tuple[float, float]:
        """(wall, CPU) seconds of one join."""
        assert self._child.stdin is not None
        self._child.stdin.write("\n")
        self._child.stdin.flush()
        wall, cpu = self._line()
        return float(wall), float(cpu)

    def close(self) -> None:
        """Ends the process."""
        assert self._child.stdin is not None
        self._child.stdin.close()
        self._child.wait(10)


def views_once(log: EventLog, labels: Labels) -> tuple[float, float, list[np.ndarray]]:
    """(wall, CPU) seconds, and the values of each view."""
    started, cpu = time.perf_counter(), time.process_time()
    found = [asof(view, log, labels).values for view in VIEWS]
    return time.perf_counter() - started, time.process_time() - cpu, found


def wrong_labels(log: EventLog, labels: Labels, found: list[np.ndarray]) -> int:
    """Of some labels, how many differ from the replay."""
    wrong = 0
    for row in np.linspace(0, len(labels.at_us) - 1, CHECKED).astype(int):
        ask = Ask({name: int(column[row]) for name, column in labels.fields.items()}, int(labels.at_us[row]))
        for view, values in zip(VIEWS, found, strict=True):
            mine = np.flatnonzero(log.field(view.key[0]) == ask.fields[view.key[0]])
            events = log.take(mine).events()
            expected = replay(view, [(event, 0) for event in events], ask).values
            wrong += not np.array_equal(values[row], np.array(expected, np.float32))
    return wrong


def measure(python: str, log: EventLog, labels: Labels, folder: Path, rounds: int) -> dict[str, Any]:
    """``python``: an interpreter that has polars. Both sides by turns."""
    ours: list[tuple[float, float]] = []
    plain: list[tuple[float, float]] = []
    other = Plain(python, log, labels, folder)
    for _ in range(rounds):
        wall, cpu, found = views_once(log, labels)
        ours.append((wall, cpu))
        plain.append(other.join())
    other.close()
    ratios = [mine[0] / theirs[0] for mine, theirs in zip(ours, plain, strict=True)]
    return {
        "rows": len(log.occurred_us),
        "labels": len(labels.at_us),
        "features": sum(len(view.features) for view in VIEWS),
        "asof_ms": _middle(ours),
        "plain_ms": _middle(plain),
        "polars": {"version": other.version, "threads": int(other.threads)},
        "ratio": round(statistics.median(ratios), 2),
        "ratio_range": [round(min(ratios), 2), round(max(ratios), 2)],
        "dropped": sum(len(labels.at_us) - len(values) for values in found),
        "wrong": wrong_labels(log, labels, found),
    }


def _middle(times: list[tuple[float, float]]) -> dict[str, float]:
    wall, cpu = (statistics.median(column) * 1000 for column in zip(*times, strict=True))
    return {"wall": round(wall, 1), "cpu": round(cpu, 1), "best": round(min(times)[0] * 1000, 1)}
