"""What a line of a file means: mapping.yaml, read once and strictly, and the call record it makes of the line."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal, InvalidOperation
from fnmatch import fnmatchcase
from functools import cached_property
from importlib.resources import files
from importlib.resources.abc import Traversable
from ipaddress import ip_address
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo

import orjson
from pydantic import Field, StringConstraints, field_validator, model_validator

from convergedon.core import strict

SHIPPED = files("convergedon.adapters.file") / "mapping.yaml"
LARGEST_COUNT = (1 << 63) - 1
LATEST = float(1 << 32)
LONGEST_TEXT = 1000
ZONE = re.compile(r"[\w+-]+(/[\w+-]+){0,3}", re.A)
"""What a time zone is called at most; others are looked for in packages of packages."""
LONGEST_NUMBER = 40
SURELY_KEPT = 19

Text = Annotated[str, StringConstraints(min_length=1)]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$")]
# What a record has beside its counts and texts
TAKEN = frozenset(("start", "end", "address", "service", "records", "record", "exporter", "interval", "correction"))
Column = Annotated[int, Field(ge=1)] | Text
Row = Mapping[Column, Any]


class BadLine(Exception):
    """A line that is no record, and why."""


class Moment(strict.Strict):
    """A column with a time; one that says no offset of its own is of the zone."""

    column: Column
    format: Text = "iso8601"
    zone: Text | None = None

    @field_validator("zone")
    @classmethod
    def _is_a_zone(cls, given: str | None) -> str | None:
        if given is not None and not _is_zone(given):
            raise ValueError(f"{given} is no time zone, as Europe/Berlin is")
        return given

    @field_validator("format")
    @classmethod
    def _is_a_format(cls, given: str) -> str:
        if given not in ("iso8601", "epoch", "epochMillis") and "%" not in given:
            raise ValueError("must be iso8601, epoch, epochMillis or a format as '%d.%m.%Y %H:%M:%S'")
        return given

    @cached_property
    def place(self) -> ZoneInfo | None:
        return ZoneInfo(self.zone) if self.zone else None

    def seconds(self, row: Row) -> float:
        """Seconds since the epoch. Raises BadLine."""
        said = _said(row, self.column)
        if self.format in ("epoch", "epochMillis"):
            return float(_number(said, self.column)) / (1000 if self.format == "epochMillis" else 1)
        try:
            read = datetime.fromisoformat(said) if self.format == "iso8601" else datetime.strptime(said, self.format)
        except ValueError:
            raise BadLine(f"{self.column}: {_shown(said)} is no time of the form {self.format}") from None
        if read.tzinfo is None:
            if self.place is None:
                raise BadLine(f"{self.column}: {_shown(said)} has no offset, and the mapping names no zone")
            read = read.replace(tzinfo=self.place)
        try:
            return read.timestamp()
        except (OverflowError, ValueError):
            raise BadLine(f"{self.column}: {_shown(said)} is no time that can be kept") from None


class Count(strict.Strict):
    """A column with a number, and by what it is multiplied to become a whole one."""

    column: Column
    times: int | Text = 1

    @field_validator("times")
    @classmethod
    def _is_a_number(cls, given: int | str) -> int | str:
        try:
            factor = Decimal(given)
        except InvalidOperation:
            raise ValueError("must be a number") from None
        if not factor.is_finite() or factor <= 0:
            raise ValueError("must be more than 0")
        return given

    @cached_property
    def factor(self) -> Decimal:
        return Decimal(self.times)

    def whole(self, row: Row) -> int:
        """Raises BadLine for what is no whole number from 0 once it is multiplied."""
        said = _said(row, self.column)
        if self.times == 1 and len(said) < SURELY_KEPT and said.isascii() and said.isdigit():
            return int(said)
        value = _number(said, self.column) * self.factor
        if value != value.to_integral_value() or not 0 <= value <= LARGEST_COUNT:
            times = "" if self.times == 1 else f", times {self.times},"
            raise BadLine(f"{self.column}: {_shown(said)}{times} is no whole number from 0 that can be kept")
        return int(value)


class Words(strict.Strict):
    """A column with a text."""

    column: Column


class Whose(strict.Strict):
    """The column that says whose a record is: by a service's address or its id."""

    address: Column | None = None
    service: Column | None = None

    @model_validator(mode="after")
    def _says_one(self) -> Self:
        if (self.address is None) == (self.service is None):
            raise ValueError("give one of address and service")
        return self

    @property
    def column(self) -> Column:
        return self.address or self.service or ""


