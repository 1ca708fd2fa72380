"""Prometheus' own tool holds the alerts against their tests, and the dashboards' queries against PromQL.

It is taken from the PATH, else built with Go from the module of the same version as compose's image, once,
into the user's cache (some minutes; without service discovery, which is most of it). Without either these
checks are left out, and that is said.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from k8s import dashboards
from k8s.checks.definitions import Say, build_program
from local.paths import cache_dir

# As a Go module; 3.13.5 to everybody else.
VERSION = "v0.313.5"
MODULE = f"github.com/prometheus/prometheus@{VERSION}"
BUILD_S, RUN_S = 1_800, 60
_UNNAMABLE = re.compile(r"\W+")
RULES, TESTS = "rules.yaml", "rules-test.yaml"


def tool(say: Say, *, build: bool) -> Path | None:
    """Where it is, built when it may be; None when it is not there. Raises FetchFailed."""
    if found := shutil.which("promtool"):
        return Path(found)
    cached = cache_dir() / f"promtool-{VERSION}"
    if cached.is_file():
        return cached
    if not build:
        return None
    if shutil.which("go") is None:
        return None
    say(f"building promtool of {MODULE}, once: some minutes")
    build_program(MODULE, "./cmd/promtool", cached, BUILD_S, "-tags", "remove_all_sd")
    return cached


def problems(promtool: Path, folder: Path) -> Iterator[str]:
    """Of the alerts in a folder (rules.yaml, rules-test.yaml) and of the dashboards' queries."""
    yield from _run([str(promtool), "check", "rules", str(folder / RULES)], RULES)
    yield from _run([str(promtool), "test", "rules", str(folder / TESTS)], TESTS)
    with tempfile.TemporaryDirectory() as scratch:
        queries = Path(scratch) / "queries.yaml"
        queries.write_text(as_rules(dashboards.queries()))
        yield from _run([str(promtool), "check", "rules", str(queries)], "dashboards")


def as_rules(queries: Iterable[tuple[str, str]]) -> str:
    """A file of rules with one for each query, named by where it stands. JSON, which YAML is too."""
    rules = [
        {"record": _UNNAMABLE.sub("_", f"{where} {number}"), "expr": expression}
        for number, (where, expression) in enumerate(queries)
    ]
    return json.dumps({"groups": [{"name": "dashboards", "rules": rules}]})


def _run(command: list[str], what: str) -> Iterator[str]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_S, check=False)
    if done.returncode != 0:
        said = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        yield f"{what}: {' | '.join(said)[-1_000:]}"
