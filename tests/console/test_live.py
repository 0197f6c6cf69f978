"""The event stream, over a real socket."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
import pytest
from twins import Place, form_of, listening, log_in

from convergedon.handlers.console import live


@asynccontextmanager
async def served(place: Place) -> AsyncIterator[httpx.AsyncClient]:
    async with listening(place.application) as url, httpx.AsyncClient(base_url=url, timeout=10) as client:
        yield client


@dataclass
class Stream:
    lines: AsyncIterator[str]
    status: int
    type: str

    async def until(self, start: str) -> str:
        async for line in self.lines:
            if line.startswith(start):
                return line
        raise AssertionError(f"the stream ended without {start}")

    async def ended(self) -> bool:
        async for _ in self.lines:
            pass
        return True


@asynccontextmanager
async def watching(client: httpx.AsyncClient) -> AsyncIterator[Stream]:
    async with client.stream("GET", "/console/live") as answer:
        stream = Stream(answer.aiter_lines(), answer.status_code, answer.headers.get("content-type", ""))
        if answer.status_code == 200:
            await stream.until(": from now on")
            await asyncio.sleep(0.05)
        yield stream


async def tell(place: Place, tenant: str, kind: str = "productOrder", id: str = "1") -> None:
    body = {"tenant": tenant, "kind": kind, "id": id}
    await place.bus.publish(f"event.1.{tenant}.ChangeEvent", body, f"{tenant}{kind}{id}")


async def test_without_a_session_there_is_no_stream(place: Place) -> None:
    async with served(place) as client, watching(client) as stream:
        assert stream.status == 401


async def test_a_forged_cookie_is_no_session(place: Place) -> None:
    async with served(place) as client:
        client.cookies.set("convergedon_console", "eyJpZCI6ImEifQ.aaaaaa.bbbbbbbbbbbbbbbbbbbbbbbbbbb")
        async with watching(client) as stream:
            assert stream.status == 401


async def test_what_happens_is_told_to_its_tenant_alone(place: Place) -> None:
    async with served(place) as client:
        await log_in(client, place.token())
        async with watching(client) as stream:
            await tell(place, "globex", id="2")
            await tell(place, "acme")
            line = await stream.until("data:")

    assert stream.type.startswith("text/event-stream")
    assert json.loads(line.removeprefix("data:")) == ["figures", "orders", "productOrder/1"]


async def test_a_quiet_stream_shows_that_it_lives(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "HEARTBEAT", 0.1)
    async with served(place) as client:
        await log_in(client, place.token())
        async with watching(client) as stream:
            beat = await stream.until(": still")

    assert beat == ": still here"


async def test_the_stream_ends_before_the_gateway_does(place: Place) -> None:
    async with served(place) as client:
        await log_in(client, place.token())
        async with watching(client) as stream:
            place.stopping.set()

            assert await asyncio.wait_for(stream.ended(), 2)


async def test_the_stream_ends_with_its_session(place: Place) -> None:
    async with served(place) as client:
        await log_in(client, place.token())
        form = form_of(await client.get("/console/"))
        async with watching(client) as stream:
            await client.post("/console/logout", data={"form": form})

            assert await asyncio.wait_for(stream.ended(), 2)


async def test_a_client_that_goes_leaves_nothing(place: Place) -> None:
    async with served(place) as client:
        await log_in(client, place.token())
        async with watching(client):
            during = len(place.bus._listeners)
        for _ in range(100):
            if not place.bus._listeners:
                break
            await asyncio.sleep(0.02)

    assert during == 2
    assert not place.bus._listeners
