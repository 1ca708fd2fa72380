"""``python -m loadgen COMMAND``; each of COMMANDS has ``--help``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

COMMANDS = {
    "day0": "make (and cache) the simulated first day and generation 1",
    "seed": "fill a running stack: catalogue, features, generation 1",
    "day0-samples": "the samples of a seeded stack's day 0, into its lake",
    "simulate": "simulated users against a running stack; writes out/demo.json",
    "scenario": "what happens in the world of a running simulate: on NAME, off NAME, list",
    "trace": "follow one click to the model that has learned it",
    "world-log": "the simulated world as a log to replay",
    "replay": "a real log in event time against a running stack; writes out/replay.json",
    "sync-pass": "a real log, with an arm per interval at which the model is synchronised",
    "join-traffic": "the joiner's three inputs, written straight to Kafka",
}

# Commands whose options are not settings.
OWN_ARGUMENTS = {
    "replay": "loadgen.replay",
    "scenario": "loadgen.scenario_command",
    "sync-pass": "loadgen.sync_pass",
    "join-traffic": "loadgen.join_traffic",
}


def main(argv: list[str]) -> int:
    """Dispatches; exit code 2 for an unknown command."""
    command, arguments = (argv[0], argv[1:]) if argv else ("", [])
    if command not in COMMANDS:
        lines = [f"  {name:<12} {text}" for name, text in COMMANDS.items()]
        print("\n".join(["usage: python -m loadgen COMMAND [--help]", *lines]), file=sys.stderr)
        return 0 if command in ("-h", "--help") else 2
    if command in OWN_ARGUMENTS:
        return int(importlib.import_module(OWN_ARGUMENTS[command]).main(arguments))
    from loadgen import day0, day0_samples, seed, settings, simulate, trace, world_log
    from services.contract.errors import LoopError
    from services.runtime.settings import ProcessSettings, load

    runs: dict[str, tuple[Callable[[Any], int], type[ProcessSettings]]] = {
        "day0": (day0.run, settings.Day0Settings),
        "seed": (seed.run, settings.SeedSettings),
        "day0-samples": (day0_samples.run, settings.Day0SamplesSettings),
        "simulate": (simulate.run, settings.SimulateSettings),
        "trace": (trace.run, settings.TraceSettings),
        "world-log": (world_log.run, settings.WorldLogSettings),
    }
    work, kind = runs[command]
    try:
        return work(load(kind, arguments))
    except LoopError as error:
        print(f"loadgen {command}: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
