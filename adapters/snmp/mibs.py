"""Names of MIB objects (IF-MIB::linkDown) as OIDs: from the table that ships, and from MIB text that the operator adds.

A name needs nothing of a MIB but its assignments (``::= { parent 3 }``), so those are all that is read: nothing is
compiled, nothing is executed, and a module that imports from one that is not there is of use all the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
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

Name = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Za-z0-9-]*$")]
Symbol = Annotated[str, StringConstraints(pattern=r"^[a-z][A-Za-z0-9-]*$")]
Oid = Annotated[str, StringConstraints(pattern=r"^[0-2](\.(0|[1-9]\d*))*$")]

_HIDDEN = re.compile(r'"[^"]*"|--.*?(?:--|$)', re.M)
_MODULE = re.compile(r"([A-Z][\w-]*)\s*(?:\{[^{}]*\}\s*)?DEFINITIONS\s*::=\s*BEGIN")
_MACRO = re.compile(r"[A-Z][\w-]*\s+MACRO\s*::=\s*BEGIN.*?\bEND\b", re.S)
_IMPORTS = re.compile(r"\bIMPORTS\b(.*?);", re.S)
_FROM = re.compile(r"([\w\s,-]*?)\bFROM\s+([A-Z][\w-]*)")
_KINDS = (
    "OBJECT IDENTIFIER|OBJECT-TYPE|OBJECT-IDENTITY|MODULE-IDENTITY|NOTIFICATION-TYPE|OBJECT-GROUP|NOTIFICATION-GROUP"
    "|MODULE-COMPLIANCE|AGENT-CAPABILITIES"
)
_ASSIGNMENT = re.compile(rf"\b([a-z][\w-]*)\s+(?:{_KINDS})\b((?:(?!::=).)*)::=\s*\{{([^{{}}]*)\}}", re.S)
_TRAP = re.compile(r"\b([a-z][\w-]*)\s+TRAP-TYPE\s+ENTERPRISE\s+([a-z][\w-]*)((?:(?!::=).)*)::=\s*(\d+)", re.S)
_PART = re.compile(r"^(?:[a-z][\w-]*\s*\(\s*(\d+)\s*\)|(\d+))$")


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
    shipped = strict.read(Table, SHIPPED).modules
    names = Names({(module, name): oid for module, found in shipped.items() for name, oid in found.items()})
    if folder and folder.is_dir():
        for file in sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")):
            _read(names, file)
    return names


def _read(names: Names, file: Traversable) -> None:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise Misconfigured(f"{file}: cannot be read: {error.strerror}") from error
    if len(data) > LARGEST:
        raise Misconfigured(f"{file}: a MIB has {LARGEST:,} bytes at most")
    text = _HIDDEN.sub(_blank, data.decode("utf-8", "replace"))
    text = _MACRO.sub(_blank, text)
    begins = list(_MODULE.finditer(text))
    if not begins:
        raise Misconfigured(f"{file}: this is no MIB: there is no DEFINITIONS ::= BEGIN")
    for module, end in zip(begins, [*(next_.start() for next_ in begins[1:]), len(text)], strict=True):
        _read_module(names, str(file), module[1], text, module.end(), end)


def _read_module(names: Names, file: str, module: str, text: str, start: int, end: int) -> None:
    imported = _IMPORTS.search(text, start, end)
    for symbols, origin in _FROM.findall(imported[1]) if imported else ():
        for symbol in symbols.replace(",", " ").split():
            names.imports[module, symbol] = origin
    body = imported.end() if imported else start
    for symbol, place in _assignments(file, text, body, end):
        names.places[module, symbol] = place
        names.known.pop((module, symbol), None)  # what the operator gives counts


def _assignments(file: str, text: str, start: int, end: int) -> Iterator[tuple[str, Place]]:
    for found in _ASSIGNMENT.finditer(text, start, end):
        line = text.count("\n", 0, found.start()) + 1
        parent, *parts = re.sub(r"\s*\(\s*", "(", found[3]).replace(" )", ")").split() or [""]
        numbers = [match for match in map(_PART.match, parts) if match]
        if not parent or len(numbers) != len(parts):
            raise Misconfigured(f"{file}, line {line}: {found[1]} has a place that cannot be read")
        head = re.sub(r"\(.*", "", parent)
        yield found[1], Place(head, tuple(int(match[1] or match[2]) for match in numbers), file, line)
    for found in _TRAP.finditer(text, start, end):
        line = text.count("\n", 0, found.start()) + 1
        # RFC 3584 3.1: the generic traps stand below snmpTraps, one further on; all others below 0 of their enterprise
        generic = found[2] == "snmp"
        number = int(found[4])
        yield (
            found[1],
            Place("snmpTraps", (number + 1,), file, line) if generic else Place(found[2], (0, number), file, line),
        )


def _blank(found: re.Match[str]) -> str:
    """Nothing, in as many lines: what follows keeps its line number."""
    return "\n" * found[0].count("\n") + " "
