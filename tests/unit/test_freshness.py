"""Freshness follows each click to the first response whose model contains its sample."""

import numpy as np
import pytest

from loadgen.freshness import ClickSample, Delta, measure, quantiles

SECOND = 1_000_000


def click(offset: int = 5, partition: int = 0, acknowledged: int = 1, joined: int = 2) -> ClickSample:
    return ClickSample(0, acknowledged * SECOND, joined * SECOND, partition, offset)


def delta(sequence: int, upto: int, appended: int, finished: int) -> Delta:
    return Delta(sequence, appended * SECOND, {0: upto}, ((finished * SECOND, {0: upto}),))


def served(*pairs: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    table = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return table[:, 0], table[:, 1] * SECOND


def test_stages_add_up_to_the_total():
    result = measure([click()], [delta(1, 5, 3, 3), delta(2, 6, 5, 4)], *served((1, 6), (2, 9)))
    assert result.total_s == [8.0]
    assert {name: values[0] for name, values in result.stages_s.items()} == {
        "collect": 1.0,
        "join": 1.0,
        "train": 2.0,
        "publish": 1.0,
        "apply": 4.0,
    }


def test_a_delta_that_ends_at_the_samples_offset_does_not_contain_it():
    # Offsets are "next to read": 5 covers samples 0..4.
    result = measure([click(offset=5)], [delta(1, 5, 3, 3)], *served((1, 6)))
    assert (result.total_s, result.unserved) == ([], 1)


def test_a_later_sequence_contains_everything_before_it():
    result = measure([click(offset=0)], [delta(1, 1, 3, 3)], *served((7, 4), (3, 6)))
    assert result.total_s == [3.0]


def test_an_older_model_answering_later_does_not_count():
    result = measure([click(offset=0)], [delta(2, 1, 3, 3)], *served((1, 4)))
    assert result.unserved == 1


def test_a_sample_joined_before_the_client_saw_the_ack_is_counted_not_negative():
    result = measure([click(offset=0, acknowledged=3, joined=2)], [delta(1, 1, 4, 4)], *served((1, 5)))
    assert result.joined_before_acknowledged == 1
    assert result.stages_s["join"] == [0.0]


def test_the_step_that_read_the_sample_ends_the_train_stage():
    two_steps = Delta(1, 9 * SECOND, {0: 6}, ((4 * SECOND, {0: 3}), (6 * SECOND, {0: 6})))
    result = measure([click(offset=1), click(offset=5)], [two_steps], *served((1, 10)))
    assert result.stages_s["train"] == [2.0, 4.0]


@pytest.mark.parametrize("values, expected", [([], None), ([2.0], 2.0), ([1.0, 3.0], 2.0)])
def test_quantiles_of_nothing_are_none(values, expected):
    assert quantiles(values)["p50"] == expected
