"""Every object against the schema of its kind: unknown and missing fields are problems.

Kubernetes' own kinds: the schemas that the package kubernetes-validate carries, for the oldest version that
the manifests are for and the newest that it knows. Operators' kinds: their definitions (definitions.py). An
object without a schema is a problem too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import kubernetes_validate
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from k8s.checks.objects import Object, Objects, label

# preStop pauses (sleep) are on by default since then, and everything else is older.
OLDEST = "1.30"
SchemaByKind = Mapping[tuple[str, str], Object]


def versions() -> tuple[str, str]:
    """The oldest and the newest Kubernetes that objects are held against."""
    return OLDEST, kubernetes_validate.latest_version().rpartition(".")[0]


def problems(objects: Objects, own_kinds: SchemaByKind | None) -> Iterator[str]:
    """Per object: what its schema does not allow. ``own_kinds``: schemas by (apiVersion, kind) of operators;
    None = their objects are not looked at."""
    for one in objects.all:
        of = (one["apiVersion"], one["kind"])
        if is_builtin(one):
            for version in versions():
                yield from _against(one, _builtin(version, *of), f"Kubernetes {version}", objects.overlay)
        elif own_kinds is not None:
            schema = own_kinds.get(of)
            if schema is None:
                yield f"{objects.overlay}: {label(one)}: no schema of {' '.join(of)}"
            else:
                validator = Draft202012Validator(schema)
                yield from _against(one, validator, of[0], objects.overlay)


def is_builtin(one: Object) -> bool:
    """Whether it is a kind of Kubernetes itself: groups without a dot, and those below k8s.io."""
    group = one["apiVersion"].rpartition("/")[0]
    return "." not in group or group.endswith(".k8s.io")


def _against(one: Object, validator: Any, what: str, overlay: str) -> Iterator[str]:
    if validator is None:
        yield f"{overlay}: {label(one)}: {what} has no {one['apiVersion']} {one['kind']}"
        return
    for error in validator.iter_errors(one):
        where = ".".join(map(str, error.absolute_path)) or "the object"
        yield f"{overlay}: {label(one)}: {where}: {error.message[:200]} ({what})"


@cache
def _builtin(version: str, api_version: str, kind: str) -> Any:
    group, _, number = api_version.rpartition("/")
    short = f"{group.partition('.')[0]}-{number}" if group else number
    path = _folder(version) / f"{kind.lower()}-{short}.json"
    if not path.is_file():
        return None
    return Draft202012Validator(json.loads(path.read_text()), registry=_registry(version))


@cache
def _registry(version: str) -> Registry:
    definitions = Resource.from_contents(json.loads((_folder(version) / "_definitions.json").read_text()))
    return definitions @ Registry()


def _folder(version: str) -> Path:
    return Path(str(files("kubernetes_validate"))) / f"kubernetes-json-schema/v{version}.0-local-strict"


def strict(schema: Any) -> Any:
    """The schema of a definition (openAPIV3Schema) as JSON schema in which a field that it does not name is
    an error, as a server with strict field validation has it."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    out = {key: strict(value) for key, value in schema.items() if key not in ("description", "example")}
    if isinstance(schema.get("properties"), dict):
        # Its keys are names of fields, whatever they are called.
        out["properties"] = {name: strict(value) for name, value in schema["properties"].items()}
        open_ended = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
        if not open_ended:
            out["additionalProperties"] = False
    if schema.get("x-kubernetes-int-or-string"):
        out.pop("type", None)
        out["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    if schema.get("nullable") and isinstance(out.get("type"), str):
        out["type"] = [out["type"], "null"]
    return out
