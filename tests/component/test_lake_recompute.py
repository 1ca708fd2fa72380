"""Samples of the past with the columns of a view that joined later, out of a lake of the real writer."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from lake_kit import Loop

from local.backfill.view import USER_LATELY
from rec.events.v1 import events_pb2 as ev
from services.contract import topics
from services.contract.columns import F32, U32, U64, encode
from services.contract.errors import InvalidInput
from services.contract.feature_sets import FEATURE_SETS
from services.contract.lake_files import scan
from services.contract.lake_history import read_samples, write_samples
from services.contract.lake_rows import LogRecord
from services.contract.lake_store import LakeStore
from services.contract.times import from_us
from services.contract.view_codec import canonical
from services.contract.view_registry import FeatureSet
from services.contract.view_replay import Ask, replay
from services.lake.packed import matrix, pack_rows
from services.lake.recompute import RECOMPUTED, widened, wider
from services.lake.view_commands import command
from services.lake.view_log import LakeEvents

SET = FEATURE_SETS["world"]
WIDER = FeatureSet((*SET.views, USER_LATELY))
REQUESTS = 120


def sample_of(served, schema_hash: int) -> bytes:
    """What the joiner says of a request whose items were all shown and none clicked."""
    rows = len(served.item_ids)
    sample = ev.TrainingSample(
        request_id=served.request_id, user_id=served.user_id, schema_hash=schema_hash, arm="online",
        occurred_at=from_us(served.at_us), impressed_at=from_us(served.at_us + 500_000), sample_rate=1.0,
        item_ids=encode(served.item_ids, U64), labels=encode(np.zeros(rows), F32),
        label_versions=encode(np.zeros(rows), U32), positions=encode(np.arange(rows), U32),
        scores=encode(np.full(rows, 0.1), F32), user_features=encode(served.encoded.user, F32),
        item_features=encode(served.encoded.items, F32),
    )  # fmt: skip
    return ev.SampleRecord(sample=sample).SerializeToString()


@pytest.fixture(scope="module")
def loop() -> Loop:
    made = Loop(SET, users=5).run(REQUESTS)
    for number, served in enumerate(made.served):
        # One of another schema now and then, as around a change of the feature set.
        schema_hash = SET.schema_hash if number % 10 else SET.schema_hash ^ 1
        log = made.logs[topics.SAMPLES.name, number % 2]
        log.append(
            LogRecord(number % 2, len(log), served.at_us // 1000 + 9_000, sample_of(served, schema_hash))
        )
    return made


@pytest.fixture(scope="module")
def lake(loop: Loop, tmp_path_factory: pytest.TempPathFactory) -> str:
    return loop.write(tmp_path_factory.mktemp("recompute") / "lake")


def test_what_was_served_stays_and_the_new_columns_are_what_the_replay_says(loop, lake) -> None:
    log = LakeEvents(LakeStore(lake), 10**6).read()
    samples = scan(lake, "samples")
    made = widened(SET, USER_LATELY, samples, log)
    assert wider(SET, USER_LATELY).schema_hash == WIDER.schema_hash
    assert made.other_schema == samples.num_rows - made.table.num_rows == REQUESTS // 10 * 6
    assert set(made.table["schema_hash"].to_pylist()) == {WIDER.schema_hash}
    assert set(made.table[RECOMPUTED].to_pylist()) == {"user_lately.1"}
    users = matrix("user_features", made.table["user_features"], WIDER.user_width)
    items = matrix("item_features", made.table["item_features"], WIDER.item_width)
    served = {one.request_id: one for one in loop.served}
    events = list(zip(log.events(), log.appended_us.tolist(), strict=True))
    rng, seen, missing = random.Random(1), 0, 0
    for row in range(made.table.num_rows):
        said = {name: made.table[name][row].as_py() for name in ("request_id", "item_id", "user_id")}
        one = served[said["request_id"]]
        place = one.item_ids.tolist().index(said["item_id"])
        assert users[row, : SET.user_width].tobytes() == one.encoded.user.tobytes()
        assert items[row, : SET.item_width].tobytes() == one.encoded.items[place].tobytes()
        if rng.random() > 0.3:
            continue
        category = int(one.encoded.items[place][SET.category_column])
        fields = {"user_id": said["user_id"], "item_id": said["item_id"], "category": category}
        answer = replay(USER_LATELY, events, Ask(fields, one.at_us))
        found = [*items[row, SET.item_width :].tolist(), *users[row, SET.user_width :].tolist()]
        assert found == list(answer.values)
        seen += found[0] > 0
        missing += answer.missing
    # Both of what it can say, and nobody before the first list.
    assert seen > 20 and 0 < missing <= made.missing < made.table.num_rows / 4


def test_rows_that_were_served_with_the_view_stay_as_they_are(lake) -> None:
    log = LakeEvents(LakeStore(lake), 10**6).read()
    samples = scan(lake, "samples")
    first = widened(SET, USER_LATELY, samples, log)
    served = first.table.drop_columns([RECOMPUTED])
    made = widened(SET, USER_LATELY, pa.concat_tables([served, samples]), log)
    assert (made.served, made.other_schema) == (len(served), first.other_schema)
    marks = made.table[RECOMPUTED]
    assert marks.null_count == len(served) and len(marks) == 2 * len(served)
    kept = made.table.filter(pc.is_null(marks))
    for name in ("user_features", "item_features", "schema_hash"):
        assert kept[name].to_pylist() == served[name].to_pylist()


def test_rows_of_other_bytes_are_refused_by_name(lake) -> None:
    log = LakeEvents(LakeStore(lake), 10**6).read()
    samples = scan(lake, "samples")
    short = pack_rows(np.zeros((samples.num_rows, 3), np.float32))
    bad = samples.set_column(samples.schema.get_field_index("user_features"), "user_features", short)
    with pytest.raises(InvalidInput, match="user_features"):
        widened(SET, USER_LATELY, bad, log)


def test_the_command_takes_the_samples_of_before_the_topics_too(lake, tmp_path: Path, capsys) -> None:
    definition, out = tmp_path / "view.json", tmp_path / "samples.parquet"
    definition.write_text(canonical(USER_LATELY) + "\n")
    options = ["--lake_uri", lake, "--definition", str(definition), "--out", str(out)]
    assert command("recompute-samples", options) == 0
    first = json.loads(capsys.readouterr().out)
    assert first["columns"] == ["user_lately_ctr_5m", "user_lately_seen", "user_lately_seen_category"]
    store = LakeStore(lake)
    write_samples(store, "day0", scan(lake, "samples"))
    assert command("recompute-samples", options) == 0
    both = json.loads(capsys.readouterr().out)
    assert (both["rows"], both["other_schema"]) == (2 * first["rows"], 2 * first["other_schema"])
    assert pq.read_table(out).num_rows == both["rows"] and read_samples(store).num_rows > 0
    assert command("recompute-samples", options[:4]) == 2
    with pytest.raises(InvalidInput, match="the lake's columns"):
        write_samples(store, "day0", scan(lake, "actions"))
