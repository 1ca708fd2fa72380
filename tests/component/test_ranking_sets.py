"""Ranking while the feature set grows: models of both shapes, each on its own columns, all columns logged."""

from __future__ import annotations

from pathlib import Path

import grpc
import numpy as np
import pytest
from ranking_kit import Chain, MemoryLog, MemoryProducer, rank_request, running, settings_for, until

from rec.events.v1 import events_pb2
from rec.v1 import ranking_pb2
from services.contract import model_net, topics
from services.contract.feature_view import FeatureView
from services.contract.model_schema import shape_of
from services.contract.model_state import ModelState
from services.contract.view_aggregates import Count, Feature
from services.contract.view_events import Select
from services.contract.view_growth import SERVED_KEY, GrowingSet
from services.contract.view_registry import FeatureSet
from services.ranking.metrics import Metrics
from services.ranking.served_sets import ServedSets
from services.ranking.top import best
from tests.feature_kit import FEATURES

HOUR_US = 3_600_000_000
ITEM_VIEW = FeatureView(
    "item_acted",
    1,
    ("item_id",),
    ("acted",),
    (Feature("acted", Count(Select("acted")), HOUR_US, default=0.75),),
    HOUR_US,
)
USER_VIEW = FeatureView(
    "user_seen", 1, ("user_id",), ("shown",), (Feature("shown", Count(Select("shown")), HOUR_US),), HOUR_US
)
WIDE = FeatureSet((*FEATURES.views, ITEM_VIEW, USER_VIEW))


def grow(growing: GrowingSet) -> None:
    """The pipeline says that both views are served."""
    for view in (ITEM_VIEW, USER_VIEW):
        growing.add(view)
        growing.take(SERVED_KEY, growing.served_with(view))


def scored(state: ModelState, request: ranking_pb2.RankRequest, served: FeatureSet) -> tuple[list, list]:
    """(ids, scores) by a state's own columns out of a request's, one by one; defaults where it has none."""
    ids = np.frombuffer(request.item_ids, "<u8")
    users = dict(zip(shape_of(served).user_columns, np.frombuffer(request.user_features, "<f4"), strict=True))
    matrix = np.frombuffer(request.item_features, "<f4").reshape(len(ids), -1).T
    items = dict(zip(shape_of(served).item_columns, matrix, strict=True))
    defaults = {c.name: c.feature.default for c in (*WIDE.request_columns, *WIDE.candidate_columns)}
    user = np.array([users.get(name, defaults[name]) for name in state.shape.user_columns], np.float32)
    columns = [items.get(name, np.full(len(ids), defaults[name])) for name in state.shape.item_columns]
    item = np.stack(columns, axis=1).astype(np.float32)
    scores = model_net.score(state, request.user_id, ids, user, item)
    chosen = best(scores, ids, request.n)
    return ids[chosen].tolist(), scores[chosen].tolist()


def said(answer: ranking_pb2.RankResponse) -> tuple[list, list]:
    return np.frombuffer(answer.item_ids, "<u8").tolist(), np.frombuffer(answer.scores, "<f4").tolist()


async def test_two_arms_of_different_columns_are_served_and_all_columns_are_logged(tmp_path: Path) -> None:
    growing = GrowingSet("world", FEATURES)
    grow(growing)
    narrow, wide = Chain(tmp_path), Chain(tmp_path, seed=8, shape=shape_of(WIDE))
    producer = MemoryProducer()
    releases = [narrow.release("online", 1), wide.release("wide", 2, pinned_sequence=0)]
    before = Metrics().columns_missing.labels("wide")._value.get()
    async with running(settings_for(tmp_path), MemoryLog(), producer, releases, ServedSets(growing)) as (
        _,
        stub,
    ):
        for served in (WIDE, FEATURES):
            for arm, chain in (("online", narrow), ("wide", wide)):
                other = "wide" if arm == "online" else "online"
                request = rank_request(7, features=served, arm=arm, shadow_arms=[other])
                answer = await stub.Rank(request)
                assert said(answer) == scored(chain.state, request, served)
                # Tail: a narrow request lacks columns of the wide model only.
                lacks = arm == "wide" and served is FEATURES
                reasons = [(part.source, part.reason) for part in answer.provenance.degraded]
                assert reasons == ([("ranking.features", "columns_missing")] if lacks else [])
                assert answer.provenance.feature_schema_hash == served.schema_hash
                assert answer.shadows[0].scored

                record = events_pb2.EventRecord.FromString(producer.of(topics.FEATURE_SNAPSHOTS)[-1].value)
                snapshot = record.snapshot
                assert (snapshot.schema_hash, snapshot.arm) == (served.schema_hash, arm)
                assert snapshot.user_features == request.user_features
                rows = np.frombuffer(request.item_features, "<f4").reshape(100, -1)
                at = {item: row for row, item in enumerate(np.frombuffer(request.item_ids, "<u8").tolist())}
                chosen = [at[item] for item in said(answer)[0]]
                assert snapshot.item_features == rows[chosen].tobytes()
        # As the arm itself and as a shadow.
        assert Metrics().columns_missing.labels("wide")._value.get() - before == 2

        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Rank(rank_request(8, schema_hash=5))
        for known in (f"{FEATURES.schema_hash:016x} (world)", f"{WIDE.schema_hash:016x} (world+item"):
            assert known in refused.value.details()


async def test_a_model_whose_columns_are_not_served_waits_while_the_old_one_serves(tmp_path: Path) -> None:
    growing = GrowingSet("world", FEATURES)
    narrow, wide = Chain(tmp_path), Chain(tmp_path, seed=8, shape=shape_of(WIDE))
    failures = Metrics().base_failures.labels("online", "SchemaMismatch")
    before = failures._value.get()
    async with running(
        settings_for(tmp_path),
        MemoryLog(),
        MemoryProducer(),
        [narrow.release("online", 1)],
        ServedSets(growing),
    ) as (replica, stub):
        replica.arms.take(wide.release("online", 2, pinned_sequence=0))
        await until(lambda: failures._value.get() > before + 1)
        request = rank_request(3)
        assert said(await stub.Rank(request)) == scored(narrow.state, request, FEATURES)
        with pytest.raises(Exception, match="not served: user_seen_shown, item_acted_acted"):
            replica.sets.features(wide.state.shape)

        grow(growing)
        await until(lambda: replica.arms.serving["online"].state.shape == wide.state.shape)
        request = rank_request(4, features=WIDE)
        assert said(await stub.Rank(request)) == scored(wide.state, request, WIDE)
        status = await stub.GetModelStatus(ranking_pb2.GetModelStatusRequest())
        assert status.arms[0].state_digest == wide.digest(0)
