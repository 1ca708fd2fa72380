"""Models that know only the last minutes: what each is trained and judged on, and what that is worth."""

from __future__ import annotations

import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from services.contract.errors import InvalidInput
from services.contract.feature_sets import FEATURE_SETS, WORLD
from services.contract.model_schema import shape_of
from services.contract.times import MICROS
from trainer import windows
from trainer.sample_table import batch_of, in_order

torch.set_num_threads(1)
SET = FEATURE_SETS[WORLD]
SHAPE = shape_of(SET)
START_US = 1_700_000_000 * MICROS


def samples(rows: int, *, seconds: int, turns_s: int | None, shuffle: bool = False) -> pa.Table:
    """Two kinds of items; which kind is clicked changes every ``turns_s`` (None: never)."""
    rng = np.random.default_rng(3)
    at_s = np.sort(rng.uniform(0, seconds, rows))
    items = rng.integers(1, 61, rows).astype(np.uint64)
    turn = (at_s // turns_s).astype(int) % 2 if turns_s else np.zeros(rows, int)
    labels = (rng.random(rows) < np.where(items % 2 == turn, 0.6, 0.1)).astype(np.float32)
    if shuffle:
        labels = rng.permutation(labels)
    moments = START_US + (at_s * MICROS).astype(np.int64)
    return pa.table(
        {
            "request_id": [f"r{number:06d}" for number in range(rows)],
            "item_id": items,
            "user_id": rng.integers(1, 30, rows).astype(np.uint64),
            "label": labels,
            "label_version": np.zeros(rows, np.uint32),
            "position": np.zeros(rows, np.uint32),
            "sample_rate": np.ones(rows, np.float32),
            "score": np.full(rows, 0.5, np.float32),
            "occurred_us": moments,
            "impressed_us": moments,
            "schema_hash": np.full(rows, SET.schema_hash, np.uint64),
            "user_features": [bytes(4 * SET.user_width)] * rows,
            "item_features": [bytes(4 * SET.item_width)] * rows,
        }
    )


def areas(table: pa.Table) -> dict[int | None, float]:
    found = windows.compare(table, SHAPE, [200, 800], 200, [1])
    return {one["window_s"]: one["auc"]["mean"] for one in found["windows"]}


def test_where_the_world_turns_a_short_memory_is_better_and_where_it_stands_a_long_one() -> None:
    turning = areas(samples(6_000, seconds=2_400, turns_s=800))
    assert turning[200] > turning[800] + 0.05
    standing = areas(samples(6_000, seconds=2_400, turns_s=None))
    assert standing[800] > standing[200] > 0.6


def test_shuffled_labels_teach_nothing() -> None:
    found = areas(samples(6_000, seconds=2_400, turns_s=None, shuffle=True))
    assert all(abs(area - 0.5) < 0.06 for area in found.values())


def test_each_model_sees_its_window_alone_and_all_judge_the_same_rows(monkeypatch) -> None:
    table = samples(1_000, seconds=1_000, turns_s=None)
    seen: list[tuple[int, int, int]] = []

    def spy(window, shape, seed, admission):
        seen.append((int(window.occurred_us[0]), int(window.occurred_us[-1]), len(window)))
        return windows.new_state(shape, windows.LearningSettings(seed=seed))

    monkeypatch.setattr(windows, "trained", spy)
    found = windows.compare(table, SHAPE, [300, 600, 0], 100, [1])
    moments = in_order(table)["impressed_us"].to_numpy()
    first = int(moments[0])
    cuts = [first + (600 + 100 * step) * MICROS for step in range(found["models"])]
    assert found["models"] == math.ceil((moments[-1] + 1 - cuts[0]) / (100 * MICROS))
    assert found["judged_rows"] == int((moments >= cuts[0]).sum())
    for window_s, part in zip((300, 600, None), np.array_split(np.array(seen), 3), strict=True):
        for (oldest, newest, size), cut in zip(part.tolist(), cuts, strict=True):
            start = cut - window_s * MICROS if window_s else first
            inside = (moments >= start) & (moments < cut)
            assert size == inside.sum() and (oldest, newest) == (moments[inside][0], moments[inside][-1])


def test_the_served_scores_are_judged_on_the_same_rows() -> None:
    table = samples(500, seconds=1_600, turns_s=None)
    perfect = table.set_column(table.column_names.index("score"), "score", table["label"])
    found = windows.compare(perfect, SHAPE, [200], 800, [1])
    assert found["served"]["auc"] == 1.0


def test_seeds_give_error_bars() -> None:
    found = windows.compare(samples(500, seconds=1_000, turns_s=None), SHAPE, [300], 400, [1, 2])
    assert found["windows"][0]["auc"]["seeds"] == 2 and found["windows"][0]["auc"]["std"] > 0


def test_a_window_without_rows_has_an_untrained_model() -> None:
    rows = batch_of(in_order(samples(10, seconds=10, turns_s=None)), SHAPE)
    moments = rows.occurred_us
    learn = lambda window: windows._learned(SHAPE, 1, window)  # noqa: E731
    given, trained_on = windows.scores(
        rows, moments, MICROS, [(int(moments[-1]) + 9 * MICROS, slice(5, 10))], learn
    )
    assert len(given) == 5 and np.isfinite(given).all() and trained_on == 0


@pytest.mark.parametrize("seconds", [0, 500])
def test_too_few_samples_are_refused(seconds: int) -> None:
    table = samples(100 if seconds else 0, seconds=seconds or 1, turns_s=None)
    with pytest.raises(InvalidInput, match="more than 800 s"):
        windows.compare(table, SHAPE, [800], 50, [1])


def test_the_command_says_figures_or_what_is_wrong(tmp_path, capsys) -> None:
    path = tmp_path / "samples.parquet"
    pq.write_table(samples(300, seconds=1_000, turns_s=None), path)
    arguments = ["--samples", str(path), "--window-s", "300", "--every-s", "300", "--seeds", "1"]
    assert windows.main(arguments) == 0
    assert json.loads(capsys.readouterr().out)["windows"][0]["window_s"] == 300
    assert windows.main(["--samples", str(tmp_path / "none"), "--window-s", "300"]) == 1
    assert "trainer windows: " in capsys.readouterr().err


@pytest.mark.parametrize(
    "bad", [["--window-s", "0"], ["--window-s", "-1"], ["--window-s", "9", "--every-s", "0"]]
)
def test_bad_arguments_are_refused(bad, capsys) -> None:
    with pytest.raises(SystemExit):
        windows.main(["--samples", "x", *bad])
    assert bad[-2] in capsys.readouterr().err