class Source(strict.Strict):
    """Files of one kind."""

    files: Text
    format: Literal["csv", "jsonl"]
    delimiter: Annotated[str, StringConstraints(min_length=1, max_length=1)] = ","
    header: bool = True
    encoding: Literal["utf-8", "latin-1"] = "utf-8"
    tenant: Name | None = None
    usageType: Name
    whose: Whose
    start: Moment
    end: Moment | None = None
    counts: dict[Name, Count]
    texts: dict[Name, Words] = Field(default_factory=dict)

    @field_validator("counts")
    @classmethod
    def _counts_something(cls, given: dict[str, Count]) -> dict[str, Count]:
        if not given:
            raise ValueError("nothing is counted")
        return given

    @model_validator(mode="after")
    def _names_are_free(self) -> Self:
        if taken := sorted((self.counts.keys() | self.texts.keys()) & TAKEN):
            raise ValueError(f"{taken[0]} has a meaning already: name it otherwise")
        if both := sorted(self.counts.keys() & self.texts.keys()):
            raise ValueError(f"{both[0]} is a count and a text")
        numbered = not self.header and self.format == "csv"
        if strange := next((column for column in self._columns if isinstance(column, int) != numbered), None):
            how = "by numbers: the files have no header" if numbered else "by the names in the files"
            raise ValueError(f"column {strange}: columns are named {how}")
        return self

    @property
    def _columns(self) -> list[Column]:
        moments = [self.start, *([self.end] if self.end else [])]
        listed: Sequence[Any] = [*moments, *self.counts.values(), *self.texts.values()]
        return [self.whose.column, *(one.column for one in listed)]

    @property
    def has_header(self) -> bool:
        return self.format == "csv" and self.header

    def reader(self, header: bytes) -> Callable[[bytes], dict[str, Any]]:
        """What makes a call record, without its id, of a line; it raises BadLine. So does this for a bad header."""
        names: Sequence[Column] | None = None
        if self.has_header:
            names = self._fields(header)
            if missing := next((column for column in self._columns if column not in names), None):
                raise BadLine(f"the first line names no column {missing}")
        return lambda line: self._record(self._row(line, names))

    def _row(self, line: bytes, names: Sequence[Column] | None) -> Row:
        if self.format == "jsonl":
            try:
                read = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                raise BadLine(f"it is no JSON: {error}") from None
            if not isinstance(read, dict):
                raise BadLine("it is no JSON object")
            return read
        fields = self._fields(line)
        if names is None:
            return dict(enumerate(fields, 1))
        if len(fields) != len(names):
            raise BadLine(f"it has {len(fields)} columns, the first line has {len(names)}")
        return dict(zip(names, fields, strict=True))

    def _fields(self, line: bytes) -> list[str]:
        try:
            text = line.decode(self.encoding).rstrip("\r\n")
            return next(csv.reader([text], delimiter=self.delimiter, strict=True), [])
        except UnicodeDecodeError:
            raise BadLine(f"it is no {self.encoding}") from None
        except csv.Error as error:
            raise BadLine(f"it is no CSV: {error}") from None

    def _record(self, row: Row) -> dict[str, Any]:
        start = self.start.seconds(row)
        end = self.end.seconds(row) if self.end else start
        if not 0 <= start <= end < LATEST:
            raise BadLine("it ends before it starts" if end < start else "its time is before 1970 or after 2106")
        counts = {name: count.whole(row) for name, count in self.counts.items()}
        texts = {name: _said(row, words.column, empty=True) for name, words in self.texts.items()}
        return {**self._whose(row), "start": start, "end": end, "counts": counts, "texts": texts}

    def _whose(self, row: Row) -> dict[str, str]:
        said = _said(row, self.whose.column)
        if self.whose.service is not None:
            return {"service": said}
        try:
            return {"address": str(ip_address(said))}
        except ValueError:
            raise BadLine(f"{self.whose.column}: {_shown(said)} is no IP address") from None


class CallFiles(strict.Strict):
    """The mapping as a whole."""

    sources: dict[Name, Source] = Field(default_factory=dict)

    def source(self, file: str) -> str | None:
        """The first source that reads a file of this name."""
        return next((name for name, source in self.sources.items() if fnmatchcase(file, source.files)), None)


def load(file: Traversable = SHIPPED) -> CallFiles:
    """Read a mapping. Raises Misconfigured naming file and key."""
    return strict.read(CallFiles, file)


def _is_zone(name: str) -> bool:
    try:
        return bool(ZONE.fullmatch(name)) and ZoneInfo(name) is not None
    except (KeyError, OSError, ValueError):
        return False


def _said(row: Row, column: Column, empty: bool = False) -> str:
    """What stands in a column, as text."""
    said = row.get(column)
    if isinstance(said, bool) or (said is not None and not isinstance(said, str | int | float)):
        raise BadLine(f"{column}: it is neither text nor a number")
    text = "" if said is None else str(said).strip()
    if not text and not empty:
        raise BadLine(f"{column}: it is missing" if said is None else f"{column}: it is empty")
    if len(text) > LONGEST_TEXT:
        raise BadLine(f"{column}: it is longer than {LONGEST_TEXT} characters")
    if "\0" in text:
        raise BadLine(f"{column}: it has a character that cannot be kept")
    return text


def _number(said: str, column: Column) -> Decimal:
    try:
        found = Decimal(said) if len(said) <= LONGEST_NUMBER else Decimal("NaN")
    except InvalidOperation:
        found = Decimal("NaN")
    if not found.is_finite() or abs(found.adjusted()) > LONGEST_NUMBER:
        raise BadLine(f"{column}: {_shown(said)} is no number that can be kept")
    return found


def _shown(said: str) -> str:
    return repr(said if len(said) <= 40 else f"{said[:40]}...")
