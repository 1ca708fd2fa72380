"""Catalogue, features and model of a running stack, as the file that its peers are made of (plain_model)."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import grpc
import numpy as np
from numpy.typing import NDArray

from benchmarks.plain_model import DENSE
from loadgen.settings import Day0Settings
from loadgen.world import World
from local.stack import Stack
from rec.v1 import feature_pb2, feature_pb2_grpc, release_pb2, release_pb2_grpc
from services.contract import columns, model_schema
from services.contract.model_state import ModelState
from services.contract.model_store import load_base
from services.runtime.settings import load

ARM = "online"
CHUNK = 1_000
# Requests that are made again and again.
VISITS = 5_000

Ids = NDArray[np.uint64]


class Visits(NamedTuple):
    """Who asks, in order: ``order`` [VISITS] are numbers of ``users``, all ids are the world's."""

    users: Ids
    order: NDArray[np.int64]
    items: Ids


def visits_of_world() -> Visits:
    """Of the simulated world that the stack was seeded with, as the environment says: users come by their
    activity, as under the load generator."""
    config = load(Day0Settings, []).sim.config()
    world = World(config)
    draws = np.random.default_rng(8).random(VISITS)
    chosen = world.users.choose(np.zeros(VISITS), draws, np.ones(VISITS))
    users, order = np.unique(world.users.ids[chosen], return_inverse=True)
    return Visits(users, order, world.items.ids[: config.items].copy())


def export(stack: Stack, path: Path, visits: Visits) -> None:
    """Writes the file: the model is the base of the arm online, features are those of now."""
    state = _served(stack)
    of_users, of_items = _features(stack, visits.users, visits.items)
    np.savez(
        path,
        user_features=of_users,
        item_features=of_items,
        **arrays_of(state, visits.users, visits.items),
    )


def arrays_of(state: ModelState, users: Ids, items: Ids) -> dict[str, NDArray]:
    """Everything of the file but the features. An id without a row gets zeros, which is how it scores."""
    rank, recall = model_schema.RANK_WIDTH, model_schema.RECALL.slice
    of_item = slice(model_schema.RECALL.start, model_schema.RECALL_BIAS.stop)
    categories = state.tables["category"].ids()[0]
    numbers = np.arange(int(categories.max(initial=0)) + 1, dtype=np.uint64)
    rows = {
        name: state.tables[name].rows[state.tables[name].slots(ids)]
        for name, ids in (("user", users), ("item", items), ("category", numbers))
    }
    return {
        "user_vectors": np.ascontiguousarray(rows["user"][:, recall]),
        "item_vectors": np.ascontiguousarray(rows["item"][:, of_item]),
        **{f"{name}_rows": np.ascontiguousarray(values[:, :rank]) for name, values in rows.items()},
        **{f"{DENSE}{name}": values for name, values in state.dense.items()},
        "category_column": np.array(state.shape.category_column),
    }


def _served(stack: Stack) -> ModelState:
    with grpc.insecure_channel(stack.addresses.target("release")) as channel:
        stub = release_pb2_grpc.ReleaseServiceStub(channel)
        said = stub.ListReleases(release_pb2.ListReleasesRequest(), timeout=10)
    base = next(release.base for release in said.releases if release.arm == ARM)
    return load_base(base.manifest_uri, root=stack.addresses.model_store_uri)[0]


def _features(stack: Stack, users: Ids, items: Ids) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    of_items = []
    with grpc.insecure_channel(stack.addresses.target("feature")) as channel:
        stub = feature_pb2_grpc.FeatureServiceStub(channel)

        def ask(user: int, wanted: Ids) -> feature_pb2.GetFeaturesResponse:
            asked = columns.encode(wanted, columns.U64)
            request = feature_pb2.GetFeaturesRequest(user_id=user, item_ids=asked)
            return stub.GetFeatures(request, timeout=10)

        for start in range(0, len(items), CHUNK):
            wanted = items[start : start + CHUNK]
            said = ask(int(users[0]), wanted)
            of_items.append(np.frombuffer(said.item_features, columns.F32).reshape(len(wanted), -1))
        of_users = [np.frombuffer(ask(user, items[:1]).user_features, columns.F32) for user in users.tolist()]
    return np.stack(of_users), np.concatenate(of_items)
