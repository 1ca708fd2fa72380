"""Generates the Python code of the protos: ``python protos/generate.py [output folder]``.

The result is committed under protos/gen; a test generates it again and compares.
"""

from __future__ import annotations

import sys
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

HERE = Path(__file__).resolve().parent


def generate(output: Path) -> None:
    """Writes *_pb2.py, *_pb2.pyi and *_pb2_grpc.py for every proto below ``protos/rec``."""
    output.mkdir(parents=True, exist_ok=True)
    sources = sorted(str(path.relative_to(HERE)) for path in (HERE / "rec").rglob("*.proto"))
    services = [name for name in sources if "service " in (HERE / name).read_text()]
    common = ["protoc", f"-I{HERE}", f"-I{files('grpc_tools') / '_proto'}"]
    for arguments in (
        [*common, f"--python_out={output}", f"--pyi_out={output}", *sources],
        [*common, f"--grpc_python_out={output}", *services],
    ):
        if protoc.main(arguments) != 0:
            raise SystemExit("protoc failed: see the messages above")
    for module in output.rglob("*_pb2.py"):
        for folder in module.relative_to(output).parents:
            if folder.name:
                (output / folder / "__init__.py").touch()


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "gen")
