"""What a benchmark leaves behind: its figures, and the machine that they come from."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def machine() -> dict[str, Any]:
    """Where the figures come from."""
    return {"cores": os.cpu_count(), "processor": platform.machine(), "python": platform.python_version()}


def write(name: str, result: Mapping[str, Any]) -> None:
    """To out/<name>.json."""
    target = Path("out") / f"{name}.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(result, indent=1))
