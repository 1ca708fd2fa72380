"""The model that one arm serves: its own full state, its torch view, and when it was last changed.

Everything here runs on one thread at a time: aside on a worker until it is served, then on the scoring
thread.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rec.model.v1 import model_pb2
from services.contract import id_table, model_net, model_state
from services.contract.delta import Body, Header
from services.contract.errors import Unavailable
from services.contract.model_schema import ModelShape
from services.contract.model_state import ModelState
from services.contract.projection import Projection
from services.contract.view_registry import FeatureSet
from services.ranking.request_check import Candidates

_WARM_UP_ROWS = 1_000
_WARM_UP_ROUNDS = 3


class ArmModel:
    """Scores with, and applies deltas to, a state that nobody else holds. ``features``: what it sees."""

    def __init__(self, arm: str, state: ModelState, features: FeatureSet, applied_us: int) -> None:
        self.arm = arm
        self.state = state
        self._features = features
        # By schema hash of what was served: as many as there are sets.
        self._projections: dict[int, Projection] = {}
        self.applied_us = applied_us
        # Shares the state's memory, which deltas change in place.
        self._dense = model_net.dense_tensors(state)

    def version(self) -> model_pb2.ModelVersion:
        """Lineage and sequence now."""
        lineage = model_pb2.Lineage(generation=self.state.generation, policy=self.state.policy)
        return model_pb2.ModelVersion(lineage=lineage, sequence=self.state.sequence)

    def projection(self, served: ModelShape) -> Projection:
        """From the columns that were served to the model's own."""
        found = self._projections.get(served.schema_hash)
        if found is None:
            found = self._projections[served.schema_hash] = Projection(served, self.state.shape)
        return found

    def score(self, candidates: Candidates) -> NDArray[np.float32]:
        """Click probabilities [c], with declared defaults for what was not served; Unavailable when the model
        gives anything but numbers."""
        own = self.projection(candidates.shape)
        scores = model_net.score(
            self.state,
            candidates.user_id,
            candidates.item_ids,
            own.user(candidates.user, self._features.user_defaults),
            own.items(candidates.items, self._features.item_defaults),
            self._dense,
        )
        if not np.isfinite(scores).all():
            raise Unavailable(
                f"arm {self.arm} at sequence {self.state.sequence} gives scores that are not finite"
            )
        return scores

    def apply(self, header: Header, body: Body, delta_hash: bytes, now_us: int) -> None:
        """Moves the state one delta on; see contract.model_state.apply for its errors."""
        model_state.apply(self.state, header, body, delta_hash)
        self.applied_us = now_us

    def warm_up(self) -> None:
        """Compiles and touches what the first request would wait for."""
        id_table.warm_up()
        candidates = Candidates(
            shape=self.state.shape,
            user_id=0,
            item_ids=np.arange(_WARM_UP_ROWS, dtype=np.uint64),
            user=np.zeros(self.state.shape.user_width, dtype=np.float32),
            items=np.zeros((_WARM_UP_ROWS, self.state.shape.item_width), dtype=np.float32),
            n=1,
            occurred_us=0,
        )
        for _ in range(_WARM_UP_ROUNDS):
            self.score(candidates)
