"""How commands reach a lab that runs in another process: a port on loopback, for whoever can read the lab's folder."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from convergedon.adapters.lab import FLAPS, Lab
from convergedon.core.errors import ConvergedonError, Invalid, Unavailable

FILE = "control.json"
LONGEST = 4_096


class Control:
    """Does what a command asks of the lab; where it is reached stands in a file that only its owner reads."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self._lab, self._file = lab, folder / FILE
        self._token = secrets.token_urlsafe(32)
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", 0, limit=LONGEST)
        told = {"port": self._server.sockets[0].getsockname()[1], "token": self._token}
        _write(self._file, json.dumps(told))

    async def stop(self) -> None:
        self._file.unlink(missing_ok=True)
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            answer = {"done": await self._do(json.loads(await reader.readline()))}
        except ConvergedonError as error:
            answer = {"error": str(error)}
        except (ValueError, TypeError, KeyError):
            answer = {"error": "that is no command of the lab"}
        writer.write(json.dumps(answer).encode() + b"\n")
        writer.close()

    async def _do(self, asked: Mapping[str, Any]) -> str:
        if not secrets.compare_digest(str(asked["token"]), self._token):
            raise Invalid("that is not the token of this lab")
        if asked["command"] == "traffic":
            return self._lab.traffic(str(asked["device"]), float(asked["seconds"]))
        if asked["command"] == "quiet":
            return self._lab.quiet(float(asked["seconds"]))
        turns = int(asked.get("turns", FLAPS))
        return await self._lab.fault(str(asked["device"]), str(asked["kind"]), str(asked["interface"]), turns)


def _write(file: Path, text: str) -> None:
    """Write a file that nobody else could read at any moment."""
    file.unlink(missing_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as written:
        written.write(text)


async def ask(folder: Path, **asked: Any) -> str:
    """Have the lab of a folder do something; its words.

    Raises Unavailable where none runs, Invalid where it refuses.
    """
    try:
        told = json.loads((folder / FILE).read_text(encoding="utf-8"))
        reader, writer = await asyncio.open_connection("127.0.0.1", told["port"])
    except (OSError, ValueError, KeyError) as error:
        raise Unavailable(f"no lab runs on {folder.parent}: start it with convergedon up --lab") from error
    writer.write(json.dumps({**asked, "token": told["token"]}).encode() + b"\n")
    try:
        answer = json.loads(await reader.readline())
    except (OSError, ValueError) as error:
        raise Unavailable("the lab ended before it answered") from error
    finally:
        writer.close()
    if "error" in answer:
        raise Invalid(answer["error"])
    return str(answer["done"])
