"""Lists in the fields of an IPFIX record (RFC 6313): of one element, of records of a template, or of several templates.

netflume brings such a field as it stands on the wire. What is read of it is bounded in depth and number; what breaks
off is left out, as is a list that does not say all of something: none of it, or one of it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from netflume.ie import IE
from netflume.parse import parse_data_record, record_min_length

AGAIN = "+"
"""Between the name of a field that is in an options template more than once, and which time it is."""
BASIC, SUB, MULTI = "ie291", "ie292", "ie293"
LISTS = frozenset((BASIC, SUB, MULTI))
WHOLE = frozenset((3, 4, 255))
"""What a list says of its elements: all of them, in this order, or nothing of that kind."""
DEEPEST, MOST = 4, 1000
"""Lists within each other, and elements in all of a record's lists."""

FieldsOf = Callable[[int], Sequence[Any] | None]
"""The fields of a template by its number, where it is known."""


@dataclass
class Unfolded:
    """What a record holds, in its order: its own fields and those in its lists; and each record of a list by itself."""

    items: list[tuple[str, Any]] = field(default_factory=list)
    records: list[Mapping[str, Any]] = field(default_factory=list)


def unfold(record: Mapping[str, Any], fields_of: FieldsOf) -> Unfolded:
    found = Unfolded()
    _take(record, fields_of, DEEPEST, found)
    return found


def _named(name: str) -> str:
    return name.partition(AGAIN)[0]


def _take(record: Mapping[str, Any], fields_of: FieldsOf, deep: int, found: Unfolded) -> None:
    for again, value in record.items():
        if (name := _named(again)) not in LISTS:
            found.items.append((name, value))
            continue
        raw = _raw(value)
        if not deep or len(raw) < 3 or raw[0] not in WHOLE:
            continue
        if name == BASIC:
            _elements(raw, fields_of, deep - 1, found)
        elif name == SUB:
            (number,) = struct.unpack_from("!H", raw, 1)
            _records(raw[3:], fields_of(number), fields_of, deep - 1, found)
        else:
            _parts(raw, fields_of, deep - 1, found)


def _raw(value: Any) -> bytes:
    """The field's bytes, of which none in front is zero: that would be a list of nothing."""
    if isinstance(value, int):
        return value.to_bytes((value.bit_length() + 7) // 8, "big")
    return bytes.fromhex(value) if isinstance(value, str) else b""


def _elements(raw: bytes, fields_of: FieldsOf, deep: int, found: Unfolded) -> None:
    """Of a basicList: each is a record of one field. Those of a maker's own elements say nothing to us."""
    if len(raw) < 5:
        return
    element, size = struct.unpack_from("!HH", raw, 1)
    if element & 0x8000 or not size:
        return
    name, kind = IE.get(element, (f"ie{element}", "auto"))
    _records(raw[5:], [(name, kind, size)], fields_of, deep, found)


def _parts(raw: bytes, fields_of: FieldsOf, deep: int, found: Unfolded) -> None:
    """Of a subTemplateMultiList: the records of one template after those of another."""
    at = 1
    while at + 4 <= len(raw):
        number, size = struct.unpack_from("!HH", raw, at)
        if size < 4 or at + size > len(raw):
            return
        _records(raw[at + 4 : at + size], fields_of(number), fields_of, deep, found)
        at += size


def _records(raw: bytes, fields: Sequence[Any] | None, fields_of: FieldsOf, deep: int, found: Unfolded) -> None:
    if not fields:
        return
    at, least = 0, record_min_length(fields)  # type: ignore[no-untyped-call]
    while len(raw) - at >= least and len(found.items) < MOST:
        record, end = parse_data_record(raw, at, len(raw), fields, True)  # type: ignore[no-untyped-call]
        if record is None or end <= at:
            return
        at = end
        found.records.append(record)
        _take(record, fields_of, deep, found)
