"""How a full model goes from registered to promoted by itself (``auto_promote``). Pure.

    registered --gate--> gated -> shadow --shadow_s--> ab --sequential test--> promoted or rejected

One step a look, of the newest generation that is under way. The experiment counts clicks by user from the
moment that this process saw it begin; a restart begins the counting anew, which costs time and no validity:
the test that is read is a new one. When ``max_users`` of the smaller arm are in and nothing is proven, the
generation is rejected: what is not better is not worth the change. A generation that is held takes no step;
one that is held on trial keeps its place there, so that no other begins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from services.contract.sequential import ArmClicks, Comparison, SequentialTest
from services.release.lives import CANDIDATE_ARM, state_of
from services.release.registry import ONLINE_ARM, Registry
from services.release.served import ServedRows
from services.release.settings import PromotionRules, SequentialRules
from services.release.states import State, Step

_ON_TRIAL = (State.SHADOW, State.AB)
_UNDER_WAY = (State.REGISTERED, State.GATED, State.SHADOW, State.AB)


@dataclass(frozen=True)
class NextStep:
    """What is to be done about a generation; the gate (``step`` None) is asked elsewhere."""

    generation: int
    step: Step | None
    evidence: Mapping[str, object] = field(default_factory=dict)


class Promotion:
    """Remembers since when a generation stands where it stands, and the clicks of its experiment."""

    def __init__(self, rules: PromotionRules, test: SequentialRules) -> None:
        self._rules = rules
        self._test_rules = test
        self._standing: tuple[int, State] | None = None
        self._since_s = 0.0
        self._begin()

    def served(self, rows: ServedRows) -> None:
        """Counts what an arm of the experiment served."""
        clicks = self._clicks.get(rows.arm)
        if clicks is not None and self._standing is not None and self._standing[1] is State.AB:
            shown, clicked = rows.weights.sum(), (rows.labels > 0).sum()
            clicks.add([rows.sample.user_id], np.array([shown]), np.array([clicked], np.float64))

    def look(self, registry: Registry, now_s: float) -> NextStep | None:
        """The next step, when one is due."""
        under_way = [
            (one.lineage.generation, state)
            for one in registry.generations
            if (state := state_of(registry, one.lineage.generation)) in _UNDER_WAY
            and (state in _ON_TRIAL or not registry.life(one.lineage.generation).held)
        ]
        # One that is tried is finished before a newer one begins.
        tried = [one for one in under_way if one[1] in _ON_TRIAL] or under_way[-1:]
        if not tried:
            return None
        generation, state = tried[0]
        if registry.life(generation).held:
            return None
        if self._standing != (generation, state):
            self._standing, self._since_s = (generation, state), now_s
            self._begin()
        if state is State.REGISTERED:
            return NextStep(generation, None)
        if state is State.GATED:
            return NextStep(generation, Step.SHADOWED)
        if state is State.SHADOW:
            waited = now_s - self._since_s
            ready = waited >= self._rules.shadow_s
            return NextStep(generation, Step.COMPARED, {"shadowed_s": waited}) if ready else None
        return self._compared(generation)

    def _compared(self, generation: int) -> NextStep | None:
        found = self._test.look(self._clicks[CANDIDATE_ARM], self._clicks[ONLINE_ARM])
        evidence = _said(found)
        if found.verdict == "better":
            return NextStep(generation, Step.PROMOTED, evidence)
        if found.verdict == "worse" or found.users >= self._rules.max_users:
            return NextStep(generation, Step.REJECTED, evidence)
        return None

    def _begin(self) -> None:
        self._clicks = {CANDIDATE_ARM: ArmClicks(), ONLINE_ARM: ArmClicks()}
        self._test = SequentialTest(self._test_rules)


def _said(found: Comparison) -> dict[str, object]:
    return {
        "verdict": found.verdict,
        "difference": str(found.difference),
        "confidence_sequence": [str(found.low), str(found.high)],
        "p_value": found.p_value,
        "users": found.users,
    }
