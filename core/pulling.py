"""What a durable consumer is given: asked for many at a time, so that a message needs no request of its own.

The server has one message of a consumer under way at a time, so it gives the next when the one before is acknowledged,
to whichever process has asked. (NATS JetStream API, CONSUMER.MSG.NEXT)
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from time import monotonic

import orjson
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError
from nats.errors import TimeoutError as NatsTimeout
from nats.js.api import ConsumerConfig, ConsumerInfo, DeliverPolicy
from nats.js.client import JetStreamContext
from nats.js.errors import NotFoundError

AT_ONCE = 64
"""Messages that are asked for by one request."""
EXPIRES = 5.0
"""Seconds for which a request waits at the server."""
GRACE = 1.0
"""And for which its end may be late."""
OVER = ("404", "408")
"""How the server says that a request has expired, and that is all."""
ALIVE = "100"
WORDS = {"503": "JetStream or this consumer is not there"}
"""What is meant by those that come without a description."""


class Pull:
    """What one process is given of one durable consumer, message by message."""

    def __init__(
        self,
        client: Client,
        stream: JetStreamContext,
        name: str,
        config: ConsumerConfig,
        place: Callable[[ConsumerInfo | None], Awaitable[int]] | None = None,
    ) -> None:
        """``place`` is asked up to where all was done, of a consumer whose place the server keeps in memory alone: when
        it is made, and with what it was when it was none of that kind before.
        """
        self._client, self._stream, self._name, self._config = client, stream, name, config
        self._place = place
        self._given: asyncio.Queue[Msg] = asyncio.Queue()
        self._subscription: Subscription | None = None
        self._left, self._until = 0, 0.0

    async def next(self) -> Msg:
        """The next message. Raises NatsTimeout when there is none for some seconds, NatsError and OSError."""
        if self._subscription is None:
            await self._open()
        if not self._left or monotonic() > self._until:
            await self._ask()
        async with asyncio.timeout(EXPIRES + GRACE):
            while status := _status(received := await self._given.get()):
                if status == ALIVE:
                    continue
                self._left = 0
                if status in OVER:
                    raise NatsTimeout
                described = (received.headers or {}).get("Description", "")
                raise NatsError(f"the server gives nothing: {WORDS.get(status) or described or status}")
        self._left -= 1
        return received

    def again(self) -> None:
        """The connection was lost and is there again: the server has forgotten what it was asked for."""
        self._given.put_nowait(Msg(self._client, headers={"Status": OVER[0]}))

    @property
    def given(self) -> int:
        """How many are given and not taken."""
        return self._given.qsize()

    async def close(self) -> None:
        """What was given and not taken goes back at once, for others."""
        if self._subscription is None:
            return
        subscription, self._subscription, self._left = self._subscription, None, 0
        with contextlib.suppress(NatsError, OSError):
            await subscription.unsubscribe()
            while not self._given.empty():
                received = self._given.get_nowait()
                if not _status(received):
                    await received.nak()

    async def _open(self) -> None:
        """Make the consumer, unless it is there as it was made before."""
        name = str(self._config.durable_name)
        try:
            there = await self._stream.consumer_info(self._name, name)
        except NotFoundError:
            await self._make()
        else:
            if self._config.mem_storage and not there.config.mem_storage and not there.num_ack_pending:
                await self._make_anew(there)
        self._inbox = self._client.new_inbox()
        self._subscription = await self._client.subscribe(self._inbox, cb=self._give)

    async def _make(self, before: ConsumerInfo | None = None) -> None:
        place = await self._place(before) if self._place else 0
        config = self._config
        if place:
            config = config.evolve(deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=place + 1)
        await self._stream.add_consumer(self._name, config)

    async def _make_anew(self, before: ConsumerInfo) -> None:
        """One of an earlier build, of which the server kept the place in a file."""
        if self._place:
            await self._place(before)
        await self._stream.delete_consumer(self._name, str(self._config.durable_name))
        await self._make(before)

    async def _give(self, received: Msg) -> None:
        self._given.put_nowait(received)

    async def _ask(self) -> None:
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._name}.{self._config.durable_name}"
        wish = orjson.dumps({"batch": AT_ONCE, "expires": int(EXPIRES * 1e9)})
        self._left, self._until = AT_ONCE, monotonic() + EXPIRES + GRACE
        await self._client.publish(subject, wish, reply=self._inbox)


def _status(received: Msg) -> str:
    """What the server says instead of giving a message."""
    return "" if received.reply else str((received.headers or {}).get("Status", ""))
