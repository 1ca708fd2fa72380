"""A generation's life as decisions over the registry, and the gate's own arithmetic."""

from __future__ import annotations

import json

import numpy as np
import pytest

from rec.events.v1.events_pb2 import TrainingSample
from rec.model.v1 import model_pb2
from services.contract import columns, model_net, model_store
from services.contract.errors import Conflict, InvalidInput, NotFound
from services.contract.feature_sets import WORLD
from services.contract.feature_view import FeatureView
from services.contract.model_schema import ModelShape
from services.contract.model_state import ModelState
from services.contract.view_aggregates import Count, Feature
from services.contract.view_codec import canonical
from services.contract.view_events import Select
from services.contract.view_growth import SERVED_KEY, GrowingSet, key_of
from services.release import lives
from services.release.decision import Decision
from services.release.evidence import Check
from services.release.gate import GateVerdict
from services.release.gatekeeper import Gatekeeper
from services.release.promotion import NextStep, Promotion
from services.release.registry import Registry
from services.release.scoring import score, sizes
from services.release.served import ServedRows, ServedSamples
from services.release.settings import GateRules, PromotionRules, SequentialRules, Settings
from services.release.states import Step
from tests.feature_kit import FEATURES, SHAPE
from tests.trainer_kit import START_US, World, new_core, new_state, sample_bytes
from trainer.core import TrainerCore
from trainer.samples import RawRecord
from trainer.settings import AdmissionSettings, LearningSettings

HOUR_US = 3_600_000_000
SHARES = {"online": 0.9, "candidate": 0.1}
PASSED, FAILED = GateVerdict((Check("rows", 2.0, low=1),)), GateVerdict((Check("rows", 0.0, low=1),))


class Rig:
    """A registry with some generations, whose decisions are taken at once."""

    def __init__(self, generations: int = 2) -> None:
        self.registry = Registry()
        for n in range(1, generations + 1):
            decision = self.registry.register_generation(f"store/g{n}", bytes([n]) * 32, 0, 0, now_us=n)
            self.registry.take(decision.records)

    def step(self, generation: int, step: Step, **more) -> Decision:
        decision = lives.stepped(self.registry, generation, step, 9, **more)
        self.registry.take(decision.records)
        return decision

    def gate(self, generation: int, verdict: GateVerdict = PASSED) -> Decision:
        decision = lives.gated(self.registry, generation, verdict, 9)
        self.registry.take(decision.records)
        return decision

    def to_experiment(self, generation: int = 2) -> None:
        self.gate(generation)
        self.step(generation, Step.SHADOWED)
        self.step(generation, Step.COMPARED, shares=SHARES)

    @property
    def arms(self) -> dict[str, tuple[int, str]]:
        return {
            one.arm: (
                one.lineage.generation,
                model_pb2.ReleaseState.Name(one.state).removeprefix("RELEASE_STATE_"),
            )
            for one in self.registry.arms
            if one.arm != "frozen"
        }

    @property
    def states(self) -> list[str]:
        numbers = [one.lineage.generation for one in self.registry.generations]
        return [str(lives.state_of(self.registry, number)) for number in numbers]


def test_a_generation_goes_through_the_gate_the_shadow_and_an_experiment_to_everybody():
    rig = Rig()
    assert rig.states == ["promoted", "registered"]
    assert json.loads(rig.gate(2).events[0].evidence_json)["checks"][0]["good"] is True
    rig.step(2, Step.SHADOWED)
    assert rig.arms == {"online": (1, "SERVING"), "candidate": (2, "SHADOW")}
    decision = rig.step(2, Step.COMPARED, shares=SHARES)
    assert rig.arms == {"online": (1, "SERVING"), "candidate": (2, "SERVING")}
    assert dict(rig.registry.life(2).shares) == SHARES
    assert json.loads(decision.events[0].evidence_json)["shares"] == SHARES
    decision = rig.step(2, Step.PROMOTED, reason="better")
    assert rig.arms == {"online": (2, "SERVING"), "candidate": (2, "RETIRED")}
    assert rig.states == ["superseded", "promoted"]
    assert json.loads(decision.events[0].evidence_json) | {
        "reason": "better",
        "state_before": "ab",
    } == json.loads(decision.events[0].evidence_json)
    assert len(decision.events) == len(decision.records) == 4


