"""A headless Chromium, driven by the W3C WebDriver protocol through chromedriver."""

import asyncio
import base64
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"),
)
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
TAB, ENTER = "\ue004", "\ue007"


class Browser:
    def __init__(self, client: httpx.AsyncClient, session: str) -> None:
        self._client, self._session = client, f"/session/{session}"

    async def command(self, method: str, path: str, body: Any = None) -> Any:
        answer = await self._client.request(method, self._session + path, json=body if method == "POST" else None)
        value = answer.json()["value"]
        assert answer.status_code == 200, value
        return value

    async def go(self, url: str) -> None:
        await self.command("POST", "/url", {"url": url})

    async def run(self, script: str, *arguments: Any) -> Any:
        return await self.command("POST", "/execute/sync", {"script": script, "args": arguments})

    async def find(self, css: str) -> str:
        found = await self.command("POST", "/element", {"using": "css selector", "value": css})
        return found[ELEMENT]

    async def type(self, css: str, text: str) -> None:
        await self.command("POST", f"/element/{await self.find(css)}/value", {"text": text})

    async def click(self, css: str) -> None:
        await self.command("POST", f"/element/{await self.find(css)}/click", {})

    async def press(self, key: str) -> None:
        keys = [{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]
        await self.command("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": keys}]})

    async def text(self, css: str) -> str:
        return await self.run("return document.querySelector(arguments[0])?.textContent ?? ''", css)

    async def until(self, css: str, *words: str, within: float = 15) -> str:
        """Wait until an element's text has all these words."""
        deadline = time.monotonic() + within
        while True:
            text = await self.text(css)
            if all(word in text for word in words):
                return text
            assert time.monotonic() < deadline, f"{css} has not {words}: {text[:2000]}"
            await asyncio.sleep(0.05)

    async def size(self, width: int, height: int, dark: bool = False) -> None:
        await self.devtools(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )
        feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.devtools("Emulation.setEmulatedMedia", features=[feature])

    async def devtools(self, name: str, **params: Any) -> Any:
        return await self.command("POST", "/goog/cdp/execute", {"cmd": name, "params": params})

    async def shoot(self, file: Path) -> None:
        """The whole page, beyond the window too."""
        shot = await self.devtools("Page.captureScreenshot", captureBeyondViewport=True)
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(base64.b64decode(shot["data"]))


@asynccontextmanager
async def browser(chromedriver: str, chromium: str, folder: Path) -> AsyncIterator[Browser]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        chromedriver, f"--port={port}", stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as client:
            await _answering(client)
            options = {"binary": chromium, "args": [*FLAGS, f"--user-data-dir={folder}"]}
            asked = {"capabilities": {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": options}}}
            begun = (await client.post("/session", json=asked)).json()["value"]
            assert "sessionId" in begun, begun
            running = Browser(client, begun["sessionId"])
            try:
                yield running
            finally:
                await running.command("DELETE", "")
    finally:
        process.terminate()
        await process.wait()


async def _answering(client: httpx.AsyncClient) -> None:
    for _ in range(200):
        try:
            if (await client.get("/status")).json()["value"]["ready"]:
                return
        except httpx.TransportError:
            await asyncio.sleep(0.05)
    raise AssertionError("chromedriver does not answer within 10 s")
