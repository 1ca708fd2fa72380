"""Routes and headers: the page, its stream of looks, and the questions that it asks.

| route | what |
|---|---|
| GET / | the page; its style and script beside it |
| GET /api/looks | everything that is known now, as JSON |
| GET /api/stream | server-sent events: the same, then each look as it is made |
| POST /api/recommend | a user's list, which is logged like any answer |
| POST /api/why | what is known of one of its items |
| POST /api/scenarios | a switch of the running load |

No GET changes anything. Every answer says what a browser may do with it: scripts and styles from here alone,
no frames, no guessing of types, nothing kept.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from aiohttp import web

from services.contract.errors import DeadlineSpent, InvalidInput, LoopError, Overloaded
from services.page import metrics, visitors
from services.page.questions import Questions
from services.page.settings import WebSettings
from services.page.watch import Watch
from services.runtime.style import STYLE
from services.runtime.telemetry import get_logger

log = get_logger(__name__)
_STATIC = Path(__file__).with_name("static")
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
# A stream that says nothing for this long may be taken for dead by what stands in between.
_SILENCE_S = 15.0
_RETRY_MS = 2_000
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Answer = Callable[[Mapping[str, Any]], Awaitable[Mapping[str, Any]]]
_WHY = {"user": str, "item": str}
_RECOMMEND = {"user": str, "n": int, "arm": str}
_SWITCH = {"name": str, "on": bool}


def application(
    settings: WebSettings, watch: Watch, questions: Questions, stopping: asyncio.Event
) -> web.Application:
    """The page as an aiohttp application; streams end when ``stopping`` is set."""
    routes = _Routes(watch, questions, stopping)
    app = web.Application(
        middlewares=[_counted, _guarded(visitors.known_names(settings.names))],
        client_max_size=settings.max_body_bytes,
    )
    app.add_routes(
        [
            web.get("/", _file("index.html", "text/html")),
            web.get("/page.css", _text(STYLE + (_STATIC / "live.css").read_text(), "text/css")),
            web.get("/live.js", _file("live.js", "text/javascript")),
            web.get("/charts.js", _file("charts.js", "text/javascript")),
            web.get("/api/looks", routes.looks),
            web.get("/api/stream", routes.stream, allow_head=False),
            web.post("/api/recommend", routes.question(questions.recommend, _RECOMMEND)),
            web.post("/api/why", routes.question(questions.whys, _WHY)),
            web.post("/api/scenarios", routes.question(questions.switch, _SWITCH)),
        ]
    )
    app.on_response_prepare.append(_add_headers)
    return app


class _Routes:
    """Handlers with something behind them."""

    def __init__(self, watch: Watch, questions: Questions, stopping: asyncio.Event) -> None:
        self._watch = watch
        self._questions = questions
        self._stopping = stopping

    async def looks(self, _request: web.Request) -> web.Response:
        """Everything, once."""
        return web.json_response(self._watch.said(0))

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """Everything, then every look; ends with the process or with the browser."""
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        self._watch.enter()
        try:
            await answer.prepare(request)
            await answer.write(f"retry: {_RETRY_MS}\n\n".encode())
            number = 0
            while not self._stopping.is_set():
                said = self._watch.said(number)
                await answer.write(f"data: {json.dumps(said, separators=(',', ':'))}\n\n".encode())
                number = said["next"]
                while not self._stopping.is_set() and not await self._has_news(number):
                    await answer.write(b": still here\n\n")
            return answer
        except ConnectionError:  # the browser has gone
            return answer
        finally:
            self._watch.leave()

    async def _has_news(self, number: int) -> bool:
        """Whether there is a look beyond a number, after some silence at most."""
        news = asyncio.ensure_future(self._watch.news(number))
        stop = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait({news, stop}, timeout=_SILENCE_S, return_when=asyncio.FIRST_COMPLETED)
            return news.done()
        finally:
            news.cancel()
            stop.cancel()

    def question(self, answer: Answer, allowed: Mapping[str, type]) -> Handler:
        """A POST of a JSON object with some of ``allowed``."""

        async def ask(request: web.Request) -> web.Response:
            asked = visitors.fields(await request.read(), allowed)
            with self._questions:
                return web.json_response(await answer(asked))

        return ask


def _text(text: str, kind: str) -> Handler:
    async def give(_request: web.Request) -> web.Response:
        return web.Response(text=text, content_type=kind)

    return give


def _file(name: str, kind: str) -> Handler:
    return _text((_STATIC / name).read_text(), kind)


async def _add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_HEADERS)


@web.middleware
async def _counted(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Errors become answers with one line of text, and every answer is counted."""
    # What is no route is counted under one name: the paths that people try are theirs to choose.
    resource = request.match_info.route.resource
    route = resource.canonical if resource is not None else "none"
    status = 500
    try:
        answer = await handler(request)
        status = answer.status
    except web.HTTPException as refused:
        status = refused.status
        if isinstance(refused, web.HTTPRequestEntityTooLarge):
            metrics.REFUSED.labels("body").inc()
        answer = _problem(status, refused.text or refused.reason)
        if "Allow" in refused.headers:
            answer.headers["Allow"] = refused.headers["Allow"]
    except (LoopError, TimeoutError) as error:
        status = _status(error)
        if status == 400:
            metrics.REFUSED.labels("invalid").inc()
        answer = _problem(status, str(error) or "no answer in time")
    except Exception as error:
        log.error("unexpected error", route=route, error=repr(error), exc_info=error)
        answer = _problem(status, f"internal error ({type(error).__name__}); the page's log has it")
    finally:
        metrics.REQUESTS.labels(route, str(status)).inc()
    return answer


def _guarded(names: frozenset[str]) -> Any:
    """Refuses who may not ask (visitors.py)."""

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        if why := visitors.refused_host(request.host, names):
            metrics.REFUSED.labels("host").inc()
            raise web.HTTPMisdirectedRequest(text=why)
        if request.method not in ("GET", "HEAD"):
            if why := visitors.refused_origin(request.headers, request.host):
                metrics.REFUSED.labels("origin").inc()
                raise web.HTTPForbidden(text=why)
            if request.content_type != visitors.CONTENT_TYPE:
                metrics.REFUSED.labels("content_type").inc()
                raise web.HTTPUnsupportedMediaType(text=f"Content-Type: {visitors.CONTENT_TYPE} is asked for")
        return await handler(request)

    return guard


def _problem(status: int, said: str) -> web.Response:
    return web.json_response({"error": said}, status=status)


def _status(error: BaseException) -> int:
    if isinstance(error, InvalidInput):
        return 400
    if isinstance(error, Overloaded):
        return 429
    return 504 if isinstance(error, DeadlineSpent | TimeoutError) else 503
