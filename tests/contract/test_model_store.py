"""The model store on real files: what was saved comes back, and what is damaged is refused by name."""

from __future__ import annotations

import json
from dataclasses import replace
from math import ceil
from pathlib import Path

import pytest

from services.contract import delta, model_file, model_frozen, model_state, model_store
from services.contract.errors import LoopError, MalformedRecord, NotFound, SchemaMismatch, Unavailable
from services.contract.feature_sets import FEATURE_SETS
from services.contract.model_schema import shape_of
from services.contract.model_state import ModelState
from services.contract.model_store import SavedBase
from tests.feature_kit import FEATURES, SHAPE
from tests.trainer_kit import header_after, new_state, random_body


@pytest.fixture
def state() -> ModelState:
    made = new_state()
    value, _ = delta.seal(header_after(made, open_barriers={"b": frozenset({1})}), random_body(1))
    sealed = delta.unseal(value)
    model_state.apply(made, sealed.header, delta.open_body(sealed), sealed.hash)
    return made


@pytest.fixture
def saved(tmp_path: Path, state: ModelState) -> SavedBase:
    return model_store.save_base(
        str(tmp_path), state, created_at_us=5, delta_partition=3, delta_offset=17, metrics={"auc": 0.7}
    )


def _edit(saved: SavedBase, **changed: object) -> None:
    path = Path(saved.manifest_uri)
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))


def test_a_base_comes_back_as_it_was(saved: SavedBase, state: ModelState) -> None:
    loaded, again = model_store.load_base(saved.manifest_uri, SHAPE, manifest_digest=saved.manifest_digest)
    assert again == saved
    assert model_state.digest(loaded) == model_state.digest(state)
    assert (loaded.sequence, loaded.epoch, loaded.chain_hash) == (1, 1, state.chain_hash)
    assert loaded.sample_offsets == state.sample_offsets
    assert loaded.open_barriers == {"b": frozenset({1})}
    assert (saved.delta_partition, saved.delta_offset) == (3, 17)


