"""What the commands that replay a real log have in common: their options, and the log that they name."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from loadgen import datasets
from services.runtime.settings import Connections


def parser(command: str, description: str | None) -> argparse.ArgumentParser:
    """Of ``python -m loadgen <command>``: data, barriers, how much of it, and where the evidence goes."""
    made = argparse.ArgumentParser(prog=f"python -m loadgen {command}", description=description)
    made.add_argument("--data", type=Path, required=True, help="MovieLens 100K folder, .csv or .parquet")
    made.add_argument("--barrier-s", type=int, default=600, help="event time between barriers, seconds")
    made.add_argument("--limit", type=int, default=0, help="only the first N events; 0 = all")
    made.add_argument("--concurrency", type=int, default=16, help="requests in flight inside an interval")
    made.add_argument(
        "--run", default=command, help="prefix of the request ids; new for each run on one stack"
    )
    made.add_argument("--out", type=Path, default=Path("out"), help="folder of figures and evidence/")
    return made


def parsed(made: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    """The arguments, within their bounds."""
    arguments = made.parse_args(argv)
    if arguments.barrier_s < 1:
        made.error(f"--barrier-s {arguments.barrier_s}: at least 1")
    if not 1 <= arguments.concurrency <= 256:
        made.error(f"--concurrency {arguments.concurrency}: 1 to 256")
    return arguments


def connections(bootstrap: str | None) -> Connections:
    """What the environment says, with Kafka at ``bootstrap`` when it is given."""
    found = Connections()
    if not bootstrap:
        return found
    kafka = found.kafka.model_copy(update={"bootstrap_servers": bootstrap})
    return found.model_copy(update={"kafka": kafka})


def events_of(arguments: argparse.Namespace, command: str) -> datasets.Events:
    """The log that the arguments name, as much of it as they want; columns that nobody uses are named.
    InvalidInput."""
    events = datasets.load(arguments.data)
    if events.ignored_columns:
        print(f"{command}: no such features, ignored: {', '.join(events.ignored_columns)}", file=sys.stderr)
    return events.head(arguments.limit) if arguments.limit else events
