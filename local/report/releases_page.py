"""Every decision of release on one page: generations, experiments, rollbacks. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from local.report import decisions as decided
from local.report.bins import Bins
from local.report.charts import Bar, bars
from local.report.page import head, made_with, page, section
from local.report.series import Decision

TEXT = (
    "In order, with what each was decided by: the checks of gate and guard (what did not pass is bold), the "
    "figures of the sequential test. Bases that a trainer publishes by the clock are left out."
)


def releases_page(decisions: Sequence[Decision], setup: Mapping[str, Any]) -> str:
    """The whole file; times count from the first decision."""
    notable = decided.notable(decisions)
    bins = Bins.over(max((one.at_s for one in notable), default=1.0))
    kinds = Counter(one.decision.replace("_", " ") for one in notable)
    counted = [Bar(name[:14], number, str(number), "c2") for name, number in kinds.most_common()]
    bad = sum(decided.is_bad(one) for one in notable)
    return page(
        "decisions",
        [
            head("What release decided", f"{len(notable)} decisions, {bad} of them against a model."),
            section("How often", bars("decisions by kind", counted)) if counted else "",
            section("Experiments", said) if (said := decided.compared(notable)) else "",
            section("Decisions", decided.listed(notable, bins.unit, bins.unit_s), TEXT),
            made_with(setup),
        ],
    )
