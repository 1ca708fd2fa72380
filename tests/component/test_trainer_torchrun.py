"""``torchrun -m trainer batch``: two real processes over gloo give the model that one gives, whoever dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil
import pytest

from benchmarks.batch_lake import lake_of
from services.contract import model_store
from services.contract.model_state import ModelState
from tests.batch_kit import DAY, day_of_samples, read
from tests.feature_kit import SHAPE

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo" if sys.platform == "linux" else "lo0", "OMP_NUM_THREADS": "1"}
PASSES = 4
WAIT_S = 150.0
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> str:
    return lake_of(tmp_path_factory.mktemp("lake"), day_of_samples())


def start(ranks: int, lake: str, store: Path, **changes: str) -> subprocess.Popen[str]:
    """The command, under torchrun with that many processes; 0 = without it."""
    launcher = [*TORCHRUN, str(ranks)] if ranks else [sys.executable]
    options = {
        "day": DAY,
        "lake_uri": lake,
        "model_store_uri": str(store),
        "register_model": "false",
        "fit.max_passes": str(PASSES),
        "fit.patience": "9",
        "learning.minibatch_rows": "256",
        "admission.min_count_item": "1",
    } | {name.replace("__", "."): value for name, value in changes.items()}
    arguments = [word for name, value in options.items() for word in (f"--{name}", value)]
    return subprocess.Popen(
        [*launcher, "-m", "trainer", "batch", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | LOOPBACK,
    )


def finish(process: subprocess.Popen[str]) -> str:
    """The manifest that it gave."""
    out, err = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0, err
    told = [line for line in out.splitlines() if line.startswith("/")]
    assert told == [out.splitlines()[-1]], "only the first rank tells"
    return told[0]


@pytest.fixture(scope="module")
def two(lake: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What two processes give that nobody kills."""
    return finish(start(2, lake, tmp_path_factory.mktemp("two")))


def words_of(process: psutil.Process) -> Sequence[str]:
    """Its command line; nothing of one that has just ended (importing torch asks ldconfig and the like)."""
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:  # a zombie is one too
        return ()


def ranks_of(process: subprocess.Popen[str], count: int) -> Sequence[psutil.Process]:
    """The trainers that torchrun has started."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        found = [one for one in psutil.Process(process.pid).children() if "trainer" in words_of(one)]
        if len(found) == count:
            return sorted(found, key=lambda one: one.pid)
        time.sleep(0.01)
    pytest.fail("torchrun started no trainers")


def loaded(manifest_uri: str) -> ModelState:
    return model_store.load_base(manifest_uri, SHAPE)[0]


def test_two_processes_give_the_model_of_one(lake: str, two: str, tmp_path: Path) -> None:
    one = finish(start(0, lake, tmp_path))
    alone, shared = (model_store.read_manifest(uri).manifest for uri in (one, two))
    assert abs(alone["metrics"]["auc"] - shared["metrics"]["auc"]) < 0.002
    assert alone["metrics"]["auc"] > 0.62
    for same in ("rows", "passes", "best_pass", "skipped_rows"):
        assert alone["metrics"][same] == shared["metrics"][same], same
    for same in ("sample_offsets", "samples_trained", "rows"):
        assert alone[same] == shared[same], same
    assert alone["digest"] != shared["digest"], "rounding: else one process would have done the work"
    of_one, of_two = loaded(one), loaded(two)
    for name, table in of_one.tables.items():
        (ids, slots), (other_ids, other_slots) = table.ids(), of_two.tables[name].ids()
        assert np.array_equal(ids, other_ids)
        assert np.allclose(table.rows[slots], of_two.tables[name].rows[other_slots], atol=0.02)

    # What was trained before is found, by one process too: how many there are is no part of the key.
    store = two.partition("/generation-")[0]
    assert len(list(Path(store).glob("batch/*/pass-*.json"))) == PASSES
    assert finish(start(0, lake, Path(store))) == two


@pytest.mark.parametrize("victim", [0, 1])
def test_kill_9_of_one_rank_ends_all_and_a_rerun_gives_the_same_bits(
    lake: str, two: str, tmp_path: Path, victim: int
) -> None:
    store = tmp_path
    process = start(2, lake, store)
    trainers = ranks_of(process, 2)
    deadline = time.monotonic() + WAIT_S
    while not list(store.glob("batch/*/pass-*.json")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    by_rank = sorted(trainers, key=lambda one: int(one.environ()["RANK"]))
    os.kill(by_rank[victim].pid, signal.SIGKILL)
    process.communicate(timeout=WAIT_S)
    assert process.returncode == 1
    assert psutil.wait_procs(trainers, timeout=10)[1] == [], "the other rank ended too"
    assert not list(store.glob("batch/*/done.json"))

    last = start(2, lake, store)
    found = finish(last)
    assert read(found) == read(two)
    # Not from the beginning: the passes that were kept were made once.
    records = sorted(store.glob("batch/*/pass-*.json"))
    assert len(records) == PASSES
    assert json.loads(records[-1].read_text())["best"] >= 1


def test_ranks_that_read_different_days_are_told_apart(lake: str, tmp_path: Path) -> None:
    """Rank 1 has a lake of its own: as when a disk is not the shared one."""
    tables = day_of_samples()
    label = tables[0].schema.get_field_index("label")
    values = tables[0]["label"].to_numpy().copy()
    values[7] = 1 - values[7]
    tables[0] = tables[0].set_column(label, tables[0].schema.field(label), [values])
    other = lake_of(tmp_path / "other", tables)
    script = tmp_path / "differs.py"
    script.write_text(
        "import os, sys\n"
        "from trainer.batch import main\n"
        f"lake = ({lake!r}, {other!r})[int(os.environ['RANK'])]\n"
        "raise SystemExit(main([*sys.argv[1:], '--lake_uri', lake]))\n"
    )
    command = [
        *TORCHRUN, "2", str(script), "--day", DAY, "--model_store_uri", str(tmp_path / "store"),
        "--register_model", "false",
    ]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=WAIT_S, check=False, env=os.environ | LOOPBACK
    )
    assert done.returncode == 1
    assert "the ranks differ in the day's samples: rank 0: " in done.stderr
    assert not list(tmp_path.glob("store/batch/*/pass-*.json"))


def test_more_ranks_than_rows_of_a_step_and_a_day_without_samples_are_refused(
    lake: str, tmp_path: Path
) -> None:
    narrow = start(2, lake, tmp_path, learning__minibatch_rows="1")
    _, err = narrow.communicate(timeout=WAIT_S)
    assert narrow.returncode == 1
    assert "ranks=2: 1 to 1, the rows of a step" in err
    empty = start(2, lake, tmp_path, day="2001-01-01")
    _, err = empty.communicate(timeout=WAIT_S)
    assert empty.returncode == 1
    assert "day 2001-01-01: " in err and "rows to train" in err
