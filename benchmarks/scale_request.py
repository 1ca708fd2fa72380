"""How a request's cost grows, with its candidates and with the items to choose from: the pieces of the
services themselves, in one process, one thread each.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from benchmarks.scale_figures import Curve, Point, timed
from benchmarks.scale_sizing import Sizes as Request
from benchmarks.scale_sizing import messages
from benchmarks.trainer_traffic import SHAPE, Sizes, Traffic
from services.contract import model_schema
from services.contract.delta import TableChange
from services.contract.feature_sets import FEATURE_SETS, WORLD
from services.feature.answer import Reading, warm_up
from services.feature.near_cache import NearCache
from services.feature.program import Layout
from services.feature.query import Query
from services.ranking.arm_model import ArmModel
from services.ranking.rank import ranked
from services.ranking.request_check import Candidates
from services.recall import list_build
from services.recall.list_build import Listing
from services.recall.merge import merge
from services.recall.sources import Proposal, Source
from services.recall.vector_table import query_of
from services.recall.vectors import VectorModel, VectorVersion
from services.runtime import resp
from services.runtime.resp import Reply

FEATURES = FEATURE_SETS[WORLD]
SERVED = 100
WANTED = 1_000
CHANGED, ASKED = 1_000, 100
THEMES = 1_000
NOW_US = 1_700_000_000_000_000
VERSION = VectorVersion(1, "online", 1, NOW_US, NOW_US)

OF_CANDIDATES = Curve(
    "A request's candidates",
    "candidates",
    {
        "merge_ms": "recall: sources merged, ms",
        "features_ms": "features of items that are near, ms",
        "rank_ms": "ranked by the model, ms",
        "kb": "carried by the gateway, KB",
    },
    ("merge_ms", "features_ms", "rank_ms"),
)
OF_ITEMS = Curve(
    "Items of the catalogue (1,000 by vector)",
    "items",
    {
        "all_ms": "through all, ms",
        "lists_ms": "in lists, ms",
        "recall": "recall@1000 in lists",
        "probed": "lists looked into",
        "build_s": "lists made, s",
        "delta_ms": "1,000 changed items put in place, ms",
    },
    ("all_ms", "lists_ms"),
)


_SHARES = ((Source.VECTOR, 0.5), (Source.POPULAR, 0.2), (Source.FRESH, 0.1), (Source.CO_CLICK, 0.1))


def of_candidates(sizes: Sequence[int], seconds: float, items: int = 100_000) -> Iterator[Point]:
    """Merging, encoding, ranking."""
    traffic = Traffic(Sizes(users=max(items // 10, 10), items=items, batches=1))
    model = ArmModel("online", traffic.state(), FEATURES, NOW_US)
    model.warm_up()
    layout = Layout(FEATURES)
    warm_up(layout)
    near = NearCache(layout, max(items, *sizes), 3_600.0)
    for count in sizes:
        asked, proposals = _asked(traffic, count)
        sent = messages(Request(candidates=count, served=asked.n))
        yield {
            "x": count,
            "merge_ms": timed(partial(_merged, proposals, traffic.item_ids, count), seconds),
            "features_ms": timed(partial(_features, layout, near, asked.item_ids), seconds),
            "rank_ms": timed(partial(ranked, model, asked), seconds),
            "kb": round(sum(of for name, of in sent.items() if name not in _OF_KAFKA) / 1e3, 1),
        }


def _asked(traffic: Traffic, count: int) -> tuple[Candidates, list[Proposal]]:
    """A user's candidates, and what sources would have proposed."""
    rng = np.random.default_rng(count)
    ids = rng.choice(traffic.item_ids, count, replace=False)
    values = rng.normal(0, 1, (count, SHAPE.item_width)).astype(np.float32)
    values[:, SHAPE.category_column] = 1
    user = rng.normal(0, 1, SHAPE.user_width).astype(np.float32)
    proposals = [
        Proposal(source, rng.choice(traffic.item_ids, int(2 * share * count), replace=False), share)
        for source, share in _SHARES
    ]
    user_id = int(traffic.user_ids[0])
    return Candidates(SHAPE, user_id, ids, user, values, min(SERVED, count), NOW_US), proposals


