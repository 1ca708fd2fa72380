"""``python -m services.ranking``: wiring only. The order of start and stop stands in replica.py."""

from __future__ import annotations

from services.contract import topics
from services.contract.feature_sets import feature_set
from services.contract.view_growth import GrowingSet
from services.ranking.delta_feed import FeedRecord
from services.ranking.release_tail import ReleaseTail
from services.ranking.replica import Replica
from services.ranking.served_sets import ServedSets
from services.ranking.settings import Settings
from services.runtime.kafka_tail import LogTail
from services.runtime.process import Process, run
from services.runtime.settings import load
from services.runtime.telemetry import freeze_after_load


async def serve(process: Process, settings: Settings) -> Replica:
    """Starts everything and returns when the default arm serves."""
    growing = GrowingSet(settings.feature_set, feature_set(settings.feature_set))
    client_id = f"{settings.name}-{settings.replica}-views"
    views = LogTail(settings.kafka, client_id, topics.FEATURE_VIEWS.name, growing.take)
    replica = Replica(process, settings, sets=ServedSets(growing, views))
    await replica.start()
    process.push_close("views tail", views.stop)
    await views.start()
    await views.catch_up()
    process.spawn(views.run(), "feature views")
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
