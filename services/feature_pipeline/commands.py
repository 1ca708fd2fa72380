"""``python -m services.feature_pipeline memory``: what the states of each view cost in Redis, as a table."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from pydantic import Field
from redis import Redis

from services.contract.feature_sets import feature_set
from services.feature_pipeline.memory import measure, table
from services.feature_pipeline.settings import FeaturePipelineSettings
from services.runtime.settings import load


class CommandSettings(FeaturePipelineSettings):
    """The service's settings, and what only the commands want."""

    sample: int = Field(default=200, gt=0)
    """memory: entities per view of which Redis is asked what they use."""


def command(name: str, argv: Sequence[str]) -> int:
    """Runs one command; its exit code."""
    return COMMANDS[name](load(CommandSettings, argv))


def memory(settings: CommandSettings) -> int:
    """Prints the table."""
    with Redis.from_url(settings.redis.url, socket_timeout=30) as client:
        rows = list(measure(client, feature_set(settings.feature_set).views, settings.sample))
    sys.stdout.write(table(rows) + "\n")
    return 0


COMMANDS: dict[str, Callable[[CommandSettings], int]] = {"memory": memory}
