"""The lab: simulated network elements for trying out, all on loopback."""

from __future__ import annotations

from pathlib import Path

import yaml

from convergedon.adapters.netconf.lab import Element

ELEMENTS = {"pe1": "acme", "pe2": "acme", "pe3": "globex"}
INTERFACES = {"ge-0/0/1": 1000, "ge-0/0/2": 1000}
"""Interface name -> capacity in Mbit/s; its ifIndex is its place, from 1."""


def address(element: str) -> str:
    """The management address that an element's traps name."""
    return f"127.0.10.{list(ELEMENTS).index(element) + 1}"


def domain(element: str) -> int:
    """The observation domain by which an element's flow records are told from the others'."""
    return list(ELEMENTS).index(element) + 1


class Lab:
    """The elements, which keep configuration, keys and ports in the folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._elements = {name: Element(name, folder / name, INTERFACES) for name in ELEMENTS}

    async def start(self) -> Path:
        """Start all elements; returns the devices file that describes them."""
        devices = {}
        for name, element in self._elements.items():
            await element.start()
            entry = element.device_entry()
            devices[name] = {
                "tenant": ELEMENTS[name],
                "address": address(name),
                "netconf": entry["netconf"],
                "snmp": {"interfaces": dict(enumerate(INTERFACES, 1))},
                "flow": {"observationDomain": domain(name)},
            }
        file = self._folder / "devices.yaml"
        file.write_text(yaml.safe_dump({"devices": devices}, sort_keys=False))
        file.chmod(0o600)
        return file

    async def stop(self) -> None:
        for element in self._elements.values():
            await element.stop()
