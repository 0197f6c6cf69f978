"""Which engine answers SNMP version 3 at an address: whether there is anybody, whoever may ask it for more."""

from __future__ import annotations

import asyncio
import secrets

from convergedon.adapters.snmp import usm


async def engine(where: tuple[str, int], patience: float) -> bytes:
    """The engine's id; empty when nothing answers."""
    loop, message = asyncio.get_running_loop(), secrets.randbelow(2**31)
    try:
        transport, heard = await loop.create_datagram_endpoint(lambda: _Heard(message), remote_addr=where)
    except OSError:
        return b""
    try:
        transport.sendto(usm.question(message))
        return await asyncio.wait_for(heard.engine, patience)
    except TimeoutError:
        return b""
    finally:
        transport.close()


class _Heard(asyncio.DatagramProtocol):
    def __init__(self, message: int) -> None:
        self._message = message
        self.engine: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: object) -> None:
        if not self.engine.done() and (found := usm.engine_in(data, self._message)):
            self.engine.set_result(found)
