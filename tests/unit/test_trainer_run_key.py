"""The key of a batch run: whatever decides its outcome, and nothing else."""

from __future__ import annotations

import pytest

from services.contract.model_store import SavedBase
from tests.feature_kit import SHAPE
from trainer.batch_settings import BatchSettings, FitSettings
from trainer.batch_work import run_key
from trainer.settings import AdmissionSettings, LearningSettings

CUT = {0: 5, 1: 7}
PARENT = SavedBase("u", b"d" * 32, 1, "online", 0, 0, b"d" * 32, 0, 0, {})


def key(parent: SavedBase | None = None, cut=CUT, quarantined=(), **changes: object) -> str:
    settings = BatchSettings(**({"day": "2026-03-01"} | changes))  # type: ignore[arg-type]
    return run_key(settings, SHAPE, cut, parent, quarantined)


@pytest.mark.parametrize(
    "changes",
    [
        {"day": "2026-03-02"},
        # The same moment and the same cut: only what is judged, and so learned last, is another part.
        {"day_s": 3_600},
        {"history_days": 2},
        {"cut": {0: 5, 1: 8}},
        {"quarantined": [(0, 2, 3)]},
        {"learning": LearningSettings(seed=9)},
        {"admission": AdmissionSettings(min_count_item=9)},
        {"fit": FitSettings(patience=9)},
        {"parent": PARENT},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_decides_the_outcome_is_in_the_key(changes: dict) -> None:
    assert key(**changes) != key()


def test_where_and_how_fast_it_is_made_is_not() -> None:
    assert key(model_store_uri="elsewhere", threads=4, rank_timeout_s=9, arm="candidate") == key()
    assert key(cut={1: 7, 0: 5}) == key()
    assert key(quarantined=[(1, 2, 3), (0, 2, 3)]) == key(quarantined=[(0, 2, 3), (1, 2, 3)])
