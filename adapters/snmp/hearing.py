"""Notifications that arrive at the trap port while no adapter has it, for golden cases.

A sender of informs is told our engine, and answered once what it said is recorded: what is sent again until then is one
notification, and one whose answer was lost is answered again.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

from convergedon.adapters.contract import Device
from convergedon.adapters.intake import LARGEST_DATAGRAM, address
from convergedon.adapters.snmp import ber, usm
from convergedon.adapters.snmp.adapter import ENGINE_FILE
from convergedon.adapters.snmp.trying import Packet, Reader
from convergedon.core.errors import Invalid, Misconfigured
from convergedon.core.settings import Settings

Said = tuple[str, int, str]
"""By whom, the number of the request, and its varbinds: of version 3 each try is encrypted anew."""


@dataclass(frozen=True)
class Inform:
    """What is answered, to whom, and how it is known when it is sent again."""

    answer: bytes
    peer: Any
    said: Said


class Ear:
    """The trap port, open. Raises Misconfigured where it cannot be."""

    def __init__(self, settings: Settings, devices: Mapping[str, Device]) -> None:
        users = usm.users(devices.values())
        self._reader, self._settings = Reader(settings, devices), settings
        self._gate = usm.Usm(users, usm.own_engine(settings.data / ENGINE_FILE)) if users else None
        self._answered: set[Said] = set()

    def __enter__(self) -> Self:
        host, number = self._settings.trap_host, self._settings.trap_port
        self._port = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self._port.bind((host, number))
        except OSError as error:
            self._port.close()
            where = f"UDP port {number} on {host}"
            raise Misconfigured(f"{where} cannot be listened on ({error.strerror}): an adapter has it?") from error
        return self

    def __exit__(self, *_: object) -> None:
        self._port.close()

    def heard(self, seconds: float, count: int) -> Iterator[Packet]:
        """So many that arrive within so long, under the community public.

        Whoever goes on to the next, or to the end, has made this one safe.
        """
        end = time.monotonic() + seconds
        while count and (left := end - time.monotonic()) > 0:
            self._port.settimeout(left)
            try:
                data, peer = self._port.recvfrom(LARGEST_DATAGRAM)
                inform = self._inform(data, peer)
                packet = self._reader.anonymous(Packet(data, address(peer[0])))
            except TimeoutError:
                return
            except Invalid:
                continue
            if inform is None or inform.said not in self._answered:
                count -= 1
                yield packet
            if inform is not None:
                self._answered.add(inform.said)
                self._send(inform.answer, peer)

    def _inform(self, data: bytes, peer: Any) -> Inform | None:
        """None of what waits for no answer. Raises Invalid for one whose sender has to learn something first."""
        with suppress(ber.Unreadable):
            notification = ber.decode(data)
            return _known(notification, ber.answer(data, notification), peer) if notification.inform else None
        if self._gate is None:
            return None
        try:
            secured = self._gate.read(data)
        except usm.Refused as refused:
            if not refused.report:
                return None  # a trap may be as old as it is
            self._send(refused.report, peer)
            raise
        found = secured.notification
        return _known(found, self._gate.answer(secured), peer) if found.inform else None

    def _send(self, data: bytes, peer: Any) -> None:
        with suppress(OSError):  # it will ask again
            self._port.sendto(data, peer)


def _known(notification: ber.Notification, answer: bytes, peer: Any) -> Inform:
    return Inform(answer, peer, (address(peer[0]), notification.request, repr(notification.varbinds)))
