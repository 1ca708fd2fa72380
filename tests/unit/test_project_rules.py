"""Rules of the house that a machine can check: imports, documentation, pins, what must not be in a file."""

from __future__ import annotations

import importlib
import pkgutil
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
from pydantic import BaseModel
from pydantic_settings import BaseSettings

import services
from local.ports import ADMIN_ABOVE, METRICS_ABOVE, SERVICES
from local.processes import SPECS
from services.contract import topics
from services.runtime.settings import ProcessSettings

REPOSITORY = Path(__file__).resolve().parents[2]
SERVICE_NAMES = sorted(
    module.name
    for module in pkgutil.iter_modules(services.__path__)
    if module.name not in ("contract", "runtime")
)


# The others are a service once more, with settings of its own (ProcessSpec.env).
DEFAULT_PROCESSES = sorted(spec.name for spec in SPECS if not spec.env)


def test_import_rules_hold():
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [str(lint)], cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_service_is_launched():
    assert sorted({*DEFAULT_PROCESSES} - {"trainer"}) == SERVICE_NAMES
    assert {spec.name for spec in SPECS} == set(SERVICES)


@pytest.mark.parametrize("spec", [spec for spec in SPECS if spec.env], ids=lambda spec: spec.name)
def test_what_makes_a_process_another_one_are_settings_of_its_service(spec):
    known = settings_of(spec.module[0].removeprefix("services.")).model_fields
    assert [name for name in spec.env if name.removeprefix("RECLOOP_").lower() not in known] == []
    assert spec.env["RECLOOP_NAME"] == spec.name


def settings_of(name: str) -> type[ProcessSettings]:
    module = importlib.import_module("trainer.settings" if name == "trainer" else f"services.{name}.settings")
    own = [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, ProcessSettings)
        and value is not ProcessSettings
        and value.__module__ == module.__name__
        and "grpc" in value.model_fields
        and value.model_fields["grpc"].default is not None
    ]
    assert len(own) == 1, f"{module.__name__} should define one ProcessSettings, has {own}"
    return own[0]


@pytest.mark.parametrize("name", DEFAULT_PROCESSES)
def test_the_launchers_ports_are_the_services_defaults(name):
    grpc = settings_of(name).model_fields["grpc"].default
    assert grpc.port == SERVICES[name]
    assert grpc.admin_or_default() == SERVICES[name] + ADMIN_ABOVE
    assert grpc.metrics_or_default() == SERVICES[name] + METRICS_ABOVE


def undocumented(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        if not (field.description or "").strip():
            yield prefix + name
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel) and not issubclass(inner, BaseSettings):
            yield from undocumented(inner, f"{prefix}{name}.")


@pytest.mark.parametrize("name", DEFAULT_PROCESSES)
def test_every_setting_says_why(name):
    assert list(undocumented(settings_of(name))) == []


def topics_table() -> str:
    """The table that ARCHITECTURE.md holds between its topics markers."""
    lines = [
        "| topic | partitions | key | value | kept | writers | readers |",
        "|---|---|---|---|---|---|---|",
    ]
    for topic in topics.ALL:
        kept = "compacted" if topic.compacted else f"{topic.retention_ms / topics.DAY_MS:g} d"
        writers, readers = ", ".join(topic.writers), ", ".join(topic.readers)
        cells = (f"`{topic.name}`", str(topic.partitions), topic.key, topic.value, kept, writers, readers)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def test_architecture_lists_every_topic_as_the_contract_has_it():
    text = (REPOSITORY / "ARCHITECTURE.md").read_text()
    found = re.search(r"<!-- topics -->\n(.*?)\n<!-- /topics -->", text, re.S)
    said = found.group(1) if found else ""
    assert said == topics_table(), f"put between <!-- topics --> and <!-- /topics -->:\n{topics_table()}"


def rpcs() -> list[str]:
    found = []
    for path in sorted((REPOSITORY / "protos" / "rec").rglob("*.proto")):
        text = path.read_text()
        package = re.search(r"^package ([\w.]+);", text, re.M)
        assert package, path
        for service in re.finditer(r"^service (\w+) \{(.*?)^\}", text, re.M | re.S):
            methods = re.findall(r"\brpc (\w+)\(", service.group(2))
            found += [f"{package.group(1)}.{service.group(1)}/{method}" for method in methods]
    return found


def test_a_page_shows_how_to_call_every_rpc():
    assert len(rpcs()) >= 20
    text = (REPOSITORY / "docs" / "inspect.md").read_text()
    assert [rpc for rpc in rpcs() if rpc not in text] == []


def test_every_requirement_is_pinned_to_what_is_installed():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    pins = {normal(name): pin for name, pin in pins.items()}
    extras = project["optional-dependencies"].values()
    wanted = [*project["dependencies"], *(one for extra in extras for one in extra)]
    names = [normal(re.split(r"[=<>\[]", one)[0]) for one in wanted]
    assert [name for name in names if name not in pins] == []
    assert [name for name in names if version(name).partition("+")[0] != pins[name]] == []


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


# Joined here so that this file does not hold what it forbids.
HOSTS = ("pypi" + ".org", "repo1." + "maven", "repo." + "maven")
FOLDERS = ("/wo" + "rk/", "/tm" + "p/w/", "/ro" + "ot/")
FORBIDDEN = HOSTS + FOLDERS


def test_no_file_names_a_registry_host_or_a_folder_of_one_machine():
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    if listed.returncode != 0:
        pytest.skip("not a git checkout: which files belong to the project is not known")
    found = []
    for name in listed.stdout.splitlines():
        path = REPOSITORY / name
        if path.is_file() and path.suffix not in (".parquet", ".bin", ".safetensors"):
            text = path.read_text(errors="replace")
            found += [f"{name}: {word}" for word in FORBIDDEN if word in text]
    assert found == []


def test_large_files_are_not_committed():
    listed = subprocess.run(
        ["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout: which files belong to the project is not known")
    paths = [REPOSITORY / name for name in listed.stdout.splitlines()]
    assert [path.name for path in paths if path.is_file() and path.stat().st_size > 1_000_000] == []
