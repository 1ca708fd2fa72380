"""Named situations of the world, as data: what is different while one is on. When it is on, a timeline says
(loadgen/timeline.py).

A shift is added to the click logit, so it moves everybody's true click probability and the oracle's with it.
"""

from __future__ import annotations

from dataclasses import dataclass

from services.contract.errors import InvalidInput


@dataclass(frozen=True)
class Shift:
    """Of the click logit. ``categories`` empty = all; ``item`` -1 = no single item."""

    logit: float
    categories: tuple[int, ...] = ()
    item: int = -1


@dataclass(frozen=True)
class Scenario:
    """Factors are times the usual; several scenarios that are on together multiply.

    ``newcomer_share``, ``bot_share``: of the visits, beside the usual ones. ``arrivals`` is at least 1.
    """

    name: str
    description: str
    shifts: tuple[Shift, ...] = ()
    arrivals: float = 1.0
    taste_speed: float = 1.0
    item_births: float = 1.0
    user_births: float = 1.0
    newcomer_share: float = 0.0
    bot_share: float = 0.0


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario(
            "black-friday",
            "twice the arrivals, everybody clicks more, three categories most of all",
            shifts=(Shift(0.4), Shift(0.8, categories=(1, 2, 3))),
            arrivals=2.0,
        ),
        Scenario("celebrity", "everybody wants one item that nobody knew", shifts=(Shift(3.0, item=777),)),
        Scenario("item-flood", "ten times as many new items", item_births=10.0),
        Scenario(
            "user-wave",
            "half as many visits again, by new users; twenty times as many of them come",
            arrivals=1.5,
            user_births=20.0,
            newcomer_share=0.3,
        ),
        Scenario("taste-drift", "tastes turn twenty times as fast", taste_speed=20.0),
        Scenario(
            "bots",
            "half as many visits again, by bots that click on every item of less than average quality",
            arrivals=1.5,
            bot_share=1 / 3,
        ),
    )
}
# What arrivals are drawn for, beforehand: more cannot come at once.
PEAK_ARRIVALS = 4.5


def scenario(name: str) -> Scenario:
    """A scenario by name; InvalidInput names the known ones."""
    try:
        return SCENARIOS[name]
    except KeyError:
        raise InvalidInput.one("scenario", name[:64], f"one of {', '.join(SCENARIOS)}") from None
