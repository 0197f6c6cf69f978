"""Shelves of ports that speak a line protocol over TCP: a request is a line, and so is its answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, unquote

from convergedon.adapters import inventory
from convergedon.adapters.contract import Capability, Device, Intent, Report, Rpc, State, tell
from convergedon.adapters.readandset import ReadAndSet
from convergedon.core.errors import Misconfigured, OutcomeUnknown, Refused, Unreachable
from convergedon.core.settings import Settings

PATIENCE = 2.0


def create(settings: Settings, devices: Mapping[str, Device]) -> ShelfAdapter:
    """Called once, and again when the devices file is read again; it opens nothing."""
    mine = [device for device in devices.values() if "shelf" in device.settings]
    return ShelfAdapter({device.name: _place(settings, device) for device in mine})


def _place(settings: Settings, device: Device) -> tuple[str, int]:
    port = device.settings["shelf"].get("port")
    if not isinstance(port, int):
        raise Misconfigured(f"{inventory.where(settings, device.name, 'shelf', 'port')}: must be a number")
    return device.address, port


class ShelfAdapter(ReadAndSet):
    """A service is a port of the shelf, by the name of its instance; its values are the port's."""

    name = "shelf"

    def __init__(self, places: Mapping[str, tuple[str, int]]) -> None:
        super().__init__()
        self._places = places

    async def start(self, report: Report) -> Sequence[str]:
        return []

    async def stop(self) -> None:
        return None

    async def health(self) -> Mapping[str, Any]:
        return {"state": "ready", "shelves": len(self._places)}

    async def capabilities(self, device: str) -> frozenset[Capability]:
        await self._ask(device, "hello")
        return self.offers

    async def observe(self, intent: Intent) -> State:
        answer = await self._ask(intent.device, f"get {_word(intent.instance)}")
        if answer == "none":
            return None
        pairs = (pair.partition("=") for pair in answer.split()[1:])
        return {unquote(name): int(value) for name, _, value in pairs}

    async def set(self, intent: Intent, state: State) -> None:
        port = _word(intent.instance)
        if state is None:
            await self._ask(intent.device, f"drop {port}")
            return
        if wrong := [name for name, value in state.items() if type(value) is not int]:
            raise Refused(f"{intent.device}: {', '.join(wrong)} must be a whole number")
        pairs = " ".join(f"{_word(name)}={value}" for name, value in state.items())
        await self._ask(intent.device, f"set {port} {pairs}")

    async def _ask(self, device: str, line: str) -> str:
        """One request, which the audit record is told of. Raises Refused with the shelf's words."""
        if device not in self._places:
            raise Refused(f"no device {device} with shelf settings")
        begun, verb = time.perf_counter(), line.partition(" ")[0]
        try:
            answer = await self._answer(device, line)
        except BaseException:
            tell(Rpc(device, verb, "failed", time.perf_counter() - begun))
            raise
        refused = answer.startswith("error ")
        tell(Rpc(device, verb, "refused" if refused else "done", time.perf_counter() - begun))
        if refused:
            raise Refused(f"{device}: {answer.removeprefix('error ')}")
        return answer

    async def _answer(self, device: str, line: str) -> str:
        """Raises Unreachable before anything was sent, OutcomeUnknown when no whole line came back."""
        try:
            async with asyncio.timeout(PATIENCE):
                reader, writer = await asyncio.open_connection(*self._places[device])
        except (OSError, TimeoutError) as error:
            raise Unreachable(f"{device} cannot be reached: {error or 'no answer'}") from error
        try:
            async with asyncio.timeout(PATIENCE):
                writer.write(f"{line}\n".encode())
                answer = await reader.readuntil(b"\n")
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            raise OutcomeUnknown(f"{device} did not answer {line.partition(' ')[0]}") from error
        finally:
            writer.transport.abort()
        return answer.decode(errors="replace").strip()


def _word(name: str) -> str:
    """A name as one word of the protocol."""
    return quote(name, safe="") or "%"
