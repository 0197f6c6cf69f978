"""The devices file: which network elements there are, whose they are, and how to reach them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from convergedon.adapters import discovery
from convergedon.adapters.contract import Device
from convergedon.adapters.intake import address
from convergedon.core import strict
from convergedon.core.errors import Misconfigured
from convergedon.core.settings import Settings

Text = Annotated[str, StringConstraints(min_length=1)]
# A device's name becomes part of subjects on the bus and of URLs
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]*$")]
Port = Annotated[int, Field(ge=1, le=65535)]
SECRETS = {
    "netconf": ("password", "keyPassphrase"),
    "snmp": ("community", "authKey", "privKey", "writeCommunity"),
}
"""section -> its secrets. Each is given, or is what a file (xFile) or an environment variable (xEnv) holds."""
SHORTEST_KEY = 8
"""Characters of a pass phrase, at least (RFC 3414, 11.2)."""


def ways(secret: str) -> tuple[str, str, str]:
    """The keys by which a secret may be given."""
    return secret, f"{secret}File", f"{secret}Env"


class Section(strict.Strict):
    """What one adapter should know of a device; each of its ``secrets`` is given in one way at most."""

    def given(self, secret: str) -> bool:
        """Whether it is given. Raises ValueError when it is given twice."""
        found = [name for name in ways(secret) if getattr(self, name) is not None]
        if len(found) > 1:
            raise ValueError(f"give one of {' and '.join(found)}")
        return bool(found)


class Netconf(Section):
    """How to reach a device by NETCONF."""

    host: Text | None = None
    port: Port = 830
    username: Text
    password: Text | None = Field(None, repr=False)
    passwordFile: Text | None = None
    passwordEnv: Text | None = None
    keyFile: Text | None = None
    keyPassphrase: Text | None = Field(None, repr=False)
    keyPassphraseFile: Text | None = None
    keyPassphraseEnv: Text | None = None
    hostKey: Text | None = None
    knownHosts: Text | None = None
    trustFirstUse: bool = False
    callHome: bool = False
    notifications: bool = False

    @model_validator(mode="after")
    def _says_who_we_are(self) -> Self:
        if not self.given("password") and self.keyFile is None:
            raise ValueError("one of password, passwordFile, passwordEnv and keyFile is needed")
        if self.given("keyPassphrase") and self.keyFile is None:
            raise ValueError("a keyPassphrase is that of a keyFile, which is missing")
        if self.callHome and not (self.hostKey or self.knownHosts):
            raise ValueError("who calls home must prove itself: hostKey or knownHosts is needed")
        return self


class Poll(strict.Strict):
    """That a device is asked for its counters, and every how many seconds."""

    interval: float = Field(60, ge=1, le=86_400, strict=False)


class Snmp(Section):
    """What the SNMP adapter should know of a device: its interfaces, and by what community or user it is spoken to.

    With a user it is version 3: with an authKey its messages are authenticated, with a privKey encrypted too.
    """

    interfaces: dict[Annotated[int, Field(ge=1)], Text] = Field(default_factory=dict)
    host: Text | None = None
    port: Port = 161
    version: Literal["1", "2c", "3"] | None = None
    community: Text | None = Field(None, repr=False)
    communityFile: Text | None = None
    communityEnv: Text | None = None
    writeCommunity: Text | None = Field(None, repr=False)
    writeCommunityFile: Text | None = None
    writeCommunityEnv: Text | None = None
    user: Text | None = None
    authProtocol: Literal["MD5", "SHA", "SHA-224", "SHA-256", "SHA-384", "SHA-512"] = "SHA-256"
    authKey: Text | None = Field(None, repr=False)
    authKeyFile: Text | None = None
    authKeyEnv: Text | None = None
    privProtocol: Literal["DES", "AES", "AES-192", "AES-256"] = "AES"
    privKey: Text | None = Field(None, repr=False)
    privKeyFile: Text | None = None
    privKeyEnv: Text | None = None
    acceptCommunity: bool = False
    poll: Poll | None = None
    set: bool = False
    timeout: float = Field(2, gt=0, le=60, strict=False)

    @field_validator("version", mode="before")
    @classmethod
    def _version(cls, given: object) -> object:
        """1 and 3 are numbers in YAML."""
        return str(given) if type(given) is int else given

    @model_validator(mode="after")
    def _is_one_of_communities_or_users(self) -> Self:
        community, auth, priv, write = (self.given(secret) for secret in SECRETS["snmp"])
        if write and not self.set:
            raise ValueError("writeCommunity is for a device that is to be set: set is missing")
        if (community or write) and self.user is not None:
            raise ValueError("give a community (version 1 or 2c) or a user (version 3)")
        if (auth or priv) and self.user is None:
            raise ValueError("authKey and privKey are a user's: user is missing")
        if priv and not auth:
            raise ValueError("what is encrypted is authenticated, too: authKey is missing")
        if self.acceptCommunity and self.user is None:
            raise ValueError("acceptCommunity is for a device with a user: others are believed by their community")
        if self.version == "3" and self.user is None:
            raise ValueError("version 3 is spoken by a user: user is missing")
        if self.version in ("1", "2c") and self.user is not None:
            raise ValueError("a user is of version 3")
        if self.poll and not community and self.user is None:
            raise ValueError("who polls needs a community or a user")
        if self.set and not (community or write) and self.user is None:
            raise ValueError("who sets needs a community or a user")
        return self


class Flow(strict.Strict):
    """What the flow adapter should know of a device; the domain tells devices behind one exporter apart."""

    observationDomain: int | None = Field(None, ge=0, le=0xFFFFFFFF)


class Entry(strict.Strict):
    """One device. Sections of other adapters than ours are theirs to check."""

    model_config = strict.Strict.model_config | {"extra": "allow"}

    tenant: Name
    address: Text
    netconf: Netconf | None = None
    snmp: Snmp | None = None
    flow: Flow | None = None

    @field_validator("address")
    @classmethod
    def _is_address(cls, given: str) -> str:
        return address(str(ip_address(given)))

    @model_validator(mode="before")
    @classmethod
    def _sections_are_known(cls, given: Any) -> Any:
        """First of all: where one is misspelt something else is missing."""
        for name, section in given.items() if isinstance(given, dict) else ():
            if name in cls.model_fields:
                continue
            if name not in discovery.adapters():
                raise ValueError(f"{name}: this key is not known, and no adapter has this name")
            if not isinstance(section, dict):
                raise ValueError(f"{name}: must be a section of keys and values")
        return given


class Inventory(strict.Strict):
    """The file as a whole."""

    devices: dict[Name, Entry] = Field(default_factory=dict)


def where(settings: Settings, device: str, *keys: str) -> str:
    """Where in the devices file something of a device stands, as the beginning of a sentence about it."""
    place = ("devices", device, *keys)
    return strict.where(settings.devices, *place) if settings.devices else ".".join(place)


def load(file: Path | None) -> dict[str, Device]:
    """Read the devices file; without one there are no devices. Raises Misconfigured with file, line and key."""
    if file is None:
        return {}
    found = strict.read(Inventory, file)
    return {name: _device(file, name, entry) for name, entry in found.devices.items()}


def _device(file: Path, name: str, entry: Entry) -> Device:
    given: dict[str, dict[str, Any]] = entry.model_dump(
        exclude_unset=True, exclude_none=True, exclude={"tenant", "address"}
    )
    for section, secrets in SECRETS.items():
        if section in given:
            given[section] = _resolved(file, ("devices", name, section), given[section], secrets)
    return Device(name, entry.tenant, entry.address, given)


def _resolved(file: Path, place: tuple[str, ...], given: Mapping[str, Any], secrets: tuple[str, ...]) -> dict[str, Any]:
    """The section with its secrets instead of where they are; files stand beside the devices file."""
    section = dict(given)
    for secret in secrets:
        for way in ways(secret):
            if way in given:
                del section[way]
                section[secret] = _secret(file, (*place, way), given[way])
    for key in ("keyFile", "knownHosts"):
        if key in given:
            section[key] = str(file.parent / given[key])
            if not Path(section[key]).is_file():
                raise Misconfigured(f"{strict.where(file, *place, key)}: there is no such file")
    return section


def _secret(file: Path, place: tuple[str, ...], given: str) -> str:
    """What is given, or what the file or variable that it names holds. Raises Misconfigured."""
    found, way = given, place[-1]
    if way.endswith("File"):
        try:
            found = (file.parent / given).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise Misconfigured(f"{strict.where(file, *place)}: cannot be read") from error
    elif way.endswith("Env"):
        found = os.environ.get(given, "")
    what = way.removesuffix("File").removesuffix("Env")
    if not found:
        raise Misconfigured(f"{strict.where(file, *place)}: there is no {what} there")
    if what in ("authKey", "privKey") and len(found) < SHORTEST_KEY:
        raise Misconfigured(f"{strict.where(file, *place)}: a pass phrase has {SHORTEST_KEY} characters or more")
    return found
