"""Audits what snapshots the lake has got since the last time. Synchronous, but for ``run``.

A request can be judged once the lake holds everything that was appended before its scoring: the writer holds
a record back for at most its flush age, so whoever waits that long (and a margin) has it.
"""

from __future__ import annotations

import asyncio
import time

import numpy as np
import pyarrow as pa

from services.contract import lake_files
from services.contract.errors import LoopError
from services.contract.lake_store import LakeStore
from services.contract.view_registry import FeatureSet
from services.lake import metrics
from services.lake.audit import COLUMNS, Audit, AuditRules, audit, sampled
from services.lake.audit_report import behind_ms
from services.lake.settings import Settings
from services.lake.view_log import LakeEvents


def audit_rules(settings: Settings) -> AuditRules:
    """As the settings say."""
    return AuditRules(share=settings.audit_share, tolerated=settings.audit_tolerated)


def settle_s(settings: Settings) -> float:
    """How long after its scoring a request is judged."""
    return (settings.flush_age_ms + settings.audit_settle_ms) / 1000


class Auditor:
    """``settle_s``: how long after its scoring a request is judged."""

    def __init__(
        self,
        store: LakeStore,
        events: LakeEvents,
        feature_set: FeatureSet,
        rules: AuditRules,
        settle_s: float,
    ) -> None:
        self._store, self._events = store, events
        self._set, self._rules, self._settle_s = feature_set, rules, settle_s
        # Partition of the snapshots -> first offset that was not looked at.
        self._next: dict[int, int] = {}

    def skip_to_end(self) -> None:
        """Only what comes from now on."""
        states = lake_files.states(self._store, "snapshots")
        self._next = {partition: state.next_offset or 0 for partition, state in states.items()}

    def audit(self, now_s: float) -> Audit:
        """Of the snapshots that have settled by now and were not audited before."""
        snapshots, following = self._settled(int((now_s - self._settle_s) * 1_000_000))
        said = audit(self._set, self._events.read(), snapshots, self._rules)
        self._next.update(following)
        return said

    def _settled(self, until_us: int) -> tuple[pa.Table, dict[int, int]]:
        """(snapshots, where to go on): of each partition up to the first that has not settled."""
        columns = ["partition", "offset", *COLUMNS]
        parts = [lake_files.projected("snapshots", columns).empty_table()]
        ends: dict[int, int] = {}
        early: dict[int, int] = {}
        for partition, file in lake_files.files(self._store, "snapshots"):
            if file.last < self._next.get(partition, 0):
                continue
            rows = lake_files.read_file(self._store, "snapshots", file, columns)
            offset, scored_us = rows["offset"].to_numpy(), rows["scored_us"].fill_null(0).to_numpy()
            ends[partition] = max(ends.get(partition, 0), file.last + 1)
            if (scored_us > until_us).any():
                first = int(offset[scored_us > until_us].min())
                early[partition] = min(early.get(partition, first), first)
            parts.append(
                sampled(rows.filter(pa.array(offset >= self._next.get(partition, 0))), self._rules.share)
            )
        following = ends | early
        found = pa.concat_tables(parts)
        # What stands behind one that has not settled waits for it.
        limit = np.array([following[one] for one in found["partition"].to_pylist()], np.int64)
        return found.filter(pa.array(found["offset"].to_numpy() < limit)), following

    async def run(self, interval_s: float) -> None:
        """Audits every ``interval_s`` until cancelled; what fails is tried again then."""
        await asyncio.to_thread(self.skip_to_end)
        while True:
            await asyncio.sleep(interval_s)
            try:
                said = await asyncio.to_thread(self.audit, time.time())
            except (LoopError, OSError) as error:
                metrics.AUDITS.labels("failed").inc()
                metrics.log.warning("features not audited", error=repr(error))
            else:
                metrics.AUDITS.labels("skewed" if said.skewed() else "clean").inc()
                count(said)


def count(said: Audit) -> None:
    """As metrics; skew is an error in the log too."""
    for outcome, requests in (
        ("audited", said.requests),
        ("other_schema", said.other_schema),
        ("unreadable", said.unreadable),
    ):
        metrics.AUDIT_REQUESTS.labels(outcome).inc(requests)
    for name, one in said.columns.items():
        for mode, found in (("as_served", one.as_served), ("ideal", one.ideal)):
            equal = found.rows - found.wrong
            for outcome, rows in (
                ("equal", equal),
                ("mismatch", found.mismatches),
                ("missing", found.missing),
                ("extra", found.extra),
            ):
                metrics.AUDIT_ROWS.labels(name, mode, outcome).inc(rows)
        if one.as_served.rows:
            metrics.AUDIT_NONDEFAULT.labels(name).set(one.nondefault / one.as_served.rows)
            metrics.AUDIT_BEHIND.labels(name).set(behind_ms(one, 99) / 1000)
    if skewed := said.skewed():
        metrics.log.error("features are skewed", features=skewed, requests=said.requests)
