"""The model store: full states as safetensors with a JSON manifest, under a folder or an object-store URI.

    <root>/generation-000001/base-online-000000000000-2f1ac5b09e77/state.safetensors
    <root>/generation-000001/base-online-000000000000-2f1ac5b09e77/manifest.json

The state file is written first and the manifest last, each under a temporary name that is then renamed: a
manifest that can be read names a state that is whole. A base is named by lineage, sequence and the first
digits of the state's digest: saving the same state twice is the same base, and runs that share a store do
not meet. The manifest's SHA-256 goes into BaseRef.manifest_digest and is the chain hash of sequence 0.
Loading checks the manifest's digest and, where keys are trusted, its signature, then the digests of file and
state, each by name.

Reference to a manifest: a path or URI of its own (absolute, or with ``://``), else relative to the store's
root.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyarrow import fs as arrow_fs

from services.contract import model_file
from services.contract.delta import check_body
from services.contract.errors import MalformedRecord, NotFound, SchemaMismatch
from services.contract.model_schema import ModelShape
from services.contract.model_state import Frozen, ModelState, digest
from services.contract.signature import Signer, Trusted, canonical
from services.contract.view_registry import CATEGORY_COLUMN

FORMAT = 1
MANIFEST_NAME = "manifest.json"
STATE_NAME = "state.safetensors"
_BASE_NAME = re.compile(r"base-(.+)-(\d{12})-[0-9a-f]{12}")
_PIECE_BYTES = 1 << 20


@dataclass(frozen=True)
class SavedBase:
    """A base in the store: all that a BaseRef needs, and the manifest's content."""

    manifest_uri: str
    manifest_digest: bytes
    generation: int
    policy: str
    sequence: int
    epoch: int
    # At sequence 0 the manifest digest.
    chain_hash: bytes
    delta_partition: int
    delta_offset: int
    manifest: dict[str, Any]


def save_base(
    root: str,
    state: ModelState | Frozen,
    *,
    created_at_us: int,
    parent_generation: int = 0,
    delta_partition: int = 0,
    delta_offset: int = 0,
    metrics: Mapping[str, float] | None = None,
    signer: Signer | None = None,
) -> SavedBase:
    """Writes a state under the store's root, part by part; ``delta_offset`` is where its chain goes on in
    model-deltas. A state that is written on meanwhile comes frozen.

    The same state saved again is answered from what is there. BadDelta when a row is not finite.
    """
    frozen = Frozen(state) if isinstance(state, ModelState) else state
    head = frozen.head
    state_digest = digest(frozen).hex()
    folder = _folder(head.generation, head.policy, head.sequence, state_digest)
    files, base = _open(root)
    manifest_path = f"{base}/{folder}/{MANIFEST_NAME}"
    if files.get_file_info(manifest_path).type != arrow_fs.FileType.NotFound:
        return _read_manifest(_join(root, f"{folder}/{MANIFEST_NAME}"))
    for body in model_file.bodies(frozen):
        check_body(body)
    files.create_dir(f"{base}/{folder}", recursive=True)
    file_sha256 = _write(files, f"{base}/{folder}/{STATE_NAME}", model_file.pieces(frozen))
    manifest = _manifest(frozen, state_digest, file_sha256) | {
        "created_at_us": created_at_us,
        "parent_generation": parent_generation,
        "delta_partition": delta_partition,
        "delta_offset": delta_offset,
        "metrics": dict(metrics or {}),
    }
    _write(files, manifest_path, [canonical(signer.signed(manifest) if signer else manifest)])
    return _read_manifest(_join(root, f"{folder}/{MANIFEST_NAME}"))


def load_base(
    manifest_uri: str,
    shape: ModelShape | None = None,
    *,
    root: str | None = None,
    manifest_digest: bytes | None = None,
    trusted: Trusted | None = None,
    breathe: Callable[[], None] = lambda: None,
) -> tuple[ModelState, SavedBase]:
    """The state of a base, with every digest checked (the manifest's too when it is given), and the signature
    where keys are trusted. ``shape``: what it must be; None takes what the manifest says. ``breathe`` is
    called between two pieces of work: milliseconds, but for the ids of a table, which are sorted at once.

    NotFound when a file is missing, BadSignature, MalformedRecord when a digest or a column is wrong or a row
    not finite, SchemaMismatch when it sees other features than ``shape`` says, or is of another shape.
    """
    saved = read_manifest(manifest_uri, root=root, manifest_digest=manifest_digest, trusted=trusted)
    manifest = saved.manifest
    shape = shape_in(saved) if shape is None else shape
    _check_shape(manifest, shape)
    files, path = _open(saved.manifest_uri)
    with _opened(files, f"{path.rpartition('/')[0]}/{manifest['file']}") as source:
        if _sha256(_read_pieces(source), breathe) != manifest["file_sha256"]:
            raise MalformedRecord.one("file_sha256", saved.manifest_uri, "the digest in the manifest")
        state = _empty_state(manifest, shape, saved.manifest_digest)
        model_file.read_into(state, source, breathe)
    if digest(state, breathe).hex() != manifest["digest"]:
        raise MalformedRecord.one("digest", saved.manifest_uri, "the state digest in the manifest")
    return state, saved


