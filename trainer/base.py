"""``python -m trainer base``: a full model from a file of samples, through the same steps as online.

The file is Parquet with a binary column ``value``: the bytes of SampleRecord, in the order in which they
are to be learned. The result is a base of lineage (1, online) at sequence 0 in the model store (release
gives the generation its number when it is registered). The last line on stdout is the manifest's address.
Same file, same seed: same state.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from services.contract import model_store
from services.contract.errors import LoopError
from services.contract.feature_sets import FEATURE_SETS, WORLD
from services.contract.model_schema import ModelShape, shape_of
from services.contract.model_state import ModelState
from trainer import adagrad
from trainer.evaluate import Rolling
from trainer.rows import initial_dense
from trainer.samples import Bad, RawRecord, decode
from trainer.settings import AdmissionSettings, LearningSettings
from trainer.step import train_step

_READ_RECORDS = 8_192
_EVALUATED_ROWS = 200_000
_MAX_RECORD_ROWS = 10_000


@dataclass
class Report:
    """What came of the file."""

    rows: int = 0
    barriers: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    figures: dict[str, float] = field(default_factory=dict)


def new_state(shape: ModelShape, learning: LearningSettings) -> ModelState:
    """An untrained model: no rows, dense tensors from the seed."""
    return ModelState(shape, dense=initial_dense(shape, learning.seed))


def read_records(path: Path) -> Iterator[list[RawRecord]]:
    """The file's records, some thousands at a time; the offset is the place in the file."""
    offset = 0
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=_READ_RECORDS, columns=["value"]):
            values = batch.column(0).to_pylist()
            yield [RawRecord(0, offset + place, value or b"") for place, value in enumerate(values)]
            offset += len(values)


def train_file(
    state: ModelState, path: Path, learning: LearningSettings, admission: AdmissionSettings, epochs: int
) -> Report:
    """Learns the file ``epochs`` times over; figures are those of the last pass."""
    report = Report()
    for _ in range(epochs):
        rolling = Rolling(_EVALUATED_ROWS)
        for records in read_records(path):
            decoded = decode(records, state.shape, _MAX_RECORD_ROWS, learning)
            report.barriers += len(decoded.barriers)
            _count(report.rejected, decoded.bad)
            for part in decoded.batch.split(learning.minibatch_rows) if decoded.batch else []:
                result = train_step(state, part, learning, admission)
                if result.skipped:
                    report.skipped[result.skipped] += len(part)
                    continue
                report.rows += len(part)
                rolling.add(part.labels, part.scores, result.predictions, part.negatives)
        report.figures = rolling.figures()
    return report


def _count(rejected: Counter[str], bad: list[Bad]) -> None:
    for one in bad:
        rejected[one.reason] += 1


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m trainer base", description=__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--samples", type=Path, help="Parquet file with a binary column value")
    source.add_argument("--init", action="store_true", help="write an untrained model")
    parser.add_argument("--out", required=True, help="root of the model store: a folder or URI")
    parser.add_argument("--parent", type=int, default=0, help="generation that this one follows; 0 = none")
    parser.add_argument(
        "--feature-set", choices=FEATURE_SETS, default=WORLD, help="the features that the samples carry"
    )
    parser.add_argument("--epochs", type=int, default=1, help="passes over the file")
    parser.add_argument("--minibatch-rows", type=int, default=4_096, help="rows of one step")
    parser.add_argument("--min-count-item", type=int, default=2, help="samples before an item gets a row")
    parser.add_argument("--seed", type=int, default=1, help="of the dense tensors' start")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    """Exit code: 0, or 1 when nothing could be trained or written."""
    args = _arguments(argv)
    torch.set_num_threads(args.threads)
    adagrad.warm_up()
    learning = LearningSettings(minibatch_rows=args.minibatch_rows, seed=args.seed)
    admission = AdmissionSettings(min_count_item=args.min_count_item)
    state = new_state(shape_of(FEATURE_SETS[args.feature_set]), learning)
    started = time.perf_counter()
    report = Report()
    try:
        if not args.init:
            report = train_file(state, args.samples, learning, admission, args.epochs)
            _tell(report, time.perf_counter() - started)
            if not report.rows:
                sys.stderr.write("nothing could be trained\n")
                return 1
        now_us = time.time_ns() // 1000
        state.created_at_us = now_us
        metrics = {name: value for name, value in report.figures.items() if not math.isnan(value)}
        saved = model_store.save_base(
            args.out,
            state,
            created_at_us=now_us,
            parent_generation=args.parent,
            metrics=metrics | {"rows": float(report.rows)},
        )
    except (OSError, pa.ArrowException, KeyError, LoopError) as error:
        sys.stderr.write(f"no base written: {error}\n")
        return 1
    sys.stdout.write(f"{saved.manifest_uri}\n")
    return 0


def _tell(report: Report, seconds: float) -> None:
    figures = ", ".join(f"{name} {value:.4f}" for name, value in report.figures.items())
    sys.stderr.write(f"{report.rows} rows in {seconds:.1f} s ({report.rows / seconds:.0f}/s); {figures}\n")
    for title, counts in (("rejected records", report.rejected), ("skipped rows", report.skipped)):
        if counts:
            sys.stderr.write(f"{title}: {dict(counts)}\n")
