"""What recorded notifications would become, and recordings as golden cases: for whoever writes a mapping."""

from __future__ import annotations

import os
from collections.abc import Container, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from convergedon.adapters.contract import Device, Observation
from convergedon.adapters.intake import Datagram
from convergedon.adapters.snmp import adapter, ber, capture, recording, usm
from convergedon.adapters.snmp.asking import Engines, Peer
from convergedon.core.errors import Invalid, Misconfigured
from convergedon.core.settings import Settings

LOOPBACK = "127.0.0.1"
CALLED = "device-1"
"""What a recorded device is called, whatever its name is."""
COMMUNITY = b"public"
PORTS = frozenset({162, 1162})
"""Where traps are expected in a capture, unless other ports are named: the standard's port, and ours."""


@dataclass(frozen=True)
class Packet:
    """What was sent, and by whom."""

    data: bytes
    source: str


def recorded(file: Path, source: str = LOOPBACK, ports: Container[int] = PORTS) -> list[Packet]:
    """The datagrams of a file: a capture, one as it was on the wire, or in hexadecimal. Raises Misconfigured."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise Misconfigured(f"{file}: cannot be read: {error.strerror}") from error
    if capture.is_capture(data):
        try:
            found = [Packet(one.data, one.source) for one in capture.datagrams(data, ports)]
        except Invalid as error:
            raise Misconfigured(f"{file}: {error}") from None
        if not found:
            raise Misconfigured(f"{file}: no datagram in it is for the ports that traps are expected at")
        return found
    with suppress(ValueError):
        data = bytes.fromhex(data.decode("ascii"))
    return [Packet(data, source)]


class Reader:
    """Reads notifications as the adapter would, by its mapping, devices and users; of version 3, too.

    What came long ago is not fresh any more, and is read all the same.
    """

    def __init__(self, settings: Settings, devices: Mapping[str, Device]) -> None:
        self._listener = adapter.create(settings, devices)
        self._users = usm.users(devices.values())

    def meaning(self, packet: Packet) -> dict[str, Any]:
        """What a datagram would be told as, without its id and time. Raises Invalid where it is no notification."""
        seen = asdict(self._seen(packet))
        return {name: value for name, value in seen.items() if name not in ("id", "time")}

    def anonymous(self, packet: Packet) -> Packet:
        """The same of version 2c under the community public: community and keys are secrets. Raises Invalid."""
        notification, _ = self._read(packet)
        if notification.version == 3:
            return Packet(ber.encode(COMMUNITY, notification.varbinds, request=0), packet.source)
        return Packet(anonymous(packet.data, notification), packet.source)

    def _seen(self, packet: Packet) -> Observation:
        notification, user = self._read(packet)
        return self._listener.meaning(Datagram(packet.data, packet.source, None, 0.0), notification, user)

    def _read(self, packet: Packet) -> tuple[ber.Notification, usm.User | None]:
        try:
            return ber.decode(packet.data), None
        except ber.Unreadable as error:
            if error.drop != "version":
                raise Invalid(f"this is no notification: {error}") from error
        try:
            secured = usm.Replay(self._users).read(packet.data)
        except usm.Refused as error:
            raise Invalid(f"this notification of version 3 cannot be read: {error}") from error
        return secured.notification, secured.user


def anonymous(data: bytes, notification: ber.Notification) -> bytes:
    """The same notification under the community public."""
    version = ber.write(ber.INTEGER, notification.version - 1)
    return ber.tlv(ber.SEQUENCE, version + ber.write(ber.OCTETS, COMMUNITY) + data[notification.pdu :])


class Case:
    """A golden case in a new folder: what came in, and what it became. Raises Misconfigured where it is none."""

    def __init__(self, reader: Reader, folder: Path) -> None:
        if folder.exists():
            raise Misconfigured(f"{folder}: is there already; a case has a folder of its own")
        self._reader, self._folder = reader, folder
        self._packets: list[str] = []
        self._observations: list[dict[str, Any]] = []

    def add(self, packet: Packet) -> None:
        """It is safe on the disk when this returns. Raises Misconfigured."""
        if not self._packets:
            self._begin()
        self._observations.append(self._reader.meaning(Packet(packet.data, LOOPBACK)))
        self._packets.append(packet.data.hex())
        _write(self._folder / "packets.yaml", self._packets)
        _write(self._folder / "observations.yaml", self._observations)

    def _begin(self) -> None:
        try:
            self._folder.mkdir(parents=True)
        except OSError as error:
            raise Misconfigured(f"{self._folder}: cannot be made: {error.strerror}") from error


def _write(file: Path, found: object) -> None:
    try:
        with file.open("w", encoding="utf-8") as written:
            yaml.safe_dump(found, written, sort_keys=False, allow_unicode=True)
            written.flush()
            os.fsync(written.fileno())
    except OSError as error:
        raise Misconfigured(f"{file}: cannot be written: {error.strerror}") from error


async def walked(devices: Mapping[str, Device], name: str, folder: Path, seconds: float) -> str:
    """Record a device into walk.yaml of a folder, for an agent to answer from; what was done. Raises Misconfigured."""
    if name not in devices:
        raise Misconfigured(f"there is no device {name} in the devices file (CONVERGEDON_DEVICES)")
    engines = Engines()
    try:
        found = await recording.record(Peer(engines, devices[name]), seconds, CALLED)
    finally:
        engines.close()
    recording.write(found, folder / "walk.yaml")
    return f"{len(found.values)} values of {name} are in {folder / 'walk.yaml'}: read it before you show it to others"
