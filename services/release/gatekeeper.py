"""Runs the gate for a generation: its full model scores the rows that the serving arm served lately.

A model sees what its manifest says, a sample holds what was served when it was logged: feature-views tells
which columns a sample's schema hash stands for. Rows that lack a column of the model are no evidence.
"""

from __future__ import annotations

import asyncio

import numpy as np

from rec.model.v1 import model_pb2
from services.contract import columns, model_store
from services.contract.errors import Conflict, InvalidInput, NotFound
from services.contract.feature_sets import feature_set
from services.contract.model_schema import ModelShape
from services.contract.projection import Projection
from services.contract.signature import Trusted
from services.contract.view_growth import GrowingSet
from services.release.evidence import Check
from services.release.gate import GateVerdict, Judged, judge
from services.release.scoring import Logged, score, sizes
from services.release.served import ServedRows, ServedSamples
from services.release.settings import Settings
from services.runtime.kafka_tail import LogTail

# Newest rows whose scores are also looked at without their labels.
CANARIES = 200


class Gatekeeper:
    """Reads the model from the store, the rows from the window. ``views`` feeds ``growing`` from
    feature-views, read to its end before each verdict; None: the named set alone, for good."""

    def __init__(
        self,
        settings: Settings,
        window: ServedSamples,
        trusted: Trusted | None,
        growing: GrowingSet | None = None,
        views: LogTail | None = None,
    ) -> None:
        self._settings = settings
        self._window = window
        self._trusted = trusted
        named = settings.feature_set
        self._growing = growing or GrowingSet(named, feature_set(named))
        self._views = views

    async def judge(self, base: model_pb2.BaseRef, arm: str) -> GateVerdict:
        """The verdict on a full model, by what ``arm`` served; one that cannot be loaded, or that sees what
        is not served, does not pass. Conflict: too little was served with its features to judge by, as
        after a start of this process: asked again later it may be enough. LoopError: Kafka does not say what
        is served."""
        rows = self._window.newest(arm)
        if not rows:
            raise self._nothing(arm)
        if self._views is not None:
            await self._views.catch_up()
        try:
            return await asyncio.to_thread(self._judged, base, rows, arm)
        except (InvalidInput, NotFound) as error:
            return GateVerdict((Check("loadable", 0.0, low=1),), str(error))

    def _judged(self, base: model_pb2.BaseRef, found: list[ServedRows], arm: str) -> GateVerdict:
        state, _ = model_store.load_base(
            base.manifest_uri,
            root=self._settings.model_store_uri,
            manifest_digest=base.manifest_digest,
            trusted=self._trusted,
        )
        self._growing.seen_by(state.shape)
        logged = self._logged({one.sample.schema_hash for one in found}, state.shape)
        rows = [one for one in found if one.sample.schema_hash in logged]
        if not rows:
            raise self._nothing(arm, f" with all columns of {self._growing.name_of(state.shape.schema_hash)}")
        own = []
        for one in rows:
            first = columns.decode("label_versions", one.sample.label_versions, columns.U32) == 0
            own.append(score(state, one.sample, logged[one.sample.schema_hash])[first])
        judged = Judged(
            np.concatenate([one.labels for one in rows]),
            np.concatenate([one.scores for one in rows]),
            np.concatenate(own),
            np.concatenate([one.weights for one in rows]),
        )
        canaries, served = judged.candidate[-CANARIES:], judged.served[-CANARIES:]
        verdict = judge(judged, sizes(state), canaries, served, self._settings.gate)
        if verdict.undecided:
            raise Conflict(
                f"arm {arm} has served {len(judged.labels)} rows, {int((judged.labels > 0).sum())} of them "
                f"positive, in the last {self._settings.window_s} s: the gate wants "
                f"{self._settings.gate.min_rows} and {self._settings.gate.min_positives}"
            )
        return verdict

    def _logged(self, hashes: set[int], model: ModelShape) -> dict[int, Logged]:
        """How samples of these hashes are read by a model; without those that it cannot be judged by."""
        found = {}
        for one in hashes:
            shape = self._growing.shape(one)
            if shape is not None and not (projection := Projection(shape, model)).lacks:
                found[one] = Logged(shape, projection)
        return found

    def _nothing(self, arm: str, such: str = "") -> Conflict:
        within = f"in the last {self._settings.window_s} s"
        return Conflict(f"arm {arm} has served nothing{such} {within} to judge by")
