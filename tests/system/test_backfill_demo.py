"""The demo itself, in short: a view joins a running stack, and what is read of it is what the log says."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from local.backfill import command
from local.backfill.run import Run
from local.backfill.view import USER_LATELY
from services.contract.feature_sets import WORLD, feature_set
from services.contract.model_schema import shape_of
from services.contract.view_registry import FeatureSet
from trainer.holdout import SHUFFLED, compare
from trainer.sample_table import in_order

pytestmark = pytest.mark.system


@pytest.mark.timeout(600)
def test_a_view_joins_a_running_stack_with_its_past(tmp_path: Path) -> None:
    where = ["--out", str(tmp_path / "out"), "--run-dir", str(tmp_path / "run"), "--free-ports"]
    code = command.main(["--quick", "--seeds", "1", *where])
    found = json.loads((tmp_path / "out" / "backfill.json").read_text())
    assert code == 0, found["failed_checks"]
    assert found["rows"] == 2_000 and found["rows_not_default"] > 1_000
    assert found["mismatches"] == found["missing"] == found["extra"] == 0
    assert found["states_filled"] > 1_000 and found["trainable_rows"] > 190_000
    assert 0 < found["forward_logging"]["rows"] < found["trainable_rows"]
    auc = found["auc"]
    assert auc["backfilled"]["rows"] == auc["without"]["rows"] > 190_000
    # Of a few hundred clicks behind the trend of minutes, AUC can be anything (models of day 0: 0.55, 0.62).
    assert all(0 < of["mean"] < 1 and 0 < of["error"] < 0.05 for of in auc.values()), auc
    _assert_the_past_teaches(tmp_path / "out" / "backfill")


def _assert_the_past_teaches(folder: Path) -> None:
    """Of day 0, with the columns that were recomputed, four fifths foretell the last."""
    samples = pq.read_table(folder / "samples.parquet")
    day0 = in_order(samples.filter(pc.less(samples["impressed_us"], Run.load(folder).began_us)))
    cut_us = day0["impressed_us"][day0.num_rows * 4 // 5].as_py()
    shape = shape_of(FeatureSet((*feature_set(WORLD).views, USER_LATELY)))
    found = compare({"past": day0}, day0, shape, cut_us, [1])
    assert found["past"]["auc"]["mean"] > 0.62, found
    assert 0.4 < found[SHUFFLED]["auc"]["mean"] < 0.56, found
