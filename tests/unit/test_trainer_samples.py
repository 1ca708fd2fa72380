"""Records of samples: what is wrong has a name, and does not touch its neighbours."""

from __future__ import annotations

import numpy as np
import pytest

from rec.events.v1.events_pb2 import SampleRecord, TrainingSample
from services.contract import columns
from services.contract.quality import auc, auc_error, log_loss
from tests.feature_kit import FEATURES, SHAPE
from tests.trainer_kit import World, barrier_bytes, sample_bytes
from trainer.evaluate import Rolling
from trainer.online import bounded, min_row_bytes
from trainer.samples import RawRecord, decode
from trainer.settings import LearningSettings


def _sample(**changed: object) -> TrainingSample:
    sample = World().sample(rows=3)
    for name, value in changed.items():
        setattr(sample, name, value)
    return sample


def _floats(*values: float) -> bytes:
    return columns.encode(np.array(values), columns.F32)


# The first row of three says an earlier label again.
_VERSION_1 = columns.encode(np.array([1, 0, 0]), columns.U32)
FNW = LearningSettings(loss="fnw")


def _item_features(value: float) -> bytes:
    matrix = np.zeros((3, FEATURES.item_width), np.float32)
    matrix[2, 4] = value
    return matrix.tobytes()


BAD = {
    "schema_hash": sample_bytes(_sample(schema_hash=1)),
    "columns": sample_bytes(_sample(labels=_floats(0, 1))),
    "label": sample_bytes(_sample(labels=_floats(0, 1, 1.5))),
    "label_version": sample_bytes(_sample(label_versions=_VERSION_1)),
    "sample_rate": sample_bytes(_sample(sample_rate=0.0)),
    "not_finite": sample_bytes(_sample(item_features=_item_features(np.nan))),
    "empty": sample_bytes(TrainingSample(schema_hash=FEATURES.schema_hash)),
    "undecodable": b"\xff\xff",
}


@pytest.mark.parametrize("reason", BAD)
def test_a_bad_record_is_named_and_its_neighbours_are_trained(reason: str) -> None:
    good = World(seed=1).records(2)
    raw = [good[0], RawRecord(0, 7, BAD[reason]), good[1]]
    decoded = decode(raw, SHAPE)
    assert [(bad.record.offset, bad.reason) for bad in decoded.bad] == [(7, reason)]
    assert decoded.batch is not None and len(decoded.batch) == 20
    assert decoded.batch.records == good


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_no_value_that_is_not_finite_gets_through(value: float) -> None:
    for changed in (
        {"scores": _floats(0.1, value, 0.2)},
        {"item_features": _item_features(value)},
        {"user_features": _floats(*([0.0] * (SHAPE.user_width - 1)), value)},
    ):
        decoded = decode([RawRecord(0, 0, sample_bytes(_sample(**changed)))], SHAPE)
        assert decoded.batch is None and decoded.bad[0].reason == "not_finite"
    decoded = decode([RawRecord(0, 0, sample_bytes(_sample(sample_rate=value)))], SHAPE)
    assert decoded.bad[0].reason == "sample_rate"


@pytest.mark.parametrize("label", [0.0, 1e-6, 0.5, 1.0])
def test_any_label_from_0_to_1_is_trained(label: float) -> None:
    batch = decode([RawRecord(0, 0, sample_bytes(_sample(labels=_floats(0, 1, label))))], SHAPE).batch
    assert batch is not None and batch.labels[2] == np.float32(label)


@pytest.mark.parametrize("label", [-1e-6, 1.0001, np.nan, np.inf, -np.inf])
def test_a_label_outside_0_to_1_has_a_name(label: float) -> None:
    assert _reasons(_sample(labels=_floats(0, 1, label))) == ["label"]


