"""What a channel is: the seam at which other distributions plug in theirs (docs/notifications.md)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from convergedon.core import strict
from convergedon.core.errors import Misconfigured
from convergedon.core.settings import Settings
from convergedon.core.strict import Model


@dataclass(frozen=True)
class Letter:
    """One message to one address. ``id`` is the same however often it is sent, so that the far side knows a repeat.

    ``to`` is empty where the channel itself says where it leads; it is personal data and stands in no log or error.
    ``sent`` is when its customer was told; ``notification`` is what may be told, as customerNotification has it.
    """

    id: str
    to: str = field(repr=False)
    subject: str = ""
    text: str = ""
    html: str = ""
    sent: datetime = field(default_factory=lambda: datetime.now(UTC))
    notification: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


class Channel(Protocol):
    """A way out. ``addressed`` says whether it needs an address for each customer, ``connections`` how many letters it
    takes at once, ``patience`` how many seconds one may take.
    """

    addressed: bool
    connections: int
    patience: float

    async def send(self, letter: Letter) -> None:
        """Hand a letter over. Raises Unavailable where it may succeed later, and Refused where it never will."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True)
class Section:
    """What the file says of one channel, and where that stands."""

    name: str
    given: Mapping[str, Any] = field(repr=False)
    file: Path
    place: tuple[str | int, ...]
    settings: Settings

    def read(self, model: type[Model]) -> Model:
        """Raises Misconfigured with file, line and key."""
        return strict.check(model, self.given, self.file, *self.place)

    def wrong(self, key: str, words: str) -> Misconfigured:
        return Misconfigured(f"{strict.where(self.file, *self.place, key)}: {words}")

    def secret(self, name: str) -> str:
        """What a file (nameFile) or an environment variable (nameEnv) holds; empty where neither is named."""
        return referred(self.file, self.place, self.given, name)


def referred(file: Path, place: tuple[str | int, ...], given: Mapping[str, Any], name: str) -> str:
    """What a section refers to by nameFile (a file beside this one) or nameEnv. Raises Misconfigured."""
    by_file, by_variable = given.get(f"{name}File"), given.get(f"{name}Env")
    if by_file and by_variable:
        raise Misconfigured(f"{strict.where(file, *place, f'{name}Env')}: give one of {name}File and {name}Env")
    key = f"{name}File" if by_file else f"{name}Env"
    if not (by_file or by_variable):
        return ""
    try:
        found = (file.parent / by_file).read_text(encoding="utf-8") if by_file else os.environ.get(str(by_variable), "")
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(f"{strict.where(file, *place, key)}: cannot be read") from error
    if not found.strip():
        raise Misconfigured(f"{strict.where(file, *place, key)}: there is no {name} there")
    return found.strip()