def test_a_generation_that_is_rolled_back_makes_way_for_the_one_before():
    rig = Rig()
    rig.to_experiment()
    rig.step(2, Step.PROMOTED)
    rig.step(2, Step.ROLLED_BACK)
    assert rig.arms["online"] == (1, "SERVING")
    assert rig.states == ["promoted", "rolled_back"]
    with pytest.raises(Conflict, match="none before it"):
        rig.step(1, Step.ROLLED_BACK)


def test_a_step_told_twice_changes_nothing_and_answers_as_before():
    rig = Rig()
    told = [
        (lambda: rig.gate(2), "gated"),
        (lambda: rig.step(2, Step.SHADOWED), "shadow"),
        (lambda: rig.step(2, Step.COMPARED, shares=SHARES), "ab"),
        (lambda: rig.step(2, Step.PROMOTED), "promoted"),
        (lambda: rig.step(2, Step.ROLLED_BACK), "rolled_back"),
    ]
    for step, state in told:
        assert step().records
        stood = (rig.states, rig.arms, rig.registry.revision)
        again = step()
        assert (again.records, again.answer.life.state) == ((), state)
        assert (rig.states, rig.arms, rig.registry.revision) == stood
    # Another verdict and other shares are no repeats.
    rig = Rig()
    rig.to_experiment()
    with pytest.raises(Conflict, match="ab_started of a generation that is ab"):
        rig.step(2, Step.COMPARED, shares={"online": 0.5, "candidate": 0.5})
    rig = Rig()
    rig.gate(2)
    assert rig.gate(2, FAILED).answer.life.state == "rejected"


def test_what_the_gate_refuses_is_served_to_nobody():
    rig = Rig()
    decision = rig.gate(2, FAILED)
    assert decision.events[0].decision == "gate_failed"
    assert rig.states == ["promoted", "rejected"]
    for step in (Step.SHADOWED, Step.COMPARED, Step.PROMOTED):
        with pytest.raises(Conflict, match="allowed are"):
            rig.step(2, step, shares=SHARES)
    assert rig.arms == {"online": (1, "SERVING")}


def test_a_generation_that_goes_backwards_is_refused():
    rig = Rig(3)
    rig.gate(2)
    rig.to_experiment(3)
    rig.step(3, Step.PROMOTED)
    with pytest.raises(Conflict, match="generation 2 goes backwards: 3 is served"):
        rig.step(2, Step.PROMOTED)
    assert rig.arms["online"] == (3, "SERVING")


def test_there_is_one_candidate_at_a_time_and_a_rejected_one_makes_way():
    rig = Rig(3)
    rig.to_experiment(2)
    rig.gate(3)
    with pytest.raises(Conflict, match="generation 2 is the candidate"):
        rig.step(3, Step.SHADOWED)
    rig.step(2, Step.REJECTED)
    assert rig.arms["candidate"] == (2, "RETIRED")
    rig.step(3, Step.SHADOWED)
    assert rig.arms["candidate"] == (3, "SHADOW")


@pytest.mark.parametrize(
    ("shares", "error"),
    [
        ({"online": 0.9, "candidate": 0.2}, InvalidInput),
        ({"online": 1.0}, InvalidInput),
        ({}, InvalidInput),
        ({"online": 0.5, "elsewhere": 0.5}, NotFound),
    ],
)
def test_an_experiment_with_wrong_shares_or_an_unknown_arm_is_refused(shares, error):
    rig = Rig()
    rig.gate(2)
    rig.step(2, Step.SHADOWED)
    with pytest.raises(error):
        rig.step(2, Step.COMPARED, shares=shares)
    assert rig.arms["candidate"] == (2, "SHADOW")


