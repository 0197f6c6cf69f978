"""Calls as they are written, and the answers to them (RFC 6241).

ncclient's own operations look up capabilities, convert and parse several times for each call: measured, half of the CPU
time of a change. Its session is used as it is, and these in place of its operations.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

from lxml import etree  # type: ignore[import-untyped]
from ncclient.operations import RPCError, TimeoutExpiredError  # type: ignore[import-untyped]
from ncclient.transport.session import SessionListener  # type: ignore[import-untyped]

BASE = "urn:ietf:params:xml:ns:netconf:base:1.0"
NOTIFICATION = "urn:ietf:params:xml:ns:netconf:notification:1.0"
STREAMS = "urn:ietf:params:xml:ns:netmod:notification"
STREAM = "NETCONF"
REPLY = f"{{{BASE}}}rpc-reply"
DATASTORES = frozenset({"source", "target"})


class Answer:
    """What a device answered. Raises etree.LxmlError where that is no XML."""

    def __init__(self, raw: str) -> None:
        self._root = etree.fromstring(raw.encode(), etree.XMLParser(resolve_entities=False, no_network=True))
        self.data_ele = self._root.find(f"{{{BASE}}}data")
        """What was read, where something was."""
        found = [RPCError(error) for error in self._root.iter(f"{{{BASE}}}rpc-error")]
        self.errors = [error for error in found if error.severity != "warning"]


class Answers(SessionListener):  # type: ignore[misc]
    """Hands the answer to the one call that is under way, and the end of the session too."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self._number = ""
        self._raw = ""
        self._lost: Exception | None = None
        self._answered = threading.Event()

    def ask(self, write: Callable[[bytes], None], operation: etree._Element, within: float) -> Answer:
        """Write a call and wait for its answer. Raises what the session raises, and TimeoutExpiredError."""
        self._number = str(next(self._numbers))
        self._answered.clear()
        call = etree.Element(f"{{{BASE}}}rpc", {"message-id": self._number}, nsmap={None: BASE})
        call.append(operation)
        if self._lost:
            raise self._lost
        write(etree.tostring(call, xml_declaration=True, encoding="UTF-8"))
        if not self._answered.wait(within):
            raise TimeoutExpiredError("in time there was none")
        if not self._raw and self._lost:
            raise self._lost
        raw, self._raw = self._raw, ""
        return Answer(raw)

    def callback(self, root: tuple[str, Mapping[str, str]], raw: str) -> None:
        tag, attributes = root
        if tag == REPLY and attributes.get("message-id") == self._number:
            self._raw = raw
            self._answered.set()

    def errback(self, error: Exception) -> None:
        self._lost = error
        self._answered.set()


def written(rpc: str, *arguments: Any, **named: Any) -> etree._Element:
    """The element of an operation: its parameters in the order in which they are given, None left out."""
    if rpc == "create_subscription":
        return _operation(NOTIFICATION, "create-subscription", {"stream": STREAM, "startTime": named["start_time"]})
    given = {**dict(zip(POSITIONAL.get(rpc, ()), arguments, strict=False)), **named}
    parameters = {NAMES.get(name, name): given[name] for name in ORDER.get(rpc, ()) if name in given}
    return _operation(BASE, rpc.replace("_", "-"), parameters)


def nothing() -> etree._Element:
    """The filter that chooses nothing (RFC 6241, 6.4.2)."""
    return etree.Element(f"{{{BASE}}}filter", {"type": "subtree"}, nsmap={None: BASE})


def described() -> etree._Element:
    """The filter for what a device says of the stream that is subscribed to."""
    chosen = nothing()
    parent = chosen
    for step in ("netconf", "streams", "stream"):
        parent = etree.SubElement(parent, f"{{{STREAMS}}}{step}", nsmap={None: STREAMS})
    etree.SubElement(parent, f"{{{STREAMS}}}name").text = STREAM
    return chosen


POSITIONAL = {
    "lock": ("target",),
    "unlock": ("target",),
    "get_config": ("source",),
    "edit_config": ("config", "target"),
    "validate": ("source",),
    "kill_session": ("session_id",),
}
ORDER = {
    "get": ("filter",),
    "get_config": ("source", "filter"),
    "lock": ("target",),
    "unlock": ("target",),
    "edit_config": ("target", "default_operation", "test_option", "error_option", "config"),
    "copy_config": ("target", "source"),
    "commit": ("confirmed", "timeout", "persist", "persist_id"),
    "cancel_commit": ("persist_id",),
    "validate": ("source",),
    "kill_session": ("session_id",),
}
"""The parameters of each operation, in the order in which the standard has them."""
NAMES = {
    "default_operation": "default-operation",
    "test_option": "test-option",
    "error_option": "error-option",
    "timeout": "confirm-timeout",
    "persist_id": "persist-id",
    "session_id": "session-id",
}


def _operation(namespace: str, name: str, parameters: Mapping[str, Any]) -> etree._Element:
    operation = etree.Element(f"{{{namespace}}}{name}", nsmap={None: namespace})
    for parameter, value in parameters.items():
        if parameter in ("filter", "config"):
            operation.append(etree.fromstring(value) if isinstance(value, str) else value)
        elif value is not None and value is not False:
            element = etree.SubElement(operation, f"{{{namespace}}}{parameter}")
            if parameter in DATASTORES:
                etree.SubElement(element, f"{{{namespace}}}{value}")
            elif value is not True:
                element.text = value
    return operation
