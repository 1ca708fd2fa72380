"""Steps of a generation's life (states.py) as decisions: its new state, and what the arms serve then. Pure.

| step | arms |
|---|---|
| shadow | `candidate` follows it, SHADOW: trained aside and scored, not served |
| compare | `candidate` is SERVING, for its share of the users |
| promote | `online` follows it, `candidate` is RETIRED, the generation before is superseded |
| reject | `candidate` is RETIRED |
| roll back | `online` goes back to the newest superseded generation, which is promoted again |

A generation that is held stays where it is until it is let go: nobody but a person takes a step of it.

Only a newer generation is promoted: going back is a step of its own, so that no late decision about an old
model undoes a newer one. A step that has been taken is a repeat without effect: who did not hear the answer
asks again.
"""

from __future__ import annotations

from collections.abc import Mapping

from rec.model.v1 import model_pb2
from services.contract.assignment import check_shares
from services.contract.errors import Conflict, NotFound
from services.contract.topics import generation_key
from services.release.decision import Decision, Draft
from services.release.gate import GateVerdict
from services.release.registry import FIRST_POLICY, ONLINE_ARM, Registry
from services.release.states import State, Step, after, taken

CANDIDATE_ARM = "candidate"
_ON_CANDIDATE = (State.SHADOW, State.AB)
SERVING = model_pb2.RELEASE_STATE_SERVING


def state_of(registry: Registry, generation: int) -> State:
    """Where a generation stands; NotFound. The first one is promoted by being the first."""
    registry.generation(generation)
    life = registry.life(generation)
    if life.state:
        return State(life.state)
    first = registry.generations[0].lineage.generation
    return State.PROMOTED if generation == first else State.REGISTERED


def gated(registry: Registry, generation: int, verdict: GateVerdict, now_us: int) -> Decision:
    """What the gate said. Conflict when the generation is not at the gate."""
    step = Step.GATE_PASSED if verdict.passed else Step.GATE_FAILED
    before = state_of(registry, generation)
    if taken(before, step):
        return _repeated(before)
    draft = Draft(registry.revision, now_us)
    state = after(before, step)
    answer = _live(registry, draft, generation, state, step=step, evidence=verdict.evidence())
    return draft.decided(answer)


def stepped(
    registry: Registry,
    generation: int,
    step: Step,
    now_us: int,
    *,
    shares: Mapping[str, float] | None = None,
    reason: str = "",
    **found: object,
) -> Decision:
    """A step of the table above. InvalidInput (shares), NotFound (generation, arm), Conflict (not allowed
    from where it stands, another generation is the candidate, backwards)."""
    stands = state_of(registry, generation)
    checked = _checked(shares or {}) if step is Step.COMPARED else {}
    if taken(stands, step) and checked == dict(registry.life(generation).shares if checked else {}):
        return _repeated(stands)
    state = after(stands, step)
    draft = Draft(registry.revision, now_us)
    evidence: dict[str, object] = {"reason": reason, **found}
    if checked:
        evidence["shares"] = checked
    answer = _live(registry, draft, generation, state, step=step, evidence=evidence, shares=checked)
    if step is Step.SHADOWED:
        _require_free(registry, generation)
        _point(registry, draft, CANDIDATE_ARM, generation, model_pb2.RELEASE_STATE_SHADOW)
    elif step is Step.COMPARED:
        _point(registry, draft, CANDIDATE_ARM, generation, SERVING)
    elif step is Step.PROMOTED:
        serving = _serving(registry)
        if generation <= serving:
            raise Conflict(
                f"generation {generation} goes backwards: {serving} is served; roll {serving} back"
            )
        _point(registry, draft, ONLINE_ARM, generation, SERVING)
        _retire(registry, draft, generation)
        if state_of(registry, serving) is State.PROMOTED:
            by = {"by": generation}
            _live(registry, draft, serving, State.SUPERSEDED, step=Step.SUPERSEDED, evidence=by)
    elif step is Step.REJECTED:
        _retire(registry, draft, generation)
    elif step is Step.ROLLED_BACK:
        known = [one.lineage.generation for one in registry.generations]
        before = [one for one in known if state_of(registry, one) is State.SUPERSEDED]
        if not before:
            raise Conflict(f"generation {generation} has none before it to go back to")
        _point(registry, draft, ONLINE_ARM, before[-1], SERVING)
        instead = {"instead_of": generation}
        _live(registry, draft, before[-1], State.PROMOTED, step=Step.PROMOTED, evidence=instead)
    return draft.decided(answer)


def hold(registry: Registry, generation: int, held: bool, now_us: int, reason: str = "") -> Decision:
    """Keeps a generation from what release does by itself, or lets it go; as it is already, a repeat.
    NotFound."""
    state, before = state_of(registry, generation), registry.life(generation)
    life = model_pb2.Life(state=str(state), shares=before.shares, reason=reason, held=held)
    record = _life_record(generation, life)
    if before.held == held:
        return Decision(record)
    draft = Draft(registry.revision, now_us)
    name = "generation_held" if held else "generation_let_go"
    return draft.decided(draft.add(record, name, state=str(state), reason=reason))


def _checked(shares: Mapping[str, float]) -> dict[str, float]:
    checked = check_shares(shares)
    if unknown := set(checked) - {ONLINE_ARM, CANDIDATE_ARM}:
        raise NotFound(f"arm {', '.join(sorted(unknown))}: compared are {ONLINE_ARM} and {CANDIDATE_ARM}")
    return checked


def _repeated(state: State) -> Decision:
    return Decision(model_pb2.Release(life=model_pb2.Life(state=str(state))))


def _live(
    registry: Registry,
    draft: Draft,
    generation: int,
    state: State,
    *,
    step: Step,
    evidence: Mapping[str, object],
    shares: Mapping[str, float] | None = None,
) -> model_pb2.Release:
    held, reason = registry.life(generation).held, str(evidence.get("reason", ""))
    life = model_pb2.Life(state=str(state), shares=shares, reason=reason, held=held)
    before = str(state_of(registry, generation))
    found = {**evidence, "state_before": before, "state_after": str(state)}
    return draft.add(_life_record(generation, life), str(step), **found)


def _life_record(generation: int, life: model_pb2.Life) -> model_pb2.Release:
    lineage = model_pb2.Lineage(generation=generation, policy=FIRST_POLICY)
    return model_pb2.Release(arm=f"{generation_key(generation)}/life", lineage=lineage, life=life)


def _point(
    registry: Registry, draft: Draft, arm: str, generation: int, state: model_pb2.ReleaseState
) -> None:
    lineage = model_pb2.Lineage(generation=generation, policy=FIRST_POLICY)
    draft.add(registry.pointed(arm, lineage, None, state), "arm_set", because="life of the generation")


def _retire(registry: Registry, draft: Draft, generation: int) -> None:
    for release in registry.arms:
        if release.arm == CANDIDATE_ARM and release.lineage.generation == generation:
            _point(registry, draft, CANDIDATE_ARM, generation, model_pb2.RELEASE_STATE_RETIRED)


def _serving(registry: Registry) -> int:
    return next(int(one.lineage.generation) for one in registry.arms if one.arm == ONLINE_ARM)


def _require_free(registry: Registry, generation: int) -> None:
    for one in registry.generations:
        number = one.lineage.generation
        if number != generation and state_of(registry, number) in _ON_CANDIDATE:
            raise Conflict(f"generation {number} is the candidate: one at a time")