def test_a_generation_that_nobody_registered_has_no_life():
    with pytest.raises(NotFound, match=r"generation 7: known are \[1, 2\]"):
        Rig().gate(7)


def test_a_generation_that_is_held_keeps_its_place_its_shares_and_the_hold_through_steps_by_hand():
    rig = Rig()
    rig.to_experiment()
    decision = lives.hold(rig.registry, 2, True, 9, "looking")
    rig.registry.take(decision.records)
    assert [one.decision for one in decision.events] == ["generation_held"]
    life = rig.registry.life(2)
    assert (life.held, life.state, life.reason, dict(life.shares)) == (True, "ab", "looking", SHARES)
    assert lives.hold(rig.registry, 2, True, 9).records == ()
    rig.step(2, Step.PROMOTED)
    assert rig.registry.life(2).held and rig.states == ["superseded", "promoted"]
    rig.registry.take(lives.hold(rig.registry, 2, False, 9).records)
    assert not rig.registry.life(2).held and rig.states == ["superseded", "promoted"]
    with pytest.raises(NotFound, match="generation 7"):
        lives.hold(rig.registry, 7, True, 9)


def test_promotion_leaves_a_held_generation_where_it_is_and_what_is_not_on_trial_stands_in_nobodys_way():
    rig = Rig(3)
    promotion = Promotion(PromotionRules(shadow_s=0), SequentialRules())
    rig.registry.take(lives.hold(rig.registry, 3, True, 9).records)
    assert promotion.look(rig.registry, 0.0) == NextStep(2, None)
    rig.gate(2)
    rig.step(2, Step.SHADOWED)
    rig.registry.take(lives.hold(rig.registry, 2, True, 9).records)
    rig.registry.take(lives.hold(rig.registry, 3, False, 9).records)
    assert promotion.look(rig.registry, 1.0) is None
    rig.registry.take(lives.hold(rig.registry, 2, False, 9).records)
    found = promotion.look(rig.registry, 2.0)
    assert found is not None and (found.generation, found.step) == (2, Step.COMPARED)


def trained(seed: int = 1) -> tuple[ModelState, World]:
    world = World(seed=seed, users=30, items=60)
    core = new_core()
    core.train(world.records(200), now_us=START_US)
    return core.state, world


def test_the_gate_scores_as_ranking_does():
    state, world = trained()
    for _ in range(20):
        sample = world.sample(rows=12)
        features = columns.decode_matrix("items", sample.item_features, 12, SHAPE.item_width).copy()
        users = columns.decode("users", sample.user_features, columns.F32).copy()
        served = model_net.score(
            state, sample.user_id, columns.decode("ids", sample.item_ids, columns.U64), users, features
        )
        np.testing.assert_allclose(score(state, sample), served, atol=2e-6)


def test_sizes_see_the_one_number_that_is_none():
    state, _ = trained()
    fine = sizes(state)
    assert 0 < fine.max_row_norm < 50 and 0 < fine.max_dense_abs < 50
    state.dense["hidden1.weight"].flat[7] = np.nan
    assert np.isnan(sizes(state).max_dense_abs)


