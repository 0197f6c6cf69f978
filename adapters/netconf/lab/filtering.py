"""Subtree filters (RFC 6241, 6)."""

from __future__ import annotations

import copy

from lxml import etree  # type: ignore[import-untyped]

from convergedon.adapters.netconf.lab.messages import KEYS, NC, RpcError


def filtered(stored: etree._Element, chosen: etree._Element | None) -> etree._Element:
    found = etree.Element(f"{{{NC}}}data")
    if chosen is None:
        found.extend(copy.deepcopy(child) for child in stored)
        return found
    if chosen.get("type", "subtree") != "subtree":
        raise RpcError("operation-not-supported", "only subtree filters are known here", type_="protocol")
    for child in stored:
        selected = [
            match for part in chosen.iterchildren(tag=etree.Element) if (match := _select(part, child)) is not None
        ]
        if selected:
            found.append(_union(selected))
    return found


def _select(part: etree._Element, node: etree._Element) -> etree._Element | None:
    if not _names(part, node):
        return None
    tests = [child for child in part if not len(child) and (child.text or "").strip()]
    others = [child for child in part if child not in tests]
    for test in tests:
        if not any(_names(test, leaf) and (leaf.text or "").strip() == test.text.strip() for leaf in node):
            return None
    if not others:
        return copy.deepcopy(node)
    picked = etree.Element(node.tag, nsmap=node.nsmap)
    key = KEYS.get(node.tag)
    some = False
    for leaf in node:
        selected = [match for other in others if (match := _select(other, leaf)) is not None]
        if selected:
            picked.append(_union(selected))
            some = True
        elif leaf.tag == key or any(_names(test, leaf) for test in tests):
            picked.append(copy.deepcopy(leaf))
    return picked if some or tests else None


def _union(selected: list[etree._Element]) -> etree._Element:
    """Join what several parts of a filter selected of one node."""
    first = selected[0]
    for other in selected[1:]:
        held = {etree.tostring(child) for child in first}
        first.extend(child for child in list(other) if etree.tostring(child) not in held)
    return first


def _names(part: etree._Element, node: etree._Element) -> bool:
    wanted, found = etree.QName(part), etree.QName(node)
    return bool(wanted.localname == found.localname and wanted.namespace in (None, NC, found.namespace))
