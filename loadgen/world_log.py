"""``python -m loadgen world-log``: the simulated world as a log that can be replayed in event time.

A real log cannot say what would have happened had the world stood still. This one can: the same users, items
and arrivals in a world that drifts and in one that does not. What is shown does not come from a
model (day 0's policy: popular, liked, new, random), so every arm of a replay judges the same lists. The
columns are those of a generic log (datasets.py); a request is one user's ten items at one moment.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from loadgen.arrivals import SHOWN, Plan, plan
from loadgen.day0_log import CHUNK, event_us
from loadgen.day0_policy import LoggingPolicy
from loadgen.exposures import Exposures
from loadgen.items import item_key
from loadgen.settings import WorldLogSettings
from loadgen.users import user_key
from loadgen.world import World, examination
from loadgen.world_random import Stream, generator
from services.contract.times import MICROS

CONFIG = b"recloop.world"


def events(world: World, arrivals: Plan) -> pa.Table:
    """A row per shown item, in order of time and position: timestamp in seconds, keys, label (clicked),
    position, category."""
    policy, exposures = LoggingPolicy(world), Exposures(len(world.users))
    rng = generator(world.config.seed, Stream.LOGGING_POLICY)
    seen = examination(np.arange(SHOWN))
    # No scenario is on: only the usual arrivals come, and no bots.
    arrivals = arrivals.usual()
    visits = zip(arrivals.at_s.tolist(), arrivals.who_draws, strict=True)
    visitors = np.array([world.visitor(t_s, draws) for t_s, draws in visits], np.int64)
    shown = np.zeros((len(arrivals), SHOWN), np.int64)
    clicked = np.zeros((len(arrivals), SHOWN), bool)
    for begin in range(0, len(arrivals), CHUNK):
        part = slice(begin, begin + CHUNK)
        users, t_s = visitors[part], arrivals.at_s[part]
        items = policy.choose(rng, users, t_s, world.items.born_until(float(t_s[0])))
        rows = np.repeat(np.arange(len(users)), SHOWN)
        fatigue = exposures.count(users, items).ravel()
        p = world.true_p(users[rows], items.ravel(), t_s[rows], fatigue).reshape(items.shape)
        exposures.add(users, items)
        shown[part], clicked[part] = items, arrivals.click_draws[part] < p * seen
    return _table(world, arrivals, visitors, shown, clicked)


def _table(
    world: World,
    arrivals: Plan,
    visitors: NDArray[np.int64],
    shown: NDArray[np.int64],
    clicked: NDArray[np.bool_],
) -> pa.Table:
    at_us = np.repeat(event_us(arrivals.at_s), SHOWN)
    return pa.table(
        {
            "timestamp": at_us / MICROS,
            "user_id": [user_key(user) for user in np.repeat(visitors, SHOWN).tolist()],
            "item_id": [item_key(item) for item in shown.ravel().tolist()],
            "label": clicked.ravel().astype(np.int8),
            "position": np.tile(np.arange(SHOWN, dtype=np.int8), len(arrivals)),
            "category": world.items.category[shown.ravel()],
        }
    )


def run(settings: WorldLogSettings) -> int:
    """Writes the log."""
    config = settings.sim.config()
    world = World(config, settings.drift)
    table = events(world, plan(config.seed, settings.rate, settings.duration_s, settings.run))
    said = {**asdict(config), "drift": settings.drift, "run": settings.run}
    settings.log.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata({CONFIG: json.dumps(said)}), settings.log)
    clicks = float(np.mean(table["label"].to_numpy())) if len(table) else 0.0
    print(f"world-log: {len(table):,} rows, {clicks:.1%} clicked, to {settings.log}", file=sys.stderr)
    return 0
