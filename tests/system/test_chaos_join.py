"""The chaos command itself, in short: replicas killed under load, every shown item explained once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from local import chaos_join

pytestmark = pytest.mark.system


@pytest.mark.timeout(240)
def test_killed_replicas_lose_and_double_nothing(tmp_path: Path) -> None:
    code = chaos_join.main(["--host", "joiner", "--rounds", "3", "--rate", "210", "--out", str(tmp_path)])
    figures = json.loads((tmp_path / "chaos-join.json").read_text())
    assert code == 0, figures
    assert figures["kills"] == 3 and figures["samples"] > 10_000
    assert figures["duplicates"] == figures["unexplained_losses"] == 0
