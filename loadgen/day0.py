"""``python -m loadgen day0``: the world's first day and the model trained on it, made once, cached.

Two cached folders: ``day0-<hash>`` (log, samples, feature state, catalogue; named by the world's config, the
contract's schema and the code that made it) and ``base-<hash>`` (generation 1, trained on those samples;
named by the former and the trainer's code).
"""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
import time
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np

from loadgen import cache, day0_clicks, day0_files, day0_views
from loadgen.day0_join import Joined, join_session
from loadgen.day0_log import BOUND_US, END_US, WINDOW_US, Day0Log, Records, event_us
from loadgen.items import item_key
from loadgen.settings import Day0Settings
from loadgen.world import World
from loadgen.world_config import WorldConfig
from services.contract.feature_sets import feature_set
from services.contract.model_schema import shape_of
from services.contract.model_store import MANIFEST_NAME

LOG_SOURCES = (
    "loadgen/world*.py",
    "loadgen/items.py",
    "loadgen/users.py",
    "loadgen/exposures.py",
    "loadgen/arrivals.py",
    "loadgen/scenarios.py",
    "loadgen/timeline.py",
    "loadgen/day0_*.py",
    "services/contract/feature*.py",
    "services/contract/view*.py",
    "services/contract/join*.py",
)
BASE_SOURCES = ("trainer/*.py", "services/contract/model_*.py", "services/contract/id_table.py")


def _say(text: str) -> None:
    print(f"day0: {text}", file=sys.stderr, flush=True)


def day0_folder(config: WorldConfig, set_name: str) -> Path:
    """The folder of the log and the state; made when it is not there."""
    name = cache.fingerprint([config, feature_set(set_name).schema_hash, END_US], LOG_SOURCES)
    return cache.folder("day0", name, lambda folder: build_log(config, set_name, folder))


def base_folder(day0: Path, set_name: str) -> Path:
    """A model store that holds generation 1 of that day; trained when it is not there."""
    name = cache.fingerprint([day0.name, _model_hash(set_name)], BASE_SOURCES)

    def build(folder: Path) -> None:
        _train(["--samples", str(day0 / day0_files.SAMPLES), "--out", str(folder)], set_name)

    return cache.folder("base", name, build)


def untrained_base_folder(set_name: str, seed: int) -> Path:
    """A model store that holds an untrained generation 1, for replays."""
    name = cache.fingerprint([_model_hash(set_name), seed], BASE_SOURCES)
    arguments = ["--init", "--seed", str(seed)]
    return cache.folder("init", name, lambda folder: _train([*arguments, "--out", str(folder)], set_name))


def _model_hash(set_name: str) -> int:
    return shape_of(feature_set(set_name)).model_hash


def manifest_in(folder: Path) -> Path:
    """The one manifest below a model store folder."""
    found = sorted(folder.rglob(MANIFEST_NAME))
    if len(found) != 1:
        raise FileNotFoundError(f"{folder} holds {len(found)} manifests instead of one: remove the folder")
    return found[0]


def _train(arguments: list[str], set_name: str) -> None:
    _say(f"training generation 1: trainer base {arguments[0]}")
    command = [sys.executable, "-m", "trainer", "base", *arguments, "--feature-set", set_name]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    if done.returncode:
        raise SystemExit(f"day0: {' '.join(command[1:])} ended with {done.returncode}")


def build_log(config: WorldConfig, set_name: str, folder: Path) -> None:
    """Simulates day 0 into ``folder``. The join runs in a second process, a session behind."""
    began = time.monotonic()
    _say(f"simulating {config.sessions} sessions of {config.session_s:.0f} s, seed {config.seed}")
    log = Day0Log(World(config), feature_set(set_name))
    writer = _LogWriter(folder)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        pending: Future[Joined] | None = None
        for number, records in enumerate(log.sessions(), start=1):
            writer.events(records)
            if pending is not None:
                writer.samples(pending.result())
            pending = pool.submit(join_session, WINDOW_US, BOUND_US, records.sources, records.events)
            _say(
                f"session {number}/{config.sessions}: {log.counts.impressions:,} impressions, "
                f"{log.counts.clicks:,} clicks, {time.monotonic() - began:.0f} s"
            )
        if pending is not None:
            writer.samples(pending.result())
    writer.close()
    if writer.rows + writer.rejected != log.counts.impressions:
        raise RuntimeError(f"{log.counts.impressions} impressions became {writer.rows} samples")
    _write_catalogue(folder, log)
    _write_views(folder, log)
    meta = {
        "config": asdict(config),
        "feature_set": set_name,
        "end_us": END_US,
        **asdict(log.counts),
        "samples": writer.rows,
        "seconds": round(time.monotonic() - began, 1),
    }
    (folder / day0_files.META).write_text(json.dumps(meta, indent=2) + "\n")


class _LogWriter:
    """The two logs, as they come."""

    def __init__(self, folder: Path) -> None:
        self._events = day0_files.Appender(folder / day0_files.EVENTS, day0_files.EVENTS_SCHEMA)
        self._samples = day0_files.Appender(folder / day0_files.SAMPLES, day0_files.SAMPLES_SCHEMA)
        self.rows = 0
        self.rejected = 0

    def events(self, records: Records) -> None:
        self._events.add(records.sources, records.events)

    def samples(self, joined: Joined) -> None:
        self._samples.add(joined.samples)
        self.rows += joined.rows
        self.rejected += sum(joined.rejected.values())

    def close(self) -> None:
        self._events.close()
        self._samples.close()


def _write_catalogue(folder: Path, log: Day0Log) -> None:
    hidden, count = log.world.items, log.world.config.items
    day0_files.write(
        folder,
        "items",
        day0_files.ITEMS_SCHEMA,
        hidden.ids[:count],
        [item_key(i) for i in range(count)],
        hidden.category[:count],
        event_us(hidden.born_s[:count]),
    )


def _write_views(folder: Path, log: Day0Log) -> None:
    day0_files.write(folder, "views", day0_views.SCHEMA, *day0_views.columns(log.events.log))
    pairs = day0_clicks.co_clicks(day0_clicks.clicks(log.events.log))
    day0_files.write(
        folder,
        "co_clicks",
        day0_files.CO_CLICKS_SCHEMA,
        pairs[:, 0],
        pairs[:, 1],
        pairs[:, 2].astype(np.uint32),
    )


def run(settings: Day0Settings) -> int:
    """Makes what is missing and says where it is."""
    began = time.monotonic()
    day0 = day0_folder(settings.sim.config(), settings.feature_set)
    base = base_folder(day0, settings.feature_set)
    meta = json.loads((day0 / day0_files.META).read_text())
    print(
        f"day 0: {meta['impressions']:,} impressions, {meta['clicks']:,} clicks, {meta['samples']:,} samples "
        f"({day0})\ngeneration 1: {manifest_in(base)}\n{time.monotonic() - began:.1f} s"
    )
    return 0
