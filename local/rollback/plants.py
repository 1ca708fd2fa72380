"""The faults, each by the door that it would come in by: a record on Kafka, a model that is registered, a
setting of the trainer. (The fourth door, the users, is bots.py.)"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rec.model.v1.model_pb2 import DeltaBody, DeltaHeader, ParameterDelta
from services.contract import columns, model_store
from services.contract.model_state import ModelState
from services.contract.model_store import SavedBase
from services.contract.signature import Signer

# A step of any gradient leaves every bound.
EXPLODING = {
    "RECLOOP_LEARNING__BIAS_RATE": "1e9",
    "RECLOOP_LEARNING__FACTOR_RATE": "1e9",
    "RECLOOP_LEARNING__DENSE_RATE": "1e9",
}
_SCALE = np.float32(1_000)


def tampered(value: bytes) -> bytes:
    """What would be the delta behind a true one: the same rows a thousand times as large, everything in its
    place but the hash, which is the true one's."""
    record = ParameterDelta.FromString(value)
    header, body = DeltaHeader.FromString(record.header), DeltaBody.FromString(record.body)
    header.sequence += 1
    header.previous_hash = record.hash
    for table in body.tables:
        table.rows = columns.encode(np.frombuffer(table.rows, columns.F32) * _SCALE, columns.F32)
    return ParameterDelta(
        header=header.SerializeToString(), body=body.SerializeToString(), hash=record.hash
    ).SerializeToString()


def torn(value: bytes) -> bytes:
    """The first half of a delta."""
    return value[: len(value) // 2]


def random_model(state: ModelState, root: str, signing_key: Path) -> SavedBase:
    """A full model as a broken batch run would leave it: whole, finite, signed, of the usual sizes; and every
    id has the row of another, every dense tensor is noise."""
    random = np.random.default_rng(7)
    bad = state.copy()
    for table in bad.tables.values():
        _, slots = table.ids()
        table.rows[slots] = table.rows[random.permutation(slots)]
    for values in bad.dense.values():
        values[...] = random.normal(0, max(float(values.std()), 0.1), values.shape)
    return _saved(bad, root, signing_key)


def damaged_model(state: ModelState, root: str, signing_key: Path) -> SavedBase:
    """A good full model of which bytes were lost on the disk, behind a manifest that is signed and true."""
    other = state.copy()
    other.samples_trained += 1
    saved = _saved(other, root, signing_key)
    file = Path(saved.manifest_uri).parent / saved.manifest["file"]
    data = bytearray(file.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 64] = bytes(64 - 1) + b"\xff"
    file.write_bytes(data)
    return saved


def _saved(state: ModelState, root: str, signing_key: Path) -> SavedBase:
    signer = Signer.read(str(signing_key))
    return model_store.save_base(root, state, created_at_us=state.created_at_us, signer=signer)
