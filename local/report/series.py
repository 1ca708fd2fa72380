"""What arms did over time, from a run's evidence. Pure: columns in, lines of a plot out.

Everything is put at the moment at which its request was meant to be sent (freshness: at which its click was
acknowledged), wall time from the first request on, in bins. So clicks and samples that came later count where
they were decided.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from local.evidence import STAGES, US, Evidence, FollowedClick, first_labels, followed_clicks
from local.report.bins import Bins, Floats, Indices, area, percentile, ratio
from local.report.plot import Series

CONTROL = "online"
FROZEN, ORACLE = "frozen, asked beside it", "best ten of each answer"
_COLOURS = {CONTROL: "c3", "frozen": "c0"}
_TEXTS = ("request_id", "status", "arm", "policy", "degraded", "replica")
_OTHERS = ("c2", "c4", "c1", "k0", "k2")


@dataclass(frozen=True)
class Decision:
    """A release event, at ``at_s`` from the first request on."""

    at_s: float
    arm: str
    decision: str
    evidence: dict[str, Any]


@dataclass(frozen=True)
class Stretch:
    """An arm served a lineage from its first answer to its last, in the axis's unit."""

    arm: str
    lineage: str
    begin: float
    until: float


class Run:
    """The evidence of one run, by request."""

    def __init__(self, evidence: Evidence) -> None:
        requests = evidence.requests
        self._evidence = evidence
        self._requests = {
            name: np.array(column, object if name in _TEXTS else None) for name, column in requests.items()
        }
        intended = np.array(requests["intended_us"], np.int64)
        self.start_us = int(intended.min()) if len(intended) else 0
        self._at_s = (intended - self.start_us) / US
        self._row_of = {request_id: row for row, request_id in enumerate(requests["request_id"])}
        self._fine = self._requests["status"] == "OK"
        self._scored = self._fine & self._requests["scored"].astype(bool)
        self.bins = Bins.over(float(self._at_s.max()) if len(intended) else 1.0)
        names = sorted(set(self._requests["arm"][self._fine].tolist()) - {""})
        self.arms = sorted(names, key=lambda name: (name != CONTROL, name))
        others = iter(_OTHERS * (1 + len(self.arms) // len(_OTHERS)))
        self.colours = {name: _COLOURS.get(name) or next(others) for name in self.arms}

    def click_rate(self) -> list[Series]:
        """Clicks / shown items of each arm; bars: one standard error, by requests."""
        shown, clicked = self._shown_clicked
        return [
            self._line(arm, self._of(arm) & (shown > 0), lambda rows: ratio(shown[rows], clicked[rows]))
            for arm in self.arms
        ]

    def truth(self) -> list[Series]:
        """Mean true click probability of what each arm showed, of the frozen model's choice from the same
        candidates, and of the oracle's."""
        shown, frozen, ideal = self._true("shown"), self._true("frozen"), self._true("ideal")
        lines = [self._mean_line(arm, shown, self._of(arm)) for arm in self.arms]
        lines.append(self._mean_line(FROZEN, frozen, self._fine, "c0", dashed=True))
        lines.append(self._mean_line(ORACLE, ideal, self._fine, "k0", dashed=True))
        return _with_points(lines)

    def regret(self) -> list[Series]:
        """The oracle's mean true click probability above what was shown, by arm."""
        ideal = self._true("ideal")
        shown, frozen = ideal - self._true("shown"), ideal - self._true("frozen")
        lines = [self._mean_line(arm, shown, self._of(arm)) for arm in self.arms]
        return _with_points([*lines, self._mean_line(FROZEN, frozen, self._fine, "c0", dashed=True)])

    def lost_clicks(self) -> list[Series]:
        """Regret summed over shown items from the beginning on: clicks that the oracle would have had."""
        regret = (self._true("ideal") - self._true("shown")) * self._shown_clicked[0]
        lines = []
        for arm in self.arms:
            rows = self._of(arm) & np.isfinite(regret)
            sums = [float(regret[part].sum()) for part in self._split(rows)]
            lines.append(Series(arm, self.bins.ends(), np.cumsum(sums).tolist(), (), self.colours[arm]))
        return lines

    def order(self) -> list[Series]:
        """AUC of the served scores of each arm; bars: one standard error (Hanley and McNeil 1982)."""
        samples = self._evidence.samples
        rows = [row for row in first_labels(samples) if samples["request_id"][row] in self._row_of]
        requests = np.array([self._row_of[samples["request_id"][row]] for row in rows], np.int64)
        labels = np.array([samples["label"][row] for row in rows], np.float64)
        scores = np.array([samples["score"][row] for row in rows], np.float64)
        arms = np.array([samples["arm"][row] for row in rows], object)
        lines = []
        for arm in self.arms:
            mine = np.flatnonzero(arms == arm)
            parts = self.bins.split(self._at_s[requests[mine]])
            found = [area(labels[mine[part]], scores[mine[part]]) for part in parts]
            lines.append(self._series(arm, found, self.colours[arm]))
        return lines

    def latency(self) -> list[Series]:
        """Milliseconds from the intended moment to the answer: p50 and p99."""
        took = (self._requests["answered_us"] - self._requests["intended_us"]) / 1000
        return [
            self._line("p50", self._fine, lambda rows: percentile(took[rows], 50), "c2"),
            self._line("p99", self._fine, lambda rows: percentile(took[rows], 99), "c1", dashed=True),
        ]

    def age(self) -> list[Series]:
        """Seconds since the served model was last changed: the median answer's, by arm."""
        old = self._requests["staleness_us"] / US
        return [
            self._line(arm, self._of(arm) & self._scored, lambda rows: percentile(old[rows], 50))
            for arm in self.arms
        ]

    def freshness(self, q: int) -> list[Series]:
        """Seconds of each stage from a click to an answer that has learned it, and of all: a percentile."""
        followed = self.followed
        at_s = np.array([(one.acknowledged_us - self.start_us) / US for one in followed])
        parts = self.bins.split(at_s)
        columns = {name: np.array([one.stages_s[name] for one in followed]) for name in STAGES}
        columns["all"] = np.array([one.total_s for one in followed])
        colours = ("c2", "k0", "c4", "c3", "c1", "c0")
        return [
            self._series(name, [percentile(values[part], q) for part in parts], colour, dashed=name == "all")
            for (name, values), colour in zip(columns.items(), colours, strict=True)
        ]

    @cached_property
    def followed(self) -> list[FollowedClick]:
        """The clicks that freshness is measured on."""
        return list(followed_clicks(self._evidence))

    def stretches(self) -> list[Stretch]:
        """Which lineage each arm served when, in order of time."""
        found: list[Stretch] = []
        for arm in self.arms:
            rows = np.flatnonzero(self._of(arm) & self._scored)
            rows = rows[np.argsort(self._requests["answered_us"][rows], kind="stable")]
            generations, policies = self._requests["generation"][rows], self._requests["policy"][rows]
            names = [f"{g}/{p}" for g, p in zip(generations.tolist(), policies.tolist(), strict=True)]
            # Old models drain: answers of two lineages may cross, so each has one stretch.
            for name in dict.fromkeys(names):
                mine = rows[[place for place, one in enumerate(names) if one == name]]
                moments = self._at_s[mine] / self.bins.unit_s
                found.append(Stretch(arm, name, float(moments.min()), float(moments.max())))
        return found

    def decisions(self) -> list[Decision]:
        """Release events in order."""
        table = self._evidence.decisions
        rows = range(len(table.get("decided_us", [])))
        return [
            Decision(
                (table["decided_us"][row] - self.start_us) / US,
                table["arm"][row],
                table["decision"][row],
                json.loads(table["evidence"][row] or "{}"),
            )
            for row in sorted(rows, key=lambda row: (table["decided_us"][row], table["revision"][row]))
        ]

    @cached_property
    def _shown_clicked(self) -> tuple[Floats, Floats]:
        """Items shown and clicked of each request, each event id once."""
        shown, clicked = np.zeros(len(self._at_s)), np.zeros(len(self._at_s))
        events = self._evidence.events
        once = {event: row for row, event in enumerate(events["event_id"])}
        for row in once.values():
            request = self._row_of.get(events["request_id"][row])
            if request is not None:
                counted = shown if events["kind"][row] == "impression" else clicked
                counted[request] += events["items"][row]
        return shown, clicked

    # lines

    def _of(self, arm: str) -> NDArray[np.bool_]:
        return self._fine & (self._requests["arm"] == arm)

    def _true(self, of: str) -> Floats:
        return np.array(self._evidence.requests[f"{of}_true_p"], np.float64)

    def _split(self, wanted: NDArray[np.bool_]) -> Iterator[Indices]:
        rows = np.flatnonzero(wanted)
        for part in self.bins.split(self._at_s[rows]):
            yield rows[part]

    def _mean_line(
        self, name: str, values: Floats, wanted: NDArray[np.bool_], colour: str = "", *, dashed: bool = False
    ) -> Series:
        known = wanted & np.isfinite(values)
        return self._line(
            name, known, lambda rows: ratio(np.ones(len(rows)), values[rows]), colour, dashed=dashed
        )

    def _line(
        self,
        name: str,
        wanted: NDArray[np.bool_],
        figure: Callable[[Indices], tuple[float, float]],
        colour: str = "",
        *,
        dashed: bool = False,
    ) -> Series:
        found = [figure(rows) for rows in self._split(wanted)]
        return self._series(name, found, colour or self.colours[name], dashed=dashed)

    def _series(
        self, name: str, found: Sequence[tuple[float, float]], colour: str, *, dashed: bool = False
    ) -> Series:
        values, errors = [one[0] for one in found], [one[1] for one in found]
        return Series(name, self.bins.middles(), values, errors, colour, dashed)


def _with_points(lines: Sequence[Series]) -> list[Series]:
    """Without those of which nothing was measured: no shadow arm, no truth."""
    return [one for one in lines if any(point is not None for point in one.points())]
