"""The trainer's benchmark as it runs, small and without its peer."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from benchmarks import bench_trainer
from benchmarks.bench_trainer import Ours
from benchmarks.trainer_traffic import ROWS, Sizes, Traffic
from services.contract import model_schema

SMALL = Sizes(users=500, items=2_000, batches=2)


def test_ours_and_the_peer_learn_the_same_rows(tmp_path: Path) -> None:
    traffic = Traffic(SMALL)
    traffic.write(tmp_path / "batches.npz")
    with np.load(tmp_path / "batches.npz") as theirs:
        for number, batch in enumerate(traffic.batches()):
            cut = slice(number * ROWS, (number + 1) * ROWS)
            assert (batch.user_ids == traffic.user_ids[theirs["users"][cut]]).all()
            same = batch.item_ids == traffic.item_ids[theirs["items"][cut]]
            assert 0.98 < same.mean() < 1
            for name in ("labels", "user_features", "item_features"):
                assert (getattr(batch, name) == theirs[name][cut]).all()
        assert theirs["rows"].tolist() == [SMALL.users, SMALL.items, 20]
        assert theirs["factors"] == model_schema.FACTORS


def test_steps_learn_and_admit_new_items() -> None:
    traffic = Traffic(SMALL)
    state = traffic.state()
    before = state.tables["item"].rows.copy(), state.rows
    seconds = Ours(state, recall=True).train(traffic.batches())
    assert seconds > 0
    assert state.samples_trained == 2 * ROWS
    assert state.rows > before[1]
    assert len(state.tables["item"].pending)
    assert (state.tables["item"].rows[: len(before[0])] != before[0]).any()


def test_new_items_are_others_each_time_and_the_rest_is_the_same() -> None:
    traffic = Traffic(SMALL)
    first, second = traffic.batches(0)[0], traffic.batches(1)[0]
    assert (first.user_ids == second.user_ids).all()
    differ = first.item_ids != second.item_ids
    assert 0 < differ.sum() < 0.02 * ROWS


def test_a_small_run_has_all_rows_that_need_no_peer(tmp_path: Path) -> None:
    arguments = ["--rounds", "1", "--batches", "2", "--users", "500", "--items", "2000", "--ids", "5000"]
    bench_trainer.main([*arguments, "--memory-rows", "20000", "--out", str(tmp_path)])
    result = json.loads((tmp_path / "bench-trainer.json").read_text())
    assert [one["name"] for one in result["rows"]] == ["lookup_ids_per_s", "trainer_memory_ratio"]
    assert set(result["samples_per_s"]) == {"ours", "ours_without_recall"}
    assert result["memory_mb"]["peak"] > result["memory_mb"]["idle"] > result["memory_mb"]["parameters"]
    assert set(result["memory_ratios"]) == {"steady", "peak", "starting"}
    # It trained on ids that it had while the base was written.
    assert 0 < result["base"]["rows_kept"] <= result["base"]["rows"]
