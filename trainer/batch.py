"""``python -m trainer batch --day 2026-03-01``: a full model from a day's samples in the lake.

    lake -> cut and rows (day.py) -> passes (fit.py), each kept in the store -> base at the cut -> release

The base is bound to the cut: its ``sample_offsets`` are where an online trainer goes on. The run has a key
made of everything that decides its outcome (day, cut, parent, what was quarantined, settings); what it has
done so far stands in the model store under ``batch/<key>/``. So the same run again goes on behind the last
finished pass, or gives the model that it gave before: there is one model per day, whatever dies. The last
line on stdout is the manifest's address.

Under ``torchrun --nproc-per-node N -m trainer batch ...`` N processes share the work (ranks.py): all of them
read lake and store, and must see the same there; the first one writes. When one dies, torchrun ends the
others. How many there are is no part of the key: the model is the same but for rounding.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

import grpc
import pyarrow as pa
import pyarrow.compute as pc
import torch

from services.contract import model_store
from services.contract.errors import InvalidInput, LoopError
from services.contract.lake_files import scan
from services.contract.model_schema import ModelShape, shape_of
from services.contract.model_state import ModelState, digest
from services.contract.model_store import SavedBase
from services.contract.signature import Signer, Trusted
from services.contract.times import MICROS
from services.runtime.settings import load
from services.runtime.telemetry import get_logger
from trainer import adagrad, fit
from trainer.base import new_state
from trainer.batch_release import quarantined_by, register
from trainer.batch_settings import BatchSettings
from trainer.batch_work import Work, run_key
from trainer.day import CUT_COLUMNS, Offsets, below, cut_of, day_start_us, file_days, select, without
from trainer.orders import Range
from trainer.ranks import ALONE, Ranks, joined
from trainer.sample_columns import SampleColumns
from trainer.sample_table import batch_of, usable
from trainer.samples import Batch
from trainer.schemas import SetsOnDemand

log = get_logger(__name__)
_HOURS = 24


class _Day(NamedTuple):
    """``rows`` to learn, then ``judge``; ``newest``: what was judged by and what is newer, learned last."""

    rows: Batch
    judge: Batch
    newest: Batch


def train_day(settings: BatchSettings, quarantined: Sequence[Range] = (), ranks: Ranks = ALONE) -> SavedBase:
    """The day's model, trained or found, without what rollbacks have ``quarantined``; the same on all
    ``ranks``. Blocking; LoopError says why there is none."""
    start_us = day_start_us(settings.day)
    day_us = settings.day_s * MICROS
    end_us = start_us + day_us
    sets = SetsOnDemand(settings.kafka, settings.name, settings.feature_set)
    shape = shape_of(sets.chosen())
    origin, parent = _origin(settings, shape)
    # What the parent has learned is not read again: a day costs a day, however long the lake is.
    start = {} if parent is None else origin.sample_offsets
    cut = cut_of(scan(settings.lake_uri, "samples", columns=CUT_COLUMNS, since=start), end_us, start)
    key = run_key(settings, shape, cut, parent, quarantined)
    work = Work(settings.model_store_uri, key, shape)
    before = work.finished()
    found = before and before.manifest_digest.hex()
    ranks.agree(lambda: {"the day's cut": cut, "the run": key, "the model found": found})
    if before is not None:
        if ranks.first:
            log.info("day trained before", day=settings.day, uri=before.manifest_uri)
        return before
    # Behind a parent a row may be of any day: its offsets say which are left.
    from_us = start_us - (settings.history_days - 1) * day_us if parent is None else -(1 << 62)
    days = file_days(from_us, end_us) if parent is None else None
    rows = below(without(scan(settings.lake_uri, "samples", days, since=start), quarantined), cut, start)
    features = SampleColumns(shape, sets.of(pc.unique(rows["schema_hash"]).to_pylist()).shape)
    rows, left_out = usable(rows, features)
    selected = select(
        rows,
        from_us=from_us,
        judged_from_us=end_us - int(settings.fit.judged_hours / _HOURS * day_us),
        end_us=end_us,
    )
    newest = pa.concat_tables([selected.judged, selected.early])
    day = _Day(*(batch_of(part, shape, features) for part in (selected.trained, selected.judged, newest)))
    how = fit.Fit(settings.learning, settings.admission, settings.fit, ranks)
    state, figures = _fit(how, work, origin, day)
    figures |= {f"left_out_{why}": float(count) for why, count in left_out.items()}

    def save() -> SavedBase:
        saved = _save(settings, state, cut, parent, figures)
        work.done(saved)
        return saved

    return ranks.from_first(save)


def _save(
    settings: BatchSettings,
    state: ModelState,
    cut: Offsets,
    parent: SavedBase | None,
    figures: dict[str, float],
) -> SavedBase:
    state.generation, state.policy, state.sequence, state.epoch = 1, "online", 0, 0
    state.sample_offsets, state.open_barriers = cut, {}
    state.created_at_us = time.time_ns() // 1000
    return model_store.save_base(
        settings.model_store_uri,
        state,
        created_at_us=state.created_at_us,
        parent_generation=parent.generation if parent else 0,
        metrics=figures,
        signer=Signer.read(settings.signing_key_file),
    )


def _origin(settings: BatchSettings, shape: ModelShape) -> tuple[ModelState, SavedBase | None]:
    if settings.parent is None:
        return new_state(shape, settings.learning), None
    trusted = Trusted.read(settings.trusted_keys_file)
    return model_store.load_base(settings.parent, shape, root=settings.model_store_uri, trusted=trusted)


def _fit(how: fit.Fit, work: Work, origin: ModelState, day: _Day) -> tuple[ModelState, dict[str, float]]:
    progress, standing = work.load(origin)
    _check_ranks(how, day, progress, standing)
    for kept in how.passes(standing, progress, day.rows, day.judge):
        standing = kept
        if how.ranks.first:
            work.keep(progress, standing)
            done = progress.passes[-1]
            log.info(
                "pass", number=done.number, best=progress.best, skipped=done.skipped_rows, **done.figures
            )
    best = progress.best_pass
    assert best is not None  # max_passes is at least 1
    skipped = how.finish(standing.best, day.newest)
    return standing.best, best.figures | {
        "rows": float(len(day.rows) + len(day.newest)),
        "passes": float(len(progress.passes)),
        "best_pass": float(best.number),
        "skipped_rows": float(best.skipped_rows + skipped),
    }


def _check_ranks(how: fit.Fit, day: _Day, progress: fit.Progress, standing: fit.Standing) -> None:
    """InvalidInput: more ranks than rows of a step. Conflict: they have read different things."""
    most = min(len(day.rows), how.learning.minibatch_rows)
    if how.ranks.share.size > most:
        raise InvalidInput.one("ranks", how.ranks.share.size, f"1 to {most}, the rows of a step")
    how.ranks.agree(
        lambda: {
            "the day's samples": [part.digest() for part in day],
            "the passes made": len(progress.passes),
            "the models to go on from": [digest(one).hex() for one in (standing.newest, standing.best)],
        }
    )


def main(argv: list[str]) -> int:
    """Exit code: 0, or 1 when there is no model or release did not take it."""
    settings = load(BatchSettings, argv)
    with joined(settings.rank_timeout_s) as ranks:
        try:
            torch.set_num_threads(ranks.threads(settings.threads))
            saved = _run(settings, ranks)
        except (OSError, pa.ArrowException, LoopError, grpc.aio.AioRpcError) as error:
            why = error.details() if isinstance(error, grpc.aio.AioRpcError) else error
            who = "trainer batch" if ranks.first else f"trainer batch, rank {ranks.share.rank}"
            sys.stderr.write(f"{who}: day {settings.day}: {why}\n")
            return 1
    if ranks.first:
        sys.stdout.write(f"{saved.manifest_uri}\n")
    return 0


def _run(settings: BatchSettings, ranks: Ranks) -> SavedBase:
    adagrad.warm_up()
    quarantined: list[Range] = []
    if settings.register_model:
        quarantined = ranks.from_first(lambda: asyncio.run(quarantined_by(settings)))
    saved = train_day(settings, quarantined, ranks)
    if settings.register_model and ranks.first:
        generation = asyncio.run(register(settings, saved))
        sys.stderr.write(f"generation {generation}\n")
    return saved
