"""Names of MIB objects (IF-MIB::linkDown) as OIDs: from the table that ships, and from MIB text that the operator adds.

A name needs nothing of a MIB but its assignments (``::= { parent 3 }``), so those are all that is read: nothing is
compiled, nothing is executed, and a module that imports from one that is not there is of use all the same.
"""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated

from pydantic import StringConstraints

from convergedon.core import strict
from convergedon.core.errors import Misconfigured

SHIPPED = files("convergedon.adapters.snmp") / "mibs.yaml"
LARGEST = 8 * 1024 * 1024
DEEPEST = 128
LONGEST_NUMBER = 20

Name = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Za-z0-9-]*$")]
Symbol = Annotated[str, StringConstraints(pattern=r"^[a-z][A-Za-z0-9-]*$")]
Oid = Annotated[str, StringConstraints(pattern=r"^[0-2](\.(0|[1-9]\d*))*$")]

# Each pattern looks no further than what is linear in a text, whatever stands in it: a word once, a part to its end
_HIDDEN = re.compile(r'"[^"]*"|--.*?(?:--|$)', re.M)
_MODULE = re.compile(r"(?<![\w-])([A-Z][\w-]*+)\s*+(?:\{[^{}]*+\}\s*+)?DEFINITIONS\s*::=\s*BEGIN")
_MACRO = re.compile(r"(?<![\w-])[A-Z][\w-]*+\s++MACRO\s*::=\s*BEGIN")
_END = re.compile(r"\bEND\b")
_IMPORTS = re.compile(r"\bIMPORTS\b")
_NAME = re.compile(r"[A-Za-z][\w-]*+")
_KINDS = (
    "OBJECT IDENTIFIER|OBJECT-TYPE|OBJECT-IDENTITY|MODULE-IDENTITY|NOTIFICATION-TYPE|OBJECT-GROUP|NOTIFICATION-GROUP"
    "|MODULE-COMPLIANCE|AGENT-CAPABILITIES"
)
_IS = re.compile("::=")
_ASSIGNED = re.compile(rf"(?<![\w-])([a-z][\w-]*+)\s++(?:{_KINDS})\b")
_PLACE = re.compile(r"\s*+\{([^{}]*+)\}")
_TRAP = re.compile(r"(?<![\w-])([a-z][\w-]*+)\s++TRAP-TYPE\s++ENTERPRISE\s++([a-z][\w-]*+)")
_NUMBER = re.compile(r"\s*+(\d++)")
_PART = re.compile(r"^(?:[a-z][\w-]*\s*\(\s*(\d{1,20})\s*\)|(\d{1,20}))$")


class Table(strict.Strict):
    """The table that ships: module -> name -> OID."""

    modules: dict[Name, dict[Symbol, Oid]]


@dataclass(frozen=True)
class Place:
    """Where a name stands: below a parent, with these numbers, in this line of a file."""

    parent: str
    numbers: tuple[int, ...]
    file: str
    line: int


@dataclass
class Names:
    """All names that are known. ``oid`` says what one stands for."""

    known: dict[tuple[str, str], str] = field(default_factory=dict)
    places: dict[tuple[str, str], Place] = field(default_factory=dict)
    imports: dict[tuple[str, str], str] = field(default_factory=dict)

    def oid(self, name: str) -> str:
        """The OID of IF-MIB::ifIndex or IF-MIB::ifIndex.3. Raises Misconfigured, saying what is missing."""
        module, _, symbol = name.partition("::")
        symbol, dot, rest = symbol.partition(".")
        return self._oid(module, symbol) + dot + rest

    def _oid(self, module: str, symbol: str, depth: int = 0) -> str:
        if found := self.known.get((module, symbol)):
            return found
        place = self.places.get((module, symbol))
        if place is None:
            raise Misconfigured(f"{module}::{symbol} is not known: {self._missing(module, symbol)}")
        if depth > DEEPEST:
            raise Misconfigured(f"{place.file}, line {place.line}: {symbol} stands below itself")
        try:
            parent = self._parent(module, place.parent, depth)
        except Misconfigured as error:
            if str(error).startswith(place.file):
                raise
            raise Misconfigured(
                f"{place.file}, line {place.line}: {symbol} stands below {place.parent}: {error}"
            ) from None
        self.known[module, symbol] = ".".join((parent, *map(str, place.numbers)))
        return self.known[module, symbol]

    def _parent(self, module: str, symbol: str, depth: int) -> str:
        if symbol.isdigit():
            return symbol
        if symbol == "iso":
            return "1"
        if (module, symbol) in self.places:
            return self._oid(module, symbol, depth + 1)
        origin = self.imports.get((module, symbol), module)
        try:
            return self._oid(origin, symbol, depth + 1)
        except Misconfigured:
            # names of version 1 come from modules that were renamed since; the shipped ones mean one thing everywhere
            found = {oid for (_, name), oid in self.known.items() if name == symbol}
            if len(found) == 1:
                return found.pop()
            raise

    def _missing(self, module: str, symbol: str) -> str:
        if any(found == module for found, _ in (*self.known, *self.places)):
            return f"{module} has no such name"
        return f"add the text of {module} to the folder mibs beside the mapping"


