"""Samples of older and newer feature sets: a model learns its own columns, and nothing that was not there."""

from __future__ import annotations

import numpy as np
import pytest

from rec.events.v1.events_pb2 import TrainingSample
from services.contract.feature_view import FeatureView
from services.contract.model_schema import ModelShape, shape_of
from services.contract.model_state import digest
from services.contract.view_aggregates import Count, Feature
from services.contract.view_events import Select
from services.contract.view_registry import FeatureSet
from tests.feature_kit import FEATURES, SHAPE
from tests.trainer_kit import World, new_state, sample_bytes
from trainer.core import TrainerCore, UnknownSchema
from trainer.sample_columns import Known
from trainer.samples import RawRecord, decode
from trainer.settings import AdmissionSettings, LearningSettings
from trainer.step import train_step

HOUR_US = 3_600_000_000
VIEW = FeatureView(
    "item_acted", 1, ("item_id",), ("acted",), (Feature("acted", Count(Select("acted")), HOUR_US),), HOUR_US
)
WIDE = FeatureSet((*FEATURES.views, VIEW))
WIDE_SHAPE = shape_of(WIDE)
SHAPES = {FEATURES.schema_hash: SHAPE, WIDE.schema_hash: WIDE_SHAPE}


def widened(sample: TrainingSample, seed: int) -> tuple[TrainingSample, np.ndarray]:
    """The sample as it is logged once the view is served, and its rows; the old columns are the same."""
    rows = len(sample.item_ids) // 8
    old = np.frombuffer(sample.item_features, "<f4").reshape(rows, -1)
    new = np.random.default_rng(seed).random((rows, 1), np.float32)
    wide = np.concatenate((old, new), axis=1)
    made = TrainingSample.FromString(sample.SerializeToString())
    made.schema_hash, made.item_features = WIDE.schema_hash, wide.tobytes()
    return made, wide


def records(*samples: TrainingSample) -> list[RawRecord]:
    return [RawRecord(0, offset, sample_bytes(sample)) for offset, sample in enumerate(samples)]


def core_of(shape: ModelShape, known: Known) -> TrainerCore:
    """A trainer's core of an untrained model."""
    state = new_state(shape=shape)
    learning, admission = LearningSettings(), AdmissionSettings()
    return TrainerCore(state, learning, admission, epoch=1, partitions=frozenset([0]), known=known)


def test_a_model_takes_its_own_columns_out_of_older_and_newer_samples() -> None:
    """Whatever order the hashes come in, a narrow model learns the very rows that it would have without."""
    plain = [World(n).sample(3 + n % 3) for n in range(12)]
    mixed = [widened(sample, n)[0] if n % 5 in (1, 2) else sample for n, sample in enumerate(plain)]
    alone, together = (decode(records(*each), SHAPE, known=SHAPES.get) for each in (plain, mixed))
    assert together.batch is not None and alone.batch is not None
    assert (together.bad, together.lacking, together.unknown) == ([], 0, frozenset())
    for name in ("user_features", "item_features", "labels", "owner", "item_ids"):
        assert np.array_equal(getattr(alone.batch, name), getattr(together.batch, name)), name
    states = [new_state(), new_state()]
    for state, batch in zip(states, (alone.batch, together.batch), strict=True):
        train_step(state, batch, LearningSettings(), AdmissionSettings())
    assert digest(states[0]) == digest(states[1])


def test_a_sample_without_a_column_of_the_model_is_left_out_and_counted_never_filled_in() -> None:
    plain = [World(n).sample(4) for n in range(6)]
    wide = [widened(sample, n) for n, sample in enumerate(plain[3:])]
    raw = records(*plain[:3], *(sample for sample, _ in wide))
    decoded = decode(raw, WIDE_SHAPE, known=SHAPES.get)
    assert (decoded.lacking, decoded.bad, decoded.unknown) == (3, [], frozenset())
    assert decoded.batch is not None
    assert decoded.batch.item_features.tobytes() == b"".join(rows.tobytes() for _, rows in wide)
    # Of a set that nobody knows: wrong, and named.
    foreign = decode(raw, WIDE_SHAPE)
    assert [bad.reason for bad in foreign.bad] == ["schema_hash"] * 3
    assert foreign.unknown == {FEATURES.schema_hash}
    broken, _ = widened(plain[0], 1)
    broken.item_features = broken.item_features[:-4]
    assert [bad.reason for bad in decode(records(broken), SHAPE, known=SHAPES.get).bad] == ["columns"]


def test_records_of_an_unknown_set_can_wait_until_it_is_known() -> None:
    known: dict[int, ModelShape] = {}
    core = core_of(SHAPE, known.get)
    raw = records(*(widened(World(n).sample(4), n)[0] for n in range(3)))
    before, counts = digest(core.state), dict(core.counts)
    with pytest.raises(UnknownSchema, match=f"{WIDE.schema_hash:016x}"):
        core.train(raw, 1, refuse_unknown=False)
    assert (digest(core.state), dict(core.counts), core.offsets, core.due) == (before, counts, {}, False)
    known.update(SHAPES)
    assert core.train(raw, 1, refuse_unknown=False) == 12
    # Nobody knows it after all: a dead letter, as ever.
    foreign = World(9).sample(4)
    foreign.schema_hash = 1
    assert core.train([RawRecord(0, 3, sample_bytes(foreign))], 2) == 0
    assert core.counts["rejected_schema_hash"] == 1 and core.offsets == {0: 4}


def test_an_online_trainer_of_a_wide_model_passes_older_samples_by() -> None:
    core = core_of(WIDE_SHAPE, SHAPES.get)
    older = World(1).sample(5)
    assert core.train(records(older, widened(older, 2)[0]), 1) == 5
    assert core.counts["records_lacking_columns"] == 1
    assert not any(name.startswith("rejected") for name in core.counts)
    assert core.offsets == {0: 2}
