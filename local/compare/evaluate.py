"""What a finished run says: the folder of run.py in, the figures of out/samples.json out.

Nothing here runs a service: the figures of a run can be computed again at any time, as long as its lake is
there. Only the models are trained in a process of their own (``python -m trainer holdout``: the launcher
knows no torch).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from local.compare import leak, speed
from local.compare.delay import delays
from local.compare.rows import encoded
from local.compare.run import Run, SchemeRun
from local.compare.sets import Matched, differences, match
from local.compare.truth import Truth, truth
from local.errors import LocalError
from local.holdout import holdout
from services.contract.feature_sets import feature_set
from services.contract.lake_files import scan

SCHEMES = ("lookup", "offline", "stream", "label_first")
TRAINED_SHARE = 0.7
LEAKY = "lookup"


def evaluate(folder: Path, seeds: int) -> dict[str, Any]:
    """The figures (keys: docs/results.md), without the verdict."""
    done = Run.load(folder)
    tables = {name: pq.read_table(folder / f"{name}.parquet") for name in SCHEMES if name != "offline"}
    tables["offline"] = pq.read_table(folder / "offline" / "samples.parquet")
    impressions = scan(done.lake_uri, "impressions")
    actions = scan(done.lake_uri, "actions", columns=["record", "event_id", "kind", "item_id", "occurred_us"])
    features = feature_set(done.feature_set)
    true = truth(tables["offline"], scan(done.lake_uri, "snapshots"), impressions, features)
    matched = {name: match(true, tables[name]) for name in SCHEMES}
    learned = _holdout(folder, true, done.feature_set, seeds)
    schemes = {
        name: _scheme(true, tables[name], matched[name], done.schemes[name], ended_ms)
        | _learned(learned["sets"][name])
        for name, ended_ms in zip(SCHEMES, _ended(done), strict=True)
    }
    return {
        "schemes": schemes,
        "speeds": _speeds(true, tables[LEAKY], matched[LEAKY], actions, done.window_us),
        "held_out": learned["held_out"],
        "shuffled_labels": _learned(learned["sets"]["shuffled_labels"]),
        "traffic": _traffic(done, true, impressions, actions),
        "reconciliation": {
            name: done.reconciliation[name]
            for name in ("unexplained", "completeness", "streamed_rows", "offline_rows")
        }
        | {"counts": {code: count for code, count in done.reconciliation["counts"].items() if count}},
        "shared_bytes": dict(done.shared_bytes),
        "deaths": list(done.deaths),
        "load_status": done.load_status,
    }


def _ended(done: Run) -> list[int | None]:
    """When a scheme's samples were there all at once (wall time, ms); None = each by itself."""
    return [done.batch_ended_ms if name == "offline" else None for name in SCHEMES]


def _scheme(
    true: Truth, samples: pa.Table, matched: Matched, cost: SchemeRun, ended_ms: int | None
) -> dict[str, Any]:
    mine = samples.take(pa.array(matched.rows))
    columns = leak.column_leaks(true.served.take(matched.at), encoded(mine, true.served.feature_set))
    kinds = leak.by_kind(columns)
    appended = np.full(mine.num_rows, ended_ms) if ended_ms else mine["appended_ms"].to_numpy()
    delay = delays(true.shown_ms[matched.at], appended, true.labels[matched.at])
    return {
        "samples": len(matched.rows),
        "completeness": matched.completeness,
        "reasons": dict(cost.reasons),
        "differences": differences(true, samples, matched),
        "leak_rate": {kind: one.rate for kind, one in kinds.items()},
        "leak_mean_abs": {kind: one.mean_abs_difference for kind, one in kinds.items()},
        "leak_columns": {
            one.name: {"kind": one.kind, "rate": one.rate, "mean_abs": one.mean_abs_difference}
            for one in columns
        },
        "state_bytes": cost.state_bytes,
        "written_bytes": sum(cost.written_bytes.values()),
        "written_parts": dict(cost.written_bytes),
        "cpu_s": round(sum(cost.cpu_s.values()), 2),
        "cpu_parts": {name: round(seconds, 2) for name, seconds in cost.cpu_s.items()},
        "delay_s": delay["all"],
        "delay_positive_s": delay["positives"],
        "delay_negative_s": delay["negatives"],
    }


