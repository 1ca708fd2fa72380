"""The demo itself, in short: each fault is planted under load, found and mended, and no request fails."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from local.rollback import command
from local.rollback.verdict import ORDER

pytestmark = pytest.mark.system


@pytest.mark.timeout(600)
def test_what_is_planted_under_load_is_never_served_or_rolled_back(tmp_path: Path) -> None:
    where = ["--out", str(tmp_path / "out"), "--run-dir", str(tmp_path / "run"), "--free-ports"]
    # As many bots come: what a slow machine still answers at once.
    code = command.main(["--quick", "--rate", "15", *where])
    found = json.loads((tmp_path / "out" / "rollback.json").read_text())
    assert code == 0, found["failed_checks"]
    cases = {one["name"]: one for one in found["cases"]}
    assert tuple(cases) == ORDER
    assert all(one["detected_s"] > 0 and one["served_bad_after"] == 0 for one in cases.values())
    assert [name for name, one in cases.items() if one["served_bad"]] in ([], ["poisoned_clicks"])
    assert found["requests"] > 1_000 and found["errors"] == found["bots"]["errors"] == 0
    (first, *_) = found["rollbacks"]
    assert first["failed"] and first["taken_back_s"] > 60 and first["healthy_s"] > 0
    assert found["arms"]["baseline"] > 100