def load(folder: Path | None = None) -> Names:
    """The names that ship, and those of all MIB texts in the folder, where there is one. Raises Misconfigured."""
    shipped = _shipped()
    names = Names({(module, name): oid for module, found in shipped.items() for name, oid in found.items()})
    if folder and folder.is_dir():
        for file in sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")):
            _read(names, file)
    return names


@cache
def _shipped() -> Mapping[str, Mapping[str, str]]:
    return strict.read(Table, SHIPPED).modules


def _read(names: Names, file: Traversable) -> None:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise Misconfigured(f"{file}: cannot be read: {error.strerror}") from error
    if len(data) > LARGEST:
        raise Misconfigured(f"{file}: a MIB has {LARGEST:,} bytes at most")
    text = _HIDDEN.sub(_blank, data.decode("utf-8", "replace"))
    text = _without_macros(text)
    begins = list(_MODULE.finditer(text))
    if not begins:
        raise Misconfigured(f"{file}: this is no MIB: there is no DEFINITIONS ::= BEGIN")
    for module, end in zip(begins, [*(next_.start() for next_ in begins[1:]), len(text)], strict=True):
        _read_module(names, str(file), module[1], text, module.end(), end)


def _read_module(names: Names, file: str, module: str, text: str, start: int, end: int) -> None:
    imported = _IMPORTS.search(text, start, end)
    body = text.find(";", imported.end(), end) if imported else -1
    if imported and body >= 0:
        symbols: list[str] = []
        for name in _NAME.findall(text, imported.end(), body):
            symbols.append(name)
            if symbols[-2:-1] == ["FROM"]:
                names.imports.update({(module, symbol): name for symbol in symbols[:-2]})
                symbols.clear()
    for symbol, place in _assignments(file, text, max(start, body), end):
        names.places[module, symbol] = place
        names.known.pop((module, symbol), None)  # what the operator gives counts


def _assignments(file: str, text: str, start: int, end: int) -> Iterator[tuple[str, Place]]:
    """Each is told by what stands before its ::= and after the one before."""
    lines = [found.start() for found in re.finditer("\n", text)]
    begin = start
    for is_ in _IS.finditer(text, start, end):
        if (found := _ASSIGNED.search(text, begin, is_.start())) and (place := _PLACE.match(text, is_.end(), end)):
            yield found[1], _place(file, bisect(lines, found.start()) + 1, found[1], place[1])
        elif (found := _TRAP.search(text, begin, is_.start())) and (number := _NUMBER.match(text, is_.end(), end)):
            # RFC 3584 3.1: generic traps stand below snmpTraps, one further on; all others below 0 of their enterprise
            line, what = bisect(lines, found.start()) + 1, int(number[1][:LONGEST_NUMBER])
            generic = found[2] == "snmp"
            numbers = (what + 1,) if generic else (0, what)
            yield found[1], Place("snmpTraps" if generic else found[2], numbers, file, line)
        begin = is_.end()


def _place(file: str, line: int, symbol: str, written: str) -> Place:
    parent, *parts = re.sub(r"\s*+\(\s*+", "(", written).replace(" )", ")").split() or [""]
    numbers = [match for match in map(_PART.match, parts) if match]
    if not parent or len(numbers) != len(parts):
        raise Misconfigured(f"{file}, line {line}: {symbol} has a place that cannot be read")
    head = re.sub(r"\(.*", "", parent)
    return Place(head, tuple(int(match[1] or match[2]) for match in numbers), file, line)


def _without_macros(text: str) -> str:
    kept, at = [], 0
    for macro in _MACRO.finditer(text):
        end = _END.search(text, macro.end()) if macro.start() >= at else None
        if end:
            kept += [text[at : macro.start()], "\n" * text.count("\n", macro.start(), end.end()), " "]
            at = end.end()
        elif macro.start() >= at:
            break  # nor has any that follows
    return "".join((*kept, text[at:]))


def _blank(found: re.Match[str]) -> str:
    """Nothing, in as many lines: what follows keeps its line number."""
    return "\n" * found[0].count("\n") + " "