async def test_the_gatekeeper_lets_a_trained_model_pass_and_no_other(tmp_path):
    state, world = trained()
    window = ServedSamples(60.0, 100_000)
    for _ in range(60):
        sample = world.sample(rows=10)
        sample.arm, sample.model.lineage.generation = "online", 1
        sample.scores = columns.encode(score(state, sample), columns.F32)
        window.add(sample_bytes(sample))
    rules = GateRules(min_rows=500, min_positives=10)
    settings = Settings(model_store_uri=str(tmp_path), gate=rules)
    gatekeeper = Gatekeeper(settings, window, None)

    async def verdict(model: ModelState) -> GateVerdict:
        saved = model_store.save_base(str(tmp_path), model, created_at_us=1)
        base = model_pb2.BaseRef(manifest_uri=saved.manifest_uri, manifest_digest=saved.manifest_digest)
        return await gatekeeper.judge(base, "online")

    good = await verdict(state)
    assert good.passed, good.evidence()
    upside_down = state.copy()
    upside_down.dense["bias"][...] += 4.0
    assert {"log_loss", "calibration", "canary_shift"} <= set(
        (await verdict(upside_down)).evidence()["failed"]
    )
    saved = model_store.save_base(str(tmp_path), state, created_at_us=1)
    state_file = tmp_path / saved.manifest_uri.replace("manifest.json", "state.safetensors")
    whole = state_file.read_bytes()
    state_file.write_bytes(whole[:-4])
    broken = await verdict(state)
    state_file.write_bytes(whole)
    assert broken.evidence()["failed"] == ["loadable"] and "file_sha256" in str(broken.evidence()["error"])
    with pytest.raises(Conflict, match="served nothing"):
        await Gatekeeper(settings, ServedSamples(60.0, 100), None).judge(model_pb2.BaseRef(), "online")
    # Too few rows are no verdict, but for what is wrong whatever users do.
    few = settings.model_copy(update={"gate": GateRules(min_rows=601, min_positives=10)})
    gatekeeper = Gatekeeper(few, window, None)
    with pytest.raises(Conflict, match=r"served 600 rows, \d+ of them positive.*wants 601 and 10"):
        await verdict(state)
    assert "canary_shift" in (await verdict(upside_down)).evidence()["failed"]
    huge = state.copy()
    huge.dense["bias"][...] = 1e6
    assert "dense_abs" in (await verdict(huge)).evidence()["failed"]


VIEW = FeatureView(
    "item_acted", 1, ("item_id",), ("acted",), (Feature("acted", Count(Select("acted")), HOUR_US),), HOUR_US
)


def widened(sample: TrainingSample, wide: ModelShape, value: float) -> TrainingSample:
    """The sample as it is logged once the view is served: one item column more."""
    rows = len(sample.item_ids) // 8
    old = columns.decode_matrix("items", sample.item_features, rows, SHAPE.item_width)
    made = TrainingSample.FromString(sample.SerializeToString())
    made.schema_hash = wide.schema_hash
    made.item_features = columns.encode(np.c_[old, np.full((rows, 1), value, np.float32)], columns.F32)
    return made


async def test_models_of_every_served_set_are_judged_by_the_rows_that_have_their_columns(tmp_path):
    growing, named = GrowingSet(WORLD, FEATURES), GrowingSet(WORLD, FEATURES)
    growing.take(key_of(VIEW), canonical(VIEW).encode())
    growing.take(SERVED_KEY, key_of(VIEW))
    wide, (state, world) = growing.newest_shape, trained()
    learned = TrainerCore(
        new_state(shape=wide), LearningSettings(), AdmissionSettings(), epoch=1, partitions=frozenset([0])
    )
    taught = [widened(world.sample(rows=10), wide, 0.5) for _ in range(200)]
    learned.train([RawRecord(0, n, sample_bytes(one)) for n, one in enumerate(taught)], now_us=START_US)
    settings = Settings(model_store_uri=str(tmp_path), gate=GateRules(min_rows=500, min_positives=10))
    windows = {"narrow": ServedSamples(60.0, 100_000), "both": ServedSamples(60.0, 100_000)}
    for n in range(120):
        sample = world.sample(rows=10)
        sample.arm, sample.model.lineage.generation = "online", 1
        sample.scores = columns.encode(score(state, sample), columns.F32)
        windows["narrow"].add(sample_bytes(sample))
        # What a narrow model does not see must not matter to it.
        windows["both"].add(sample_bytes(widened(sample, wide, 9.0) if n % 2 else sample))

    async def verdict(model: ModelState, window: str, sets: GrowingSet) -> dict:
        saved = model_store.save_base(str(tmp_path), model, created_at_us=1)
        base = model_pb2.BaseRef(manifest_uri=saved.manifest_uri, manifest_digest=saved.manifest_digest)
        return (await Gatekeeper(settings, windows[window], None, sets).judge(base, "online")).evidence()

    narrow = await verdict(state, "narrow", growing)
    assert not narrow["failed"], narrow
    assert await verdict(state, "both", growing) == narrow
    seen = await verdict(learned.state, "both", growing)
    rows = {one["name"]: one["value"] for one in seen["checks"]}["rows"]
    assert rows == 600 and "loadable" not in seen["failed"]
    with pytest.raises(Conflict, match=r"served nothing with all columns of world\+item_acted\.1"):
        await verdict(learned.state, "narrow", growing)
    unserved = await verdict(learned.state, "both", named)
    assert unserved["failed"] == ["loadable"] and "item_acted" in str(unserved["error"])


