"""``python -m trainer windows``: models that know only the last minutes, judged on what came next.

Too little data against data that is too old: every ``--every-s`` of event time a new model is trained in one
pass over the samples of the last ``--window-s`` (0: over all before), and scores the samples until the next.
All windows score the same rows, from the moment on at which the longest is full; so does the model that was
served, by the scores that came with the samples. A JSON object on stdout.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from services.contract.errors import InvalidInput
from services.contract.feature_sets import FEATURE_SETS, WORLD
from services.contract.model_schema import ModelShape, shape_of
from services.contract.model_state import ModelState
from services.contract.quality import auc, log_loss
from services.contract.times import MICROS
from trainer import adagrad
from trainer.base import new_state
from trainer.holdout import predict, trained
from trainer.sample_table import batch_of, in_order
from trainer.samples import Batch
from trainer.settings import AdmissionSettings, LearningSettings

# Of a window every id counts: it has not the time to be seen often.
_ADMISSION = AdmissionSettings(min_count_item=1)
ALL = 0


def cuts(moments_us: NDArray[np.int64], longest_us: int, every_us: int) -> Iterator[tuple[int, slice]]:
    """(moment, rows from it until the next), where there are any; ``moments_us`` rising."""
    start = int(moments_us[0]) + longest_us
    for at_us in range(start, int(moments_us[-1]) + 1, every_us):
        begin, end = np.searchsorted(moments_us, (at_us, at_us + every_us))
        if begin < end:
            yield at_us, slice(int(begin), int(end))


def scores(
    rows: Batch,
    moments_us: NDArray[np.int64],
    window_us: int,
    judged: Sequence[tuple[int, slice]],
    learned: Callable[[Batch], ModelState],
) -> tuple[NDArray[np.float32], float]:
    """(scores of the judged rows by models of their time, rows that a model was trained on, on average)."""
    given, trained_on = [], []
    for at_us, part in judged:
        begin = 0 if window_us == ALL else int(np.searchsorted(moments_us, at_us - window_us))
        window = rows.rows(begin, part.start)
        trained_on.append(len(window))
        given.append(predict(learned(window), rows.rows(part.start, part.stop)))
    return np.concatenate(given), fmean(trained_on)


def _learned(shape: ModelShape, seed: int, window: Batch) -> ModelState:
    # Of nothing nothing is learned.
    if not len(window):
        return new_state(shape, LearningSettings(seed=seed))
    return trained(window, shape, seed, _ADMISSION)


def compare(
    samples: pa.Table, shape: ModelShape, windows_s: Sequence[int], every_s: int, seeds: Sequence[int]
) -> dict[str, Any]:
    """Figures by window. InvalidInput when the samples do not last longer than the longest window."""
    ordered = in_order(samples)
    moments_us = ordered["impressed_us"].to_numpy()
    longest_us = max(windows_s) * MICROS
    judged = list(cuts(moments_us, longest_us, every_s * MICROS)) if len(moments_us) else []
    rows = batch_of(ordered, shape)
    now = np.concatenate([np.arange(len(rows))[part] for _, part in judged]) if judged else np.zeros(0, int)
    labels = rows.labels[now]
    if len(np.unique(labels > 0)) < 2:
        raise InvalidInput.one(
            "samples", f"{len(rows)}, {len(now)} to judge by", f"more than {max(windows_s)} s of both labels"
        )
    found = []
    for window_s in windows_s:
        runs = [
            scores(rows, moments_us, window_s * MICROS, judged, partial(_learned, shape, seed))
            for seed in seeds
        ]
        areas = [auc(labels, given) for given, _ in runs]
        found.append(
            {
                "window_s": window_s or None,
                "auc": {
                    "mean": fmean(areas),
                    "std": stdev(areas) if len(areas) > 1 else None,
                    "seeds": len(areas),
                },
                "log_loss": fmean(log_loss(labels, given) for given, _ in runs),
                "trained_rows": runs[0][1],
            }
        )
    served = rows.scores[now]
    return {
        "windows": found,
        "served": {"auc": auc(labels, served), "log_loss": log_loss(labels, served)},
        "every_s": every_s,
        "models": len(judged),
        "judged_rows": len(now),
    }


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m trainer windows", description=__doc__)
    parser.add_argument("--samples", type=Path, required=True, help="Parquet: columns of the lake's samples")
    parser.add_argument(
        "--window-s",
        type=int,
        action="append",
        required=True,
        help="event time known; several; 0 = all before",
    )
    parser.add_argument("--every-s", type=int, default=300, help="event time between two models")
    parser.add_argument("--feature-set", choices=FEATURE_SETS, default=WORLD, help="what the samples carry")
    parser.add_argument("--seeds", type=int, default=3, help="models of each window, seeds 1, 2, ...")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    arguments = parser.parse_args(argv)
    for name, value, least in (
        ("--window-s", min(arguments.window_s), 0),
        ("--every-s", arguments.every_s, 1),
        ("--seeds", arguments.seeds, 1),
    ):
        if value < least:
            parser.error(f"{name} {value}: at least {least}")
    if not max(arguments.window_s):
        parser.error("--window-s: at least one that is not 0")
    return arguments


def main(argv: list[str]) -> int:
    """Exit code: 0, or 1 when the file cannot be learned from or judged by."""
    arguments = _arguments(argv)
    torch.set_num_threads(arguments.threads)
    adagrad.warm_up()
    shape = shape_of(FEATURE_SETS[arguments.feature_set])
    seeds = range(1, arguments.seeds + 1)
    try:
        samples = pq.read_table(arguments.samples)
        found = compare(samples, shape, arguments.window_s, arguments.every_s, seeds)
    except (OSError, pa.ArrowException, KeyError, InvalidInput) as error:
        sys.stderr.write(f"trainer windows: {error}\n")
        return 1
    sys.stdout.write(json.dumps(found) + "\n")
    return 0
