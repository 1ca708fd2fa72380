"""What the view is worth: the model of ``trainer holdout``, trained on several pasts, judged on the same
newest samples.

without          all samples, the columns that were served
backfilled       the same samples, with the view's columns recomputed
backfilled_run   those of the run alone: day 0 shows what another policy chose, and trends move
forward          only the samples since the view was live: what logging it from then on gives
forward_without  the same few, without the view: what is recency, and not the view
defaults         all samples, with the view's columns at their defaults before it was live: forward logging,
                 and the past not thrown away

All are trained on what was shown before the rows of the backfill were there, and judged on what came after.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from local.backfill.run import Run
from local.backfill.view import USER_LATELY
from local.errors import LocalError
from local.holdout import holdout
from services.contract.columns import F32
from services.contract.feature_sets import feature_set
from services.contract.view_registry import FeatureSet

NARROW = ("without", "forward_without")
WIDE = ("backfilled", "backfilled_run", "forward", "defaults")
SHUFFLED = "shuffled_labels"


def learn(folder: Path, run: Run, set_name: str, seeds: int) -> dict[str, Any]:
    """{auc: {set: {mean, min, max, error, rows}}, held_out: {rows, clicks, cut_us, seeds}}. LocalError:
    nothing to judge by."""
    features = feature_set(set_name)
    wide = pq.read_table(folder / "samples.parquet")
    cut_us = run.trainable_us
    judged = wide.filter(pc.greater_equal(wide["impressed_us"], cut_us))
    if not judged.num_rows:
        raise LocalError("no samples behind the backfill: a longer --duration-s is needed")
    truth = wide.filter(pc.greater_equal(wide["impressed_us"], run.began_us))
    forward = wide.filter(pc.greater_equal(wide["impressed_us"], run.live_us))
    tables = {
        "without": narrow(wide, features),
        "truth-narrow": narrow(truth, features),
        "truth": truth,
        "backfilled": wide,
        "backfilled_run": truth,
        "forward": forward,
        "forward_without": narrow(forward, features),
        "defaults": defaulted(wide, features, run.live_us),
    }
    paths = {name: folder / f"set-{name}.parquet" for name in tables}
    for name, table in tables.items():
        pq.write_table(table, paths[name], compression="zstd")
    options = ["--feature-set", set_name]
    found = holdout(paths["truth-narrow"], {name: paths[name] for name in NARROW}, cut_us, seeds, options)
    added = ["--add-view", str(folder / "view.json")]
    found |= holdout(paths["truth"], {name: paths[name] for name in WIDE}, cut_us, seeds, [*options, *added])
    return {
        "auc": {
            name: {
                **found[name]["auc"],
                "error": found[name]["auc_error"]["mean"],
                "rows": found[name]["rows"],
            }
            for name in (*NARROW, *WIDE, SHUFFLED)
        },
        "log_loss": {name: found[name]["log_loss"]["mean"] for name in (*NARROW, *WIDE)},
        "held_out": {
            "rows": judged.num_rows,
            "clicks": int(pc.sum(pc.greater(judged["label"], 0)).as_py()),
            "cut_us": cut_us,
            "seeds": seeds,
        },
    }


def narrow(wide: pa.Table, features: FeatureSet) -> pa.Table:
    """The samples as they were served: without the columns behind those of the set."""
    for name, width in (("user_features", features.user_width), ("item_features", features.item_width)):
        cut = pc.binary_slice(wide[name], 0, 4 * width)
        wide = wide.set_column(wide.schema.get_field_index(name), name, cut)
    return wide


def defaulted(wide: pa.Table, features: FeatureSet, until_us: int) -> pa.Table:
    """The samples with the view's columns at their defaults where they were shown before ``until_us``."""
    new = FeatureSet((*features.views, USER_LATELY))
    before = pc.less(wide["impressed_us"], until_us)
    for name, width, columns in (
        ("user_features", features.user_width, new.request_columns),
        ("item_features", features.item_width, new.candidate_columns),
    ):
        added = np.array([column.feature.default for column in columns[width:]], F32).tobytes()
        served = pc.binary_slice(wide[name], 0, 4 * width)
        without = pc.binary_join_element_wise(
            served, pa.scalar(added, pa.binary()), pa.scalar(b"", pa.binary())
        )
        wide = wide.set_column(
            wide.schema.get_field_index(name), name, pc.if_else(before, without, wide[name])
        )
    return wide
