"""What usage costs: Decimal from the first product to the rounded line, and rounded at one place only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from convergedon.core.errors import Invalid, Misconfigured

MOST = 10**20
"""More than any 64-bit counter holds; what is beyond could not be rounded to a cent in 28 digits."""


@dataclass(frozen=True)
class Charge:
    """``price`` in the tariff's currency for ``per`` units of a usage characteristic."""

    name: str
    characteristic: str
    per: Decimal
    price: Decimal


@dataclass(frozen=True)
class Tariff:
    currency: str
    places: int
    tax: Decimal
    charges: Mapping[str, Sequence[Charge]]


def rate(usage: Mapping[str, Any], tariff: Tariff) -> dict[str, Decimal]:
    """charge name -> exact amount without tax. Raises Invalid for a usage type or a value that has no price."""
    type_ = usage.get("usageType", "")
    if type_ not in tariff.charges:
        raise Invalid(f"the tariff has no usage type {type_!r}")
    given = {c["name"]: c["value"] for c in usage.get("usageCharacteristic") or []}
    return {charge.name: _quantity(given, charge) * charge.price / charge.per for charge in tariff.charges[type_]}


def _quantity(given: Mapping[str, Any], charge: Charge) -> Decimal:
    value = given.get(charge.characteristic, 0)
    try:
        quantity = Decimal(str(value))
    except InvalidOperation:
        raise Invalid(f"{charge.characteristic} must be a number, not {value!r}") from None
    if isinstance(value, bool) or not quantity.is_finite() or not 0 <= quantity < MOST:
        raise Invalid(f"{charge.characteristic} must be a number from 0 that a counter can hold, not {value!r}")
    return quantity


def round_money(amount: Decimal, tariff: Tariff) -> Decimal:
    """The one place where money is rounded: a bill's line, and the tax on it."""
    return amount.quantize(Decimal(1).scaleb(-tariff.places), ROUND_HALF_UP)


def money(amount: Decimal, tariff: Tariff) -> dict[str, Any]:
    """TMF's Money. Fifteen digits go through a JSON number unchanged; exact amounts are kept as text beside it."""
    return {"unit": tariff.currency, "value": float(amount)}


def load(path: Path | None = None) -> Tariff:
    """Read a tariff, or the one that ships. Raises Misconfigured naming file and key."""
    source = path or files(__package__).joinpath("tariff.yaml")
    try:
        read = yaml.safe_load(source.read_text(encoding="utf-8"))
        _only(read, ("currency", "places", "tax", "charges"))
        charges = {type_: [_charge(type_, about) for about in listed] for type_, listed in read["charges"].items()}
        tariff = Tariff(read["currency"], _places(read["places"]), _decimal(read["tax"], "tax"), charges)
    except (OSError, yaml.YAMLError, ValueError, TypeError, AttributeError) as error:
        raise Misconfigured(f"tariff {source}: {error}") from error
    except KeyError as error:
        raise Misconfigured(f"tariff {source}: {error.args[0]} is missing") from error
    return tariff


def _charge(type_: str, about: Mapping[str, Any]) -> Charge:
    _only(about, ("name", "characteristic", "per", "price"), f"charges.{type_}.")
    per = _decimal(about["per"], f"charges.{type_}.per")
    if per == 0:
        raise ValueError(f"charges.{type_}.per: must be more than 0")
    return Charge(about["name"], about["characteristic"], per, _decimal(about["price"], f"charges.{type_}.price"))


def _only(read: Mapping[str, Any], known: Sequence[str], where: str = "") -> None:
    unknown = sorted(read.keys() - set(known))
    if unknown:
        raise ValueError(f"{where}{unknown[0]}: unknown key")


def _places(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 6:
        raise ValueError(f"places: must be a whole number from 0 to 6, not {value!r}")
    return value


def _decimal(value: Any, key: str) -> Decimal:
    """A price is written as text or a whole number: a YAML float has lost its last digit already."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"{key}: write {value!r} as text or a whole number")
    try:
        found = Decimal(value)
    except InvalidOperation:
        raise ValueError(f"{key}: {value!r} is not a number") from None
    if not found.is_finite() or found < 0:
        raise ValueError(f"{key}: {value!r} must be a number from 0")
    return found
