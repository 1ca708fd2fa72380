"""Models on several sets of samples, judged on one truth: ``python -m trainer holdout``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from local.trainer_figures import trainer_figures


def holdout(
    truth: Path, sets: Mapping[str, Path], cut_us: int, seeds: int, options: Sequence[str]
) -> dict[str, Any]:
    """Its figures by name of the set. Raises LocalError when it fails."""
    given = ["--truth", str(truth), "--cut-us", str(cut_us), "--seeds", str(seeds), *options]
    given += [part for name, path in sets.items() for part in ("--train", f"{name}={path}")]
    return trainer_figures("holdout", given)
