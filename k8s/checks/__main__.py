"""``python -m k8s.checks``: builds every overlay and holds it against schemas and rules.

Each problem is a line on stderr; exit code 1 when there is one.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from k8s import written
from k8s.checks import definitions, promtool, rules, schemas, sizes
from k8s.checks.build import K8S, BuildFailed, build, overlays
from local.errors import LocalError


def main(argv: list[str]) -> int:
    """One line per overlay on stdout, one per problem on stderr."""
    parser = argparse.ArgumentParser(
        prog="python -m k8s.checks", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("--root", type=Path, default=K8S, help="another folder with base and overlays")
    parser.add_argument(
        "--own-kinds-only", action="store_true", help="Kubernetes' own kinds only: needs no network and no Go"
    )
    arguments = parser.parse_args(argv)
    try:
        return _check(arguments.root, arguments.own_kinds_only)
    except (BuildFailed, definitions.FetchFailed, LocalError) as error:
        print(f"k8s-validate: {error}", file=sys.stderr)
        return 1


def _check(root: Path, own_kinds_only: bool) -> int:
    kinds = None if own_kinds_only else definitions.schemas(_say)
    found = [f"{path.name}: out of date: python -m k8s.written" for path in written.stale()]
    for overlay in overlays(root):
        objects = build(overlay, root)
        # What a schema requires is there when the rules look at it.
        problems = list(schemas.problems(objects, kinds)) or rules.problems(objects)
        count = f"{len(problems) or 'no'} problem{'s' if len(problems) != 1 else ''}"
        _say(f"{overlay}: {len(objects.all)} objects, Kubernetes {' and '.join(schemas.versions())}: {count}")
        if not problems:
            _say(f"{overlay}: {sizes.size(objects).line()}")
        found += problems
    found += _observed(root, build=not own_kinds_only)
    for line in found:
        print(f"k8s-validate: {line}", file=sys.stderr)
    return 1 if found else 0


def _observed(root: Path, *, build: bool) -> list[str]:
    """Alerts and dashboards, where there is Prometheus' tool."""
    tool = promtool.tool(_say, build=build)
    if tool is None:
        why = "no Go to build it with" if build else "--own-kinds-only builds none"
        _say(f"alerts and dashboards: not evaluated: no promtool on the PATH, and {why}")
        return []
    problems = list(promtool.problems(tool, root / "components" / "observability"))
    _say(f"alerts and dashboards, by {tool.name}: {len(problems) or 'no'} problems")
    return problems


def _say(line: str) -> None:
    print(f"k8s-validate: {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
