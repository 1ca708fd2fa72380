"""Learning helps, and only because the labels mean something; and `trainer base` as a command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from services.contract import features, model_net, model_schema, model_state, model_store
from services.contract.model_state import ModelState
from tests.trainer_kit import START_US, World, barrier_bytes, new_core, sample_bytes
from trainer.base import main
from trainer.evaluate import auc
from trainer.samples import RawRecord
from trainer.settings import LearningSettings

REQUESTS = 2_000


def _truth_auc(state: ModelState, world: World, *, recall: bool = False) -> float:
    """AUC of a model's scores against the hidden preferences: is a pair above the user's own median?"""
    labels: list[NDArray] = []
    scores: list[NDArray] = []
    item_features = np.zeros((len(world.items), features.ITEM_WIDTH), np.float32)
    item_features[:, features.CATEGORY_COLUMN] = world.categories
    for place, user in enumerate(world.users.tolist()):
        liked = world.truth[place] > np.median(world.truth[place])
        if recall:
            found = _recall_scores(state, user, world.items)
        else:
            user_features = np.zeros(features.USER_WIDTH, np.float32)
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
    state, saved = model_store.load_base(out.strip().splitlines()[-1])
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
    state, _ = model_store.load_base(capsys.readouterr().out.strip())
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
    assert done.returncode == 2 and "trainer online" in done.stderr and "trainer base" in done.stderr
