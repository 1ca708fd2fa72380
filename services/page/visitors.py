"""Who may ask what. Pure.

The page asks nobody who they are, so what a browser lets foreign sites do is what has to be kept out:

- A foreign name that is made to resolve to this address (DNS rebinding) would be a site of the same origin:
  the name in ``Host`` must be one of the known ones.
- A form or script of another site may send a POST from the visitor's browser: it must name this page as its
  origin, and its body must be JSON, which no form can send. A client that is no browser names no origin.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from services.contract.errors import FieldViolation, InvalidInput

CONTENT_TYPE = "application/json"


def known_names(text: str) -> frozenset[str]:
    """Of a comma-separated list, in lower case."""
    return frozenset(name.strip().lower() for name in text.split(",") if name.strip())


def host_name(host: str) -> str:
    """The name in a ``Host`` header, without its port."""
    name = host.strip().lower()
    if name.startswith("["):
        return name.partition("]")[0] + "]"
    return name.partition(":")[0]


def refused_host(host: str, names: Collection[str]) -> str:
    """Why a request for this host is refused; empty when it is not."""
    if host_name(host) in names:
        return ""
    return f"this page is not known as {host[:100]!r}: ask for one of {', '.join(sorted(names))}"


def refused_origin(headers: Mapping[str, str], host: str) -> str:
    """Why a request that may change something is refused; empty when it comes from this page, or from no
    browser."""
    site = headers.get("Sec-Fetch-Site", "")
    if site not in ("", "same-origin", "none"):
        return f"asked by another site (Sec-Fetch-Site: {site[:40]})"
    origin = headers.get("Origin")
    if origin is None:
        return ""
    scheme, _, where = origin.partition("://")
    if scheme in ("http", "https") and where.lower() == host.strip().lower():
        return ""
    return f"asked by {origin[:100]}, which is not this page"


def fields(body: bytes, allowed: Mapping[str, type]) -> dict[str, Any]:
    """The fields of a JSON object, each of its type; InvalidInput names every bad one. A missing one is left
    out."""
    try:
        given = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidInput.one("body", body[:60].decode(errors="replace"), "a JSON object") from error
    if not isinstance(given, dict):
        raise InvalidInput.one("body", type(given).__name__, "a JSON object")
    bad = [
        FieldViolation(str(name)[:60], "given", f"one of {', '.join(allowed)}")
        for name in given
        if name not in allowed
    ]
    for name, kind in allowed.items():
        value = given.get(name)
        # A bool is an int to Python, not to a reader.
        if name in given and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
            bad.append(FieldViolation(name, repr(value)[:60], _KINDS[kind]))
    if bad:
        raise InvalidInput(bad)
    return given


_KINDS = {str: "a string", int: "a whole number", bool: "true or false"}
