"""``python -m services.lake compact|check|repair|publish-views``. JSON lines on stdout, one per result.

compact   merges the small files of closed days (or of ``--day``); may run beside the writer and readers
check     reads everything; exit code 1 when something is broken, missing or there twice
repair    writes broken files anew from Kafka; exit code 1 when it no longer holds their records
publish-views
          writes the catalogue as the next table of batch features, when it has changed; exit code 1 when
          there is no catalogue yet
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict

from pydantic import Field

from services.contract import lake_files
from services.contract.errors import Conflict
from services.contract.lake_files import BrokenFile
from services.contract.lake_log import partitions
from services.contract.lake_rows import TABLES
from services.contract.lake_store import LakeStore
from services.lake.check import Problem, broken, check
from services.lake.compaction import Compactor, Rules, closed_days, wall_ms
from services.lake.repair import repair
from services.lake.settings import Settings
from services.lake.views import Published, ViewPublisher
from services.runtime.kafka_consumer import LogReader
from services.runtime.settings import load

# A repeat is not an error: delivery may repeat, and compaction drops it.
_HARMLESS = {"repeats"}


class CommandSettings(Settings):
    """The service's settings, and what only the commands want."""

    day: str | None = Field(default=None, pattern=r"^\d{4}-\d\d-\d\d$")
    """Compact this day (UTC) only, closed or not."""
    target_bytes: int = Field(default=256 * 1024 * 1024, gt=0)
    """Files of one day are merged up to this size: a merge needs several times this memory."""
    grace_ms: int = Field(default=3_600_000, gt=0)
    """Replaced files stay this long for readers that began before; longer than any read."""
    accept_loss: bool = False
    """Repair: forget broken files whose records Kafka no longer holds, so that their days can be read
    again."""


def command(name: str, argv: Sequence[str]) -> int:
    """Runs one command; its exit code."""
    settings = load(CommandSettings, argv)
    return COMMANDS[name](settings, LakeStore(settings.lake_uri))


def compact(settings: CommandSettings, store: LakeStore) -> int:
    """Compacts every table; a day that cannot be read is reported and stays as it is."""
    rules, failed = Rules(settings.target_bytes, settings.grace_ms), 0
    for table in TABLES:
        states = lake_files.states(store, table)
        days = [settings.day] if settings.day is not None else closed_days(states)
        for partition in states:
            compactor = Compactor(store, table, partition, rules, wall_ms)
            try:
                for merge in compactor.run(days):
                    _say(asdict(merge))
            except BrokenFile as error:
                failed = 1
                _say(asdict(broken(partition, error)))
            except Conflict as error:
                failed = 1
                _say(asdict(Problem(table, partition, "conflict", str(error))))
    return failed


def check_all(settings: CommandSettings, store: LakeStore) -> int:
    """Totals per partition, then problems."""
    failed = 0
    for table in TABLES:
        totals, problems = check(store, table)
        for line in (*map(asdict, totals), *map(asdict, problems)):
            _say(line)
        failed |= any(one.problem not in _HARMLESS for one in problems)
    return int(failed)


def repair_all(settings: CommandSettings, store: LakeStore) -> int:
    """Repairs every table."""

    async def work() -> int:
        reader, failed = LogReader(settings.kafka, f"{settings.name} repair"), 0
        await reader.start()
        try:
            for table in TABLES:
                for partition in partitions(store, table):
                    for line in await repair(
                        store, table, partition, reader, accept_loss=settings.accept_loss
                    ):
                        _say(asdict(line))
                        failed |= line.problem == "lost"
        finally:
            await reader.stop()
        return int(failed)

    return asyncio.run(work())


def publish_views(settings: CommandSettings, store: LakeStore) -> int:
    """One publication; another publisher's, made meanwhile, is as good."""

    async def work() -> Published:
        reader = LogReader(settings.kafka, f"{settings.name} views")
        await reader.start()
        try:
            publisher = ViewPublisher(store, reader, settings.view_retention_ms / 1000)
            try:
                return await publisher.publish()
            except FileExistsError:
                return await publisher.publish()
        finally:
            await reader.stop()

    made = asyncio.run(work())
    _say(asdict(made))
    return int(made.partition is None)


def _say(line: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")


COMMANDS: dict[str, Callable[[CommandSettings, LakeStore], int]] = {
    "compact": compact,
    "check": check_all,
    "repair": repair_all,
    "publish-views": publish_views,
}
