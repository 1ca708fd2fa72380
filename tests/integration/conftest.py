"""What integration tests share."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest


@pytest.fixture
async def rig(private_kafka, tmp_path: Path, free_ports: Callable[[int], list[int]]) -> AsyncIterator:
    """A tests.rig_kit.Rig with generation 1; what its processes said is shown when the test fails."""
    from tests.rig_kit import Rig
    from tests.trainer_kit import new_state

    made = Rig(private_kafka.bootstrap, tmp_path, free_ports)
    try:
        assert await made.generation(new_state()) == 1
        yield made
    except BaseException:
        sys.stderr.write(made.logs())
        raise
    finally:
        made.close()
