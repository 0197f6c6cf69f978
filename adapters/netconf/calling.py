"""Devices that call home (RFC 8071): they connect to us, and are spoken to over that connection as over our own.

A device is known by the address that it calls from, and proves itself by its host key as any other. What it opens waits
for whoever has something to say to it.
"""

from __future__ import annotations

import asyncio
import queue
import socket
from collections.abc import Callable, Mapping

import structlog

from convergedon.core.errors import Misconfigured

LINKS = 2
"""Connections of one device that wait: for its intents, and for what it tells by itself."""

log = structlog.get_logger()


class Calls:
    """Listens for calls. ``devices`` are those that call, by their address; ``called`` is told when one has."""

    def __init__(self, host: str, port: int, devices: Mapping[str, str], called: Callable[[str], None]) -> None:
        self._place, self._devices, self._called = (host, port), devices, called
        self._waiting = {name: queue.Queue[socket.socket | None](LINKS) for name in devices.values()}
        self._socket: socket.socket | None = None
        self.strangers = 0

    def start(self) -> str:
        """Listen; where. Raises Misconfigured."""
        host, port = self._place
        listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # who was read again begins before we end
            listening.bind((host, port))
            listening.listen()
        except OSError as error:
            listening.close()
            raise Misconfigured(
                f"NETCONF devices cannot call home to {host} port {port} (CONVERGEDON_CALL_HOME_PORT): {error.strerror}"
            ) from error
        listening.setblocking(False)
        asyncio.get_running_loop().add_reader(listening, self._accept, listening)
        self._socket = listening
        host, port = listening.getsockname()[:2]
        return f"{host}:{port}"

    def stop(self) -> None:
        """Listen no more, and let nobody wait for a call any more."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None
        for waiting in self._waiting.values():
            _emptied(waiting)
            for _ in range(LINKS):
                waiting.put_nowait(None)

    def link(self, device: str, within: float) -> socket.socket:
        """A connection that the device has opened. Raises TimeoutError when it opens none."""
        try:
            link = self._waiting[device].get(timeout=within)
        except queue.Empty:
            link = None
        if link is None:
            raise TimeoutError("it has not called")
        return link

    def _accept(self, listening: socket.socket) -> None:
        try:
            link, (address, *_) = listening.accept()
        except OSError:
            return  # it has gone again
        device = self._devices.get(address)
        if device is None:
            self._refuse(link, address)
            return
        link.setblocking(True)
        waiting = self._waiting[device]
        if waiting.full():
            _emptied(waiting)  # their device has given them up, or it would not call again
        waiting.put_nowait(link)
        self._called(device)

    def _refuse(self, link: socket.socket, address: str) -> None:
        link.close()
        self.strangers += 1
        if self.strangers & (self.strangers - 1) == 0:  # the first, second, fourth, eighth ...
            log.warning("a call home of no device that we know", address=address, strangers=self.strangers)


def _emptied(waiting: queue.Queue[socket.socket | None]) -> None:
    while not waiting.empty():
        if link := waiting.get_nowait():
            link.close()
