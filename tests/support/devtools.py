"""A page in a running browser: what it looks like at a size, what it asks for, what is refused.

Speaks the protocol of Chromium's developer tools.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import tempfile
from collections.abc import AsyncIterator
from typing import Any

import aiohttp

from tests.support.browser import command

PATIENCE = 30


class Tab:
    """One page of a browser.

    Attributes:
        errors: what the browser complained of, and requests that failed.
        asked: the addresses that it asked for.
        loads: how many times a page was loaded.
    """

    def __init__(self, channel: aiohttp.ClientWebSocketResponse, session: str) -> None:
        self.errors: list[str] = []
        self.asked: list[str] = []
        self.loads = 0
        self._channel = channel
        self._session = session
        self._numbers = itertools.count(100)
        self._replies: dict[int, asyncio.Future[Any]] = {}
        self._loaded = asyncio.Event()

    async def listen(self) -> None:
        """Take what the browser says, until it ends."""
        async for message in self._channel:
            said = message.json()
            if (reply := self._replies.pop(said.get("id", 0), None)) is not None:
                reply.set_result(said)
            elif said.get("sessionId") == self._session:
                self._take(said["method"], said["params"])

    def _take(self, event: str, told: dict[str, Any]) -> None:
        match event:
            case "Page.loadEventFired":
                self.loads += 1
                self._loaded.set()
            case "Log.entryAdded":
                self.errors.append(told["entry"]["text"])
            case "Runtime.consoleAPICalled" | "Runtime.exceptionThrown":
                self.errors.append(str(told))
            case "Network.requestWillBeSent":
                self.asked.append(told["request"]["url"])
            case "Network.loadingFailed":
                self.errors.append(told["errorText"])

    async def call(self, method: str, **params: Any) -> Any:
        """Call a method of the protocol."""
        number = next(self._numbers)
        self._replies[number] = asyncio.get_running_loop().create_future()
        await self._channel.send_json(
            {"id": number, "sessionId": self._session, "method": method, "params": params}
        )
        reply = await asyncio.wait_for(self._replies[number], PATIENCE)
        assert "error" not in reply, reply
        return reply["result"]

    async def open(self, url: str) -> None:
        """Load a page."""
        self._loaded.clear()
        await self.call("Page.navigate", url=url)
        await asyncio.wait_for(self._loaded.wait(), PATIENCE)

    async def evaluate(self, expression: str) -> Any:
        """The value of an expression of JavaScript in the page."""
        reply = await self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in reply, reply
        return reply["result"].get("value")

    async def show(self, width: int, height: int = 900, *, dark: bool = False) -> None:
        """Have a window of another size, and a person who likes dark pages or does not."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        await self.call("Emulation.setDeviceMetricsOverride", **metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])


@contextlib.asynccontextmanager
async def tab() -> AsyncIterator[Tab]:
    """Start a browser with one page, and end it."""
    with tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True) as profile:
        browser = await asyncio.create_subprocess_exec(
            *command(profile, "about:blank", "--remote-debugging-port=0"),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        try:
            async with (
                aiohttp.ClientSession() as client,
                client.ws_connect(await _address(browser), max_msg_size=0) as channel,
            ):
                one = Tab(channel, await _attach(channel))
                listening = asyncio.create_task(one.listen())
                for domain in ("Page", "Log", "Runtime", "Network"):
                    await one.call(f"{domain}.enable")
                yield one
                with contextlib.suppress(aiohttp.ClientError, ConnectionError):
                    await channel.send_json({"id": 1, "method": "Browser.close"})
                await asyncio.wait_for(browser.wait(), PATIENCE)
                listening.cancel()
        finally:
            if browser.returncode is None:
                browser.kill()
                await browser.wait()


async def _address(browser: asyncio.subprocess.Process) -> str:
    assert browser.stderr is not None
    async with asyncio.timeout(PATIENCE):
        async for line in browser.stderr:
            if found := re.search(rb"DevTools listening on (ws://\S+)", line):
                return found[1].decode()
    raise AssertionError("the browser has ended")


async def _attach(channel: aiohttp.ClientWebSocketResponse) -> str:
    """The session of the browser's page."""
    await channel.send_json({"id": 1, "method": "Target.getTargets"})
    targets = (await _reply(channel, 1))["targetInfos"]
    page = next(one["targetId"] for one in targets if one["type"] == "page")
    params = {"targetId": page, "flatten": True}
    await channel.send_json({"id": 2, "method": "Target.attachToTarget", "params": params})
    return str((await _reply(channel, 2))["sessionId"])


async def _reply(channel: aiohttp.ClientWebSocketResponse, number: int) -> Any:
    async with asyncio.timeout(PATIENCE):
        while True:
            said = await channel.receive_json()
            if said.get("id") == number:
                return said["result"]
