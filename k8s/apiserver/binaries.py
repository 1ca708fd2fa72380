"""kube-apiserver and etcd, built from their Go modules."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from local.errors import MissingPrerequisite, StartFailed
from local.paths import cache_dir

BUILD_TIMEOUT_S = 3600
Say = Callable[[str], None]


@dataclass(frozen=True)
class Binary:
    """A program of a Go module."""

    name: str
    module: str
    version: str
    package: str


ETCD = Binary("etcd", "go.etcd.io/etcd/server/v3", "v3.7.3", "go.etcd.io/etcd/server/v3")
KUBERNETES = Binary("kube-apiserver", "k8s.io/kubernetes", "v1.37.2", "k8s.io/kubernetes/cmd/kube-apiserver")


def binaries(say: Say) -> Path:
    """The folder of both. Raises MissingPrerequisite without Go, StartFailed with what the build said."""
    folder = cache_dir() / f"kube-apiserver-{KUBERNETES.version}-etcd-{ETCD.version}"
    if folder.is_dir():
        return folder
    go = shutil.which("go")
    if go is None:
        raise MissingPrerequisite("go", "to build kube-apiserver and etcd", "install Go 1.26 or newer")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        made = Path(scratch) / "made"
        for binary in (ETCD, KUBERNETES):
            say(f"building {binary.name} {binary.version} (minutes, once)")
            _build(go, binary, Path(scratch) / binary.name, made)
        made.rename(folder)
    return folder


def _build(go: str, binary: Binary, folder: Path, made: Path) -> None:
    folder.mkdir()
    lines = ["module recloop/build", "go 1.26", f"require {binary.module} {binary.version}"]
    flags = "-s -w"
    if binary is KUBERNETES:
        lines += [f"replace {path} => {path} {version}" for path, version in _staging(go, folder).items()]
        flags += f" -X k8s.io/component-base/version.gitVersion={binary.version}"
    (folder / "go.mod").write_text("\n".join(lines) + "\n")
    target = str(made / binary.name)
    _run([go, "build", "-mod=mod", "-trimpath", "-ldflags", flags, "-o", target, binary.package], folder)


def _staging(go: str, folder: Path) -> dict[str, str]:
    """Kubernetes requires its own libraries, which stand beside it in its repository, as v0.0.0. Published,
    they have its version with a 0 in front."""
    found = _run([go, "mod", "download", "-json", f"{KUBERNETES.module}@{KUBERNETES.version}"], folder)
    listed = _run([go, "mod", "edit", "-json", json.loads(found)["GoMod"]], folder)
    version = "v0." + KUBERNETES.version.removeprefix("v1.")
    return {one["Path"]: version for one in json.loads(listed)["Require"] if one["Version"] == "v0.0.0"}


def _run(command: list[str], folder: Path) -> str:
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, "CGO_ENABLED": "0"},
        capture_output=True, text=True, timeout=BUILD_TIMEOUT_S, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise StartFailed(f"{' '.join(command[:3])}: {(done.stderr or done.stdout).strip()[-2000:]}")
    return done.stdout
