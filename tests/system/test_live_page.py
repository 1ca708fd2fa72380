"""The live page in a real browser, in front of the whole loop under load: it shows the loop, its switches
change the world and its charts tell of it, and what dies is said to be gone.

RECLOOP_SCREENSHOTS=<folder> keeps the pictures that the test takes (make screenshots puts them into docs).
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.processes import LOOP, PAGE
from tests.browser_kit import Browser, browser, needs_browser
from tests.system.conftest import WORLD, Loop, seeded_loop

pytestmark = [pytest.mark.system, pytest.mark.timeout(420), needs_browser]
RATE = "12"
# Behind a switch: rates are those of half a minute.
WINDOW_S = 30.0
# Of the table of arms.
ONLINE_REQUESTS = (
    "[...document.querySelectorAll('#arms tr')].find((row) => row.cells[0].textContent === 'online')"
    "?.cells[3].textContent.replaceAll(',', '')"
)
# Enough for a picture in a document; the whole page is longer.
TALL = {1200: 1450, 400: 1500}


async def figure(seen: Browser, chart: str, line: str) -> float | None:
    """What the legend of a chart says of a line now; None when it says nothing."""
    script = (
        f"[...document.querySelectorAll('#chart-{chart} .legend span')]"
        f".find((one) => one.textContent.startsWith('{line} '))?.querySelector('b').textContent ?? ''"
    )
    words = str(await seen.value(script)).split()
    return float(words[0].replace(",", "")) if words and words[0] != "–" else None


async def until_figure(seen: Browser, chart: str, line: str, above: float, seconds: float) -> float:
    """Waits until a line of a chart is above something; what it is then."""
    for _ in range(int(seconds / 0.5)):
        found = await figure(seen, chart, line)
        if found is not None and found > above:
            return found
        await asyncio.sleep(0.5)
    raise AssertionError(f"{chart} {line} is {found}, not above {above}, after {seconds:.0f} s")


async def switched_off(seen: Browser, scenario: str) -> None:
    """Ends a scenario in the page, which says so."""
    await seen.click(f'[data-name="{scenario}"]')
    ended = f"document.querySelector('[data-name=\"{scenario}\"]').ariaChecked === 'false'"
    await seen.until(ended, f"the end of {scenario}")


async def keep_picture(seen: Browser, name: str, width: int, *, dark: bool) -> None:
    """Nothing is wider than the screen; the picture is kept where somebody wants it."""
    await seen.size(width, 900, dark=dark)
    await asyncio.sleep(3)
    assert await seen.value("document.documentElement.scrollWidth <= innerWidth"), name
    picture = await seen.photograph(TALL[width])
    assert len(picture) < 500_000
    if folder := os.environ.get("RECLOOP_SCREENSHOTS"):
        (Path(folder) / name).write_bytes(picture)


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Loop]:
    """With the page, and with so many users that they are not tired of all that is good before the test ends:
    a few hundred are after two minutes, and then click less and less, whatever the scenario."""
    with seeded_loop(tmp_path, (*LOOP, PAGE), world=(*WORLD, "--sim.users", "5000")) as seeded:
        yield seeded


async def test_the_page_shows_the_loop_and_a_scenario_that_is_switched_on_in_it(loop, tmp_path):
    load = loop.simulate("--rate", RATE, "--duration-s", "300")
    try:
        async with browser(tmp_path / "profile") as seen:
            await seen.size(1200, 900)
            await seen.open(loop.stack.addresses.page)
            await seen.until("document.querySelectorAll('#scenarios button').length >= 6", "the switches", 60)
            calm = await until_figure(seen, "requests", "answered", 10.5, 90)
            assert calm < 16
            # The loop has closed: clicks are samples, samples are deltas, deltas are served.
            await until_figure(seen, "fresh", "sum", 0, 60)
            # Of so many requests a click rate is known to a twentieth of it.
            await seen.until(f"{ONLINE_REQUESTS} > 450", "whole requests to judge by", 90)
            clicks = await until_figure(seen, "ctr", "online", 0, 10)
            assert clicks < 20
            assert await until_figure(seen, "auc", "online", 0, 30) <= 1
            assert await until_figure(seen, "samples", "trained", 0, 30)
            models = await seen.text("#models")
            assert all(name in models for name in ("trainer", "ranking", "recall", "online"))
            assert "promoted" in await seen.text("#generations") or "registered" in await seen.text(
                "#generations"
            )

            # Twice the arrivals.
            await seen.click('[data-name="black-friday"]')
            await seen.until("document.querySelector('#chart-requests .band')", "the shade of the scenario")
            await until_figure(seen, "requests", "answered", 1.5 * calm, WINDOW_S + 20)

            await seen.click("#ask button")
            await seen.until("document.querySelectorAll('#list > li').length == 10", "a user's list")
            assert "by arm online with model 1." in await seen.text("#list-note")
            await seen.click("#list > li .why")
            await seen.until("document.querySelectorAll('.reasons tr').length > 3", "the reasons")
            await seen.click("#list > li .why")
            await keep_picture(seen, "page-desktop.png", 1200, dark=False)
            await keep_picture(seen, "page-phone.png", 400, dark=True)
            await switched_off(seen, "black-friday")

            # Every third visit is a bot's, and those click on half of what they see.
            await seen.click('[data-name="bots"]')
            await until_figure(seen, "ctr", "online", 1.5 * clicks, 90)
            await switched_off(seen, "bots")

            loop.stack.kill("release", signal.SIGKILL)
            await seen.until(
                "document.querySelector('#arms .gone, #chart-ctr .gone:not(:empty)')", "that it is gone"
            )
            assert await figure(seen, "ctr", "online") is None
            assert await figure(seen, "requests", "answered") is not None
            loop.stack.restart("release")
            await until_figure(seen, "ctr", "online", 0, 60)
            assert seen.complaints == []
    finally:
        load.terminate()
        load.communicate(timeout=120)
    assert loop.stack.deaths == []