def _learned(found: Mapping[str, Any]) -> dict[str, Any]:
    """AUC, log loss and calibration: the mean over the seeds, and between which values they lie."""
    figures: dict[str, Any] = {"trained_samples": found["rows"]}
    for name in ("auc", "log_loss", "calibration"):
        figures[name] = found[name]["mean"]
        figures[f"{name}_range"] = [found[name]["min"], found[name]["max"]]
    return figures


def _speeds(
    true: Truth, samples: pa.Table, matched: Matched, actions: pa.Table, window_us: int
) -> dict[str, Any]:
    clicked = _clicked(actions)
    found = encoded(samples.take(pa.array(matched.rows)), true.served.feature_set)
    served = true.served.take(matched.at)
    of_items = speed.item_speeds(true.item_ids[matched.at], clicked, run_us(true))
    # Items unknown when they were scored (just born) had defaults in every column, the static too.
    known = served.column(speed.STATIC) > 0
    still = known & (true.labels[matched.at] <= 0)
    moved = {
        name: leak.changed(served.column(name), found.column(name)) for name in (speed.MOVING, speed.STATIC)
    }
    classes = speed.speed_classes(of_items[still], moved[speed.MOVING][still], window_us)
    return {
        "scheme": LEAKY,
        "column": speed.MOVING,
        "classes": [asdict(one) for one in classes],
        "static": {
            "column": speed.STATIC,
            "rows": int(known.sum()),
            "leak_rate": float(moved[speed.STATIC][known].mean()) if known.any() else 0.0,
        },
        "without_state": int((~known).sum()),
    }


def _clicked(actions: pa.Table) -> NDArray[np.uint64]:
    """The item of each click, every click once however often it was delivered."""
    events = actions.filter(pc.equal(actions["record"], "event"))
    first = pc.index_in(pc.unique(events["event_id"]), events["event_id"].combine_chunks())
    return events["item_id"].take(first).to_numpy()


def run_us(true: Truth) -> int:
    """Event time from the first impression to the last."""
    if not len(true):
        return 0
    ends = pc.min_max(true.samples["impressed_us"]).as_py()
    return int(ends["max"] - ends["min"])


def _traffic(done: Run, true: Truth, impressions: pa.Table, actions: pa.Table) -> dict[str, Any]:
    events = impressions.filter(pc.equal(impressions["record"], "event"))
    return {
        "source": done.source,
        "impressed_items": int(pc.sum(pc.list_value_length(events["item_ids"])).as_py() or 0),
        "clicks": len(_clicked(actions)),
        "true_samples": len(true),
        "load_s": done.load_s,
        "event_s": run_us(true) / 1e6,
    }


# -- models ------------------------------------------------------------------------------------------------


def _holdout(folder: Path, true: Truth, set_name: str, seeds: int) -> dict[str, Any]:
    """The figures of ``trainer holdout`` on each scheme's samples, by name."""
    if not len(true):
        raise LocalError("no samples: nothing to compare; see the logs of the run")
    pq.write_table(true.table(), folder / "truth.parquet", compression="zstd")
    shown_us = true.samples["impressed_us"].to_numpy()
    cut_us = int(np.quantile(shown_us, TRAINED_SHARE))
    files = {name: folder / f"{name}.parquet" for name in SCHEMES} | {
        "offline": folder / "offline" / "samples.parquet"
    }
    learned = holdout(folder / "truth.parquet", files, cut_us, seeds, ["--feature-set", set_name])
    held_out = int((shown_us >= cut_us).sum())
    return {
        "sets": learned,
        "held_out": {"rows": held_out, "cut_us": cut_us, "seeds": seeds, "trained_share": TRAINED_SHARE},
    }
