"""``python -m trainer holdout``: the same model on several sets of samples, judged on the same held-out
truth.

What a way to build samples is worth: each set (a Parquet file with the columns of the lake's samples) trains
a new model in one pass over the samples before ``--cut-us``, all in the same order and with the same
settings; every model is then frozen and judged on the rows of ``--truth`` from there on: the features as they
were served, the final labels. One more model is trained on the truth with its labels shuffled: it must know
nothing. A JSON object on stdout.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from services.contract import model_net, model_schema
from services.contract.errors import InvalidInput
from services.contract.feature_sets import FEATURE_SETS, WORLD
from services.contract.feature_view import view_from
from services.contract.model_schema import ModelShape, shape_of
from services.contract.model_state import ModelState
from services.contract.quality import auc, auc_error, log_loss
from services.contract.view_registry import FeatureSet
from trainer import adagrad
from trainer.base import new_state
from trainer.ranks import ALONE, Ranks
from trainer.sample_table import batch_of, in_order
from trainer.samples import Batch
from trainer.settings import AdmissionSettings, LearningSettings
from trainer.step import train_step

SHUFFLED = "shuffled_labels"
_RANK = slice(0, model_schema.RANK_WIDTH)
_ADMISSION = AdmissionSettings()


def trained(
    samples: Batch, shape: ModelShape, seed: int, admission: AdmissionSettings = _ADMISSION
) -> ModelState:
    """A new model after one pass; skipped steps are none.

    It starts at the share of positives: else ids would learn that share, those seen most the most of it, and
    a model of noise would still order them."""
    learning = LearningSettings(seed=seed)
    state = new_state(shape, learning)
    share = np.clip((samples.labels > 0).mean(), 0.001, 0.999)
    state.dense["bias"][...] = np.log(share / (1 - share))
    for part in samples.split(learning.minibatch_rows):
        train_step(state, part, learning, admission)
    return state


def predict(state: ModelState, rows: Batch) -> NDArray[np.float32]:
    """Click probabilities [n] as they would be served, of any users and items."""
    ids = {
        "user": rows.user_ids,
        "item": rows.item_ids,
        "category": model_net.category_ids(state.shape, rows.item_features),
    }
    dense = model_net.dense_tensors(state)
    with torch.inference_mode():
        user, item, category = (
            torch.from_numpy(state.tables[name].rows[state.tables[name].slots(ids[name])][:, _RANK])
            for name in model_schema.TABLES
        )
        inputs = model_net.dense_input(
            state.shape, torch.from_numpy(rows.user_features), torch.from_numpy(rows.item_features)
        )
        logits = model_net.training_logits(dense, user, item, category, inputs)
        return torch.sigmoid(logits + model_net.serving_position(dense)).numpy()


def judged(state: ModelState, truth: Batch, ranks: Ranks = ALONE) -> dict[str, float]:
    """AUC, log loss, and calibration: the mean prediction / the share of positives (1 = right). ``ranks``
    with the same state foretell a share of the rows each, and get the same figures."""
    part = ranks.share.of(len(truth))
    given = np.zeros(len(truth), np.float32)
    given[part] = predict(state, truth.rows(part.start, part.stop))
    ranks.sum([given])
    return _figures(truth.labels, given)


def _figures(labels: NDArray[np.float32], given: NDArray[np.float32]) -> dict[str, float]:
    rate = float((labels > 0).mean())
    return {
        "auc": auc(labels, given),
        "log_loss": log_loss(labels, given),
        "calibration": float(given.mean()) / rate if rate else float("nan"),
    }


def compare(
    sets: dict[str, pa.Table], truth: pa.Table, shape: ModelShape, cut_us: int, seeds: Sequence[int]
) -> dict[str, dict[str, Any]]:
    """Figures by name of the set, and of SHUFFLED: {auc, auc_error, log_loss, calibration: {mean, min,
    max}, rows}.

    InvalidInput when there is nothing to learn or to judge by."""
    truth = in_order(truth)
    held_out = batch_of(truth.filter(pc.greater_equal(truth["impressed_us"], cut_us)), shape)
    if not len(held_out) or len(np.unique(held_out.labels > 0)) < 2:
        raise InvalidInput.one("truth", f"{len(held_out)} rows from {cut_us} on", "positives and negatives")
    batches = {name: _before(table, shape, cut_us) for name, table in sets.items()}
    true = _before(truth, shape, cut_us)
    found = {
        name: _over_seeds(lambda _seed, of=of: of, held_out, shape, seeds) for name, of in batches.items()
    }
    found[SHUFFLED] = _over_seeds(lambda seed: shuffled(true, seed), held_out, shape, seeds)
    return found


def shuffled(batch: Batch, seed: int) -> Batch:
    """The batch with its labels dealt anew."""
    order = np.random.default_rng(seed).permutation(len(batch))
    changed = {"labels": batch.labels[order], "negatives": batch.negatives[order]}
    return Batch(**(vars(batch) | changed))


def _before(table: pa.Table, shape: ModelShape, cut_us: int) -> Batch:
    ordered = in_order(table)
    return batch_of(ordered.filter(pc.less(ordered["impressed_us"], cut_us)), shape)


def _over_seeds(samples_of: Any, held_out: Batch, shape: ModelShape, seeds: Iterable[int]) -> dict[str, Any]:
    rows, runs = 0, []
    for seed in seeds:
        samples = samples_of(seed)
        rows = len(samples)
        given = predict(trained(samples, shape, seed), held_out)
        error = {"auc_error": auc_error(held_out.labels, given)}
        runs.append(_figures(held_out.labels, given) | error)
    figures = {name: np.array([run[name] for run in runs]) for name in runs[0]}
    return {"rows": rows} | {
        name: {"mean": float(values.mean()), "min": float(values.min()), "max": float(values.max())}
        for name, values in figures.items()
    }


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m trainer holdout", description=__doc__)
    parser.add_argument("--train", action="append", required=True, help="NAME=FILE; several", metavar="SET")
    parser.add_argument("--truth", type=Path, required=True, help="Parquet: features as served, final labels")
    parser.add_argument(
        "--cut-us", type=int, required=True, help="event time: trained before, judged from here"
    )
    parser.add_argument(
        "--feature-set", choices=FEATURE_SETS, default=WORLD, help="the features that the samples carry"
    )
    parser.add_argument(
        "--add-view", type=Path, action="append", default=[], metavar="FILE",
        help="canonical text of a view behind those of the set; several",
    )  # fmt: skip
    parser.add_argument("--seeds", type=int, default=3, help="models per set, seeds 1, 2, ...")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    arguments = parser.parse_args(argv)
    if arguments.seeds < 1:
        parser.error(f"--seeds {arguments.seeds}: at least 1")
    if bad := [one for one in arguments.train if "=" not in one]:
        parser.error(f"--train {bad[0]}: expected NAME=FILE")
    return arguments


def main(argv: list[str]) -> int:
    """Exit code: 0, or 1 when a file cannot be learned from or judged by."""
    arguments = _arguments(argv)
    torch.set_num_threads(arguments.threads)
    adagrad.warm_up()
    try:
        sets = {
            name: pq.read_table(path) for name, _, path in (one.partition("=") for one in arguments.train)
        }
        truth = pq.read_table(arguments.truth)
        added = [view_from(path.read_text().strip()) for path in arguments.add_view]
        shape = shape_of(FeatureSet((*FEATURE_SETS[arguments.feature_set].views, *added)))
        found = compare(sets, truth, shape, arguments.cut_us, range(1, arguments.seeds + 1))
    except (OSError, pa.ArrowException, KeyError, InvalidInput) as error:
        sys.stderr.write(f"trainer holdout: {error}\n")
        return 1
    sys.stdout.write(json.dumps(found) + "\n")
    return 0
