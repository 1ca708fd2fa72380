"""What is asked of the loop for a visitor: a user's list, why an item stands in it, a scenario's switch.

The services judge what they are asked; what they refuse is said with their own words. ``whys`` are the values
that the features have now: those that were scored stand in the request's snapshot.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import grpc

from rec.v1 import (
    feature_pb2,
    feature_pb2_grpc,
    gateway_pb2,
    gateway_pb2_grpc,
    scenario_pb2,
    scenario_pb2_grpc,
)
from rec.v1.provenance_pb2 import RecallSource
from services.contract.errors import InvalidInput, Overloaded, Unavailable
from services.contract.ids import hash_key
from services.contract.times import to_us
from services.page import metrics
from services.page.asks import Row, scenario_row, why
from services.page.neighbours import open_channel
from services.page.settings import Settings
from services.runtime.grpc_errors import violations_of

MAX_ITEMS = 50
_TIMEOUT_S = 3.0
_PREFIX = "RECALL_SOURCE_"


class Questions:
    """One channel per service asked; closed by ``close``. At most ``max_questions`` at a time."""

    def __init__(self, settings: Settings) -> None:
        self._most = settings.web.max_questions
        self._asking = 0
        self._gateway = open_channel(settings, settings.gateway_target)
        self._feature = open_channel(settings, settings.feature_target)
        target = self._scenario_target = settings.scenario_target
        self._scenario = open_channel(settings, target) if target else None
        self._descriptions: dict[str, str] = {}

    async def close(self) -> None:
        """Closes the channels."""
        for one in (self._gateway, self._feature, self._scenario):
            if one is not None:
                await one.close()

    def __enter__(self) -> Questions:
        """A place among the questions in progress; Overloaded when there is none."""
        if self._asking >= self._most:
            metrics.REFUSED.labels("questions").inc()
            raise Overloaded(f"{self._asking} questions are in progress, which is what max_questions allows")
        self._asking += 1
        return self

    def __exit__(self, *_: object) -> None:
        self._asking -= 1

    async def recommend(self, asked: Mapping[str, Any]) -> Row:
        """``user`` (a key, or #id), ``n`` (1 to 50, default 10), ``arm`` (default: the user's own)."""
        n = asked.get("n", 10)
        if not 1 <= n <= MAX_ITEMS:
            raise InvalidInput.one("n", n, f"1 to {MAX_ITEMS}")
        request = gateway_pb2.RecommendRequest(n=n, arm=asked.get("arm", ""))
        _set_user(request, asked.get("user", ""))
        began = time.perf_counter()
        stub = gateway_pb2_grpc.GatewayServiceStub(self._gateway)
        answer = await _called(stub.Recommend(request, timeout=_TIMEOUT_S), "the gateway")
        return _list_row(answer, (time.perf_counter() - began) * 1000)

    async def whys(self, asked: Mapping[str, Any]) -> Row:
        """``user`` as above, ``item`` (its id): the values of all features that have state."""
        user = gateway_pb2.RecommendRequest()
        _set_user(user, asked.get("user", ""))
        request = feature_pb2.ExplainFeaturesRequest(item_id=_id("item", asked.get("item", "")))
        request.user_id = user.user_id or hash_key(user.user_key)
        stub = feature_pb2_grpc.FeatureServiceStub(self._feature)
        answer = await _called(stub.ExplainFeatures(request, timeout=_TIMEOUT_S), "the feature server")
        if any(one.name not in self._descriptions for one in answer.features):
            described = await _called(
                stub.DescribeFeatures(feature_pb2.DescribeFeaturesRequest(), timeout=_TIMEOUT_S),
                "the feature server",
            )
            columns = (*described.user_columns, *described.item_columns)
            # Views that are added while the loop runs may be told of by one answer and not yet by the other.
            self._descriptions = {one.name: "" for one in answer.features}
            self._descriptions |= {one.name: one.description for one in columns}
        told = [one for one in answer.features if not one.is_default]
        return {
            "features": [self._feature_row(one) for one in told],
            "defaults": len(answer.features) - len(told),
        }

    async def switch(self, asked: Mapping[str, Any]) -> Row:
        """``name``, ``on``: the scenario as it then is, and whether that was a change."""
        missing = [name for name in ("name", "on") if name not in asked]
        if missing:
            raise InvalidInput.one(missing[0], "not given", "needed")
        if self._scenario is None:
            raise Unavailable("the page is not told where a load's switches are (scenario_target)")
        stub = scenario_pb2_grpc.ScenarioServiceStub(self._scenario)
        request = scenario_pb2.SwitchScenarioRequest(name=asked["name"], on=asked["on"])
        call = stub.SwitchScenario(request, timeout=_TIMEOUT_S)
        answer = await _called(call, f"the load's switches at {self._scenario_target}")
        return {"scenario": scenario_row(answer.scenario), "changed": answer.changed}

    def _feature_row(self, one: feature_pb2.ExplainedFeature) -> Row:
        return {
            "name": one.name,
            "description": self._descriptions.get(one.name, ""),
            "value": float(f"{one.value:.5g}"),
            "window_s": one.window.ToTimedelta().total_seconds(),
            "age_s": round(one.age.ToTimedelta().total_seconds(), 1) if one.HasField("age") else None,
        }


async def _called(call: grpc.aio.UnaryUnaryCall, whom: str) -> Any:
    """The answer; InvalidInput with the service's violations, else Unavailable with its reason."""
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        if error.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND):
            violations = violations_of(error)
            field, said = violations[0] if violations else ("request", str(error.details()))
            raise InvalidInput.one(field, "refused", said[:300]) from error
        raise Unavailable(f"{whom}: {why(error)}") from error


def _set_user(request: gateway_pb2.RecommendRequest, user: str) -> None:
    """``#123`` is an id, anything else a key."""
    if user.startswith("#"):
        request.user_id = _id("user", user[1:])
    elif user:
        request.user_key = user
    else:
        raise InvalidInput.one("user", "empty", "a user's key, or # and an id")


def _id(field: str, text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) >= 2**64:
        raise InvalidInput.one(field, text[:60] or "empty", "an id: a whole number below 2^64")
    return int(text)


def _list_row(answer: gateway_pb2.RecommendResponse, took_ms: float) -> Row:
    provenance = answer.provenance
    model = provenance.model
    return {
        "request_id": answer.request_id,
        "took_ms": round(took_ms, 1),
        "candidates": answer.candidates,
        "arm": provenance.arm,
        "scored": provenance.scored,
        "generation": model.lineage.generation,
        "policy": model.lineage.policy,
        "sequence": model.sequence,
        "staleness_s": round(provenance.staleness.ToTimedelta().total_seconds(), 2),
        "applied_ms": to_us(provenance.applied_at) // 1000,
        "replica": provenance.replica,
        "degraded": [f"{one.source}: {one.reason}" for one in provenance.degraded],
        "items": [
            {
                # 64 bits: more than a number of JavaScript holds.
                "item": str(one.item_id),
                "score": round(one.score, 5),
                "sources": [
                    RecallSource.Name(source).removeprefix(_PREFIX).lower() for source in one.sources
                ],
            }
            for one in answer.items
        ],
    }
