"""One request on the scoring thread: every asked arm's scores of the same candidates, and the best of each.

The reference of each model is taken once, and a delta is applied only between two jobs, so all that is said
about a result (version, times, scores) is of one version.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rec.model.v1 import model_pb2
from services.contract.errors import DeadlineSpent
from services.ranking.arm_model import ArmModel
from services.ranking.request_check import Candidates
from services.ranking.top import best


@dataclass(frozen=True)
class Ranked:
    """The ``n`` best by one arm: indices into the candidates, best first, and their scores."""

    arm: str
    version: model_pb2.ModelVersion
    applied_us: int
    created_us: int
    chosen: NDArray[np.int64]
    scores: NDArray[np.float32]
    # Columns of the model that were not served: scored with their defaults.
    lacks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Result:
    """What the job gives back. A shadow arm that is not loaded is missing from ``shadows``."""

    main: Ranked
    shadows: Mapping[str, Ranked] = field(default_factory=dict)
    waited_s: float = 0.0
    took_s: float = 0.0


@dataclass(frozen=True)
class Job:
    """Callable on the scoring thread. ``deadline_s`` and ``since_s`` are monotonic seconds."""

    model: ArmModel
    shadows: Sequence[str]
    serving: Mapping[str, ArmModel]
    candidates: Candidates
    since_s: float
    deadline_s: float

    def __call__(self) -> Result:
        """Scores; DeadlineSpent when the caller's time was spent in the queue."""
        began = time.monotonic()
        if began >= self.deadline_s:
            raise DeadlineSpent("the deadline ended in the scoring queue")
        main = ranked(self.model, self.candidates)
        shadows = {}
        for arm in self.shadows:
            if (model := self.serving.get(arm)) is not None:
                shadows[arm] = ranked(model, self.candidates)
        return Result(main, shadows, began - self.since_s, time.monotonic() - began)


def ranked(model: ArmModel, candidates: Candidates) -> Ranked:
    """The best candidates by one model."""
    scores = model.score(candidates)
    chosen = best(scores, candidates.item_ids, candidates.n)
    return Ranked(
        model.arm,
        model.version(),
        model.applied_us,
        model.state.created_at_us,
        chosen,
        scores[chosen],
        model.projection(candidates.shape).lacks,
    )
