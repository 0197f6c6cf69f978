"""The secrets that requests of workflows say who they are by: a file names each, and where it is kept.

A definition names a secret and never holds one; it is read when a request is made, so it may be changed at any time,
and stands in no record, no log and no rehearsal.
"""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, StringConstraints, model_validator

from convergedon.core import strict
from convergedon.core.errors import Misconfigured

HIDDEN = "(secret)"
Text = Annotated[str, StringConstraints(min_length=1)]


class Entry(strict.Strict):
    """A token, or a username with a password: in a file (beside this one) or an environment variable."""

    username: Text | None = None
    tokenFile: Text | None = None
    tokenEnv: Text | None = None
    passwordFile: Text | None = None
    passwordEnv: Text | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        given = [name for name in ("tokenFile", "tokenEnv", "passwordFile", "passwordEnv") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError("give one of tokenFile, tokenEnv, passwordFile and passwordEnv")
        if given[0].startswith("password") != (self.username is not None):
            raise ValueError("a username is given with a password, and with nothing else")
        return self


class Document(strict.Strict):
    """The file as a whole."""

    secrets: dict[Text, Entry] = Field(default_factory=dict)


@dataclass(frozen=True)
class Credential:
    """What a request says of who makes it; ``told`` is all of it that nobody else may read."""

    header: str = field(default="", repr=False)
    told: tuple[str, ...] = field(default=(), repr=False)

    def hidden(self, text: str) -> str:
        """The text without what it may have of the secret."""
        for each in self.told:
            text = text.replace(each, HIDDEN)
        return text


NOBODY = Credential()


def names(file: Path | None) -> frozenset[str]:
    """The secrets that there are; each can be read. Raises Misconfigured."""
    if file is None:
        return frozenset()
    entries = strict.read(Document, file).secrets
    for name in entries:
        _secret(file, name, entries[name])
    return frozenset(entries)


def credential(file: Path | None, authentication: Mapping[str, Any]) -> Credential:
    """What {bearer: {use: NAME}} or {basic: {use: NAME}} stands for now. Raises Misconfigured."""
    if not authentication:
        return NOBODY
    ((scheme, used),) = authentication.items()
    name = used["use"]
    entries = strict.read(Document, file).secrets if file else {}
    if file is None or name not in entries:
        raise Misconfigured(f"there is no secret {name}: CONVERGEDON_WORKFLOW_SECRETS names the file that says where")
    entry, secret = entries[name], _secret(file, name, entries[name])
    if (scheme == "basic") != (entry.username is not None):
        wanted = "a username and a password" if scheme == "basic" else "a token"
        raise Misconfigured(f"{strict.where(file, 'secrets', name)}: {scheme} needs {wanted}")
    if scheme == "bearer":
        return Credential(f"Bearer {secret}", (secret,))
    both = b64encode(f"{entry.username}:{secret}".encode()).decode()
    return Credential(f"Basic {both}", (both, secret))


def unknown(used: Iterable[str], known: Iterable[str]) -> list[str]:
    return sorted(set(used) - set(known))


def _secret(file: Path, name: str, entry: Entry) -> str:
    where = strict.where(file, "secrets", name)
    if variable := entry.tokenEnv or entry.passwordEnv:
        found = os.environ.get(variable, "")
    else:
        try:
            found = (file.parent / (entry.tokenFile or entry.passwordFile or "")).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise Misconfigured(f"{where}: its file cannot be read") from error
    if not found:
        raise Misconfigured(f"{where}: there is nothing there")
    if any(not character.isprintable() for character in found):
        raise Misconfigured(f"{where}: it has characters that no header can carry")
    return found
