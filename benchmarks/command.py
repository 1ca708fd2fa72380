"""How a benchmark's command begins and ends."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks.result import write


def command_parser(module: str, description: str | None) -> argparse.ArgumentParser:
    """Of ``python -m benchmarks.<module>``; the description stays as it is laid out."""
    return argparse.ArgumentParser(
        prog=f"python -m benchmarks.{module}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def leave(name: str, result: dict[str, Any], folder: Path, said: str) -> int:
    """Writes the figures, prints what is ``said`` of them and what was missed; the exit code: 1 when anything
    was."""
    write(name, result, folder)
    print(said)
    for one in result["missed"]:
        print(f"missed: {one}")
    return 1 if result["missed"] else 0
