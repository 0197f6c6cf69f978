"""Devices that call home (RFC 8071): they connect to us, and are spoken to over that connection as over our own.

A device is known by the host key that it proves to have, wherever it calls from: behind one address there may be many.
What it opens waits for whoever has something to say to it.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import queue
import socket
import struct
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from time import monotonic
from typing import Literal

import paramiko  # type: ignore[import-untyped]
import structlog

from convergedon.core import metrics
from convergedon.core.errors import Misconfigured
from convergedon.core.tasks import end

LINKS = 2
"""Connections of one device that wait: for its intents, and for what it tells by itself."""
AT_ONCE = 16
"""Callers whose key is not known yet; who calls on top has to call again."""
PATIENCE = 10.0
"""Seconds in which a caller has to have shown its key."""
REMEMBERED = 1_000
"""Addresses of which it is remembered how often they were not known."""
RSA = ("rsa-sha2-512", "rsa-sha2-256")

log = structlog.get_logger()

Refusal = Literal["hostKey", "busy", "ssh"]
"""No device has its key, too many call at once, or it is no SSH server."""


class Calls:
    """Listens for calls. ``devices`` are those that call, by their host keys; ``called`` is told when one has."""

    def __init__(
        self, adapter: str, host: str, port: int, devices: Mapping[str, str], called: Callable[[str], None]
    ) -> None:
        self._adapter, self._place, self._devices, self._called = adapter, (host, port), devices, called
        self._waiting = {name: queue.Queue[paramiko.Transport | None](LINKS) for name in devices.values()}
        self._socket: socket.socket | None = None
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="netconf-called")
        self._asked: dict[asyncio.Task[None], socket.socket] = {}
        self._unknown: OrderedDict[str, int] = OrderedDict()
        self.refused: Counter[Refusal] = Counter()

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

    async def stop(self) -> None:
        """Listen no more, and let nobody wait for a call any more."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None
        for waiting in self._waiting.values():
            _emptied(waiting)
            for _ in range(LINKS):
                waiting.put_nowait(None)
        for link in self._asked.values():
            _shut(link)
        await end(self._asked)
        self._threads.shutdown(wait=False)

    def health(self) -> Mapping[str, object]:
        return {"refused": dict(self.refused)}

    def link(self, device: str, within: float) -> paramiko.Transport:
        """A connection that the device has opened and proved to be its own. Raises TimeoutError when it opens none."""
        until, waiting = monotonic() + within, self._waiting[device]
        with suppress(queue.Empty):
            while (link := waiting.get(timeout=max(0.0, until - monotonic()))) is not None:
                if link.is_active():
                    return link
                link.close()  # it hung up while it waited
        raise TimeoutError("it has not called")

    def _accept(self, listening: socket.socket) -> None:
        try:
            link, (address, *_) = listening.accept()
        except OSError:
            return  # it has gone again
        if len(self._asked) >= AT_ONCE:
            link.close()
            self._refuse("busy", address)
            return
        link.setblocking(True)
        task = asyncio.create_task(self._know(link, address))
        self._asked[task] = link
        task.add_done_callback(self._asked.pop)

    async def _know(self, link: socket.socket, address: str) -> None:
        """Find out who has called, and have the connection wait for whoever speaks to it."""
        wanted = self._wanted(address)
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._threads, _met, link, wanted)
        except (paramiko.SSHException, OSError, EOFError) as error:
            link.close()
            self._refuse("ssh", address, reason=" ".join(str(error).split())[:200] or type(error).__name__)
            return
        key = found.get_remote_server_key()
        device = self._devices.get(key.get_base64())
        if device is None or self._socket is None:
            found.close()
            if device is None:
                self._doubt(address)
                digest = base64.b64encode(hashlib.sha256(key.asbytes()).digest()).decode().rstrip("=")
                shown = {"kind": key.get_name(), "fingerprint": f"SHA256:{digest}", "hostKey": key.get_base64()}
                self._refuse("hostKey", address, **shown)
            return
        waiting = self._waiting[device]
        if waiting.full():
            _emptied(waiting)  # their device has given them up, or it would not call again
        waiting.put_nowait(found)
        self._called(device)

    def _wanted(self, address: str) -> list[str]:
        """The kinds of keys to be shown, the one that is wanted most first.

        A device may have keys of several kinds, of which we know one: who was not known is asked for another next time.
        """
        kinds = list(dict.fromkeys(kind_of(key) for key in self._devices))
        turn = self._unknown.get(address, 0) % len(kinds)
        return [name for kind in kinds[turn:] + kinds[:turn] for name in (RSA if kind == "ssh-rsa" else (kind,))]

    def _doubt(self, address: str) -> None:
        self._unknown[address] = self._unknown.get(address, 0) + 1
        self._unknown.move_to_end(address)
        if len(self._unknown) > REMEMBERED:
            self._unknown.popitem(last=False)

    def _refuse(self, why: Refusal, address: str, **shown: str) -> None:
        self.refused[why] += 1
        metrics.DROPPED.labels(self._adapter, f"call home: {why}").inc()
        count = self.refused[why]
        if count & (count - 1) == 0:  # the first, second, fourth, eighth ...
            log.warning(REFUSED[why], address=address, times=count, **shown)


REFUSED: Mapping[Refusal, str] = {
    "hostKey": "a call home with a host key that no device has",
    "busy": "a call home while too many others are not known yet",
    "ssh": "a call home of something that is no SSH server",
}


def kind_of(key: str) -> str:
    """Of a host key in base64; a name of the SSH protocol."""
    raw = base64.b64decode(key)
    (size,) = struct.unpack_from("!I", raw)
    return raw[4 : 4 + size].decode()


def _met(link: socket.socket, wanted: Iterable[str]) -> paramiko.Transport:
    """Be the client of who has called, until it has proved to have its host key: nothing is said of us yet."""
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    bound = threading.Timer(PATIENCE, _shut, [link])
    bound.daemon = True
    bound.start()
    found = None
    try:
        found = paramiko.Transport(link)
        found.get_security_options().key_types = list(wanted)
        found.start_client(timeout=PATIENCE)
        found.get_remote_server_key()
    except BaseException:
        if found is not None:
            found.close()
        raise
    finally:
        bound.cancel()
    return found


def _emptied(waiting: queue.Queue[paramiko.Transport | None]) -> None:
    while not waiting.empty():
        if link := waiting.get_nowait():
            link.close()


def _shut(link: socket.socket) -> None:
    with suppress(OSError):  # it is closed already
        link.shutdown(socket.SHUT_RDWR)
