"""Named situations of the world, as data: what is different, by how much, when (seconds since the start).

A shift is added to the click logit, so it moves everybody's true click probability and the oracle's with it.
"""

from __future__ import annotations

from dataclasses import dataclass

from services.contract.errors import InvalidInput


@dataclass(frozen=True)
class Shock:
    """Something that begins and ends. ``categories`` empty = all; ``item`` -1 = no single item."""

    from_s: float
    until_s: float
    logit_shift: float
    arrivals: float = 1.0
    categories: tuple[int, ...] = ()
    item: int = -1


@dataclass(frozen=True)
class Scenario:
    """``drift`` scales all movement of tastes, trends and qualities; 0 = a world that stands still."""

    name: str
    description: str
    drift: float = 1.0
    shocks: tuple[Shock, ...] = ()

    def arrivals_factor(self, since_start_s: float) -> float:
        """How many times the usual arrivals come at this moment."""
        factor = 1.0
        for shock in self.shocks:
            if shock.from_s <= since_start_s < shock.until_s:
                factor *= shock.arrivals
        return factor

    @property
    def peak_factor(self) -> float:
        """An upper bound of ``arrivals_factor``."""
        peak = 1.0
        for shock in self.shocks:
            peak *= max(shock.arrivals, 1.0)
        return peak


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("drift", "tastes, trends and qualities move; items and users are born"),
        Scenario("still", "nothing moves; items and users are born", drift=0.0),
        Scenario(
            "black-friday",
            "between 40 s and 80 s twice the arrivals, everybody clicks more, three categories most of all",
            shocks=(
                Shock(40, 80, 0.4, arrivals=2.0),
                Shock(40, 80, 0.8, categories=(1, 2, 3)),
            ),
        ),
        Scenario(
            "celebrity",
            "from 40 s on everybody wants one item that nobody knew",
            shocks=(Shock(40, float("inf"), 3.0, item=777),),
        ),
    )
}


def scenario(name: str) -> Scenario:
    """A scenario by name; InvalidInput names the known ones."""
    try:
        return SCENARIOS[name]
    except KeyError:
        raise InvalidInput.one("scenario", name, f"one of {', '.join(SCENARIOS)}") from None
