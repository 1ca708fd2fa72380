"""``python -m services.ranking``: wiring only. The order of start and stop stands in replica.py."""

from __future__ import annotations

from services.contract import topics
from services.ranking.delta_feed import FeedRecord
from services.ranking.release_tail import ReleaseTail
from services.ranking.replica import Replica
from services.ranking.settings import Settings
from services.runtime.process import Process, run
from services.runtime.settings import load
from services.runtime.telemetry import freeze_after_load


async def serve(process: Process, settings: Settings) -> Replica:
    """Starts everything and returns when the default arm serves."""
    replica = Replica(process, settings)
    await replica.start()
    releases = ReleaseTail(
        settings.kafka,
        f"{settings.name}-{settings.replica}-releases",
        replica.arms.take,
        lambda record, reason: replica.dead_letter(
            topics.MODEL_RELEASES.name, 0, FeedRecord(record.offset, record.value or b""), reason
        ),
    )
    process.push_close("release tail", releases.stop)
    await releases.start()
    process.spawn(releases.run(), "release tail")
    await replica.until_serving()
    freeze_after_load()
    return replica


async def main(process: Process) -> None:
    """Serves until the process stops."""
    await serve(process, settings)
    await process.stopping.wait()


if __name__ == "__main__":
    settings = load(Settings)
    run(settings, main)
