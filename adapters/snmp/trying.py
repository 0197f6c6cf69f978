"""What recorded notifications would become, and recordings as golden cases: for whoever writes a mapping."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from convergedon.adapters.contract import Device
from convergedon.adapters.intake import LARGEST_DATAGRAM, Datagram
from convergedon.adapters.snmp import adapter, ber
from convergedon.core.errors import Invalid, Misconfigured
from convergedon.core.settings import Settings

LOOPBACK = "127.0.0.1"
COMMUNITY = b"public"


def recorded(file: Path) -> bytes:
    """A datagram from a file: as it was on the wire, or in hexadecimal. Raises Misconfigured."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise Misconfigured(f"{file}: cannot be read: {error.strerror}") from error
    try:
        return bytes.fromhex(data.decode("ascii"))
    except ValueError:
        return data


def meaning(settings: Settings, devices: Mapping[str, Device], data: bytes, source: str = LOOPBACK) -> dict[str, Any]:
    """What a datagram of version 1 or 2c would be told as, without its id and time. Raises Invalid where it is none."""
    try:
        notification = ber.decode(data)
    except ber.Unreadable as error:
        raise Invalid(f"this is no notification of version 1 or 2c: {error}") from error
    listener = adapter.create(settings, devices)
    seen = asdict(listener.meaning(Datagram(data, source, None, 0.0), notification))
    return {name: value for name, value in seen.items() if name not in ("id", "time")}


def heard(settings: Settings, seconds: float) -> Iterator[bytes]:
    """Notifications of version 1 and 2c that arrive at the trap port, for so long. Raises Misconfigured."""
    with socket.socket(socket.AF_INET6 if ":" in settings.trap_host else socket.AF_INET, socket.SOCK_DGRAM) as port:
        try:
            port.bind((settings.trap_host, settings.trap_port))
        except OSError as error:
            where = f"UDP port {settings.trap_port} on {settings.trap_host}"
            raise Misconfigured(f"{where} cannot be listened on ({error.strerror}): an adapter has it?") from error
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            port.settimeout(left)
            try:
                data = port.recv(LARGEST_DATAGRAM)
                yield anonymous(data, ber.decode(data))
            except ber.Unreadable:
                continue
            except TimeoutError:
                return


def anonymous(data: bytes, notification: ber.Notification) -> bytes:
    """The same notification under the community public: the real one is a secret."""
    version = ber.write(ber.INTEGER, notification.version - 1)
    return ber.tlv(ber.SEQUENCE, version + ber.write(ber.OCTETS, COMMUNITY) + data[notification.pdu :])


def record(settings: Settings, devices: Mapping[str, Device], folder: Path, packets: list[bytes]) -> None:
    """Write a golden case: what came in, and what it became; the folder is a new one. Raises Misconfigured."""
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise Misconfigured(f"{folder}: cannot be made: {error.strerror}") from error
    observations = [meaning(settings, devices, packet) for packet in packets]
    for name, found in (("packets", [packet.hex() for packet in packets]), ("observations", observations)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(found, sort_keys=False, allow_unicode=True))
