"""The generated code is what the protos say, and the protos keep the rules."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PROTOS = REPOSITORY / "protos"


def files_below(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix in (".py", ".pyi")
    }


def test_generated_code_is_that_of_the_protos(tmp_path):
    subprocess.run([sys.executable, str(PROTOS / "generate.py"), str(tmp_path)], check=True, timeout=120)
    fresh, committed = files_below(tmp_path), files_below(PROTOS / "gen")
    assert sorted(fresh) == sorted(committed), "run: make protos"
    drifted = [name for name in fresh if fresh[name] != committed[name]]
    assert not drifted, "run: make protos"


def test_protos_keep_bufs_rules():
    buf = Path(sys.executable).with_name("buf")
    done = subprocess.run(
        [str(buf), "lint"], cwd=PROTOS, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
