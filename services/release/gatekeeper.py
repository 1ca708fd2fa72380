"""Runs the gate for a generation: its full model scores the rows that the serving arm served lately."""

from __future__ import annotations

import asyncio

import numpy as np

from rec.model.v1 import model_pb2
from services.contract import columns, model_store
from services.contract.errors import Conflict, InvalidInput, NotFound
from services.contract.feature_sets import feature_set
from services.contract.model_schema import shape_of
from services.contract.signature import Trusted
from services.release.evidence import Check
from services.release.gate import GateVerdict, Judged, judge
from services.release.scoring import score, sizes
from services.release.served import ServedRows, ServedSamples
from services.release.settings import Settings

# Newest rows whose scores are also looked at without their labels.
CANARIES = 200


class Gatekeeper:
    """Reads the model from the store, the rows from the window."""

    def __init__(self, settings: Settings, window: ServedSamples, trusted: Trusted | None) -> None:
        self._settings = settings
        self._window = window
        self._trusted = trusted
        self._shape = shape_of(feature_set(settings.feature_set))

    async def judge(self, base: model_pb2.BaseRef, arm: str) -> GateVerdict:
        """The verdict on a full model, by what ``arm`` served; one that cannot be loaded does not pass.
        Conflict: nothing was served with its features."""
        rows = [one for one in self._window.newest(arm) if one.sample.schema_hash == self._shape.schema_hash]
        if not rows:
            raise Conflict(
                f"arm {arm} has served nothing in the last {self._settings.window_s} s to judge by"
            )
        try:
            return await asyncio.to_thread(self._judged, base, rows)
        except (InvalidInput, NotFound) as error:
            return GateVerdict((Check("loadable", 0.0, low=1),), str(error))

    def _judged(self, base: model_pb2.BaseRef, rows: list[ServedRows]) -> GateVerdict:
        state, _ = model_store.load_base(
            base.manifest_uri,
            self._shape,
            root=self._settings.model_store_uri,
            manifest_digest=base.manifest_digest,
            trusted=self._trusted,
        )
        own = []
        for one in rows:
            first = columns.decode("label_versions", one.sample.label_versions, columns.U32) == 0
            own.append(score(state, one.sample)[first])
        judged = Judged(
            np.concatenate([one.labels for one in rows]),
            np.concatenate([one.scores for one in rows]),
            np.concatenate(own),
            np.concatenate([one.weights for one in rows]),
        )
        canaries, served = judged.candidate[-CANARIES:], judged.served[-CANARIES:]
        return judge(judged, sizes(state), canaries, served, self._settings.gate)
