"""An overlay's objects, as kubectl would apply them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import yaml

from k8s.checks.objects import Objects

K8S = Path(__file__).parents[1]
TIMEOUT_S = 60
# libyaml's parser, ten times as fast, where PyYAML was built with it.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class BuildFailed(Exception):
    """One line: which overlay, and what the builder said; or that there is none."""


def overlays(root: Path = K8S) -> list[str]:
    """The names of all overlays."""
    return sorted(path.parent.name for path in (root / "overlays").glob("*/kustomization.yaml"))


def builder() -> list[str] | None:
    """The command that builds a folder: kubectl's, else kustomize; None when neither is on the PATH."""
    if kubectl := shutil.which("kubectl"):
        return [kubectl, "kustomize"]
    if kustomize := shutil.which("kustomize"):
        return [kustomize, "build"]
    return None


def build(overlay: str, root: Path = K8S) -> Objects:
    """Builds one overlay. Raises BuildFailed."""
    command = builder()
    if command is None:
        raise BuildFailed(
            "kubectl (or kustomize): needed to build the overlays, not on the PATH. Mend it with the "
            "package of your system, or: go install sigs.k8s.io/kustomize/kustomize/v5@v5.8.3"
        )
    folder = root / "overlays" / overlay
    done = subprocess.run(
        [*command, str(folder)], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    if done.returncode != 0:
        raise BuildFailed(f"{overlay}: {done.stderr.strip()}")
    return Objects(overlay, list(yaml.load_all(done.stdout, Loader=LOADER)))
