"""What each arm served when, as bars on one line of time, and the moments of decisions. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from local.report.charts import WIDTH, figure, number, svg, text
from local.report.plot import Mark, marked, round_ticks
from local.report.series import Stretch

_LEFT, _RIGHT, _ROW, _TOP = 74, WIDTH - 10, 26, 18
_COLOURS = ("c2", "c3", "c4", "k0", "c1", "k2")


def lanes(title: str, stretches: Sequence[Stretch], end: float, unit: str, marks: Sequence[Mark]) -> str:
    """A lane for each arm, a bar for each lineage that it served; times in ``unit``, from 0 to ``end``."""
    arms = list(dict.fromkeys(one.arm for one in stretches))
    lineages = list(dict.fromkeys(one.lineage for one in stretches))
    bottom = _TOP + len(arms) * _ROW

    def x(value: float) -> float:
        return _LEFT + (_RIGHT - _LEFT) * min(1.0, max(0.0, value / (end or 1.0)))

    parts = [f'<line class="edge" x1="{_LEFT}" x2="{_RIGHT}" y1="{bottom}" y2="{bottom}"/>']
    for value, said in round_ticks(0.0, end or 1.0):
        parts.append(text(x(value), bottom + 15, said, "middle", "axis"))
    parts.append(text(_RIGHT, bottom + 30, f"time, {unit}", "end", "axis"))
    for place, arm in enumerate(arms):
        parts.append(text(_LEFT - 6, _TOP + place * _ROW + 17, arm, "end"))
    for one in stretches:
        colour = _COLOURS[lineages.index(one.lineage) % len(_COLOURS)]
        # An arm with few answers is there all the same.
        width = number(max(2.0, x(one.until) - x(one.begin)))
        y = _TOP + arms.index(one.arm) * _ROW + 5
        said = escape(f"{one.arm}: {one.lineage}, {one.begin:.6g} to {one.until:.6g} {unit}")
        parts.append(
            f'<rect class="{colour}" x="{number(x(one.begin))}" y="{y}" width="{width}" height="16" rx="3">'
            f"<title>{said}</title></rect>"
        )
    parts += marked(marks, x, _TOP, bottom)
    keys = [(f"{_COLOURS[place % len(_COLOURS)]} key", name) for place, name in enumerate(lineages)]
    return figure(title, svg(title, bottom + 36, parts), keys)
