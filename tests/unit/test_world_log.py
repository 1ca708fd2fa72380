"""The world as a log: the same users and arrivals in two worlds, and one that can be replayed."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from loadgen import datasets, world_log
from loadgen.arrivals import SHOWN, plan
from loadgen.log_blocks import visits
from loadgen.settings import WorldLogSettings
from loadgen.users import NEWCOMER_SHARE
from loadgen.world import World
from loadgen.world_config import WorldConfig
from services.contract.errors import InvalidInput

CONFIG = WorldConfig(items=1_000, users=50, births_per_s=0.05, user_births_per_s=0.02)


def log(drift: float = 1.0, run: int = 0, duration_s: float = 300.0) -> pa.Table:
    return world_log.events(World(CONFIG, drift), plan(CONFIG.seed, 2.0, duration_s, run))


def test_the_same_seed_is_the_same_log_and_another_run_is_not() -> None:
    assert log().equals(log())
    assert not log().equals(log(run=1))


def test_worlds_differ_in_what_is_clicked_not_in_who_comes() -> None:
    drift, still = log(1.0, duration_s=1_800), log(0.0, duration_s=1_800)
    for name in ("timestamp", "user_id", "position"):
        assert drift[name].equals(still[name])
    clicked = [table["label"].to_numpy() for table in (drift, still)]
    assert (clicked[0] != clicked[1]).any()
    assert all(0.005 < one.mean() < 0.3 for one in clicked)


def test_a_request_is_ten_different_items_in_their_positions() -> None:
    table = log()
    items = np.array(table["item_id"].to_pylist()).reshape(-1, SHOWN)
    assert all(len(set(row)) == SHOWN for row in items)
    assert table["position"].to_numpy().reshape(-1, SHOWN).tolist() == [list(range(SHOWN))] * len(items)
    assert (np.diff(table["timestamp"].to_numpy()) >= 0).all()


def test_only_the_usual_arrivals_are_in_a_log_and_newcomers_among_them() -> None:
    table = log(duration_s=1_800)
    assert abs(len(table) / SHOWN - 3_600) < 5 * np.sqrt(3_600)
    assert len(np.unique(table["timestamp"].to_numpy())) == len(table) / SHOWN
    newcomers = np.array(
        [int(key.removeprefix("user-")) >= CONFIG.users for key in table["user_id"].to_pylist()]
    )
    assert newcomers.mean() == pytest.approx(NEWCOMER_SHARE, abs=0.02)


def test_higher_positions_are_clicked_more() -> None:
    table = log(duration_s=3_600)
    labels = table["label"].to_numpy().reshape(-1, SHOWN)
    assert labels[:, :3].mean() > labels[:, -3:].mean()


def test_the_written_log_is_read_back_with_its_categories_and_requests(tmp_path) -> None:
    path = tmp_path / "folder" / "log.parquet"
    settings = WorldLogSettings(
        sim={"items": 1_000, "users": 50, "births_per_s": 0.05, "user_births_per_s": 0.02},
        rate=2.0, duration_s=60.0, log=path,
    )  # fmt: skip
    assert world_log.run(settings) == 0
    events = datasets.load(path)
    assert len(events) == pq.read_metadata(path).num_rows and events.ignored_columns == ()
    assert {len(one) for one in visits(events, range(len(events)))} == {SHOWN}
    world = World(CONFIG)
    index = {f"item-{number:07d}": number for number in range(len(world.items))}
    listed = datasets.catalogue(path, events)
    assert len(listed) == len(set(events.item_keys)) > 100
    assert [one.category for one in listed] == [int(world.items.category[index[one.key]]) for one in listed]


@pytest.mark.parametrize("bad", ["64", "-1", "1.5", "x"])
def test_a_category_that_is_none_is_refused_by_row(tmp_path, bad: str) -> None:
    path = tmp_path / "log.csv"
    path.write_text(f"timestamp,user_id,item_id,label,category\n1,u,a,1,3\n2,u,b,0,{bad}\n")
    with pytest.raises(InvalidInput, match="row 3 category"):
        datasets.load(path)


def test_the_last_word_on_an_item_counts_and_without_categories_it_has_none(tmp_path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("timestamp,user_id,item_id,label,category\n2,u,a,1,5\n1,u,a,1,3\n1,u,b,0,0\n")
    listed = datasets.catalogue(path, datasets.load(path))
    assert [(one.key, one.category) for one in listed] == [("a", 5), ("b", 0)]
    path.write_text("timestamp,user_id,item_id,label\n2,u,a,1\n")
    assert [one.category for one in datasets.catalogue(path, datasets.load(path))] == [0]
