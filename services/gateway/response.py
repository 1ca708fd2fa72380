"""How the answer to the client is put together. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from rec.v1.gateway_pb2 import RecommendResponse
from rec.v1.provenance_pb2 import Degradation
from rec.v1.ranking_pb2 import RankResponse
from services.contract import times
from services.gateway.answers import SOURCES_OF, Candidates, Chosen
from services.gateway.validation import Wish


def build(
    wish: Wish,
    candidates: Candidates,
    chosen: Chosen,
    *,
    ranked: RankResponse | None,
    degraded: Iterable[Degradation],
    schema_hash: int,
    served_us: int,
) -> RecommendResponse:
    """The response. ranked: ranking's answer, None when no model scored this one.

    The provenance is ranking's own, completed by what the gateway knows: each degradation, and the time.
    """
    response = RecommendResponse(request_id=wish.request_id, candidates=len(candidates.ids))
    ids, tags = candidates.ids[chosen.places].tolist(), candidates.tags[chosen.places].tolist()
    for item_id, tag, score in zip(ids, tags, chosen.scores.tolist(), strict=True):
        response.items.add(item_id=item_id, score=score, sources=SOURCES_OF[tag])
    provenance = response.provenance
    if ranked is not None:
        provenance.CopyFrom(ranked.provenance)
        response.shadows.extend(ranked.shadows)
    provenance.scored = ranked is not None
    provenance.request_id = wish.request_id
    provenance.feature_schema_hash = schema_hash
    provenance.degraded.extend(degraded)
    times.set_us(provenance.served_at, served_us)
    return response
