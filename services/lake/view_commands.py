"""``python -m services.lake backfill-view|recompute-samples|audit-states``: a view joins a running loop.

backfill-view
           writes the first states of ``--view`` (name.version) to Redis where the fold has begun it
           (backfill.py); a JSON line per partition
recompute-samples
           writes all samples of the lake, those of before the topics too, to ``--out`` with the columns of
           the view behind those that were served (recompute.py); a JSON line says how many
audit-states
           of a log that stands still: what is read online of ``--rows`` rows, against the log
           (state_audit.py), as the feature server at ``--feature_target`` answers; out of Redis when none is
           given, and for the view while the server does not serve it. A JSON object on stdout and in
           ``--out``; exit code 1 when anything differs
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field
from redis import RedisError

from services.contract.errors import InvalidInput, Unavailable
from services.contract.feature_sets import feature_set
from services.contract.feature_view import FeatureView, view_from
from services.contract.lake_files import scan
from services.contract.lake_history import read_samples
from services.contract.lake_store import LakeStore
from services.contract.view_events import SHOWN
from services.contract.view_log import Labels
from services.contract.view_registry import FeatureSet, ViewRegistry
from services.contract.view_values import Values
from services.lake import online_states, state_audit
from services.lake.backfill import Backfill, Filled
from services.lake.feature_commands import run
from services.lake.recompute import widened, wider
from services.lake.settings import Settings
from services.lake.view_log import LakeEvents
from services.runtime.redis_client import connect
from services.runtime.settings import RedisSettings, load


class ViewSettings(Settings):
    """The service's settings, and what the commands want."""

    view: str = ""
    """name.version of a view of the feature set."""
    definition: Path | None = None
    """File with the canonical JSON of the view, when the set does not have it."""
    out: Path | None = None
    """File that is written: samples as Parquet, an audit as JSON."""
    backfill_timeout_ms: int = Field(default=600_000, gt=0)
    """backfill-view: how long the fold may take to begin the view, and the lake to hold what is below it."""
    rows: int = Field(default=12_000, gt=0, le=1_000_000)
    """audit-states: rows that are compared; a feature server answers some hundreds a second."""
    rows_seed: int = Field(default=1, ge=0)
    """audit-states: which ones."""
    feature_target: str = ""
    """audit-states: host:port of the feature server."""
    redis: RedisSettings = RedisSettings(timeout_ms=10_000)
    """Where the states are."""


def command(name: str, argv: Sequence[str]) -> int:
    """Runs one command; its exit code, 2 when the input, the lake, Redis or the settings cannot be used."""
    settings = load(ViewSettings, argv)
    return run(name, lambda: COMMANDS[name](settings))


def backfill_view(settings: ViewSettings) -> int:
    """First states of a view that has joined the loop."""
    view = view_of(settings)
    events = _events(settings)

    async def work() -> list[Filled]:
        client = connect(settings.redis)
        try:
            return await Backfill(client, events, view, settings.backfill_timeout_ms / 1000).run()
        finally:
            await client.aclose()

    try:
        filled = asyncio.run(work())
    except RedisError as error:
        raise Unavailable(f"Redis: {error!r}") from error
    for line in filled:
        _say(asdict(line))
    return 0


def recompute_samples(settings: ViewSettings) -> int:
    """The past as training rows of the wider set."""
    view, features = view_of(settings), feature_set(settings.feature_set)
    if settings.out is None:
        raise InvalidInput.one("out", "none", "a file")
    store = LakeStore(settings.lake_uri)
    samples = pa.concat_tables([read_samples(store), scan(settings.lake_uri, "samples")])
    made = widened(features, view, samples, _events(settings).read())
    pq.write_table(made.table, settings.out, compression="zstd")
    new = wider(features, view)
    _say(
        {
            "rows": made.table.num_rows,
            "served": made.served,
            "missing": made.missing,
            "other_schema": made.other_schema,
            "columns": [c.name for c in (*new.request_columns, *new.candidate_columns) if c.view is view],
            "schema_hash": f"{new.schema_hash:016x}",
        }
    )
    return 0


def audit_states(settings: ViewSettings) -> int:
    """Every view, row by row."""
    features = feature_set(settings.feature_set)
    added = [view_of(settings)] if settings.view or settings.definition else []
    log = _events(settings).read()
    if not (log.kind == SHOWN.code).any():
        raise InvalidInput.one("lake_uri", settings.lake_uri, "a lake in which something was shown")
    # Behind everything that happened: then all of it counts.
    rows = state_audit.chosen_rows(log, settings.rows, int(log.occurred_us.max()) + 1, settings.rows_seed)
    own = tuple(view for view in features.views if view not in added)
    try:
        online = asyncio.run(_online(settings, features, own, tuple(added), rows))
    except RedisError as error:
        raise Unavailable(f"Redis: {error!r}") from error
    views = (*added, *own)
    log_says = state_audit.expected(features, views, log, rows)
    found = {
        view.full_name: state_audit.compared(view, mine, right)
        for view, mine, right in zip(views, online, log_says, strict=True)
    }
    said = {"events": len(log), "rows": settings.rows, "views": state_audit.as_dict(found)}
    text = json.dumps(said, indent=1) + "\n"
    if settings.out is not None:
        settings.out.write_text(text)
    sys.stdout.write(text)
    return int(any(one.wrong for one in found.values()))


async def _online(
    settings: ViewSettings,
    features: FeatureSet,
    own: tuple[FeatureView, ...],
    added: tuple[FeatureView, ...],
    rows: Labels,
) -> list[Values]:
    """Of the added views, then of the set's own."""
    client = connect(settings.redis)
    try:
        if not settings.feature_target:
            return await online_states.from_redis(client, features, (*added, *own), rows)
        sets = [features, *(wider(features, view) for view in added)]
        served, answers = await online_states.from_server(settings.feature_target, settings.tls, sets, rows)
        found = {view: online_states.of_view(served, view, answers) for view in served.views}
        rest = [view for view in (*added, *own) if view not in found]
        found |= dict(zip(rest, await online_states.from_redis(client, features, rest, rows), strict=True))
        return [found[view] for view in (*added, *own)]
    finally:
        await client.aclose()


def view_of(settings: ViewSettings) -> FeatureView:
    """The view that is named or defined; NotFound, InvalidInput."""
    if settings.definition is not None:
        return view_from(settings.definition.read_text().strip())
    name, _, version = settings.view.rpartition(".")
    if not name or not version.isdecimal():
        raise InvalidInput.one("view", settings.view, "name.version, or a definition")
    return ViewRegistry(feature_set(settings.feature_set).views).get(name, int(version))


def _events(settings: ViewSettings) -> LakeEvents:
    return LakeEvents(LakeStore(settings.lake_uri), settings.history_max_records)


def _say(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")


COMMANDS: dict[str, Callable[[ViewSettings], int]] = {
    "backfill-view": backfill_view,
    "recompute-samples": recompute_samples,
    "audit-states": audit_states,
}