def _reasons(sample: TrainingSample, learning: LearningSettings | None = None) -> list[str]:
    decoded = decode([RawRecord(0, 0, sample_bytes(sample))], SHAPE, learning=learning or LearningSettings())
    assert (decoded.batch is None) == bool(decoded.bad)
    return [bad.reason for bad in decoded.bad]


def test_a_correction_is_trained_by_fnw_alone_and_stands_for_no_negative() -> None:
    sample = _sample(labels=_floats(0.5, 1, 0), label_versions=_VERSION_1)
    assert _reasons(sample) == ["label_version"]
    batch = decode([RawRecord(0, 0, sample_bytes(sample))], SHAPE, learning=FNW).batch
    assert batch is not None
    assert batch.corrections.tolist() == [True, False, False]
    assert batch.negatives.tolist() == [0, 1, 1]


def test_of_thinned_positives_fnw_lets_those_stand_for_negatives_whose_own_would_have_been_kept() -> None:
    learning = LearningSettings(loss="fnw", negative_rate=0.25)
    world = World(seed=2)
    ones = np.ones(10)
    samples = [world.sample(labels=ones) for _ in range(200)]
    batch = decode(
        [RawRecord(0, n, sample_bytes(s)) for n, s in enumerate(samples)], SHAPE, learning=learning
    ).batch
    assert batch is not None
    assert set(batch.negatives.tolist()) == {0, 4}
    assert batch.negatives.mean() == pytest.approx(1, abs=0.1)
    again = decode([RawRecord(0, 0, sample_bytes(samples[0]))], SHAPE, learning=learning).batch
    assert again is not None and again.negatives.tolist() == batch.negatives[:10].tolist()
    assert _reasons(_sample(labels=_floats(0, 0, 0)), learning) == ["other_rate"]


def test_a_correction_that_cannot_be_taken_back_or_would_count_twice_is_named() -> None:
    lowered = _sample(labels=_floats(0, 1, 0), label_versions=_VERSION_1)
    again = _sample(labels=_floats(1, 1, 0), label_versions=columns.encode(np.array([2, 0, 0]), columns.U32))
    assert _reasons(lowered, FNW) == ["lowered"]
    assert _reasons(again, FNW) == ["corrected_again"]
    assert _reasons(lowered) == _reasons(again) == ["label_version"]


def test_negatives_must_have_the_rate_that_serving_corrects() -> None:
    learning = LearningSettings(rate_correction="serving", negative_rate=0.1)
    kept = _sample(labels=_floats(1, 0, 0), sample_rate=0.1)
    assert _reasons(kept, learning) == []
    assert _reasons(_sample(labels=_floats(1, 0, 0), sample_rate=0.2), learning) == ["other_rate"]
    assert _reasons(_sample(labels=_floats(1, 1, 1), sample_rate=1.0), learning) == []


def test_a_record_of_too_many_rows_is_refused() -> None:
    decoded = decode([RawRecord(0, 0, sample_bytes(_sample()))], SHAPE, max_rows=2)
    assert decoded.bad[0].reason == "columns"


def test_an_empty_record_is_neither_sample_nor_barrier() -> None:
    assert decode([RawRecord(0, 0, SampleRecord().SerializeToString())], SHAPE).bad[0].reason == "empty"
    assert decode([RawRecord(0, 0, barrier_bytes(""))], SHAPE).bad[0].reason == "empty"


def test_barriers_are_told_with_their_partition() -> None:
    decoded = decode([RawRecord(2, 0, barrier_bytes("b"))], SHAPE)
    assert decoded.batch is None
    assert [(b.barrier_id, b.partition) for b in decoded.barriers] == [("b", 2)]


def test_columns_come_out_in_row_order_and_negatives_weigh_for_those_left_out() -> None:
    samples = [_sample(labels=_floats(1, 0, 0), sample_rate=0.25), _sample(labels=_floats(0, 0, 1))]
    batch = decode([RawRecord(0, n, sample_bytes(sample)) for n, sample in enumerate(samples)], SHAPE).batch
    assert batch is not None
    assert batch.owner.tolist() == [0, 0, 0, 1, 1, 1]
    assert batch.labels.tolist() == [1, 0, 0, 0, 0, 1]
    assert batch.negatives.tolist() == [1, 4, 4, 1, 1, 1]
    assert batch.item_ids.tobytes() == samples[0].item_ids + samples[1].item_ids


