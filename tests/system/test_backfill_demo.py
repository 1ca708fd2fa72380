"""The demo itself, in short: a view joins a running stack, and what is read of it is what the log says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from local.backfill import command

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
    # Who learned from day 0 knows something. What a few hundred clicks teach, and shuffled ones, can be
    # anything (runs: 0.52 beside 0.53, 0.65 beside 0.54, 0.63 beside 0.38): the full demo judges that.
    assert all(0.55 < auc[of]["mean"] < 0.8 for of in ("backfilled", "without", "defaults")), auc
    assert all(0 < of["mean"] < 1 for of in auc.values()), auc
