"""Where the lake's bytes are: a folder, or an object store by URI. Whole files only, never a part of one.

``create`` is what decides between two writers: of two that create the same path, one gets FileExistsError.

| root | put | create |
|---|---|---|
| folder, file:// | temporary file, synced, renamed | the same, but hard-linked, which is exclusive |
| a scheme of Arrow (s3, gs, abfs, ...) | one upload, visible when complete | looked up, then uploaded |
| any other scheme with an fsspec driver | the driver's upload | the driver's ``create`` mode |

Arrow has no conditional upload: there a writer that is paused between look-up and upload, and wakes after its
partition has a new owner, may overwrite one record of the log. That record then does not count, and the
offsets that it took away are a hole that every ``check`` names (lake_log.State): never unseen, never twice.
"""

from __future__ import annotations

import importlib
import os
import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import fs as arrow_fs

from services.contract.errors import NotFound


class LakeStore:
    """Files below one root; paths are relative to it, with "/" between their parts.

    OSError when the store fails; NotFound when a file that should be read does not exist."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._driver: Any = None
        if "://" not in root:
            self.files, self._base = arrow_fs.LocalFileSystem(), str(Path(root).absolute())
        else:
            self.files, self._base = self._by_uri(root)
        self._local = isinstance(self.files, arrow_fs.LocalFileSystem)

    def _by_uri(self, root: str) -> tuple[Any, str]:
        try:
            files, base = arrow_fs.FileSystem.from_uri(root)
        except pa.ArrowInvalid:  # not one of Arrow's schemes
            # By name: an optional package without type information.
            self._driver, base = importlib.import_module("fsspec.core").url_to_fs(root)
            files = arrow_fs.PyFileSystem(arrow_fs.FSSpecHandler(self._driver))
        return files, base.rstrip("/")

    def path(self, name: str) -> str:
        """The path on ``files``."""
        return f"{self._base}/{name}"

    def put(self, name: str, data: bytes | pa.Buffer) -> None:
        """Writes a file whole; one that exists is replaced."""
        if self._local:
            temporary = self._write_temporary(name, data)
            temporary.replace(self.path(name))
        else:
            self._upload(name, data)

    def create(self, name: str, data: bytes) -> None:
        """Writes a file whole that must not exist yet; else FileExistsError."""
        if self._local:
            temporary = self._write_temporary(name, data)
            try:
                os.link(temporary, self.path(name))
            finally:
                temporary.unlink()
        elif self._driver is not None:
            self._driver.pipe_file(self.path(name), data, mode="create")
        elif self.size(name) is not None:
            raise FileExistsError(self.path(name))
        else:
            self._upload(name, data)

    def read(self, name: str) -> bytes:
        """A file's bytes."""
        try:
            with self.files.open_input_stream(self.path(name)) as source:
                return bytes(source.read())
        except FileNotFoundError as error:
            raise NotFound(f"no file {self.path(name)} in the lake") from error

    def size(self, name: str) -> int | None:
        """Bytes of a file; None when it does not exist."""
        info = self.files.get_file_info(self.path(name))
        return info.size if info.type == arrow_fs.FileType.File else None

    def names(self, folder: str) -> dict[str, float]:
        """Every file below a folder (a missing one is empty), with the time of its last change in seconds."""
        below = arrow_fs.FileSelector(self.path(folder), recursive=True, allow_not_found=True)
        return {
            info.path[len(self._base) + 1 :]: info.mtime.timestamp() if info.mtime is not None else 0.0
            for info in self.files.get_file_info(below)
            if info.type == arrow_fs.FileType.File
        }

    def delete(self, name: str) -> None:
        """Takes a file away; one that is not there is no matter."""
        try:
            self.files.delete_file(self.path(name))
        except FileNotFoundError:
            return

    def _write_temporary(self, name: str, data: bytes | pa.Buffer) -> Path:
        path = Path(self.path(name))
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        with temporary.open("wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        return temporary

    def _upload(self, name: str, data: bytes | pa.Buffer) -> None:
        with self.files.open_output_stream(self.path(name)) as out:
            out.write(data)
