"""``trainer holdout``: sets of samples are worth what a model learns from them, judged on unseen truth."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from local.backfill.view import USER_LATELY
from services.contract import model_net, times
from services.contract.errors import InvalidInput
from services.contract.lake_rows import LogRecord, to_table
from services.contract.view_codec import canonical
from tests.feature_kit import FEATURES, SHAPE
from tests.trainer_kit import SECOND_US, START_US, World, sample_bytes
from trainer.holdout import SHUFFLED, compare, main, predict, trained
from trainer.sample_table import batch_of, in_order
from trainer.samples import RawRecord, decode

REQUESTS = 1_500
CUT_US = START_US + SECOND_US * REQUESTS * 7 // 10


def _table(world: World, requests: int = REQUESTS) -> pa.Table:
    records = []
    for offset in range(requests):
        sample = world.sample()
        sample.impressed_at.CopyFrom(sample.occurred_at)
        records.append(LogRecord(0, offset, times.to_us(sample.occurred_at) // 1000, sample_bytes(sample)))
    return to_table("samples", records)


@pytest.fixture(scope="module")
def truth() -> pa.Table:
    return _table(World(3, users=100, items=80))


def _leaky(truth: pa.Table) -> pa.Table:
    """The label stands in a column that is 0 when it is served."""
    place = truth.schema.get_field_index("item_features")
    rows = []
    for data, label in zip(truth["item_features"].to_pylist(), truth["label"].to_pylist(), strict=True):
        values = np.frombuffer(data, np.float32).copy()
        values[FEATURES.item_width - 1] = label
        rows.append(values.tobytes())
    return truth.set_column(place, truth.schema.field(place), pa.array(rows, pa.binary()))


def test_a_leak_costs_and_shuffled_labels_teach_nothing(truth: pa.Table) -> None:
    order = np.random.default_rng(1).permutation(len(truth))
    sets = {"exact": truth, "any_order": truth.take(pa.array(order)), "leaky": _leaky(truth)}
    found = compare(sets, truth, SHAPE, CUT_US, (1, 2, 3))
    exact, leaky, none = (found[name]["auc"] for name in ("exact", "leaky", SHUFFLED))
    assert exact["min"] > 0.62
    assert leaky["max"] < exact["min"] - 0.01
    assert 0.45 < none["mean"] < 0.55
    assert found["any_order"] == found["exact"]
    assert exact["min"] <= exact["mean"] <= exact["max"]
    assert 0.8 < found["exact"]["calibration"]["mean"] < 1.25
    # What the leak says is not there when it serves: clicks are foretold too rarely.
    assert found["leaky"]["calibration"]["mean"] < found["exact"]["calibration"]["mean"] - 0.1
    assert found["leaky"]["log_loss"]["mean"] > found["exact"]["log_loss"]["mean"]
    assert found["exact"]["rows"] == pc.sum(pc.less(truth["impressed_us"], CUT_US)).as_py()


def test_nothing_behind_the_cut_is_learned(truth: pa.Table) -> None:
    before = truth.filter(pc.less(truth["impressed_us"], CUT_US))
    found = compare({"all": truth, "before": before}, truth, SHAPE, CUT_US, (1,))
    assert found["all"] == found["before"]


def test_corrections_are_left_out(truth: pa.Table) -> None:
    place = truth.schema.get_field_index("label_version")
    later = truth.set_column(place, truth.schema.field(place), pa.array([1] * len(truth), pa.uint32()))
    assert in_order(pa.concat_tables([later, truth])).equals(in_order(truth))


def test_a_table_makes_the_batch_that_its_records_make() -> None:
    world, records = World(4), []
    for offset in range(20):
        sample = world.sample(rows=3 + offset % 5)
        sample.impressed_at.CopyFrom(sample.occurred_at)
        records.append(RawRecord(0, offset, sample_bytes(sample)))
    wanted = decode(records, SHAPE).batch
    rows = to_table("samples", (LogRecord(0, r.offset, 0, r.value) for r in records))
    found = batch_of(in_order(rows), SHAPE)
    assert wanted is not None
    for name in vars(wanted).keys() - {"records"}:
        assert np.array_equal(getattr(found, name), getattr(wanted, name)), name
        assert getattr(found, name).dtype == getattr(wanted, name).dtype, name


def test_many_rows_are_scored_as_ranking_scores_one_user(truth: pa.Table) -> None:
    rows = batch_of(in_order(truth), SHAPE)
    state = trained(rows, SHAPE, 1)
    mine = rows.owner == rows.owner[-1]
    one = model_net.score(
        state,
        int(rows.user_ids[-1]),
        rows.item_ids[mine],
        rows.user_features[-1],
        rows.item_features[mine],
    )
    assert predict(state, rows)[mine] == pytest.approx(one, abs=1e-5)


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("user_features", b"123", f"{4 * FEATURES.user_width} bytes"),
        ("label", None, "1 nulls"),
        ("item_features", b"\xff" * 4 * FEATURES.item_width, "NaN"),
    ],
)
def test_rows_that_cannot_be_trained_are_named(
    truth: pa.Table, column: str, value: object, said: str
) -> None:
    rows = truth.slice(0, 5).to_pylist()
    rows[2][column] = value
    with pytest.raises(InvalidInput, match=f"{column}.*{said}"):
        batch_of(pa.Table.from_pylist(rows, schema=truth.schema), SHAPE)


def test_the_command_answers_json_and_says_what_it_cannot_judge(
    truth: pa.Table, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "truth.parquet"
    pq.write_table(truth, path)
    arguments = ["--seeds", "1", "--truth", str(path), "--train", f"exact={path}", "--cut-us"]
    assert main([*arguments, str(CUT_US)]) == 0
    assert set(json.loads(capsys.readouterr().out)) == {"exact", SHUFFLED}
    assert main([*arguments, str(2 * CUT_US)]) == 1
    assert "positives and negatives" in capsys.readouterr().err
    assert main(["--train", "x=nowhere.parquet", *arguments, str(CUT_US)]) == 1
    assert "nowhere.parquet" in capsys.readouterr().err


def test_a_view_behind_the_set_is_learned_from_and_wanted_on_every_row(
    truth: pa.Table, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    definition, narrow, wide = (tmp_path / name for name in ("view.json", "narrow.parquet", "wide.parquet"))
    definition.write_text(canonical(USER_LATELY))
    pq.write_table(truth, narrow)
    rng = np.random.default_rng(2)
    hints = (truth["label"].to_numpy() + rng.normal(0, 0.5, len(truth))).astype(np.float32)
    added = {
        "user_features": [np.zeros(1, np.float32).tobytes()] * len(truth),
        "item_features": [np.array([hint, 0], np.float32).tobytes() for hint in hints],
    }
    table = truth
    for name, new in added.items():
        both = [old + more for old, more in zip(truth[name].to_pylist(), new, strict=True)]
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(both, pa.binary()))
    pq.write_table(table, wide)

    def auc_of(path: Path, *options: str) -> float:
        arguments = ["--seeds", "1", "--truth", str(path), "--train", f"set={path}"]
        assert main([*arguments, "--cut-us", str(CUT_US), *options]) == 0
        return json.loads(capsys.readouterr().out)["set"]["auc"]["mean"]

    assert auc_of(wide, "--add-view", str(definition)) > auc_of(narrow) + 0.1
    arguments = ["--seeds", "1", "--truth", str(narrow), "--train", f"set={narrow}", "--cut-us", str(CUT_US)]
    assert main([*arguments, "--add-view", str(definition)]) == 1
    assert "user_features" in capsys.readouterr().err
