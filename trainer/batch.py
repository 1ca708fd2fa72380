"""``python -m trainer batch --day 2026-03-01``: a full model from a day's samples in the lake.

    lake -> cut and rows (day.py) -> passes (fit.py), each kept in the store -> base at the cut -> release

The base is bound to the cut: its ``sample_offsets`` are where an online trainer goes on. The run has a key
made of everything that decides its outcome (day, cut, parent, settings); what it has done so far stands in
the model store under ``batch/<key>/``. So the same run again goes on behind the last finished pass, or gives
the model that it gave before: there is one model per day, whatever dies. The last line on stdout is the
manifest's address.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict

import grpc
import pyarrow as pa
import pyarrow.compute as pc
import torch

from rec.model.v1 import model_pb2
from rec.v1 import release_pb2, release_pb2_grpc
from services.contract import id_table, model_store
from services.contract.errors import LoopError
from services.contract.lake_files import DAY_US, day_of, scan
from services.contract.lake_store import LakeStore
from services.contract.model_schema import ModelShape, shape_of
from services.contract.model_state import ModelState
from services.contract.model_store import SavedBase
from services.contract.signature import Signer, Trusted
from services.contract.times import MICROS
from services.runtime.grpc_client import channel
from services.runtime.settings import load
from services.runtime.telemetry import get_logger
from trainer import fit
from trainer.base import new_state
from trainer.batch_settings import BatchSettings
from trainer.day import CUT_COLUMNS, Offsets, Selected, below, cut_of, day_start_us, select, without
from trainer.orders import Orders, Range
from trainer.sample_columns import SampleColumns
from trainer.sample_table import batch_of, usable
from trainer.schemas import SetsOnDemand

log = get_logger(__name__)
HOURS = 24
_RPC_TIMEOUT_S = 10.0


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


def train_day(settings: BatchSettings, quarantined: Sequence[Range] = ()) -> SavedBase:
    """The day's model, trained or found, without what rollbacks have ``quarantined``. Blocking; LoopError
    says why there is none."""
    start_us = day_start_us(settings.day)
    day_us = settings.day_s * MICROS
    end_us = start_us + day_us
    cut = cut_of(scan(settings.lake_uri, "samples", columns=CUT_COLUMNS), end_us)
    sets = SetsOnDemand(settings.kafka, settings.name, settings.feature_set)
    shape = shape_of(sets.chosen())
    origin, parent = _origin(settings, shape)
    work = Work(settings.model_store_uri, run_key(settings, shape, cut, parent, quarantined), shape)
    if (before := work.finished()) is not None:
        log.info("day trained before", day=settings.day, uri=before.manifest_uri)
        return before
    start = None if parent is None else origin.sample_offsets
    rows = without(_rows(settings, start_us, end_us, whole=parent is not None), quarantined)
    rows = below(rows, cut, start)
    features = SampleColumns(shape, sets.of(pc.unique(rows["schema_hash"]).to_pylist()).shape)
    rows, left_out = usable(rows, features)
    selected = select(
        rows,
        cut,
        start=start,
        from_us=start_us - (settings.history_days - 1) * day_us if parent is None else -(1 << 62),
        judged_from_us=end_us - int(settings.fit.judged_hours / HOURS * day_us),
        end_us=end_us,
    )
    state, figures = _fit(settings, work, origin, selected, features)
    figures |= {f"left_out_{why}": float(count) for why, count in left_out.items()}
    state.generation, state.policy, state.sequence, state.epoch = 1, "online", 0, 0
    state.sample_offsets, state.open_barriers = cut, {}
    state.created_at_us = time.time_ns() // 1000
    saved = model_store.save_base(
        settings.model_store_uri,
        state,
        created_at_us=state.created_at_us,
        parent_generation=parent.generation if parent else 0,
        metrics=figures,
        signer=Signer.read(settings.signing_key_file),
    )
    work.done(saved)
    return saved


def _origin(settings: BatchSettings, shape: ModelShape) -> tuple[ModelState, SavedBase | None]:
    if settings.parent is None:
        return new_state(shape, settings.learning), None
    trusted = Trusted.read(settings.trusted_keys_file)
    return model_store.load_base(settings.parent, shape, root=settings.model_store_uri, trusted=trusted)


def _rows(settings: BatchSettings, start_us: int, end_us: int, *, whole: bool) -> pa.Table:
    """Samples of the days that can hold rows below the cut; of all days behind a parent."""
    if whole:
        return scan(settings.lake_uri, "samples")
    # Files hold the requests of a day: an impression of the first minutes may lie in the day before, one
    # that was said early in the day after.
    before_us = settings.history_days * settings.day_s * MICROS
    first, last = (start_us - before_us) // DAY_US, end_us // DAY_US
    days = [day_of(day * DAY_US) for day in range(first, last + 1)]
    return scan(settings.lake_uri, "samples", days)


def _fit(
    settings: BatchSettings, work: Work, origin: ModelState, selected: Selected, features: SampleColumns
) -> tuple[ModelState, dict[str, float]]:
    newest = pa.concat_tables([selected.judged, selected.early])
    parts = (selected.trained, selected.judged, newest)
    rows, judge, last = (batch_of(part, origin.shape, features) for part in parts)
    progress, standing = work.load(origin)
    how = fit.Fit(settings.learning, settings.admission, settings.fit)
    for kept in how.passes(standing, progress, rows, judge):
        standing = kept
        work.keep(progress, standing)
        done = progress.passes[-1]
        log.info("pass", number=done.number, best=progress.best, skipped=done.skipped_rows, **done.figures)
    best = progress.best_pass
    assert best is not None  # max_passes is at least 1
    skipped = how.finish(standing.best, last)
    return standing.best, best.figures | {
        "rows": float(len(rows) + len(last)),
        "passes": float(len(progress.passes)),
        "best_pass": float(best.number),
        "skipped_rows": float(best.skipped_rows + skipped),
    }


async def quarantined_by(settings: BatchSettings) -> list[Range]:
    """What the rollbacks that release knows have quarantined: (partition, start, end) of samples."""
    async with channel(settings.release_target, settings.grpc_client) as to_release:
        stub = release_pb2_grpc.ReleaseServiceStub(to_release)
        answer = await stub.ListReleases(release_pb2.ListReleasesRequest(), timeout=_RPC_TIMEOUT_S)
    orders = Orders()
    for record in answer.rollbacks:
        orders.take(record)
    return orders.quarantine.ranges()


async def register(settings: BatchSettings, saved: SavedBase) -> int:
    """Release's number of the model (the same for the same model); points the arm there when one is named."""
    async with channel(settings.release_target, settings.grpc_client) as to_release:
        stub = release_pb2_grpc.ReleaseServiceStub(to_release)
        answer = await stub.RegisterGeneration(
            release_pb2.RegisterGenerationRequest(
                manifest_uri=saved.manifest_uri,
                manifest_digest=saved.manifest_digest,
                parent_generation=saved.manifest["parent_generation"],
            ),
            timeout=_RPC_TIMEOUT_S,
        )
        if settings.arm:
            await stub.SetArm(
                release_pb2.SetArmRequest(
                    arm=settings.arm,
                    lineage=model_pb2.Lineage(generation=answer.generation, policy=saved.policy),
                    pinned_sequence=0,
                    state=model_pb2.RELEASE_STATE_SERVING,
                ),
                timeout=_RPC_TIMEOUT_S,
            )
        return int(answer.generation)


def main(argv: list[str]) -> int:
    """Exit code: 0, or 1 when there is no model or release did not take it."""
    settings = load(BatchSettings, argv)
    torch.set_num_threads(settings.threads)
    id_table.warm_up()
    try:
        quarantined = asyncio.run(quarantined_by(settings)) if settings.register_model else []
        saved = train_day(settings, quarantined)
        if settings.register_model:
            generation = asyncio.run(register(settings, saved))
            sys.stderr.write(f"generation {generation}\n")
    except (OSError, pa.ArrowException, LoopError, grpc.aio.AioRpcError) as error:
        why = error.details() if isinstance(error, grpc.aio.AioRpcError) else error
        sys.stderr.write(f"trainer batch: day {settings.day}: {why}\n")
        return 1
    sys.stdout.write(f"{saved.manifest_uri}\n")
    return 0
