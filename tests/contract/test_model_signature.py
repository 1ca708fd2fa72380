"""Manifests are signed by who trains and checked by who loads; what no trusted key signed is refused by
name."""

from __future__ import annotations

import stat
from pathlib import Path

import numpy as np
import pytest

from rec.model.v1 import model_pb2
from services.contract import model_schema, model_store
from services.contract.delta import BadDelta
from services.contract.errors import BadSignature, InvalidInput, LoopError, MalformedRecord
from services.contract.feature_sets import WORLD
from services.contract.model_store import SavedBase
from services.contract.signature import Signer, Trusted, canonical, make_keys
from services.contract.view_growth import GrowingSet
from services.ranking import base_loader
from services.ranking.served_sets import ServedSets
from services.recall import base_loader as recall_loader
from services.release.gatekeeper import Gatekeeper
from services.release.manifests import Manifests
from services.release.served import ServedSamples
from services.release.settings import Settings
from services.runtime.clock import WallClock
from tests.feature_kit import FEATURES, SHAPE
from tests.trainer_kit import World, new_state, sample_bytes
from trainer import recovery

LINEAGE = model_pb2.Lineage(generation=1, policy="online")


def signer_of(folder: Path) -> Signer:
    found = Signer.read(str(make_keys(folder)[0]))
    assert found is not None
    return found


def trusted_by(*folders: Path) -> Trusted:
    file = folders[0] / "all.pem"
    file.write_text("".join(make_keys(folder)[1].read_text() for folder in folders))
    found = Trusted.read(str(file))
    assert found is not None
    return found


def save(tmp_path: Path, signer: Signer | None) -> SavedBase:
    return model_store.save_base(
        str(tmp_path / "store"), new_state(), created_at_us=5, metrics={"auc": 0.1 + 0.2}, signer=signer
    )


def base_ref(saved: SavedBase) -> model_pb2.BaseRef:
    return model_pb2.BaseRef(
        manifest_uri=saved.manifest_uri, manifest_digest=saved.manifest_digest, chain_hash=saved.chain_hash
    )


def edit(saved: SavedBase, **changed: object) -> None:
    Path(saved.manifest_uri).write_bytes(canonical(saved.manifest | changed))


def test_a_signed_base_is_loaded_by_who_trusts_the_key(tmp_path):
    ours, other = tmp_path / "ours", tmp_path / "other"
    saved = save(tmp_path, signer_of(ours))
    state, again = model_store.load_base(saved.manifest_uri, SHAPE, trusted=trusted_by(other, ours))
    assert (state.sequence, again) == (0, saved)


def test_signing_twice_gives_the_same_bytes(tmp_path):
    signer = signer_of(tmp_path)
    manifest = {"b": 1, "a": 0.1 + 0.2}
    assert signer.signed(signer.signed(manifest)) == signer.signed(manifest)


def test_an_unsigned_base_is_refused(tmp_path):
    saved = save(tmp_path, None)
    with pytest.raises(BadSignature, match=r"signature=none: one by [0-9a-f]{16}, in .*manifest\.json"):
        model_store.load_base(saved.manifest_uri, SHAPE, trusted=trusted_by(tmp_path))


def test_a_key_that_is_not_trusted_is_refused(tmp_path):
    saved = save(tmp_path, signer_of(tmp_path / "stranger"))
    with pytest.raises(BadSignature, match=r"signature\.key"):
        model_store.load_base(saved.manifest_uri, SHAPE, trusted=trusted_by(tmp_path / "ours"))


@pytest.mark.parametrize(
    "changed",
    [
        {"metrics": {"auc": 0.99}},
        {"sample_offsets": {"0": 1}},
        {"digest": "00" * 32},
        {"added": 1},
        {"signature": {"key": "", "ed25519": ""}},
        {"signature": "yes"},
    ],
    ids=str,
)
def test_a_manifest_that_was_changed_after_signing_is_refused(tmp_path, changed):
    saved = save(tmp_path, signer_of(tmp_path))
    edit(saved, **changed)
    with pytest.raises(BadSignature):
        model_store.load_base(saved.manifest_uri, SHAPE, trusted=trusted_by(tmp_path))


@pytest.mark.parametrize("said", ["", "zz", "00" * 64])
def test_a_forged_signature_of_a_known_key_is_refused(tmp_path, said):
    saved = save(tmp_path, signer_of(tmp_path))
    edit(saved, signature={"key": saved.manifest["signature"]["key"], "ed25519": said})
    with pytest.raises(BadSignature, match="ed25519"):
        model_store.load_base(saved.manifest_uri, SHAPE, trusted=trusted_by(tmp_path))


def test_a_state_file_that_was_changed_is_refused_though_the_manifest_is_signed(tmp_path):
    saved = save(tmp_path, signer_of(tmp_path))
    path = Path(saved.manifest_uri).with_name(model_store.STATE_NAME)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(MalformedRecord, match="file_sha256"):
        model_store.load_base(saved.manifest_uri, SHAPE, trusted=trusted_by(tmp_path))


def test_a_copied_base_is_signed_by_who_copies(tmp_path):
    saved = save(tmp_path, None)
    there = str(tmp_path / "there")
    copies = [model_store.copy_base(saved.manifest_uri, there, signer=signer_of(tmp_path)) for _ in range(2)]
    assert copies[0] == copies[1]
    assert copies[0].manifest_digest != saved.manifest_digest
    model_store.load_base(copies[0].manifest_uri, SHAPE, trusted=trusted_by(tmp_path))


