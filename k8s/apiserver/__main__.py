"""``python -m k8s.apiserver``: a real API server takes every overlay by server-side dry run.

Its defaults, its admission and strict field validation judge, the pod security standard of the namespace
included: each error and each warning is a line on stderr; exit code 1 when there is one.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import yaml

from k8s.apiserver.binaries import KUBERNETES, binaries
from k8s.apiserver.server import ApiServer
from k8s.checks import definitions
from k8s.checks.build import BuildFailed, build, overlays
from k8s.checks.objects import Object
from local.errors import LocalError, StartFailed

ESTABLISHED_S = 60


def main() -> int:
    """One line per overlay on stdout."""
    try:
        return _take(_say)
    except (BuildFailed, definitions.FetchFailed, LocalError) as error:
        print(f"k8s-apiserver: {error}", file=sys.stderr)
        return 1


def _take(say: definitions.Say) -> int:
    kinds = definitions.definitions(say)
    folder = binaries(say)
    built = [build(overlay) for overlay in overlays()]
    bad = 0
    with tempfile.TemporaryDirectory() as scratch:
        server = ApiServer(folder, Path(scratch))
        try:
            began = time.monotonic()
            server.start()
            say(f"kube-apiserver {KUBERNETES.version} ready in {time.monotonic() - began:.1f} s")
            _define(server, kinds)
            # It has to be there before anything can be put into it.
            _apply(server, built[0].of("Namespace"), "--server-side")
            for objects in built:
                lines = judged(server, objects.all)
                say(f"{objects.overlay}: {len(objects.all)} objects: {len(lines) or 'no'} problems")
                bad += len(lines)
                for line in lines:
                    print(f"k8s-apiserver: {objects.overlay}: {line}", file=sys.stderr)
        finally:
            server.stop()
    return 1 if bad else 0


def judged(server: ApiServer, objects: list[Object]) -> list[str]:
    """What the server says against these objects; nothing of them stays."""
    done = server.kubectl(
        "apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-",
        given=yaml.safe_dump_all(objects),
    )  # fmt: skip
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return lines or ([f"kubectl ended with {done.returncode}"] if done.returncode else [])


def _define(server: ApiServer, kinds: list[Object]) -> None:
    _apply(server, kinds, "--server-side")
    names = [f"crd/{kind['metadata']['name']}" for kind in kinds]
    done = server.kubectl("wait", "--for=condition=Established", f"--timeout={ESTABLISHED_S}s", *names)
    if done.returncode != 0:
        raise StartFailed(f"operators' kinds: {done.stderr.strip()}")


def _apply(server: ApiServer, objects: list[Object], *options: str) -> None:
    done = server.kubectl("apply", *options, "-f", "-", given=yaml.safe_dump_all(objects))
    if done.returncode != 0:
        raise StartFailed(f"kubectl apply: {done.stderr.strip()[-2000:]}")


def _say(line: str) -> None:
    print(f"k8s-apiserver: {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
