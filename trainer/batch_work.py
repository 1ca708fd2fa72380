"""What a batch run has done so far, in the model store under ``batch/<key>/``: a killed run goes on from
there, and a finished one is found again.

    pass-0001.json  pass-0002.json ...   each names the models of a finished pass (newest, best)
    done.json                            names the model that the run gave; written last
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict

from services.contract import model_store
from services.contract.lake_store import LakeStore
from services.contract.model_schema import ModelShape
from services.contract.model_state import ModelState
from services.contract.model_store import SavedBase
from trainer import fit
from trainer.batch_settings import BatchSettings
from trainer.day import Offsets
from trainer.orders import Range


def run_key(
    settings: BatchSettings,
    shape: ModelShape,
    cut: Offsets,
    parent: SavedBase | None,
    quarantined: Sequence[Range] = (),
) -> str:
    """A name for everything that decides the outcome of a run."""
    decides = {
        "day": [settings.day, settings.day_s],
        "cut": sorted(cut.items()),
        "quarantined": sorted(quarantined),
        "history_days": settings.history_days,
        "parent": parent.manifest_digest.hex() if parent else "",
        "learning": settings.learning.model_dump(),
        "admission": settings.admission.model_dump(),
        "fit": settings.fit.model_dump(),
        "model": shape.model_hash,
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]


class Work:
    """What a run has done so far, in the model store: a JSON record per finished pass, and one at the end."""

    def __init__(self, store_uri: str, key: str, shape: ModelShape) -> None:
        self._shape = shape
        self._root = f"{store_uri.rstrip('/')}/batch/{key}"
        self._store = LakeStore(self._root)

    def finished(self) -> SavedBase | None:
        """The model that the run gave; None while it has not."""
        if self._store.size("done.json") is None:
            return None
        return model_store.read_manifest(json.loads(self._store.read("done.json"))["manifest_uri"])

    def load(self, start: ModelState) -> tuple[fit.Progress, fit.Standing]:
        """Where to go on; from ``start`` when no pass was finished."""
        passes = sorted(name for name in self._store.names("") if name.startswith("pass-"))
        if not passes:
            return fit.Progress(), fit.Standing(start, start)
        kept = json.loads(self._store.read(passes[-1]))
        progress = fit.Progress([fit.Pass(**one) for one in kept["passes"]], kept["best"])
        newest, _ = model_store.load_base(kept["newest"], self._shape)
        best, _ = model_store.load_base(kept["best_model"], self._shape)
        return progress, fit.Standing(newest, best)

    def keep(self, progress: fit.Progress, standing: fit.Standing) -> None:
        """Writes the models of a pass, then the record that names them."""
        newest, best = (
            model_store.save_base(self._root, state, created_at_us=0).manifest_uri
            for state in (standing.newest, standing.best)
        )
        record = {
            "passes": [asdict(one) for one in progress.passes],
            "best": progress.best,
            "newest": newest,
            "best_model": best,
        }
        self._store.put(f"pass-{len(progress.passes):04d}.json", json.dumps(record, indent=1).encode())

    def done(self, saved: SavedBase) -> None:
        """The run is over; its own models are no longer needed."""
        self._store.put("done.json", json.dumps({"manifest_uri": saved.manifest_uri}).encode())
        for name in self._store.names(""):
            if name.endswith(model_store.MANIFEST_NAME):
                model_store.delete_base(f"{self._store.root}/{name}")