@pytest.mark.parametrize(
    ("rows", "sizes"), [(100, [30]), (20, [20, 10]), (15, [10, 10, 10]), (3, [10, 10, 10])]
)
def test_a_split_never_cuts_a_record(rows: int, sizes: list[int]) -> None:
    batch = decode(World().records(3), SHAPE).batch
    assert batch is not None
    parts = batch.split(rows)
    assert [len(part) for part in parts] == sizes
    assert np.concatenate([part.item_ids for part in parts]).tolist() == batch.item_ids.tolist()


def test_runs_of_records_are_bounded_in_rows() -> None:
    records = World().records(20, rows=10)
    runs = list(bounded(records, 35, min_row_bytes(SHAPE)))
    assert [record for run in runs for record in run] == records
    assert all(10 * len(run) <= 35 for run in runs)
    assert len(runs) <= 10


def test_auc_counts_ties_as_half() -> None:
    labels = np.array([1, 0, 1, 0], np.float32)
    assert auc(labels, np.array([0.9, 0.1, 0.8, 0.2], np.float32)) == 1
    assert auc(labels, np.array([0.1, 0.9, 0.2, 0.8], np.float32)) == 0
    assert auc(labels, np.full(4, 0.5, np.float32)) == 0.5
    assert np.isnan(auc(np.ones(3, np.float32), np.zeros(3, np.float32)))


def test_auc_is_the_share_of_pairs_in_order() -> None:
    random = np.random.default_rng(0)
    labels = (random.random(200) < 0.3).astype(np.float32)
    scores = random.integers(0, 20, 200).astype(np.float32)
    above = scores[labels > 0][:, None] - scores[labels == 0][None, :]
    assert auc(labels, scores) == pytest.approx(((above > 0) + 0.5 * (above == 0)).mean())


def test_the_error_of_an_auc_is_how_far_it_strays() -> None:
    random = np.random.default_rng(1)
    found, said = [], []
    for _ in range(400):
        labels = (random.random(1_000) < 0.1).astype(np.float32)
        scores = np.round(random.normal(0.5 * labels, 1 + labels), 1).astype(np.float32)
        found.append(auc(labels, scores))
        said.append(auc_error(labels, scores))
    # 400 draws know a deviation to 3.5 %.
    assert np.mean(said) == pytest.approx(np.std(found), rel=0.12)
    assert np.isnan(auc_error(np.array([1, 0, 0], np.float32), np.zeros(3, np.float32)))


def test_the_rolling_figures_forget_the_oldest_rows() -> None:
    rolling = Rolling(10)
    for label, score in ((1, 0.0), (0, 0.5)):
        column = np.full(8, label, np.float32)
        rolling.add(column, column * 0 + score, column * 0 + score, np.ones(8, np.float32))
    assert rolling.figures()["evaluated_rows"] == 10
    assert rolling.figures()["base_rate"] == pytest.approx(0.2)
    assert log_loss(np.array([1, 0], np.float32), np.array([0.5, 0.5], np.float32)) == pytest.approx(
        np.log(2)
    )


def test_the_rolling_figures_count_the_negatives_that_were_left_out() -> None:
    labels = np.array([0.5, 0], np.float32)
    scores = np.array([0.25, 0.25], np.float32)
    rolling = Rolling(10)
    rolling.add(labels, scores, scores, np.array([1, 3], np.float32))
    figures = rolling.figures()
    assert figures["base_rate"] == pytest.approx(0.25)
    assert figures["log_loss_served"] == pytest.approx(-(np.log(0.25) + 3 * np.log(0.75)) / 4)
