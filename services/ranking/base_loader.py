"""A release's base as a model, verified: what is loaded is what was released, or nothing."""

from __future__ import annotations

from collections.abc import Callable

from rec.model.v1 import model_pb2
from services.contract import model_store
from services.contract.chain import Position
from services.contract.errors import MalformedRecord
from services.contract.model_state import ModelState
from services.contract.signature import Trusted
from services.contract.view_registry import FeatureSet
from services.ranking.served_sets import ServedSets


def position_of(base: model_pb2.BaseRef) -> Position:
    """The place in the chain that a base stands for."""
    return Position(base.sequence, base.epoch, base.chain_hash, base.delta_offset)


def load(
    release: model_pb2.Release,
    base: model_pb2.BaseRef,
    sets: ServedSets,
    root: str,
    *,
    trusted: Trusted | None = None,
    breathe: Callable[[], None] = lambda: None,
) -> tuple[ModelState, FeatureSet]:
    """Reads and verifies a base (blocking, seconds for a large one); with the features that it sees.

    A generation's number is given by release after its manifest was written, so at sequence 0 the release
    names the lineage; a later base must be of the lineage itself. NotFound, BadSignature, MalformedRecord,
    SchemaMismatch: not all of its features are served.
    """
    lineage = (release.lineage.generation, release.lineage.policy)
    if release.HasField("pinned_sequence") and base.sequence > release.pinned_sequence:
        raise MalformedRecord.one(
            "base.sequence", base.sequence, f"at most the pin {release.pinned_sequence}"
        )
    # Verified before it is believed: its columns decide what is looked for.
    manifest = model_store.read_manifest(
        base.manifest_uri, root=root, manifest_digest=base.manifest_digest, trusted=trusted
    )
    shape = model_store.shape_in(manifest)
    features = sets.features(shape)
    state, saved = model_store.load_base(
        base.manifest_uri,
        shape,
        root=root,
        manifest_digest=base.manifest_digest,
        trusted=trusted,
        breathe=breathe,
    )
    if saved.sequence != base.sequence or saved.chain_hash != base.chain_hash:
        raise MalformedRecord.one(
            "base", f"{saved.sequence} {saved.chain_hash.hex()}", f"{base.sequence} {base.chain_hash.hex()}"
        )
    if base.sequence > 0 and (saved.generation, saved.policy) != lineage:
        raise MalformedRecord.one(
            "lineage", f"{saved.generation}/{saved.policy}", f"{lineage[0]}/{lineage[1]}"
        )
    state.generation, state.policy = lineage
    return state, features