def test_rows_that_are_not_finite_are_not_saved(tmp_path):
    state = new_state()
    table = state.tables[model_schema.TABLES[0]]
    table.rows[table.add(np.array([7], np.uint64))] = np.nan
    with pytest.raises(BadDelta, match="NaN or infinity"):
        model_store.save_base(str(tmp_path), state, created_at_us=1)
    assert list(tmp_path.rglob("*.*")) == []


def of_ranking(base: model_pb2.BaseRef, root: str, trusted: Trusted) -> None:
    sets = ServedSets(GrowingSet(WORLD, FEATURES))
    base_loader.load(model_pb2.Release(lineage=LINEAGE, base=base), base, sets, root, trusted=trusted)


def of_recall(base: model_pb2.BaseRef, root: str, trusted: Trusted) -> None:
    recall_loader.load_base(root, base, (1, "online"), WallClock(), trusted=trusted)


def of_the_trainer(base: model_pb2.BaseRef, root: str, trusted: Trusted) -> None:
    recovery.load_base(model_pb2.Release(lineage=LINEAGE, base=base), root, trusted=trusted)


@pytest.mark.parametrize("load", [of_ranking, of_recall, of_the_trainer])
def test_whoever_loads_a_base_refuses_one_that_is_not_signed(tmp_path, load):
    signed, plain = (save(tmp_path / name, by) for name, by in (("s", signer_of(tmp_path)), ("p", None)))
    load(base_ref(signed), "", trusted_by(tmp_path))
    with pytest.raises(BadSignature, match="signature=none"):
        load(base_ref(plain), "", trusted_by(tmp_path))


async def test_the_gate_rejects_a_model_that_is_not_signed(tmp_path):
    window, sample = ServedSamples(60.0, 1_000), World(seed=1).sample(rows=10)
    sample.arm, sample.model.lineage.generation = "online", 1
    window.add(sample_bytes(sample))
    gatekeeper = Gatekeeper(Settings(), window, trusted_by(tmp_path))
    signed, plain = (save(tmp_path / name, by) for name, by in (("s", signer_of(tmp_path)), ("p", None)))
    assert (await gatekeeper.judge(base_ref(signed), "online")).error == ""
    verdict = await gatekeeper.judge(base_ref(plain), "online")
    assert verdict.evidence()["failed"] == ["loadable"] and "signature=none" in verdict.error


def test_ranking_asks_who_signed_before_it_looks_for_the_columns(tmp_path):
    saved = save(tmp_path, None)
    edit(saved, item_columns=["category", "unknown"], feature_schema_hash="00" * 8)
    base = base_ref(model_store.read_manifest(saved.manifest_uri))
    with pytest.raises(BadSignature, match="signature=none"):
        of_ranking(base, "", trusted_by(tmp_path))


def test_a_signed_state_with_rows_that_are_not_finite_is_refused_by_ranking(tmp_path, monkeypatch):
    state = new_state()
    state.dense[model_schema.DENSE[0]].flat[0] = np.inf
    with monkeypatch.context() as careless:
        careless.setattr(model_store, "check_body", lambda body: None)
        saved = model_store.save_base(str(tmp_path), state, created_at_us=1, signer=signer_of(tmp_path))
    with pytest.raises(BadDelta, match="NaN or infinity"):
        of_ranking(base_ref(saved), str(tmp_path), trusted_by(tmp_path))


def test_the_private_key_is_its_owners_and_a_pair_is_made_once(tmp_path):
    private, public = make_keys(tmp_path)
    kept = private.read_bytes(), public.read_bytes()
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert make_keys(tmp_path) == (private, public)
    assert (private.read_bytes(), public.read_bytes()) == kept


@pytest.mark.parametrize("read", [Signer.read, Trusted.read])
def test_a_key_file_that_is_none_is_refused_by_its_setting(tmp_path, read):
    bad = tmp_path / "bad.pem"
    for text in ("", "no key", make_keys(tmp_path)[1 if read == Signer.read else 0].read_text()):
        bad.write_text(text)
        with pytest.raises(InvalidInput, match="_key"):
            read(str(bad))
    with pytest.raises(InvalidInput, match="_key"):
        read(str(tmp_path / "missing"))
    assert read("") is None


async def test_release_registers_only_what_it_can_check(tmp_path):
    root = str(tmp_path / "store")
    saved = save(tmp_path, signer_of(tmp_path))
    checks = Manifests(root, trusted_by(tmp_path))
    await checks.check_generation(saved.manifest_uri, saved.manifest_digest)
    with pytest.raises(MalformedRecord, match="manifest_digest"):
        await checks.check_generation(saved.manifest_uri, bytes(32))
    plain = save(tmp_path / "p", None)
    with pytest.raises(BadSignature, match="signature=none"):
        await checks.check_generation(plain.manifest_uri, plain.manifest_digest)
    with pytest.raises(LoopError, match="no file"):
        await checks.check_generation("elsewhere/manifest.json", saved.manifest_digest)
    base = base_ref(saved)
    await checks.check_base(LINEAGE, base)
    base.delta_offset = 3
    with pytest.raises(MalformedRecord, match="base="):
        await checks.check_base(LINEAGE, base)