def clicks(promotion: Promotion, arm: str, rate: float, users: int = 400) -> None:
    random = np.random.default_rng(len(arm))
    for user in range(users):
        labels = (random.random(20) < rate).astype(np.float32)
        sample = TrainingSample(user_id=user + 1)
        promotion.served(ServedRows(0.0, arm, 1, 1, labels, labels, np.ones_like(labels), sample))


@pytest.mark.parametrize(("rate", "step"), [(0.3, Step.PROMOTED), (0.05, Step.REJECTED), (0.15, None)])
def test_a_full_model_is_tried_step_by_step_and_the_test_decides(rate, step):
    rig = Rig()
    promotion = Promotion(PromotionRules(shadow_s=10), SequentialRules())
    assert promotion.look(rig.registry, 0.0) == NextStep(2, None)
    rig.gate(2)
    assert promotion.look(rig.registry, 1.0) == NextStep(2, Step.SHADOWED)
    rig.step(2, Step.SHADOWED)
    # Not counted: nobody has been given the candidate yet.
    clicks(promotion, "online", 0.9)
    assert promotion.look(rig.registry, 2.0) is None
    assert promotion.look(rig.registry, 11.9) is None
    found = promotion.look(rig.registry, 12.0)
    assert found is not None and found.step is Step.COMPARED
    rig.step(2, Step.COMPARED, shares=SHARES, **found.evidence)
    assert promotion.look(rig.registry, 13.0) is None
    clicks(promotion, "online", 0.15)
    clicks(promotion, "candidate", rate)
    clicks(promotion, "frozen", 0.9)
    found = promotion.look(rig.registry, 14.0)
    assert (found and found.step) == step
    if found is not None and step is not None:
        decision = rig.step(2, step, **found.evidence)
        evidence = json.loads(decision.events[0].evidence_json)
        assert evidence["users"] == 400 and evidence["p_value"] < 0.05
        assert promotion.look(rig.registry, 15.0) is None


def test_what_is_not_proven_better_is_rejected_in_the_end():
    rig = Rig()
    promotion = Promotion(PromotionRules(max_users=300), SequentialRules())
    rig.to_experiment()
    promotion.look(rig.registry, 0.0)
    clicks(promotion, "online", 0.15)
    clicks(promotion, "candidate", 0.15)
    found = promotion.look(rig.registry, 1.0)
    assert found is not None and (found.step, found.evidence["verdict"]) == (Step.REJECTED, "open")


def test_the_candidate_that_is_tried_is_finished_before_a_newer_one_begins():
    rig = Rig(4)
    promotion = Promotion(PromotionRules(shadow_s=0), SequentialRules())
    assert promotion.look(rig.registry, 0.0) == NextStep(4, None)
    rig.gate(3)
    rig.step(3, Step.SHADOWED)
    found = promotion.look(rig.registry, 0.0)
    assert found is not None and (found.generation, found.step) == (3, Step.COMPARED)
