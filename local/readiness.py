"""Waits until processes say that they serve."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from local.child import Child
from local.errors import StartFailed
from local.health import SERVING, HealthProbe

POLL_S = 0.1


def wait_serving(
    children: Mapping[str, Child],
    admin_targets: Mapping[str, str],
    deadline: float,
    ready: Callable[[str], None],
    meanwhile: Callable[[], None] = lambda: None,
) -> None:
    """Returns when every process of ``admin_targets`` is SERVING, telling ``ready`` of each.

    ``meanwhile`` is called at each look and may raise. Raises StartFailed with the last log lines when a
    process ends, or is not serving at ``deadline`` (``time.monotonic()``).
    """
    probes = {name: HealthProbe(target) for name, target in sorted(admin_targets.items())}
    try:
        while probes:
            meanwhile()
            for name in list(probes):
                children[name].require_running()
                if probes[name].status() == SERVING:
                    ready(name)
                    probes.pop(name).close()
            if probes and time.monotonic() > deadline:
                logs = "\n".join(f"--- {name}:\n{children[name].tail(8)}" for name in probes)
                raise StartFailed(f"not serving in time: {', '.join(probes)}\n{logs}")
            if probes:
                time.sleep(POLL_S)
    finally:
        for probe in probes.values():
            probe.close()
