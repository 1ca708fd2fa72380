"""Reads a base from the model store and keeps what recall needs of it.

The whole state is read once, because only so can its digest be checked; users' and items' recall columns
stay.
"""

from __future__ import annotations

from rec.model.v1.model_pb2 import BaseRef
from services.contract import model_store
from services.contract.errors import Conflict
from services.contract.signature import Trusted
from services.recall.vectors import ITEM_TABLE, USER_TABLE, VectorModel, VectorVersion
from services.runtime.clock import WallClock


def load_base(
    store_uri: str,
    base: BaseRef,
    lineage: tuple[int, str],
    wall: WallClock,
    *,
    trusted: Trusted | None = None,
) -> tuple[VectorModel, int]:
    """The vectors of a base, whatever features it sees, and its model hash. Blocks for as long as the store
    takes: not for the event loop.

    Raises what contract.model_store does (missing file, wrong digest or signature), and Conflict when the
    manifest is of another sequence than the release says, or, above sequence 0, of another lineage: a
    generation gets its number after its manifest was written.
    """
    state, saved = model_store.load_base(
        base.manifest_uri, root=store_uri, manifest_digest=base.manifest_digest or None, trusted=trusted
    )
    named = (saved.generation, saved.policy) if saved.sequence else lineage
    if (*named, saved.sequence) != (*lineage, base.sequence):
        found = f"({saved.generation}, {saved.policy}) {saved.sequence}"
        raise Conflict(f"{saved.manifest_uri} is a base of {found}, not of {lineage} {base.sequence}")
    version = VectorVersion(*lineage, base.sequence, state.created_at_us, wall.now_us())
    model = VectorModel(version)
    for name in (USER_TABLE, ITEM_TABLE):
        ids, slots = state.tables[name].ids()
        model.load(name, ids, state.tables[name].rows[slots])
    return model, state.shape.model_hash
