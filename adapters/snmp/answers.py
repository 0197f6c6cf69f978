"""What is taken for an answer to something that we asked, before pysnmp reads it.

Its decoder was not made for what strangers send: it raises what it does not catch, takes a request or a report of
version 2c for an answer, and spends seconds on one datagram. What is encrypted can only be looked at from outside; who
has the keys is the device itself.
"""

from __future__ import annotations

from convergedon.adapters.snmp import ber, usm

ENCRYPTED = ber.OCTETS
ANSWERS = {0: (ber.RESPONSE,), 1: (ber.RESPONSE,), usm.VERSION: (ber.RESPONSE, usm.REPORT)}
"""The PDUs that answer a request, by what stands in the version field."""


def check(datagram: bytes) -> None:
    """Raises Invalid, with what is wrong with it."""
    try:
        _check(datagram)
    except IndexError:
        raise ber.Unreadable("the datagram ends in the middle of a value") from None


def _check(data: bytes) -> None:
    at, end = ber.enter(data, 0, len(data), ber.SEQUENCE, "message")
    if end != len(data):
        raise ber.Unreadable(f"{len(data) - end} bytes follow the message")
    version, at = ber.integer(data, at, end, "version")
    if version not in ANSWERS:
        raise ber.Unreadable(f"version field {version} is none that we ask by", "version")
    if version == usm.VERSION:
        at, end = usm.payload(data)
        if data[at] == ENCRYPTED:
            ber.enter(data, at, end, ENCRYPTED, "encrypted PDU")
            return
        at, end = ber.enter(data, at, end, ber.SEQUENCE, "scoped PDU")
        _, at = ber.enter(data, at, end, ber.OCTETS, "context engine")
        _, at = ber.enter(data, at, end, ber.OCTETS, "context name")
    else:
        _, at = ber.enter(data, at, end, ber.OCTETS, "community")
    _check_pdu(data, at, end, ANSWERS[version])


def _check_pdu(data: bytes, at: int, end: int, tags: tuple[int, ...]) -> None:
    tag = data[at]
    if tag not in tags:
        raise ber.Unreadable(f"PDU type 0x{tag:02x} is no answer", "pdu")
    at, close = ber.enter(data, at, end, tag, "PDU")
    if close != end:
        raise ber.Unreadable(f"{end - close} bytes follow the PDU")
    for what in ("request-id", "error-status", "error-index"):
        _, at = ber.integer(data, at, close, what)
    ber.varbinds(data, at, close)
