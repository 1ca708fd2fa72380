"""The stack that one would put together from parts: a program of its own environment (`make bench-setup`).

``assembled_stack.py PORT WORLD FOLDER REDIS``: FastAPI on uvicorn, faiss (IVF) for recall, Feast on Redis for
features, torch in the same process. WORLD: the file of plain_model, so catalogue, features and model are
those of the loop. REDIS: host:port of an empty server, which is filled first. POST /recommend with the user's
number as int64 answers as the bare chain does: 100 items, 100 scores.

Tuned, each for the better: one Array feature per entity instead of sixteen columns, the online store asked by
the SDK inside the process, raw bytes instead of JSON, uvloop and httptools, the model prepared once
(plain_model), gc.freeze() when all is loaded, nprobe as low as recall@1000 of 0.95 allows.
"""

import asyncio
import gc
import itertools
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import faiss
import numpy as np
import pandas as pd
import torch
import uvicorn
from fastapi import FastAPI, Request, Response
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Array, Float32, Int64
from plain_model import PlainModel

CANDIDATES, SERVED = 1_000, 100
LISTS = 316
WANTED_RECALL = 0.95
ASKED_USERS = 50
WRITTEN_AT_ONCE = 5_000
ID = np.dtype("<i8")


class Recall:
    """Items by inner product; the item's bias is one more factor of the vector."""

    def __init__(self, model: PlainModel) -> None:
        self._model = model
        vectors = np.ascontiguousarray(model.item_vectors, np.float32)
        width, lists = vectors.shape[1], min(LISTS, len(vectors) // 40)
        self._index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, lists, faiss.METRIC_INNER_PRODUCT)
        self._index.train(vectors)
        self._index.add(vectors)
        for probes in range(1, lists + 1):
            self._index.nprobe = probes
            if self.recall() >= WANTED_RECALL:
                break

    def recall(self) -> float:
        """Share of the exact answer that is found, over some users."""
        users = range(min(ASKED_USERS, len(self._model.user_vectors)))
        shares = []
        for user in users:
            exact = self._model.recall(user, CANDIDATES)
            shares.append(len(np.intersect1d(exact, self.find(user))) / len(exact))
        return float(np.mean(shares))

    def find(self, user: int) -> np.ndarray:
        """Candidates of a user; the first lists may hold fewer than are wanted."""
        query = np.append(self._model.user_vectors[user], np.float32(1))[None, :]
        found = self._index.search(query, CANDIDATES)[1][0]
        return found[found >= 0]


def feature_store(folder: Path, redis: str) -> FeatureStore:
    """One Array per entity, in Redis."""
    store = FeatureStore(
        config=RepoConfig(
            registry=str(folder / "registry.db"),
            project="assembled",
            provider="local",
            online_store={"type": "redis", "connection_string": redis},
            offline_store={"type": "file"},
            entity_key_serialization_version=3,
        )
    )
    made = []
    for name in ("item", "user"):
        entity = Entity(name=name, join_keys=[f"{name}_id"], value_type=ValueType.INT64)
        source = FileSource(
            name=f"{name}_source", path=str(folder / f"{name}.parquet"), timestamp_field="event_timestamp"
        )
        fields = [Field(name=f"{name}_id", dtype=Int64), Field(name="all", dtype=Array(Float32))]
        view = FeatureView(name=name, entities=[entity], schema=fields, source=source, ttl=timedelta(days=1))
        made += [entity, view]
    store.apply(made)
    return store


def fill(store: FeatureStore, folder: Path, name: str, features: np.ndarray) -> None:
    """Writes all entities of a kind."""
    for start in range(0, len(features), WRITTEN_AT_ONCE):
        part = features[start : start + WRITTEN_AT_ONCE]
        frame = pd.DataFrame(
            {
                f"{name}_id": np.arange(start, start + len(part)),
                "all": list(part),
                "event_timestamp": datetime.now(UTC),
            }
        )
        store.write_to_online_store(name, frame)


class Stack:
    """What one request goes through."""

    def __init__(self, world: Path, folder: Path, redis: str) -> None:
        self._model = PlainModel.read(world)
        self._recall = Recall(self._model)
        for name in ("item", "user"):
            pd.DataFrame(
                {f"{name}_id": [0], "all": [[0.0]], "event_timestamp": [datetime.now(UTC)]}
            ).to_parquet(folder / f"{name}.parquet")
        self._store = feature_store(folder, redis)
        fill(self._store, folder, "item", self._model.item_features)
        fill(self._store, folder, "user", self._model.user_features)

    def _features(self, name: str, ids: np.ndarray) -> np.ndarray:
        found = self._store.get_online_features(
            [f"{name}:all"], [{f"{name}_id": one} for one in ids.tolist()]
        )
        lists = (one.float_list_val.val for one in found.proto.results[-1].values)
        # Four times as fast as an array of lists.
        return np.fromiter(itertools.chain.from_iterable(lists), np.float32).reshape(len(ids), -1)

    def recommend(self, user: int) -> bytes:
        """Items and scores."""
        items = self._recall.find(user)
        of_user = self._features("user", np.array([user]))[0]
        best, scores = self._model.rank(user, items, of_user, self._features("item", items), SERVED)
        return best.astype(ID).tobytes() + scores.tobytes()

    def said(self) -> str:
        """What was chosen."""
        return f"nprobe {self._recall._index.nprobe}, recall {self._recall.recall():.3f}"


def application(stack: Stack) -> FastAPI:
    """One route. The work is done in the handler: a thread pool would only take turns for the interpreter."""
    app = FastAPI()

    @app.post("/recommend")
    async def recommend(request: Request) -> Response:
        user = int(np.frombuffer(await request.body(), ID)[0])
        return Response(stack.recommend(user), media_type="application/octet-stream")

    return app


async def main() -> None:
    port, world, folder, redis = sys.argv[1:]
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    stack = Stack(Path(world), Path(folder), redis)
    gc.collect()
    gc.freeze()
    config = uvicorn.Config(application(stack), port=int(port), log_level="warning", access_log=False)
    server = uvicorn.Server(config)
    print(f"assembled stack: {stack.said()}", flush=True)
    await server.serve()


if __name__ == "__main__":
    asyncio.run(main())
