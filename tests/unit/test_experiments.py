"""Which arm a user gets, folded from records of model-releases."""

from __future__ import annotations

from collections import Counter

import pytest

from rec.model.v1 import model_pb2
from services.contract.assignment import arm_of
from services.contract.errors import InvalidInput, MalformedRecord
from services.contract.experiments import DEFAULT, Assigned, Experiments

SHARES = {"online": 0.6, "candidate": 0.4}
SERVING, SHADOW = model_pb2.RELEASE_STATE_SERVING, model_pb2.RELEASE_STATE_SHADOW
RETIRED = model_pb2.RELEASE_STATE_RETIRED
USERS = range(1, 20_001)


def put(experiments: Experiments, release: model_pb2.Release) -> None:
    experiments.take(release.arm.encode(), release.SerializeToString())


def arm(name: str, state: int = SERVING, standing: float = 0.0) -> model_pb2.Release:
    return model_pb2.Release(arm=name, state=state, standing_share=standing)


def life(generation: int, shares: dict[str, float]) -> model_pb2.Release:
    return model_pb2.Release(
        arm=f"generation/{generation}/life",
        lineage=model_pb2.Lineage(generation=generation, policy="online"),
        life=model_pb2.Life(state="ab" if shares else "promoted", shares=shares),
    )


def given(*records: model_pb2.Release) -> Experiments:
    made = Experiments()
    for record in records:
        put(made, record)
    return made


def served(experiments: Experiments) -> Counter[Assigned]:
    return Counter(experiments.assigned(user) for user in USERS)


def test_without_an_experiment_nobody_is_assigned():
    assert served(given()) == served(given(arm("online"), arm("frozen"))) == {DEFAULT: len(USERS)}


def test_while_a_generation_is_compared_users_fall_to_its_arms_by_their_shares():
    experiments = given(arm("online"), arm("candidate"), life(2, SHARES))
    found = served(experiments)
    assert found[Assigned("candidate", "experiment")] == pytest.approx(0.4 * len(USERS), rel=0.05)
    assert sum(found.values()) == len(USERS) and {one.arm for one in found} == set(SHARES)
    # The name is the generation's: the release's own reports explain by the same rule.
    assert all(experiments.assigned(u).arm == arm_of(u, "generation-2", SHARES) for u in USERS[:500])


def test_the_next_experiment_draws_other_users_and_an_ended_one_none():
    experiments = given(arm("online"), arm("candidate"), life(2, SHARES))
    first = {user for user in USERS if experiments.assigned(user).arm == "candidate"}
    put(experiments, life(2, {}))
    assert served(experiments) == {DEFAULT: len(USERS)}
    put(experiments, life(3, SHARES))
    second = {user for user in USERS if experiments.assigned(user).arm == "candidate"}
    assert len(first & second) == pytest.approx(0.4 * 0.4 * len(USERS), rel=0.1)


def test_a_standing_share_keeps_its_users_whatever_experiment_runs():
    experiments = given(arm("online"), arm("candidate"), arm("baseline", standing=0.05))
    alone = {user for user in USERS if experiments.assigned(user) == Assigned("baseline", "standing")}
    assert len(alone) == pytest.approx(0.05 * len(USERS), rel=0.1)
    put(experiments, life(2, SHARES))
    found = served(experiments)
    assert {u for u in USERS if experiments.assigned(u).reason == "standing"} == alone
    # The others are shared out as if there were no baseline.
    rest = len(USERS) - len(alone)
    assert found[Assigned("candidate", "experiment")] == pytest.approx(0.4 * rest, rel=0.05)
    put(experiments, arm("baseline", standing=0.1))
    assert alone < {user for user in USERS if experiments.assigned(user).reason == "standing"}


@pytest.mark.parametrize("state", [RETIRED, SHADOW])
def test_an_arm_that_does_not_serve_is_given_to_nobody(state):
    experiments = given(arm("online"), arm("baseline", state, standing=0.5))
    assert served(experiments) == {DEFAULT: len(USERS)}
    put(experiments, life(2, SHARES))
    put(experiments, arm("candidate", state))
    assert {one.reason for one in served(experiments)} == {"experiment", "not_serving"}
    assert not any(one.arm == "candidate" for one in served(experiments))


def test_a_tombstone_takes_an_arm_away_and_other_records_change_nothing():
    experiments = given(arm("online"), arm("baseline", standing=0.5))
    put(experiments, model_pb2.Release(arm="generation/1/online/base/0", base=model_pb2.BaseRef(sequence=4)))
    put(experiments, model_pb2.Release(arm="generation/1/online/rollback/7", rollback=model_pb2.Rollback()))
    experiments.take(b"opened", None)
    assert served(experiments)[Assigned("baseline", "standing")] > 0
    experiments.take(b"baseline", None)
    assert served(experiments) == {DEFAULT: len(USERS)}


def test_what_does_not_decode_or_add_up_is_refused_and_what_was_known_stays():
    experiments = given(arm("online"), arm("candidate"), life(2, SHARES))
    before = served(experiments)
    with pytest.raises(MalformedRecord):
        experiments.take(b"online", b"\xff\xff")
    with pytest.raises(MalformedRecord, match="as its key"):
        experiments.take(b"online", arm("other").SerializeToString())
    with pytest.raises(InvalidInput, match="a sum of 1"):
        put(experiments, life(2, {"online": 0.5, "candidate": 0.4}))
    assert served(experiments) == before
