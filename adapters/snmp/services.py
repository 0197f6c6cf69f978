"""Services that are set on a device over SNMP: which objects they are, what is read of them, and what is written.

A service is a few objects of the device itself, of an interface by its name, or of the interface that bears the
service's own name in one of its objects (ifAlias, as operators label them). Everything that changes goes into one set,
which a device does as a whole or not at all (RFC 3416 4.2.5).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address
from typing import Annotated, Any, Literal, Protocol, Self

from pydantic import Discriminator, Field, Tag, model_validator

from convergedon.adapters.contract import Difference, State
from convergedon.adapters.snmp import ber
from convergedon.adapters.snmp.asking import Column
from convergedon.adapters.snmp.names import Oid, Text
from convergedon.core import strict
from convergedon.core.errors import Refused, Unsupported

IF_X, NAME, IF, DESCR = "1.3.6.1.2.1.31.1.1.1", 1, "1.3.6.1.2.1.2.2.1", 2
TAGS = {"integer": ber.INTEGER, "gauge": ber.GAUGE, "text": ber.OCTETS, "address": ber.IP}
LEAST, MOST = {"integer": -(2**31), "gauge": 0}, {"integer": 2**31 - 1, "gauge": 2**32 - 1}

Plain = str | int


class Follows(strict.Strict):
    """What the device does, in an object of its own, once it was told: for each word those that are as they must be."""

    object: Oid
    name: Text
    words: dict[Text, int]
    becomes: dict[Text, list[Text]]

    @model_validator(mode="after")
    def _known(self) -> Self:
        if unknown := sorted({word for words in self.becomes.values() for word in words} - self.words.keys()):
            raise ValueError(f"becomes: {unknown[0]} is none of its words")
        return self

    def word(self, value: ber.Value) -> str:
        return next((word for word, number in self.words.items() if number == value), str(value))


class Looked(strict.Strict):
    """One object, and the characteristic's values that it has; it can only be looked at."""

    object: Oid
    type: Literal["integer", "gauge", "text", "address"]
    words: dict[Text, int] | None = None

    @model_validator(mode="after")
    def _has_words_of_its_own(self) -> Self:
        if self.words is not None and (self.type != "integer" or len(set(self.words.values())) < len(self.words)):
            raise ValueError("words stand for integers, each for one of its own")
        return self

    @property
    def tag(self) -> int:
        return TAGS[self.type]

    @property
    def bounds(self) -> tuple[int, int]:
        return LEAST[self.type], MOST[self.type]

    def written(self, value: Any) -> ber.Value:
        """A characteristic's value as the device has it. Raises Refused, with what it must be."""
        if self.words is not None:
            if not isinstance(value, str) or value not in self.words:
                raise Refused(f"must be one of {', '.join(self.words)}")
            return self.words[value]
        if self.type in LEAST:
            least, most = self.bounds
            if type(value) is not int or not least <= value <= most:
                raise Refused(f"must be a whole number from {least} to {most}")
            return int(value)
        if not isinstance(value, str):
            raise Refused("must be text")
        if self.type == "address":
            try:
                return str(IPv4Address(value))
            except AddressValueError:
                raise Refused("must be an IPv4 address") from None
        try:
            return str(value).encode()
        except UnicodeEncodeError:
            raise Refused("must be text that can be written as UTF-8") from None

    def read(self, value: ber.Value) -> Plain:
        """What the device has, as the characteristic says it."""
        if isinstance(value, bytes):
            return _words(value) or f"0x{value.hex()}" if value else ""
        if self.words is not None:
            return next((word for word, number in self.words.items() if number == value), str(value))
        return "" if value is None else value


