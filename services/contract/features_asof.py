"""The encoding of many requests at once, out of a log: what ``features.encode`` would have said of each.

By the as-of join, so no state is made. For training rows of a finished log, and to check what was served.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from services.contract.features import category_of
from services.contract.view_asof import asof
from services.contract.view_log import EventLog, Labels, Mode
from services.contract.view_registry import FeatureSet, ViewColumn
from services.contract.view_values import Values


def encode_asof(  # noqa: PLR0917
    feature_set: FeatureSet,
    log: EventLog,
    requests: Labels,
    owner: NDArray[np.intp],
    item_ids: NDArray[np.uint64],
    mode: Mode = "ideal",
    lag_us: int = 0,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """([r, user_width], [n, item_width]) of r ``requests`` (with user_id) and n candidates, candidate i being
    one of request ``owner[i]``. ``mode``, ``lag_us``: as the as-of join takes them."""
    nothing = np.zeros(len(requests.at_us), np.int64)
    # A view that compares says its request columns beside any candidate.
    once = _with_candidate(requests, nothing.astype(np.uint64), nothing)
    each = _with_candidate(requests.take(owner), item_ids, np.zeros(len(item_ids), np.int64))
    catalogue = asof(feature_set.catalogue, log, each, mode, lag_us)
    each = _with_candidate(each, item_ids, category_of(feature_set, catalogue))

    def fill(columns: tuple[ViewColumn, ...], labels: Labels) -> NDArray[np.float32]:
        matrix = np.empty((len(labels.at_us), len(columns)), np.float32)
        found: dict[str, Values] = {feature_set.catalogue.name: catalogue}
        for place, column in enumerate(columns):
            view = column.view
            if view.name not in found:
                found[view.name] = asof(view, log, labels, mode, lag_us)
            matrix[:, place] = found[view.name].values[:, column.index]
        return matrix

    return fill(feature_set.request_columns, once), fill(feature_set.candidate_columns, each)


def _with_candidate(labels: Labels, item_ids: NDArray[np.uint64], category: NDArray[np.int64]) -> Labels:
    fields = {**labels.fields, "item_id": item_ids, "category": category}
    return Labels(labels.at_us, fields, labels.wall_us)