def test_a_load_breathes_between_any_two_pieces_and_ends_when_that_fails(
    saved: SavedBase, state: ModelState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_store, "_PIECE_BYTES", 1_000)
    for module in (model_file, model_frozen):
        monkeypatch.setattr(module, "CHUNK_ROWS", 3)
    breaths = 0

    def breathe() -> None:
        nonlocal breaths
        breaths += 1
        if breaths == last:
            raise Unavailable("enough")

    last = 0
    loaded, _ = model_store.load_base(saved.manifest_uri, SHAPE, breathe=breathe)
    assert model_state.digest(loaded) == model_state.digest(state)
    size = Path(saved.manifest_uri).with_name(saved.manifest["file"]).stat().st_size
    wanted = ceil(size / 1_000)
    for table in state.tables.values():
        rows, pending = ceil(len(table) / 3), ceil(len(table.pending) / 3)
        # Read: rows, then pending ids. Digest: ids, four columns of rows, three of pending ids.
        wanted += (rows + pending) + (1 + 4 * rows + 3)
    assert breaths == wanted > 100
    for breath in (1, wanted // 2, wanted):
        breaths, last = 0, breath
        with pytest.raises(Unavailable, match="enough"):
            model_store.load_base(saved.manifest_uri, SHAPE, breathe=breathe)


def test_a_loaded_base_goes_on_like_the_state_it_was_saved_from(saved: SavedBase, state: ModelState) -> None:
    loaded, _ = model_store.load_base(saved.manifest_uri, SHAPE)
    for one in (state, loaded):
        value, _ = delta.seal(header_after(one), random_body(2))
        sealed = delta.unseal(value)
        model_state.apply(one, sealed.header, delta.open_body(sealed), sealed.hash)
    assert model_state.digest(loaded) == model_state.digest(state)
    assert loaded.chain_hash == state.chain_hash


def test_saving_the_same_state_again_is_the_same_base(
    saved: SavedBase, state: ModelState, tmp_path: Path
) -> None:
    assert model_store.save_base(str(tmp_path), state, created_at_us=99) == saved


def test_at_sequence_0_the_chain_starts_from_the_manifest(tmp_path: Path) -> None:
    saved = model_store.save_base(str(tmp_path), new_state(), created_at_us=1)
    loaded, _ = model_store.load_base(saved.manifest_uri, SHAPE)
    assert loaded.chain_hash == saved.chain_hash == saved.manifest_digest


def test_two_runs_that_share_a_store_do_not_meet(tmp_path: Path) -> None:
    one = model_store.save_base(str(tmp_path), new_state(seed=1), created_at_us=1)
    other = model_store.save_base(str(tmp_path), new_state(seed=2), created_at_us=1)
    assert one.manifest_uri != other.manifest_uri


def test_damage_is_refused_by_name(saved: SavedBase) -> None:
    file = Path(saved.manifest_uri).with_name(model_store.STATE_NAME)
    good = file.read_bytes()
    for broken in (good[:-1], good[:200] + bytes([good[200] ^ 1]) + good[201:], b""):
        file.write_bytes(broken)
        with pytest.raises(MalformedRecord, match="file_sha256"):
            model_store.load_base(saved.manifest_uri, SHAPE)
    file.unlink()
    with pytest.raises(NotFound):
        model_store.load_base(saved.manifest_uri, SHAPE)


@pytest.mark.parametrize(
    ("changed", "error", "name"),
    [
        ({"digest": "00" * 32}, MalformedRecord, "digest"),
        ({"sequence": 2}, MalformedRecord, "digest"),
        ({"format": 9}, MalformedRecord, "format"),
        ({"model_hash": "0" * 16}, SchemaMismatch, "model_hash"),
        ({"epoch": "x"}, MalformedRecord, "manifest"),
    ],
)
def test_a_manifest_that_lies_is_refused(
    saved: SavedBase, changed: dict[str, object], error: type[LoopError], name: str
) -> None:
    _edit(saved, **changed)
    with pytest.raises(error, match=name):
        model_store.load_base(saved.manifest_uri, SHAPE)
    with pytest.raises(MalformedRecord, match="manifest_digest"):
        model_store.load_base(saved.manifest_uri, SHAPE, manifest_digest=saved.manifest_digest)


def test_a_base_that_sees_other_features_is_refused_with_what_differs(saved: SavedBase) -> None:
    other = shape_of(FEATURE_SETS["movielens"])
    with pytest.raises(SchemaMismatch) as caught:
        model_store.load_base(saved.manifest_uri, other)
    (said,) = caught.value.violations
    assert (said.field, said.value) == ("feature_schema_hash", f"{SHAPE.schema_hash:016x}")
    assert f"{other.schema_hash:016x}" in said.allowed
    assert "only here: item_activity_ctr_1d" in said.allowed and "item_activity_ctr_1m" in said.allowed


def test_a_base_of_the_same_names_and_other_definitions_is_refused(saved: SavedBase) -> None:
    with pytest.raises(SchemaMismatch, match="other definitions or another order"):
        model_store.load_base(saved.manifest_uri, replace(SHAPE, schema_hash=1))


def test_a_base_names_its_columns(saved: SavedBase) -> None:
    assert saved.manifest["user_columns"] == [column.name for column in FEATURES.request_columns]
    assert saved.manifest["item_columns"] == [column.name for column in FEATURES.candidate_columns]
    assert saved.manifest["feature_schema_hash"] == f"{FEATURES.schema_hash:016x}"


def test_equal_numbers_of_other_features_are_another_base(tmp_path: Path) -> None:
    one = model_store.save_base(str(tmp_path), new_state(), created_at_us=1)
    twin = new_state()
    twin.shape = replace(SHAPE, schema_hash=1)
    assert model_store.save_base(str(tmp_path), twin, created_at_us=1).manifest_uri != one.manifest_uri


def test_a_half_written_base_cannot_be_loaded(saved: SavedBase) -> None:
    Path(saved.manifest_uri).write_text('{"format": 1, "sequ')
    with pytest.raises(MalformedRecord):
        model_store.load_base(saved.manifest_uri, SHAPE)


def test_a_copy_in_another_store_is_the_same_base(saved: SavedBase, tmp_path: Path) -> None:
    copied = model_store.copy_base(saved.manifest_uri, str(tmp_path / "other"))
    assert copied.manifest_digest == saved.manifest_digest
    assert copied.manifest_uri != saved.manifest_uri
    model_store.load_base(copied.manifest_uri, SHAPE)


def test_references_resolve_against_the_root_or_stand_alone(saved: SavedBase, tmp_path: Path) -> None:
    relative = str(Path(saved.manifest_uri).relative_to(tmp_path))
    assert model_store.resolve(relative, str(tmp_path)) == saved.manifest_uri
    assert model_store.resolve(saved.manifest_uri, "/elsewhere") == saved.manifest_uri
    uri = f"file://{saved.manifest_uri}"
    assert model_store.resolve(uri, "/elsewhere") == uri
    model_store.load_base(uri, SHAPE)


def test_a_deleted_base_is_gone_and_deleting_again_is_no_matter(saved: SavedBase) -> None:
    model_store.delete_base(saved.manifest_uri)
    model_store.delete_base(saved.manifest_uri)
    assert not Path(saved.manifest_uri).parent.exists()
