"""Devices asked past the gateway, by a plain NETCONF session: what our own adapter believes of them does not count."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lxml import etree  # type: ignore[import-untyped]
from ncclient import manager  # type: ignore[import-untyped]

PATIENCE = 10.0


def session(reach: Mapping[str, Any], patience: float = PATIENCE) -> Any:
    """A session, to be used as a context, with the device whose netconf settings these are."""
    return manager.connect(
        host=reach["host"],
        port=reach["port"],
        username=reach["username"],
        password=reach.get("password"),
        key_filename=reach.get("keyFile"),
        hostkey_b64=reach["hostKey"],
        allow_agent=False,
        look_for_keys=False,
        timeout=patience,
    )


def accesses(found: etree._Element) -> dict[str, dict[str, str]]:
    """name -> leaf -> text, of each access in what a device answered."""
    entries = [{etree.QName(leaf).localname: leaf.text or "" for leaf in entry} for entry in found.iter("{*}access")]
    return {entry["name"]: entry for entry in entries}