def _merged(proposals: list[Proposal], catalogue: NDArray[np.uint64], count: int) -> object:
    return merge(proposals, catalogue, n=count, exploration_share=0.1, request_id="r")


_OF_KAFKA = ("snapshot", "events", "samples")


def _features(layout: Layout, near: NearCache, ids: NDArray[np.uint64]) -> bytes:
    """As the feature server does, without Redis: the user's own states are read as missing."""
    reading = Reading(layout, Query(1, ids, NOW_US), near, 1)
    reading.take_first(Reply.nulls(resp.keys_of(reading.first())))
    if columns := reading.second():
        reading.take_second(Reply.nulls(resp.keys_of(columns)))
    return reading.build().data


def of_items(sizes: Sequence[int], seconds: float) -> Iterator[Point]:
    """The vector source: through everything, and in lists however few there are."""
    world = _World()
    for count in sizes:
        yield _items_point(world, count, seconds)


def _items_point(world: _World, count: int, seconds: float) -> Point:
    model, k = world.model(count), min(WANTED, count // 2)
    users = itertools.cycle(range(1, world.users + 1))
    point: Point = {"x": count, "all_ms": timed(lambda: model.search(next(users), k), seconds)}
    began = time.perf_counter()
    listing = list_build.build(model)
    point["build_s"] = round(time.perf_counter() - began, 2)
    point["probed"] = round(listing.watch.probes / len(listing.lists), 3)
    # Whether recall would use them or not.
    in_lists = partial(_in_lists, listing, model, k)
    point["lists_ms"] = timed(lambda: in_lists(next(users)), seconds)
    model.listing = None
    shares = [np.isin(model.search(user, k).ids, in_lists(user)).mean() for user in range(1, ASKED + 1)]
    point["recall"] = round(float(np.mean(shares)), 4)
    model.listing = listing
    changed = np.random.default_rng(count).choice(count, min(CHANGED, count), replace=False)
    change = world.change(np.sort(changed))
    nearest = model.nearest([change])
    return point | {"delta_ms": timed(partial(model.apply, [change], VERSION, nearest), seconds / 2)}


def _in_lists(listing: Listing, model: VectorModel, k: int, user: int) -> NDArray[np.uint64]:
    factors = model.users.get(user)
    assert factors is not None
    found = listing.lists.best(model.items, query_of(factors), k, listing.watch.probes)
    return model.search(user, k).ids if found is None else found


class _World:
    """Items around themes and users who like one, as a trained model has them; THEMES of them, whatever the
    number of items."""

    users = 500

    def __init__(self) -> None:
        self._rng = np.random.default_rng(8)
        self._themes = self._rng.normal(0, 1, (THEMES, model_schema.RECALL_FACTORS)).astype(np.float32)

    def _rows(self, count: int) -> NDArray[np.float32]:
        rows = np.zeros((count, model_schema.ROW_WIDTH), np.float32)
        noise = self._rng.normal(0, 0.5, (count, model_schema.RECALL_FACTORS)).astype(np.float32)
        rows[:, model_schema.RECALL.slice] = self._themes[self._rng.integers(0, THEMES, count)] + noise
        rows[:, model_schema.RECALL_BIAS.start] = self._rng.normal(0, 1, count)
        return rows

    def model(self, items: int) -> VectorModel:
        """Ids from 1 on."""
        model = VectorModel(VERSION)
        for table, count in (("item", items), ("user", self.users)):
            for start in range(0, count, 100_000):
                ids = np.arange(start + 1, min(start + 100_000, count) + 1, dtype=np.uint64)
                model.load(table, ids, self._rows(len(ids)))
        return model

    def change(self, places: NDArray[np.int64]) -> TableChange:
        """New values of items."""
        n = len(places)
        ids, zeros = places.astype(np.uint64) + np.uint64(1), np.zeros((n, 2), np.float32)
        return TableChange("item", ids, self._rows(n), zeros, np.ones(n, np.uint32), np.zeros(n, np.int64))
