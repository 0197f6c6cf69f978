"""Names of MIB objects (IF-MIB::linkDown) as OIDs: from the table that ships, and from MIB text that the operator adds.

A name needs nothing of a MIB but its assignments (``::= { parent 3 }``). pysmi's grammar reads them; its compiler would
need the text of every module that is imported, this does not: a module of which another one is missing is of use all
the same. Nothing is fetched and nothing is executed. What was read is kept, so that a text is read once.
"""

from __future__ import annotations

import json
import os
import re
from bisect import bisect
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from hashlib import sha256
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

from pydantic import StringConstraints

from convergedon.core import strict
from convergedon.core.errors import Misconfigured

SHIPPED = files("convergedon.adapters.snmp") / "mibs.yaml"
LARGEST = 8 * 1024 * 1024
DEEPEST = 128
LARGEST_NUMBER = 2**32 - 1
SKIPPED, MOST_SKIPPED = ("MACRO", "CHOICE", "EXPORTS"), 100
"""What pysmi looks to the end of the text for, each time: 8,000 take it ten seconds. MIBs have a handful."""

Name = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Za-z0-9-]*$")]
Symbol = Annotated[str, StringConstraints(pattern=r"^[a-z][A-Za-z0-9-]*$")]
Oid = Annotated[str, StringConstraints(pattern=r"^[0-2](\.(0|[1-9]\d*))*$")]

_DECLARED = re.compile(r"^[ \t]*+([A-Za-z][\w-]*+)[ \t]++(?:[A-Z][\w-]*+|$)", re.M)
_TRAP = "trapTypeClause"


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
        names = [name for found, name in (*self.known, *self.places) if found == module]
        if names:
            alike = get_close_matches(symbol, names, 1)
            return f"{module} has no such name" + (f"; did you mean {alike[0]}?" if alike else "")
        return f"add the text of {module} to the folder mibs beside the mapping"


def load(folder: Path | None = None, kept: Path | None = None) -> Names:
    """The names that ship, and those of all MIB texts in the folder, where there is one. Raises Misconfigured.

    What the texts say is kept in a file, where one is given.
    """
    names = Names({(module, name): oid for module, found in _shipped().items() for name, oid in found.items()})
    if folder and folder.is_dir():
        files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
        for file, modules in _texts(files, kept):
            for module in modules:
                _take(names, file, module)
    return names


@cache
def _shipped() -> Mapping[str, Mapping[str, str]]:
    return strict.read(Table, SHIPPED).modules


Module = dict[str, Any]
"""What is kept of one: its name, its imports (symbol -> module), and its names (symbol, parent, numbers, line)."""


def _take(names: Names, file: Path, module: Module) -> None:
    called = module["name"]
    names.imports.update({(called, symbol): origin for symbol, origin in module["imports"].items()})
    for symbol, parent, numbers, line in module["names"]:
        names.places[called, symbol] = Place(parent, tuple(numbers), str(file), line)
        names.known.pop((called, symbol), None)  # what the operator gives counts


def _texts(files: Sequence[Path], kept: Path | None) -> list[tuple[Path, list[Module]]]:
    """What each file says; those that were read before are not read again."""
    known, found, now = _kept(kept), [], dict[str, list[Module]]()
    for file in files:
        try:
            data = file.read_bytes()
        except OSError as error:
            raise Misconfigured(f"{file}: cannot be read: {error.strerror}") from error
        if len(data) > LARGEST:
            raise Misconfigured(f"{file}: a MIB has {LARGEST:,} bytes at most")
        digest = sha256(data).hexdigest()
        now[digest] = known.get(digest) or _read(file, data.decode("utf-8", "replace"))
        found.append((file, now[digest]))
    if kept and now != known:
        _keep(kept, now)
    return found


def _kept(file: Path | None) -> dict[str, list[Module]]:
    """What was kept by the same grammar; nothing where that is not to be had."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        said = json.loads(file.read_text(encoding="utf-8")) if file else {}
        if said.get("pysmi") == version("pysmi"):
            return dict(said["texts"])
    return {}


def _keep(file: Path, texts: Mapping[str, list[Module]]) -> None:
    """It is only of use, not needed: where it cannot be kept, the texts are read again."""
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps({"pysmi": version("pysmi"), "texts": texts}), encoding="utf-8")
        part.replace(file)


def _read(file: Path, text: str) -> list[Module]:
    from pysmi.error import PySmiError

    if "DEFINITIONS" not in text:
        raise Misconfigured(f"{file}: this is no MIB: there is no DEFINITIONS ::= BEGIN")
    for word in SKIPPED:
        if text.count(word) > MOST_SKIPPED:
            raise Misconfigured(f"{file}: a MIB with more than {MOST_SKIPPED} {word}s would take too long to read")
    try:
        parser = _parser()
        parser.reset()
        modules = parser.parse(text)
    except PySmiError as error:
        line = getattr(error, "lineno", None)
        where = f"{file}, line {line}" if line else f"{file}"
        raise Misconfigured(f"{where}: pysmi cannot read this MIB: {getattr(error, 'msg', error)}") from None
    except RecursionError:
        raise Misconfigured(f"{file}: this MIB is nested too deep") from None
    lines = _lines(text)
    return [_module(file, lines, *module) for module in modules]


@cache
def _parser() -> Any:
    """pysmi's, with what it tolerates of makers; made when it is needed, as that takes a quarter of a second."""
    from pysmi.parser import SmiStarParser

    return SmiStarParser()


def _module(
    file: Path, lines: Mapping[str, int], name: str, _: Any, imports: Mapping[str, Sequence[str]] | None, said: Any
) -> Module:
    origins = {symbol: module for module, symbols in (imports or {}).items() for symbol in symbols}
    found = [
        (declared[1], *_place(file, lines.get(declared[1], 1), declared))
        for declared in said or ()
        if declared and _oid_of(declared)
    ]
    return {"name": name, "imports": origins, "names": found}


def _oid_of(declared: Sequence[Any]) -> Sequence[Any] | None:
    """Where a declaration stands, in pysmi's words; None for one that stands nowhere, as a type."""
    place = declared[2] if declared[0] == _TRAP else declared[-1]
    stands = isinstance(place, tuple) and place and place[0] == "objectIdentifier"
    return place[1] if stands else None


def _place(file: Path, line: int, declared: Sequence[Any]) -> tuple[str, list[int], int]:
    """Its parent, the numbers below it, and the line."""
    head, *parts = _oid_of(declared) or ("",)
    parent = str(head[0] if isinstance(head, tuple) else head)
    numbers = [part[1] if isinstance(part, tuple) else part for part in parts]
    if declared[0] == _TRAP:
        # RFC 3584 3.1: generic traps stand below snmpTraps, one further on; all others below 0 of their enterprise
        generic = parent == "snmp"
        numbers = [declared[-1] + 1] if generic else [*numbers, 0, declared[-1]]
        parent = "snmpTraps" if generic else parent
    if not all(isinstance(number, int) and 0 <= number <= LARGEST_NUMBER for number in numbers):
        raise Misconfigured(f"{file}, line {line}: {declared[1]} has a place that cannot be read")
    return parent, numbers, line


def _lines(text: str) -> dict[str, int]:
    """The line in which a name is declared: where it stands first in one, before a word in capitals."""
    ends, found = [end.start() for end in re.finditer("\n", text)], dict[str, int]()
    for declared in _DECLARED.finditer(text):
        found.setdefault(declared[1], bisect(ends, declared.start(1)) + 1)
    return found