class Leaf(Looked):
    """One that can be set, too; ``absent`` is what it has where the service is not."""

    least: int | None = None
    most: int | None = None
    longest: int | None = Field(None, ge=0)
    absent: Plain | None = None
    verify: Follows | None = None

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.type not in LEAST and (self.least is not None or self.most is not None):
            raise ValueError("least and most are of integer and gauge")
        if self.type != "text" and self.longest is not None:
            raise ValueError("longest is of text")
        if self.verify and (unknown := sorted(self.verify.becomes.keys() - (self.words or {}).keys())):
            raise ValueError(f"verify.becomes: {unknown[0]} is none of the leaf's words")
        if self.absent is not None:
            try:
                self.written(self.absent)
            except Refused as error:
                raise ValueError(f"absent {error}") from None
        return self

    @property
    def bounds(self) -> tuple[int, int]:
        least, most = super().bounds
        return least if self.least is None else self.least, most if self.most is None else self.most

    def written(self, value: Any) -> ber.Value:
        found = super().written(value)
        if self.longest is not None and isinstance(found, bytes) and len(found) > self.longest:
            raise Refused(f"may have {self.longest} bytes")
        return found


class Labelled(strict.Strict):
    """The interface that a characteristic names bears the instance's name in an object of its own."""

    label: Oid
    at: Text


Instance = Annotated[
    Annotated[Literal["device", "interface"], Tag("word")] | Annotated[Labelled, Tag("labelled")],
    Discriminator(lambda given: "labelled" if isinstance(given, Mapping) else "word"),
]


