"""The page over real HTTP, in front of small real servers: what it shows, what it refuses, what it says is
missing; and in a real browser."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest

from services.page import metrics
from services.page.looks import MetricsLook
from services.page.sources import LIVE, MISSING
from tests.browser_kit import browser, needs_browser
from tests.page_kit import NOBODY, House, house

JSON = {"Content-Type": "application/json"}


@pytest.fixture
async def web() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(trust_env=False) as session:
        yield session


async def looks(web: aiohttp.ClientSession, home: House) -> dict[str, Any]:
    async with web.get(f"{home.address}/api/looks") as answer:
        assert answer.status == 200
        return json.loads(await answer.text(), parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


async def when(
    web: aiohttp.ClientSession, home: House, holds: Callable[[dict[str, Any]], object], seconds: float = 10
) -> dict[str, Any]:
    """The first look of which something holds."""
    deadline = time.monotonic() + seconds
    while not holds(found := await looks(web, home)):
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.05)
    return found


def state(found: dict[str, Any], name: str) -> dict[str, Any]:
    return next(one for one in found["sources"] if one["name"] == name)


def newest(found: dict[str, Any]) -> dict[str, float]:
    return found["points"][-1]["v"] if found["points"] else {}


async def post(
    web: aiohttp.ClientSession, home: House, path: str, body: Any, **headers: str
) -> tuple[int, dict[str, Any]]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with web.post(f"{home.address}{path}", data=data, headers=JSON | headers) as answer:
        assert "script-src 'self'" in answer.headers["Content-Security-Policy"]
        return answer.status, await answer.json()


def refused(reason: str) -> float:
    return metrics.REFUSED.labels(reason)._value.get()


async def test_what_services_say_becomes_lines_and_tables(web):
    async with house() as home:
        served = home.pages["release"].gauge("recloop_release_served", "arm", "figure")
        served.labels("online", "ctr").set(0.12)
        served.labels("online", "auc").set(float("nan"))
        handled = home.pages["gateway"].counter(
            "grpc_server_handled", "grpc_service", "grpc_method", "grpc_code"
        )
        ok = handled.labels("rec.v1.GatewayService", "Recommend", "OK")
        ok.inc(0)
        await when(web, home, lambda found: newest(found).get("requests.answered") == 0)
        ok.inc(1_000_000)
        found = await when(web, home, lambda found: newest(found).get("requests.answered", 0) > 1_000)
        assert newest(found)["ctr.online"] == 0.12 and "auc.online" not in newest(found)
        assert newest(found)["lag.joiner"] == 7
        tables = found["tables"]
        assert tables["served"] == {"online": {"ctr": 0.12, "auc": None}}
        assert tables["workers"]["joiner"]["behind"] == {"actions": 7}
        assert [one["state"] for one in tables["releases"]["generations"]] == ["superseded", "promoted"]
        assert [one["pinned"] for one in tables["releases"]["arms"]] == [None, 0]
        assert len(tables["scenarios"]) >= 6 and not any(one["on"] for one in tables["scenarios"])


async def test_a_source_that_dies_shows_nothing_any_more_and_comes_back(web):
    async with house() as home:
        gauge = home.pages["release"].gauge("recloop_release_served", "arm", "figure")
        gauge.labels("online", "ctr").set(0.12)
        found = await when(web, home, lambda found: "ctr.online" in newest(found))
        assert state(found, "release")["state"] == "live"
        assert state(found, "trainer status")["state"] == state(found, "joiner")["state"] == "unset"
        missing = state(found, "feature_pipeline status")
        assert missing["state"] == "missing" and missing["heard_ms"] == 0
        assert missing["error"] == f"{NOBODY}: nobody answers there"
        home.pages["release"].close()
        found = await when(web, home, lambda found: state(found, "release")["state"] == "missing")
        assert "ctr.online" not in newest(found) and found["tables"]["served"] == {}
        assert state(found, "release")["heard_ms"] > 0
        assert "nobody answers there" in state(found, "release")["error"]
        # What was true then is still a point of the past.
        assert any(point["v"].get("ctr.online") == 0.12 for point in found["points"])
        assert await looks(web, home)


async def test_a_page_that_is_no_metrics_page_or_too_long_is_an_error_of_that_source_alone(web):
    async with house(max_answer_bytes=2_000) as home:
        told = home.pages["release"].gauge("recloop_release_served", "arm", "figure")
        told.labels("online", "ctr").set(0.1)
        rows = home.pages["ranking"].gauge("recloop_ranking_rows", "arm")
        for n in range(200):
            rows.labels(f"arm-{n}").set(n)
        found = await when(web, home, lambda found: state(found, "ranking")["state"] == "missing")
        assert "more than 2000 bytes" in state(found, "ranking")["error"]
        assert newest(found)["ctr.online"] == 0.1


async def test_of_places_where_a_replica_may_be_an_empty_one_is_not_missing(web):
    async with house() as home:
        target = home.pages["release"].target
        look = MetricsLook(web, 1_000_000, 16)
        heard = await look.ask(f"{NOBODY},{target}", [], 2)
        assert (heard.state, set(heard.answers)) == (LIVE, {target})
        nowhere = await look.ask(f"{NOBODY},127.0.0.2:1", [], 2)
        assert nowhere.state == MISSING and set(nowhere.errors) == {NOBODY, "127.0.0.2:1"}


async def test_a_switch_changes_the_world_and_the_next_look_says_so(web):
    async with house() as home:
        before = home.true_p()
        status, said = await post(web, home, "/api/scenarios", {"name": "celebrity", "on": True})
        assert status == 200 and said["changed"] and said["scenario"]["on"]
        assert home.true_p() > 3 * before
        found = await when(web, home, lambda found: found["points"] and found["points"][-1]["on"])
        assert found["points"][-1]["on"] == ["celebrity"]
        status, said = await post(web, home, "/api/scenarios", {"name": "christmas", "on": True})
        assert status == 400 and "one of black-friday" in said["error"]
        status, said = await post(web, home, "/api/scenarios", {"name": "celebrity"})
        assert status == 400 and said["error"] == "on=not given: needed"
        status, said = await post(web, home, "/api/scenarios", {"name": "celebrity", "on": False})
        assert status == 200 and not said["scenario"]["on"]


async def test_switches_that_are_away_or_not_wanted_are_said(web):
    async with house(scenario_target=NOBODY) as home:
        status, said = await post(web, home, "/api/scenarios", {"name": "bots", "on": True})
        assert status == 503 and NOBODY in said["error"]
    async with house(scenario_target="") as home:
        status, said = await post(web, home, "/api/scenarios", {"name": "bots", "on": True})
        assert status == 503 and "scenario_target" in said["error"]


async def test_a_list_has_source_score_and_model_and_its_items_have_reasons(web):
    async with house() as home:
        status, said = await post(web, home, "/api/recommend", {"user": "user-0000042", "n": 3})
        assert status == 200
        assert [item["item"] for item in said["items"]] == [str(2**64 - 1 - n) for n in range(3)]
        assert said["items"][0] | {"item": ""} == {
            "item": "",
            "score": 0.5,
            "sources": ["vector", "co_click"],
        }
        assert (said["arm"], said["generation"], said["sequence"], said["staleness_s"]) == (
            "online",
            2,
            41,
            0.7,
        )
        assert said["degraded"] == ["recall.fresh: stale"]
        status, said = await post(web, home, "/api/why", {"user": "#42", "item": str(2**64 - 1)})
        assert status == 200 and said["defaults"] == 1
        assert said["features"] == [
            {
                "name": "item_clicks_1m",
                "description": "clicks on the item",
                "value": 7.0,
                "window_s": 60.0,
                "age_s": 3.0,
            }
        ]


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("recommend", {}, "user=empty: a user's key, or # and an id"),
        ("recommend", {"user": "#x"}, "user=x: an id"),
        ("recommend", {"user": f"#{2**64}"}, "a whole number below 2^64"),
        ("recommend", {"user": "u", "n": 51}, "n=51: 1 to 50"),
        ("recommend", {"user": "u", "n": 0}, "n=0: 1 to 50"),
        ("recommend", {"user": "u", "n": "3"}, "n='3': a whole number"),
        ("recommend", {"user": "u", "many": 3}, "many=given: one of user, n, arm"),
        ("recommend", {"user": "u", "arm": "nobody"}, "nobody: one of online"),
        ("why", {"user": "u"}, "item=empty: an id"),
        ("why", {"user": "u", "item": "-1"}, "item=-1: an id"),
        ("recommend", b"{", "a JSON object"),
    ],
)
async def test_bad_questions_are_answered_with_the_field(web, path, body, said):
    async with house() as home:
        before = refused("invalid")
        status, answer = await post(web, home, f"/api/{path}", body)
        assert status == 400 and said in answer["error"]
        assert refused("invalid") == before + 1


async def test_who_may_not_ask_is_refused_counted_and_changes_nothing(web):
    async with house() as home:
        switch = {"name": "celebrity", "on": True}
        counts = {reason: refused(reason) for reason in ("host", "origin", "content_type", "body")}
        status, said = await post(web, home, "/api/scenarios", switch, Origin="http://evil.example")
        assert status == 403 and "evil.example" in said["error"]
        status, _ = await post(web, home, "/api/scenarios", switch, **{"Sec-Fetch-Site": "cross-site"})
        assert status == 403
        status, said = await post(web, home, "/api/scenarios", switch, Host="evil.example")
        assert status == 421 and "localhost" in said["error"]
        status, _ = await post(web, home, "/api/scenarios", switch, **{"Content-Type": "text/plain"})
        assert status == 415
        status, _ = await post(web, home, "/api/recommend", {"user": "u" * 5_000})
        assert status == 413
        async with web.get(home.address, headers={"Host": "evil.example"}) as answer:
            assert answer.status == 421
        assert home.world.timeline.spans == []
        after = {reason: refused(reason) - count for reason, count in counts.items()}
        assert after == {"host": 2, "origin": 2, "content_type": 1, "body": 1}
        origin = {"Origin": f"http://127.0.0.1:{home.page.web_port}"}
        status, _ = await post(web, home, "/api/scenarios", switch, **origin)
        assert status == 200


async def test_no_get_changes_anything_and_every_answer_carries_its_rules(web):
    async with house() as home:
        for path in ("scenarios", "recommend", "why"):
            async with web.get(f"{home.address}/api/{path}?name=celebrity&on=true") as answer:
                assert answer.status == 405 and answer.headers["Allow"] == "POST"
        async with web.get(f"{home.address}/../../etc/passwd") as answer:
            assert answer.status == 404
        for path, kind in (("", "text/html"), ("page.css", "text/css"), ("live.js", "text/javascript")):
            async with web.get(f"{home.address}/{path}") as answer:
                text = await answer.text()
                assert answer.status == 200 and answer.content_type == kind
                assert (
                    "http://" not in text.replace("http://www.w3.org/2000/svg", "") and "https://" not in text
                )
                policy = answer.headers["Content-Security-Policy"]
                assert "default-src 'none'" in policy and "unsafe" not in policy
                assert answer.headers["X-Content-Type-Options"] == "nosniff"
                assert answer.headers["Cache-Control"] == "no-store"
        assert home.world.timeline.spans == []


async def test_a_stream_begins_with_the_past_and_goes_on_and_too_many_are_refused(web):
    async with house() as home:
        await when(web, home, lambda found: len(found["points"]) >= 2)
        async with web.get(f"{home.address}/api/stream") as answer:
            assert answer.content_type == "text/event-stream"
            news = [json.loads(line[6:]) async for line in _data(answer, 3)]
        assert len(news[0]["points"]) >= 2
        assert [len(one["points"]) for one in news[1:]] == [1, 1]
        times = [point["t"] for one in news for point in one["points"]]
        assert times == sorted(set(times))
        deadline = time.monotonic() + 5
        while home.page.watch.watchers:
            assert time.monotonic() < deadline, "a browser that has gone is still watched for"
            await asyncio.sleep(0.05)
        home.page.watch.watchers = 32
        before = refused("watchers")
        async with web.get(f"{home.address}/api/stream") as answer:
            assert answer.status == 429 and "max_watchers" in (await answer.json())["error"]
        assert refused("watchers") == before + 1
        home.page.watch.watchers = 0


async def _data(answer: aiohttp.ClientResponse, count: int) -> AsyncIterator[bytes]:
    while count:
        line = await asyncio.wait_for(answer.content.readline(), 10)
        if line.startswith(b"data: "):
            count -= 1
            yield line


async def test_questions_beyond_the_limit_are_refused_at_once(web):
    async with house(web={"port": 0, "max_questions": 2}) as home:
        home.gateway.held.clear()
        waiting = [asyncio.create_task(post(web, home, "/api/recommend", {"user": "u"})) for _ in range(2)]
        deadline = time.monotonic() + 2
        while home.gateway.asked < 2:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
        before = refused("questions")
        status, said = await post(web, home, "/api/why", {"user": "u", "item": "1"})
        assert status == 429
        assert "max_questions" in said["error"] and refused("questions") == before + 1
        home.gateway.held.set()
        assert [status for status, _ in await asyncio.gather(*waiting)] == [200, 200]


async def test_streams_end_when_the_process_stops_and_questions_in_progress_are_answered(web):
    async with house() as home:
        home.gateway.held.clear()
        asked = asyncio.create_task(post(web, home, "/api/recommend", {"user": "u"}))
        async with web.get(f"{home.address}/api/stream") as answer:
            await answer.content.readline()
            began = time.monotonic()
            closing = asyncio.create_task(home.process.close())
            await asyncio.sleep(0.2)
            home.gateway.held.set()
            while await asyncio.wait_for(answer.content.readline(), 5):
                pass
        assert (await asked)[0] == 200
        assert await closing and time.monotonic() - began < 4


async def test_looks_come_often_only_while_somebody_watches(web):
    async with house(interval_ms=300, idle_interval_ms=60_000) as home:
        await when(web, home, lambda found: found["points"])
        await asyncio.sleep(1)
        assert len((await looks(web, home))["points"]) == 1
        async with web.get(f"{home.address}/api/stream") as answer:
            assert [line async for line in _data(answer, 4)]


@needs_browser
async def test_a_browser_shows_it_and_switches_and_says_what_is_missing(tmp_path):
    async with house() as home, browser(tmp_path) as seen:
        told = home.pages["release"].gauge("recloop_release_served", "arm", "figure")
        told.labels("online", "ctr").set(0.123)
        # Names come from others: what they hold is text.
        told.labels("<img src=x onerror=alert(1)>", "ctr").set(0.05)
        for width, dark in ((1200, False), (400, True)):
            await seen.size(width, 900, dark=dark)
            await seen.open(home.address)
            await seen.until("document.querySelectorAll('#scenarios button').length >= 6", "the switches")
            await seen.until(
                "document.querySelector('#chart-ctr .legend')?.textContent.includes('12.3')", "the click rate"
            )
            assert await seen.value("document.documentElement.scrollWidth <= innerWidth"), width
            assert "<img src=x" in await seen.text("#arms")
            assert "feature_pipeline status does not answer" in await seen.text("#chart-lag .gone")
        await seen.click('[data-name="celebrity"]')
        await seen.until("document.querySelector('#chart-ctr .band')", "the shade of the scenario")
        assert await seen.text("#scenarios-note") == "celebrity is on."
        assert home.world.timeline.on_at(10.0)
        await seen.click("#ask button")
        await seen.until("document.querySelectorAll('#list > li').length == 10", "the list")
        assert "vector" in await seen.text("#list > li") and "50.0 %" in await seen.text("#list > li")
        await seen.click("#list > li .why")
        await seen.until(
            "document.querySelector('.reasons')?.textContent.includes('clicks on the item')", "the reasons"
        )
        home.pages["release"].close()
        await seen.until(
            "document.querySelector('#chart-ctr .gone').textContent"
            ".includes('release does not answer since')",
            "that release is gone",
        )
        assert "0.123" not in await seen.text("#arms") and "12.3" not in await seen.text("#arms")
        assert "No answer from: " in await seen.text("#pulse")
        assert seen.complaints == []
        await home.process.close()
        await seen.until(
            "!document.querySelector('#trouble').hidden && "
            "document.querySelector('#trouble').textContent.includes('has said nothing since')",
            "that the page's service is gone",
        )
        assert await seen.value("document.querySelector('#charts').classList.contains('old')")
