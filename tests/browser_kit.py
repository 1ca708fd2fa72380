"""A real Chromium, headless, driven by its own protocol (CDP) over the websocket client that the page's HTTP
library has: open, look, click, type, resize, photograph. No driver to install."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
WAIT_S = 30.0
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--remote-debugging-port=0",
)  # fmt: skip


PATH = next((path for name in NAMES if (path := shutil.which(name))), None)
needs_browser = pytest.mark.skipif(
    PATH is None, reason=f"none of {', '.join(NAMES)} is on the PATH: no browser looks at the page"
)


# Of an element, scrolled into view: [x, y].
_MIDDLE = """(() => {{
  const element = document.querySelector({});
  element.scrollIntoView({{ block: "center" }});
  const box = element.getBoundingClientRect();
  return [box.x + box.width / 2, box.y + box.height / 2];
}})()"""


class Browser:
    """One page of a browser. ``complaints``: errors of its scripts and of its console, as they come."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._number = 0
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.complaints: list[str] = []

    async def listen(self) -> None:
        """Takes what Chromium says until it is gone."""
        async for message in self._socket:
            said = json.loads(message.data)
            if "id" in said:
                self._answers.pop(said["id"]).set_result(said)
            elif said["method"] == "Runtime.exceptionThrown":
                details = said["params"]["exceptionDetails"]
                self.complaints.append(details.get("exception", {}).get("description", details["text"]))
            elif said["method"] == "Log.entryAdded" and said["params"]["entry"]["level"] == "error":
                self.complaints.append(said["params"]["entry"]["text"])

    async def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol; its result."""
        self._number += 1
        answer = self._answers[self._number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": self._number, "method": method, "params": parameters})
        said = await asyncio.wait_for(answer, WAIT_S)
        assert "error" not in said, (method, said)
        result: dict[str, Any] = said["result"]
        return result

    async def open(self, url: str) -> None:
        """Goes to a page."""
        for domain in ("Page", "Runtime", "Log"):
            await self.command(f"{domain}.enable")
        went = await self.command("Page.navigate", url=url)
        assert "errorText" not in went, went

    async def value(self, expression: str) -> Any:
        """Of a JavaScript expression."""
        said = await self.command(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in said, said
        return said["result"].get("value")

    async def text(self, selector: str) -> str:
        """What stands in an element; empty when there is none."""
        return str(await self.value(f"document.querySelector({json.dumps(selector)})?.textContent ?? ''"))

    async def until(self, expression: str, what: str, seconds: float = WAIT_S) -> None:
        """Waits until an expression is true, as JavaScript sees it."""
        deadline = time.monotonic() + seconds
        while not await self.value(f"!!({expression})"):
            late = f"{what}: not in {seconds:.0f} s; complaints: {self.complaints}"
            assert time.monotonic() < deadline, late
            await asyncio.sleep(0.2)

    async def click(self, selector: str) -> None:
        """With the mouse, where the middle of the element is."""
        place = await self.value(_MIDDLE.format(json.dumps(selector)))
        for kind in ("mousePressed", "mouseReleased"):
            await self.command(
                "Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1
            )

    async def size(self, width: int, height: int, *, dark: bool = False) -> None:
        """Of the window; and whether its user likes it dark."""
        phone = width < 600
        await self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=phone,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.command("Emulation.setEmulatedMedia", features=[scheme])

    async def photograph(self, height: int | None = None) -> bytes:
        """The page from its top down to ``height`` (default: all of it), as PNG."""
        await self.value("window.scrollTo(0, 0)")
        width, whole = await self.value("[innerWidth, document.documentElement.scrollHeight]")
        clip = {"x": 0, "y": 0, "width": width, "height": min(height or whole, whole), "scale": 1}
        shot = await self.command(
            "Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True
        )
        return base64.b64decode(shot["data"])


@asynccontextmanager
async def browser(folder: Path) -> AsyncIterator[Browser]:
    """A Chromium of its own, with an empty profile in ``folder``; gone behind the block, whatever ends it."""
    command = [str(PATH), *_FLAGS, f"--user-data-dir={folder}", "about:blank"]
    process = await asyncio.create_subprocess_exec(
        *command,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        port = await _debugging_port(folder / "DevToolsActivePort", process)
        async with aiohttp.ClientSession(trust_env=False) as session:
            async with session.get(f"http://127.0.0.1:{port}/json/list") as listed:
                tabs = [tab for tab in await listed.json() if tab["type"] == "page"]
            async with session.ws_connect(tabs[0]["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                made = Browser(socket)
                listening = asyncio.create_task(made.listen())
                try:
                    yield made
                finally:
                    listening.cancel()
    finally:
        # Its helpers too: they are in its session.
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def _debugging_port(path: Path, process: asyncio.subprocess.Process) -> int:
    deadline = time.monotonic() + WAIT_S
    while not (found := _first_line(path)):
        assert process.returncode is None and time.monotonic() < deadline, "Chromium does not start"
        await asyncio.sleep(0.1)
    return int(found)


def _first_line(path: Path) -> str:
    return path.read_text().partition("\n")[0] if path.is_file() else ""
