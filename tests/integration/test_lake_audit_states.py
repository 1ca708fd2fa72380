"""States in Redis against a log that stands still: sound ones, and with each kind of fault planted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import redis
from lake_kit import Loop

from local.backfill.view import USER_LATELY
from services.contract.feature_sets import FEATURE_SETS
from services.contract.redis_keys import view_key
from services.contract.view_codec import canonical
from services.contract.view_registry import FeatureSet
from services.lake.view_commands import command

pytestmark = pytest.mark.integration
SET = FEATURE_SETS["world"]
FOREVER_US = 1 << 60
ROWS = 3_000


@pytest.fixture(scope="module")
def loop() -> Loop:
    made = Loop(FeatureSet((*SET.views, USER_LATELY))).run(150)
    made._fold(FOREVER_US)
    return made


@pytest.fixture(scope="module")
def lake(loop: Loop, tmp_path_factory: pytest.TempPathFactory) -> str:
    return loop.write(tmp_path_factory.mktemp("states") / "lake")


@pytest.fixture
def client(loop: Loop, redis_url: str):
    with redis.Redis.from_url(redis_url) as found:
        views = {view.definition_hash: view for view in loop.feature_set.views}
        found.mset({view_key(views[one], entity): state for (one, entity), state in loop.states.items()})
        yield found


@pytest.fixture
def audit(lake: str, redis_url: str, tmp_path: Path, capsys):
    definition = tmp_path / "view.json"
    definition.write_text(canonical(USER_LATELY) + "\n")
    options = ["--lake_uri", lake, "--redis.url", redis_url, "--definition", str(definition)]

    def run(*more: str) -> tuple[int, dict]:
        code = command("audit-states", [*options, "--rows", str(ROWS), *more])
        said = capsys.readouterr().out
        return code, json.loads(said) if said else {}

    return run


def test_states_that_hold_everything_say_what_the_log_says(client, audit, tmp_path) -> None:
    code, said = audit("--out", str(tmp_path / "states.json"))
    assert code == 0 and said == json.loads((tmp_path / "states.json").read_text())
    assert list(said["views"]) == ["user_lately.1", *(f"{view.name}.{view.version}" for view in SET.views)]
    for name, one in said["views"].items():
        assert (one["rows"], one["mismatches"], one["missing"], one["extra"]) == (ROWS, 0, 0, 0), name
        # Rows that nobody knows are among them, and they are not most.
        assert ROWS / 2 < one["rows_not_default"] < ROWS or name in ("time.1", "user_category.1"), name
    assert 0 < said["views"]["user_lately.1"]["columns"]["seen"]["not_default"] < ROWS


def test_each_kind_of_fault_is_told_of_its_view_alone(loop, client, audit) -> None:
    states = {entity: s for (one, entity), s in loop.states.items() if one == USER_LATELY.definition_hash}
    gone, older, *_ = states
    client.delete(view_key(USER_LATELY, gone))
    # Of another user: right in form, wrong in content.
    client.set(view_key(USER_LATELY, older), states[gone])
    code, said = audit()
    found = said["views"]["user_lately.1"]
    assert code == 1 and found["missing"] > 0 and found["mismatches"] > 0 and found["extra"] == 0
    assert found["columns"]["seen"]["differ"] > 0
    others = [one for name, one in said["views"].items() if name != "user_lately.1"]
    assert not any(one["mismatches"] + one["missing"] + one["extra"] for one in others)


def test_a_lake_of_another_past_is_told(client, audit, tmp_path) -> None:
    code, said = audit("--lake_uri", Loop(SET, users=4, seed=2).run(150).write(tmp_path / "other"))
    assert code == 1 and said["views"]["user_lately.1"]["mismatches"] > ROWS / 2


def test_a_feature_server_that_is_not_there_and_an_empty_lake_are_said(client, audit, tmp_path) -> None:
    assert audit("--feature_target", "127.0.0.1:1")[0] == 2
    assert audit("--lake_uri", str(tmp_path / "none"))[0] == 2
