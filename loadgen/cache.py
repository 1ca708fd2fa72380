"""Derived folders in the user's cache, named by a hash of all that they were derived from.

A folder is built under a temporary name and renamed when it is whole: one that exists is complete. A lock
makes a second builder wait for the first. The KEPT folders used last of each kind stay; older ones go.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

# A day 0 has about 100 MB.
KEPT = 3
_ROOT = Path(__file__).resolve().parent.parent


def cache_dir() -> Path:
    """XDG_CACHE_HOME/recloop, else ~/.cache/recloop."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "recloop"


def fingerprint(facts: Iterable[object], sources: Iterable[str]) -> str:
    """16 hex digits over facts and the text of source files ('trainer/*.py')."""
    hashed = hashlib.sha256(repr(list(facts)).encode())
    for source in sources:
        found = sorted(_ROOT.glob(source))
        if not found:
            raise FileNotFoundError(f"no source file matches {source}")
        for path in found:
            hashed.update(path.name.encode() + b"\0" + path.read_bytes())
    return hashed.hexdigest()[:16]


def folder(kind: str, name: str, build: Callable[[Path], None]) -> Path:
    """The cached folder ``<kind>-<name>``; ``build`` fills an empty one when it is not there."""
    target = cache_dir() / f"{kind}-{name}"
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target.parent / f".{kind}.lock"):
            if not target.is_dir():
                _build(target, build)
                _forget_old(kind, target)
    # The time of use: what is used stays.
    os.utime(target)
    return target


def _build(target: Path, build: Callable[[Path], None]) -> None:
    partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        build(partial)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _forget_old(kind: str, newest: Path) -> None:
    others = [path for path in newest.parent.glob(f"{kind}-*") if path.is_dir() and path != newest]
    others.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for path in others[KEPT - 1 :]:
        shutil.rmtree(path, ignore_errors=True)
    # Left behind by builders that were killed: no other one can be at work while we hold the lock.
    for path in newest.parent.glob(f".{kind}-*"):
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
