"""Learning helps, and only because the labels mean something; and `trainer base` as a command."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from rec.events.v1.events_pb2 import TrainingSample
from services.contract import columns, model_net, model_schema, model_state, model_store
from services.contract.join_labels import keeps_negative
from services.contract.model_state import ModelState
from services.contract.quality import auc
from tests.feature_kit import FEATURES, SHAPE
from tests.trainer_kit import START_US, World, barrier_bytes, new_core, sample_bytes
from trainer.base import main
from trainer.core import TrainerCore
from trainer.samples import RawRecord
from trainer.settings import LearningSettings

REQUESTS = 2_000


def _truth_auc(state: ModelState, world: World, *, recall: bool = False) -> float:
    """AUC of a model's scores against the hidden preferences: is a pair above the user's own median?"""
    labels: list[NDArray] = []
    scores: list[NDArray] = []
    item_features = np.zeros((len(world.items), FEATURES.item_width), np.float32)
    item_features[:, FEATURES.category_column] = world.categories
    for place, user in enumerate(world.users.tolist()):
        liked = world.truth[place] > np.median(world.truth[place])
        if recall:
            found = _recall_scores(state, user, world.items)
        else:
            user_features = np.zeros(FEATURES.user_width, np.float32)
            found = model_net.score(state, user, world.items, user_features, item_features)
        # Ranks within the user: only the order of one user's items matters.
        labels.append(liked.astype(np.float32))
        scores.append(np.argsort(np.argsort(found)).astype(np.float32))
    return auc(np.concatenate(labels), np.concatenate(scores))


def _recall_scores(state: ModelState, user: int, items: NDArray[np.uint64]) -> NDArray[np.float32]:
    users, rows = state.tables["user"], state.tables["item"]
    query = users.rows[users.slots(np.array([user], np.uint64))[0], model_schema.RECALL.slice]
    found = rows.rows[rows.slots(items)]
    return found[:, model_schema.RECALL.slice] @ query + found[:, model_schema.RECALL_BIAS.start]


def _trained(world: World, *, shuffled: bool) -> ModelState:
    core = new_core(learning=LearningSettings(minibatch_rows=64))
    random = np.random.default_rng(9)
    for start in range(0, REQUESTS, 100):
        if shuffled:
            # Labels of the same rate that have nothing to do with who was shown what.
            rate = float(world.truth.mean())
            records = _relabelled(world, start, random, rate)
        else:
            records = world.records(100, first_offset=start)
        core.train(records, START_US)
    return core.state


def _relabelled(world: World, start: int, random: np.random.Generator, rate: float) -> list[RawRecord]:
    return [
        RawRecord(0, start + n, sample_bytes(world.sample(10, labels=random.random(10) < rate)))
        for n in range(100)
    ]


def test_after_training_the_hidden_preferences_are_found() -> None:
    world = World(seed=5, users=60, items=150)
    before = _truth_auc(new_core().state, world)
    state = _trained(world, shuffled=False)
    assert abs(before - 0.5) < 0.06
    assert _truth_auc(state, world) > 0.75
    assert _truth_auc(state, world, recall=True) > 0.65


def test_with_shuffled_labels_nothing_is_found() -> None:
    world = World(seed=5, users=60, items=150)
    state = _trained(world, shuffled=True)
    assert abs(_truth_auc(state, world) - 0.5) < 0.08
    assert abs(_truth_auc(state, world, recall=True) - 0.5) < 0.08


def test_progressive_figures_rise_with_learning() -> None:
    world = World(seed=6, users=60, items=150)
    core = new_core()
    core.train(world.records(100), START_US)
    early = core.rolling.figures()["auc_candidate"]
    for start in range(100, 2_000, 100):
        core.train(world.records(100, first_offset=start), START_US)
    figures = core.rolling.figures()
    assert figures["auc_candidate"] > max(0.65, early + 0.05)
    assert figures["auc_served"] == pytest.approx(0.5)
    assert figures["log_loss_candidate"] < figures["log_loss_served"]


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    world = World(seed=7, users=50, items=80)
    values = [record.value for record in world.records(400)]
    values[10] = b"\xff\xff"
    values.append(barrier_bytes("end"))
    path = tmp_path / "samples.parquet"
    pq.write_table(pa.table({"value": pa.array(values, pa.binary())}), path)
    return path


def test_a_file_of_samples_becomes_a_base(
    samples: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    store = str(tmp_path / "store")
    assert main(["--samples", str(samples), "--out", store, "--minibatch-rows", "256"]) == 0
    out, err = capsys.readouterr()
    state, saved = model_store.load_base(out.strip().splitlines()[-1], SHAPE)
    assert (saved.generation, saved.policy, saved.sequence) == (1, "online", 0)
    assert state.samples_trained == 3_990
    assert state.sample_offsets == {}
    assert saved.manifest["metrics"]["auc_candidate"] > 0.5
    assert "'undecodable': 1" in err


def test_the_same_file_gives_the_same_state(
    samples: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    digests = []
    for name in ("a", "b"):
        assert main(["--samples", str(samples), "--out", str(tmp_path / name)]) == 0
        uri = capsys.readouterr().out.strip()
        digests.append(json.loads(Path(uri).read_text())["digest"])
    assert digests[0] == digests[1]


def test_an_untrained_base_is_written_for_replays(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["--init", "--out", str(tmp_path)]) == 0
    state, _ = model_store.load_base(capsys.readouterr().out.strip(), SHAPE)
    assert state.rows == 0 and state.dense["hidden1.weight"].any()
    assert len(model_state.digest(state)) == 32


@pytest.mark.parametrize("content", [b"not parquet", None])
def test_a_bad_file_is_an_error_in_one_line(
    tmp_path: Path, content: bytes | None, capsys: pytest.CaptureFixture
) -> None:
    path = tmp_path / "samples.parquet"
    if content is not None:
        path.write_bytes(content)
    assert main(["--samples", str(path), "--out", str(tmp_path / "store")]) == 1
    assert capsys.readouterr().err.startswith("no base written:")


def test_a_file_without_samples_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "samples.parquet"
    pq.write_table(pa.table({"value": pa.array([b"\xff"], pa.binary())}), path)
    assert main(["--samples", str(path), "--out", str(tmp_path / "store")]) == 1
    assert "nothing could be trained" in capsys.readouterr().err
    assert not (tmp_path / "store").exists()


def test_the_command_says_what_it_can_do() -> None:
    done = subprocess.run([sys.executable, "-m", "trainer"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and all(name in done.stderr for name in ("online", "base", "holdout"))


# -- Labels that come late, and negatives that were left out ------------------------------------------------


def _grid(state: ModelState, world: World) -> NDArray[np.float32]:
    """Served probabilities of every user and item."""
    user_features = np.zeros(FEATURES.user_width, np.float32)
    item_features = np.zeros((len(world.items), FEATURES.item_width), np.float32)
    item_features[:, FEATURES.category_column] = world.categories
    return np.stack(
        [
            model_net.score(state, user, world.items, user_features, item_features)
            for user in world.users.tolist()
        ]
    )


def _calibration(state: ModelState, world: World) -> float:
    """Mean served probability / click rate."""
    return float(_grid(state, world).mean() / world.truth.mean())


def _cut(sample: TrainingSample, rows: NDArray[np.bool_], labels: NDArray, version: int = 0) -> bytes:
    """A record of some rows of a sample, with other labels."""
    said = TrainingSample()
    said.CopyFrom(sample)
    for name, width in (("item_ids", 8), ("positions", 4), ("scores", 4)):
        said_rows = np.frombuffer(getattr(sample, name), np.uint8).reshape(-1, width)
        setattr(said, name, said_rows[rows].tobytes())
    matrix = np.frombuffer(sample.item_features, np.float32).reshape(-1, FEATURES.item_width)
    said.item_features = matrix[rows].tobytes()
    said.labels = columns.encode(labels[rows], columns.F32)
    said.label_versions = columns.encode(np.full(int(rows.sum()), version), columns.U32)
    return sample_bytes(said)


def _corrected_stream(
    world: World, version: int, random: np.random.Generator | None = None
) -> Iterator[bytes]:
    """Every impression at once as a negative; a click 30 requests later again, as ``version``. Cut off in
    mid-stream: a tail of clicks alone would be learned last. With ``random`` the clicks have nothing to do
    with who was shown what."""
    late: deque[bytes | None] = deque([None] * 30)
    for _ in range(REQUESTS):
        shown = world.sample(10, labels=None if random is None else random.random(10) < world.truth.mean())
        labels = np.frombuffer(shown.labels, np.float32)
        yield _cut(shown, labels >= 0, np.zeros(10))
        late.append(_cut(shown, labels > 0, labels, version) if labels.any() else None)
        if (due := late.popleft()) is not None:
            yield due


def _trained_on(values: Iterator[bytes], learning: LearningSettings) -> TrainerCore:
    core = new_core(learning=learning)
    core.train([RawRecord(0, offset, value) for offset, value in enumerate(values)], START_US)
    assert not any(count for name, count in core.counts.items() if name.startswith(("rejected", "steps_sk")))
    return core


def test_late_clicks_leave_the_probabilities_right_with_fnw_and_low_without() -> None:
    world = World(seed=5, users=60, items=150)
    learning = LearningSettings(minibatch_rows=64, loss="fnw")
    core = _trained_on(_corrected_stream(world, version=1), learning)
    assert _calibration(core.state, world) == pytest.approx(1, abs=0.1)
    assert _truth_auc(core.state, world) > 0.75
    clicks = core.counts["corrections_trained"]
    assert clicks == core.state.samples_trained - 10 * REQUESTS > 0
    assert core.state.dense["position_share"].sum() == pytest.approx(1, abs=1e-4)
    # The same rows under the log loss, which knows corrections only when they call themselves first labels.
    world = World(seed=5, users=60, items=150)
    naive = _trained_on(_corrected_stream(world, version=0), LearningSettings(minibatch_rows=64))
    assert _calibration(naive.state, world) < 0.85
    assert naive.counts["corrections_trained"] == 0


def test_with_shuffled_late_clicks_fnw_finds_nothing() -> None:
    world = World(seed=5, users=60, items=150)
    learning = LearningSettings(minibatch_rows=64, loss="fnw")
    core = _trained_on(_corrected_stream(world, 1, np.random.default_rng(9)), learning)
    assert abs(_truth_auc(core.state, world) - 0.5) < 0.08
    assert _calibration(core.state, world) == pytest.approx(1, abs=0.1)


RATE = 0.1


def _thinned_stream(world: World, told: float) -> Iterator[bytes]:
    """Every positive and a tenth of the negatives; ``told`` is the rate on the samples."""
    random = np.random.default_rng(4)
    for _ in range(4_000):
        shown = world.sample(50)
        shown.sample_rate = told
        labels = np.frombuffer(shown.labels, np.float32)
        kept = (labels > 0) | (random.random(50) < RATE)
        if kept.any():
            yield _cut(shown, kept, labels)


@pytest.mark.parametrize(
    ("told", "learning", "low", "high"),
    [
        (RATE, LearningSettings(), 0.9, 1.1),
        (RATE, LearningSettings(rate_correction="serving", negative_rate=RATE), 0.9, 1.1),
        # Nobody corrects: about 1 / RATE times too high.
        (1.0, LearningSettings(), 6, 12),
    ],
    ids=["training", "serving", "nowhere"],
)
def test_left_out_negatives_leave_the_probabilities_right_when_corrected(
    told: float, learning: LearningSettings, low: float, high: float
) -> None:
    world = World(seed=9, users=60, items=150)
    world.truth *= 0.05
    state = _trained_on(_thinned_stream(world, told), learning).state
    assert low < _calibration(state, world) < high
    assert _truth_auc(state, world) > 0.65


QUARTER = 0.25


def _thinned_and_corrected_stream(world: World) -> Iterator[bytes]:
    """As a correcting joiner says it: three of ten clicks at once, a quarter of the other rows as negatives,
    the other clicks 30 requests later: as corrections, or as first labels where the negative was left out."""
    late: deque[list[bytes]] = deque([[] for _ in range(30)])
    for _ in range(2_500):
        shown = world.sample(20)
        labels, ids = np.frombuffer(shown.labels, np.float32), np.frombuffer(shown.item_ids, np.uint64)
        kept = np.array(
            [keeps_negative(shown.request_id, item, int(QUARTER * 2**64)) for item in ids.tolist()]
        )
        early = (labels > 0) & (world.random.random(20) < 0.3)
        if early.any():
            yield _cut(shown, early, labels)
        clicks = np.flatnonzero((labels > 0) & ~early)
        late.append([_cut(shown, np.arange(20) == row, labels, int(kept[row])) for row in clicks])
        shown.sample_rate = QUARTER
        if (kept & ~early).any():
            yield _cut(shown, kept & ~early, np.zeros(20))
        yield from late.popleft()


@pytest.mark.parametrize("place", ["training", "serving"])
def test_late_clicks_and_left_out_negatives_together_leave_the_probabilities_right(
    place: Literal["training", "serving"],
) -> None:
    world = World(seed=5, users=60, items=150)
    learning = LearningSettings(minibatch_rows=64, loss="fnw", rate_correction=place, negative_rate=QUARTER)
    state = _trained_on(_thinned_and_corrected_stream(world), learning).state
    assert _calibration(state, world) == pytest.approx(1, abs=0.1)
    assert _truth_auc(state, world) > 0.75
