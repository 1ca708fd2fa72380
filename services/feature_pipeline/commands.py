"""``python -m services.feature_pipeline memory|add-view``.

memory          what the states of each view cost in Redis, as a table
add-view FILE   adds a feature view (canonical text; or ``--text``) while the loop runs: it begins where the
                folds are, and is live, and served, when a backfill has given it its history. Exit code 1: it
                is known
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import Field
from redis import Redis

from services.contract import topics
from services.contract.errors import InvalidInput, LoopError
from services.contract.feature_sets import feature_set
from services.contract.feature_view import FeatureView, view_from
from services.contract.view_codec import canonical
from services.contract.view_growth import GrowingSet, key_of
from services.feature_pipeline.memory import measure, table
from services.feature_pipeline.settings import FeaturePipelineSettings
from services.runtime.kafka_producer import Producer
from services.runtime.kafka_tail import LogTail
from services.runtime.settings import load


class CommandSettings(FeaturePipelineSettings):
    """The service's settings, and what only the commands want."""

    sample: int = Field(default=200, gt=0)
    """memory: entities per view of which Redis is asked what they use."""
    text: str = ""
    """add-view: the view's canonical text (view_codec.canonical), instead of a file."""
    file: str = ""
    """add-view: a file with the text."""


def command(name: str, argv: Sequence[str]) -> int:
    """Runs one command; its exit code. LoopError by name: what was given cannot be."""
    arguments = ["--file", *argv] if argv and not argv[0].startswith("-") else list(argv)
    try:
        return COMMANDS[name](load(CommandSettings, arguments))
    except LoopError as error:
        sys.stderr.write(f"{name}: {error}\n")
        return 2


def memory(settings: CommandSettings) -> int:
    """Prints the table."""
    with Redis.from_url(settings.redis.url, socket_timeout=30) as client:
        rows = list(measure(client, feature_set(settings.feature_set).views, settings.sample))
    sys.stdout.write(table(rows) + "\n")
    return 0


def add_view(settings: CommandSettings) -> int:
    """Checks a view against those that are known, and writes it to feature-views."""
    if bool(settings.text) == bool(settings.file):
        raise InvalidInput.one("view", "neither or both", "a file or --text")
    view = view_from(settings.text or Path(settings.file).read_text().strip())
    added, unserved = asyncio.run(_add(settings, view))
    said = {"view": view.name, "version": view.version, "definition": f"{view.definition_hash:016x}"}
    if unserved is not None:
        said["folded_only"] = unserved
    sys.stdout.write(json.dumps({**said, "added": added}) + "\n")
    return 0 if added else 1


async def _add(settings: CommandSettings, view: FeatureView) -> tuple[bool, str | None]:
    """Whether it is new, and why it cannot be served."""
    growing = GrowingSet(settings.feature_set, feature_set(settings.feature_set))
    tail = LogTail(settings.kafka, "add-view", topics.FEATURE_VIEWS.name, growing.take)
    producer = Producer(settings.kafka, "add-view")
    try:
        await tail.start()
        await tail.catch_up()
        added = growing.add(view)
        if added:
            await producer.start()
            await producer.send(topics.FEATURE_VIEWS.name, canonical(view).encode(), key_of(view))
        return added, growing.refusal(view) if added else None
    finally:
        await producer.stop()
        await tail.stop()


COMMANDS: dict[str, Callable[[CommandSettings], int]] = {"memory": memory, "add-view": add_view}
