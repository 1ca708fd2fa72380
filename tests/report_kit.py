"""Reading pages back, and the evidence of a small run with two arms."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

from local.evidence import Evidence

S = 1_000_000
START_US = 1_700_000_000 * S


class Tags(HTMLParser):
    """Fails when a tag is closed that is not the one open; collects text and links."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.links: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.links += [value for name, value in attrs if name in ("src", "href")]
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.links += [value for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def assert_self_contained(page: str) -> str:
    """One well-formed file that loads nothing and runs nothing; its text."""
    tags = Tags(page)
    assert (tags.open, tags.links) == ([], [])
    for loads in ("url(", "@import", "<script", "<link", "<img"):
        assert loads not in page
    for image in re.findall(r"<svg.*?</svg>", page, re.S):
        ElementTree.fromstring(image)
    return " ".join(" ".join(tags.text).split())


class Drawn:
    """A plot's image, read back: values from places, by the ticks of its axes."""

    def __init__(self, figure: str) -> None:
        found = re.search(r"<svg.*?</svg>", figure, re.S)
        assert found, figure
        self.root = ElementTree.fromstring(found.group())
        _, _, self.width, self.height = map(float, self.root.attrib["viewBox"].split())
        texts = [one for one in self.root.iter("text") if one.attrib["class"] == "axis"]
        self._up = [
            (float(one.attrib["y"]) - 4, _value(one.text))
            for one in texts
            if one.attrib["text-anchor"] == "end" and _value(one.text) is not None
        ]
        self._across = [
            (float(one.attrib["x"]), _value(one.text))
            for one in texts
            if one.attrib["text-anchor"] == "middle" and _value(one.text) is not None
        ]

    def lines(self) -> list[list[tuple[float, float]]]:
        """The points of each stretch, as values."""
        return [
            [self.at(*map(float, pair.split(","))) for pair in one.attrib["points"].split()]
            for one in self.root.iter("polyline")
        ]

    def dots(self) -> list[tuple[float, float]]:
        """The points, as values."""
        return [self.at(float(one.attrib["cx"]), float(one.attrib["cy"])) for one in self.root.iter("circle")]

    def bars(self) -> list[tuple[float, float]]:
        """(low, high) of each error bar, as values."""
        found = []
        for one in self.root.iter("path"):
            x, low, high = map(float, re.search(r"M([\d.]+),([\d.]+)V([\d.]+)$", one.attrib["d"]).groups())
            found.append((self.at(x, low)[1], self.at(x, high)[1]))
        return found

    def titles(self) -> list[str]:
        """What pointing at the points says."""
        return [one.text or "" for one in self.root.iter("title")]

    def at(self, x: float, y: float) -> tuple[float, float]:
        """The values of a place."""
        assert 0 <= x <= self.width and 0 <= y <= self.height
        return _between(self._across, x), _between(self._up, y)


def _between(ticks: list[tuple[float, float]], place: float) -> float:
    # An axis that names its places has no values.
    if len(ticks) < 2:
        return place
    (start, low), (stop, high) = ticks[0], ticks[-1]
    return low + (high - low) * (place - start) / (stop - start)


def _value(text: str | None) -> float | None:
    said = (text or "").replace(",", "")
    try:
        return 1_000 * float(said[:-1]) if said.endswith("k") else float(said)
    except ValueError:
        return None


def request(number: int, at_s: float, **other: Any) -> dict[str, Any]:
    """A row of requests: answered after 20 ms by online, generation 1."""
    return {
        "request_id": f"r{number}",
        "user_id": number,
        "intended_us": START_US + int(at_s * S),
        "sent_us": START_US + int(at_s * S),
        "answered_us": START_US + int(at_s * S) + 20_000,
        "status": "OK",
        "arm": "online",
        "generation": 1,
        "policy": "online",
        "sequence": 0,
        "applied_us": 0,
        "staleness_us": 3 * S,
        "served_us": 0,
        "scored": True,
        "candidates": 1_000,
        "degraded": "",
        "replica": "ranking-0",
        "shown_true_p": 0.2,
        "frozen_true_p": None,
        "ideal_true_p": 0.5,
        **other,
    }


def shown(number: int, items: int = 2) -> dict[str, Any]:
    """The acknowledged impression of a request."""
    return {
        "event_id": f"r{number}:shown",
        "request_id": f"r{number}",
        "kind": "impression",
        "item_id": 0,
        "items": items,
        "occurred_us": 0,
        "sent_us": 0,
        "acknowledged_us": 0,
    }


def clicked(number: int, item: int, sent_s: float = 0.0) -> dict[str, Any]:
    """A click, acknowledged after 10 ms."""
    return {
        "event_id": f"r{number}:{item}:1",
        "request_id": f"r{number}",
        "kind": "click",
        "item_id": item,
        "items": 1,
        "occurred_us": 0,
        "sent_us": START_US + int(sent_s * S),
        "acknowledged_us": START_US + int(sent_s * S) + 10_000,
    }


def sample(number: int, item: int, label: float, score: float, **other: Any) -> dict[str, Any]:
    """A row of samples."""
    return {
        "request_id": f"r{number}",
        "item_id": item,
        "label": label,
        "label_version": 0,
        "score": score,
        "partition": 0,
        "offset": number,
        "joined_us": 0,
        "arm": "online",
        **other,
    }


def decision(at_s: float, name: str, **evidence: Any) -> dict[str, Any]:
    """A row of decisions."""
    return {
        "arm": evidence.pop("arm", "generation/2/life"),
        "decided_us": START_US + int(at_s * S),
        "decision": name,
        "evidence": json.dumps(evidence),
        "revision": 1,
    }


def columns(rows: list[dict[str, Any]], empty: tuple[str, ...] = ()) -> dict[str, list]:
    """Rows as columns; ``empty``: the columns of no rows."""
    names = list(rows[0]) if rows else list(empty)
    return {name: [row[name] for row in rows] for name in names}


def evidence(**tables: list[dict[str, Any]]) -> Evidence:
    """Evidence of these rows; tables that are not given are empty."""
    empty: dict[str, tuple[str, ...]] = {
        "requests": tuple(request(0, 0)),
        "events": tuple(shown(0)),
        "samples": tuple(sample(0, 0, 0, 0)),
        "rejected": (),
        "deltas": ("generation", "policy", "sequence", "appended_us", "offsets", "steps"),
        "applied": (),
    }
    made = {name: columns(tables.get(name, []), known) for name, known in empty.items()}
    return Evidence(**made, decisions=columns(tables.get("decisions", [])))
