"""A broker starts from its start cache, and without one that fits as well."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from local import kafka_server
from local.java import start_cache
from local.kafka_jars import jars
from local.kafka_server import KafkaServer

pytestmark = pytest.mark.integration


def said_at_start(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What Java printed while a broker started with this cache."""
    monkeypatch.setattr(kafka_server, "start_cache", lambda _name: cache)
    kafka = KafkaServer(folder)
    kafka.start()
    try:
        kafka.create_topics()
    finally:
        assert kafka.stop()
    return (folder / "output.log").read_text()


def test_the_cache_that_setup_made_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = start_cache(jars().name)
    assert cache is not None and cache.is_file(), "make setup makes it"
    assert "[aot" not in said_at_start(tmp_path, cache, monkeypatch)


def test_one_that_does_not_fit_is_refused_and_the_broker_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = start_cache(jars().name)
    assert good is not None
    cut = tmp_path / "cut.aot"
    shutil.copyfile(good, cut)
    with cut.open("r+b") as file:
        file.truncate(cut.stat().st_size // 2)
    assert "[aot" in said_at_start(tmp_path / "kafka", cut, monkeypatch)
