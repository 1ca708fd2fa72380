"""RecallService: checks the request, asks the retriever, packs the answer."""

from __future__ import annotations

from collections.abc import Callable

import grpc

from rec.model.v1.model_pb2 import Lineage, ModelVersion
from rec.v1 import recall_pb2_grpc
from rec.v1.provenance_pb2 import Degradation
from rec.v1.recall_pb2 import (
    GetRecallStatusRequest,
    GetRecallStatusResponse,
    RetrieveRequest,
    RetrieveResponse,
)
from services.contract import columns, ids, times
from services.contract.errors import FieldViolation, InvalidInput, Unavailable
from services.recall.catalogue import Catalogue
from services.recall.retriever import Retriever
from services.recall.settings import RecallSettings
from services.recall.vectors import VectorSource, VectorVersion
from services.runtime.clock import RunClock
from services.runtime.grpc_client import remaining_s

MAX_CANDIDATES = 10_000


class RecallServicer(recall_pb2_grpc.RecallServiceServicer):
    """Thin: rules are in merge.py, work in retriever.py."""

    def __init__(
        self,
        settings: RecallSettings,
        *,
        retriever: Retriever,
        catalogue: Catalogue,
        vectors: VectorSource,
        run_clock: RunClock,
        is_ready: Callable[[], bool],
    ) -> None:
        self._settings = settings
        self._retriever = retriever
        self._catalogue = catalogue
        self._vectors = vectors
        self._run_clock = run_clock
        self._is_ready = is_ready

    async def Retrieve(self, request: RetrieveRequest, context: grpc.aio.ServicerContext) -> RetrieveResponse:
        """n distinct candidates."""
        check(request)
        if not self._is_ready():
            raise Unavailable("the catalogue or the vectors are still being loaded")
        if request.HasField("occurred_at"):
            self._run_clock.observe(times.to_us(request.occurred_at))
        settings = self._settings
        budget_s = remaining_s(
            context,
            settings.default_deadline_ms / 1000,
            longest_s=settings.max_deadline_ms / 1000,
            reserve_s=settings.reserve_ms / 1000,
        )
        found = await self._retriever.retrieve(request.request_id, request.user_id, request.n, budget_s)
        return RetrieveResponse(
            item_ids=columns.encode(found.ids, columns.U64),
            sources=columns.encode(found.bits, columns.U8),
            degraded=[
                Degradation(source=f"recall.{source.label}", reason=reason)
                for source, reason in found.degraded.items()
            ],
            model=model_version(found.version),
        )

    async def GetRecallStatus(
        self, request: GetRecallStatusRequest, context: grpc.aio.ServicerContext
    ) -> GetRecallStatusResponse:
        """What the sources hold."""
        version = self._vectors.version
        return GetRecallStatusResponse(
            catalogue_items=len(self._catalogue),
            vector_items=self._vectors.sizes()["items"],
            model=model_version(version),
            applied_at=times.from_us(version.applied_us) if version else None,
            source_sizes=self._retriever.sizes(),
        )


def check(request: RetrieveRequest) -> None:
    """InvalidInput with every violation of a request."""
    violations = []
    if not 1 <= request.n <= MAX_CANDIDATES:
        violations.append(FieldViolation("n", str(request.n), f"1 to {MAX_CANDIDATES}"))
    if len(request.request_id) > ids.MAX_REQUEST_ID_CHARS:
        length = f"{len(request.request_id)} characters"
        violations.append(
            FieldViolation("request_id", length, f"at most {ids.MAX_REQUEST_ID_CHARS} characters")
        )
    if request.HasField("occurred_at") and not 0 <= request.occurred_at.nanos < 1_000_000_000:
        violations.append(
            FieldViolation("occurred_at", f"{request.occurred_at.nanos} ns", "0 to 999,999,999 ns")
        )
    if violations:
        raise InvalidInput(violations)


def model_version(version: VectorVersion | None) -> ModelVersion | None:
    """The proto of a version."""
    if version is None:
        return None
    lineage = Lineage(generation=version.generation, policy=version.policy)
    return ModelVersion(lineage=lineage, sequence=version.sequence)
