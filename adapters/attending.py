"""What commands ask of the adapters that run, over the bus, and what those answer.

A question goes to every adapter process, wherever it runs; each that it is meant for answers for itself. Questions are
sealed as intents are: who can publish on the bus cannot thereby have an adapter do anything.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import asdict, dataclass, field
from time import time
from typing import Any
from uuid import uuid4

import structlog

from convergedon.core.bus import Bus, Message, token
from convergedon.core.errors import ConvergedonError
from convergedon.core.seals import Seals
from convergedon.core.tasks import end

log = structlog.get_logger()

QUESTION = "adapter.asked"
OTHERS = ("gateway", "worker", "command")
"""Roles of processes that are no adapter."""
LONG_AGO = 60.0
"""Seconds after which a question is not answered any more."""


@dataclass(frozen=True)
class Answer:
    """What one adapter process says; ``words`` are for a person, ``told`` is the whole."""

    adapter: str
    process: str
    state: str
    words: str = ""
    told: Mapping[str, Any] = field(default_factory=dict)


Answering = Callable[[str], Awaitable[Answer]]
"""Answers a question, which is health or reload."""


def process_of(role: str) -> str:
    """How a process calls itself, here and among those that follow the policies."""
    return f"{role}@{socket.gethostname()}:{os.getpid()}"


class Attending:
    """Answers what is asked of one adapter process."""

    def __init__(self, bus: Bus, adapter: str, seals: Seals, answering: Answering) -> None:
        self._bus, self._adapter, self._seals, self._answering = bus, adapter, seals, answering
        self._open = AsyncExitStack()

    async def start(self) -> None:
        heard = await self._open.enter_async_context(self._bus.listen(QUESTION))
        task = asyncio.create_task(self._attend(heard))
        self._open.push_async_callback(end, [task])

    async def stop(self) -> None:
        await self._open.aclose()

    async def _attend(self, heard: asyncio.Queue[Message]) -> None:
        while True:
            question = await heard.get()
            try:
                if self._is_for_us(question):
                    await self._answer(question)
            except ConvergedonError as error:
                log.warning("a question was not answered", reason=str(error))
            except Exception:
                log.exception("a question was not answered")

    def _is_for_us(self, question: Message) -> bool:
        if fault := self._seals.fault(question.subject, question.body):
            log.warning("a question that no command asked", reason=fault)
            return False
        body = question.body
        return body["adapter"] in ("", self._adapter) and abs(time() - body["time"]) < LONG_AGO

    async def _answer(self, question: Message) -> None:
        answer = await self._answering(question.body["what"])
        subject = f"adapter.told.{token(question.body['id'])}"
        await self._bus.publish(subject, asdict(answer), f"{question.body['id']}:{answer.process}")


async def ask(
    bus: Bus, seals: Seals, what: str, adapter: str, expected: Sequence[str], patience: float = 10.0
) -> list[Answer]:
    """Ask all processes of an adapter, or of all where it is empty, and wait for their answers.

    ``expected`` are the processes that are known to run: one of them that says nothing is answered for as silent.
    """
    id, found = uuid4().hex, dict[str, Answer]()
    body = {"id": id, "what": what, "adapter": adapter, "time": time()}
    async with bus.listen(f"adapter.told.{id}") as heard:
        await bus.publish(QUESTION, seals.sealed(QUESTION, body), id)
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                while not found.keys() >= set(expected):
                    answer = Answer(**(await heard.get()).body)
                    found[answer.process] = answer
    silent = {
        process: Answer(process.partition("@")[0], process, "silent", "it does not answer") for process in expected
    }
    return [answer for _, answer in sorted((silent | found).items())]
