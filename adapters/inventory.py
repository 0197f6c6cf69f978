"""The devices file: which network elements there are, whose they are, and how to reach them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from convergedon.adapters import discovery
from convergedon.adapters.contract import Device
from convergedon.adapters.intake import address
from convergedon.core import strict
from convergedon.core.errors import Misconfigured

Text = Annotated[str, StringConstraints(min_length=1)]
# A device's name becomes part of subjects on the bus and of URLs
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]*$")]
PASSWORDS = ("password", "passwordFile", "passwordEnv")


class Netconf(strict.Strict):
    """How to reach a device by NETCONF; the password is given, or stands in a file or an environment variable."""

    host: Text | None = None
    port: int = Field(830, ge=1, le=65535)
    username: Text
    password: Text | None = Field(None, repr=False)
    passwordFile: Text | None = None
    passwordEnv: Text | None = None
    keyFile: Text | None = None
    hostKey: Text | None = None
    trustFirstUse: bool = False

    @model_validator(mode="after")
    def _says_who_we_are(self) -> Self:
        given = [name for name in PASSWORDS if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"give one of {' and '.join(given)}")
        if not given and self.keyFile is None:
            raise ValueError("one of password, passwordFile, passwordEnv and keyFile is needed")
        return self


class Snmp(strict.Strict):
    """What the SNMP adapter should know of a device."""

    interfaces: dict[Annotated[int, Field(ge=1)], Text] = Field(default_factory=dict)


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

    @model_validator(mode="after")
    def _sections_are_known(self) -> Self:
        for name, section in (self.model_extra or {}).items():
            if name not in discovery.adapters():
                raise ValueError(f"{name}: this key is not known, and no adapter has this name")
            if not isinstance(section, dict):
                raise ValueError(f"{name}: must be a section of keys and values")
        return self


class Inventory(strict.Strict):
    """The file as a whole."""

    devices: dict[Name, Entry] = Field(default_factory=dict)


def load(file: Path | None) -> dict[str, Device]:
    """Read the devices file; without one there are no devices. Raises Misconfigured with the file and the key."""
    if file is None:
        return {}
    found = strict.read(Inventory, file)
    return {name: _device(file, name, entry) for name, entry in found.devices.items()}


def _device(file: Path, name: str, entry: Entry) -> Device:
    given: dict[str, dict[str, Any]] = entry.model_dump(
        exclude_unset=True, exclude_none=True, exclude={"tenant", "address"}
    )
    if "netconf" in given:
        given["netconf"] = _resolved(file, f"devices.{name}.netconf", given["netconf"])
    return Device(name, entry.tenant, entry.address, given)


def _resolved(file: Path, where: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The section with its password instead of where the password is; files stand beside the devices file."""
    section = {key: value for key, value in given.items() if key not in ("passwordFile", "passwordEnv")}
    if "passwordFile" in given:
        try:
            section["password"] = (file.parent / given["passwordFile"]).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise Misconfigured(f"{file}: {where}.passwordFile: cannot be read") from error
    if "passwordEnv" in given:
        section["password"] = os.environ.get(given["passwordEnv"], "")
    if "password" in section and not section["password"]:
        source = next(key for key in PASSWORDS if key in given)
        raise Misconfigured(f"{file}: {where}.{source}: there is no password there")
    if "keyFile" in given:
        section["keyFile"] = str(file.parent / given["keyFile"])
        if not Path(section["keyFile"]).is_file():
            raise Misconfigured(f"{file}: {where}.keyFile: there is no such file")
    return section
