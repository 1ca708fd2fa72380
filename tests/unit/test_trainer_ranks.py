"""A step dealt to several processes is the step of one: shares add up, and everything else is the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import distributed

from services.contract import model_state
from services.contract.errors import Conflict, Unavailable
from services.contract.model_state import ModelState
from tests.feature_kit import SHAPE
from tests.trainer_kit import World, new_state
from trainer.holdout import judged
from trainer.ranks import ALONE, Ranks, Share
from trainer.samples import Batch, decode
from trainer.settings import AdmissionSettings, LearningSettings
from trainer.step import Gradients, gradients_of, take, train_step

LEARNING = LearningSettings()
ADMISSION = AdmissionSettings(min_count_item=1)


def batch_of(requests: int, seed: int = 4) -> Batch:
    """Some records of a world of few users and items, so that rows share ids."""
    found = decode(World(seed, users=20, items=40).records(requests, rows=8), SHAPE).batch
    assert found is not None
    features = np.random.default_rng(seed).normal(0, 1, found.user_features.shape).astype(np.float32)
    return replace(found, user_features=features)


def trained(steps: int = 3) -> ModelState:
    """A state in which ids have rows, so that gradients of all kinds are there."""
    state = new_state()
    for seed in range(steps):
        train_step(state, batch_of(40, seed), LEARNING, ADMISSION)
    return state


def shares(state: ModelState, batch: Batch, size: int, learning: LearningSettings) -> list[Gradients]:
    work = take(state, batch, learning, ADMISSION)
    return [gradients_of(state, batch, work, learning, Share(rank, size))[1] for rank in range(size)]


@given(st.integers(0, 10_000), st.integers(1, 64))
def test_every_row_is_in_one_share_and_shares_are_even(count: int, size: int) -> None:
    parts = [Share(rank, size).of(count) for rank in range(size)]
    assert [row for part in parts for row in range(part.start, part.stop)] == list(range(count))
    sizes = [part.stop - part.start for part in parts]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("size", [2, 3, 7])
@pytest.mark.parametrize(
    "learning",
    [LEARNING, LearningSettings(loss="fnw"), LearningSettings(recall_positives=5)],
    ids=["log", "fnw", "few_positives"],
)
def test_gradients_of_shares_add_up_to_those_of_the_step(size: int, learning: LearningSettings) -> None:
    state, batch = trained(), batch_of(30, 9)
    (whole,) = shares(state, batch, 1, learning)
    parts = shares(state, batch, size, learning)
    assert float(whole.loss[0]) > 0
    names = ["loss", *whole.rows, *whole.dense]
    for name, expected, *found in zip(names, whole.arrays, *(part.arrays for part in parts), strict=True):
        total = np.sum(found, axis=0, dtype=np.float64)
        # Float32 sums in another order: a few units in the last place of the largest term.
        tolerance = 2e-6 * max(1.0, float(np.abs(expected).max()) * len(batch) ** 0.5)
        assert np.abs(total - expected).max() <= tolerance, name
        assert any(np.abs(part).max() > tolerance for part in found) or name == "category", name
    # And none of them says the same as another: the work is divided, not repeated.
    assert not np.allclose(parts[0].dense["hidden1.weight"], parts[1].dense["hidden1.weight"])
    recall = [np.abs(part.rows["user"][:, -17:]).sum() for part in parts]
    assert sum(one > 0 for one in recall) == min(size, 5) or learning.recall_positives > 5


def test_more_ranks_than_rows_leave_some_without_and_the_sum_as_it_was() -> None:
    state, batch = trained(), batch_of(1)
    (whole,) = shares(state, batch, 1, LEARNING)
    parts = shares(state, batch, 11, LEARNING)
    for expected, *found in zip(whole.arrays, *(part.arrays for part in parts), strict=True):
        assert np.allclose(np.sum(found, axis=0), expected, atol=1e-5)


class Summed(Ranks):
    """Rank 0 of some, whose sums the others have sent before: what a collective gives it."""

    def __init__(self, size: int, others: list[Gradients]) -> None:
        super().__init__(Share(0, size))
        self._others = others

    def sum(self, arrays):
        """Adds theirs."""
        for array, *theirs in zip(arrays, *(other.arrays for other in self._others), strict=True):
            np.add(array, np.sum(theirs, axis=0), out=array)


def test_a_step_from_summed_gradients_is_the_step_of_one_process() -> None:
    batch = batch_of(30, 9)
    one, of_three = trained(), trained()
    train_step(one, batch, LEARNING, ADMISSION)
    result = train_step(
        of_three, batch, LEARNING, ADMISSION, Summed(3, shares(trained(), batch, 3, LEARNING)[1:])
    )
    assert len(result.predictions) == len(batch) // 3
    assert (one.samples_trained, one.trained_until_us) == (
        of_three.samples_trained,
        of_three.trained_until_us,
    )
    for name, table in one.tables.items():
        other = of_three.tables[name]
        (ids, slots), (other_ids, other_slots) = table.ids(), other.ids()
        assert np.array_equal(ids, other_ids)
        assert np.allclose(table.rows[slots], other.rows[other_slots], atol=1e-5)
        assert np.array_equal(table.counts[slots], other.counts[other_slots])
    for name, values in one.dense.items():
        assert np.allclose(values, of_three.dense[name], atol=1e-5), name
    # The rounding is there: else the test would compare a thing with itself.
    assert model_state.digest(one) != model_state.digest(of_three)


def test_a_step_that_is_bad_in_one_share_is_skipped_by_all() -> None:
    batch = batch_of(30, 9)
    others = shares(trained(), batch, 2, LEARNING)[1:]
    others[0].dense["bias"][...] = np.nan
    state = trained()
    before = model_state.digest(state)
    assert train_step(state, batch, LEARNING, ADMISSION, Summed(2, others)).skipped == "gradient"
    others[0].loss[...] = np.inf
    assert train_step(state, batch, LEARNING, ADMISSION, Summed(2, others)).skipped == "loss"
    assert model_state.digest(state) == before


class Heard(Ranks):
    """A rank that keeps what it gives to a sum, and gets what the others gave."""

    def __init__(self, rank: int, size: int, others: list[np.ndarray]) -> None:
        super().__init__(Share(rank, size))
        self._others = others

    def sum(self, arrays):
        """Adds theirs."""
        (mine,) = arrays
        said = mine.copy()
        for theirs in self._others:
            mine += theirs
        self._others.append(said)


def test_the_figures_of_a_pass_are_those_of_all_rows_though_each_rank_foretells_a_share() -> None:
    state, truth = trained(), batch_of(31, 9)
    alone = judged(state, truth)
    others: list[np.ndarray] = []
    for rank in (2, 1, 0):
        found = judged(state, truth, Heard(rank, 3, others))
    assert found == pytest.approx(alone, abs=1e-6)
    # Nobody has foretold what another one has.
    assert [np.count_nonzero(one) for one in others] == [83, 83, 82]
    assert np.count_nonzero(np.sum(others, axis=0)) == len(truth) == 248


def test_a_sum_stands_in_each_array_in_its_own_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    def all_reduce(flat) -> None:
        flat += 100

    monkeypatch.setattr(distributed, "all_reduce", all_reduce)
    arrays = [np.full(1, 1, np.float32), np.arange(6, dtype=np.float32).reshape(3, 2), np.zeros((0, 4), "f4")]
    arrays.append(np.full(2, 7, np.float32))
    Ranks(Share(1, 2)).sum(arrays)
    assert [array.tolist() for array in arrays] == [
        [101],
        [[100, 101], [102, 103], [104, 105]],
        [],
        [107, 107],
    ]


def test_ranks_that_differ_are_told_in_what_and_by_whom(monkeypatch: pytest.MonkeyPatch) -> None:
    others = [["same", 3]]

    def all_gather_object(found, value) -> None:
        found[:] = [value, *others]

    monkeypatch.setattr(distributed, "all_gather_object", all_gather_object)
    two = Ranks(Share(0, 2))
    two.agree(lambda: {"the day": "same", "the cut": 3})
    with pytest.raises(Conflict, match=r"the ranks differ in the cut: rank 0: 4, rank 1: 3"):
        two.agree(lambda: {"the day": "same", "the cut": 4})


def test_threads_are_shared_by_the_ranks_of_one_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    def all_gather_object(found, value) -> None:
        found[:] = [value, "elsewhere", value]

    monkeypatch.setattr(distributed, "all_gather_object", all_gather_object)
    of = Ranks(Share(0, 3))
    assert [of.threads(machine) for machine in (1, 2, 5)] == [1, 1, 2]


def test_alone_nothing_is_asked() -> None:
    def fail() -> dict[str, object]:
        raise AssertionError

    values = np.ones(3, np.float32)
    ALONE.sum([values])
    ALONE.agree(fail)
    assert ALONE.first and ALONE.from_first(lambda: 5) == 5
    assert values.tolist() == [1, 1, 1]
    assert (ALONE.threads(2), ALONE.threads(1)) == (2, 1)


def test_ranks_without_the_others_say_so() -> None:
    # No process group in this process: as when it has broken down.
    with pytest.raises((Unavailable, ValueError), match=r"rank 1|process group"):
        Ranks(Share(1, 2)).sum([np.ones(3, np.float32)])


def test_a_digest_of_rows_is_that_of_every_column() -> None:
    batch = batch_of(3)
    assert batch.digest() == batch_of(3).digest()
    found = {batch.digest()}
    for name in set(vars(batch)) - {"records"}:
        values = getattr(batch, name).copy()
        values.flat[-1] += 1
        found.add(replace(batch, **{name: values}).digest())
    assert len(found) == len(vars(batch))
