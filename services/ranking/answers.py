"""Messages made from a result: the response, and the snapshot of exactly what was scored. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rec.events.v1 import events_pb2
from rec.v1 import provenance_pb2, ranking_pb2
from services.contract import columns, ids, times
from services.ranking.rank import Ranked, Result
from services.ranking.request_check import Candidates


def response(
    request: ranking_pb2.RankRequest,
    candidates: Candidates,
    result: Result,
    *,
    replica: str,
    now_us: int,
    degraded: Sequence[provenance_pb2.Degradation] = (),
) -> ranking_pb2.RankResponse:
    """The answer, with one ShadowResult per shadow arm asked for, in that order."""
    main = result.main
    answer = ranking_pb2.RankResponse(
        item_ids=columns.encode(candidates.item_ids[main.chosen], columns.U64),
        scores=columns.encode(main.scores, columns.F32),
        provenance=_provenance(request, main, replica, now_us, degraded),
    )
    for arm in request.shadow_arms:
        answer.shadows.append(_shadow(arm, candidates, result.shadows.get(arm)))
    return answer


def snapshot(
    request: ranking_pb2.RankRequest, candidates: Candidates, main: Ranked, now_us: int
) -> events_pb2.EventRecord:
    """The served rows, byte for byte as they were scored."""
    return events_pb2.EventRecord(
        snapshot=events_pb2.FeatureSnapshot(
            event_id=ids.snapshot_event_id(request.request_id),
            request_id=request.request_id,
            occurred_at=times.from_us(candidates.occurred_us),
            user_id=candidates.user_id,
            scored_at=times.from_us(now_us),
            schema_hash=request.schema_hash,
            model=main.version,
            arm=main.arm,
            item_ids=columns.encode(candidates.item_ids[main.chosen], columns.U64),
            scores=columns.encode(main.scores, columns.F32),
            user_features=request.user_features,
            item_features=_rows(candidates.items, main.chosen),
        )
    )


def _rows(items: NDArray[np.float32], chosen: NDArray[np.int64]) -> bytes:
    return columns.encode(items[chosen], columns.F32)


def _provenance(
    request: ranking_pb2.RankRequest,
    main: Ranked,
    replica: str,
    now_us: int,
    degraded: Sequence[provenance_pb2.Degradation],
) -> provenance_pb2.Provenance:
    made = provenance_pb2.Provenance(
        request_id=request.request_id,
        model=main.version,
        applied_at=times.from_us(main.applied_us),
        arm=main.arm,
        degraded=degraded,
        replica=replica,
        feature_schema_hash=request.schema_hash,
        scored=True,
        served_at=times.from_us(now_us),
    )
    made.staleness.FromMicroseconds(max(0, now_us - main.created_us))
    return made


def _shadow(arm: str, candidates: Candidates, found: Ranked | None) -> provenance_pb2.ShadowResult:
    if found is None:
        return provenance_pb2.ShadowResult(arm=arm, scored=False)
    return provenance_pb2.ShadowResult(
        arm=arm,
        model=found.version,
        item_ids=candidates.item_ids[found.chosen],
        scores=found.scores,
        scored=True,
    )