def read_manifest(
    manifest_uri: str,
    *,
    root: str | None = None,
    manifest_digest: bytes | None = None,
    trusted: Trusted | None = None,
) -> SavedBase:
    """What the manifest says, without the state; its digest and signature checked where they are given."""
    saved = _read_manifest(resolve(manifest_uri, root), manifest_digest)
    if trusted is not None:
        trusted.check(saved.manifest, saved.manifest_uri)
    return saved


def shape_in(saved: SavedBase) -> ModelShape:
    """The features that a base sees, as its manifest names them; MalformedRecord when it names none."""
    manifest = saved.manifest
    try:
        items = tuple(map(str, manifest["item_columns"]))
        return ModelShape(
            int(manifest["feature_schema_hash"], 16),
            tuple(map(str, manifest["user_columns"])),
            items,
            items.index(CATEGORY_COLUMN),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise MalformedRecord.one("manifest", f"{saved.manifest_uri}: {error!r}", "named columns") from error


def list_bases(root: str, generation: int, policy: str) -> list[str]:
    """Manifests of a lineage's bases above sequence 0, newest first; none when there is no such folder."""
    files, base = _open(root)
    folder = f"{base}/generation-{generation:06d}"
    found = files.get_file_info(arrow_fs.FileSelector(folder, allow_not_found=True))
    named = (_BASE_NAME.fullmatch(info.base_name) for info in found)
    mine = [(int(name[2]), name[0]) for name in named if name and name[1] == policy and int(name[2])]
    return [
        _join(root, f"generation-{generation:06d}/{name}/{MANIFEST_NAME}")
        for _, name in sorted(mine, reverse=True)
    ]


def copy_base(manifest_uri: str, root: str, *, signer: Signer | None = None) -> SavedBase:
    """Copies a base into another store, byte for byte, so that its manifest digest stays, or signed anew;
    verifies the file on the way."""
    saved = _read_manifest(resolve(manifest_uri, None))
    files, path = _open(saved.manifest_uri)
    folder = _folder(saved.generation, saved.policy, saved.sequence, saved.manifest["digest"])
    target, base = _open(root)
    target.create_dir(f"{base}/{folder}", recursive=True)
    with _opened(files, f"{path.rpartition('/')[0]}/{saved.manifest['file']}") as source:
        if _sha256(_read_pieces(source)) != saved.manifest["file_sha256"]:
            raise MalformedRecord.one("file_sha256", saved.manifest_uri, "the digest in the manifest")
        source.seek(0)
        _write(target, f"{base}/{folder}/{STATE_NAME}", _read_pieces(source))
    manifest = canonical(signer.signed(saved.manifest)) if signer else _read(files, path)
    _write(target, f"{base}/{folder}/{MANIFEST_NAME}", [manifest])
    return _read_manifest(_join(root, f"{folder}/{MANIFEST_NAME}"), hashlib.sha256(manifest).digest())


def delete_base(manifest_uri: str) -> None:
    """Takes a base out of the store, manifest first; one that is not there is no matter."""
    files, path = _open(manifest_uri)
    folder, _, name = path.rpartition("/")
    if name != MANIFEST_NAME or files.get_file_info(path).type == arrow_fs.FileType.NotFound:
        return
    files.delete_file(path)
    files.delete_dir(folder)


def resolve(reference: str, root: str | None) -> str:
    """The URI or absolute path of a reference (see the module docstring)."""
    if "://" in reference or Path(reference).is_absolute() or root is None:
        return _join(reference, "")
    return _join(root, reference)


def _folder(generation: int, policy: str, sequence: int, state_digest: str) -> str:
    return f"generation-{generation:06d}/base-{policy}-{sequence:012d}-{state_digest[:12]}"


def _join(root: str, name: str) -> str:
    if "://" not in root:
        root = str(Path(root).absolute())
    return f"{root.rstrip('/')}/{name}" if name else root


def _open(uri: str) -> tuple[Any, str]:
    if "://" in uri:
        files, path = arrow_fs.FileSystem.from_uri(uri)
        return files, path.rstrip("/")
    return arrow_fs.LocalFileSystem(), str(Path(uri).absolute())


def _write(files: Any, path: str, parts: Iterable[Any]) -> str:
    """The file's SHA-256; nothing is there when it was not written whole."""
    folder, _, name = path.rpartition("/")
    temporary = f"{folder}/.{name}.{uuid.uuid4().hex}"
    found = hashlib.sha256()
    try:
        with files.open_output_stream(temporary) as out:
            for part in parts:
                found.update(part)
                out.write(part)
        files.move(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            files.delete_file(temporary)
        raise
    return found.hexdigest()


@contextlib.contextmanager
def _opened(files: Any, path: str) -> Iterator[Any]:
    try:
        source = files.open_input_file(path)
    except FileNotFoundError as error:
        raise NotFound(f"no file {path} in the model store") from error
    with source:
        yield source


def _read(files: Any, path: str) -> bytes:
    with _opened(files, path) as source:
        return bytes(source.read())


def _read_pieces(source: Any) -> Iterator[bytes]:
    while piece := source.read(_PIECE_BYTES):
        yield piece


def _sha256(parts: Iterable[bytes], breathe: Callable[[], None] = lambda: None) -> str:
    found = hashlib.sha256()
    for part in parts:
        found.update(part)
        breathe()
    return found.hexdigest()


def _read_manifest(uri: str, wanted: bytes | None = None) -> SavedBase:
    files, path = _open(uri)
    data = _read(files, path)
    found = hashlib.sha256(data).digest()
    if wanted is not None and found != wanted:
        raise MalformedRecord.one("manifest_digest", found.hex(), wanted.hex())
    try:
        manifest = json.loads(data)
        if manifest["format"] != FORMAT:
            raise MalformedRecord.one("format", manifest["format"], str(FORMAT))
        sequence = int(manifest["sequence"])
        return SavedBase(
            manifest_uri=uri,
            manifest_digest=found,
            generation=int(manifest["generation"]),
            policy=str(manifest["policy"]),
            sequence=sequence,
            epoch=int(manifest["epoch"]),
            chain_hash=bytes.fromhex(manifest["chain_hash"]) if sequence else found,
            delta_partition=int(manifest["delta_partition"]),
            delta_offset=int(manifest["delta_offset"]),
            manifest=manifest,
        )
    except (ValueError, KeyError, TypeError) as error:
        raise MalformedRecord.one("manifest", f"{uri}: {error!r}", "a manifest of this format") from error


def _manifest(frozen: Frozen, state_digest: str, file_sha256: str) -> dict[str, Any]:
    state = frozen.head
    return {
        "format": FORMAT,
        "generation": state.generation,
        "policy": state.policy,
        "sequence": state.sequence,
        "epoch": state.epoch,
        "chain_hash": state.chain_hash.hex() if state.sequence else "",
        "model_hash": f"{state.shape.model_hash:016x}",
        "feature_schema_hash": f"{state.shape.schema_hash:016x}",
        "user_columns": list(state.shape.user_columns),
        "item_columns": list(state.shape.item_columns),
        "digest": state_digest,
        "file": STATE_NAME,
        "file_sha256": file_sha256,
        "rows": {name: len(table) for name, table in frozen.tables.items()},
        "sample_offsets": {str(p): state.sample_offsets[p] for p in sorted(state.sample_offsets)},
        "samples_trained": state.samples_trained,
        "trained_until_us": state.trained_until_us,
        "open_barriers": {name: sorted(parts) for name, parts in sorted(state.open_barriers.items())},
    }


def _check_shape(manifest: dict[str, Any], shape: ModelShape) -> None:
    said = {name: manifest.get(name) for name in ("user_columns", "item_columns")}
    found = str(manifest.get("feature_schema_hash"))
    if found != f"{shape.schema_hash:016x}":
        ours = {name: list(getattr(shape, name)) for name in said}
        allowed = f"{shape.schema_hash:016x} ({_difference(said, ours)})"
        raise SchemaMismatch.one("feature_schema_hash", found, allowed)
    if manifest.get("model_hash") != f"{shape.model_hash:016x}":
        raise SchemaMismatch.one("model_hash", str(manifest.get("model_hash")), f"{shape.model_hash:016x}")


def _difference(said: dict[str, Any], ours: dict[str, list[str]]) -> str:
    """For people: what two lists of columns do not share."""
    theirs, here = ({one for part in lists.values() for one in part or ()} for lists in (said, ours))
    if theirs == here:
        return "columns of these names, other definitions or another order"
    parts = (("only here", here - theirs), ("only in the base", theirs - here))
    return "; ".join(f"{title}: {', '.join(sorted(names))}" for title, names in parts if names)


def _empty_state(manifest: dict[str, Any], shape: ModelShape, manifest_digest: bytes) -> ModelState:
    try:
        return ModelState(
            shape,
            generation=int(manifest["generation"]),
            policy=str(manifest["policy"]),
            sequence=int(manifest["sequence"]),
            epoch=int(manifest["epoch"]),
            chain_hash=bytes.fromhex(manifest["chain_hash"]) if manifest["sequence"] else manifest_digest,
            created_at_us=int(manifest["created_at_us"]),
            sample_offsets={int(p): int(offset) for p, offset in manifest["sample_offsets"].items()},
            samples_trained=int(manifest["samples_trained"]),
            trained_until_us=int(manifest["trained_until_us"]),
            open_barriers={b: frozenset(parts) for b, parts in manifest["open_barriers"].items()},
        )
    except (ValueError, KeyError, TypeError) as error:
        raise MalformedRecord.one("state", repr(error), "a state of this format") from error
