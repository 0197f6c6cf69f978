"""What a lab element writes and reads: requests, answers with their errors, notifications (RFC 6241, RFC 5277)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from lxml import etree  # type: ignore[import-untyped]

NC = "urn:ietf:params:xml:ns:netconf:base:1.0"
NOTIFICATION = "urn:ietf:params:xml:ns:netconf:notification:1.0"
ACCESS = "urn:convergedon:yang:access"
INTERFACES = "urn:ietf:params:xml:ns:yang:ietf-interfaces"
TYPES = "urn:ietf:params:xml:ns:yang:iana-if-type"
MODULE = "convergedon-access"
MODULES = {ACCESS: MODULE, INTERFACES: "ietf-interfaces"}
KEYS = {
    f"{{{space}}}{entry}": f"{{{space}}}name"
    for space, entry in ((ACCESS, "access"), (ACCESS, "interface"), (INTERFACES, "interface"))
}
CONFIRM_TIMEOUT = 600.0  # RFC 6241, 8.4.4.1


class RpcError(Exception):
    """What becomes an <rpc-error>."""

    def __init__(
        self,
        tag: str,
        message: str,
        path: str = "",
        app_tag: str = "",
        info: Mapping[str, str] | None = None,
        type_: str = "application",
    ) -> None:
        super().__init__(message)
        self.tag, self.message, self.path, self.app_tag, self.type = tag, message, path, app_tag, type_
        self.info = info or {}


class RpcErrors(Exception):
    """Several errors in one answer."""

    def __init__(self, errors: list[RpcError]) -> None:
        super().__init__("; ".join(error.message for error in errors))
        self.errors = errors


def parse(message: bytes) -> etree._Element:
    return etree.fromstring(
        message, etree.XMLParser(resolve_entities=False, no_network=True, remove_blank_text=True, remove_comments=True)
    )


def serialise(element: etree._Element) -> bytes:
    return bytes(etree.tostring(element, xml_declaration=True, encoding="UTF-8"))


def answer(attributes: Mapping[str, str], found: etree._Element | list[RpcError] | None) -> bytes:
    reply = etree.Element(f"{{{NC}}}rpc-reply", dict(attributes), nsmap={None: NC})
    if found is None:
        etree.SubElement(reply, f"{{{NC}}}ok")
    elif isinstance(found, list):
        for error in found:
            reply.append(_rpc_error(error))
    else:
        reply.append(found)
    return serialise(reply)


def told(at: datetime, content: etree._Element) -> bytes:
    notification = etree.Element(f"{{{NOTIFICATION}}}notification", nsmap={None: NOTIFICATION})
    etree.SubElement(notification, f"{{{NOTIFICATION}}}eventTime").text = at.isoformat(timespec="microseconds")
    notification.append(content)
    return serialise(notification)


def _rpc_error(error: RpcError) -> etree._Element:
    element = etree.Element(f"{{{NC}}}rpc-error")
    for tag, text in (("error-type", error.type), ("error-tag", error.tag), ("error-severity", "error")):
        etree.SubElement(element, f"{{{NC}}}{tag}").text = text
    if error.app_tag:
        etree.SubElement(element, f"{{{NC}}}error-app-tag").text = error.app_tag
    if error.path:
        spaces = {module: space for space, module in MODULES.items() if f"{module}:" in error.path}
        etree.SubElement(element, f"{{{NC}}}error-path", nsmap=spaces).text = error.path
    etree.SubElement(element, f"{{{NC}}}error-message").text = error.message
    if error.info:
        info = etree.SubElement(element, f"{{{NC}}}error-info")
        for tag, text in error.info.items():
            etree.SubElement(info, f"{{{NC}}}{tag}").text = text
    return element


def datastore_of(operation: etree._Element, where: str) -> str:
    holder = operation.find(f"{{{NC}}}{where}")
    if holder is None or not len(holder):
        raise RpcError("missing-element", f"{where} is missing", info={"bad-element": where}, type_="protocol")
    return str(etree.QName(holder[0]).localname)


def text_of(operation: etree._Element, name: str) -> str | None:
    found = operation.findtext(f"{{{NC}}}{name}")
    return None if found is None else str(found).strip()


def confirm_seconds(operation: etree._Element) -> float:
    given = text_of(operation, "confirm-timeout")
    if given is None:
        return CONFIRM_TIMEOUT
    if not given.isdigit() or not int(given):
        raise RpcError("invalid-value", "confirm-timeout must be a number of seconds above 0", type_="protocol")
    return float(given)
