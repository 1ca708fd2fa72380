"""What is read online of many rows: packed states out of Redis, or a feature server's answers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import grpc
import numpy as np
import redis.asyncio as redis
from numpy.typing import NDArray

from rec.v1 import feature_pb2, feature_pb2_grpc
from services.contract import times
from services.contract.columns import F32, U32, U64, decode
from services.contract.errors import Conflict, Unavailable
from services.contract.feature_view import FeatureView
from services.contract.features import category_of, of_request
from services.contract.redis_keys import view_key
from services.contract.view_log import Labels
from services.contract.view_plan import plan_of
from services.contract.view_read import read, records_of
from services.contract.view_registry import FeatureSet
from services.contract.view_values import Values
from services.runtime.grpc_client import channel
from services.runtime.settings import TlsSettings

KEYS_PER_READ = 2_000
CALLS_AT_ONCE = 8
CALL_S = 10.0


async def from_redis(
    client: redis.Redis, features: FeatureSet, views: Sequence[FeatureView], rows: Labels
) -> list[Values]:
    """Per view, by the same reading as online (view_read). redis.RedisError."""
    catalogue = await _read(client, features.catalogue, rows)
    full = Labels(rows.at_us, {**rows.fields, "category": category_of(features, catalogue)})
    return [await _read(client, view, full) for view in views]


async def _read(client: redis.Redis, view: FeatureView, rows: Labels) -> Values:
    plan = plan_of(view)
    columns = [rows.fields[name].astype(U64) for name in view.key]
    entities = np.stack(columns, axis=1) if columns else np.zeros((len(rows.at_us), 0), U64)
    keys = [view_key(view, one.tobytes()) for one in entities]
    values: list[bytes | None] = []
    for at in range(0, len(keys), KEYS_PER_READ):
        values += cast("list[bytes | None]", await client.mget(keys[at : at + KEYS_PER_READ]))
    return read(view, records_of(plan, values), rows.at_us, rows.fields)


async def from_server(
    target: str, tls: TlsSettings, sets: Sequence[FeatureSet], rows: Labels
) -> tuple[FeatureSet, list[Answer]]:
    """Which of the sets the server serves, and what GetFeatures says: one request for each row. Unavailable:
    no answer, or defaults instead of one; Conflict: the server has other columns, or changed them."""
    turn = asyncio.Semaphore(CALLS_AT_ONCE)
    async with channel(target, tls=tls) as opened:
        stub = feature_pb2_grpc.FeatureServiceStub(opened)

        async def one(at: int) -> feature_pb2.GetFeaturesResponse:
            async with turn:
                return await _ask(stub, rows, at)

        try:
            said = await asyncio.gather(*(one(at) for at in range(len(rows.at_us))))
        except grpc.aio.AioRpcError as error:
            raise Unavailable(f"feature at {target}: {error.code().name} {error.details()}") from error
    known = {one.schema_hash: one for one in sets}
    hashes = {one.schema_hash for one in said}
    if len(hashes) != 1 or not hashes <= set(known):
        wanted = " or ".join(f"{one:016x}" for one in known)
        found = ", ".join(sorted(f"{one:016x}" for one in hashes))
        raise Conflict(f"the feature server serves {found}, not {wanted}")
    served = known[hashes.pop()]
    return served, [_answer(served, one) for one in said]


@dataclass(frozen=True)
class Answer:
    """To one user with one item: the columns, and a bit per view without a state."""

    user: NDArray[np.float32]
    item: NDArray[np.float32]
    missing_user: int
    missing_item: int


async def _ask(
    stub: feature_pb2_grpc.FeatureServiceStub, rows: Labels, at: int
) -> feature_pb2.GetFeaturesResponse:
    request = feature_pb2.GetFeaturesRequest(
        user_id=int(rows.fields["user_id"][at]),
        item_ids=rows.fields["item_id"][at : at + 1].astype(U64).tobytes(),
        occurred_at=times.from_us(int(rows.at_us[at])),
    )
    said: feature_pb2.GetFeaturesResponse = await stub.GetFeatures(request, timeout=CALL_S)
    if said.degraded:
        raise Unavailable(f"the feature server answered defaults: {said.degraded[0].reason}")
    return said


def _answer(features: FeatureSet, said: feature_pb2.GetFeaturesResponse) -> Answer:
    return Answer(
        decode("user_features", said.user_features, F32, features.user_width),
        decode("item_features", said.item_features, F32, features.item_width),
        said.missing_user_views,
        int(decode("missing_item_views", said.missing_item_views, U32, 1)[0]),
    )


def of_view(features: FeatureSet, view: FeatureView, answers: Sequence[Answer]) -> Values:
    """What answers in the columns of a set say of one of its views."""
    users, items = (np.stack([getattr(one, name) for one in answers]) for name in ("user", "item"))
    values = np.empty((len(answers), len(view.features)), np.float32)
    for columns, matrix in ((features.request_columns, users), (features.candidate_columns, items)):
        for place, column in enumerate(columns):
            if column.view is view:
                values[:, column.index] = matrix[:, place]
    name = "missing_user" if of_request(view) else "missing_item"
    bit = features.views.index(view)
    missing = np.array([getattr(one, name) >> bit & 1 for one in answers], np.uint8)
    return Values(values, missing)
