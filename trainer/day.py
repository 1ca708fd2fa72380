"""Which samples are a day's: a cut of the samples log, and the rows below it. Pure.

A day ends at a cut: per partition of ``samples`` the offset behind the last row of an impression before the
day's end. What stands below it is the batch trainer's, rows of the next morning that were said early among
them; the online trainer goes on from there, so no row is trained twice and none is left out.

A day may be cut when every partition shows that its joiner has passed the end + W: there is a negative that
the end of its window decided (no action), of an impression at or after the day's end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from services.contract.errors import Conflict, InvalidInput
from services.contract.lake_files import DAY_US, day_of
from trainer.orders import Range

# What a cut is made of; the feature columns need not be read for it.
CUT_COLUMNS = ("partition", "offset", "impressed_us", "acted_us", "label", "label_version")

Offsets = dict[int, int]


def day_start_us(day: str) -> int:
    """Event time at which a UTC day ``YYYY-MM-DD`` begins, or one that begins at ``YYYY-MM-DDThh:mm:ss``."""
    try:
        return int(np.datetime64(day, "us").astype(np.int64))
    except ValueError as error:
        raise InvalidInput.one("day", day, "a date, YYYY-MM-DD, or a moment, YYYY-MM-DDThh:mm:ss") from error


def file_days(from_us: int, end_us: int) -> list[str]:
    """The UTC days whose files can hold the rows of impressions from ``from_us`` on below the cut at
    ``end_us``. Files hold the requests of a day: an impression of the first minutes may lie in the day
    before, and one that was said early in the day after, however short the trained day is."""
    first, behind = from_us // DAY_US - 1, -(-end_us // DAY_US) + 1
    return [day_of(day * DAY_US) for day in range(first, behind)]


def cut_of(samples: pa.Table, end_us: int, start: Mapping[int, int] = MappingProxyType({})) -> Offsets:
    """The cut at a day's end (CUT_COLUMNS of all samples, or of those from ``start`` on: a cut before it);
    Conflict names the partitions in which the day is not over yet."""
    cut: Offsets = {}
    open_partitions = []
    for partition in sorted({*pc.unique(samples["partition"]).to_pylist(), *start}):
        rows = samples.filter(pc.equal(samples["partition"], partition))
        impressed_us = rows["impressed_us"].to_numpy()
        decided = pc.and_(pc.is_null(rows["acted_us"]), pc.equal(rows["label"], 0.0))
        by_window = decided.to_numpy(zero_copy_only=False).astype(bool)
        by_window &= rows["label_version"].to_numpy() == 0
        if not (by_window & (impressed_us >= end_us)).any():
            open_partitions.append(partition)
        before = rows["offset"].to_numpy()[impressed_us < end_us]
        cut[partition] = int(before.max(initial=start.get(partition, 0) - 1)) + 1
    if open_partitions:
        raise Conflict(
            f"the day that ends at {np.datetime64(end_us, 'us')} is not over in partitions "
            f"{', '.join(map(str, open_partitions))} of samples: no window of a later impression has closed"
        )
    return cut


def below(samples: pa.Table, cut: Mapping[int, int], start: Mapping[int, int] | None = None) -> pa.Table:
    """The rows below a cut and, in partitions that have a start, from there on."""
    partition = samples["partition"].to_numpy()
    offset = samples["offset"].to_numpy()
    ends = np.array([cut.get(one, 0) for one in range(int(partition.max(initial=0)) + 1)], np.int64)
    starts = np.zeros(len(ends), np.int64)
    for one, first in (start or {}).items():
        if one < len(starts):
            starts[one] = first
    return samples.filter(pa.array((offset < ends[partition]) & (offset >= starts[partition])))


def without(samples: pa.Table, quarantined: Sequence[Range]) -> pa.Table:
    """The rows outside of ranges (partition, start, end): what a rollback has undone is not learned again."""
    partition, offset = samples["partition"].to_numpy(), samples["offset"].to_numpy()
    kept = np.ones(len(samples), bool)
    for one, start, end in quarantined:
        kept &= (partition != one) | (offset < start) | (offset >= end)
    return samples.filter(pa.array(kept))


def newest_labels(samples: pa.Table) -> pa.Table:
    """One row per sample: its newest label version, by time of impression, then request and position. So the
    order is decided by the events, not by who said what when."""
    keys = ("impressed_us", "request_id", "position", "item_id", "label_version", "offset")
    ordered = samples.sort_by([(name, "ascending") for name in keys]).combine_chunks()
    if len(ordered) < 2:
        return ordered
    same = pc.and_(
        pc.equal(ordered["request_id"][1:], ordered["request_id"][:-1]),
        pc.equal(ordered["item_id"][1:], ordered["item_id"][:-1]),
    ).to_numpy(zero_copy_only=False)
    last = np.concatenate((~same.astype(bool), [True]))
    return ordered.filter(pa.array(last))


@dataclass(frozen=True)
class Selected:
    """A day's rows: ``trained`` before ``judged``, the newest part; ``early``: clicks of the next morning,
    whose negatives are still to come, so that nothing can be judged by them."""

    trained: pa.Table
    judged: pa.Table
    early: pa.Table


def select(samples: pa.Table, *, from_us: int, judged_from_us: int, end_us: int) -> Selected:
    """Of what stands ``below`` the cut of a day that ends at ``end_us``, the rows of impressions from
    ``from_us`` on; InvalidInput when there is nothing to learn or nothing to judge by."""
    rows = newest_labels(samples)
    rows = rows.filter(pc.greater_equal(rows["impressed_us"], from_us))
    is_early = pc.greater_equal(rows["impressed_us"], end_us)
    early, rows = rows.filter(is_early), rows.filter(pc.invert(is_early))
    is_new = pc.greater_equal(rows["impressed_us"], judged_from_us)
    found = Selected(rows.filter(pc.invert(is_new)), rows.filter(is_new), early)
    for name, part in (("to train", found.trained), ("to judge by", found.judged)):
        positives = pc.sum(pc.greater(part["label"], 0.0)).as_py() or 0
        if not 0 < positives < len(part):
            raise InvalidInput.one("day", f"{len(part)} rows {name}, {positives} positive", "both labels")
    return found
