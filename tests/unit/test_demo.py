"""What the demos have in common: nothing runs behind one, and its verdict is its exit status."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from local import demo
from local.backfill import command as backfill
from local.days import command as days
from local.days.plan import ONLINE_DAILY
from local.errors import LocalError, StartFailed
from local.rollback import command as rollback
from local.stack_config import StackConfig
from local.up import Interrupted


class Child:
    """A process that has ended with ``exit_code``, or has not."""

    def __init__(self, exit_code: int | None = None) -> None:
        self.exit_code = exit_code
        self.log = Path("load.log")
        self.waited_s: float | None = None

    def wait(self, timeout_s: float) -> bool:
        self.waited_s = timeout_s
        return self.exit_code is not None

    def require_running(self) -> None:
        if self.exit_code is not None:
            raise StartFailed("ended")

    def tail(self) -> str:
        return "last words"


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the stack and the processes of a stage were told, in order."""
    said: list[str] = []

    class Stack:
        def __init__(self, *_: object) -> None:
            self.start = lambda: said.append("stack up")
            self.stop = lambda: said.append("stack down")
            self.environment = dict

    class Started(Child):
        @classmethod
        def start(cls, name: str, command: list[str], *_: object, **__: object) -> Started:
            said.append(f"{name}: {' '.join(command[1:])}")
            return cls()

        def stop(self, grace_s: float) -> None:
            said.append("child down")

    monkeypatch.setattr(demo, "Stack", Stack)
    monkeypatch.setattr(demo, "Child", Started)
    monkeypatch.setattr(demo, "print_stack", lambda _stack: None)
    return said


@pytest.mark.parametrize("ends", [None, StartFailed("a part failed"), Interrupted("SIGINT")])
def test_behind_a_demo_nothing_runs_whatever_ended_it(ends, told, tmp_path: Path):
    folder = tmp_path / "days"
    folder.mkdir()
    (folder / "old.json").touch()

    def play() -> None:
        with demo.staged(folder, StackConfig(tmp_path)) as stage:
            assert list(folder.iterdir()) == []
            stage.start_load(20.0, 60, "--drift", "0.25")
            if ends is not None:
                raise ends

    if ends is None:
        play()
    else:
        with pytest.raises(type(ends)):
            play()
    up, load, *down = told
    assert up == "stack up" and down == ["child down", "stack down"]
    assert load.startswith("load: -m loadgen simulate --rate 20.0 --duration-s 60 ")
    assert load.endswith(f"--drift 0.25 --out {folder / 'load'}") and "--require-uplift false" in load


def test_a_load_may_miss_its_own_claims_but_not_break():
    for status in (0, 1):
        load = Child(status)
        assert demo.await_load(load, 7.0) == status and load.waited_s == 7.0
    for status, said in ((None, "the load did not end"), (2, "ended with status 2"), (-9, "status -9")):
        with pytest.raises(StartFailed, match=f"{said}; load.log ends with:\nlast words"):
            demo.await_load(Child(status), 1.0)


def test_a_load_that_is_over_too_early_is_said_to_be():
    demo.require_load(Child(), "x")
    with pytest.raises(StartFailed, match="over before the rows were there"):
        demo.require_load(Child(0), "the rows were there")
    with pytest.raises(StartFailed, match="ended"):
        demo.require_load(Child(2), "x")


def test_a_failed_check_is_the_exit_status_and_a_remark_is_not(tmp_path: Path, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["local", "demo-days", "--quick"])
    path = tmp_path / "out" / "demo-days.json"
    found = {"errors": 0, "failed_checks": [], "remarks": ["not in the order expected"]}
    assert demo.publish("demo-days", found, "a table", path) == 0
    assert json.loads(path.read_text()) == found
    assert found["command"] == "python -m local demo-days --quick"
    said = capsys.readouterr()
    assert said.out == "a table\n" and said.err == "demo-days: not in the order expected\n"
    assert demo.publish("demo-days", {"failed_checks": ["errors = 1, not 0"]}, "", path) == 1
    assert capsys.readouterr().err == "demo-days: FAILED: errors = 1, not 0\n"


@pytest.mark.parametrize("command", [days, backfill, rollback], ids=["days", "backfill", "rollback"])
def test_each_has_a_stack_of_the_smaller_world_and_none_of_the_users_servers(command, tmp_path, monkeypatch):
    made: list[dict[str, str]] = []
    monkeypatch.setattr(demo, "prepare", lambda _seed, environ: made.append(dict(environ)))
    for name in command.THEIRS:
        monkeypatch.delenv(name, raising=False)
    arguments = command._arguments(["--quick", "--run-dir", str(tmp_path), "--out", str(tmp_path / "out")])
    config = command._config(arguments)
    assert config.root == tmp_path and config.seed is not None
    assert config.env["RECLOOP_SIM__ITEMS"] == made[0]["RECLOOP_SIM__ITEMS"] == "20000"
    assert config.env["RECLOOP_FEATURE_SET"] == "world"
    if command is rollback:
        assert config.process_env["release"]["RECLOOP_ROLLBACK_S"] == "75"
    else:
        assert config.process_env["lake"] == demo.LAKE and "lake" in config.services
    if command is days:
        assert json.loads(config.process_env["trainer"]["RECLOOP_EXTRA_ARMS"]) == [ONLINE_DAILY]
    monkeypatch.setenv(command.THEIRS[0], "theirs:9092")
    with pytest.raises(LocalError, match=f"{command.THEIRS[0]} is set"):
        command._config(arguments)