class Service(strict.Strict):
    """What stands in the mapping file."""

    instance: Instance
    leaves: dict[Text, Leaf] = Field(min_length=1)
    reads: dict[Text, Looked] = Field(default_factory=dict)
    """What a reading says and may want besides, and no intent can set."""
    settle: float = Field(5.0, ge=0, le=300, strict=False)
    """Seconds that the device may take until it does what it was told."""

    @model_validator(mode="after")
    def _can_be_taken_away(self) -> Self:
        if twice := sorted(self.reads.keys() & self.leaves.keys()):
            raise ValueError(f"reads.{twice[0]}: it stands in leaves already")
        if isinstance(self.instance, Labelled):
            if self.instance.at in (self.leaves.keys() | self.reads.keys()):
                raise ValueError(f"{self.instance.at} names the interface and is no leaf")
            if lacking := [name for name, leaf in self.leaves.items() if leaf.absent is None]:
                raise ValueError(f"leaves.{lacking[0]}: absent is needed: what it has when the service is gone")
        return self

    def named(self, number: Callable[..., str]) -> Service:
        """The same with the names of objects as OIDs; ``number`` is given each, and where it stands."""
        leaves = {
            name: leaf.model_copy(
                update={
                    "object": number(leaf.object, "leaves", name, "object"),
                    "verify": leaf.verify
                    and leaf.verify.model_copy(
                        update={"object": number(leaf.verify.object, "leaves", name, "verify", "object")}
                    ),
                }
            )
            for name, leaf in self.leaves.items()
        }
        reads = {
            name: one.model_copy(update={"object": number(one.object, "reads", name, "object")})
            for name, one in self.reads.items()
        }
        instance = self.instance
        if isinstance(instance, Labelled):
            instance = instance.model_copy(update={"label": number(instance.label, "instance", "label")})
        return self.model_copy(update={"leaves": leaves, "reads": reads, "instance": instance})

    def wanted_reads(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Of the values those that can only be read. Raises Refused for what none of them can be."""
        found = {name: value for name, value in values.items() if name in self.reads}
        for name, value in found.items():
            _within(name, self.reads[name].written, value)
        return found

    def checked(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values; None is what a leaf has where there is nothing. Raises Refused for what can never be set."""
        known = {*self.leaves, *([self.instance.at] if isinstance(self.instance, Labelled) else [])}
        if unknown := sorted(values.keys() - known, key=str):
            if unknown[0] in self.reads:
                raise Refused(f"{unknown[0]} can only be read")
            raise Refused(f"{unknown[0]} is not known; there are {', '.join(sorted(known))}")
        filled = {}
        for name, value in values.items():
            leaf = self.leaves.get(name)
            if leaf is None:
                if not isinstance(value, str) or not value:
                    raise Refused(f"{name} must be the name of an interface")
            elif value is None and leaf.absent is None:
                raise Refused(f"{name} must have a value")
            elif value is not None:
                _within(name, leaf.written, value)
            filled[name] = leaf.absent if leaf is not None and value is None else value
        return filled


class Asked(Protocol):
    """What is asked of a device."""

    async def get(self, oids: Sequence[str]) -> list[ber.Varbind]: ...

    async def columns(self, table: str, wanted: Sequence[int]) -> dict[int, Column]: ...

    async def set(self, wanted: Sequence[ber.Varbind]) -> None: ...


@dataclass(frozen=True)
class Followed:
    """An object in which it is seen whether the device does what it was told, and what it must become."""

    oid: str
    told: str
    follows: Follows

    def wrong(self, bound: ber.Varbind) -> Difference | None:
        """A device that does not have the object, or does not say, contradicts nothing."""
        _, tag, value = bound
        found = self.follows.word(value)
        if tag != ber.INTEGER or found in self.follows.becomes[self.told]:
            return None
        return Difference(self.follows.name, self.told, found)


@dataclass(frozen=True)
class Place:
    """One instance of a service on a device. ``names`` are those that the devices file has for its interfaces."""

    device: str
    service: Service
    instance: str
    names: Mapping[int, str]

    async def observe(self, peer: Asked) -> State:
        """What the device has of it, and None where a label says that it is nowhere."""
        if not isinstance(self.service.instance, Labelled):
            return await self._read(peer, await self._index(peer))
        interfaces = await self._interfaces(peer)
        row = self._labelled(await self._labels(peer, self.service.instance))
        if row is None:
            return None
        return {self.service.instance.at: interfaces.get(row, row), **await self._read(peer, row)}

    async def looked(self, peer: Asked) -> dict[str, Plain]:
        """What can only be read of it, as far as the device has it."""
        label = self.service.instance if isinstance(self.service.instance, Labelled) else None
        reads = self.service.reads
        row = (self._labelled(await self._labels(peer, label)) if label else await self._index(peer)) if reads else None
        if row is None:
            return {}
        told = await peer.get([f"{one.object}.{row}" for one in reads.values()])
        return {
            name: one.read(value)
            for (name, one), (_, tag, value) in zip(reads.items(), told, strict=True)
            if tag in TAGS.values()
        }

    async def wanted(self, peer: Asked, state: State) -> list[ber.Varbind]:
        """What must be written for the device to hold exactly this state. Raises Refused where that cannot be."""
        if isinstance(self.service.instance, Labelled):
            return await self._moved(peer, self.service.instance, state)
        if state is None:
            raise Unsupported(f"{self.instance or 'it'} of {self.device} is always there, and cannot be taken away")
        index = await self._index(peer)
        return self._varbinds(index, await self._read(peer, index), state)

    async def followed(self, peer: Asked, named: Mapping[str, Any] | None, before: State) -> list[Followed]:
        """Where it is seen whether the device does what is named; None is what there is without the service."""
        label = self.service.instance if isinstance(self.service.instance, Labelled) else None
        if named is None:
            named = {name: leaf.absent for name, leaf in self.service.leaves.items()}
        told = {
            name: leaf.verify
            for name, leaf in self.service.leaves.items()
            if leaf.verify and named.get(name) in leaf.verify.becomes
        }
        if not told:
            return []
        if label is None:
            row: str | None = await self._index(peer)
        else:
            where = named.get(label.at, (before or {}).get(label.at))
            row = next((index for index, name in (await self._interfaces(peer)).items() if name == where), None)
        if row is None:
            return []
        return [Followed(f"{verify.object}.{row}", named[name], verify) for name, verify in told.items()]

    async def _moved(self, peer: Asked, label: Labelled, state: State) -> list[ber.Varbind]:
        """Off the interface where it stands, where that is not the one it must be on; and onto that."""
        labels, interfaces = await self._labels(peer, label), await self._interfaces(peer)
        row, to = self._labelled(labels), None
        if state is not None:
            name = state.get(label.at)
            to = next((index for index, known in interfaces.items() if known == name), None)
            if to is None:
                raise Refused(f"{self.device} has no interface {name}")
            if labels.get(to, "") not in ("", self.instance):
                raise Refused(f"{name} of {self.device} is labelled {labels[to]} already")
        absent = {name: leaf.absent for name, leaf in self.service.leaves.items()}
        wanted: list[ber.Varbind] = []
        if row is not None and row != to:
            wanted += [(f"{label.label}.{row}", ber.OCTETS, b"")]
            wanted += self._varbinds(row, await self._read(peer, row), absent)
        if to is not None:
            if row != to:
                wanted.append((f"{label.label}.{to}", ber.OCTETS, self.instance.encode()))
            leaves = {name: value for name, value in (state or {}).items() if name in self.service.leaves}
            wanted += self._varbinds(to, await self._read(peer, to), absent | leaves)
        return wanted

    def _varbinds(self, index: str, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[ber.Varbind]:
        """What must be written where it is not so already."""
        changed = {name: value for name, value in wanted.items() if found.get(name) != value}
        return [
            (f"{leaf.object}.{index}", leaf.tag, _within(name, leaf.written, changed[name]))
            for name, leaf in self.service.leaves.items()
            if name in changed
        ]

    async def _read(self, peer: Asked, index: str) -> dict[str, Plain]:
        asked = {name: f"{leaf.object}.{index}" for name, leaf in self.service.leaves.items()}
        told = {oid: (tag, value) for oid, tag, value in await peer.get(list(asked.values()))}
        found = {}
        for name, oid in asked.items():
            tag, value = told.get(oid, (ber.NO_OBJECT, None))
            if tag not in TAGS.values():
                raise Unsupported(f"{self.device} does not have {name} ({oid})")
            found[name] = self.service.leaves[name].read(value)
        return found

    async def _index(self, peer: Asked) -> str:
        if self.service.instance == "device":
            return "0"
        known = {name: str(index) for index, name in self.names.items()}
        if self.instance in known:
            return known[self.instance]
        for index, name in (await self._interfaces(peer)).items():
            if name == self.instance:
                return index
        raise Refused(f"{self.device} has no interface {self.instance}")

    async def _interfaces(self, peer: Asked) -> dict[str, str]:
        """Index -> name."""
        columns = (await peer.columns(IF_X, [NAME]))[NAME] or (await peer.columns(IF, [DESCR]))[DESCR]
        found = {index: _text(name) for index, name in columns.items()}
        return found | {str(index): name for index, name in self.names.items()}

    async def _labels(self, peer: Asked, label: Labelled) -> dict[str, str]:
        table, _, column = label.label.rpartition(".")
        found = (await peer.columns(table, [int(column)]))[int(column)]
        return {index: _text(value) for index, value in found.items()}

    def _labelled(self, labels: Mapping[str, str]) -> str | None:
        """The row that bears the instance's name."""
        if not self.instance:
            raise Refused("an instance without a name cannot be labelled")
        rows = [index for index, label in labels.items() if label == self.instance]
        if len(rows) > 1:
            raise Refused(f"{len(rows)} interfaces of {self.device} are labelled {self.instance}")
        return rows[0] if rows else None


def _within(name: str, written: Callable[[Any], ber.Value], value: Any) -> ber.Value:
    try:
        return written(value)
    except Refused as error:
        raise Refused(f"{name} {error}") from None


def _words(octets: bytes) -> str:
    """Octets as text; empty where they are none."""
    try:
        words = octets.decode()
    except UnicodeDecodeError:
        return ""
    return words if all(letter.isprintable() or letter in "\t\r\n" for letter in words) else ""


def _text(value: int | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
